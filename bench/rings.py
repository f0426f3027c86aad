"""make bench: how long a rebalance takes, how even its result is, and how much it moves.

The rings have 10, 100 and 1,000 nodes in 5 zones, 3 replicas, and capacities from 100 to 1,000.
They go through the usual changes of a ring.  The smallest possible number of moves is computed here
from the shares and from the replicas that each node held before.  It does not depend on the code
under test.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from statistics import median

from oort.ring.builder import Builder
from oort.ring.report import NodeShare

NODES = (10, 100, 1000)
ROUNDS = 3
_ZONES = 5
_START = 1_700_000_000 * 10**9
_LATER = 61 * 60 * 10**9  # nanoseconds; more than the move wait

Figures = dict[str, float]


def _capacity(chance: random.Random) -> int:
    return chance.randint(100, 1000)


def _ring(nodes: int, chance: random.Random) -> Builder:
    builder = Builder(3)
    for number in range(nodes):
        tiers = (f"server{number // 2}", f"zone{number // 2 % _ZONES}")
        builder.add(node_id=number + 1, capacity=_capacity(chance), tiers=tiers)
    return builder


def _add(builder: Builder, chance: random.Random) -> None:
    builder.add(capacity=_capacity(chance), tiers=("another server", "zone0"))


def _lose(builder: Builder, chance: random.Random) -> None:
    builder.set_active(chance.choice(builder.nodes).id, False)


def _change_all(builder: Builder, chance: random.Random) -> None:
    for node in builder.nodes:
        builder.change(node.id, capacity=_capacity(chance))


WORK: dict[str, Callable[[Builder, random.Random], None]] = {
    "one node added": _add,
    "one node lost": _lose,
    "all capacities changed": _change_all,
}


def _held(builder: Builder) -> Counter[int]:
    """The number of replicas of partitions by node id; id 0 for replicas without a node."""
    ids = [node.id for node in builder.nodes] + [0]  # index -1 means unassigned
    return Counter(ids[index] for index in chain(*builder.table))


def _fewest(held: Counter[int], scale: int, shares: list[NodeShare], points: int) -> int:
    """The least number of moves: replicas above the allowed range, or missing below it.

    `scale`: the number of partitions that each partition was split into since `held` was counted.
    """
    above = below = 0
    active = {share.id for share in shares}
    homeless = scale * sum(count for node, count in held.items() if node not in active)
    for share in shares:
        slack = share.reachable * points / 100
        had = held[share.id] * scale
        above += max(0, had - max(math.floor(share.reachable + slack), math.ceil(share.reachable)))
        below += max(0, min(math.ceil(share.reachable - slack), math.floor(share.reachable)) - had)
    return max(homeless + above, below)


def _measure(builder: Builder, now: int) -> Figures:
    held, points = _held(builder), builder.settings.points_allowed
    begin = time.process_time()
    report = builder.rebalance(now)
    seconds = time.process_time() - begin
    moved = report.moved + report.reassigned + report.assigned
    scale = 1 << (report.partition_bits - report.old_partition_bits)
    return {
        "cpu_s": seconds,
        "partitions": 1 << report.partition_bits,
        "worst_percent": report.worst,
        "outside": len(report.outside),
        "moved": moved,
        "moved_percent": moved * 100 / (report.replicas << report.partition_bits),
        "fewest": _fewest(held, scale, report.shares, points),
    }


def rings(say: Callable[[str], None]) -> dict[str, dict[str, Figures]]:
    """Medians of ROUNDS rings, by the number of nodes and by the change of the ring."""
    results: dict[str, dict[str, Figures]] = {}
    for nodes in NODES:
        found: dict[str, list[Figures]] = {}
        for number in range(ROUNDS):
            say(f"rings of {nodes} nodes: {number + 1} of {ROUNDS}")
            chance = random.Random(number)
            builder = _ring(nodes, chance)
            now = _START + number
            found.setdefault("new ring", []).append(_measure(builder, now))
            for name, happen in WORK.items():
                happen(builder, chance)
                now += _LATER
                found.setdefault(name, []).append(_measure(builder, now))
        results[str(nodes)] = {
            name: {figure: median(measured[figure] for measured in rounds) for figure in rounds[0]}
            for name, rounds in found.items()
        }
    return results


def lines(results: dict[str, dict[str, Figures]]) -> list[str]:
    """A table for people."""
    header = (
        f"{'nodes':>6} {'rebalance':<22} {'CPU s':>6} {'partitions':>10} {'worst %':>8} "
        f"{'moved':>8} {'moved %':>8} {'fewest':>8}"
    )
    return [header] + [
        f"{nodes:>6} {name:<22} {row['cpu_s']:>6.2f} {row['partitions']:>10,.0f} "
        f"{row['worst_percent']:>8.2f} {row['moved']:>8,.0f} {row['moved_percent']:>8.2f} "
        f"{row['fewest']:>8,.0f}"
        for nodes, rows in results.items()
        for name, row in rows.items()
    ]


if __name__ == "__main__":
    print("\n".join(lines(rings(lambda text: None))))
