"""The CmdCtrl service of a node, over TLS with certificates on both sides.

Who may call is decided by the role in the caller's certificate (docs/security.md): a syndicate and
an operator may do everything, nobody else anything.  Where the interface asks for no certificates
(UseTLS or MutualTLS off) only callers on this machine are served, since nothing else tells who
somebody is.

Bounds: CALLS at a time, more are refused; messages of MESSAGE_BYTES.  How long a call may take is
the node's to decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc

from oort.clock import SYSTEM
from oort.errors import BootError, ControlError, OortError
from oort.grpc_limits import NO_COMPRESSION
from oort.tls import channels

from . import cmdctrl_pb2 as messages
from .cmdctrl_pb2_grpc import CmdCtrlServicer, add_CmdCtrlServicer_to_server
from .node import NodeControl, Outcome

THREADS = 8
CALLS = 32
MESSAGE_BYTES = 256 * 1024**2  # a ring of the most partitions
CLOSE_SECONDS = 5.0  # for answers that are on their way
ALLOWED = frozenset({"syndicate", "operator"})

Result = TypeVar("Result")

log = logging.getLogger("oortd.cmdctrl")


def _local(peer: str) -> bool:
    """Of gRPC's names of a peer: ipv4:127.0.0.1:4711, ipv6:%5B::1%5D:4711, unix:..."""
    host = peer.partition(":")[2].replace("%5B", "[").replace("%5D", "]")
    return peer.startswith("unix:") or host.startswith(("127.", "[::1]", "[::ffff:127."))


class _Service(CmdCtrlServicer):
    """Each call: is the caller allowed, do it, errors as gRPC has them."""

    def __init__(self, node: NodeControl, mutual: bool) -> None:
        self._node = node
        self._mutual = mutual

    def _admit(self, context: grpc.ServicerContext) -> str:
        """Who calls, for the log."""
        if not self._mutual:
            if not _local(context.peer()):
                context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "without certificates on both sides only callers on the node itself are served",
                )
            return "a caller on this machine"
        identity = channels.peer_role(context)
        if identity is None:
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the caller's certificate has no role of a ring's"
            )
        if identity[0] not in ALLOWED:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"a certificate of role {identity[0]} controls no node: it takes an operator's",
            )
        return f"{identity[0]} {identity[1]}"

    def _do(
        self, context: grpc.ServicerContext, act: Callable[[], Result], change: str = ""
    ) -> Result:
        """change: what to call it in the log, for one that changes something."""
        caller = self._admit(context)
        if change:
            log.info("CmdCtrl: %s, asked for by %s", change, caller)
        try:
            return act()
        except ControlError as error:
            _abort(context, grpc.StatusCode[error.code], error)
        except OortError as error:
            _abort(context, grpc.StatusCode.INTERNAL, error)

    def _status(
        self, context: grpc.ServicerContext, act: Callable[[], Outcome], change: str
    ) -> messages.StatusMsg:
        outcome = self._do(context, act, change)
        return messages.StatusMsg(status=outcome.status, msg=outcome.message)

    def RingUpdate(  # noqa: N802 (the protocol's names)
        self, request: messages.Ring, context: grpc.ServicerContext
    ) -> messages.RingUpdateResult:
        held = self._do(context, lambda: self._node.ring_update(request.version, request.ring))
        return messages.RingUpdateResult(newversion=held)

    def Reload(self, request: Any, context: grpc.ServicerContext) -> messages.StatusMsg:  # noqa: N802
        return self._status(context, self._node.reload, "Reload")

    def Restart(self, request: Any, context: grpc.ServicerContext) -> messages.StatusMsg:  # noqa: N802
        return self._status(context, self._node.restart, "Restart")

    def Start(self, request: Any, context: grpc.ServicerContext) -> messages.StatusMsg:  # noqa: N802
        return self._status(context, self._node.start, "Start")

    def Stop(self, request: Any, context: grpc.ServicerContext) -> messages.StatusMsg:  # noqa: N802
        return self._status(context, self._node.stop, "Stop")

    def Exit(self, request: Any, context: grpc.ServicerContext) -> messages.StatusMsg:  # noqa: N802
        return self._status(context, self._node.exit, "Exit")

    def Stats(self, request: Any, context: grpc.ServicerContext) -> messages.StatsMsg:  # noqa: N802
        return messages.StatsMsg(statsjson=self._do(context, self._node.stats))

    def HealthCheck(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> messages.HealthCheckMsg:
        outcome = self._do(context, self._node.health)
        return messages.HealthCheckMsg(
            status=outcome.status, msg=outcome.message, ts=int(SYSTEM.wall())
        )

    def SoftwareVersion(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> messages.SoftwareVersionMsg:
        return messages.SoftwareVersionMsg(version=self._do(context, self._node.software_version))

    def SelfUpgrade(  # noqa: N802
        self, request: messages.SelfUpgradeMsg, context: grpc.ServicerContext
    ) -> messages.StatusMsg:
        version = request.version
        return self._status(context, lambda: self._node.self_upgrade(version), "SelfUpgrade")


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, error: OortError) -> NoReturn:
    context.abort(code, str(error))
    raise AssertionError("abort() does not return")


class ControlServer:
    """Listens from the moment it is made; serves between start() and close()."""

    def __init__(
        self,
        node: NodeControl,
        address: str,
        credentials: grpc.ServerCredentials | None,
        *,
        mutual: bool,
    ) -> None:
        """credentials: None for no TLS; mutual: they ask callers for a certificate."""
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="cmdctrl"),
            options=[
                ("grpc.so_reuseport", 0),  # else a second server on the port goes unnoticed
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", CALLS),
                *NO_COMPRESSION,
            ],
            maximum_concurrent_rpcs=CALLS,
        )
        add_CmdCtrlServicer_to_server(
            _Service(node, mutual and credentials is not None), self._server
        )
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise BootError(
                f"[CmdCtrlConfig] ListenAddress = {address}: cannot listen there: the address is"
                " in use or not this machine's"
            )

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        """Take no more calls; those that run may finish within CLOSE_SECONDS."""
        self._server.stop(CLOSE_SECONDS).wait()
