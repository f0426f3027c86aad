"""Who is told of each new ring over GetRingStream.

A subscriber that is slow misses versions, never the newest one; one that takes nothing for
STALLED_SECONDS is cut off.  Streams cost memory and no threads; there are at most LIMIT.  Their
deliveries are apart from other answers': a network that is cut off, with many subscribers in it,
keeps nobody else from a ring.
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
    """Every method is the event loop's."""

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
        """Send the ring of now and every later one, until the caller hangs up."""
        if self._count >= LIMIT:
            raise RequestError(
                f"there are {LIMIT} subscribers already: ask for the ring instead (GetRing)",
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
        raise RequestError("synd is stopping: ask another one, or again", "UNAVAILABLE")

    async def _versions(self, event: asyncio.Event) -> AsyncIterator[Held]:
        told = 0
        while not self._closed:
            held = self._held
            if held is None or held.version <= told:
                event.clear()
                await event.wait()
            else:
                told = held.version
                yield held

    async def _send(self, context: Context, held: Held) -> None:
        message = messages.Ring(version=held.version, ring=held.data)
        try:
            async with self._deliveries:
                await asyncio.wait_for(context.write(message), STALLED_SECONDS)
        except TimeoutError:
            raise RequestError(
                f"the subscriber has taken no ring for {STALLED_SECONDS:.0f} seconds",
                "DEADLINE_EXCEEDED",
            ) from None
