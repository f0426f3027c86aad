"""The common part of every call to synd: authorization, limits, and the mapping of errors.

Methods are coroutines on one event loop.  A call that waits (for a change to be durable, for a node
or for the next ring) needs a little memory and no thread.  A method raises an OortError, which
becomes a gRPC status here.  (The method of a stream writes to its context and returns nothing.)

    INVALID_ARGUMENT     the request contains an error, or is not a message of the protocol
    NOT_FOUND            the node is not in the ring
    ALREADY_EXISTS       another node has the id
    UNAUTHENTICATED      the caller's certificate has no role
    PERMISSION_DENIED    the caller's role may not do this; an address or a tier is outside the
                         filters
    RESOURCE_EXHAUSTED   more than MOST_CALLS at the same time, or too many subscribers
    UNAVAILABLE          there is no leader, or etcd or a node does not answer: ask again
    INTERNAL             the state is damaged or cannot be written; synd's log says more

Messages have at most MESSAGE_BYTES.  Compressed messages are refused, because the size of their
contents is unknown until they are decompressed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from oort.errors import (
    OortError,
    RegistrationError,
    RequestError,
    RingError,
    RingFormatError,
    StateNotLeaderError,
    StateUnavailableError,
    TLSError,
)
from oort.grpc_limits import NO_COMPRESSION
from oort.ring.builder import MAX_CONF_BYTES
from oort.tls import certificates, channels

MESSAGE_BYTES = MAX_CONF_BYTES + (1 << 20)
MOST_CALLS = 8192  # including subscribers
RINGS_AT_ONCE = 64  # answers with a ring that are sent at the same time by one Deliveries
SECONDS = 60.0  # limit of a call without a deadline of its own

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must be an error
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    # Requests wait in gRPC for the event loop.  Beyond gRPC's limits they would be cancelled
    # without a reason; the limit MOST_CALLS, which gives a reason, must be reached first.
    ("grpc.server.max_pending_requests", 4 * MOST_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 8 * MOST_CALLS),
    ("grpc.server_max_unrequested_time_in_server", 120),
    # Pings detect callers that are gone without having closed the connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Subscribers may send pings too, to check that synd still exists.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    *NO_COMPRESSION,
)

log = logging.getLogger("synd.calls")

Context = grpc.aio.ServicerContext[Any, Any]


class _Malformed:
    """Stands for a request that is not a message of the protocol."""


class Calls(grpc.aio.ServerInterceptor):
    """The interceptor of a server; each server has its own."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any] | None] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        deserializer = _guarded(handler.request_deserializer)
        if handler.response_streaming:
            wrapped = grpc.unary_stream_rpc_method_handler(
                _answered(method, handler.unary_stream), deserializer, handler.response_serializer
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                _answered(method, handler.unary_unary), deserializer, handler.response_serializer
            )
        self._handlers[method] = wrapped
        return wrapped


def _guarded(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except Exception:  # each implementation of protocol buffers raises other errors
            return _Malformed()

    return deserialize


def _answered(method: str, answer: Callable[[Any, Context], Awaitable[Any]]) -> Any:
    async def call(request: Any, context: Context) -> Any:
        try:
            _check(request)
            return await answer(request, context)
        except OortError as error:
            await context.abort(*_status(method, error))

    return call


def _check(request: Any) -> None:
    if isinstance(request, _Malformed):
        raise RequestError("the request is not a message of the protocol", "INVALID_ARGUMENT")


def _status(method: str, error: OortError) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, RequestError):
        return grpc.StatusCode[error.code], str(error)
    if isinstance(error, RegistrationError):
        code = grpc.StatusCode
        return code.PERMISSION_DENIED if error.denied else code.INVALID_ARGUMENT, str(error)
    if isinstance(error, StateUnavailableError | StateNotLeaderError):
        return grpc.StatusCode.UNAVAILABLE, str(error)
    if isinstance(error, RingError | TLSError) and not isinstance(error, RingFormatError):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    log.error("%s: %s", method, error)
    return grpc.StatusCode.INTERNAL, str(error)


def admit(context: Context, *roles: str) -> str:
    """Check the caller's role; returns the caller's name for the log.

    Raises RequestError if the caller has none of the roles.  Operators may make every call, and so
    may synds, because they forward calls.
    """
    caller = channels.peer_role(context)
    if caller is None:
        raise RequestError("the caller's certificate has no role", "UNAUTHENTICATED")
    role, subject = caller
    if role not in (*roles, certificates.OPERATOR, certificates.SYNDICATE):
        raise RequestError(
            f"role {role} may not do this: use a certificate of role operator",
            "PERMISSION_DENIED",
        )
    return f"{role} {subject}"


def seconds_left(context: Context) -> float:
    left = context.time_remaining()
    return SECONDS if left is None else min(SECONDS, left)


class Deliveries:
    """Limits the answers with a ring to RINGS_AT_ONCE at a time, because each needs memory until
    it has been sent.  Calls and streams have separate limits.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(RINGS_AT_ONCE)

    async def place(self, context: Context) -> None:
        """Wait for a place; the place is released when the call is over."""
        await self._places.acquire()
        free: Any = lambda _: self._places.release()  # noqa: E731
        context.add_done_callback(free)

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._places.release()
