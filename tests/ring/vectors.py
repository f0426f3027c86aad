"""Small ring and builder files, written out value by value, and the original tool's files.

The original's files are in a folder beside the project, which may be absent.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

ORIGINAL = Path(__file__).parents[3] / "shared" / "vectors" / "ring"


def i32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def blob(data: bytes) -> bytes:
    return i32(len(data)) + data


TIERS = (
    i32(2)
    + (i32(3) + blob(b"") + blob(b"server1") + blob(b"server2"))
    + (i32(2) + blob(b"") + blob(b"zone\xff"))
)
NODES = (
    i32(2)
    + (
        struct.pack(">QBI", 0xFEDCBA9876543210, 0, 1000)
        + i32(2, 1, 1)
        + (i32(2) + blob(b"127.0.0.1:8001") + blob(b""))
        + blob(b"first")
        + blob(b"a = 1\n")
    )
    + (struct.pack(">QBI", 7, 1, 0xFFFFFFFF) + i32(1, 2) + i32(0) + blob(b"") + blob(b""))
)
TABLE = i32(2) + (i32(4) + i32(0, 1, 0, 1)) + (i32(4) + i32(1, 0, -1, 0))
LAST_MOVES = i32(2) + (i32(4) + struct.pack(">4H", 0, 1, 65535, 60)) * 2

RING = (
    b"RINGv00000000001"
    + struct.pack(">q", 1_795_382_213_433_817_542)
    + blob(b"[Section]\n")
    + i32(1)
    + struct.pack(">H", 2)
    + TIERS
    + NODES
    + TABLE
)
BUILDER = (
    b"RINGBUILDERv0001"
    + struct.pack(">q", 0)
    + blob(b"\x00\xff")
    + struct.pack(">B", 64)
    + TIERS
    + NODES
    + struct.pack(">H", 2)
    + TABLE
    + LAST_MOVES
    + struct.pack(">BHH", 1, 23, 60)
)
EMPTY_BUILDER = (
    b"RINGBUILDERv0001"
    + struct.pack(">q", 0)
    + blob(b"")
    + struct.pack(">B", 64)
    + i32(0)
    + i32(0)
    + struct.pack(">H", 1)
    + (i32(3) + (i32(2) + i32(-1, -1)) * 3)
    + (i32(3) + (i32(2) + struct.pack(">2H", 65535, 65535)) * 3)
    + struct.pack(">BHH", 1, 23, 60)
)


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
