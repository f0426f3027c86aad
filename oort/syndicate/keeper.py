"""The ring of one service: every change goes through here, one after the other.

Changes that wait together are made together: one rebalance, one version, one durable write for all
of them, however many nodes register at once.  A change is a function that is given the builder; it
may be called again on a newer builder when another synd was faster.  One that raises changes
nothing, and keeps none of the others back.  What changes nothing makes no version.

Nobody hears of a version before it is durable: it is announced by the state itself.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from oort.errors import (
    OortError,
    RingError,
    StateConflict,
    StateError,
    StateUnavailableError,
)
from oort.ring import files
from oort.ring.builder import Builder
from oort.ring.ring import Ring

from .config import Service
from .state import Snapshot, State

BATCH = 4096  # changes made together
WAITING = 65536  # changes that may wait; more are refused
ATTEMPTS = 8  # against other synds

Result = TypeVar("Result")

log = logging.getLogger("synd.ring")


class Unchanged(Generic[Result]):
    """What a change returns that left the builder as it was."""

    def __init__(self, result: Result) -> None:
        self.result = result


Change = Callable[[Builder], Any]


@dataclass(frozen=True)
class Held:
    """A version as it is handed out."""

    version: int
    data: bytes  # the ring's file
    ring: Ring


@dataclass
class _Waiting:
    change: Change
    future: Future[tuple[Any, int]]


class RingKeeper:
    """Thread safe.  watchers(held) are called on one thread, after each version is durable."""

    def __init__(self, service: Service, state: State) -> None:
        self._service = service
        self._state = state
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(WAITING)
        self._held: Held | None = None
        self._learning = threading.Lock()
        self._builder: Builder | None = None  # of version _builder_version; the changer's alone
        self._builder_version = 0
        self._watchers: list[Callable[[Held], None]] = []
        self._thread = threading.Thread(
            target=self._run, name=f"{service.name}-changer", daemon=True
        )

    def start(self) -> None:
        """Know the newest version, and follow it; without any, make the first where we may."""
        snapshot = self._state.read()
        if snapshot.version:
            self._learn(snapshot)
        self._thread.start()
        self._state.watch(self._learn)
        self._state.on_lead(self._lead)

    def close(self) -> None:
        """No more changes; those that wait are refused."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, changed: Callable[[Held], None]) -> None:
        """Before start(): called for each version from then on; some in between may be left out."""
        self._watchers.append(changed)

    @property
    def held(self) -> Held:
        """The newest version.  StateUnavailableError while there is none at all."""
        held = self._held
        if held is None:
            raise StateUnavailableError("there is no ring yet: no synd leads; ask again")
        return held

    def change(self, change: Callable[[Builder], Result], timeout: float) -> tuple[Result, int]:
        """Make a change; what it returned, and the version in which it is durable.

        Raises what the change raised; StateNotLeaderError where another synd leads.
        """
        future: Future[tuple[Any, int]] = Future()
        try:
            self._queue.put_nowait(_Waiting(change, future))
        except queue.Full:
            raise StateUnavailableError("too many changes wait: ask again") from None
        try:
            result, version = future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise StateUnavailableError(
                "not done in time; it may or may not have been made: look at the ring"
            ) from None
        return result, version

    # ---- the versions ---------------------------------------------------------

    def _learn(self, snapshot: Snapshot) -> None:
        """From the state's thread, and from the changer: who made a change may ask at once."""
        with self._learning:
            held = self._held
            if snapshot.version <= (held.version if held is not None else 0):
                return
            ring = files.decode_ring(snapshot.ring)
            self._held = Held(snapshot.version, snapshot.ring, ring)
            for watcher in self._watchers:
                watcher(self._held)

    def _lead(self, leading: bool) -> None:
        log.info("%s: %s", self._service.name, "leading" if leading else "not leading")
        if leading and self._held is None:
            try:
                self._queue.put_nowait(_Waiting(lambda builder: None, Future()))
            except queue.Full:
                return  # any change makes the first version

    # ---- the changer's thread ---------------------------------------------------

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                break
            batch, ended = [first], False
            while len(batch) < BATCH and not ended:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                ended = following is None
                if following is not None:
                    batch.append(following)
            batch = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if batch:
                self._make(batch)
            if ended:
                break
        while not self._queue.empty():
            left = self._queue.get()
            if left is not None and left.future.set_running_or_notify_cancel():
                left.future.set_exception(StateUnavailableError("synd is stopping"))

    def _make(self, batch: list[_Waiting]) -> None:
        try:
            for _ in range(ATTEMPTS):
                try:
                    done = self._attempt(batch)
                    break
                except StateConflict:
                    self._builder = None
            else:
                raise StateUnavailableError("other synds change the ring all the time: ask again")
        except Exception as error:
            self._builder = None  # what it holds is in no version
            if not isinstance(error, OortError):
                log.exception("%s: a change failed", self._service.name)
            for one in batch:
                one.future.set_exception(error)
            return
        for future, outcome, version in done:
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result((outcome, version))

    def _attempt(self, batch: list[_Waiting]) -> list[tuple[Future[Any], Any, int]]:
        """All of them on one builder, one write; what came of each."""
        builder = self._newest_builder()
        outcomes: list[tuple[Future[Any], Any]] = []
        changed = builder.version == 0
        for one in batch:
            try:
                outcome = one.change(builder)
            except OortError as error:
                outcome = error
            if isinstance(outcome, Unchanged):
                outcome = outcome.result
            elif not isinstance(outcome, Exception):
                changed = True
            outcomes.append((one.future, outcome))
        version = self._builder_version
        if changed:
            version = self._write(builder)
        return [(future, outcome, version) for future, outcome in outcomes]

    def _write(self, builder: Builder) -> int:
        before = self._builder_version
        self._builder = None  # until it is durable
        report = builder.rebalance()
        snapshot = Snapshot(builder.version, files.encode(builder), files.encode(builder.ring()))
        self._state.write(before, snapshot)
        self._builder, self._builder_version = builder, builder.version
        log.info(
            "%s: version %d, %d nodes, %d replicas given a node",
            self._service.name,
            builder.version,
            len(builder.nodes),
            report.assigned + report.reassigned + report.moved,
        )
        self._learn(snapshot)
        return builder.version

    def _newest_builder(self) -> Builder:
        held = self._held
        if self._builder is not None and (held is None or held.version <= self._builder_version):
            return self._builder
        snapshot = self._state.read()
        if snapshot.version:
            builder = files.decode_builder(snapshot.builder)
        else:
            builder = Builder(self._service.replicas, self._service.ring)
        if builder.version != snapshot.version:
            raise StateError(f"the builder of version {snapshot.version} says {builder.version}")
        self._builder, self._builder_version = builder, snapshot.version
        self._apply_settings(builder)
        return builder

    def _apply_settings(self, builder: Builder) -> None:
        """The configuration's, from the next version on."""
        ring = self._service.ring
        try:
            builder.change_settings(
                points_allowed=ring.points_allowed,
                max_partition_bits=ring.max_partition_bits,
                move_wait=ring.move_wait,
            )
        except RingError as error:
            raise StateError(f"settings of {self._service.name}: {error}") from error
