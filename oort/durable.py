"""Files that survive a power failure.

    replace(path, data)       the file is the old one or the new one at any instant
    create(path, data)        a new file, never over another
    rename(source, path)      a durable file takes the place of another in its directory
    put(path, data)           replace without its last step: sync_directory() makes it durable

The data is written to a file beside the place and synced; then the file is renamed and the
directory is synced.  replace, create and rename are durable when they return.  Every function
raises OSError.

A kill may leave an unfinished file beside the place: its name ends with UNFINISHED, and nothing
reads it.  Two writers of one path do not disturb each other: the last one counts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o600
UNFINISHED = ".unfinished"
AS_IT_IS = -1  # for an owner or a group


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
    """Raises FileExistsError if there is a file already."""
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
    """A synced file beside `path`; if the body fails, the file is removed.

    The file has its owner and its mode before it has data.
    """
    # Without the name of the file, which may be as long as a name can be.
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
    """A chown that would change nothing is not made: a confined service may not call it."""
    status = os.fstat(descriptor)
    if (owner, group) not in (
        (AS_IT_IS, AS_IT_IS),
        (status.st_uid, status.st_gid),
        (AS_IT_IS, status.st_gid),
    ):
        os.fchown(descriptor, owner, group)
