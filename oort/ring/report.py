"""The result of a rebalance, and the difference between each node's share and what it holds.

Shares are counted in replicas of partitions.  A node's reachable share follows from capacities and
tiers (shares.py).  It may be more or less than the share by capacity alone.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .ring import Node
from .shares import TierTree


@dataclass(frozen=True, slots=True)
class NodeShare:
    """The shares of one node, counted in replicas of partitions."""

    id: int
    by_capacity: float  # in proportion to its part of the total capacity
    reachable: float  # within the limits of distinct nodes and tiers
    held: int

    @property
    def deviation(self) -> float:
        """The percentage by which it holds more than its reachable share (negative: less)."""
        if self.reachable:
            return (self.held - self.reachable) / self.reachable * 100
        return math.inf if self.held else 0.0


@dataclass(slots=True)
class Report:
    """What a rebalance did and what it could not do yet."""

    version: int = 0
    old_partition_bits: int = 0
    partition_bits: int = 0
    replicas: int = 0
    assigned: int = 0  # replicas that had no node before and have a node now
    reassigned: int = 0  # replicas taken from nodes that were inactive or had the partition twice
    moved: int = 0  # other replicas, moved for tiers or balance
    unassigned: int = 0  # replicas for which there is no node
    together: int = 0  # partitions whose replicas could be further apart, or on nodes with capacity
    waiting: int = 0  # partitions in which no replica may move until the move wait is over
    points: int = 0
    shares: list[NodeShare] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest deviation of a node from its reachable share, in percent."""
        return max((abs(share.deviation) for share in self.shares), default=0.0)

    @property
    def outside(self) -> list[NodeShare]:
        """Nodes that miss their reachable share by more than `points` percent.

        A difference of less than one replica does not count.
        """
        return [
            share
            for share in self.shares
            if abs(share.held - share.reachable)
            >= max(share.reachable * self.points / 100 + 1e-6, 1.0)
        ]

    @property
    def unreachable(self) -> list[NodeShare]:
        """Nodes whose share by capacity no assignment can reach."""
        return [
            share
            for share in self.shares
            if abs(share.reachable - share.by_capacity)
            > share.by_capacity * self.points / 100 + 1e-6
        ]


def node_shares(
    nodes: Sequence[Node],
    rows: Sequence[array[int]],
    partitions: int,
    tree: TierTree | None = None,
    held: Sequence[int] | None = None,
) -> list[NodeShare]:
    """The shares of every active node and the number of replicas that it holds."""
    tree = TierTree(nodes, len(rows)) if tree is None else tree
    held = count_held(nodes, rows) if held is None else held
    capacity = sum(node.capacity for node in nodes if node.active)
    every = partitions * len(rows)
    return [
        NodeShare(
            node.id,
            node.capacity / capacity * every if capacity else 0.0,
            tree.share[path[-1]] * partitions,
            held[index],
        )
        for index, (node, path) in enumerate(zip(nodes, tree.path, strict=True))
        if path
    ]


def count_held(nodes: Sequence[Node], rows: Sequence[array[int]]) -> list[int]:
    """The number of replicas that each node holds, by node index."""
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(row)
    return [counts[index] for index in range(len(nodes))]
