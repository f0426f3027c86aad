"""What a syndicate keeps of one ring, and what a place that keeps it must promise.

A ring lives under the name of its service.  Kept are its newest builder and ring, as one version,
and small named facts beside them.  Versions are the rings' own: they only grow.

Two places: a directory (directory.py), and etcd (etcd.py) where the syndicate must survive a
machine.  Whichever it is: what `write`, `keep` and `put` returned from is durable, a change is
made wholly or not at all, and nobody who does not lead any more can change the ring.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import quote

from oort.errors import RingFormatError, StateConflict, StateError
from oort.ring import files

__all__ = [
    "Announcer",
    "Snapshot",
    "State",
    "StateConflict",
    "check_fact",
    "check_service",
    "check_snapshot",
    "encode_name",
]

MAX_NAME = 240
MAX_FACT = 1 << 20
_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Snapshot:
    """One version of a ring: the files as oort.ring writes them, the ring without a local node.

    Version 0, with both of them empty, is that there is nothing yet.
    """

    version: int = 0
    builder: bytes = b""
    ring: bytes = b""


class State(Protocol):
    """Where the ring of one service is kept.  Every method may be called from any thread.

    Errors: StateConflict (somebody else made a change first), StateNotLeaderError (a change must be
    made by the leader), StateUnavailableError (nothing answered in time; a change may or may not
    have been made: read what is there now), StateError (anything else, for the operator).
    """

    def read(self) -> Snapshot:
        """The newest version: whatever was written, by whomever, before this call."""

    def write(self, expected: int, new: Snapshot) -> None:
        """Replace version `expected` (0: nothing yet) by a newer one; durable on return.

        StateConflict where the version is not `expected`, then nothing has been changed.
        StateNotLeaderError where somebody else leads.  ValueError where `new` is not newer, and
        RingFormatError where it is not a builder and a ring of that version.
        """

    def keep(self, name: str, data: bytes) -> bytes:
        """Create a fact once for ever, and return what is kept: `data`, or what was there before.

        This needs no leader: of any number of callers, exactly one has its data kept.  A name is
        used with `keep` or with `put`, never with both.
        """

    def put(self, name: str, data: bytes) -> None:
        """Create or replace a small fact; only who leads may."""

    def take(self, name: str) -> bytes | None:
        """A fact as it is now, None where there is none; it stays where it is."""

    @property
    def leading(self) -> bool:
        """Whether changes can be made here.  It may be over when the caller looks at it."""

    @property
    def leader(self) -> str | None:
        """Where the one who leads is reached (host:port, as it says); None while nobody leads."""

    def watch(self, changed: Callable[[Snapshot], None]) -> None:
        """Call `changed` with the version that is there, and with the newest after each change.

        Versions only grow; where they come fast, some in between are left out.  See Announcer for
        the thread and for errors.
        """

    def on_lead(self, changed: Callable[[bool], None]) -> None:
        """Call `changed` with `leading` as it is, and whenever it changes; the same thread."""

    def close(self) -> None:
        """Stop leading and let go of everything; no callback runs when this has returned.

        Not to be called from a callback.
        """


class Announcer:
    """The one thread from which a state's callbacks are called, one at a time.

    Callbacks may use the state and take their time: what comes meanwhile waits, of snapshots the
    newest alone.  They must not raise: an exception ends the announcing, goes to
    threading.excepthook and makes every later use of the state fail with it (`check`).
    """

    def __init__(self, name: str) -> None:
        self._condition = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._announced: Snapshot | None = None
        self._leading = False
        self._pending: deque[Callable[[], None]] = deque()
        self._watchers: list[Callable[[Snapshot], None]] = []
        self._lead_watchers: list[Callable[[bool], None]] = []
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"{name}-announcer", daemon=True)
        self._thread.start()

    def snapshot(self, snapshot: Snapshot) -> None:
        """What is there now; one that is not newer than an earlier one is nothing new."""
        with self._condition:
            if self._snapshot is None or snapshot.version > self._snapshot.version:
                self._snapshot = snapshot
                self._condition.notify()

    def leading(self, leading: bool) -> None:
        with self._condition:
            if leading != self._leading:
                self._leading = leading
                self._pending.extend(partial(watcher, leading) for watcher in self._lead_watchers)
                self._condition.notify()

    def watch(self, changed: Callable[[Snapshot], None]) -> None:
        with self._condition:
            self._watchers.append(changed)
            if self._announced is not None:
                self._pending.append(partial(changed, self._announced))
                self._condition.notify()

    def on_lead(self, changed: Callable[[bool], None]) -> None:
        with self._condition:
            self._lead_watchers.append(changed)
            self._pending.append(partial(changed, self._leading))
            self._condition.notify()

    def check(self) -> None:
        """Raise StateError where a callback has failed, or after `close`."""
        if self._failure is not None:
            raise StateError(
                f"changes are not announced any more: {self._failure!r}; restart synd"
            ) from self._failure
        if self._closed:
            raise StateError("this state is closed")

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _next(self) -> Callable[[], None] | None:
        """What is to be called next; None when all is over."""
        with self._condition:
            while not self._closed:
                if self._pending:
                    return self._pending.popleft()
                snapshot = self._snapshot
                if snapshot is not None and snapshot is not self._announced:
                    self._announced = snapshot
                    self._pending.extend(partial(watcher, snapshot) for watcher in self._watchers)
                else:
                    self._condition.wait()
            return None

    def _run(self) -> None:
        try:
            while call := self._next():
                call()
        except BaseException as error:
            self._failure = error
            raise


def check_service(service: str) -> str:
    """The name of a service: letters, digits, `_`, `.` and `-`, at most 64."""
    if not _SERVICE.fullmatch(service):
        raise StateError(
            f"{service!r} cannot be the name of a service: "
            "letters, digits, _, . and -, not beginning with . or -, at most 64"
        )
    return service


def encode_name(name: str) -> str:
    """The name of a fact (any text) as part of a path: %-encoded, at most 240 characters."""
    encoded = quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
    if not 0 < len(encoded) <= MAX_NAME:
        raise ValueError(f"a fact's name is 1 to {MAX_NAME} characters when encoded: {name!r}")
    return encoded


def check_fact(data: bytes) -> bytes:
    """ValueError for more than 1 MiB, which not every state could store."""
    if len(data) > MAX_FACT:
        raise ValueError(f"a fact has at most {MAX_FACT} bytes, not {len(data)}")
    return data


def check_snapshot(snapshot: Snapshot) -> None:
    """RingFormatError unless these are a builder and a ring, the ring of this version."""
    files.decode_builder(snapshot.builder)
    ring = files.decode_ring(snapshot.ring)
    if ring.version != snapshot.version:
        raise RingFormatError(f"the ring of version {snapshot.version} says {ring.version}")
