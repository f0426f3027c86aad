"""Who is told of each new ring over GetRingStream.

A subscriber that is slow misses versions, never the newest one.  Each has one of the server's
threads while it listens, so that there are at most LIMIT.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from .keeper import Held

LIMIT = 1024
LOOK_SECONDS = 5.0  # how long one that has hung up may keep its thread


class Subscribers:
    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._held: Held | None = None
        self._count = 0
        self._closed = False

    def announce(self, held: Held) -> None:
        with self._condition:
            self._held = held
            self._condition.notify_all()

    def close(self) -> None:
        """End every stream."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def admit(self) -> bool:
        """Take a place, which stream() gives back; False: there are too many."""
        with self._condition:
            if self._count >= LIMIT or self._closed:
                return False
            self._count += 1
            return True

    def stream(self, context: grpc.ServicerContext) -> Iterator[Held]:
        """The ring of now and every later one, until the caller hangs up."""
        told = 0
        try:
            while context.is_active():
                with self._condition:
                    held = self._held
                    if self._closed:
                        return
                    if held is None or held.version <= told:
                        self._condition.wait(LOOK_SECONDS)
                        continue
                told = held.version
                yield held
        finally:
            with self._condition:
                self._count -= 1
