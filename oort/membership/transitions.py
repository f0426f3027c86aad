"""What news of the ring changes for this node: transition(held, came) -> (held, effects).

A pure function: it reads no clock and no file.  membership.py carries out the effects, in their
order.  For a ring, what follows stands in _FOLLOWS; two rules hold in every row of that table:
 - a ring older than the one that the configuration is of changes nothing at all: the file in the
   data directory may be older than what was cached;
 - only a valid configuration that a syndicate or a ring file gave is cached, so that no node starts
   with a configuration that it would refuse.
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
    """What this node goes by."""

    local_id: int
    version: int  # of the ring that the configuration is of
    configuration: RingConfiguration
    source: str  # where the ring is from, in words
    connected: bool = False  # to a syndicate
    restart_asked: bool = False  # by a configuration that came since the last restart
    cached_at: float = float("-inf")  # monotonic; when the cache was last written


# ---- what came -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewestRing:
    """The ring that counts now, which may be the one that counted before."""

    ring: Ring
    now: float  # monotonic
    confirmed: bool = False  # the cache is to be written whether or not there is something new


@dataclass(frozen=True)
class InTouch:
    """The syndicate answers, and has no other ring than this one."""

    ring: Ring
    now: float


@dataclass(frozen=True)
class Found:
    server: str


@dataclass(frozen=True)
class Lost:
    """No syndicate answers."""


@dataclass(frozen=True)
class OtherId:
    """The syndicate has made this host another node; its ring comes next."""

    local_id: int


@dataclass(frozen=True)
class RestartAsked:
    """The ring's configuration came with the wish that nodes are restarted."""


@dataclass(frozen=True)
class Restarted:
    pass


Came = NewestRing | InTouch | Found | Lost | OtherId | RestartAsked | Restarted


# ---- what follows ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Warn:
    text: str


@dataclass(frozen=True)
class TellRing:
    """There is a new ring."""

    version: int
    nodes: int


@dataclass(frozen=True)
class WriteCache:
    cached: Cached


@dataclass(frozen=True)
class Reconfigure:
    configuration: RingConfiguration
    cause: str


Effect = Warn | TellRing | WriteCache | Reconfigure


class _Follows(Enum):
    CACHE = auto()
    TELL = auto()
    RECONFIGURE = auto()


# By: is the ring newer, is its configuration another one, is the ring confirmed.
_FOLLOWS: dict[tuple[bool, bool, bool], frozenset[_Follows]] = {
    (False, False, False): frozenset(),
    (False, False, True): frozenset({_Follows.CACHE}),
    (False, True, False): frozenset({_Follows.CACHE, _Follows.RECONFIGURE}),
    (False, True, True): frozenset({_Follows.CACHE, _Follows.RECONFIGURE}),
    (True, False, False): frozenset({_Follows.CACHE, _Follows.TELL}),
    (True, False, True): frozenset({_Follows.CACHE, _Follows.TELL}),
    (True, True, False): frozenset(_Follows),
    (True, True, True): frozenset(_Follows),
}


def transition(held: Held, came: Came) -> tuple[Held, tuple[Effect, ...]]:
    match came:
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
            told = Warn(f"this node has another id: {local_id}, it was {before}")
            # Any version of its ring is news to another node.
            after = dataclasses.replace(held, local_id=local_id, version=0)
            return after, (told,) if before else ()
        case RestartAsked():
            told = Warn("the ring's configuration asks for a restart of this node")
            after = dataclasses.replace(held, restart_asked=True)
            return after, () if held.restart_asked else (told,)
        case Restarted():
            return dataclasses.replace(held, restart_asked=False), ()


def _ring(held: Held, ring: Ring, now: float, confirmed: bool) -> tuple[Held, tuple[Effect, ...]]:
    if ring.version < held.version:
        return held, ()
    before = held.configuration
    texts = of_ring(ring, held.local_id, before)
    newer = ring.version != held.version
    other = not texts.same_texts(before)
    # The cache stands in until a syndicate has answered, or has given a ring.
    only_cached = before.cached and not held.connected and not newer
    configuration = dataclasses.replace(texts, cached=only_cached)
    follows = _FOLLOWS[newer, other, confirmed]
    effects: list[Effect] = []
    try:
        left_out = configuration.ignored()
        valid = True
    except ConfigError:
        left_out = []
        valid = False  # the reload says what is wrong
    if other:
        effects += [Warn(f"{why}; it is left out") for why in left_out]
    caches = _Follows.CACHE in follows and valid and not only_cached
    if caches:
        cached = Cached(held.local_id, ring.version, configuration.ring, configuration.node)
        effects.append(WriteCache(cached))
    if _Follows.TELL in follows:
        if ring.node(held.local_id) is None:
            effects.append(
                Warn(
                    f"ring {ring.version} is without this node ({held.local_id}): it serves on,"
                    " with the configuration it has; a restart registers it anew"
                )
            )
        effects.append(TellRing(ring.version, len(ring.nodes)))
    if _Follows.RECONFIGURE in follows:
        effects.append(Reconfigure(configuration, f"ring {ring.version}"))
    after = dataclasses.replace(
        held,
        version=ring.version,
        configuration=configuration,
        cached_at=now if caches else held.cached_at,
    )
    return after, tuple(effects)
