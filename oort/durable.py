"""Files that survive a power failure.

    replace(path, data)       replace a file atomically
    create(path, data)        create a file, but never replace one
    rename(source, path)      rename a durable file within its directory, replacing another file
    put(path, data)           like replace, but durable only after sync_directory()

The data is written to a temporary file in the same directory and synced.  Then the file is renamed,
and the directory is synced.  replace, create and rename are durable when they return.  Every
function raises OSError.

A kill may leave a temporary file, whose name ends with UNFINISHED.  Nothing reads such files.  If
two processes write one path, each write is complete, and the last rename wins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o600
UNFINISHED = ".unfinished"
AS_IT_IS = -1  # do not change the owner or the group


def replace(
    path: Path,
    data: bytes,
    mode: int = PRIVATE,
    *,
    owner: int = AS_IT_IS,
    group: int = AS_IT_IS,
) -> None:
    put(path, data, mode, owner=owner, group=group)
    sync_directory(path.parent)


def put(
    path: Path,
    data: bytes,
    mode: int = PRIVATE,
    *,
    owner: int = AS_IT_IS,
    group: int = AS_IT_IS,
) -> None:
    with _beside(path, data, mode, owner, group) as unfinished:
        unfinished.replace(path)


def create(
    path: Path,
    data: bytes,
    mode: int = PRIVATE,
    *,
    owner: int = AS_IT_IS,
    group: int = AS_IT_IS,
) -> None:
    """Raises FileExistsError if the file already exists."""
    with _beside(path, data, mode, owner, group) as unfinished:
        os.link(unfinished, path)  # unlike a rename, this never replaces a file
        unfinished.unlink()
    sync_directory(path.parent)


def rename(source: Path, path: Path) -> None:
    source.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: Path, data: bytes, mode: int, owner: int, group: int) -> Iterator[Path]:
    """A synced temporary file beside `path`; it is removed if the body fails.

    Owner and mode are set before the data is written.
    """
    # The name does not contain the name of `path`, which may have the maximum length already.
    unfinished = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(unfinished, flags, PRIVATE)
    try:
        with open(descriptor, "wb") as file:
            _give(descriptor, owner, group)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        yield unfinished
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _give(descriptor: int, owner: int, group: int) -> None:
    """Set owner and group, but only if they differ: confined services may not call chown."""
    status = os.fstat(descriptor)
    if (owner, group) not in (
        (AS_IT_IS, AS_IT_IS),
        (status.st_uid, status.st_gid),
        (AS_IT_IS, status.st_gid),
    ):
        os.fchown(descriptor, owner, group)
