"""The gRPC service Syndicate over one ring.

Any synd answers questions, and registrations that change nothing; changes are the leader's, and a
synd that does not lead hands them on to the one that does.  Who may do what: docs/security.md.

Errors are gRPC's: INVALID_ARGUMENT for what is wrong in a request, NOT_FOUND, ALREADY_EXISTS,
PERMISSION_DENIED (a role, a filter), UNAVAILABLE for what may work a moment later.
"""

# ruff: noqa: N802 (methods have the protocol's names)

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from oort import tls
from oort.cmdctrl import cmdctrl_pb2 as control
from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
from oort.errors import (
    OortError,
    RegistrationError,
    RingError,
    StateNotLeaderError,
    StateUnavailableError,
)
from oort.ring.builder import Builder
from oort.ring.ring import Node

from . import registration
from . import syndicate_pb2 as messages
from .config import Service
from .keeper import RingKeeper, Unchanged
from .nodes import OPTIONS, NodeChannels
from .state import State
from .subscribers import Subscribers
from .syndicate_pb2_grpc import SyndicateServicer, SyndicateStub

SECONDS = 60.0  # a call without a deadline of its own
NODE_SECONDS = 10.0  # for a node's answer
FORWARDED = "oort-forwarded"
_RESTART = "restart-required"

log = logging.getLogger("synd.service")


class SyndicateService(SyndicateServicer):
    def __init__(
        self,
        service: Service,
        state: State,
        keeper: RingKeeper,
        subscribers: Subscribers,
        channels: NodeChannels,
        identity: Callable[[], tls.Identity],
    ) -> None:
        self._service = service
        self._state = state
        self._keeper = keeper
        self._subscribers = subscribers
        self._channels = channels
        self._identity = identity

    # ---- who, how long, what went wrong -------------------------------------------

    def _admit(self, context: grpc.ServicerContext, *roles: str) -> str:
        caller = tls.peer_role(context)
        if caller is None:
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the caller's certificate is not of this authority"
            )
        role, subject = caller
        if role not in (*roles, "operator", "syndicate"):
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"a certificate of role {role} may not: it takes an operator's",
            )
        return f"{role} {subject}"

    def _seconds(self, context: grpc.ServicerContext) -> float:
        left = context.time_remaining()
        return min(SECONDS, left) if left is not None else SECONDS

    def _fail(self, context: grpc.ServicerContext, error: OortError) -> NoReturn:
        code = grpc.StatusCode.INTERNAL
        if isinstance(error, RegistrationError):
            code = grpc.StatusCode.INVALID_ARGUMENT
            if error.denied:
                code = grpc.StatusCode.PERMISSION_DENIED
            elif error.exists:
                code = grpc.StatusCode.ALREADY_EXISTS
        elif isinstance(error, _UnknownNodeError):
            code = grpc.StatusCode.NOT_FOUND
        elif isinstance(error, RingError):
            code = grpc.StatusCode.INVALID_ARGUMENT
        elif isinstance(error, StateUnavailableError | StateNotLeaderError):
            code = grpc.StatusCode.UNAVAILABLE
        else:
            log.error("%s: %s", self._service.name, error)
        context.abort(code, str(error))
        raise AssertionError("abort() does not return")

    def _forward(self, context: grpc.ServicerContext, method: str, request: Any) -> Any:
        """What the leader says."""
        leader = self._state.leader
        forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata())
        if leader is None or forwarded:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no synd leads just now: ask again")
        identity = self._identity()
        credentials = tls.channel_credentials(identity.roots, identity)
        with grpc.secure_channel(leader, credentials, OPTIONS) as channel:
            try:
                return getattr(SyndicateStub(channel), method)(
                    request, timeout=self._seconds(context), metadata=[(FORWARDED, "1")]
                )
            except grpc.RpcError as error:
                if not isinstance(error, grpc.Call):
                    raise
                context.abort(error.code(), f"by way of {leader}: {error.details()}")

    def _change(
        self,
        context: grpc.ServicerContext,
        method: str,
        request: Any,
        change: Callable[[Builder], Any],
    ) -> messages.RingStatus:
        caller = self._admit(context)
        try:
            _, version = self._keeper.change(change, self._seconds(context))
        except StateNotLeaderError:
            status: messages.RingStatus = self._forward(context, method, request)
            return status
        except OortError as error:
            self._fail(context, error)
        log.info("%s: %s by %s: version %d", self._service.name, method, caller, version)
        return messages.RingStatus(status=True, version=version)

    # ---- changes ----------------------------------------------------------------------

    def AddNode(self, request: messages.Node, context: grpc.ServicerContext) -> messages.RingStatus:
        def change(builder: Builder) -> None:
            builder.add(
                node_id=request.id or None,
                active=request.active,
                capacity=request.capacity,
                tiers=request.tiers,
                addresses=request.addresses,
                meta=request.meta,
                conf=request.conf,
            )

        return self._change(context, "AddNode", request, change)

    def RemoveNode(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        return self._change(
            context, "RemoveNode", request, lambda b: b.remove(_node(b, request.id).id)
        )

    def _set(
        self, context: grpc.ServicerContext, method: str, request: messages.Node, **fields: Any
    ) -> messages.RingStatus:
        def change(builder: Builder) -> Any:
            before = _node(builder, request.id)
            after = builder.change(request.id, **fields)
            return Unchanged(None) if after == before else None

        return self._change(context, method, request, change)

    def SetActive(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        return self._set(context, "SetActive", request, active=request.active)

    def SetCapacity(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        return self._set(context, "SetCapacity", request, capacity=request.capacity)

    def ReplaceAddresses(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        return self._set(context, "ReplaceAddresses", request, addresses=tuple(request.addresses))

    def ReplaceTiers(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        return self._set(context, "ReplaceTiers", request, tiers=tuple(request.tiers))

    def ModNode(
        self, request: messages.ModifyMsg, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        def change(builder: Builder) -> Any:
            before = _node(builder, request.id)
            after = builder.change(request.id, **_modified(before, request.key, request.value))
            return Unchanged(None) if after == before else None

        return self._change(context, "ModNode", request, change)

    def SetConf(self, request: messages.Conf, context: grpc.ServicerContext) -> messages.RingStatus:
        def change(builder: Builder) -> None:
            builder.conf = request.conf

        status = self._change(context, "SetConf", request, change)
        try:
            if self._state.leading:
                self._state.put(_RESTART, b"true" if request.restartRequired else b"false")
        except OortError as error:
            self._fail(context, error)
        return status

    def SetReplicas(
        self, request: messages.RingOpts, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        def change(builder: Builder) -> Any:
            if builder.replica_count == request.replicas:
                return Unchanged(None)
            builder.set_replicas(request.replicas)
            return None

        return self._change(context, "SetReplicas", request, change)

    # ---- questions ----------------------------------------------------------------------

    def _status(self, context: grpc.ServicerContext) -> messages.RingStatus:
        try:
            return messages.RingStatus(status=True, version=self._keeper.held.version)
        except OortError as error:
            self._fail(context, error)

    def _find(self, context: grpc.ServicerContext, node_id: int) -> Node:
        try:
            node = self._keeper.held.ring.node(node_id)
            if node is None:
                raise _UnknownNodeError(node_id)
        except OortError as error:
            self._fail(context, error)
        return node

    def GetVersion(
        self, request: messages.EmptyMsg, context: grpc.ServicerContext
    ) -> messages.RingStatus:
        self._admit(context, "node")
        return self._status(context)

    def GetGlobalConfig(
        self, request: messages.EmptyMsg, context: grpc.ServicerContext
    ) -> messages.RingConf:
        self._admit(context, "node")
        status = self._status(context)
        try:
            restart = self._state.take(_RESTART) == b"true"
            conf = self._keeper.held.ring.conf
        except OortError as error:
            self._fail(context, error)
        return messages.RingConf(
            status=status, conf=messages.Conf(conf=conf, restartRequired=restart)
        )

    def GetNodeConfig(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.RingConf:
        self._admit(context, "node")
        node = self._find(context, request.id)
        return messages.RingConf(status=self._status(context), conf=messages.Conf(conf=node.conf))

    def SearchNodes(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.SearchResult:
        """Nodes that have all that the request names, exactly; an empty one finds all."""
        self._admit(context, "node")
        try:
            nodes = self._keeper.held.ring.nodes
        except OortError as error:
            self._fail(context, error)
        return messages.SearchResult(
            nodes=[
                messages.Node(
                    id=node.id,
                    active=node.active,
                    capacity=node.capacity,
                    tiers=node.tiers,
                    addresses=node.addresses,
                    meta=node.meta,
                    conf=node.conf,
                )
                for node in nodes
                if request.id in (0, node.id)
                and request.meta in ("", node.meta)
                and set(request.tiers) <= set(node.tiers)
                and set(request.addresses) <= set(node.addresses)
            ]
        )

    def GetRing(self, request: messages.EmptyMsg, context: grpc.ServicerContext) -> messages.Ring:
        self._admit(context, "node")
        try:
            held = self._keeper.held
        except OortError as error:
            self._fail(context, error)
        return messages.Ring(version=held.version, ring=held.data)

    def GetRingStream(
        self, request: messages.SubscriberID, context: grpc.ServicerContext
    ) -> Iterator[messages.Ring]:
        self._admit(context, "node")
        if not self._subscribers.admit():
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many subscribers: ask for the ring instead"
            )
        for held in self._subscribers.stream(context):
            yield messages.Ring(version=held.version, ring=held.data)

    # ---- nodes ----------------------------------------------------------------------------

    def RegisterNode(
        self, request: messages.RegisterRequest, context: grpc.ServicerContext
    ) -> messages.NodeConfig:
        caller = self._admit(context, "node")
        try:
            host = registration.check(request, self._service)
            held = self._keeper.held
            node = registration.known(held.ring.nodes, host)
            if node is None or not registration.same(node, host):
                local_id, version = self._keeper.change(
                    registration.registering(host), self._seconds(context)
                )
                held = self._keeper.held
                log.info(
                    "%s: %s registered by %s: node %d, version %d",
                    self._service.name,
                    host.name,
                    caller,
                    local_id,
                    version,
                )
            else:
                local_id = node.id
        except StateNotLeaderError:
            config: messages.NodeConfig = self._forward(context, "RegisterNode", request)
            return config
        except OortError as error:
            self._fail(context, error)
        return messages.NodeConfig(localid=int(str(local_id)), ring=held.data)

    def _ask(self, context: grpc.ServicerContext, node_id: int, method: str, request: Any) -> Any:
        node = self._find(context, node_id)
        try:
            channel = self._channels.open(node)
        except OortError as error:
            self._fail(context, error)
        with channel:
            try:
                return getattr(CmdCtrlStub(channel), method)(
                    request, timeout=min(NODE_SECONDS, self._seconds(context))
                )
            except grpc.RpcError as error:
                if not isinstance(error, grpc.Call):
                    raise
                context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"node {node.id} ({node.meta}): {error.code().name}: {error.details()}",
                )

    def GetNodeSoftwareVersion(
        self, request: messages.Node, context: grpc.ServicerContext
    ) -> messages.NodeSoftwareVersion:
        self._admit(context)
        reply = self._ask(context, request.id, "SoftwareVersion", control.EmptyMsg())
        return messages.NodeSoftwareVersion(version=reply.version)

    def NodeUpgradeSoftwareVersion(
        self, request: messages.NodeUpgrade, context: grpc.ServicerContext
    ) -> messages.NodeUpgradeStatus:
        self._admit(context)
        wanted = control.SelfUpgradeMsg(version=request.version)
        reply = self._ask(context, request.id, "SelfUpgrade", wanted)
        return messages.NodeUpgradeStatus(status=reply.status, msg=reply.msg)


class _UnknownNodeError(RingError):
    """There is no such node."""

    def __init__(self, node_id: int) -> None:
        super().__init__(f"there is no node {node_id} in the ring")


def _node(builder: Builder, node_id: int) -> Node:
    for node in builder.nodes:
        if node.id == node_id:
            return node
    raise _UnknownNodeError(node_id)


def _modified(node: Node, key: str, value: str) -> dict[str, Any]:
    """Fields of a node, from the key and value of a ModifyMsg."""
    if key == "active":
        if value not in ("true", "false"):
            raise RingError(f"active is true or false, not {value!r}")
        return {"active": value == "true"}
    if key == "capacity":
        if not re.fullmatch(r"\d{1,10}", value):
            raise RingError(f"a capacity is a number, not {value!r}")
        return {"capacity": int(value)}
    if key in ("meta", "conf"):
        return {key: value if key == "meta" else value.encode()}
    found = re.fullmatch(r"(tier|address)([0-9]{1,2})", key)
    if not found:
        raise RingError(f"a node has no {key!r}: active, capacity, meta, conf, tierN or addressN")
    field = "tiers" if found[1] == "tier" else "addresses"
    values = list(getattr(node, field))
    values += [""] * (int(found[2]) + 1 - len(values))
    values[int(found[2])] = value
    while values and not values[-1]:
        values.pop()
    return {field: tuple(values)}
