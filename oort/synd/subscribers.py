"""The subscribers of GetRingStream, which get every new ring.

A slow subscriber misses versions, but never the newest.  The stream of a subscriber that reads
nothing for STALLED_SECONDS is ended.  Streams need memory but no threads; there are at most LIMIT.
Streams have their own Deliveries, so that many subscribers in an unreachable network do not delay
other answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from oort.errors import RequestError
from oort.syndicate import syndicate_pb2 as messages

from .calls import Context, Deliveries
from .keeper import Held

LIMIT = 4096
STALLED_SECONDS = 30.0


class Subscribers:
    """The streams of one ring.  Methods must be called on the event loop."""

    def __init__(self) -> None:
        self._deliveries = Deliveries()
        self._held: Held | None = None
        self._waiting: set[asyncio.Event] = set()
        self._count = 0
        self._closed = False

    def announce(self, held: Held) -> None:
        self._held = held
        self._wake()

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def stream(self, context: Context) -> None:
        """Send the current ring and every later ring until the caller ends the call.

        Raises RequestError if there are too many subscribers, if this one stalls, or if synd stops.
        """
        if self._count >= LIMIT:
            raise RequestError(
                f"there are already {LIMIT} subscribers: use GetRing instead",
                "RESOURCE_EXHAUSTED",
            )
        event = asyncio.Event()
        self._count += 1
        self._waiting.add(event)
        try:
            async for held in self._versions(event):
                await self._send(context, held)
        finally:
            self._waiting.discard(event)
            self._count -= 1
        raise RequestError("synd is stopping: ask another synd, or ask again", "UNAVAILABLE")

    async def _versions(self, event: asyncio.Event) -> AsyncIterator[Held]:
        sent = 0
        while not self._closed:
            held = self._held
            if held is None or held.version <= sent:
                event.clear()
                await event.wait()
            else:
                sent = held.version
                yield held

    async def _send(self, context: Context, held: Held) -> None:
        message = messages.Ring(version=held.version, ring=held.data)
        try:
            async with self._deliveries:
                await asyncio.wait_for(context.write(message), STALLED_SECONDS)
        except TimeoutError:
            raise RequestError(
                f"the subscriber has read no ring for {STALLED_SECONDS:.0f} seconds",
                "DEADLINE_EXCEEDED",
            ) from None
