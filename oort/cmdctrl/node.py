"""The contract between the CmdCtrl service and the node that it controls.

Methods may be called from any thread and block until they have done their work.  They raise an
OortError, with a text for the caller, if the node cannot do the work at all.  An Outcome with
`status=False` is a normal answer: the node did not do the work, and the message says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """Whether the work was done, and one line of text for the caller."""

    status: bool
    message: str


class NodeControl(Protocol):
    def ring_update(self, version: int, ring: bytes) -> int:
        """Take a ring, if it is newer.

        Returns the version of the ring that the node has afterwards: `version` if it took the ring.
        """

    def reload(self) -> Outcome:
        """Read the configuration again and apply the settings that a running process can change."""

    def restart(self) -> Outcome:
        """Stop, reopen the store with the current configuration, and start."""

    def start(self) -> Outcome:
        """Serve clients.  Succeeds if they are already served."""

    def stop(self) -> Outcome:
        """Stop serving clients until start().  Succeeds if none are served."""

    def exit(self) -> Outcome:
        """End the process after this call has been answered."""

    def stats(self) -> bytes:
        """A JSON object with an object for each section of INFO; numbers are JSON numbers."""

    def health(self) -> Outcome:
        """Whether clients can read and write and no worker is stalled."""

    def software_version(self) -> str: ...

    def self_upgrade(self, version: str) -> Outcome: ...
