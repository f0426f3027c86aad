"""What every gRPC server and client of ours says about compression: none.

A compressed message is unpacked whole before its size can be looked at, so that a small one may
take any amount of memory.  Rings are compressed already.
"""

from __future__ import annotations

NO_COMPRESSION: tuple[tuple[str, int], ...] = (
    ("grpc.compression_enabled_algorithms_bitset", 1),  # the one that is none
    ("grpc.per_message_decompression", 0),
)
