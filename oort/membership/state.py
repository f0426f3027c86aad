"""The ring that a node holds.  A ring is checked and stored on disk before the node uses it.

The syndicate pushes rings and the node fetches them, on any thread and in any order.  The newest
version wins; any other ring changes nothing.  The directory keeps the newest KEPT rings as
`<version>-oort.ring`, so a node knows its ring even if it finds no syndicate.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

from oort import durable
from oort.errors import BootError, RingError
from oort.ring import files
from oort.ring.ring import Ring

KEPT = 3

_NAME = re.compile(r"(\d{1,19})-oort\.ring")


class RingState:
    """Thread safe.  changed(ring) is called after each change, on the thread that made it."""

    def __init__(
        self,
        directory: Path | str,
        changed: Callable[[Ring], None] | None = None,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        """refused(why): called for every refused ring that the operator should know about.

        A ring that is not newer than the present one is no such ring.
        """
        self._directory = Path(directory)
        self._changed = changed
        self._refused = refused
        self._lock = threading.Lock()
        self._local_id = 0
        self._ring: Ring | None = None

    @property
    def ring(self) -> Ring | None:
        return self._ring

    @property
    def version(self) -> int:
        """The version of the ring; 0: there is no ring yet."""
        ring = self._ring
        return ring.version if ring is not None else 0

    @property
    def local_id(self) -> int:
        """This node's id; 0: this node has no id yet."""
        return self._local_id

    def load(self, local_id: int) -> bool:
        """Use the newest valid ring in the directory; False if no ring there is valid.

        A ring without this node is valid too, because the node may have been removed.  Raises
        BootError.
        """
        with self._lock:
            self._local_id = local_id
            for path in reversed(self._files()):
                try:
                    ring = files.read_ring(path)
                except RingError as error:
                    self._refuse(f"{path}: {error}")
                    continue
                self._ring = self._as_ours(ring)
                return True
        return False

    def adopt(self, local_id: int, ring: bytes) -> Ring:
        """Use the ring of a registration instead of any present ring, even of a newer one.

        ring: the bytes of the ring.  Raises RingError if the ring is invalid or lacks this node,
        and BootError if it cannot be stored.
        """
        decoded = files.decode_ring(ring)
        if decoded.node(local_id) is None:
            raise RingError(f"ring {decoded.version} has no node {local_id}")
        with self._lock:
            self._local_id = local_id
            self._take(decoded, ring)
        if self._changed is not None:
            self._changed(decoded)
        return decoded

    def update(self, version: int, ring: bytes) -> int:
        """Use this ring if it is newer.  Returns the version of the ring in use afterwards."""
        with self._lock:
            if version <= self.version:
                return self.version
            try:
                decoded = files.decode_ring(ring)
                if decoded.version != version:
                    raise RingError(f"its content has version {decoded.version}")
                self._take(decoded, ring)
            except (RingError, BootError) as error:
                self._refuse(f"ring of version {version} was refused: {error}")
                return self.version
        if self._changed is not None:
            self._changed(decoded)
        return version

    def _take(self, decoded: Ring, data: bytes) -> None:
        self._keep(decoded.version, data)
        self._ring = self._as_ours(decoded)

    def _as_ours(self, ring: Ring) -> Ring:
        return ring.with_local(self._local_id) if ring.node(self._local_id) else ring

    def _refuse(self, why: str) -> None:
        if self._refused is not None:
            self._refused(why)

    def _files(self) -> list[Path]:
        """The files of the rings in the directory, the newest last."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BootError(f"ring directory {self._directory}: {error.strerror}") from error
        found = [(int(match[1]), match[0]) for name in names if (match := _NAME.fullmatch(name))]
        return [self._directory / name for _, name in sorted(found)]

    def _keep(self, version: int, data: bytes) -> None:
        path = self._directory / f"{version}-oort.ring"
        try:
            # Never write the same file again: this would fail on a full disk.
            if not path.exists() or path.read_bytes() != data:
                self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
                durable.replace(path, data)
        except OSError as error:
            raise BootError(f"cannot store the ring as {path}: {error.strerror}") from error
        for old in [file for file in self._files() if file != path][: -(KEPT - 1)]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                self._refuse(f"cannot remove the old ring {old}: {error.strerror}")
