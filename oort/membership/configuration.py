"""The configuration that comes with a ring: the ring's for every node, and over it this node's."""

from __future__ import annotations

from dataclasses import dataclass

from oort.config.layers import ring_layer
from oort.config.settings import Layer
from oort.ring.ring import Ring


@dataclass(frozen=True)
class RingConfiguration:
    ring: bytes = b""
    node: bytes = b""
    cached: bool = False  # what a syndicate gave once, not now

    def layers(self) -> list[Layer]:
        """Checked.  Raises ConfigError, with section and key."""
        return [layer for layer, _ in self._read()]

    def ignored(self) -> list[str]:
        """What in it does not count, for the log.  Raises ConfigError."""
        return [f"{layer.source}: {why}" for layer, ignored in self._read() for why in ignored]

    def _read(self) -> list[tuple[Layer, list[str]]]:
        prefix = "cached " if self.cached else ""
        return [
            ring_layer(f"{prefix}{kind} configuration", text)
            for kind, text in (("ring", self.ring), ("node", self.node))
            if text
        ]

    def same_texts(self, other: RingConfiguration) -> bool:
        return (self.ring, self.node) == (other.ring, other.node)


def of_ring(ring: Ring, local_id: int, before: RingConfiguration) -> RingConfiguration:
    """A node that has been taken out of its ring keeps the configuration that it had as one."""
    node = ring.node(local_id)
    return RingConfiguration(ring.conf, before.node if node is None else node.conf)
