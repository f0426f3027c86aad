"""Forwards calls from a synd that is not the leader to the leader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio

from oort.errors import RequestError
from oort.grpc_limits import NO_COMPRESSION
from oort.syndicate.connection import MAX_MESSAGE_BYTES
from oort.syndicate.syndicate_pb2_grpc import SyndicateStub
from oort.tls import certificates, channels

from .calls import MESSAGE_BYTES

FORWARDED = "oort-forwarded"  # metadata of a call that was forwarded and must not be again
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    # Pings detect a leader whose machine is gone.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    *NO_COMPRESSION,
)


class Leader:
    """A connection to the last known leader.  Methods must be called on the event loop."""

    def __init__(self, identity: Callable[[], certificates.Identity]) -> None:
        self._identity = identity
        self._target = ""
        self._shown: certificates.Identity | None = None
        self._channel: grpc.aio.Channel | None = None

    async def call(self, target: str, method: str, request: Any, seconds: float) -> Any:
        channel = await self._connection(target)
        try:
            return await getattr(SyndicateStub(channel), method)(
                request, timeout=seconds, metadata=((FORWARDED, "1"),)
            )
        except grpc.aio.AioRpcError as error:
            details = " ".join((error.details() or "no reason was given").split())
            raise RequestError(f"the leader at {target}: {details}", error.code().name) from error

    async def _connection(self, target: str) -> grpc.aio.Channel:
        identity = self._identity()
        if self._channel is None or target != self._target or identity is not self._shown:
            before, self._channel = (
                self._channel,
                grpc.aio.secure_channel(
                    target, channels.channel_credentials(identity.roots, identity), _OPTIONS
                ),
            )
            self._target, self._shown = target, identity
            if before is not None:
                await before.close(1.0)
        return self._channel

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
