"""The state of one ring: its contents, and the contract of every implementation.

A ring is stored under the name of its service.  The state contains the newest builder and ring, as
one version, and small named facts.  Versions are the versions of the rings, which only grow.

There are two implementations: a directory (directory.py), and etcd (etcd.py) for syndicates that
must survive the loss of a machine.  In both, a change is durable when `write`, `keep` or `put`
returns, every change is atomic, and a synd that no longer leads cannot change the ring.
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
    """One version of a ring: the bytes of its builder file and of its ring file.

    The ring has no local node.  Version 0, with empty bytes, means that there is no ring yet.
    """

    version: int = 0
    builder: bytes = b""
    ring: bytes = b""


class State(Protocol):
    """The state of one service.  Every method may be called from any thread.

    Errors: StateConflict (another synd made a change first), StateNotLeaderError (only the leader
    can make the change), StateUnavailableError (no answer in time; a change may or may not have
    been made, so read the state again), StateError (anything else, for the operator).
    """

    def read(self) -> Snapshot:
        """The newest version, including every write by any synd that ended before this call."""

    def write(self, expected: int, new: Snapshot) -> None:
        """Replace version `expected` (0: there is none yet) by a newer version, durably.

        Raises StateConflict if the version is not `expected` (nothing was changed then),
        StateNotLeaderError if another synd leads, ValueError if `new` is not newer, and
        RingFormatError if `new` is not a builder and a ring of its version.
        """

    def keep(self, name: str, data: bytes) -> bytes:
        """Create a permanent fact and return its data: `data`, or the data stored before.

        This needs no leader.  If several callers create the same fact, exactly one succeeds.  A
        name must be used either with `keep` or with `put`.
        """

    def put(self, name: str, data: bytes) -> None:
        """Create or replace a small fact; only the leader may."""

    def take(self, name: str) -> bytes | None:
        """Read a fact; None if it does not exist.  The fact is not removed."""

    @property
    def leading(self) -> bool:
        """Whether this synd is the leader, which may change at any moment."""

    @property
    def leader(self) -> str | None:
        """The address that the leader advertises (host:port); None if there is no leader."""

    def watch(self, changed: Callable[[Snapshot], None]) -> None:
        """Call `changed` with the present version, and with the newest version after each change.

        Versions only grow.  If they follow each other fast, some are left out.  See Announcer for
        the thread and for errors.
        """

    def on_lead(self, changed: Callable[[bool], None]) -> None:
        """Call `changed` with the present value of `leading`, and with every later value.

        The calls are made by the thread that calls the watchers.
        """

    def close(self) -> None:
        """Stop leading and release everything; no callback runs after this has returned.

        Must not be called from a callback.
        """


class Announcer:
    """The thread that calls a state's callbacks, one at a time.

    Callbacks may use the state and may be slow.  Later events wait; of the snapshots only the
    newest waits.  Callbacks must not raise.  An exception ends the thread, goes to
    threading.excepthook, and makes every later use of the state fail (`check`).
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
        """Announce a snapshot, unless it is not newer than an earlier one."""
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
        """Raise StateError if a callback has failed, or after `close`."""
        if self._failure is not None:
            raise StateError(
                f"changes are no longer announced: {self._failure!r}; restart synd"
            ) from self._failure
        if self._closed:
            raise StateError("this state is closed")

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next call; None after `close`."""
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
    """Check the name of a service and return it; StateError if it is invalid."""
    if not _SERVICE.fullmatch(service):
        raise StateError(
            f"{service!r} cannot be the name of a service: use at most 64 letters, digits, "
            "_, . and -, and do not begin with . or -"
        )
    return service


def encode_name(name: str) -> str:
    """The name of a fact (any text) as part of a path: %-encoded, at most 240 characters.

    Raises ValueError if the name is empty or too long.
    """
    encoded = quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
    if not 0 < len(encoded) <= MAX_NAME:
        raise ValueError(f"the encoded name of a fact has 1 to {MAX_NAME} characters: {name!r}")
    return encoded


def check_fact(data: bytes) -> bytes:
    """Check and return the data of a fact; ValueError if it is larger than 1 MiB.

    This is a limit of etcd.
    """
    if len(data) > MAX_FACT:
        raise ValueError(f"a fact has at most {MAX_FACT} bytes, not {len(data)}")
    return data


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise RingFormatError if builder or ring is invalid, or the ring has another version."""
    files.decode_builder(snapshot.builder)
    ring = files.decode_ring(snapshot.ring)
    if ring.version != snapshot.version:
        raise RingFormatError(
            f"the ring of version {snapshot.version} contains version {ring.version}"
        )
