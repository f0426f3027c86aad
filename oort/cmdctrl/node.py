"""What a CmdCtrl server controls: the contract between it and a node.

Every method may be called from any thread, waits for what it asks for, and raises an OortError
whose text is for the caller when that cannot be done at all.  An Outcome that is not good is an
answer like any other: the node lives, and says why it did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """Whether it was done, and one line for who asked."""

    status: bool
    message: str


class NodeControl(Protocol):
    def ring_update(self, version: int, ring: bytes) -> int:
        """The version of the ring held afterwards: `version`, unless the ring was not taken."""

    def reload(self) -> Outcome:
        """Read the configuration again and follow it as far as a running process can."""

    def restart(self) -> Outcome:
        """Stop, close and open the store with the configuration as it is now, start."""

    def start(self) -> Outcome:
        """Serve clients.  Good, too, when they are served already."""

    def stop(self) -> Outcome:
        """Serve no clients until start.  Good, too, when none are served already."""

    def exit(self) -> Outcome:
        """End the process, once this has been answered."""

    def stats(self) -> bytes:
        """A JSON object of objects: INFO's sections, numbers as numbers."""

    def health(self) -> Outcome:
        """Whether clients are served, reads and writes both, and nothing stands still."""

    def software_version(self) -> str: ...

    def self_upgrade(self, version: str) -> Outcome: ...
