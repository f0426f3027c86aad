"""The read side: a ring maps each partition to the nodes that hold its replicas.

A ring never changes; a new ring replaces it.  A key's partition is the top bits of its 64-bit ring
hash.  The table has a row for each replica; a row holds a node index for each partition, or -1
where the replica has no node.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oort.errors import RingError

HASH_BITS = 64
UNASSIGNED = -1
MAX_REPLICAS = 127
MAX_NODES = 1 << 16
MAX_PARTITION_BITS = 30  # a row's partition count is a signed 32-bit number in the files


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `tiers[0]` is the narrowest tier (its server), higher tiers are wider (its zone)."""

    id: int
    active: bool = True
    capacity: int = 0
    tiers: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    meta: str = ""
    conf: bytes = b""

    def tier(self, level: int) -> str:
        return self.tiers[level] if level < len(self.tiers) else ""


class Ring:
    """An immutable ring; callers must not change the arguments of the constructor afterwards."""

    def __init__(
        self,
        *,
        version: int,
        conf: bytes,
        nodes: Iterable[Node],
        partition_bits: int,
        rows: Iterable[array[int]],
        local_index: int = UNASSIGNED,
        tier_names: Iterable[Sequence[str]] | None = None,
    ) -> None:
        self._version = version
        self._conf = conf
        self._nodes = tuple(nodes)
        self._partition_bits = partition_bits
        self._rows = tuple(rows)
        self._local_index = local_index
        names = name_tiers(self._nodes) if tier_names is None else tier_names
        self._tier_names = tuple(tuple(level) for level in names)
        self._index = {node.id: index for index, node in enumerate(self._nodes)}
        if any(len(row) != self.partitions for row in self._rows):
            raise RingError("every replica of a ring must name a node for every partition")

    @property
    def version(self) -> int:
        """The build time in nanoseconds since 1970; of two rings, the higher version is newer."""
        return self._version

    @property
    def conf(self) -> bytes:
        """Configuration text for every node of the ring."""
        return self._conf

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self._nodes

    @property
    def tier_names(self) -> tuple[tuple[str, ...], ...]:
        """The names in use at each level, "" first, in the order of the file."""
        return self._tier_names

    @property
    def partition_bits(self) -> int:
        return self._partition_bits

    @property
    def partitions(self) -> int:
        return 1 << self._partition_bits

    @property
    def replica_count(self) -> int:
        return len(self._rows)

    @property
    def table(self) -> tuple[memoryview, ...]:
        """A read-only row for each replica: node indexes by partition, -1 where unassigned."""
        return tuple(memoryview(row).toreadonly() for row in self._rows)

    @property
    def local_index(self) -> int:
        return self._local_index

    @property
    def local_node(self) -> Node | None:
        """The node that uses this copy of the ring, if it is known."""
        return None if self._local_index < 0 else self._nodes[self._local_index]

    def node(self, node_id: int) -> Node | None:
        index = self._index.get(node_id)
        return None if index is None else self._nodes[index]

    def partition(self, key_hash: int) -> int:
        """The partition of a key with this 64-bit ring hash; RingError if it is out of range."""
        if not 0 <= key_hash < 1 << HASH_BITS:
            raise RingError(f"{key_hash} is not a 64-bit hash")
        return key_hash >> (HASH_BITS - self._partition_bits)

    def replicas(self, partition: int) -> tuple[Node, ...]:
        """The nodes that hold the partition, first replica first.

        Replicas without a node are left out.  Raises RingError if there is no such partition.
        """
        if not 0 <= partition < self.partitions:
            raise RingError(f"no partition {partition}: there are {self.partitions}")
        indexes = (row[partition] for row in self._rows)
        return tuple(self._nodes[index] for index in indexes if index >= 0)

    def is_local(self, partition: int) -> bool:
        """Does the local node hold a replica of the partition?"""
        local = self._local_index
        return local >= 0 and any(row[partition] == local for row in self._rows)

    def with_local(self, node_id: int) -> Ring:
        """A copy of the ring for the node with this id; RingError if there is no such node."""
        index = self._index.get(node_id)
        if index is None:
            raise RingError(f"no node {node_id} in the ring")
        return Ring(
            version=self._version,
            conf=self._conf,
            nodes=self._nodes,
            partition_bits=self._partition_bits,
            rows=self._rows,
            local_index=index,
            tier_names=self._tier_names,
        )


def name_tiers(
    nodes: Iterable[Node], known: Iterable[Sequence[str]] = ()
) -> tuple[tuple[str, ...], ...]:
    """The tier names in use at each level: `known` names first, in their order, then the others."""
    nodes = tuple(nodes)
    known = tuple(known)
    levels = max((len(node.tiers) for node in nodes), default=0)
    result = []
    for level in range(levels):
        used = {node.tier(level): None for node in nodes}
        order = dict.fromkeys(name for name in (known[level] if level < len(known) else ()))
        names = [name for name in order if name in used]
        names += [name for name in used if name not in order]
        result.append(("", *(name for name in names if name)))
    return tuple(result)
