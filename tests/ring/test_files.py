"""Tests of the file formats: reading, writing, and every kind of bad input."""

from __future__ import annotations

import gzip
import json
import stat
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oort.errors import RingError, RingFormatError
from oort.ring import files
from oort.ring.builder import Builder
from oort.ring.ring import Node, Ring
from oort.ring.tool import as_json
from tests.ring.vectors import (
    BUILDER,
    EMPTY_BUILDER,
    NODES,
    ORIGINAL,
    RING,
    TABLE,
    blob,
    i32,
    packed,
)

FIRST, SECOND = 0xFEDCBA9876543210, 7


def test_a_ring() -> None:
    ring = files.decode_ring(packed(RING))
    assert ring.version == 1_795_382_213_433_817_542
    assert ring.conf == b"[Section]\n"
    assert (ring.partition_bits, ring.partitions, ring.replica_count) == (2, 4, 2)
    first = Node(
        FIRST, True, 1000, ("server1", "zone\udcff"), ("127.0.0.1:8001", ""), "first", b"a = 1\n"
    )
    second = Node(SECOND, False, 0xFFFFFFFF, ("server2",))
    assert ring.nodes == (first, second)
    assert ring.local_node == second
    assert [ring.replicas(p) for p in range(4)] == [
        (first, second), (second, first), (first,), (second, first),
    ]  # fmt: skip
    assert [ring.is_local(p) for p in range(4)] == [True, True, False, True]
    assert [ring.partition(h) for h in (0, (1 << 62) - 1, 1 << 62, (1 << 64) - 1)] == [0, 0, 1, 3]
    assert ring.with_local(FIRST).local_node == first
    assert gzip.decompress(files.encode(ring)) == RING
    with pytest.raises(RingError):
        ring.replicas(4)
    with pytest.raises(RingError):
        ring.with_local(8)
    with pytest.raises(TypeError):
        ring.table[0][0] = 1


def test_a_builder() -> None:
    builder = files.decode_builder(packed(BUILDER))
    assert builder.settings.move_wait == 60
    assert builder.settings.max_partition_bits == 23
    assert [list(row) for row in builder.last_moves] == [[0, 1, 65535, 60]] * 2
    assert gzip.decompress(files.encode(builder)) == BUILDER
    assert gzip.decompress(files.encode(Builder())) == EMPTY_BUILDER
    assert files.decode_builder(packed(EMPTY_BUILDER)).nodes == ()


def test_names_of_tiers_go_with_their_last_node() -> None:
    builder = files.decode_builder(packed(BUILDER))
    builder.add(tiers=("server9", ""), node_id=9)
    assert builder.tier_names == (("", "server1", "server2", "server9"), ("", "zone\udcff"))
    builder.remove(FIRST)
    assert [list(names) for names in builder.tier_names] == [["", "server2", "server9"], [""]]
    assert [list(row) for row in builder.table] == [[-1, 0, -1, 0], [0, -1, -1, -1]]
    again = files.decode_builder(files.encode(builder))
    assert again.nodes[0] == builder.nodes[0]
    assert again.nodes[1].tier(1) == ""


def _originals() -> list[Path]:
    return sorted([*ORIGINAL.glob("*.ring"), *ORIGINAL.glob("*.builder")])


def test_files_of_the_original_tool(capsys: pytest.CaptureFixture[str]) -> None:
    """They are read as the original library reads them, and written again byte for byte."""
    found = _originals()
    if not found:
        with capsys.disabled():
            print(f"\n{ORIGINAL} does not exist, so the original's files are not tested")
    for path in found:
        read = files.read(path)
        assert gzip.decompress(files.encode(read)) == gzip.decompress(path.read_bytes()), path
        expected = json.loads((path.parent / f"{path.name}.json").read_text())
        _compare(read, expected)


def _compare(read: Ring | Builder, expected: dict[str, Any]) -> None:
    shown = as_json(read)
    assert shown["version"] == expected["Version"]
    assert shown["conf_base64"] == expected["ConfBase64"]
    assert shown["replicas"] == expected["ReplicaCount"]
    assert shown["partition_bits"] == expected["PartitionBitCount"]
    assert [list(level) for level in read.tier_names] == expected["TiersRaw"]
    assert [
        (n["id"], n["active"], n["capacity"], n["tiers"], n["addresses"], n["meta"])
        for n in shown["nodes"]
    ] == [
        (n["ID"], n["Active"], n["Capacity"], n["Tiers"], n["Addresses"], n["Meta"])
        for n in expected["Nodes"] or []
    ]
    assert [n["conf_base64"] for n in shown["nodes"]] == [
        n["ConfBase64"] for n in expected["Nodes"] or []
    ]
    assert [list(row) for row in read.table] == expected["ReplicaToPartitionToNodeIndex"]
    assert [[node or "" for node in row] for row in shown["table"]] == expected[
        "ReplicaToPartitionToNodeID"
    ]
    if isinstance(read, Ring):
        assert read.local_index == expected["LocalNodeIndex"]
    else:
        assert [list(row) for row in read.last_moves] == expected["ReplicaToPartitionToLastMove"]
        own = read.settings
        assert own.points_allowed == expected["PointsAllowed"]
        assert own.max_partition_bits == expected["MaxPartitionBitCount"]
        assert (own.move_wait, own.id_bits) == (expected["MoveWait"], expected["IDBits"])


def test_rebalancing_the_originals_builders() -> None:
    """Builders from before the original's rebalance get balance and tiers without extra moves."""
    for path in sorted(ORIGINAL.glob("*.before.builder")):
        builder = files.read_builder(path)
        after = files.read_builder(path.with_name(path.name.replace(".before", "")))
        old = [list(row) for row in builder.table]
        report = builder.rebalance(after.version)
        assert report.together == report.unassigned == 0
        assert report.partition_bits <= after.partition_bits
        assert not report.outside or report.waiting
        for old_row, row in zip(old, builder.table, strict=True):
            inherited = len(row) // len(old_row)
            for partition, node in enumerate(row):
                had = old_row[partition // inherited]
                assert node == had or had < 0 or not builder.nodes[had].active
        assert not builder.rebalance(after.version + 60 * 60 * 10**9).outside, path


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        RING[:16],
        RING[:-1],
        RING + b"x",
        BUILDER + b"x",
        b"RINGv00000000002" + RING[16:],
        RING[:16] + struct.pack(">q", -1) + RING[24:],
        changed(RING, blob(b"[Section]\n"), i32(-1) + b"[Section]\n"),
        changed(RING, blob(b"[Section]\n"), i32(1 << 30) + b"[Section]\n"),
        changed(RING, i32(1) + b"\0\2", i32(2) + b"\0\2"),
        changed(RING, i32(1) + b"\0\2", i32(-2) + b"\0\2"),
        changed(RING, i32(1) + b"\0\2", i32(1) + b"\0\3"),
        changed(RING, i32(1) + b"\0\2", i32(1) + b"\0\x1f"),
        changed(RING, i32(2) + i32(3), i32(2) + i32(0x7FFFFFFF)),
        changed(RING, blob(b"") + blob(b"server1"), blob(b"x") + blob(b"server1")),
        changed(RING, b"server2", b"server1"),
        changed(RING, NODES[:4], i32(0x7FFFFFFF)),
        changed(RING, NODES[:4], i32(3)),
        changed(RING, struct.pack(">QB", 7, 1), struct.pack(">QB", 7, 2)),
        changed(RING, struct.pack(">QB", 7, 1), struct.pack(">QB", 0, 1)),
        changed(RING, struct.pack(">QB", 7, 1), struct.pack(">QB", FIRST, 1)),
        changed(RING, i32(2, 1, 1), i32(2, 3, 1)),
        changed(RING, i32(2, 1, 1), i32(2, 1, -1)),
        changed(RING, i32(2, 1, 1), i32(0x7FFFFFFF, 1, 1)),
        changed(RING, TABLE, i32(0)),
        changed(RING, TABLE, i32(0x7FFFFFFF) + TABLE[4:]),
        changed(RING, i32(4, 0, 1, 0, 1), i32(4, 0, 2, 0, 1)),
        changed(RING, i32(4, 0, 1, 0, 1), i32(4, 0, -2, 0, 1)),
        changed(RING, i32(4, 0, 1, 0, 1), i32(-4, 0, 1, 0, 1)),
        BUILDER[:-4] + struct.pack(">HH", 0, 60),
    ],
)
def test_damaged_data(data: bytes) -> None:
    with pytest.raises(RingFormatError) as error:
        files.decode(packed(data))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", RING, packed(RING)[:-1], packed(RING) + b"x", packed(RING) * 2, b"x" * 99],
)
def test_not_one_gzip_stream(data: bytes) -> None:
    with pytest.raises(RingFormatError):
        files.decode(data)


def test_a_ring_is_not_a_builder() -> None:
    with pytest.raises(RingFormatError):
        files.decode_ring(packed(BUILDER))
    with pytest.raises(RingFormatError):
        files.decode_builder(packed(RING))


@given(
    st.sampled_from([RING, BUILDER, EMPTY_BUILDER]),
    st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.integers(0, 8),
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([i32(-1), i32(0x7FFFFFFF), i32(1 << 20), b"\xff" * 8]),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=400, deadline=None)
def test_any_damage_is_refused_or_understood(
    data: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    for place, removed, inserted in edits:
        at = int(place * len(data))
        data = data[:at] + inserted + data[at + removed :]
    try:
        read = files.decode(packed(data))
    except RingFormatError:
        return
    assert gzip.decompress(files.encode(read)) == data
    if isinstance(read, Builder) and read.partition_bits < 8:
        read.change_settings(max_partition_bits=4)
        read.rebalance(max(1, read.version)) if read.version < 1 << 62 else None


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(data: bytes) -> None:
    for noise in (data, packed(data), packed(RING)[: len(data)] + data):
        with pytest.raises(RingFormatError):
            files.decode(noise)


BOMBS = {  # a gigabyte of zeros follows each of these
    "anything": b"",
    "a version": RING[:24],
    "a configuration's length": RING[:24] + i32(512 << 20),
    "many tier levels": RING[:24] + blob(b"") + i32(-1) + b"\0\2" + i32(50_000_000),
    "many tiers": RING[:24] + blob(b"") + i32(-1) + b"\0\2" + i32(1, 1 << 20),
    "many nodes": RING[:24] + blob(b"") + i32(-1) + b"\0\2" + i32(0, 6_000_000),
    "a large table": RING[:24] + blob(b"") + i32(-1) + b"\0\x18" + i32(0, 0, 127, 1 << 24),
    "more than a table": changed(RING, i32(4, 0, 1, 0, 1), i32(1 << 30)),
    "a whole ring": RING,
    "a whole builder": BUILDER,
}


@pytest.mark.parametrize("after", BOMBS)
def test_a_gzip_bomb_takes_little_memory(after: str) -> None:
    """Only the part that could be a ring is decompressed."""
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    start = stream.compress(BOMBS[after]) + stream.flush(zlib.Z_FULL_FLUSH)
    zeros = stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    bomb = start + zeros * 1024
    tracemalloc.start()
    with pytest.raises(RingFormatError):
        files.decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20 if after != "a large table" else peak < 256 << 20


def test_no_more_than_the_limit_is_decompressed() -> None:
    ring = packed(RING)
    assert files.decode(ring, limit=len(RING)).version
    with pytest.raises(RingFormatError):
        files.decode(ring, limit=len(RING) - 1)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ring"
    path.write_bytes(b"old")
    path.chmod(0o644)
    ring = files.decode_ring(packed(RING))
    files.write(path, ring)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert gzip.decompress(path.read_bytes()) == RING
    assert files.read_ring(path).nodes == ring.nodes
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RingError, match="No such file"):
        files.write(tmp_path / "none" / "a.ring", ring)
    with pytest.raises(RingError, match="cannot read"):
        files.read(tmp_path / "none")
    with pytest.raises(RingError, match="cannot read"):
        files.read(tmp_path)
    path.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(RingFormatError, match=r"a\.ring"):
        files.read(path)
