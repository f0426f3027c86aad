"""The effects of news about the ring on this node: transition(held, news) -> (held, effects).

transition() is a pure function: it reads no clock and no file.  membership.py carries out the
effects in their order.  The table _EFFECTS has the effects of a ring.  Two rules apply to every row
of the table:
 - A ring that is older than the configuration's ring changes nothing, because the ring in the data
   directory may be older than the cached configuration.
 - Only a valid configuration from a syndicate or from a ring file is cached, so no node starts with
   a configuration that it would refuse.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum, auto

from oort.errors import ConfigError
from oort.membership.cache import RENEW_SECONDS, Cached
from oort.membership.configuration import RingConfiguration, of_ring
from oort.ring.ring import Ring


@dataclass(frozen=True)
class Held:
    """The present state of the membership."""

    local_id: int
    version: int  # of the configuration's ring
    configuration: RingConfiguration
    source: str  # of the ring, for people
    connected: bool = False  # to a syndicate
    restart_asked: bool = False  # by a configuration that came since the last restart
    cached_at: float = float("-inf")  # monotonic time of the last write of the cache


# ---- news ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewestRing:
    """The ring in use now, which may be the same as before."""

    ring: Ring
    now: float  # monotonic
    confirmed: bool = False  # write the cache even if nothing has changed


@dataclass(frozen=True)
class InTouch:
    """The syndicate answers and has no ring but this one."""

    ring: Ring
    now: float


@dataclass(frozen=True)
class Found:
    """A host of the syndicate answers."""

    server: str


@dataclass(frozen=True)
class Lost:
    """No syndicate answers."""


@dataclass(frozen=True)
class OtherId:
    """The syndicate has given this node another id.  Its ring comes next."""

    local_id: int


@dataclass(frozen=True)
class RestartAsked:
    """The ring's configuration came with a request to restart the nodes."""


@dataclass(frozen=True)
class Restarted:
    """This node has been restarted through CmdCtrl."""


News = NewestRing | InTouch | Found | Lost | OtherId | RestartAsked | Restarted


# ---- effects ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Warn:
    text: str


@dataclass(frozen=True)
class AnnounceRing:
    """Log the new ring."""

    version: int
    nodes: int


@dataclass(frozen=True)
class WriteCache:
    cached: Cached


@dataclass(frozen=True)
class Reconfigure:
    configuration: RingConfiguration
    cause: str


Effect = Warn | AnnounceRing | WriteCache | Reconfigure


class _Kind(Enum):
    CACHE = auto()
    ANNOUNCE = auto()
    RECONFIGURE = auto()


# The key: is the ring newer, is its configuration different, is the ring confirmed?
_EFFECTS: dict[tuple[bool, bool, bool], frozenset[_Kind]] = {
    (False, False, False): frozenset(),
    (False, False, True): frozenset({_Kind.CACHE}),
    (False, True, False): frozenset({_Kind.CACHE, _Kind.RECONFIGURE}),
    (False, True, True): frozenset({_Kind.CACHE, _Kind.RECONFIGURE}),
    (True, False, False): frozenset({_Kind.CACHE, _Kind.ANNOUNCE}),
    (True, False, True): frozenset({_Kind.CACHE, _Kind.ANNOUNCE}),
    (True, True, False): frozenset(_Kind),
    (True, True, True): frozenset(_Kind),
}


def transition(held: Held, news: News) -> tuple[Held, tuple[Effect, ...]]:
    """The state after the news, and the effects to carry out."""
    match news:
        case NewestRing(ring, now, confirmed):
            return _ring(held, ring, now, confirmed)
        case InTouch(ring, now):
            if now - held.cached_at > RENEW_SECONDS:
                return _ring(held, ring, now, confirmed=True)
            return held, ()
        case Found(server):
            return dataclasses.replace(held, source=f"syndicate {server}", connected=True), ()
        case Lost():
            return dataclasses.replace(held, connected=False), ()
        case OtherId(local_id):
            before = held.local_id
            warning = Warn(f"this node has another id: {local_id} instead of {before}")
            # With version 0, any version of the next ring counts as newer.
            after = dataclasses.replace(held, local_id=local_id, version=0)
            return after, (warning,) if before else ()
        case RestartAsked():
            warning = Warn("the ring's configuration asks for a restart of this node")
            after = dataclasses.replace(held, restart_asked=True)
            return after, () if held.restart_asked else (warning,)
        case Restarted():
            return dataclasses.replace(held, restart_asked=False), ()


def _ring(held: Held, ring: Ring, now: float, confirmed: bool) -> tuple[Held, tuple[Effect, ...]]:
    if ring.version < held.version:
        return held, ()
    before = held.configuration
    texts = of_ring(ring, held.local_id, before)
    newer = ring.version != held.version
    other = not texts.same_texts(before)
    # The configuration counts as cached until a syndicate has answered or has given a ring.
    only_cached = before.cached and not held.connected and not newer
    configuration = dataclasses.replace(texts, cached=only_cached)
    kinds = _EFFECTS[newer, other, confirmed]
    effects: list[Effect] = []
    try:
        ignored = configuration.ignored()
        valid = True
    except ConfigError:
        ignored = []
        valid = False  # the reload logs the error
    if other:
        effects += [Warn(f"{why}; it is ignored") for why in ignored]
    caches = _Kind.CACHE in kinds and valid and not only_cached
    if caches:
        cached = Cached(held.local_id, ring.version, configuration.ring, configuration.node)
        effects.append(WriteCache(cached))
    if _Kind.ANNOUNCE in kinds:
        if ring.node(held.local_id) is None:
            effects.append(
                Warn(
                    f"ring {ring.version} is without this node ({held.local_id}): it goes on"
                    " serving with its present configuration; a restart registers it again"
                )
            )
        effects.append(AnnounceRing(ring.version, len(ring.nodes)))
    if _Kind.RECONFIGURE in kinds:
        effects.append(Reconfigure(configuration, f"ring {ring.version}"))
    after = dataclasses.replace(
        held,
        version=ring.version,
        configuration=configuration,
        cached_at=now if caches else held.cached_at,
    )
    return after, tuple(effects)
