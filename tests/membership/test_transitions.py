"""The effects of news about the ring: every row of (held, news) -> (held, effects)."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import pytest

from oort.membership.cache import RENEW_SECONDS, Cached
from oort.membership.configuration import RingConfiguration
from oort.membership.transitions import (
    AnnounceRing,
    Effect,
    Found,
    Held,
    InTouch,
    Lost,
    NewestRing,
    News,
    OtherId,
    Reconfigure,
    RestartAsked,
    Restarted,
    Warn,
    WriteCache,
    transition,
)
from oort.ring.ring import Node, Ring

ME, OTHER = 7, 8
CONF, NEW_CONF = b"MaxClients = 100\n", b"MaxClients = 200\n"
NOW = 5000.0


def ring(version: int, conf: bytes = CONF, *, member: bool = True, node_conf: bytes = b"") -> Ring:
    nodes = [Node(OTHER)] + ([Node(ME, conf=node_conf)] if member else [])
    return Ring(
        version=version,
        conf=conf,
        nodes=sorted(nodes, key=lambda node: node.id),
        partition_bits=0,
        rows=[array("i", [0])],
    )


def settings(conf: bytes = CONF, node: bytes = b"", *, cached: bool = False) -> RingConfiguration:
    return RingConfiguration(conf, node, cached)


def written(version: int, conf: bytes = CONF, node: bytes = b"") -> WriteCache:
    return WriteCache(Cached(ME, version, conf, node))


HELD = Held(ME, 5, settings(), "syndicate a:1", connected=True, cached_at=NOW - 10)
FROM_CACHE = dataclasses.replace(
    HELD, configuration=settings(cached=True), connected=False, source="cache /x"
)
GONE = Warn(
    f"ring 6 is without this node ({ME}): it goes on serving with its present configuration;"
    " a restart registers it again"
)
UNKNOWN = b"MaxClients = 200\nColour = red\n"
IGNORED = Warn("ring configuration: unknown setting Colour; it is ignored")
WRONG = b"MaxClients = many\n"

# Name; state before; news; changes of the state; effects.
Row = tuple[str, Held, News, dict[str, Any], list[Effect]]
ROWS: list[Row] = [
    (
        "an older ring",
        HELD,
        NewestRing(ring(4, NEW_CONF), NOW),
        {},
        [],
    ),
    (
        "an older ring, confirmed",
        HELD,
        NewestRing(ring(4, NEW_CONF), NOW, confirmed=True),
        {},
        [],
    ),
    (
        "the same ring",
        HELD,
        NewestRing(ring(5), NOW),
        {},
        [],
    ),
    (
        "the same ring, confirmed",
        HELD,
        NewestRing(ring(5), NOW, confirmed=True),
        {"cached_at": NOW},
        [written(5)],
    ),
    (
        "the same ring, another configuration than was cached",
        FROM_CACHE,
        NewestRing(ring(5, NEW_CONF), NOW),
        {"configuration": settings(NEW_CONF, cached=True)},
        [Reconfigure(settings(NEW_CONF, cached=True), "ring 5")],
    ),
    (
        "the same ring, another configuration, from a syndicate",
        dataclasses.replace(FROM_CACHE, connected=True),
        NewestRing(ring(5, NEW_CONF), NOW, confirmed=True),
        {"configuration": settings(NEW_CONF), "cached_at": NOW},
        [written(5, NEW_CONF), Reconfigure(settings(NEW_CONF), "ring 5")],
    ),
    (
        "the same ring while no syndicate has answered",
        FROM_CACHE,
        NewestRing(ring(5), NOW, confirmed=True),
        {},
        [],
    ),
    (
        "the same ring once a syndicate has answered",
        dataclasses.replace(FROM_CACHE, connected=True),
        NewestRing(ring(5), NOW, confirmed=True),
        {"configuration": settings(), "cached_at": NOW},
        [written(5)],
    ),
    (
        "a newer ring",
        HELD,
        NewestRing(ring(6), NOW),
        {"version": 6, "cached_at": NOW},
        [written(6), AnnounceRing(6, 2)],
    ),
    (
        "a newer ring, confirmed",
        HELD,
        NewestRing(ring(6), NOW, confirmed=True),
        {"version": 6, "cached_at": NOW},
        [written(6), AnnounceRing(6, 2)],
    ),
    (
        "a newer ring while no syndicate has answered: somebody has given it",
        FROM_CACHE,
        NewestRing(ring(6), NOW),
        {"version": 6, "configuration": settings(), "cached_at": NOW},
        [written(6), AnnounceRing(6, 2)],
    ),
    (
        "a newer ring with another configuration",
        HELD,
        NewestRing(ring(6, NEW_CONF), NOW),
        {"version": 6, "configuration": settings(NEW_CONF), "cached_at": NOW},
        [
            written(6, NEW_CONF),
            AnnounceRing(6, 2),
            Reconfigure(settings(NEW_CONF), "ring 6"),
        ],
    ),
    (
        "a newer ring with another configuration of this node",
        HELD,
        NewestRing(ring(6, node_conf=NEW_CONF), NOW),
        {"version": 6, "configuration": settings(CONF, NEW_CONF), "cached_at": NOW},
        [
            written(6, CONF, NEW_CONF),
            AnnounceRing(6, 2),
            Reconfigure(settings(CONF, NEW_CONF), "ring 6"),
        ],
    ),
    (
        "a newer ring with a setting that is not known",
        HELD,
        NewestRing(ring(6, UNKNOWN), NOW),
        {"version": 6, "configuration": settings(UNKNOWN), "cached_at": NOW},
        [
            IGNORED,
            written(6, UNKNOWN),
            AnnounceRing(6, 2),
            Reconfigure(settings(UNKNOWN), "ring 6"),
        ],
    ),
    (
        "the next ring with the same unknown setting: it was told",
        dataclasses.replace(HELD, configuration=settings(UNKNOWN)),
        NewestRing(ring(6, UNKNOWN), NOW),
        {"version": 6, "cached_at": NOW},
        [written(6, UNKNOWN), AnnounceRing(6, 2)],
    ),
    (
        "a newer ring with a wrong configuration is not cached",
        HELD,
        NewestRing(ring(6, WRONG), NOW, confirmed=True),
        {"version": 6, "configuration": settings(WRONG)},
        [AnnounceRing(6, 2), Reconfigure(settings(WRONG), "ring 6")],
    ),
    (
        "the wrong configuration, confirmed, is not cached either",
        dataclasses.replace(HELD, configuration=settings(WRONG)),
        NewestRing(ring(5, WRONG), NOW, confirmed=True),
        {},
        [],
    ),
    (
        "a newer ring without this node, which keeps its configuration",
        dataclasses.replace(HELD, configuration=settings(CONF, NEW_CONF)),
        NewestRing(ring(6, member=False), NOW),
        {"version": 6, "cached_at": NOW},
        [written(6, CONF, NEW_CONF), GONE, AnnounceRing(6, 1)],
    ),
    (
        "the same ring without this node: it was told",
        HELD,
        NewestRing(ring(5, member=False), NOW, confirmed=True),
        {"cached_at": NOW},
        [written(5)],
    ),
    (
        "in touch before the cache is to be renewed",
        dataclasses.replace(HELD, cached_at=NOW - RENEW_SECONDS),
        InTouch(ring(5), NOW),
        {},
        [],
    ),
    (
        "in touch when the cache is to be renewed",
        dataclasses.replace(HELD, cached_at=NOW - RENEW_SECONDS - 1),
        InTouch(ring(5), NOW),
        {"cached_at": NOW},
        [written(5)],
    ),
    (
        "in touch, and the cache was never written",
        dataclasses.replace(HELD, cached_at=float("-inf")),
        InTouch(ring(5), NOW),
        {"cached_at": NOW},
        [written(5)],
    ),
    (
        "a syndicate is found",
        FROM_CACHE,
        Found("b:2"),
        {"source": "syndicate b:2", "connected": True},
        [],
    ),
    (
        "the syndicate is lost",
        HELD,
        Lost(),
        {"connected": False},
        [],
    ),
    (
        "another id",
        HELD,
        OtherId(OTHER),
        {"local_id": OTHER, "version": 0},
        [Warn(f"this node has another id: {OTHER} instead of {ME}")],
    ),
    (
        "the first id",
        dataclasses.replace(HELD, local_id=0),
        OtherId(ME),
        {"local_id": ME, "version": 0},
        [],
    ),
    (
        "a restart is asked for",
        HELD,
        RestartAsked(),
        {"restart_asked": True},
        [Warn("the ring's configuration asks for a restart of this node")],
    ),
    (
        "a restart is asked for again",
        dataclasses.replace(HELD, restart_asked=True),
        RestartAsked(),
        {},
        [],
    ),
    (
        "restarted",
        dataclasses.replace(HELD, restart_asked=True),
        Restarted(),
        {"restart_asked": False},
        [],
    ),
]


@pytest.mark.parametrize(
    ("held", "news", "changes", "effects"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_row(held: Held, news: News, changes: dict[str, Any], effects: list[Effect]) -> None:
    after, found = transition(held, news)
    assert after == dataclasses.replace(held, **changes)
    assert list(found) == effects


def test_a_ring_of_another_node_counts_whatever_its_version() -> None:
    held, _ = transition(HELD, OtherId(OTHER))
    held, effects = transition(held, NewestRing(ring(2, NEW_CONF), NOW))
    assert held.version == 2
    assert Reconfigure(settings(NEW_CONF), "ring 2") in effects
