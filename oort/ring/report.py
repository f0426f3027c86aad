"""What a rebalance did, and how far each node is from what it should hold.

Shares are counted in replicas of partitions.  "Reachable" is what a node can be given at best, as
shares.py has it from capacities and tiers; its share by capacity alone may be more or less.
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
    """Counted in replicas of partitions."""

    id: int
    by_capacity: float  # its part of all the capacity
    reachable: float  # what the better rules leave it
    held: int

    @property
    def deviation(self) -> float:
        """Percent that it holds above (or below, negative) what is reachable."""
        if self.reachable:
            return (self.held - self.reachable) / self.reachable * 100
        return math.inf if self.held else 0.0


@dataclass(slots=True)
class Report:
    """What a rebalance did, and what is left to do."""

    version: int = 0
    old_partition_bits: int = 0
    partition_bits: int = 0
    replicas: int = 0
    assigned: int = 0  # replicas that had no node, and have one now
    reassigned: int = 0  # replicas taken from nodes that are inactive, or had the partition twice
    moved: int = 0  # other replicas, moved for tiers or balance
    unassigned: int = 0  # replicas for which there is no node
    together: int = 0  # partitions whose replicas could be further apart, or on nodes with capacity
    waiting: int = 0  # partitions in which nothing may move within the move wait
    points: int = 0
    shares: list[NodeShare] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest deviation of a node from its reachable share, in percent."""
        return max((abs(share.deviation) for share in self.shares), default=0.0)

    @property
    def outside(self) -> list[NodeShare]:
        """Nodes further from their reachable share than is allowed, by more than one replica."""
        return [
            share
            for share in self.shares
            if abs(share.held - share.reachable)
            >= max(share.reachable * self.points / 100 + 1e-6, 1.0)
        ]

    @property
    def unreachable(self) -> list[NodeShare]:
        """Nodes that no assignment can give their share by capacity."""
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
    """Of every active node, what it should hold and what it does."""
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
    """How many replicas each node has."""
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update(row)
    return [counts[index] for index in range(len(nodes))]
