"""The configuration in a ring: that of all nodes, which the one of this node overrides."""

from __future__ import annotations

from dataclasses import dataclass

from oort.config.layers import ring_layer
from oort.config.settings import Layer
from oort.ring.ring import Ring


@dataclass(frozen=True)
class RingConfiguration:
    """Texts in the format of the configuration file; an empty text sets nothing."""

    ring: bytes = b""  # for all nodes
    node: bytes = b""  # for this node
    cached: bool = False  # read from the cache, not received from a syndicate

    def layers(self) -> list[Layer]:
        """The layers, with checked values.  Raises ConfigError, with section and key."""
        return [layer for layer, _ in self._read()]

    def ignored(self) -> list[str]:
        """A text for the log for each part that is ignored.  Raises ConfigError."""
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
    """The configuration of this node in a ring.  before: the node's present configuration.

    A node that was removed from its ring keeps its node configuration.
    """
    node = ring.node(local_id)
    return RingConfiguration(ring.conf, before.node if node is None else node.conf)
