"""The options that turn off compression in every gRPC server and client.

gRPC decompresses a message completely before its size can be checked, so a small compressed message
could use any amount of memory.  Rings are already compressed.
"""

from __future__ import annotations

NO_COMPRESSION: tuple[tuple[str, int], ...] = (
    ("grpc.compression_enabled_algorithms_bitset", 1),  # bit 0 is "identity"
    ("grpc.per_message_decompression", 0),
)
