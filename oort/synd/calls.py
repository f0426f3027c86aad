"""What every call to synd goes through: who calls, how many at once, errors as gRPC has them.

Methods are coroutines on one event loop, so that a call that waits (for a change to be durable, for
a node, for the next ring) costs a little memory and no thread.  A method raises what went wrong;
here it becomes one of gRPC's codes (a stream's method writes to its context and returns nothing):

    INVALID_ARGUMENT     what is wrong in a request, protocol buffers that are none
    NOT_FOUND            a node that is not in the ring
    ALREADY_EXISTS       an id that another node has
    UNAUTHENTICATED      a certificate without a role
    PERMISSION_DENIED    a role that may not, an address or a tier outside the filters
    RESOURCE_EXHAUSTED   more than MOST_CALLS at once, too many subscribers
    UNAVAILABLE          nobody leads, etcd or a node does not answer: it may work a moment later
    INTERNAL             the state is damaged or cannot be written; synd's log says more

Messages have at most MESSAGE_BYTES, and compressed ones are refused: what a small one expands to
is not known before it is there.
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
MOST_CALLS = 8192  # those that listen for rings are among them
RINGS_AT_ONCE = 64  # answers of one kind with a ring in them that are on their way
SECONDS = 60.0  # of a call without a deadline of its own

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # else a second server on the port goes unnoticed
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    # What gRPC has taken from the network waits for the event loop; beyond its limits it would be
    # cancelled without a reason, and MOST_CALLS says one.
    ("grpc.server.max_pending_requests", 4 * MOST_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 8 * MOST_CALLS),
    ("grpc.server_max_unrequested_time_in_server", 120),
    # A caller that has gone without a word is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # And callers may look whether synd is there, while they listen for rings.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    *NO_COMPRESSION,
)

log = logging.getLogger("synd.calls")

Context = grpc.aio.ServicerContext[Any, Any]


class _Malformed:
    """A request that is not the message it should be."""


class Calls(grpc.aio.ServerInterceptor):
    """One for each server."""

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
            return None  # gRPC answers that there is no such method
        deserializer = _guarded(handler.request_deserializer)
        if handler.response_streaming:
            made = grpc.unary_stream_rpc_method_handler(
                _answered(method, handler.unary_stream), deserializer, handler.response_serializer
            )
        else:
            made = grpc.unary_unary_rpc_method_handler(
                _answered(method, handler.unary_unary), deserializer, handler.response_serializer
            )
        self._handlers[method] = made
        return made


def _guarded(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return deserializer(data)
        except Exception:  # each implementation of protocol buffers has its own
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
        raise RequestError("the request is not the protocol's message", "INVALID_ARGUMENT")


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
    """Who calls, for the log; RequestError unless it has one of the roles.

    Operators may do everything, and synds hand on what they were asked.
    """
    caller = channels.peer_role(context)
    if caller is None:
        raise RequestError("the caller's certificate is not of this authority", "UNAUTHENTICATED")
    role, subject = caller
    if role not in (*roles, certificates.OPERATOR, certificates.SYNDICATE):
        raise RequestError(
            f"a certificate of role {role} may not do this: it takes an operator's",
            "PERMISSION_DENIED",
        )
    return f"{role} {subject}"


def seconds_left(context: Context) -> float:
    left = context.time_remaining()
    return SECONDS if left is None else min(SECONDS, left)


class Deliveries:
    """Of the answers with a ring in them RINGS_AT_ONCE are made at a time: each takes memory until
    it has been sent.  One for those that end by themselves, another for streams.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(RINGS_AT_ONCE)

    async def place(self, context: Context) -> None:
        """Wait for a place, which is free again when the call is over."""
        await self._places.acquire()
        free: Any = lambda _: self._places.release()  # noqa: E731
        context.add_done_callback(free)

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._places.release()
