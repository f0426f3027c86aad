"""Ring and builder files: one gzip stream each; integers are big-endian.

    text, blob  i32 length, bytes
    ring        "RINGv00000000001", version i64 (nanoseconds since 1970), conf blob,
                local node index i32 (-1: none), partition bits u16, tiers, nodes, table of i32
    builder     "RINGBUILDERv0001", version i64 (0: never built), conf blob, id bits u8, tiers,
                nodes, partition bits u16, table of i32, last-move table of u16,
                points allowed u8, most partition bits u16, move wait u16
    tiers       i32 levels; for each i32 count, then names, "" first
    nodes       i32 count; for each id u64, inactive u8, capacity u32, i32 n, n tier indexes i32,
                i32 n, n address texts, meta text, conf blob
    table       i32 replicas; for each i32 partition count (1 << bits), then the values

A file that is read and written again has the same bytes before compression.  Texts need not be
UTF-8.

Every value is checked, and bad input of any kind raises RingFormatError.  Memory is allocated for a
count only after its bytes have been read.  At most `limit` bytes are decompressed, and only as far
as the values read so far require, so data after the last value is refused without decompressing it
all.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path

from oort import durable
from oort.errors import RingError, RingFormatError

from .builder import Builder, Settings
from .ring import MAX_NODES, MAX_PARTITION_BITS, MAX_REPLICAS, UNASSIGNED, Node, Ring

RING_MAGIC = b"RINGv00000000001"
BUILDER_MAGIC = b"RINGBUILDERv0001"
DEFAULT_LIMIT = 256 << 20
_LEAST, _CHUNK = 1 << 16, 1 << 20  # decompressed at once
_GZIP = 16 + zlib.MAX_WBITS
_NODE_BYTES = 8 + 1 + 4 + 4 + 4 + 4 + 4  # the size of an empty node
# These limits keep a few compressed bytes from creating millions of Python objects.
_MAX_LEVELS = 1024
_MAX_TIERS = 1 << 20  # in a level


class _Reader:
    """Decompresses the data and reads values from its front; errors give the position."""

    def __init__(self, data: bytes, limit: int) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._compressed = data
        self._fed = 0  # compressed bytes given to the stream so far
        self._limit = limit
        self._data = b""  # decompressed bytes that are still needed
        self._at = 0  # offset of the next value in _data
        self._taken = 0  # decompressed bytes before _data, already dropped

    def fail(self, problem: str) -> RingFormatError:
        return RingFormatError(f"damaged ring data: {problem}, near byte {self._taken + self._at}")

    def _has(self, size: int) -> bool:
        """Decompress until `size` bytes are ready; False if the data ends before that."""
        parts = [self._data[self._at :]]
        ready = len(parts[0])
        self._taken += self._at
        self._at = 0
        stream = self._stream
        while ready < size and not stream.eof:
            fed = stream.unconsumed_tail or self._feed()
            if not fed:
                break  # the compressed data is cut off
            try:
                parts.append(stream.decompress(fed, min(_CHUNK, max(_LEAST, size - ready))))
            except zlib.error as error:
                raise RingFormatError(f"ring data is not gzip, or is damaged: {error}") from error
            ready += len(parts[-1])
            if self._taken + ready > self._limit:
                raise RingFormatError(f"ring data is larger than {self._limit} bytes")
        self._data = b"".join(parts)
        return ready >= size

    def _feed(self) -> bytes:
        """The next part of the compressed bytes, empty at their end."""
        fed = self._compressed[self._fed : self._fed + _LEAST]
        self._fed += len(fed)
        return fed

    def take(self, size: int, name: str) -> bytes:
        """The next `size` bytes; `name` names the value in errors."""
        if size < 0 or size > self._limit - self._taken - self._at:
            raise self.fail(f"{name} has the invalid length {size}")
        if size > len(self._data) - self._at and not self._has(size):
            raise self.fail(f"{name} is cut off, or its length {size} is invalid")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, code: str, name: str) -> int:
        value: int
        (value,) = struct.unpack(">" + code, self.take(struct.calcsize(">" + code), name))
        return value

    def count(self, name: str, each: int, most: int = 1 << 31) -> int:
        """The number of items that follow; each item has at least `each` bytes."""
        value = self.number("i", f"the number of {name}")
        if not 0 <= value <= most or value * each > self._limit - self._taken - self._at:
            raise self.fail(f"{value} is not a possible number of {name}")
        return value

    def blob(self, name: str) -> bytes:
        return self.take(self.number("i", f"the length of {name}"), name)

    def text(self, name: str) -> str:
        return self.blob(name).decode("utf-8", "surrogateescape")

    def end(self) -> None:
        """Check that the stream ends here with a valid checksum, and that no bytes follow it."""
        if self._has(1):
            raise self.fail("data follows the last value")
        if not self._stream.eof:
            raise RingFormatError("ring data is cut off")
        if self._stream.unused_data or self._fed < len(self._compressed):
            raise RingFormatError("other data follows the ring data")


def decode(data: bytes, limit: int = DEFAULT_LIMIT) -> Ring | Builder:
    """The ring or the builder in the bytes of a file; RingFormatError if they are invalid."""
    reader = _Reader(data, limit)
    magic = reader.take(len(RING_MAGIC), "the header")
    if magic == RING_MAGIC:
        return _ring(reader)
    if magic == BUILDER_MAGIC:
        return _builder(reader)
    raise RingFormatError(f"neither a ring nor a builder: the data begins with {magic!r}")


def decode_ring(data: bytes, limit: int = DEFAULT_LIMIT) -> Ring:
    found = decode(data, limit)
    if not isinstance(found, Ring):
        raise RingFormatError("this is a builder, not a ring")
    return found


def decode_builder(data: bytes, limit: int = DEFAULT_LIMIT) -> Builder:
    found = decode(data, limit)
    if not isinstance(found, Builder):
        raise RingFormatError("this is a ring, not a builder")
    return found


def _ring(reader: _Reader) -> Ring:
    version = _version(reader)
    conf = reader.blob("the configuration")
    local_index = reader.number("i", "the local node")
    bits = _bits(reader)
    tier_names = _tiers(reader)
    nodes = _nodes(reader, tier_names)
    if not UNASSIGNED <= local_index < len(nodes):
        raise reader.fail(f"invalid local node {local_index} of {len(nodes)} nodes")
    rows = _assignment(reader, bits, len(nodes))
    reader.end()
    return Ring(
        version=version,
        conf=conf,
        nodes=nodes,
        partition_bits=bits,
        rows=rows,
        local_index=local_index,
        tier_names=tier_names,
    )


def _builder(reader: _Reader) -> Builder:
    version = _version(reader)
    conf = reader.blob("the configuration")
    id_bits = reader.number("B", "the id bits")
    tier_names = _tiers(reader)
    nodes = _nodes(reader, tier_names)
    bits = _bits(reader)
    rows = _assignment(reader, bits, len(nodes))
    last_moves = _table(reader, "H", bits)
    if len(last_moves) != len(rows):
        raise reader.fail(f"the last moves are of {len(last_moves)} replicas, not {len(rows)}")
    settings = Settings(
        points_allowed=reader.number("B", "the points allowed"),
        max_partition_bits=reader.number("H", "the most partition bits"),
        move_wait=reader.number("H", "the move wait"),
        id_bits=id_bits,
    )
    reader.end()
    try:
        return Builder.restore(
            version=version,
            conf=conf,
            settings=settings,
            nodes=nodes,
            tier_names=tier_names,
            partition_bits=bits,
            rows=rows,
            last_moves=last_moves,
        )
    except RingFormatError:
        raise
    except RingError as error:
        raise reader.fail(str(error)) from error


def _version(reader: _Reader) -> int:
    version = reader.number("q", "the version")
    if version < 0:
        raise reader.fail(f"invalid version {version}")
    return version


def _bits(reader: _Reader) -> int:
    bits = reader.number("H", "the partition bits")
    if bits > MAX_PARTITION_BITS:
        raise reader.fail(f"invalid number of partition bits {bits}")
    return bits


def _tiers(reader: _Reader) -> tuple[tuple[str, ...], ...]:
    levels = []
    for level in range(reader.count("tier levels", 4, _MAX_LEVELS)):
        names: dict[str, None] = {}
        for _ in range(reader.count("tiers", 4, _MAX_TIERS)):
            name = reader.text("a tier")
            if name in names or (not names and name):
                raise reader.fail(
                    f"the tier names of level {level} do not begin with '' or are not unique"
                )
            names[name] = None
        levels.append(tuple(names))
    return tuple(levels)


def _nodes(reader: _Reader, tier_names: tuple[tuple[str, ...], ...]) -> list[Node]:
    nodes = []
    ids = set()
    for _ in range(reader.count("nodes", _NODE_BYTES, MAX_NODES)):
        node_id = reader.number("Q", "a node's id")
        if node_id == 0 or node_id in ids:
            raise reader.fail(f"node id {node_id} is 0 or not unique")
        ids.add(node_id)
        inactive = reader.number("B", "the inactive flag of a node")
        if inactive > 1:
            raise reader.fail(f"the inactive flag of a node is {inactive}")
        capacity = reader.number("I", "a node's capacity")
        tiers = []
        for level in range(reader.count("tiers of a node", 4)):
            index = reader.number("i", "a node's tier")
            names = tier_names[level] if level < len(tier_names) else None
            if names is None or not 0 <= index < max(1, len(names)):
                raise reader.fail(f"a node is in an unknown tier {index} of level {level}")
            tiers.append(names[index] if names else "")
        addresses = [
            reader.text("an address") for _ in range(reader.count("addresses of a node", 4))
        ]
        meta = reader.text("a node's meta")
        conf = reader.blob("a node's configuration")
        nodes.append(
            Node(node_id, not inactive, capacity, tuple(tiers), tuple(addresses), meta, conf)
        )
    return nodes


def _table(
    reader: _Reader, code: str, bits: int, check: Callable[[array[int]], None] = lambda row: None
) -> list[array[int]]:
    rows = []
    replicas = reader.count("replicas", 4)
    if not 1 <= replicas <= MAX_REPLICAS:
        raise reader.fail(f"invalid number of replicas {replicas}")
    for _ in range(replicas):
        count = reader.number("i", "the number of partitions")
        if count != 1 << bits:
            raise reader.fail(f"{count} partitions for {bits} bits")
        row = array(code)
        row.frombytes(reader.take(count * row.itemsize, "a table"))
        if sys.byteorder == "little":
            row.byteswap()
        check(row)
        rows.append(row)
    return rows


def _assignment(reader: _Reader, bits: int, nodes: int) -> list[array[int]]:
    def check(row: array[int]) -> None:
        if min(row) < UNASSIGNED or max(row) >= nodes:
            raise reader.fail(
                f"the table has node indexes from {min(row)} to {max(row)} for {nodes} nodes"
            )

    return _table(reader, "i", bits, check)


class _Writer:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self._parts: list[bytes] = []

    def raw(self, data: bytes) -> None:
        self._parts.append(self._stream.compress(data))

    def number(self, code: str, value: int) -> None:
        self.raw(struct.pack(">" + code, value))

    def blob(self, data: bytes) -> None:
        self.number("i", len(data))
        self.raw(data)

    def text(self, text: str) -> None:
        self.blob(text.encode("utf-8", "surrogateescape"))

    def finish(self) -> bytes:
        self._parts.append(self._stream.flush())
        return b"".join(self._parts)


def encode(source: Ring | Builder) -> bytes:
    """The bytes of the file for a ring or a builder."""
    writer = _Writer()
    if isinstance(source, Ring):
        writer.raw(RING_MAGIC)
        writer.number("q", source.version)
        writer.blob(source.conf)
        writer.number("i", source.local_index)
        writer.number("H", source.partition_bits)
        _write_nodes(writer, source)
        _write_table(writer, source.table)
        return writer.finish()
    settings = source.settings
    writer.raw(BUILDER_MAGIC)
    writer.number("q", source.version)
    writer.blob(source.conf)
    writer.number("B", settings.id_bits)
    _write_nodes(writer, source)
    writer.number("H", source.partition_bits)
    _write_table(writer, source.table)
    _write_table(writer, source.last_moves)
    writer.number("B", settings.points_allowed)
    writer.number("H", settings.max_partition_bits)
    writer.number("H", settings.move_wait)
    return writer.finish()


def _write_nodes(writer: _Writer, source: Ring | Builder) -> None:
    writer.number("i", len(source.tier_names))
    for names in source.tier_names:
        writer.number("i", len(names))
        for name in names:
            writer.text(name)
    numbers = [{name: index for index, name in enumerate(names)} for names in source.tier_names]
    writer.number("i", len(source.nodes))
    for node in source.nodes:
        writer.number("Q", node.id)
        writer.number("B", not node.active)
        writer.number("I", node.capacity)
        writer.number("i", len(node.tiers))
        for level, name in enumerate(node.tiers):
            writer.number("i", numbers[level][name] if name else 0)
        writer.number("i", len(node.addresses))
        for address in node.addresses:
            writer.text(address)
        writer.text(node.meta)
        writer.blob(node.conf)


def _write_table(writer: _Writer, table: tuple[memoryview, ...]) -> None:
    writer.number("i", len(table))
    for view in table:
        row = array(view.format, view.tobytes())
        writer.number("i", len(row))
        if sys.byteorder == "little":
            row.byteswap()
        writer.raw(row.tobytes())


def read(path: Path | str, limit: int = DEFAULT_LIMIT) -> Ring | Builder:
    """The ring or the builder in a file; RingError and RingFormatError name the file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RingError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise RingFormatError(f"{path}: the file is larger than {limit} bytes")
    try:
        return decode(data, limit)
    except RingFormatError as error:
        raise RingFormatError(f"{path}: {error}") from error


def read_ring(path: Path | str, limit: int = DEFAULT_LIMIT) -> Ring:
    found = read(path, limit)
    if not isinstance(found, Ring):
        raise RingFormatError(f"{path} is a builder, not a ring")
    return found


def read_builder(path: Path | str, limit: int = DEFAULT_LIMIT) -> Builder:
    found = read(path, limit)
    if not isinstance(found, Builder):
        raise RingFormatError(f"{path} is a ring, not a builder")
    return found


def write(path: Path | str, source: Ring | Builder) -> None:
    """Replace the file atomically and durably; its mode becomes 0600."""
    path = Path(path)
    data = encode(source)
    try:
        durable.replace(path, data)
    except OSError as error:
        raise RingError(f"cannot write {path}: {error.strerror}") from error
