"""A syndicate's state in a directory of one machine, with a folder for each service.

    <directory>/<service>/lock                     locked with flock while a synd runs
    <directory>/<service>/<version>-oort.builder   a version exists if both of its files exist
    <directory>/<service>/<version>-oort.ring
    <directory>/<service>/facts/<name>             facts of `keep` and `put`; names are %-encoded

Every file is replaced durably (oort/durable.py): first the builder, then the ring, which completes
the version.  A kill at any instant therefore leaves the old version or the new version.  It may
also leave a builder without a ring, or a temporary file; the next start removes them.  The last
KEPT_VERSIONS versions are kept.  An operator can go back to one by removing the newer versions.

The newest version is never ignored.  If it is damaged, or if its builder is missing, synd does not
start, because nodes may have that version already and take nothing older.  The synd that has locked
the folder is the leader.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from oort import durable
from oort.errors import RingFormatError, StateConflict, StateError, StateLockedError

from .state import Announcer, Snapshot, check_fact, check_service, check_snapshot, encode_name

KEPT_VERSIONS = 5
_BUILDER = "-oort.builder"
_RING = "-oort.ring"
_VERSIONED = re.compile(r"([1-9][0-9]*)(-oort\.(?:builder|ring))", re.ASCII)
_CURES = {
    errno.ENOSPC: "free disk space there; nothing was changed",
    errno.EDQUOT: "raise the disk quota; nothing was changed",
    errno.EROFS: "mount it writable",
    errno.EACCES: "give it to the user that runs synd, with mode 0700",
    errno.EPERM: "give it to the user that runs synd, with mode 0700",
    errno.ENOTDIR: "name a directory",
    errno.EEXIST: "name a directory",
}


class DirectoryState:
    """The state of one service in a directory; see State for the contract of each method.

    `advertise` is the value of `leader` (host:port).  The constructor raises StateLockedError if
    another synd uses the folder, and StateError if the folder is damaged, or cannot be read or
    written.
    """

    def __init__(self, directory: Path | str, service: str, advertise: str | None = None) -> None:
        self._folder = Path(directory) / check_service(service)
        self._facts = self._folder / "facts"
        self._advertise = advertise
        self._mutex = threading.Lock()
        self._failed: str | None = None
        with self._explained("cannot use"):
            _make_folder(self._folder)
            _make_folder(self._facts)
            self._lock = self._take_lock()
        try:
            with self._explained("cannot use"):
                self._current = self._recover()
        except BaseException:
            os.close(self._lock)
            raise
        self._announcer = Announcer(service)
        self._announcer.snapshot(self._current)
        self._announcer.leading(True)

    # ---- State --------------------------------------------------------------

    def read(self) -> Snapshot:
        with self._mutex:
            self._check()
            return self._current

    def write(self, expected: int, new: Snapshot) -> None:
        check_snapshot(new)
        with self._mutex:
            self._check()
            if self._current.version != expected:
                raise StateConflict(
                    f"the ring is at version {self._current.version}, not at {expected}"
                )
            if new.version <= expected:
                raise ValueError(f"version {new.version} is not newer than {expected}")
            self._write(new)
            self._current = new
            self._announcer.snapshot(new)

    def keep(self, name: str, data: bytes) -> bytes:
        path = self._fact(name)
        with self._mutex:
            self._check()
            earlier = self._read(path)
            if earlier is not None:
                return earlier
            self._replace(path, check_fact(data))
            return data

    def put(self, name: str, data: bytes) -> None:
        path = self._fact(name)
        with self._mutex:
            self._check()
            self._replace(path, check_fact(data))

    def take(self, name: str) -> bytes | None:
        path = self._fact(name)
        with self._mutex:
            self._check()
            return self._read(path)

    @property
    def leading(self) -> bool:
        return True

    @property
    def leader(self) -> str | None:
        return self._advertise

    def watch(self, changed: Callable[[Snapshot], None]) -> None:
        self._announcer.watch(changed)

    def on_lead(self, changed: Callable[[bool], None]) -> None:
        self._announcer.on_lead(changed)

    def close(self) -> None:
        self._announcer.close()
        with self._mutex:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    # ---- opening ------------------------------------------------------------

    def _take_lock(self) -> int:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StateLockedError(
                f"{self._folder} is used by another synd: stop that synd, or give this synd "
                "another state directory"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _recover(self) -> Snapshot:
        """The newest version; the remains of killed writes are removed.

        Raises StateError if the newest version is damaged or incomplete.
        """
        for folder in (self._folder, self._facts):
            for path in list(folder.iterdir()):
                if path.name.endswith(durable.UNFINISHED):
                    path.unlink()
        builders, rings = self._versions(_BUILDER), self._versions(_RING)
        newest = max(builders & rings, default=0)
        lost = sorted(version for version in rings - builders if version > newest)
        if lost:
            raise StateError(
                f"{self._path(lost[-1], _BUILDER)} is missing: restore it, or remove "
                f"{self._path(lost[-1], _RING)} to go back to "
                f"{f'version {newest}' if newest else 'an empty ring'}"
            )
        for version, suffix in [(v, _BUILDER) for v in builders - rings] + [
            (v, _RING) for v in rings - builders
        ]:
            self._path(version, suffix).unlink()
        snapshot = self._load(newest) if newest else Snapshot()
        durable.sync_directory(self._facts)
        durable.sync_directory(self._folder)
        return snapshot

    def _load(self, version: int) -> Snapshot:
        snapshot = Snapshot(
            version,
            self._path(version, _BUILDER).read_bytes(),
            self._path(version, _RING).read_bytes(),
        )
        try:
            check_snapshot(snapshot)
        except RingFormatError as error:
            raise StateError(
                f"version {version} in {self._folder} is damaged: {error}; restore "
                f"{version}{_BUILDER} and {version}{_RING}, or remove both to go back to the "
                "previous version"
            ) from error
        return snapshot

    def _versions(self, suffix: str) -> set[int]:
        found = (_VERSIONED.fullmatch(path.name) for path in self._folder.iterdir())
        return {int(match[1]) for match in found if match and match[2] == suffix}

    # ---- writing ------------------------------------------------------------

    def _write(self, new: Snapshot) -> None:
        builder, ring = self._path(new.version, _BUILDER), self._path(new.version, _RING)
        with self._explained("cannot write"):
            # Old versions are removed first, because an error after the change would be misleading.
            for old in sorted(self._versions(_RING))[: -(KEPT_VERSIONS - 1)]:
                self._path(old, _RING).unlink()
                self._path(old, _BUILDER).unlink(missing_ok=True)
        self._replace(builder, new.builder)
        try:
            self._replace(ring, new.ring)
        except StateError:
            if self._failed is None:
                with self._explained("cannot write"):
                    builder.unlink()
            raise

    def _replace(self, path: Path, data: bytes) -> None:
        """Replace a file durably.

        If it is uncertain whether the file is durable, the state refuses all further calls.
        """
        with self._explained("cannot write"):
            durable.put(path, data)
            try:
                durable.sync_directory(path.parent)
            except BaseException as error:
                self._failed = (
                    f"it is not known whether {path} is on the disk ({error}): look for errors of "
                    "the device in the kernel's log, then restart synd"
                )
                raise StateError(self._failed) from error

    def _read(self, path: Path) -> bytes | None:
        with self._explained("cannot read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def _check(self) -> None:
        if self._failed is not None:
            raise StateError(self._failed)
        self._announcer.check()

    def _path(self, version: int, suffix: str) -> Path:
        return self._folder / f"{version}{suffix}"

    def _fact(self, name: str) -> Path:
        return self._facts / encode_name(name)

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn an OSError into a StateError that names action, file, cause and cure."""
        try:
            yield
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "look for errors of the device in the kernel's log")
            raise StateError(
                f"{action} {error.filename or self._folder}: {error.strerror}; {cure}"
            ) from error


def _make_folder(path: Path) -> None:
    """Create a folder and its parents durably; existing folders are not changed."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    durable.sync_directory(path.parent)
