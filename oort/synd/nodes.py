"""Calls to the CmdCtrl of nodes, which never wait long for unreachable nodes.

A call fails after CONNECT_SECONDS if the node does not answer, and at once if its machine refuses
the connection.  Only a connected node gets the full time for its answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
from oort.errors import CallError, OortError
from oort.grpc_limits import NO_COMPRESSION
from oort.ring.ring import Node
from oort.syndicate.connection import address, parse_address
from oort.tls import certificates, channels

CONNECT_SECONDS = 2.0
ANSWER_BYTES = 4 * 1024**2
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", ANSWER_BYTES),
    ("grpc.enable_http_proxy", 0),
    # With a shared pool gRPC would remember that a node was unreachable and refuse further calls.
    ("grpc.use_local_subchannel_pool", 1),
    *NO_COMPRESSION,
)


class Nodes:
    def __init__(
        self, identity: Callable[[], certificates.Identity], port: Callable[[], int]
    ) -> None:
        """`identity` gives synd's current identity, `port` the CmdCtrl port of all nodes."""
        self._identity = identity
        self._port = port
        self._shown: tuple[certificates.Identity, grpc.ChannelCredentials] | None = None

    def _credentials(self) -> grpc.ChannelCredentials:
        identity = self._identity()
        if self._shown is None or self._shown[0] is not identity:
            self._shown = identity, channels.channel_credentials(identity.roots, identity)
        return self._shown[1]

    def target(self, node: Node, attempt: int = 0) -> str:
        """The host:port for an attempt; successive attempts use the node's addresses in turn.

        Raises CallError if the node has no address or an invalid one.
        """
        if not node.addresses:
            raise CallError(f"{called(node)} has no address")
        text = node.addresses[attempt % len(node.addresses)]
        try:
            host, _ = parse_address(text, called(node))
        except OortError as error:
            raise CallError(str(error)) from error
        return address(host, self._port())

    async def call(
        self, node: Node, method: str, request: Any, seconds: float, attempt: int = 0
    ) -> Any:
        """The answer of a method of CmdCtrl, within `seconds` after the connection.

        Raises CallError, with `unreachable` if there is no connection to the node.
        """
        target = self.target(node, attempt)
        await _reach(node, target, min(CONNECT_SECONDS, seconds))
        async with grpc.aio.secure_channel(target, self._credentials(), _OPTIONS) as channel:
            try:
                await asyncio.wait_for(_connected(channel), min(CONNECT_SECONDS, seconds))
            except TimeoutError:
                raise CallError(
                    f"{called(node)} at {target}: no TLS handshake in time", unreachable=True
                ) from None
            try:
                return await getattr(CmdCtrlStub(channel), method)(request, timeout=seconds)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                details = " ".join((error.details() or "no reason was given").split())
                raise CallError(
                    f"{called(node)} at {target}: {code.name}: {details}",
                    code=code.name,
                    unreachable=code is grpc.StatusCode.UNAVAILABLE,
                ) from error


async def _reach(node: Node, target: str, seconds: float) -> None:
    """Check that the node accepts connections; CallError if not.

    A plain connection is cheaper than TLS and gRPC, which matters if many nodes are unreachable.
    """
    host, port = parse_address(target, called(node))
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        writer.close()
    except TimeoutError:
        raise CallError(f"{called(node)} at {target}: no answer", unreachable=True) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise CallError(f"{called(node)} at {target}: {why}", unreachable=True) from error


async def _connected(channel: grpc.aio.Channel) -> None:
    """Wait until the channel is connected or has failed; a call then fails with the reason."""
    state = channel.get_state(try_to_connect=True)
    while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def called(node: Node) -> str:
    return f"node {node.id} ({node.meta or 'no name'})"
