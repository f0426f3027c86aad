"""Links to the syndicate: a Seeker tries its hosts in turn until one of them answers.

A dead host costs at most PROBE_SECONDS.  If no host answers, one error contains the failures of all
hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from oort.clock import SYSTEM, Clock
from oort.config.settings import Settings, join_address
from oort.errors import DiscoveryError, OortError, RingError, TLSError
from oort.journal import log
from oort.membership import host
from oort.membership.discovery import FromSyndicate
from oort.membership.hosts import hosts
from oort.membership.joining import Joining
from oort.ring import files
from oort.ring.ring import Ring
from oort.syndicate import syndicate_pb2 as messages
from oort.syndicate.connection import Syndicate

PROBE_SECONDS = 5.0
REGISTER_SECONDS = 30.0
ROUND_SECONDS = 45.0  # no further host is tried after this time


@dataclass(frozen=True)
class Registered:
    """The result of a registration."""

    local_id: int
    data: bytes  # the ring's file
    ring: Ring


class Link:
    """An open connection to one host of the syndicate.  Every method may raise CallError."""

    def __init__(self, syndicate: Syndicate) -> None:
        self._syndicate = syndicate
        self.server = syndicate.settings.server

    def close(self) -> None:
        self._syndicate.close()

    def version(self) -> int:
        """The version of the host's ring."""
        syndicate = self._syndicate
        status: messages.RingStatus = syndicate.call(
            syndicate.rings.GetVersion, messages.EmptyMsg(), PROBE_SECONDS
        )
        return status.version

    def register(self, request: messages.RegisterRequest) -> Registered:
        """Register this node.  Raises RingError if the ring is invalid or lacks this node."""
        syndicate = self._syndicate
        config: messages.NodeConfig = syndicate.call(
            syndicate.rings.RegisterNode, request, REGISTER_SECONDS
        )
        ring = files.decode_ring(config.ring)
        if ring.node(config.localid) is None:
            raise RingError(
                f"the syndicate gave this node the id {config.localid}, but its ring"
                f" {ring.version} has no such node"
            )
        return Registered(config.localid, config.ring, ring)

    def ring(self) -> messages.Ring:
        syndicate = self._syndicate
        found: messages.Ring = syndicate.call(syndicate.rings.GetRing, messages.EmptyMsg())
        return found

    def stream(self, local_id: int) -> Any:
        """gRPC's call, which has cancel().  It iterates over the present and all later rings."""
        return self._syndicate.rings.GetRingStream(messages.SubscriberID(id=str(local_id)))

    def asks_for_restart(self, conf: bytes) -> bool:
        """Whether the nodes must be restarted to apply this configuration of the ring."""
        syndicate = self._syndicate
        reply: messages.RingConf = syndicate.call(
            syndicate.rings.GetGlobalConfig, messages.EmptyMsg()
        )
        return reply.conf.restartRequired and reply.conf.conf == conf

    def renew(self, joining: Joining, needed: Collection[str]) -> bool:
        return joining.renew(self._syndicate, needed)

    def texts(self) -> tuple[bytes, bytes]:
        """The configuration of the ring, and that of this host's node.  Nothing is registered."""
        syndicate = self._syndicate
        request = host.registration((), "/")
        own = {cidr.partition("/")[0] for cidr in request.addrs}
        ring: messages.RingConf = syndicate.call(
            syndicate.rings.GetGlobalConfig, messages.EmptyMsg()
        )
        named: messages.SearchResult = syndicate.call(
            syndicate.rings.SearchNodes, messages.Node(meta=request.hostname)
        )
        for node in named.nodes:
            there = {address.rpartition(":")[0].strip("[]") for address in node.addresses}
            if there & own:
                return ring.conf.conf, node.conf
        return ring.conf.conf, b""


class Seeker:
    """Finds a host of the syndicate that answers."""

    def __init__(self, origin: FromSyndicate, settings: Settings, clock: Clock = SYSTEM) -> None:
        """Raises ConfigError if the syndicate's address or fingerprint is invalid."""
        self._origin = origin
        self._settings = settings
        self._clock = clock
        self.joining = Joining(origin, settings, clock)
        if origin.override:
            hosts(origin)

    def connect(self, *, may_join: bool = True) -> Link:
        """A link to the first host that answers.  The node joins if it has not joined before.

        may_join False: a node that has not joined connects to no host.  Raises DiscoveryError if
        no host answers.
        """
        return self._first(may_join)

    def register(self) -> tuple[Link, Registered]:
        """A link over which the node has registered, and the result.  Raises DiscoveryError."""
        registered: list[Registered] = []

        def act(link: Link) -> None:
            request = host.registration(self._settings.tiers, self._settings.data_dir)
            registered.append(link.register(request))

        link = self._first(True, act)
        return link, registered[0]

    def _first(self, may_join: bool, act: Callable[[Link], None] | None = None) -> Link:
        reasons: dict[str, None] = {}
        until = self._clock.monotonic() + ROUND_SECONDS
        for address in hosts(self._origin):
            if self._clock.monotonic() > until:
                break
            try:
                link = self._open(address, may_join, act)
            except OortError as error:
                server = join_address(*address)
                named = server in str(error)
                reasons[str(error) if named else f"{server}: {error}"] = None
            else:
                for reason in reasons:
                    log.warning("%s; %s answers", reason, link.server)
                return link
        raise DiscoveryError("; ".join(reasons))

    def _open(
        self, address: tuple[str, int], may_join: bool, act: Callable[[Link], None] | None
    ) -> Link:
        if may_join:
            self.joining.join(address)
        elif not self.joining.joined:
            raise TLSError("this node has not joined: it has no certificate from the syndicate")
        link = Link(Syndicate(self.joining.connection(address)))
        try:
            link.version()
            if act is not None:
                act(link)
        except BaseException:
            link.close()
            raise
        return link
