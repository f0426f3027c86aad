"""The gRPC service Syndicate of one ring.

Every synd answers queries, and registrations that change nothing.  Only the leader makes changes;
other synds forward changes to the leader.  docs/security.md lists who may do what, and calls.py
lists the errors.
"""

# ruff: noqa: N802 (methods have the names of the protocol)

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable
from typing import Any

from oort.cmdctrl import cmdctrl_pb2 as control
from oort.errors import (
    CallError,
    RequestError,
    RingError,
    StateNotLeaderError,
    StateUnavailableError,
)
from oort.ring.builder import MAX_ADDRESSES, MAX_TIERS
from oort.ring.ring import Node
from oort.synd.state.state import State
from oort.syndicate import syndicate_pb2 as messages
from oort.syndicate.syndicate_pb2_grpc import SyndicateServicer
from oort.tls import certificates

from . import registration
from .calls import Context, Deliveries, admit, seconds_left
from .config import Service
from .draft import Draft, Unchanged
from .forward import FORWARDED, Leader
from .keeper import Held, RingKeeper
from .nodes import Nodes
from .push import Pusher
from .subscribers import Subscribers

NODE_SECONDS = 10.0  # for the answer of a node
LEARN_SECONDS = 5.0  # longest wait until a forwarded change is visible in this synd
LEARN_LOOK_SECONDS = 0.01  # between two checks
_RESTART = "restart-required"

log = logging.getLogger("synd.service")


class SyndicateService(SyndicateServicer):
    def __init__(
        self,
        service: Service,
        state: State,
        keeper: RingKeeper,
        subscribers: Subscribers,
        nodes: Nodes,
        pusher: Pusher,
        leader: Leader,
    ) -> None:
        self.configuration = service
        self._state = state
        self._keeper = keeper
        self._subscribers = subscribers
        self._deliveries = Deliveries()
        self._nodes = nodes
        self._pusher = pusher
        self._leader = leader

    # ---- changes ----------------------------------------------------------------------

    async def _change(
        self,
        context: Context,
        method: str,
        request: Any,
        change: Callable[[Draft], Any],
    ) -> messages.RingStatus:
        caller = admit(context)
        try:
            _, version = await self._made(context, change)
        except StateNotLeaderError:
            status: messages.RingStatus = await self._forward(context, method, request)
            await self._learned(status.version, context)
            return status
        log.info("%s: %s by %s: version %d", self.configuration.name, method, caller, version)
        return messages.RingStatus(status=True, version=version)

    async def _made(self, context: Context, change: Callable[[Draft], Any]) -> tuple[Any, int]:
        if not self._state.leading:
            raise StateNotLeaderError("another synd leads")
        future = self._keeper.change(change)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds_left(context))
        except TimeoutError:
            raise RequestError(
                "the change was not finished in time and may still be made: check the ring",
                "DEADLINE_EXCEEDED",
            ) from None

    async def _forward(self, context: Context, method: str, request: Any) -> Any:
        """The leader's answer."""
        forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata() or ())
        target = self._state.leader
        if target is None or forwarded:
            raise RequestError("no synd leads at present: ask again", "UNAVAILABLE")
        return await self._leader.call(target, method, request, seconds_left(context))

    async def _learned(self, version: int, context: Context) -> None:
        """Wait until a version that the leader made is visible here, at most LEARN_SECONDS.

        A caller that made a change through this synd then sees it in its next call.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(LEARN_SECONDS, seconds_left(context) / 2)
        while self._keeper.held.version < version and loop.time() < end:
            await asyncio.sleep(LEARN_LOOK_SECONDS)

    async def AddNode(self, request: messages.Node, context: Context) -> messages.RingStatus:
        def change(draft: Draft) -> None:
            draft.add(
                node_id=request.id or None,
                active=request.active,
                capacity=request.capacity,
                tiers=request.tiers,
                addresses=request.addresses,
                meta=request.meta,
                conf=request.conf,
            )

        return await self._change(context, "AddNode", request, change)

    async def RemoveNode(self, request: messages.Node, context: Context) -> messages.RingStatus:
        return await self._change(
            context, "RemoveNode", request, lambda draft: draft.remove(request.id)
        )

    async def _set(
        self,
        context: Context,
        method: str,
        request: messages.Node | messages.ModifyMsg,
        fields: Callable[[Node], dict[str, Any]],
    ) -> messages.RingStatus:
        def change(draft: Draft) -> Any:
            before = draft.node(request.id)
            wanted = fields(before)
            if all(getattr(before, name) == value for name, value in wanted.items()):
                return Unchanged(None)
            return draft.change(request.id, **wanted)

        return await self._change(context, method, request, change)

    async def SetActive(self, request: messages.Node, context: Context) -> messages.RingStatus:
        return await self._set(context, "SetActive", request, lambda _: {"active": request.active})

    async def SetCapacity(self, request: messages.Node, context: Context) -> messages.RingStatus:
        return await self._set(
            context, "SetCapacity", request, lambda _: {"capacity": request.capacity}
        )

    async def ReplaceAddresses(
        self, request: messages.Node, context: Context
    ) -> messages.RingStatus:
        return await self._set(
            context, "ReplaceAddresses", request, lambda _: {"addresses": tuple(request.addresses)}
        )

    async def ReplaceTiers(self, request: messages.Node, context: Context) -> messages.RingStatus:
        return await self._set(
            context, "ReplaceTiers", request, lambda _: {"tiers": tuple(request.tiers)}
        )

    async def ModNode(self, request: messages.ModifyMsg, context: Context) -> messages.RingStatus:
        return await self._set(
            context, "ModNode", request, lambda node: _modified(node, request.key, request.value)
        )

    async def SetConf(self, request: messages.Conf, context: Context) -> messages.RingStatus:
        def change(draft: Draft) -> None:
            # The flag is stored before the version, so that a kill cannot separate them.
            known = _restarts(self._state)
            needed = {_digest(draft.builder.conf), self._digest_held()}
            kept = {digest: known[digest] for digest in needed & known.keys()}
            kept[_digest(request.conf)] = request.restartRequired
            self._state.put(_RESTART, json.dumps(kept).encode())
            draft.builder.conf = request.conf

        return await self._change(context, "SetConf", request, change)

    def _digest_held(self) -> str:
        try:
            return _digest(self._keeper.held.ring.conf)
        except StateUnavailableError:  # there is no version yet
            return ""

    async def SetReplicas(
        self, request: messages.RingOpts, context: Context
    ) -> messages.RingStatus:
        def change(draft: Draft) -> Any:
            if draft.builder.replica_count == request.replicas:
                return Unchanged(None)
            draft.builder.set_replicas(request.replicas)
            return None

        return await self._change(context, "SetReplicas", request, change)

    # ---- queries --------------------------------------------------------------------------

    def _status(self, held: Held) -> messages.RingStatus:
        return messages.RingStatus(status=True, version=held.version)

    async def GetVersion(self, request: messages.EmptyMsg, context: Context) -> messages.RingStatus:
        admit(context, certificates.NODE)
        return self._status(self._keeper.held)

    async def GetGlobalConfig(
        self, request: messages.EmptyMsg, context: Context
    ) -> messages.RingConf:
        admit(context, certificates.NODE)
        restarts = await asyncio.to_thread(_restarts, self._state)
        held = self._keeper.held
        conf = held.ring.conf
        return messages.RingConf(
            status=self._status(held),
            conf=messages.Conf(conf=conf, restartRequired=restarts.get(_digest(conf), False)),
        )

    async def GetNodeConfig(self, request: messages.Node, context: Context) -> messages.RingConf:
        admit(context, certificates.NODE)
        held = self._keeper.held
        node = held.index.node(request.id)
        return messages.RingConf(status=self._status(held), conf=messages.Conf(conf=node.conf))

    async def SearchNodes(self, request: messages.Node, context: Context) -> messages.SearchResult:
        """The nodes that have every value of the request exactly; an empty request finds all."""
        admit(context, certificates.NODE)
        await self._deliveries.place(context)
        tiers, addresses = set(request.tiers), set(request.addresses)
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
                for node in self._keeper.held.ring.nodes
                if request.id in (0, node.id)
                and request.meta in ("", node.meta)
                and tiers <= set(node.tiers)
                and addresses <= set(node.addresses)
            ]
        )

    async def GetRing(self, request: messages.EmptyMsg, context: Context) -> messages.Ring:
        admit(context, certificates.NODE)
        await self._deliveries.place(context)
        held = self._keeper.held
        return messages.Ring(version=held.version, ring=held.data)

    async def GetRingStream(self, request: messages.SubscriberID, context: Context) -> None:
        caller = admit(context, certificates.NODE)
        log.debug("%s: %r listens, %s", self.configuration.name, request.id[:80], caller)
        await self._subscribers.stream(context)

    # ---- nodes ----------------------------------------------------------------------------

    async def RegisterNode(
        self, request: messages.RegisterRequest, context: Context
    ) -> messages.NodeConfig:
        caller = admit(context, certificates.NODE)
        host = registration.check(request, self.configuration)
        held = self._keeper.held
        node = registration.known(held.index.sharing(host.addresses), host)
        if node is not None and registration.same(node, host):
            local_id = node.id
        else:
            try:
                local_id, version = await self._made(context, registration.registering(host))
            except StateNotLeaderError:
                config: messages.NodeConfig = await self._forward(context, "RegisterNode", request)
                return config
            log.info(
                "%s: %s registered by %s: node %d, version %d",
                self.configuration.name,
                host.name,
                caller,
                local_id,
                version,
            )
        self._pusher.registered(local_id)
        await self._deliveries.place(context)
        return messages.NodeConfig(localid=local_id, ring=self._keeper.held.data)

    async def _ask(self, context: Context, node_id: int, method: str, request: Any) -> Any:
        node = self._keeper.held.index.node(node_id)
        seconds = min(NODE_SECONDS, seconds_left(context))
        try:
            return await self._nodes.call(node, method, request, seconds)
        except CallError as error:
            raise RequestError(str(error), "UNAVAILABLE") from error

    async def GetNodeSoftwareVersion(
        self, request: messages.Node, context: Context
    ) -> messages.NodeSoftwareVersion:
        admit(context)
        reply = await self._ask(context, request.id, "SoftwareVersion", control.EmptyMsg())
        return messages.NodeSoftwareVersion(version=reply.version)

    async def NodeUpgradeSoftwareVersion(
        self, request: messages.NodeUpgrade, context: Context
    ) -> messages.NodeUpgradeStatus:
        admit(context)
        wanted = control.SelfUpgradeMsg(version=request.version)
        reply = await self._ask(context, request.id, "SelfUpgrade", wanted)
        return messages.NodeUpgradeStatus(status=reply.status, msg=reply.msg)


def _digest(conf: bytes) -> str:
    return hashlib.sha256(conf).hexdigest()


def _restarts(state: State) -> dict[str, bool]:
    """Whether a configuration needs a restart, by its digest, for the two newest configurations."""
    stored = state.take(_RESTART)
    found: dict[str, bool] = json.loads(stored) if stored else {}
    return found


def _modified(node: Node, key: str, value: str) -> dict[str, Any]:
    """The changed fields of a node for a ModifyMsg; RingError if key or value is invalid."""
    if key == "active":
        if value not in ("true", "false"):
            raise RingError(f"active must be true or false, not {value[:80]!r}")
        return {"active": value == "true"}
    if key == "capacity":
        if not re.fullmatch(r"[0-9]{1,10}", value):
            raise RingError(f"capacity must be a number, not {value[:80]!r}")
        return {"capacity": int(value)}
    if key == "meta":
        return {"meta": value}
    if key == "conf":
        return {"conf": value.encode()}
    found = re.fullmatch(r"(tier|address)([0-9]{1,2})", key)
    if not found:
        raise RingError(
            f"a node has no {key[:80]!r}: use active, capacity, meta, conf, tierN or addressN"
        )
    field, most = ("tiers", MAX_TIERS) if found[1] == "tier" else ("addresses", MAX_ADDRESSES)
    at = int(found[2])
    if at >= most:
        raise RingError(f"a node has at most {most} {field}")
    values = list(getattr(node, field))
    values += [""] * (at + 1 - len(values))
    values[at] = value
    while values and not values[-1]:
        values.pop()
    return {field: tuple(values)}
