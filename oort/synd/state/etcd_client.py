"""A client of etcd's version 3 API: reads, transactions, leases and watches, over gRPC.

Any member of the cluster can answer.  A call without an answer goes to the next member, until its
time is over.  Then it raises StateUnavailableError.  A call may therefore be executed more than
once, and a transaction whose answer was lost may be executed even after the call has ended.
Callers guard transactions with comparisons, so that each takes effect at most once.

The API: https://etcd.io/docs/v3.5/learning/api/
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
_PAUSE_SECONDS = 0.1  # before the next round after every member has failed
_PASSING = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
_CURES = {
    grpc.StatusCode.INVALID_ARGUMENT: "check etcd's limits (--max-request-bytes, --max-txn-ops)",
    grpc.StatusCode.PERMISSION_DENIED: "give synd's user or certificate access to its keys",
    grpc.StatusCode.UNAUTHENTICATED: "give synd a certificate that etcd accepts",
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "etcd is full or overloaded: compact and defragment it, disarm its alarm, and set "
        "--auto-compaction-retention"
    ),
}
# With this a member without a leader refuses a call; otherwise a watch would wait in silence.
_METADATA = (("hasleader", "true"),)
_OPTIONS = [
    # Pings detect dead connections; etcd allows a ping every 5 s.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 16 << 20),
    # Every state has its own connections, so that they can be closed separately.
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

    `endpoints` are host:port; with `credentials` all connections use TLS.  `timeout` is in seconds,
    for calls without a timeout of their own.  Methods raise StateUnavailableError if no member
    answers in time (a change may have been made), and StateError with etcd's message if etcd
    refuses a call.
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
        """The key, or all keys from `key` to before `range_end`; the read is linearizable."""
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
        """The answer, and whether it is from the first try.

        If it is not, an earlier try may have been executed too.
        """
        return self._call(
            lambda member, how: cast(messages.TxnResponse, member.kv.Txn(request, **how)),
            timeout,
        )

    def grant(self, seconds: int, timeout: float | None = None) -> messages.LeaseGrantResponse:
        """A new lease of `seconds`.  If the answer is lost, the lease expires by itself."""
        request = messages.LeaseGrantRequest(TTL=seconds)
        answer, _ = self._call(
            lambda member, how: cast(
                messages.LeaseGrantResponse,
                member.lease.LeaseGrant(request, **how),
            ),
            timeout,
        )
        if answer.error:
            raise StateError(f"etcd granted no lease: {answer.error}")
        return answer

    def keep_alive(self, lease: int, timeout: float | None = None) -> int:
        """Renew a lease; returns its remaining seconds, or 0 if it has expired."""
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
        """End a lease, which removes the keys attached to it."""
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
        """The changes from `start_revision` on, from one member.

        The iterator ends without an error if etcd has compacted that revision; the caller must
        then read the keys again and watch from there.  It raises StateUnavailableError if the
        member is gone; the next watch uses another member.
        """
        create = messages.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision
        )
        over = threading.Event()

        def requests() -> Iterator[messages.WatchRequest]:
            yield messages.WatchRequest(create_request=create)
            over.wait()  # the watch ends when the stream of requests ends

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
        """End every running call and close all connections."""
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
        # The share leaves time for another member if one does not answer.
        share = timeout / min(len(self._members), 3)
        tries = 0
        why: StateError | None = None
        while True:
            at, member = self._current()
            left = max(deadline - self._clock.monotonic(), 0.001)
            how = {
                "timeout": min(left, share),
                "metadata": _METADATA,
                # After all members have failed, a call must wait for the connection: older versions
                # of gRPC, such as Debian 12's, otherwise make no progress with it.
                "wait_for_ready": tries >= len(self._members),
            }
            try:
                return once(member, how), tries == 0
            except ValueError as error:  # gRPC raises this for a closed channel
                if not self._closed.is_set():
                    raise
                raise StateUnavailableError(_CLOSED) from error
            except grpc.RpcError as error:
                explained = self._explained(error)
                if not isinstance(explained, StateUnavailableError):
                    raise explained from error
                if why is None or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    why = explained  # any reason is better than an exceeded deadline
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
        """Use the next member from now on, unless another thread has already switched."""
        with self._mutex:
            if self._at == failed:
                self._at = (failed + 1) % len(self._members)

    def _explained(self, error: grpc.RpcError) -> StateError:
        code, details = error.code(), error.details()
        if code in _PASSING:
            return StateUnavailableError(
                f"no answer from etcd at {', '.join(self.endpoints)}: {details or code.name}"
            )
        cure = _CURES.get(code, "check etcd's log")
        return StateError(f"etcd refuses: {details or code.name}; {cure}")


def check_endpoint(endpoint: str) -> str:
    """Check a host:port (IPv6 in brackets) and return it; StateError if it is invalid."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match and 0 < int(match[2]) < 65536:
        if not match[1].startswith("["):
            return endpoint
        with contextlib.suppress(ValueError):
            ipaddress.IPv6Address(match[1][1:-1])
            return endpoint
    raise StateError(
        f"{endpoint!r} is not an etcd endpoint: use host:port, or [address]:port for IPv6"
    )


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with this prefix; its last byte must be below 0xFF."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
