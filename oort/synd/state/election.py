"""The election of the leader, who holds a key of etcd for as long as its lease is kept alive.

A leader is identified by the revision at which its key was created, which is unique.  Every change
by a leader is conditional on that revision (`guard`).  Safety therefore does not depend on the
clock of the leader or on its belief that it leads; these only avoid calls that would fail.  If a
leader dies, its lease expires after `seconds`.  A leader that is closed gives up the key at once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from oort.clock import SYSTEM, Clock
from oort.errors import StateError, StateNotLeaderError, StateUnavailableError

from . import etcd_pb2 as messages
from .etcd_client import EtcdClient

_LOG = logging.getLogger("synd.etcd")
_PAUSE_SECONDS = 0.5  # after an error of etcd
_GIVE_UP_SECONDS = 1.0  # for revoking the lease


class Election:
    """Takes part in the election from `start` to `close`, on its own thread.

    That thread calls `changed` when leading begins and ends.  While another synd leads, it calls
    `look` now and then, because a watch can become silent.  The caller must report every state of
    the key that it sees, by the watch or by looking, with `observe`.
    """

    def __init__(
        self,
        client: EtcdClient,
        key: bytes,
        value: str,
        seconds: int,
        changed: Callable[[bool], None],
        look: Callable[[], object],
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._clock = clock
        self._key = key
        self._value = value
        self._seconds = seconds
        self._changed = changed
        self._look = look
        self._condition = threading.Condition()
        self._closed = False
        self._revision = 0  # the revision of etcd that _holder is from
        self._holder: messages.KeyValue | None = None
        self._lease = 0  # the lease of this synd
        self._valid_until = 0.0  # monotonic
        self._trouble: StateError | None = None
        self._thread = threading.Thread(target=self._run, name="etcd-election", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def leading(self) -> bool:
        with self._condition:
            return self._is_ours() and self._clock.monotonic() < self._valid_until

    @property
    def leader(self) -> str | None:
        with self._condition:
            return None if self._holder is None else self._holder.value.decode()

    def guard(self) -> messages.Compare:
        """The condition for every change; StateNotLeaderError if this synd does not lead."""
        with self._condition:
            if self._holder is not None and self._is_ours():
                return messages.Compare(
                    result=messages.Compare.EQUAL,
                    target=messages.Compare.CREATE,
                    key=self._key,
                    create_revision=self._holder.create_revision,
                )
        raise self.not_leading()

    def not_leading(self) -> StateNotLeaderError:
        with self._condition:
            if self._holder is not None and not self._is_ours():
                return StateNotLeaderError(f"{self._holder.value.decode()} leads")
            return StateNotLeaderError(f"no synd leads at present{self._because()}")

    def observe(self, revision: int, holder: messages.KeyValue | None) -> None:
        """Report the holder of the key at a revision of etcd; older revisions are ignored."""
        with self._condition:
            if revision >= self._revision:
                self._revision = revision
                self._holder = holder
                self._condition.notify_all()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _is_ours(self) -> bool:
        return self._lease != 0 and self._holder is not None and self._holder.lease == self._lease

    def _because(self) -> str:
        return "" if self._trouble is None else f" ({self._trouble})"

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._closed or self._holder is None, self._seconds
                )
                if self._closed:
                    return
                vacant = self._holder is None
            try:
                if vacant:
                    self._campaign()
                else:
                    self._look()
                    with self._condition:
                        self._trouble = None
            except StateError as error:
                self._failed(error)

    def _failed(self, error: StateError) -> None:
        with self._condition:
            if self._trouble is None:
                _LOG.warning("no election: %s", error)
            self._trouble = error
            self._condition.wait_for(lambda: self._closed, _PAUSE_SECONDS)

    def _campaign(self) -> None:
        """Try once to get the key; if that succeeds, hold it as long as possible."""
        begun = self._clock.monotonic()
        lease = self._client.grant(self._seconds)
        try:
            self._take(lease.ID)
            with self._condition:
                self._trouble = None
                self._lease = lease.ID
                self._valid_until = begun + lease.TTL
                ours = self._is_ours()
            if ours:
                self._changed(True)
                try:
                    self._hold(lease.ID, lease.TTL)
                finally:
                    with self._condition:
                        self._lease = 0
                    self._changed(False)
        finally:
            with self._condition:
                self._lease = 0
            with contextlib.suppress(StateUnavailableError):  # the lease expires anyway
                self._client.revoke(lease.ID, _GIVE_UP_SECONDS)

    def _take(self, lease: int) -> None:
        key, value = self._key, self._value.encode()
        vacant = messages.Compare(
            result=messages.Compare.EQUAL,
            target=messages.Compare.CREATE,
            key=key,
            create_revision=0,
        )
        put = messages.PutRequest(key=key, value=value, lease=lease)
        answer, _ = self._client.txn(
            messages.TxnRequest(
                compare=[vacant],
                success=[messages.RequestOp(request_put=put)],
                failure=[messages.RequestOp(request_range=messages.RangeRequest(key=key))],
            )
        )
        revision = answer.header.revision
        if answer.succeeded:
            holder = messages.KeyValue(
                key=key, value=value, create_revision=revision, mod_revision=revision, lease=lease
            )
            self.observe(revision, holder)
        else:
            # The key has our lease if an earlier try succeeded and its answer was lost.
            found = answer.responses[0].response_range.kvs
            self.observe(revision, found[0] if found else None)

    def _hold(self, lease: int, seconds: float) -> None:
        """Keep the lease alive until the lease or the key is lost, or this object is closed."""
        pause = seconds / 3
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or not self._is_ours(), pause)
                if self._closed or not self._is_ours():
                    return
                left = self._valid_until - self._clock.monotonic()
            if left <= 0:
                return
            begun = self._clock.monotonic()
            try:
                seconds = self._client.keep_alive(lease, min(left, self._seconds / 3))
            except StateUnavailableError as error:
                _LOG.warning("cannot renew the lease: %s", error)
                pause = 0  # the call has waited already
                continue
            if seconds <= 0:
                return
            pause = seconds / 3
            with self._condition:
                self._valid_until = begun + seconds
