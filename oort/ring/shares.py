"""Computes how much each node should hold: the best separation by tiers, then shares by capacity.

Nodes are leaves of a tree.  The inner vertices are tiers, the widest at the top.  The cost of a
placement of one partition is a vector: for each level, the number of pairs of replicas that share a
tier.  The vectors are compared from the widest level down.  This cost is convex along the tree.
Therefore, below any vertex, every best placement has either `low` or `high` replicas, which differ
by at most 1, and every placement within these bounds is a best placement.

The reachable shares are the shares closest to the capacities within the bounds: they are
proportional to capacity, except where a vertex is at its bound.  There is always a placement of all
partitions that reaches the rounded shares exactly: `fresh_rows` builds it.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence

from .ring import Node

ROOT = 0
_EPSILON = 1e-9  # shares are sums of floats; they count partitions, at most 2^30 of them


class TierTree:
    """The active nodes of a ring by tiers, with the bounds and the shares of every vertex.

    Children have higher numbers than their parent.  `path[i]` lists the vertices that lead to node
    i, from the widest tier down to the node's own leaf.  It is empty if the node is inactive.
    Nodes of capacity 0 are leaves, but their share is 0.
    """

    def __init__(self, nodes: Sequence[Node], replicas: int) -> None:
        self.levels = max((len(node.tiers) for node in nodes), default=0)
        self.parent = [ROOT]
        self.children: list[list[int]] = [[]]
        self.node_of = [-1]
        self.path: list[tuple[int, ...]] = []
        self.usable = [node.active and node.capacity > 0 for node in nodes]
        self._capacity = [0]
        names: dict[tuple[int, str], int] = {}
        for index, node in enumerate(nodes):
            path: list[int] = []
            vertex = ROOT
            if node.active:
                for level in reversed(range(self.levels)):
                    key = (vertex, node.tier(level))
                    if key not in names:
                        names[key] = self._add(vertex)
                    vertex = names[key]
                    path.append(vertex)
                path.append(self._add(vertex, index, node.capacity))
            self.path.append(tuple(path))
        self.replicas = min(replicas, sum(self.usable))  # each replica is on a different node
        self._bound()
        self.share = [0.0] * len(self.parent)  # mean number of a partition's replicas below it
        self._divide()

    def _add(self, parent: int, node: int = -1, capacity: int = 0) -> int:
        self.parent.append(parent)
        self.children.append([])
        self.node_of.append(node)
        self._capacity.append(capacity)
        vertex = len(self.parent) - 1
        self.children[parent].append(vertex)
        return vertex

    def _bound(self) -> None:
        """Set `low` and `high` of every vertex, and `best_cost`.

        Choosing the cheapest replicas greedily gives the best placements.  Ties for the last
        chosen replica give the bounds.
        """
        count = len(self.parent)
        # The costs of the first, second ... replica below a vertex, if the cheapest are chosen.
        merged: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
        costs: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
        for vertex in reversed(range(count)):
            if self.node_of[vertex] >= 0:
                costs[vertex] = [()] if self._capacity[vertex] else []
                continue
            below = [cost for child in self.children[vertex] for cost in costs[child]]
            below.sort()
            merged[vertex] = below[: self.replicas + 1]
            costs[vertex] = [(number, *cost) for number, cost in enumerate(merged[vertex])]
        self.low = [0] * count
        self.high = [0] * count
        self.low[ROOT] = self.high[ROOT] = self.replicas
        for vertex in range(count):
            high = self.high[vertex]
            if high == 0 or self.node_of[vertex] >= 0:
                continue
            last = merged[vertex][high - 1]
            following = merged[vertex][high : high + 1]
            settled = self.low[vertex] == high and following != [last]
            for child in self.children[vertex]:
                self.high[child] = sum(cost <= last for cost in costs[child])
                below_last = sum(cost < last for cost in costs[child])
                self.low[child] = self.high[child] if settled else below_last
        #: Pairs in a common tier, by level from the widest, in the best placement.
        best = [0] * self.levels
        for cost in costs[ROOT][: self.replicas]:
            for level in range(self.levels):
                best[level] += cost[level + 1]
        self.best_cost = tuple(best)

    def _divide(self) -> None:
        """Compute shares from the top down, proportional to capacity within the bounds."""
        self._total = list(self._capacity)
        for vertex in reversed(range(1, len(self.parent))):
            self._total[self.parent[vertex]] += self._total[vertex]
        self.share[ROOT] = float(self.replicas)
        shared_level: dict[int, float] = {}
        for vertex in range(len(self.parent)):
            if self.node_of[vertex] >= 0 or not self._total[vertex]:
                continue
            level = shared_level.get(vertex)
            if level is None:
                level = self._level(vertex, self.share[vertex])
            for child in self.children[vertex]:
                share, slope = self._at(child, level)
                self.share[child] = share
                if slope > 0:  # not at a bound, so the same level holds for its children
                    shared_level[child] = level

    def _at(self, vertex: int, level: float) -> tuple[float, float]:
        """The vertex's share if each unit of capacity gets `level`, and the slope of that share."""
        if self.node_of[vertex] >= 0:
            share, slope = level * self._capacity[vertex], float(self._capacity[vertex])
        else:
            share, slope = self._sum(vertex, level)
        if share <= self.low[vertex]:
            return float(self.low[vertex]), 0.0
        if share >= self.high[vertex]:
            return float(self.high[vertex]), 0.0
        return share, slope

    def _sum(self, vertex: int, level: float) -> tuple[float, float]:
        share = slope = 0.0
        for child in self.children[vertex]:
            child_share, child_slope = self._at(child, level)
            share += child_share
            slope += child_slope
        return share, slope

    def _level(self, vertex: int, wanted: float) -> float:
        """The level at which the children's shares add up to `wanted`.

        Newton's method, with bisection where a step would leave the bracket.
        """
        bottom, top = 0.0, float(self.replicas + 1)  # capacities are integers of at least 1
        level = wanted / self._total[vertex]
        for _ in range(200):
            share, slope = self._sum(vertex, level)
            if abs(share - wanted) < 1e-12 or top - bottom < 1e-15 * top:
                break
            if share < wanted:
                bottom = level
            else:
                top = level
            step = level + (wanted - share) / slope if slope else -1.0
            level = step if bottom < step < top else (bottom + top) / 2
        return level

    def targets(
        self,
        partitions: int,
        shares: Sequence[float] | None = None,
        chance: random.Random | None = None,
    ) -> list[int]:
        """A whole number of replicas for every vertex: its share, rounded down or up.

        The children's numbers add up to their parent's, and all numbers respect the bounds.
        `shares` are for `partitions` partitions; the default is the reachable shares.  The largest
        fractions are rounded up.  With `chance`, the choice is random and prefers large fractions.
        """
        if shares is None:
            shares = [share * partitions for share in self.share]
        result = [0] * len(self.parent)
        result[ROOT] = self.replicas * partitions
        for vertex, children in enumerate(self.children):
            if not children:
                continue
            missing = result[vertex]
            fractions = []
            for child in children:
                whole = math.floor(shares[child] + _EPSILON * max(1.0, shares[child]))
                whole = max(whole, self.low[child] * partitions)
                result[child] = whole
                missing -= whole
                if whole < self.high[child] * partitions:
                    fraction = shares[child] - whole
                    if chance is not None and fraction > 0:
                        fraction = chance.random() ** (1 / fraction)
                    fractions.append((-fraction, child))
            fractions.sort()
            for _, child in fractions[:missing]:
                result[child] += 1
        return result

    def within(self, partitions: int, points: int) -> bool:
        """Whether so many partitions let every node be within `points` percent of its share."""
        targets = self.targets(partitions)
        return all(
            abs(targets[path[-1]] - self.share[path[-1]] * partitions)
            <= self.share[path[-1]] * partitions * points / 100 + 1e-6
            for path in self.path
            if path
        )

    def bits_for(self, points: int, bits: int, most_bits: int) -> int:
        """The fewest bits, at least `bits`, that allow this balance; `most_bits` if none do."""
        while bits < most_bits and not self.within(1 << bits, points):
            bits += 1
        return bits

    def cost(self, members: Sequence[int]) -> tuple[int, ...]:
        """The number of pairs of these nodes that share a tier, by level from the widest."""
        result = [0] * self.levels
        for position, node in enumerate(members):
            self._count(result, node, members[:position])
        return tuple(result)

    def marginal(self, node: int, others: Sequence[int]) -> tuple[int, ...]:
        """The increase of the cost of `others` if `node` is added."""
        result = [0] * self.levels
        self._count(result, node, others)
        return tuple(result)

    def _count(self, result: list[int], node: int, others: Sequence[int]) -> None:
        path, levels = self.path[node], range(self.levels)
        for other in others:
            beside = self.path[other]
            for level in levels:
                if beside[level] != path[level]:
                    break  # then no narrower tier is shared either
                result[level] += 1


def fresh_rows(
    tree: TierTree, partitions: int, replicas: int, chance: random.Random
) -> list[array[int]]:
    """A new assignment that has the best separation everywhere and meets the targets exactly.

    The nodes are laid out along a line in the order of the tree.  The length of a node is its
    target.  The line is cut into one piece for each replica.  Partition p gets the node at position
    p of every piece.  No node is longer than a piece, so no partition has a node twice.  Every
    vertex is one stretch of the line, so it has its mean share in every partition, rounded down
    or up.

    The algorithm runs on groups of partitions, with random order of children and random rounding.
    Each node therefore shares partitions with many others, and many nodes help to replace it.
    """
    rows = [array("i", [-1]) * partitions for _ in range(replicas)]
    used = tree.replicas
    if used == 0:
        return rows
    groups = 1
    while groups < partitions and groups * len(tree.path) < 1 << 16:
        groups *= 2
    size = partitions // groups
    left = tree.targets(partitions)
    for group in range(groups):
        remaining = groups - group
        targets = tree.targets(size, [count / remaining for count in left], chance)
        left = [before - taken for before, taken in zip(left, targets, strict=True)]
        line: array[int] = array("i")
        stack = [ROOT]
        while stack:
            vertex = stack.pop()
            if tree.node_of[vertex] >= 0:
                line.extend(array("i", [tree.node_of[vertex]]) * targets[vertex])
                continue
            children = [child for child in tree.children[vertex] if targets[child]]
            chance.shuffle(children)
            stack += children
        for replica in range(used):
            piece = line[replica * size : (replica + 1) * size]
            # The replicas rotate by one with each partition, so that a node is the first replica
            # as often as the second or the third.
            for turn in range(min(used, size)):
                row = rows[(replica + turn) % used]
                row[group + groups * turn :: groups * used] = piece[turn::used]
    return rows
