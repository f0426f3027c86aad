"""Changes the assignment of partitions to nodes as little as the rules allow.

The rules, in order of priority:

1. The replicas of a partition are on different nodes.
2. A replica without an active node gets a node at once.
3. Otherwise at most one replica of a partition moves within the move wait.
4. Replicas are as far apart in tiers as possible.
5. Every node is within the allowed points of its reachable share.
6. As few replicas move as possible.

Moving one replica at a time is enough because of the costs in shares.py.  If a partition is not
placed best, a single move improves it.  If nodes are out of balance, a chain of moves that changes
no partition's cost connects them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import operator
import random
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from .report import Report, count_held, node_shares
from .ring import UNASSIGNED, Node
from .shares import ROOT, TierTree, fresh_rows

_Urgency = Callable[[int], float]
#: The giving node, the slot that it gives, and what happens to an earlier move in that partition:
#: _NONE (no earlier move), _BACK (it is undone, and its origin is the taker), or the slot in
#: another partition that moves instead.
_Step = tuple[int, int, int]
_NONE, _BACK = -1, -2

LONG_AGO = 65535  # minutes; the last move was at least so long ago, or there was none
_CHAIN_CHECKS = 400_000  # limit of the work spent on chains, about a second


def _where(flags: Iterable[object]) -> Iterator[int]:
    """The positions of the true flags; faster than a Python loop over millions of entries."""
    return itertools.compress(itertools.count(), flags)


def double(rows: list[array[int]]) -> list[array[int]]:
    """Rows with twice the partitions; both halves of a partition inherit its entry."""
    result = []
    for row in rows:
        wider = row + row
        wider[0::2] = row
        wider[1::2] = row
        result.append(wider)
    return result


def drop_replicas(nodes: Sequence[Node], rows: list[array[int]], count: int) -> list[array[int]]:
    """Keep `count` replicas of each partition: those furthest apart, then those on emptier nodes.

    A replica changes its row only if a replica before it is dropped.
    """
    tree = TierTree(nodes, count)
    held = count_held(nodes, rows)
    room = [  # an unusable node counts as fuller than any other
        node.capacity if tree.usable[index] else 0.5 / len(rows[0]) / len(rows)
        for index, node in enumerate(nodes)
    ]
    result = [array("i", [UNASSIGNED]) * len(rows[0]) for _ in range(count)]
    for partition, placed in enumerate(zip(*rows, strict=True)):
        members = [node for node in placed if node >= 0]
        while len(members) > count:
            worst = None
            for slot in range(len(members)):
                node = members[slot]
                others = members[:slot] + members[slot + 1 :]
                known = tree.path[node] and node not in others
                cost = tree.marginal(node, [o for o in others if tree.path[o]]) if known else ()
                rank = (not known, cost, held[node] / room[node], slot)
                worst = rank if worst is None else max(worst, rank)
            assert worst is not None
            held[members.pop(worst[3])] -= 1
        for row, node in zip(result, members, strict=False):
            row[partition] = node
    return result


class _NeedTree:
    """The usable nodes of a TierTree, ordered by urgency within every vertex.

    Each vertex has a heap of its children, ordered by the highest urgency below them.  A stale
    entry is dropped when it reaches the top.
    """

    def __init__(self, tree: TierTree) -> None:
        self._tree = tree
        self._heaps: list[list[tuple[float, int]]] = [[] for _ in tree.parent]
        self._urgency = [-math.inf] * len(tree.parent)

    def set_all(self, urgency: _Urgency) -> None:
        tree, current = self._tree, self._urgency
        for vertex in reversed(range(len(tree.parent))):
            node = tree.node_of[vertex]
            if node >= 0:
                current[vertex] = urgency(node) if tree.usable[node] else -math.inf
                continue
            heap = [(-current[c], c) for c in tree.children[vertex] if current[c] > -math.inf]
            heapq.heapify(heap)
            self._heaps[vertex] = heap
            current[vertex] = -heap[0][0] if heap else -math.inf

    def set(self, node: int, urgency: float) -> None:
        if not self._tree.usable[node]:
            return
        current = self._urgency
        vertex = self._tree.path[node][-1]
        while current[vertex] != urgency:
            current[vertex] = urgency
            if vertex == ROOT:
                break
            parent = self._tree.parent[vertex]
            heap = self._heaps[parent]
            heapq.heappush(heap, (-urgency, vertex))
            while -heap[0][0] != current[heap[0][1]]:
                heapq.heappop(heap)
            urgency = -heap[0][0]
            vertex = parent

    def highest(self) -> float:
        return self._urgency[ROOT]

    def best(
        self, others: Sequence[int], above: float = -math.inf
    ) -> tuple[tuple[int, ...], int] | None:
        """The lowest cost of a node beside `others`, and the most urgent node of that cost.

        None if that node's urgency is not above `above`, or if `others` has every usable node.
        """
        counts: dict[int, int] = {}
        for other in others:
            for vertex in self._tree.path[other]:
                counts[vertex] = counts.get(vertex, 0) + 1
        found = self._descend(ROOT, 0, counts, above)
        return None if found is None else (found[0], found[2])

    def _descend(
        self, vertex: int, depth: int, counts: dict[int, int], above: float
    ) -> tuple[tuple[int, ...], float, int] | None:
        """The smallest (cost, -urgency, node) below the vertex."""
        heap, current = self._heaps[vertex], self._urgency
        occupied: dict[int, tuple[float, int]] = {}
        chosen = -1
        while heap:
            entry = heap[0]
            child = entry[1]
            if -entry[0] == current[child] and child not in occupied:
                if child not in counts:
                    chosen = child
                    break
                occupied[child] = entry
            heapq.heappop(heap)
        for entry in occupied.values():
            heapq.heappush(heap, entry)
        if chosen >= 0:
            urgency = current[chosen]
            if urgency <= above:
                return None
            while self._tree.node_of[chosen] < 0:
                chosen = self._heaps[chosen][0][1]
            return (0,) * (self._tree.levels - depth), -urgency, self._tree.node_of[chosen]
        if depth == self._tree.levels:
            return None
        below = []
        for child in occupied:
            found = self._descend(child, depth + 1, counts, above)
            if found is not None:
                below.append(((counts[child], *found[0]), *found[1:]))
        return min(below, default=None)


class Rebalancer:
    """One rebalance, which changes `rows` and `last_moves` in place.

    `last_moves` is in minutes and already includes the time since the previous rebalance.
    Afterwards it is 0 for every replica whose node changed.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        rows: list[array[int]],
        last_moves: list[array[int]],
        *,
        points: int,
        move_wait: int,
        seed: int,
    ) -> None:
        self._nodes = nodes
        self._rows = rows
        self._last_moves = last_moves
        self._points = points
        self._wait = move_wait
        self._partitions = len(rows[0])
        self._random = random.Random(seed)
        self._tree = TierTree(nodes, len(rows))
        self._before = [array("i", row) for row in rows]

    def run(self) -> Report:
        report = Report(replicas=len(self._rows), points=self._points)
        self._held = count_held(self._nodes, self._rows)
        if any(self._held[index] for index, path in enumerate(self._tree.path) if path):
            self._change(report)
        else:
            self._rows[:] = fresh_rows(self._tree, self._partitions, len(self._rows), self._random)
            self._held = count_held(self._nodes, self._rows)
        self._account(report)
        return report

    def _account(self, report: Report) -> None:
        active = [bool(path) for path in self._tree.path]
        for before, row, moves in zip(self._before, self._rows, self._last_moves, strict=True):
            report.unassigned += row.count(UNASSIGNED)
            if before.count(UNASSIGNED) == len(before) and not row.count(UNASSIGNED):
                report.assigned += len(row)
                moves[:] = array("H", bytes(moves.itemsize * len(moves)))
                continue
            for partition in _where(map(operator.ne, before, row)):
                old, new = before[partition], row[partition]
                moves[partition] = 0
                if old == UNASSIGNED:
                    report.assigned += 1
                elif not active[old] or self._was_twice(partition, old):
                    report.reassigned += new != UNASSIGNED
                else:
                    report.moved += 1
        report.shares = node_shares(
            self._nodes, self._rows, self._partitions, self._tree, self._held
        )

    def _was_twice(self, partition: int, node: int) -> bool:
        return [row[partition] for row in self._before].count(node) > 1

    # Replicas without a node, and locked partitions

    def _change(self, report: Report) -> None:
        tree = self._tree
        targets = tree.targets(self._partitions)
        self._target = [targets[path[-1]] if path else 0 for path in tree.path]
        self._least, self._most = [], []
        for target, path in zip(self._target, tree.path, strict=True):
            share = tree.share[path[-1]] * self._partitions if path else 0.0
            slack = share * self._points / 100
            self._least.append(min(target, math.ceil(share - slack - 1e-6)))
            self._most.append(max(target, math.floor(share + slack + 1e-6)))
        self._need = _NeedTree(tree)
        #: Partitions in which a replica moved within the wait; their replicas must not move.
        self._locked = self._recently_moved()
        report.waiting = sum(self._locked)
        #: Slots (see _slot) that this rebalance has placed; they may move again to any node.
        self._placing: set[int] = set()
        #: The slot that was moved voluntarily, by partition.
        self._moved: dict[int, int] = {}
        self._place_missing()
        self._separate(report)
        self._slots = self._slots_by_node()
        self._shed()
        self._fill()
        self._chain()

    def _slot(self, replica: int, partition: int) -> int:
        return replica * self._partitions + partition

    def _recently_moved(self) -> bytearray:
        locked = bytearray(self._partitions)
        wait = self._wait
        for moves in self._last_moves:
            if wait and min(moves) < wait:
                for partition, minutes in enumerate(moves):
                    if minutes < wait:
                        locked[partition] = 1
        return locked

    def _members(self, partition: int) -> list[int]:
        return [node for row in self._rows if (node := row[partition]) >= 0]

    def _put(self, slot: int, node: int) -> None:
        """Give the slot another node and lock the other slots of its partition."""
        replica, partition = divmod(slot, self._partitions)
        old = self._rows[replica][partition]
        if old == node:
            return
        self._rows[replica][partition] = node
        if old >= 0:
            self._held[old] -= 1
        if node >= 0:
            self._held[node] += 1
        if not self._wait:
            return
        if self._moved.get(partition) == slot and node == self._before[replica][partition]:
            del self._moved[partition]  # the move is undone
            self._locked[partition] = 0
            self._placing.discard(slot)
            return
        if not self._locked[partition] and node >= 0:
            self._moved[partition] = slot
        self._locked[partition] = 1
        self._placing.add(slot)

    def _missing(self) -> Iterator[int]:
        """Slots without an active node, or whose node has the partition in an earlier row."""
        gone = [index for index, path in enumerate(self._tree.path) if not path]
        for replica, row in enumerate(self._rows):
            for node in (UNASSIGNED, *(node for node in gone if self._held[node])):
                at = -1
                for _ in range(row.count(node)):
                    at = row.index(node, at + 1)
                    yield self._slot(replica, at)
        for replica in range(1, len(self._rows)):
            row = self._rows[replica]
            for earlier in self._rows[:replica]:
                for partition in _where(map(operator.eq, row, earlier)):
                    if row[partition] >= 0:
                        yield self._slot(replica, partition)

    def _place_missing(self) -> None:
        slots = sorted(set(self._missing()))
        if not slots:
            return
        for slot in slots:
            self._put(slot, UNASSIGNED)
        self._random.shuffle(slots)
        wanted = [
            max(1, target - held) for target, held in zip(self._target, self._held, strict=True)
        ]

        def urgency(node: int) -> float:
            return (self._target[node] - self._held[node]) / wanted[node]

        self._need.set_all(urgency)
        for slot in slots:
            partition = slot % self._partitions
            found = self._need.best(self._members(partition))
            if found is not None:
                self._put(slot, found[1])
                self._need.set(found[1], urgency(found[1]))
            else:
                self._placing.discard(slot)

    # Tiers

    def _separate(self, report: Report) -> None:
        """Move a replica of each partition whose replicas could be further apart.

        A replica on a node without capacity moves first, to the best node beside the others.
        """
        tree = self._tree
        drained = any(
            held and not usable for held, usable in zip(self._held, tree.usable, strict=True)
        )
        if not tree.replicas or not (tree.levels or drained):
            return
        scale = [max(1, target) for target in self._target]

        def urgency(node: int) -> float:
            return (self._target[node] - self._held[node]) / scale[node]

        ready = False
        for partition in self._perhaps_together():
            placed = [row[partition] for row in self._rows]
            if self._is_best([node for node in placed if node >= 0]):
                continue
            if not self._locked[partition]:
                if not ready:
                    self._need.set_all(urgency)
                    ready = True
                while self._separate_one(partition, urgency) and not self._wait:
                    pass
            report.together += not self._is_best(self._members(partition))

    def _perhaps_together(self) -> Iterator[int]:
        """Partitions whose replicas could perhaps be further apart.

        A partition that has no two replicas in the same widest tier is left out.  In most rings
        this is true of every partition, and it is quick to check.
        """
        # If there are enough usable nodes, every replica has a node at this point.
        if self._tree.replicas < len(self._rows):
            return iter(range(self._partitions))
        pairs = zip(self._tree.path, self._tree.usable, strict=True)
        widest = [path[0] if usable else UNASSIGNED for path, usable in pairs]
        tiers = [array("i", map(widest.__getitem__, row)) for row in self._rows]
        found = bytearray(self._partitions)
        for number, row in enumerate(tiers):
            for other in tiers[:number]:
                for partition in _where(map(operator.eq, row, other)):
                    found[partition] = 1
            if UNASSIGNED in row:
                for partition in _where(map(UNASSIGNED.__eq__, row)):
                    found[partition] = 1
        return _where(found)

    def _is_best(self, members: list[int]) -> bool:
        """Whether the nodes are as far apart as possible and as many as possible have capacity."""
        tree = self._tree
        having = sum(tree.usable[node] for node in members)
        if having < len(members):
            return having == tree.replicas
        return tree.cost(members) <= tree.best_cost

    def _separate_one(self, partition: int, urgency: _Urgency) -> bool:
        usable = self._tree.usable
        members = self._members(partition)
        ranked = []
        for replica, row in enumerate(self._rows):
            node = row[partition]
            if node >= 0:
                others = [other for other in members if other != node]
                cost = self._tree.marginal(node, others)
                ranked.append((not usable[node], cost, -urgency(node), replica, node, others))
        ranked.sort(reverse=True)
        for is_drained, cost, _, replica, node, others in ranked:
            found = self._need.best(others)
            if found is not None and (is_drained or found[0] < cost):
                self._put(self._slot(replica, partition), found[1])
                self._need.set(node, urgency(node))
                self._need.set(found[1], urgency(found[1]))
                return True
        return False

    # Balance

    def _slots_by_node(self) -> list[array[int]]:
        slots: list[array[int]] = [array("I") for _ in self._nodes]
        adders = [numbers.append for numbers in slots]
        slot = 0
        for row in self._rows:
            for node in row:
                if node >= 0:
                    adders[node](slot)
                slot += 1
        return slots

    def _slots_from(self, node: int) -> Iterator[int]:
        """The slots of a node, from a random start in large strides.

        Neighbouring partitions often have the same nodes, so the order keeps them apart.
        """
        slots = self._slots[node]
        count = len(slots)
        at = self._random.randrange(count) if count else 0
        stride = max(1, round(count * 0.618))
        while math.gcd(stride, count) > 1:
            stride -= 1
        partitions = self._partitions
        for _ in range(count):
            slot = slots[at]
            at = (at + stride) % count
            replica, partition = divmod(slot, partitions)
            if self._rows[replica][partition] == node:  # the list keeps slots that were given away
                yield slot

    def _may_move(self, slot: int) -> bool:
        return not self._locked[slot % self._partitions] or slot in self._placing

    def _shed(self) -> None:
        """Nodes that hold too much give replicas to nodes with room, the emptiest first."""

        def room(node: int) -> float:
            return (self._most[node] - self._held[node]) / max(1, self._most[node])

        donors = [node for node, most in enumerate(self._most) if self._held[node] > most]
        if donors:
            self._need.set_all(room)
            donors.sort(key=lambda node: self._held[node] / max(1, self._most[node]), reverse=True)
            for donor in donors:
                self._give(donor, self._held[donor] - self._most[donor], room)

    def _fill(self) -> None:
        """Nodes that hold too little get replicas from the nodes that can spare most."""

        def lack(node: int) -> float:
            return (self._least[node] - self._held[node]) / max(1, self._least[node])

        def spare(node: int) -> float:
            return (self._held[node] - self._least[node]) / max(1, self._target[node])

        if all(held >= least for held, least in zip(self._held, self._least, strict=True)):
            return
        self._need.set_all(lack)
        donors = [(-spare(node), node) for node in range(len(self._nodes)) if spare(node) > 0]
        heapq.heapify(donors)
        while donors and self._need.highest() > 0:
            _, donor = heapq.heappop(donors)
            if self._give(donor, 1, lack) and spare(donor) > 0:
                heapq.heappush(donors, (-spare(donor), donor))

    def _give(self, donor: int, count: int, urgency: _Urgency) -> bool:
        """Move up to `count` replicas from the donor to nodes of positive urgency.

        Returns whether all `count` replicas were moved.
        """
        if count <= 0 or self._need.highest() <= 0:
            return False
        given = 0
        for slot in self._slots_from(donor):
            if not self._may_move(slot):
                continue
            partition = slot % self._partitions
            others = [node for node in self._members(partition) if node != donor]
            found = self._need.best(others, above=0.0)
            if found is None or found[0] > self._tree.marginal(donor, others):
                continue
            self._move(slot, found[1])
            self._need.set(donor, urgency(donor))
            self._need.set(found[1], urgency(found[1]))
            given += 1
            if given == count or self._need.highest() <= 0:
                break
        return given == count

    def _move(self, slot: int, node: int) -> None:
        self._put(slot, node)
        self._slots[node].append(slot)

    # Chains of moves from a node with too much, through other nodes, to a node with too little

    def _chain(self) -> None:
        self._checks = _CHAIN_CHECKS
        while self._checks > 0:
            over = [n for n, most in enumerate(self._most) if self._held[n] > most]
            under = [n for n, least in enumerate(self._least) if self._held[n] < least]
            if over:
                ends = [n for n, most in enumerate(self._most) if self._held[n] < most]
                if under and self._extend(over, set(under)):
                    continue
                if self._extend(over, set(ends)):
                    continue
            if under:
                starts = [n for n, least in enumerate(self._least) if self._held[n] > least]
                if self._extend(starts, set(under)):
                    continue
            return

    def _extend(self, starts: list[int], ends: set[int]) -> bool:
        """Make the moves of a shortest chain; False if there is no chain."""
        unseen = {n for n, usable in enumerate(self._tree.usable) if usable} - set(starts)
        came: dict[int, _Step] = {}
        self._elsewhere: dict[tuple[int, int], int] = {}
        queue = deque(starts)
        while queue and unseen:
            giver = queue.popleft()
            for taker, step in self._steps(giver, unseen):
                came[taker] = step
                unseen.discard(taker)
                if taker in ends and self._follow(taker, came):
                    return True
                queue.append(taker)
            if self._checks <= 0:
                return False
        return False

    def _steps(self, giver: int, unseen: set[int]) -> Iterator[tuple[int, _Step]]:
        """Nodes that can take a replica from the giver, and the step that does it.

        A move that this rebalance made in a partition can still be undone or replaced.
        """
        usable = self._tree.usable
        for slot in self._slots_from(giver):
            if not unseen or self._checks <= 0:
                return
            members = self._members(slot % self._partitions)
            others = [node for node in members if node != giver]
            if self._may_move(slot):
                for taker in self._fitting(giver, others, unseen):
                    yield taker, (giver, slot, _NONE)
                continue
            moved = self._moved.get(slot % self._partitions)
            if moved is None:
                continue
            self._checks -= 1
            origin, newcomer = self._origin(moved), self._node_at(moved)
            if not usable[origin]:
                continue
            if origin in unseen and self._no_worse([*others, origin], members):
                yield origin, (giver, slot, _BACK)
                continue
            before = [origin if node == newcomer else node for node in members]
            if self._no_worse(before, members):
                other_slot = self._find_elsewhere(origin, newcomer)
                if other_slot >= 0:
                    others = [node for node in before if node != giver]
                    for taker in self._fitting(giver, others, unseen):
                        yield taker, (giver, slot, other_slot)

    def _fitting(self, giver: int, others: list[int], unseen: set[int]) -> Iterator[int]:
        """Nodes of `unseen` whose cost beside `others` is at most the giver's."""
        tree = self._tree
        cost = tree.marginal(giver, others)
        self._checks -= len(unseen)
        fits: dict[int, bool] = {}  # by narrowest tier, because its nodes all have the same cost
        for taker in [node for node in unseen if node not in others]:
            tier = tree.parent[tree.path[taker][-1]]
            if tier not in fits:
                fits[tier] = tree.marginal(taker, others) <= cost
            if fits[tier]:
                yield taker

    def _no_worse(self, members: list[int], than: list[int]) -> bool:
        return self._tree.cost(members) <= self._tree.cost(than)

    def _node_at(self, slot: int) -> int:
        return self._rows[slot // self._partitions][slot % self._partitions]

    def _origin(self, slot: int) -> int:
        return self._before[slot // self._partitions][slot % self._partitions]

    def _find_elsewhere(self, giver: int, taker: int) -> int:
        """A slot of the giver that could move to the taker in an unlocked partition, or -1."""
        if (giver, taker) in self._elsewhere:
            return self._elsewhere[giver, taker]
        found = -1
        for slot in self._slots_from(giver):
            self._checks -= 1
            if self._locked[slot % self._partitions]:
                continue
            others = [n for n in self._members(slot % self._partitions) if n != giver]
            if taker not in others and self._no_worse([*others, taker], [*others, giver]):
                found = slot
                break
        self._elsewhere[giver, taker] = found
        return found

    def _follow(self, taker: int, came: dict[int, _Step]) -> bool:
        steps = []
        while taker in came:
            step = came[taker]
            steps.append((taker, *step))
            taker = step[0]
        slots = [slot for _, _, *both in steps for slot in both if slot >= 0]
        if len({slot % self._partitions for slot in slots}) < len(slots):
            return False  # two moves in one partition were each checked without the other
        for node, _, slot, instead in steps:
            if instead == _NONE:
                self._move(slot, node)
                continue
            moved = self._moved[slot % self._partitions]
            newcomer = self._node_at(moved)
            self._move(moved, self._origin(moved))
            if instead == _BACK:
                self._move(slot, newcomer)
            else:
                self._move(instead, newcomer)
                self._move(slot, node)
        return True
