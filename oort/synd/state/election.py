"""Who leads: whoever holds a key of etcd, for as long as its lease is kept alive.

A leader is told by the revision at which its key was created: no other leader ever has the same.
Every change a leader makes is conditional on that revision (`guard`), so what it thinks of itself,
and what its clock says, decides nothing: it only saves calls in vain.  A leader that dies leaves
its key to the lease, which runs out in `seconds`; one that is closed gives it up at once.
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
_PAUSE_SECONDS = 0.5  # after etcd has failed
_GIVE_UP_SECONDS = 1.0  # for telling etcd that the lease is not wanted any more


class Election:
    """Takes part in the election from `start` to `close`; a thread of its own does it.

    `changed` is called from that thread, when leading begins and when it ends; `look` now and then
    while somebody else leads, for a watch can go silent.  What is seen of the key, by the watch or
    by looking, must be told by `observe`.
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
        self._revision = 0  # as of which _holder is known
        self._holder: messages.KeyValue | None = None
        self._lease = 0  # ours
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
        """What a change must be conditional on; StateNotLeaderError where we do not lead."""
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
            return StateNotLeaderError(f"nobody leads at present{self._because()}")

    def observe(self, revision: int, holder: messages.KeyValue | None) -> None:
        """Who holds the key as of that revision of etcd; older news is passed over."""
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
        """Try once to get the key; then hold it for as long as it goes."""
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
            with contextlib.suppress(StateUnavailableError):  # then it runs out
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
            # With our lease, if an earlier try was done and its answer lost.
            found = answer.responses[0].response_range.kvs
            self.observe(revision, found[0] if found else None)

    def _hold(self, lease: int, seconds: float) -> None:
        """Keep the lease alive until it, the key or this object's time is over."""
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
                _LOG.warning("the lease is not renewed: %s", error)
                pause = 0  # the call has waited
                continue
            if seconds <= 0:
                return
            pause = seconds / 3
            with self._condition:
                self._valid_until = begun + seconds
