"""The write side: a builder holds the nodes and settings of a ring, and assigns its partitions.

`rebalance` assigns the partitions to the nodes as they are now; `ring` then returns the new ring.
The last-move table holds, for each replica of a partition, how many minutes before `version` (the
time of the last rebalance) the replica got its node; 65535 means long ago.  Each rebalance adds the
whole minutes since the previous rebalance.  The counted time may therefore be less than the time
that passed, but never more.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oort.errors import RingError

from .rebalance import LONG_AGO, Rebalancer, double, drop_replicas
from .report import Report
from .ring import MAX_NODES, MAX_PARTITION_BITS, MAX_REPLICAS, UNASSIGNED, Node, Ring, name_tiers
from .shares import TierTree

NANOSECONDS_PER_MINUTE = 60_000_000_000
MAX_VERSION = 2**63 - 1
MAX_TIERS = 64
MAX_ADDRESSES = 64
MAX_TEXT_BYTES = 1 << 20  # of a tier name, an address or a meta text
MAX_CONF_BYTES = 16 << 20
#: The tables of a builder (6 bytes a replica) do not grow beyond this size, so that its file can be
#: read within the default limit of files.py.
MAX_TABLE_BYTES = 192 << 20


@dataclass(slots=True)
class Settings:
    points_allowed: int = 1  # percent by which a node may miss its reachable share
    max_partition_bits: int = 23  # values above MAX_PARTITION_BITS mean MAX_PARTITION_BITS
    move_wait: int = 60  # minutes
    id_bits: int = 64  # of randomly chosen node ids

    def check(self) -> None:
        for name, value, least, most in (
            ("points-allowed", self.points_allowed, 0, 255),
            ("max-partition-bits", self.max_partition_bits, 1, 64),
            ("move-wait", self.move_wait, 0, LONG_AGO),
            ("id-bits", self.id_bits, 1, 64),
        ):
            if not least <= value <= most:
                raise RingError(f"{name} must be from {least} to {most}, not {value}")


class Builder:
    """The nodes, settings and tables of a ring.

    A new builder has no nodes.  Each table has one row for each replica.
    """

    def __init__(self, replicas: int = 3, settings: Settings | None = None) -> None:
        _check_replicas(replicas)
        self._settings = settings or Settings()
        self._settings.check()
        self.version = 0
        self._conf = b""
        self._nodes: list[Node] = []
        self._positions: dict[int, int] = {}  # of nodes, by id
        self._tiers_changed = False  # since _tier_names were computed
        self._tier_names: tuple[tuple[str, ...], ...] = ()
        self._partition_bits = 1
        self._rows = [array("i", [UNASSIGNED]) * 2 for _ in range(replicas)]
        self._last_moves = [array("H", [LONG_AGO]) * 2 for _ in range(replicas)]

    @classmethod
    def restore(
        cls,
        *,
        version: int,
        conf: bytes,
        settings: Settings,
        nodes: Iterable[Node],
        tier_names: Iterable[Sequence[str]],
        partition_bits: int,
        rows: list[array[int]],
        last_moves: list[array[int]],
    ) -> Builder:
        """A builder with the contents of a file; the builder takes ownership of the tables."""
        builder = cls(len(rows), settings)
        builder.version = version
        builder._conf = conf
        builder._nodes = list(nodes)
        builder._find_positions()
        builder._tier_names = tuple(tuple(level) for level in tier_names)
        builder._partition_bits = partition_bits
        builder._rows = rows
        builder._last_moves = last_moves
        return builder

    # Contents

    @property
    def settings(self) -> Settings:
        return replace(self._settings)

    @property
    def conf(self) -> bytes:
        return self._conf

    @conf.setter
    def conf(self, conf: bytes) -> None:
        if len(conf) > MAX_CONF_BYTES:
            raise RingError(f"a configuration has at most {MAX_CONF_BYTES} bytes")
        self._conf = conf

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._nodes)

    @property
    def tier_names(self) -> tuple[tuple[str, ...], ...]:
        if self._tiers_changed:
            self._tier_names = name_tiers(self._nodes, self._tier_names)
            self._tiers_changed = False
        return self._tier_names

    @property
    def partition_bits(self) -> int:
        return self._partition_bits

    @property
    def replica_count(self) -> int:
        return len(self._rows)

    @property
    def table(self) -> tuple[memoryview, ...]:
        """A read-only row for each replica: node indexes by partition, -1 where unassigned."""
        return tuple(memoryview(row).toreadonly() for row in self._rows)

    @property
    def last_moves(self) -> tuple[memoryview, ...]:
        """A read-only row for each replica: minutes since the last move, by partition."""
        return tuple(memoryview(row).toreadonly() for row in self._last_moves)

    def node(self, node_id: int) -> Node:
        return self._nodes[self._index(node_id)]

    def _index(self, node_id: int) -> int:
        index = self._positions.get(node_id)
        if index is None:
            raise RingError(f"no node {node_id} in the builder")
        return index

    def _find_positions(self) -> None:
        self._positions = {}
        for index, node in enumerate(self._nodes):
            self._positions.setdefault(node.id, index)

    # Changes

    def change_settings(self, **changes: int) -> None:
        """Change settings, named as in Settings; RingError if a value is out of range."""
        settings = replace(self._settings, **changes)
        settings.check()
        self._settings = settings

    def set_replicas(self, count: int) -> None:
        """Change the number of replicas.

        The next rebalance assigns additional replicas.  If the number shrinks, the replicas that
        are furthest apart are kept.
        """
        _check_replicas(count)
        size = 1 << self._partition_bits
        if count < len(self._rows):
            before = list(zip(*self._rows, strict=True))
            rows = drop_replicas(self._nodes, self._rows, count)
            moves = [array("H", [LONG_AGO]) * size for _ in range(count)]
            for partition, placed in enumerate(before):
                since = {
                    node: minutes[partition]
                    for node, minutes in zip(placed, self._last_moves, strict=True)
                }
                for row, minutes in zip(rows, moves, strict=True):
                    minutes[partition] = since.get(row[partition], LONG_AGO)
            self._rows, self._last_moves = rows, moves
        for _ in range(count - len(self._rows)):
            self._rows.append(array("i", [UNASSIGNED]) * size)
            self._last_moves.append(array("H", [LONG_AGO]) * size)

    def add(
        self,
        *,
        node_id: int | None = None,
        active: bool = True,
        capacity: int = 0,
        tiers: Iterable[str] = (),
        addresses: Iterable[str] = (),
        meta: str = "",
        conf: bytes = b"",
    ) -> Node:
        """Add a node with this id, or with a random id; RingError if the node is invalid."""
        if len(self._nodes) >= MAX_NODES:
            raise RingError(f"a builder has at most {MAX_NODES} nodes")
        taken = self._positions
        if node_id is None:
            node_id = self._random_id(taken)
        elif node_id in taken:
            raise RingError(f"node {node_id} already exists")
        node = Node(node_id, active, capacity, tuple(tiers), tuple(addresses), meta, conf)
        _check_node(node)
        self._positions[node_id] = len(self._nodes)
        self._nodes.append(node)
        self._tiers_changed = True
        return node

    def _random_id(self, taken: Container[int]) -> int:
        if len(self._nodes) >= (1 << self._settings.id_bits) - 1:
            raise RingError(f"no id of {self._settings.id_bits} bits is free")
        source = random.SystemRandom()
        while True:
            node_id = source.getrandbits(self._settings.id_bits)
            if node_id and node_id not in taken:
                return node_id

    def change(self, node_id: int, **changes: Any) -> Node:
        """Change fields of a node, named as in Node; the id cannot be changed."""
        index = self._index(node_id)
        for name in ("tiers", "addresses"):
            if name in changes:
                changes[name] = tuple(changes[name])
        node = replace(self._nodes[index], **changes)
        if node.id != node_id:
            raise RingError("the id of a node cannot change")
        _check_node(node)
        self._nodes[index] = node
        self._tiers_changed = True
        return node

    def set_active(self, node_id: int, active: bool) -> Node:
        return self.change(node_id, active=active)

    def remove(self, node_id: int) -> Node:
        """Remove a node; its replicas have no node until the next rebalance."""
        index = self._index(node_id)
        node = self._nodes.pop(index)
        self._find_positions()
        for number, row in enumerate(self._rows):
            self._rows[number] = array(
                "i",
                (UNASSIGNED if at == index else at - (at > index) for at in row),
            )
        self._tiers_changed = True
        return node

    # Assignment

    def pretend_elapsed(self, minutes: int) -> None:
        """Pretend that every replica moved this many minutes earlier."""
        if minutes < 0:
            raise RingError(f"minutes must be 0 or more, not {minutes}")
        self._last_moves = [_aged(row, minutes) for row in self._last_moves]

    def rebalance(self, now: int) -> Report:
        """Assign all partitions; `now` is in nanoseconds since 1970.

        Raises RingError if no valid version can follow the current version.
        """
        version = max(now, self.version + 1)
        if not 0 < version <= MAX_VERSION:
            raise RingError(f"no valid version follows {self.version}: check the clock")
        elapsed = max(0, now - self.version) // NANOSECONDS_PER_MINUTE
        last_moves = [_aged(row, elapsed) for row in self._last_moves]
        rows = [array("i", row) for row in self._rows]
        old_bits = self._partition_bits
        bits = self._bits_wanted()
        for _ in range(bits - old_bits):
            rows, last_moves = double(rows), double(last_moves)
        report = Rebalancer(
            self._nodes,
            rows,
            last_moves,
            points=self._settings.points_allowed,
            move_wait=self._settings.move_wait,
            seed=version,
        ).run()
        report.version = version
        report.old_partition_bits = old_bits
        report.partition_bits = bits
        self.version = version
        self._partition_bits = bits
        self._rows = rows
        self._last_moves = last_moves
        return report

    def _bits_wanted(self) -> int:
        most = min(self._settings.max_partition_bits, MAX_PARTITION_BITS)
        while most > 1 and (6 * len(self._rows)) << most > MAX_TABLE_BYTES:
            most -= 1
        tree = TierTree(self._nodes, len(self._rows))
        return tree.bits_for(self._settings.points_allowed, self._partition_bits, most)

    def ring(self, local_id: int | None = None) -> Ring:
        """A ring with the assignment of the last rebalance and the current nodes."""
        ring = Ring(
            version=self.version,
            conf=self._conf,
            nodes=self._nodes,
            partition_bits=self._partition_bits,
            rows=[array("i", row) for row in self._rows],
            tier_names=self.tier_names,
        )
        return ring if local_id is None else ring.with_local(local_id)


def _aged(row: array[int], minutes: int) -> array[int]:
    if minutes == 0:
        return array("H", row)
    if minutes >= LONG_AGO:
        return array("H", [LONG_AGO]) * len(row)
    aged = {age: min(age + minutes, LONG_AGO) for age in set(row)}
    return array("H", map(aged.__getitem__, row))


def _check_replicas(count: int) -> None:
    if not 1 <= count <= MAX_REPLICAS:
        raise RingError(f"replicas must be from 1 to {MAX_REPLICAS}, not {count}")


def _check_node(node: Node) -> None:
    if not 0 < node.id < 1 << 64:
        raise RingError(f"a node's id must be a 64-bit number above 0, not {node.id}")
    if not 0 <= node.capacity < 1 << 32:
        raise RingError(f"capacity must be from 0 to {(1 << 32) - 1}, not {node.capacity}")
    if len(node.tiers) > MAX_TIERS:
        raise RingError(f"a node has at most {MAX_TIERS} tiers")
    if len(node.addresses) > MAX_ADDRESSES:
        raise RingError(f"a node has at most {MAX_ADDRESSES} addresses")
    for text in (*node.tiers, *node.addresses, node.meta):
        if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT_BYTES:
            raise RingError(f"a text of a node has at most {MAX_TEXT_BYTES} bytes")
    if len(node.conf) > MAX_CONF_BYTES:
        raise RingError(f"a configuration has at most {MAX_CONF_BYTES} bytes")
