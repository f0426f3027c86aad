"""The ring of one service: all changes go through one thread, in order.

Waiting changes are made as one batch: one rebalance, one version and one durable write, however
many nodes register at the same time.  A change is a function of a draft.  It may be called again on
a newer draft if another synd made a change first.  A change that raises an error changes nothing
and does not stop the others: if a batch fails, each change is made alone.  A batch that changes
nothing makes no version.

A version is not announced before it is durable.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from oort.clock import SYSTEM, Clock
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
from oort.synd.state.state import Snapshot, State

from .config import Service
from .draft import Draft, Index, Unchanged

BATCH = 4096  # changes in a batch
WAITING = 65536  # changes that may wait; more are refused
ATTEMPTS = 8  # retries after a change by another synd
LONGEST_REST = 1.0  # seconds between two versions, during which changes accumulate

Result = TypeVar("Result")

log = logging.getLogger("synd.ring")

Change = Callable[[Draft], Any]


@dataclass(frozen=True)
class Held:
    """A durable version of the ring."""

    version: int
    data: bytes  # the bytes of the ring file
    ring: Ring

    @functools.cached_property
    def index(self) -> Index:
        return Index(self.ring.nodes)


@dataclass
class _Waiting:
    change: Change
    future: Future[tuple[Any, int]]


@dataclass(frozen=True)
class _Done:
    """The outcome of a change: an exception, or its result and the version that contains it."""

    waiting: _Waiting
    outcome: Any
    version: int = 0


class RingKeeper:
    """Stores and changes the ring of one service.  Thread safe.

    Watchers are called after a version is durable, by one thread at a time.
    """

    def __init__(self, service: Service, state: State, clock: Clock = SYSTEM) -> None:
        self._service = service
        self._state = state
        self._clock = clock
        self._closing = threading.Event()
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(WAITING)
        self._held: Held | None = None
        self._learning = threading.Lock()
        self._draft: Draft | None = None  # of version _version; used only by the changer's thread
        self._version = 0
        self._watchers: list[Callable[[Held], None]] = []
        self._thread = threading.Thread(
            target=self._run, name=f"{service.name}-changer", daemon=True
        )

    def start(self) -> None:
        """Read the newest version and follow later ones.

        If there is no version, the leader makes the first.
        """
        snapshot = self._state.read()
        if snapshot.version:
            self._learn(snapshot)
        self._thread.start()
        self._state.watch(self._learn)
        self._state.on_lead(self._lead)

    def close(self) -> None:
        """Stop making changes; waiting changes are refused."""
        self._closing.set()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def configure(self, service: Service) -> None:
        """Use other settings from the next version on."""
        self._service = service

    def watch(self, changed: Callable[[Held], None]) -> None:
        """Register a watcher, before start(); it may miss versions, but never the newest."""
        self._watchers.append(changed)

    @property
    def held(self) -> Held:
        """The newest version; StateUnavailableError if there is none yet."""
        held = self._held
        if held is None:
            raise StateUnavailableError("there is no ring yet, because no synd leads: ask again")
        return held

    def change(self, change: Change) -> Future[tuple[Any, int]]:
        """Queue a change; the future gives its result and the version that contains it.

        The future fails with the error of the change, or with StateNotLeaderError if another synd
        leads.  Cancelling the future only stops a change that has not begun.  Raises
        StateUnavailableError if too many changes wait.
        """
        future: Future[tuple[Any, int]] = Future()
        try:
            self._queue.put_nowait(_Waiting(change, future))
        except queue.Full:
            raise StateUnavailableError("too many changes wait: ask again") from None
        return future

    # ---- the versions ---------------------------------------------------------

    def _learn(self, snapshot: Snapshot, ring: Ring | None = None) -> None:
        """Announce a version.

        Called by the state's thread, and by the changer's thread so that a caller sees its own
        change at once.
        """
        with self._learning:
            held = self._held
            if snapshot.version <= (held.version if held is not None else 0):
                return
            ring = ring or files.decode_ring(snapshot.ring)
            self._held = Held(snapshot.version, snapshot.ring, ring)
            for watcher in self._watchers:
                watcher(self._held)

    def _lead(self, leading: bool) -> None:
        log.info("%s: %s", self._service.name, "leading" if leading else "not leading")
        if leading and self._held is None:
            try:
                first = self.change(Unchanged)
            except StateUnavailableError:
                return  # the first of the waiting changes will make the first version
            first.add_done_callback(self._made_first)

    def _made_first(self, first: Future[tuple[Any, int]]) -> None:
        error = first.exception()
        if error is not None:
            log.error(
                "%s: cannot make the first version of the ring: %s", self._service.name, error
            )

    # ---- the changer's thread ---------------------------------------------------

    def _run(self) -> None:
        ended, rested = False, 0.0
        while not ended:
            first = self._queue.get()
            # The pause is as long as the last batch took.  If many nodes register, the batches
            # grow, and other calls are answered during the pauses.
            if first is not None:
                self._closing.wait(max(0.0, rested - self._clock.monotonic()))
            batch = [] if first is None else [first]
            ended = first is None
            while not ended and len(batch) < BATCH:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    batch.append(following)
            batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if batch:
                begun = self._clock.monotonic()
                _complete(self._make(batch))
                took = self._clock.monotonic() - begun
                rested = begun + took + min(took, LONGEST_REST)
        while not self._queue.empty():
            left = self._queue.get()
            if left is not None and left.future.set_running_or_notify_cancel():
                left.future.set_exception(StateUnavailableError("synd is stopping: ask again"))

    def _make(self, batch: list[_Waiting]) -> list[_Done]:
        """Make all changes together; if that fails because of the ring, make each alone."""
        try:
            for _ in range(ATTEMPTS):
                try:
                    return self._attempt(batch)
                except StateConflict:
                    self._draft = None
            error: Exception = StateUnavailableError(
                "other synds keep changing the ring: ask again"
            )
        except Exception as raised:
            error = raised
        self._draft = None  # its changes are in no version
        if len(batch) > 1 and isinstance(error, RingError):
            return [done for waiting in batch for done in self._make([waiting])]
        if not isinstance(error, OortError):
            log.error("%s: a change failed", self._service.name, exc_info=error)
            error = StateError(f"a change failed: {error!r}")
        return [_Done(waiting, error) for waiting in batch]

    def _attempt(self, batch: list[_Waiting]) -> list[_Done]:
        """Make the changes on one draft, with one write."""
        draft = self._newest()
        done = []
        changed = draft.builder.version == 0
        for waiting in batch:
            try:
                outcome = waiting.change(draft)
            except OortError as error:
                outcome = error
            except Exception as error:
                log.exception("%s: a change failed", self._service.name)
                outcome = StateError(f"a change failed: {error!r}")
            if isinstance(outcome, Unchanged):
                outcome = outcome.result
            elif not isinstance(outcome, Exception):
                changed = True
            done.append(_Done(waiting, outcome))
        version = self._write(draft) if changed else self._version
        return [_Done(each.waiting, each.outcome, version) for each in done]

    def _write(self, draft: Draft) -> int:
        before, builder = self._version, draft.builder
        self._draft = None  # until it is durable
        report = builder.rebalance(int(self._clock.wall() * 1e9))
        ring = builder.ring()
        snapshot = Snapshot(builder.version, files.encode(builder), files.encode(ring))
        self._state.write(before, snapshot)
        self._draft, self._version = draft, builder.version
        log.info(
            "%s: version %d, %d nodes, %d replicas given a node",
            self._service.name,
            builder.version,
            len(builder.nodes),
            report.assigned + report.reassigned + report.moved,
        )
        self._learn(snapshot, ring)
        return builder.version

    def _newest(self) -> Draft:
        held = self._held
        if self._draft is None or (held is not None and held.version > self._version):
            snapshot = self._state.read()
            if snapshot.version:
                builder = files.decode_builder(snapshot.builder)
            else:
                builder = Builder(self._service.replicas, self._service.ring)
            if builder.version != snapshot.version:
                raise StateError(
                    f"the builder of version {snapshot.version} contains version {builder.version}"
                )
            self._draft, self._version = Draft(builder), snapshot.version
        self._apply_settings(self._draft.builder)
        return self._draft

    def _apply_settings(self, builder: Builder) -> None:
        """Apply the settings of the configuration, which take effect with the next version."""
        ring = self._service.ring
        builder.change_settings(
            points_allowed=ring.points_allowed,
            max_partition_bits=ring.max_partition_bits,
            move_wait=ring.move_wait,
        )


def _complete(done: list[_Done]) -> None:
    for each in done:
        if isinstance(each.outcome, Exception):
            each.waiting.future.set_exception(each.outcome)
        else:
            each.waiting.future.set_result((each.outcome, each.version))
