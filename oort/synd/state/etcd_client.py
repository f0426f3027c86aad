"""A client of etcd's version 3 API: reads, transactions, leases and watches, over gRPC.

Any member of the cluster answers: a call that one of them does not answer goes to the next, again
and again until its time is over, then it ends in a StateUnavailableError.  So one call may be done
more than once, and a transaction whose answer was lost may still be done after the call has ended:
whoever makes one guards it with comparisons, so that it takes effect once at most.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import grpc

from oort.clock import SYSTEM, Clock
from oort.errors import StateError, StateUnavailableError

from . import etcd_pb2 as messages
from .etcd_pb2_grpc import KVStub, LeaseStub, WatchStub

_Answer = TypeVar("_Answer")
_CLOSED = "this connection to etcd is closed"
_PAUSE_SECONDS = 0.1  # when every member has failed, before the next round
_PASSING = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
_CURES = {
    grpc.StatusCode.INVALID_ARGUMENT: "look at etcd's limits (--max-request-bytes, --max-txn-ops)",
    grpc.StatusCode.PERMISSION_DENIED: "give synd's user or certificate the right to its keys",
    grpc.StatusCode.UNAUTHENTICATED: "give synd a certificate that etcd accepts",
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "etcd is full or overloaded: compact and defragment it, disarm its alarm, and set "
        "--auto-compaction-retention"
    ),
}
# A member that has lost its majority refuses, rather than letting a watch wait in silence.
_METADATA = (("hasleader", "true"),)
_OPTIONS = [
    # A connection that has gone dead is noticed; etcd allows a ping every 5 s.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 16 << 20),
    # Every state has connections of its own, so that one can be closed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})", re.ASCII)


class _Member:
    """The connection to one endpoint."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        if credentials is None:
            self.channel = grpc.insecure_channel(endpoint, _OPTIONS)
        else:
            self.channel = grpc.secure_channel(endpoint, credentials, _OPTIONS)
        self.kv: Any = KVStub(self.channel)
        self.lease: Any = LeaseStub(self.channel)
        self.watch: Any = WatchStub(self.channel)


class EtcdClient:
    """Connections to the members of one etcd; every method may be called from any thread.

    `endpoints` are host:port; with credentials all of them are TLS.  `timeout` is in seconds, for
    calls that name none.  Errors: StateUnavailableError where nobody answers in time (a change may
    have been made), StateError with etcd's own words where etcd refuses.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 5.0,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self.endpoints = [check_endpoint(endpoint) for endpoint in endpoints]
        if not self.endpoints:
            raise StateError("no etcd endpoint is configured: name at least one host:port")
        self._members = [_Member(endpoint, credentials) for endpoint in self.endpoints]
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._at = 0
        self._closed = threading.Event()

    def range(
        self, key: bytes, range_end: bytes = b"", timeout: float | None = None
    ) -> messages.RangeResponse:
        """The key, or all from `key` to before `range_end`, as of now: never a stale answer."""
        request = messages.RangeRequest(key=key, range_end=range_end)
        answer, _ = self._call(
            lambda member, how: cast(
                messages.RangeResponse,
                member.kv.Range(request, **how),
            ),
            timeout,
        )
        return answer

    def txn(
        self, request: messages.TxnRequest, timeout: float | None = None
    ) -> tuple[messages.TxnResponse, bool]:
        """The answer, and whether it was the first try: if not, an earlier one may be done too."""
        return self._call(
            lambda member, how: cast(messages.TxnResponse, member.kv.Txn(request, **how)),
            timeout,
        )

    def grant(self, seconds: int, timeout: float | None = None) -> messages.LeaseGrantResponse:
        """A new lease.  One whose answer was lost runs out by itself."""
        request = messages.LeaseGrantRequest(TTL=seconds)
        answer, _ = self._call(
            lambda member, how: cast(
                messages.LeaseGrantResponse,
                member.lease.LeaseGrant(request, **how),
            ),
            timeout,
        )
        if answer.error:
            raise StateError(f"etcd grants no lease: {answer.error}")
        return answer

    def keep_alive(self, lease: int, timeout: float | None = None) -> int:
        """Renew a lease: the seconds it has from now on, 0 when it is over."""
        request = messages.LeaseKeepAliveRequest(ID=lease)

        def once(member: _Member, how: dict[str, Any]) -> int:
            stream = member.lease.LeaseKeepAlive(iter([request]), **how)
            try:
                return cast(messages.LeaseKeepAliveResponse, next(stream)).TTL
            except StopIteration:
                return 0
            finally:
                stream.cancel()

        answer, _ = self._call(once, timeout)
        return answer

    def revoke(self, lease: int, timeout: float | None = None) -> None:
        """End a lease, and with it the keys that hang on it."""
        request = messages.LeaseRevokeRequest(ID=lease)

        def once(member: _Member, how: dict[str, Any]) -> None:
            try:
                member.lease.LeaseRevoke(request, **how)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

        self._call(once, timeout)

    @contextlib.contextmanager
    def watch(
        self, key: bytes, range_end: bytes, start_revision: int
    ) -> Iterator[Iterator[messages.WatchResponse]]:
        """The changes from `start_revision` on, as they come, from one member.

        They end without an error when etcd has forgotten that revision: read anew, then watch from
        there.  StateUnavailableError when the member has gone; the next watch asks another one.
        """
        create = messages.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision
        )
        over = threading.Event()

        def requests() -> Iterator[messages.WatchRequest]:
            yield messages.WatchRequest(create_request=create)
            over.wait()  # the watch lasts as long as its requests

        at, member = self._current()
        try:
            stream = member.watch.Watch(requests(), metadata=_METADATA)
        except ValueError as error:
            raise StateUnavailableError(_CLOSED) from error
        try:
            yield self._responses(at, stream)
        finally:
            over.set()
            stream.cancel()

    def close(self) -> None:
        """End every call that is under way, and all connections."""
        self._closed.set()
        for member in self._members:
            member.channel.close()

    def _responses(self, at: int, stream: Any) -> Iterator[messages.WatchResponse]:
        try:
            for response in stream:
                if response.canceled:
                    if response.compact_revision:
                        return
                    raise StateError(f"etcd refuses the watch: {response.cancel_reason}")
                yield response
        except grpc.RpcError as error:
            self._next(at)
            raise self._explained(error) from error
        self._next(at)
        raise StateUnavailableError(f"etcd at {self.endpoints[at]} ended the watch")

    def _call(
        self, once: Callable[[_Member, dict[str, Any]], _Answer], timeout: float | None
    ) -> tuple[_Answer, bool]:
        timeout = self._timeout if timeout is None else timeout
        deadline = self._clock.monotonic() + timeout
        # Time for another member, should one keep silent.
        share = timeout / min(len(self._members), 3)
        tries = 0
        why: StateError | None = None
        while True:
            at, member = self._current()
            left = max(deadline - self._clock.monotonic(), 0.001)
            how = {
                "timeout": min(left, share),
                "metadata": _METADATA,
                # Once all have failed: older versions of gRPC, Debian 12's among them, get no
                # further with a connection unless a call waits for it.
                "wait_for_ready": tries >= len(self._members),
            }
            try:
                return once(member, how), tries == 0
            except ValueError as error:  # what a closed channel raises
                if not self._closed.is_set():
                    raise
                raise StateUnavailableError(_CLOSED) from error
            except grpc.RpcError as error:
                explained = self._explained(error)
                if not isinstance(explained, StateUnavailableError):
                    raise explained from error
                if why is None or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    why = explained  # that time was over is the least of reasons
                tries += 1
                self._next(at)
                if tries % len(self._members) == 0:
                    left = deadline - self._clock.monotonic()
                    self._closed.wait(min(max(left, 0), _PAUSE_SECONDS))
                if self._closed.is_set() or self._clock.monotonic() >= deadline:
                    raise why from error

    def _current(self) -> tuple[int, _Member]:
        if self._closed.is_set():
            raise StateUnavailableError(_CLOSED)
        with self._mutex:
            return self._at, self._members[self._at]

    def _next(self, failed: int) -> None:
        """Ask another member from now on, unless somebody has already seen to it."""
        with self._mutex:
            if self._at == failed:
                self._at = (failed + 1) % len(self._members)

    def _explained(self, error: grpc.RpcError) -> StateError:
        code, details = error.code(), error.details()
        if code in _PASSING:
            return StateUnavailableError(
                f"no answer from etcd at {', '.join(self.endpoints)}: {details or code.name}"
            )
        cure = _CURES.get(code, "look into etcd's log")
        return StateError(f"etcd refuses: {details or code.name}; {cure}")


def check_endpoint(endpoint: str) -> str:
    """host:port, an IPv6 address in brackets; StateError for anything else."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match and 0 < int(match[2]) < 65536:
        if not match[1].startswith("["):
            return endpoint
        with contextlib.suppress(ValueError):
            ipaddress.IPv6Address(match[1][1:-1])
            return endpoint
    raise StateError(f"{endpoint!r} is not an etcd endpoint: host:port, [address]:port for IPv6")


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`, which ends in a plain letter."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
