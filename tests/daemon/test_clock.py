"""The clock steps back and forth while oortd runs: later writes win, and nothing is lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.conftest import Oortd
from tests.daemon.writers import Writer

pytestmark = pytest.mark.system

HOUR = 3600


def libfaketime() -> Path:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "install faketime (make test-system does)"
    return found[0]


def test_the_clock_steps(tmp_path: Path) -> None:
    """Compare every reply.  After each step kill oortd and compare everything again."""
    offset = tmp_path / "offset"
    env = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "OORT_VALUESTORECONFIG_SEGMENT_SIZE": "256 KiB",
        "OORT_VALUESTORECONFIG_TOMBSTONE_AGE": "0",
        "OORT_VALUESTORECONFIG_COMPACTION_THRESHOLD": "20",
    }

    def step(seconds: int) -> None:
        staging = tmp_path / "staging"
        staging.write_text(f"{seconds:+d}\n")
        staging.rename(offset)

    seed = random.randrange(2**32)
    print("seed", seed)
    step(0)
    daemon = Oortd(tmp_path, "--workers", "2", env=env)
    writers = [
        Writer(n, seed, database=max(0, n - 1), large=400_000, volatile=False) for n in range(4)
    ]
    pids: list[int] = []
    daemon.start()
    try:
        for number, offsets in enumerate(
            [(-HOUR, 24 * HOUR), (-48 * HOUR, -49 * HOUR), (2, -2), (-400 * HOUR, 0)]
        ):
            for writer in writers:
                writer.start(daemon)
            for seconds in offsets:
                time.sleep(0.7)
                step(seconds)
                shown = daemon.client().time()[0]
                assert abs(shown - time.time() - seconds) < HOUR / 2
            time.sleep(0.7)
            pids.append(daemon.pid)
            daemon.kill()
            for writer in writers:
                writer.join()
                assert writer.answered > 100 * (number + 1)
            if number % 2:
                for nonce in daemon.runtime_dir.iterdir():
                    nonce.unlink()
            daemon.start()
            for writer in writers:
                writer.check(daemon)
    finally:
        pids.append(daemon.pid)
        daemon.end()
        for writer in writers:
            writer.join()
        # Killed, it could not tidy up.
        for pid in pids:
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                Path("/dev/shm", name).unlink(missing_ok=True)
