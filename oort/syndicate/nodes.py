"""Where a node's CmdCtrl is, and a channel to it as a syndicate."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from oort import tls
from oort.errors import RingError
from oort.ring.ring import Node

from .tool_connection import address, parse_address

MAX_MESSAGE_BYTES = 256 * 1024**2
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)


class NodeChannels:
    """Channels to nodes; each is the caller's to close."""

    def __init__(self, identity: Callable[[], tls.Identity], port: int) -> None:
        """identity: ours, as it is now; port: of every node's CmdCtrl."""
        self._identity = identity
        self._port = port

    def target(self, node: Node) -> str:
        """host:port; RingError for a node without an address."""
        if not node.addresses:
            raise RingError(f"node {node.id} has no address")
        host, _ = parse_address(node.addresses[0], f"node {node.id}")
        return address(host, self._port)

    def open(self, node: Node) -> grpc.Channel:
        identity = self._identity()
        return grpc.secure_channel(
            self.target(node), tls.channel_credentials(identity.roots, identity), OPTIONS
        )
