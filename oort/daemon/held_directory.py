"""The data directory, which systemd's descriptor store holds open while oortd is down.

A file system cannot be unmounted while a directory on it is open.  A descriptor that systemd hands
back therefore proves that no page of the index was lost since the store was last opened.  The start
after a kill then replays the log instead of rebuilding the index.

For a process that was started by hand the number of the mount proves the same.  That number changes
with every start of a service that has its own mount namespace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from oort.notify import Notifier, Passed

NAME = "data-directory"


class HeldDirectory:
    def __init__(self, notifier: Notifier, passed: Sequence[Passed] = ()) -> None:
        """passed: descriptors from systemd.  Descriptors with another name are ignored."""
        self._notifier = notifier
        self._held = [descriptor.fd for descriptor in passed if descriptor.name == NAME]

    def descriptor(self) -> int:
        """A descriptor that systemd has held, of any directory; 0: systemd has held none."""
        return self._held[0] if self._held else 0

    def hold(self, directory: str) -> None:
        """From now on hold this directory only.  The store in this directory is open."""
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
        """Close this process's descriptors.  systemd keeps its own."""
        for fd in self._held:
            os.close(fd)
        self._held = []
