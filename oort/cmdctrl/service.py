"""The CmdCtrl service of a node, over TLS with certificates on both sides.

The role in the caller's certificate decides who may call (docs/security.md): syndicates and
operators may make every call, and nobody else may make any.  If the interface asks for no
certificates (UseTLS or MutualTLS is off), callers cannot be identified, so only callers on this
machine are served.

Limits: at most CALLS calls run at a time and more are refused; messages have at most MESSAGE_BYTES.
The node decides how long a call may take.
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
MESSAGE_BYTES = 256 * 1024**2  # enough for a ring with the most partitions
CLOSE_SECONDS = 5.0  # for calls that are still running
ALLOWED = frozenset({"syndicate", "operator"})

Result = TypeVar("Result")

log = logging.getLogger("oortd.cmdctrl")


def _local(peer: str) -> bool:
    """Whether gRPC's name of a peer is on this machine.

    Names look like ipv4:127.0.0.1:4711, ipv6:%5B::1%5D:4711 and unix:...
    """
    host = peer.partition(":")[2].replace("%5B", "[").replace("%5D", "]")
    return peer.startswith("unix:") or host.startswith(("127.", "[::1]", "[::ffff:127."))


class _Service(CmdCtrlServicer):
    """Checks that the caller is allowed, makes the call, and maps errors to gRPC's."""

    def __init__(self, node: NodeControl, mutual: bool) -> None:
        self._node = node
        self._mutual = mutual

    def _admit(self, context: grpc.ServicerContext) -> str:
        """Abort the call if the caller is not allowed; returns the caller's name for the log."""
        if not self._mutual:
            if not _local(context.peer()):
                context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "this node asks for no certificates, so it serves only callers on its machine",
                )
            return "a caller on this machine"
        identity = channels.peer_role(context)
        if identity is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller's certificate has no role")
        if identity[0] not in ALLOWED:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"role {identity[0]} may not control nodes: use a certificate of role operator",
            )
        return f"{identity[0]} {identity[1]}"

    def _do(
        self, context: grpc.ServicerContext, act: Callable[[], Result], change: str = ""
    ) -> Result:
        """`change` names the call in the log; it is empty for calls that change nothing."""
        caller = self._admit(context)
        if change:
            log.info("CmdCtrl: %s, requested by %s", change, caller)
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

    def RingUpdate(  # noqa: N802 (names of the protocol)
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
    """Listens from its creation on; serves between start() and close()."""

    def __init__(
        self,
        node: NodeControl,
        address: str,
        credentials: grpc.ServerCredentials | None,
        *,
        mutual: bool,
    ) -> None:
        """`credentials` is None without TLS; `mutual` means that callers need a certificate.

        Raises BootError if the address cannot be used.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="cmdctrl"),
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the same port must be an error
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
                f"[CmdCtrlConfig] ListenAddress = {address}: cannot listen: the address is in use"
                " or does not belong to this machine"
            )

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        """Refuse new calls; running calls may finish within CLOSE_SECONDS."""
        self._server.stop(CLOSE_SECONDS).wait()
