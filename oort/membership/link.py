"""From here to the syndicate: its hosts are tried in turn until one answers.

A host that is found dead costs PROBE_SECONDS at most.  What each of them said is in the one error
that comes when none answers.
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
ROUND_SECONDS = 45.0  # for all hosts together; what has begun may end


@dataclass(frozen=True)
class Registered:
    """What a registration gave."""

    local_id: int
    data: bytes  # the ring's file
    ring: Ring


class Link:
    """An open connection to one host of the syndicate."""

    def __init__(self, syndicate: Syndicate) -> None:
        self._syndicate = syndicate
        self.server = syndicate.settings.server

    def close(self) -> None:
        self._syndicate.close()

    def version(self) -> int:
        """Of the ring it has.  Raises CallError, like everything here."""
        syndicate = self._syndicate
        status: messages.RingStatus = syndicate.call(
            syndicate.rings.GetVersion, messages.EmptyMsg(), PROBE_SECONDS
        )
        return status.version

    def register(self, request: messages.RegisterRequest) -> Registered:
        """Raises RingError as well, for a ring that cannot be read or is without this node."""
        syndicate = self._syndicate
        config: messages.NodeConfig = syndicate.call(
            syndicate.rings.RegisterNode, request, REGISTER_SECONDS
        )
        ring = files.decode_ring(config.ring)
        if ring.node(config.localid) is None:
            raise RingError(
                f"it has made this node {config.localid}, and its ring {ring.version} is without it"
            )
        return Registered(config.localid, config.ring, ring)

    def ring(self) -> messages.Ring:
        syndicate = self._syndicate
        found: messages.Ring = syndicate.call(syndicate.rings.GetRing, messages.EmptyMsg())
        return found

    def stream(self, local_id: int) -> Any:
        """gRPC's call: the ring of now and every later one; it has cancel()."""
        return self._syndicate.rings.GetRingStream(messages.SubscriberID(id=str(local_id)))

    def asks_for_restart(self, conf: bytes) -> bool:
        """Whether who set this configuration of the ring wants nodes to be restarted with it."""
        syndicate = self._syndicate
        reply: messages.RingConf = syndicate.call(
            syndicate.rings.GetGlobalConfig, messages.EmptyMsg()
        )
        return reply.conf.restartRequired and reply.conf.conf == conf

    def renew(self, joining: Joining, needed: Collection[str]) -> bool:
        return joining.renew(self._syndicate, needed)

    def texts(self) -> tuple[bytes, bytes]:
        """Configuration of the ring and of this host's node, without registering."""
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
        """Raises ConfigError for a syndicate's address or fingerprint that is none."""
        self._origin = origin
        self._settings = settings
        self._clock = clock
        self.joining = Joining(origin, settings, clock)
        if origin.override:
            hosts(origin)

    def connect(self, *, may_join: bool = True) -> Link:
        """Joins where that has not been done.  Raises DiscoveryError when no host will do."""
        return self._first(may_join)

    def register(self) -> tuple[Link, Registered]:
        """The same, registered.  Raises DiscoveryError."""
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
            raise TLSError("this node has not joined: it has no certificate of the syndicate's")
        link = Link(Syndicate(self.joining.connection(address)))
        try:
            link.version()
            if act is not None:
                act(link)
        except BaseException:
            link.close()
            raise
        return link
