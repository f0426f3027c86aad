"""Tests of the assignment rules: brute force on small rings, counting on large rings."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oort.errors import RingError
from oort.ring.builder import Builder, Settings
from oort.ring.report import Report
from oort.ring.ring import Node
from oort.ring.shares import TierTree, fresh_rows

MINUTE = 60 * 10**9
START = 1_700_000_000 * 10**9

Vector = tuple[int, ...]


def together(nodes: list[Node]) -> Vector:
    """The number of pairs of nodes that share a tier, the widest level first."""
    levels = max((len(node.tiers) for node in nodes), default=0)
    pairs = list(itertools.combinations(nodes, 2))
    return tuple(
        sum(all(a.tier(wider) == b.tier(wider) for wider in range(level, levels)) for a, b in pairs)
        for level in reversed(range(levels))
    )


def padded(vector: Vector, levels: int) -> Vector:
    return (0,) * (levels - len(vector)) + vector


def usable(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if node.active and node.capacity]


def best_sets(nodes: list[Node], replicas: int) -> list[tuple[int, ...]]:
    """Every best choice of nodes for a partition, by brute force."""
    can = [index for index, node in enumerate(nodes) if node.active and node.capacity]
    count = min(replicas, len(can))
    levels = max((len(node.tiers) for node in nodes), default=0)
    costs: dict[tuple[int, ...], Vector] = {
        chosen: padded(together([nodes[i] for i in chosen]), levels)
        for chosen in itertools.combinations(can, count)
    }
    best = min(costs.values())
    return [chosen for chosen, cost in costs.items() if cost == best]


nodes_strategy = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 2, 3, 5, 8, 100]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.booleans(),
    ),
    min_size=1,
    max_size=7,
).map(
    lambda drawn: [
        Node(index + 1, active or index < 3, capacity, (f"s{server}", f"z{zone}"))
        for index, (capacity, server, zone, active) in enumerate(drawn)
    ]
)


@given(nodes_strategy, st.integers(1, 5), st.sampled_from([1, 2, 8, 64, 256]))
@settings(max_examples=150, deadline=None)
def test_a_fresh_assignment_is_best_in_every_rule(
    nodes: list[Node], replicas: int, partitions: int
) -> None:
    tree = TierTree(nodes, replicas)
    rows = fresh_rows(tree, partitions, replicas, random.Random(0))
    best = {frozenset(chosen) for chosen in best_sets(nodes, replicas)}
    for placed in zip(*rows, strict=True):
        members = [index for index in placed if index >= 0]
        assert len(members) == len(set(members)) == tree.replicas
        assert frozenset(members) in best
    held = Counter(itertools.chain(*rows))
    shares = [tree.share[path[-1]] if path else 0.0 for path in tree.path]
    for index, share in enumerate(shares):
        assert abs(held[index] - share * partitions) < 1 + 1e-6

    # The shares are the closest to the capacities: no best placement, weighted by the fullness of
    # its nodes, is emptier than the mean, so no change of shares is an improvement.
    fullness = [
        share / node.capacity if node.capacity else 0.0
        for share, node in zip(shares, nodes, strict=True)
    ]
    mean = sum(full * share for full, share in zip(fullness, shares, strict=True))
    least = min((sum(fullness[i] for i in chosen) for chosen in best), default=0.0)
    assert mean - least <= 1e-6 * max(1.0, mean)


@dataclass
class Watch:
    """A builder, and an independent record of its moves."""

    builder: Builder
    now: int = START
    moved_at: list[dict[int, int]] = field(default_factory=lambda: [{}, {}])

    def placed(self) -> list[list[Node | None]]:
        nodes = self.builder.nodes
        return [
            [nodes[i] if i >= 0 else None for i in slots]
            for slots in zip(*self.builder.table, strict=True)
        ]

    def rebalance(self) -> Report:
        before = self.placed()
        report = self.builder.rebalance(self.now)
        while len(before) < 1 << self.builder.partition_bits:
            before = [list(slots) for slots in before for _ in range(2)]
            self.moved_at = [dict(times) for times in self.moved_at for _ in range(2)]
        nodes = list(self.builder.nodes)
        wait = self.builder.settings.move_wait * MINUTE
        best = best_sets(nodes, self.builder.replica_count)[0]
        levels = max((len(node.tiers) for node in nodes), default=0)
        best_cost = padded(together([nodes[i] for i in best]), levels)
        counted = Counter[str]()
        for partition, (old, new) in enumerate(zip(before, self.placed(), strict=True)):
            times = self.moved_at[partition]
            members = [node for node in new if node is not None]
            assert len({node.id for node in members}) == len(members)
            assert all(node.active for node in members)
            if None in new:
                assert {node.id for node in usable(nodes)} <= {node.id for node in members}

            changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
            voluntary = [(a, b) for a, b in changed if a is not None and a.active]
            staying = [a for a, b in zip(old, new, strict=True) if a == b and a is not None]
            recent = [n for n in staying if self.now - times.get(n.id, 0) < wait]
            if wait and voluntary:
                assert len(changed) == 1
                assert not recent
                assert self.now - times.get(voluntary[0][0].id, 0) >= wait
            counted["moved"] += len(voluntary)
            counted["assigned"] += sum(a is None for a, _ in changed)
            self.moved_at[partition] = {node.id: times.get(node.id, 0) for node in staying} | {
                b.id: self.now for _, b in changed if b is not None
            }

            cost = padded(together(members), levels)
            youngest = min(moves[partition] for moves in self.builder.last_moves)
            if youngest >= self.builder.settings.move_wait and len(members) == len(best):
                assert cost <= best_cost
            if changed and len(voluntary) < len(changed):
                placed = sum(b is not None for _, b in changed)
                options = [n for n in usable(nodes) if n not in staying]
                assert cost == min(
                    padded(together([*staying, *choice]), levels)
                    for choice in itertools.combinations(options, placed)
                )
        assert counted["moved"] == report.moved
        assert counted["assigned"] == report.assigned
        for moves, row in zip(self.builder.last_moves, self.builder.table, strict=True):
            for partition, minutes in enumerate(moves):
                if row[partition] >= 0:
                    since = self.now - self.moved_at[partition].get(nodes[row[partition]].id, 0)
                    assert minutes <= since // MINUTE  # the age is never overstated
        return report


change = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([0, 1, 2, 5, 9]), st.integers(0, 8)),
    st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("flip"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("capacity"), st.integers(0, 9), st.sampled_from([0, 1, 3, 7])),
    st.tuples(st.just("tier"), st.integers(0, 9), st.integers(0, 8)),
    st.tuples(st.just("replicas"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 45, 60, 70_000]), st.just(0)),
)


def tiers(number: int) -> tuple[str, str]:
    return f"s{number % 3}", f"z{number // 3}"


def apply(watch: Watch, kind: str, first: int, second: int) -> None:
    builder = watch.builder
    nodes = builder.nodes
    if kind == "add" and len(nodes) < 7:
        builder.add(capacity=first, tiers=tiers(second))
    elif kind == "wait":
        watch.now += first * MINUTE + second
    elif kind == "replicas":
        builder.set_replicas(first)
    elif first < len(nodes):
        node = nodes[first]
        if kind == "remove":
            builder.remove(node.id)
        elif kind == "flip":
            builder.set_active(node.id, not node.active)
        elif kind == "capacity":
            builder.change(node.id, capacity=second)
        elif kind == "tier":
            builder.change(node.id, tiers=tiers(second))


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 5, 9]), st.integers(0, 8)), max_size=5),
    st.lists(st.lists(change, min_size=1, max_size=3), max_size=6),
    st.integers(1, 4),
    st.sampled_from([0, 60]),
    st.sampled_from([0, 1, 10]),
)
@settings(max_examples=100, deadline=None)
def test_any_changes_keep_the_rules_in_their_order(
    start: list[tuple[int, int]],
    rounds: list[list[tuple[str, int, int]]],
    replicas: int,
    wait: int,
    points: int,
) -> None:
    watch = Watch(
        Builder(replicas, Settings(max_partition_bits=5, move_wait=wait, points_allowed=points))
    )
    for capacity, place in start:
        watch.builder.add(capacity=capacity, tiers=tiers(place))
    watch.rebalance()
    for changes in rounds:
        for kind, first, second in changes:
            apply(watch, kind, first, second)
        watch.rebalance()

    # Without further changes, the ring ends up separated and balanced, and nothing moves any more.
    for _ in range(12):
        watch.now += 61 * MINUTE
        report = watch.rebalance()
        if not report.moved:
            break
    assert report.moved == 0
    assert report.together == 0
    can = {node.id for node in usable(list(watch.builder.nodes))}
    if len(can) >= watch.builder.replica_count:
        assert not report.outside


@given(
    st.lists(st.integers(1, 20), min_size=4, max_size=12),
    st.lists(st.integers(1, 20), min_size=4, max_size=12),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_more_moves_than_needed(before: list[int], after: list[int], replicas: int) -> None:
    """Without tiers, only the excess above the bands or the lack below them moves."""
    builder = Builder(replicas, Settings(max_partition_bits=9, move_wait=60))
    for capacity in before:
        builder.add(capacity=capacity)
    builder.rebalance(START)
    for node, capacity in zip(builder.nodes, after, strict=False):
        builder.change(node.id, capacity=capacity)
    for capacity in after[len(before) :]:
        builder.add(capacity=capacity)
    builder.pretend_elapsed(60)
    held = Counter(itertools.chain(*builder.table))
    report = builder.rebalance(START + 1)
    scale = 1 << (report.partition_bits - report.old_partition_bits)
    above = below = 0.0
    for index, share in enumerate(report.shares):
        had = held[index] * scale
        slack = max(share.reachable * 0.01, 0.0)
        above += max(0.0, had - math.ceil(share.reachable + slack))
        below += max(0.0, math.floor(share.reachable - slack) - had)
    rounding = len(report.shares)
    if report.moved < 1 << report.partition_bits:  # otherwise one move a partition is the limit
        assert report.moved <= max(above, below) * 1.25 + rounding
    assert report.moved >= max(above, below) or report.outside


@pytest.mark.parametrize("seed", range(4))
def test_the_one_move_of_a_partition_is_made_where_it_counts(seed: int) -> None:
    """Balance needs the one move of every partition, so no move may be wasted."""
    builder = Builder(4, Settings(points_allowed=0, max_partition_bits=8))
    for capacity in (2, 1, 1, 1, 8):
        builder.add(capacity=capacity)
    builder.rebalance(START + seed)
    for number in (1, 2):
        builder.add(capacity=8)
        report = builder.rebalance(START + seed + number * 61 * MINUTE)
        assert not report.outside
        assert report.moved <= 256


def cluster(nodes: int, zones: int, replicas: int = 3, **changes: int) -> Builder:
    builder = Builder(replicas, Settings(**changes))
    for number in range(nodes):
        builder.add(
            node_id=number + 1,
            capacity=100 * (1 + number % 4),
            tiers=(f"server{number // 2}", f"zone{number % zones}"),
        )
    return builder


def test_growth_moves_nothing_and_is_minimal() -> None:
    builder = cluster(12, 4)
    builder.rebalance(START)
    bits = builder.partition_bits
    tree = TierTree(builder.nodes, 3)
    assert tree.within(1 << bits, 1)
    assert not any(tree.within(1 << fewer, 1) for fewer in range(1, bits))
    before = [list(row) for row in builder.table]
    builder.change_settings(points_allowed=0, max_partition_bits=bits + 2)
    report = builder.rebalance(START + MINUTE)
    assert report.partition_bits == bits + 2
    assert report.moved == report.reassigned == 0  # within the move wait
    for row, old in zip(builder.table, before, strict=True):
        assert list(row) == [node for node in old for _ in range(4)]


def test_a_node_lost_and_one_added_move_only_their_share() -> None:
    builder = cluster(60, 6)
    builder.rebalance(START)
    replicas = 3 << builder.partition_bits
    held = Counter(itertools.chain(*builder.table))
    builder.set_active(7, False)
    report = builder.rebalance(START + MINUTE)
    assert report.reassigned == held[6] * (1 << report.partition_bits - report.old_partition_bits)
    assert report.moved < replicas // 100
    assert not report.outside

    # Every other node helps to replace the lost node.
    receivers = sum(share.held > 0 for share in report.shares)
    assert receivers == 59

    builder.add(node_id=1000, capacity=100, tiers=("server1000", "zone0"))
    builder.pretend_elapsed(60)
    report = builder.rebalance(START + 2 * MINUTE)
    share = next(share for share in report.shares if share.id == 1000)
    assert not report.outside
    assert share.reachable * 0.98 <= report.moved <= share.reachable * 1.2
    assert report.assigned == report.reassigned == 0


def test_every_node_is_the_first_replica_of_its_part() -> None:
    builder = cluster(12, 4)
    builder.rebalance(START)
    first = Counter(builder.table[0])
    every = Counter(itertools.chain(*builder.table))
    for node, count in every.items():
        assert abs(first[node] - count / 3) <= max(6, count / 6)


def test_many_nodes_share_partitions_with_each() -> None:
    """The data of a lost node can then be copied from many nodes."""
    builder = cluster(40, 8)
    builder.rebalance(START)
    for node in range(40):
        peers = {
            other for slots in zip(*builder.table, strict=True) if node in slots for other in slots
        }
        assert len(peers) > 25


@pytest.mark.parametrize("capacity", [0, 5])
def test_fewer_nodes_than_replicas(capacity: int) -> None:
    builder = Builder(3)
    assert builder.rebalance(START).unassigned == 6
    builder.add(node_id=1, capacity=5)
    builder.add(node_id=2, capacity=capacity)
    report = builder.rebalance(START + 1)
    nodes = 2 if capacity else 1
    assert report.unassigned == (3 - nodes) << builder.partition_bits
    assert all(len(builder.ring().replicas(p)) == nodes for p in range(2))
    builder.add(node_id=3, capacity=50)
    builder.add(node_id=4, capacity=1)
    assert builder.rebalance(START + 2).unassigned == 0 or capacity == 0
    zero = [share for share in report.shares if share.id == 2]
    assert zero[0].held == (2 if capacity else 0)


def test_unreachable_shares_are_reported() -> None:
    builder = Builder(3)
    for number, capacity in enumerate([1000, 100, 100, 100]):
        builder.add(node_id=number + 1, capacity=capacity)
    report = builder.rebalance(START)
    partitions = 1 << report.partition_bits
    assert [share.id for share in report.unreachable] == [1, 2, 3, 4]
    assert report.shares[0].reachable == pytest.approx(partitions)
    assert [share.held for share in report.shares[1:]] == pytest.approx(
        [partitions * 2 / 3] * 3, rel=0.01
    )
    assert not report.outside


def test_versions_grow_up_to_the_largest() -> None:
    builder = Builder()
    assert builder.rebalance(START).version == START
    assert builder.rebalance(START - 5).version == START + 1
    with pytest.raises(RingError):
        builder.rebalance(1 << 63)


def test_a_thousand_nodes() -> None:
    builder = Builder(3)
    for number in range(1000):
        builder.add(
            node_id=number + 1,
            capacity=1000,
            tiers=(f"server{number // 4}", f"zone{number // 4 % 5}"),
        )
    report = builder.rebalance(START)
    assert not report.outside
    assert report.worst <= 1
    nodes = builder.nodes
    zones = [node.tiers[1] for node in nodes]
    for placed in zip(*builder.table, strict=True):
        assert len({zones[index] for index in placed}) == 3
    builder.remove(500)
    report = builder.rebalance(START + MINUTE)
    assert not report.outside
    assert report.assigned == pytest.approx(report.shares[0].held, rel=0.02)
    assert report.moved == 0
