"""The cached configuration: the syndicate's last configuration, for a boot without a syndicate.

The cache is one JSON file.  It is replaced atomically and durably.  Its mode is 0600, because the
configuration may contain passwords.  The cache is valid for MAX_SECONDS after the last write.  A
node that is connected to its syndicate writes the cache again every RENEW_SECONDS.  A file that
other users can write to is refused.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from oort import durable
from oort.errors import CacheError

MAX_SECONDS = 48 * 3600
RENEW_SECONDS = 3600
_FORMAT = 1
_MAX_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Cached:
    """The ring's configuration, the id of this node, and the version of the ring."""

    local_id: int
    version: int
    ring_conf: bytes
    node_conf: bytes
    age: float = 0.0  # seconds since the last write


def write(path: str, cached: Cached, now: float) -> None:
    """Write the cache.  now: seconds since 1970.  Raises CacheError.

    If the path is a symbolic link, its target is replaced.
    """
    content = {
        "format": _FORMAT,
        "written": int(now),
        "local_id": str(cached.local_id),
        "version": str(cached.version),
        "ring_conf": base64.b64encode(cached.ring_conf).decode("ascii"),
        "node_conf": base64.b64encode(cached.node_conf).decode("ascii"),
    }
    try:
        durable.replace(Path(path).resolve(), json.dumps(content, indent=1).encode() + b"\n")
    except OSError as error:
        raise CacheError(
            f"cannot write the cached configuration {path}: {error.strerror or error}"
        ) from error


def read(path: str, now: float, *, to_show: bool = False) -> Cached:
    """Read the cache.  now: seconds since 1970.  Raises CacheError if the cache is not valid.

    to_show: the result is only shown, so root may read the cache of the service's user.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        raise CacheError(f"there is no cached configuration {path}") from None
    except OSError as error:
        raise CacheError(
            f"the cached configuration {path} cannot be read: {error.strerror or error}"
        ) from error
    foreign = status.st_uid not in (os.geteuid(), 0) and not (to_show and os.geteuid() == 0)
    if foreign or stat.S_IMODE(status.st_mode) & 0o022:
        raise CacheError(
            f"the cached configuration {path} is refused: users other than uid {os.geteuid()} can"
            " write to it; remove it"
        )
    cached, written = _parse(path, content)
    # A copy of the file or a change of the clock may have moved either time forward.
    age = max(0.0, now - min(written, status.st_mtime))
    if age > MAX_SECONDS:
        raise CacheError(
            f"the cached configuration {path} is {age / 3600:.0f} hours old and valid for only"
            f" {MAX_SECONDS // 3600} hours"
        )
    return Cached(cached.local_id, cached.version, cached.ring_conf, cached.node_conf, age)


def _parse(path: str, content: bytes) -> tuple[Cached, int]:
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        found = json.loads(content)
        if found["format"] == _FORMAT:
            cached = Cached(
                local_id=int(found["local_id"]),
                version=int(found["version"]),
                ring_conf=base64.b64decode(found["ring_conf"], validate=True),
                node_conf=base64.b64decode(found["node_conf"], validate=True),
            )
            if 0 < cached.local_id < 1 << 64 and 0 <= cached.version < 1 << 63:
                return cached, int(found["written"])
    raise CacheError(f"the cached configuration {path} is damaged")
