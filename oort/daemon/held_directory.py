"""The data directory, held open by systemd's descriptor store while oortd is away.

A file system that somebody has a directory of open cannot be unmounted and mounted again.  So a
descriptor that comes back at a start proves that no page of the index was lost since the store was
last opened, and the start after a kill replays instead of rebuilding.  The number of the mount,
which proves the same to a process that was started by hand, changes with every start of a service
that has a mount namespace of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from oort.notify import Notifier, Passed

NAME = "data-directory"


class HeldDirectory:
    def __init__(self, notifier: Notifier, passed: Sequence[Passed] = ()) -> None:
        """passed: what systemd handed over; descriptors of another name are left alone."""
        self._notifier = notifier
        self._held = [descriptor.fd for descriptor in passed if descriptor.name == NAME]

    def descriptor(self) -> int:
        """One that systemd has held, of whatever directory; 0: there is none."""
        return self._held[0] if self._held else 0

    def hold(self, directory: str) -> None:
        """The store in this directory is open: from now on hold this directory, and no other."""
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            here = os.fstat(opened)
            if any(os.path.samestat(os.fstat(fd), here) for fd in self._held):
                return
            if self._held:
                self._notifier.forget(NAME)
            self._notifier.store(NAME, opened)
        finally:
            os.close(opened)

    def close(self) -> None:
        """Our own descriptors; systemd keeps its."""
        for fd in self._held:
            os.close(fd)
        self._held = []
