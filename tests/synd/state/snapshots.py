"""Versions of a small ring, and conditions to wait for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from oort.ring import files
from oort.ring.builder import Builder
from oort.synd.state.state import Snapshot

WAIT_SECONDS = 60.0


def snapshot(version: int, conf: bytes = b"") -> Snapshot:
    """A snapshot of this version; its builder and its ring have the configuration `conf`."""
    builder = Builder()
    builder.version = version
    builder.conf = conf
    return Snapshot(version, files.encode(builder), files.encode(builder.ring()))


def random_conf(size: int) -> bytes:
    """Incompressible data, the same each time."""
    return random.Random(size).randbytes(size)


def conf_of(snapshot: Snapshot) -> bytes:
    return files.decode_builder(snapshot.builder).conf


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in {WAIT_SECONDS:g} s: {what}"
        time.sleep(0.01)
