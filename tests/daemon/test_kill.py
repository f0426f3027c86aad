"""kill -9 at random moments under load: acknowledged writes survive, and none is half done."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Oortd
from tests.daemon.writers import Writer

# Segments are small, so every round fills and compacts some.  With TombstoneAge 0 compaction may
# drop tombstones at once.
ENVIRONMENT = {
    "OORT_VALUESTORECONFIG_SEGMENT_SIZE": "256 KiB",
    "OORT_VALUESTORECONFIG_TOMBSTONE_AGE": "0",
    "OORT_VALUESTORECONFIG_COMPACTION_THRESHOLD": "20",
}
LARGE = 400_000  # larger than a segment

# Without systemd only the number of the mount proves that the index is complete.
NUMBERED_MOUNTS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 8)
AFTER_KILL = "replayed" if NUMBERED_MOUNTS else "rebuilt"

# kill: the index stays as the process left it.  wipe, index: the nonce or the index is lost too.
# tables: some tables of contents are lost, as in a kill while compaction removes a segment.  term:
# a clean stop.
ENDINGS = ("kill", "wipe", "tables", "index", "tables", "kill", "wipe", "term")


def set_flag(daemon: Oortd, name: str, value: str) -> None:
    daemon.flags[daemon.flags.index(name) + 1] = value


def run_rounds(directory: Path, seed: int, rounds: int, plan: list[tuple[str, str]]) -> None:
    """Kill and restart with each (workers, fsync) of the plan and each way to recover in turn."""
    draw = random.Random(seed)
    daemon = Oortd(directory, "--workers", "1", "--fsync", "no", env=ENVIRONMENT)
    # Two writers share a database.  Two have a database each, which they sometimes flush.
    writers = [Writer(n, seed, database=max(0, n - 1), large=LARGE) for n in range(4)]
    recoveries: set[str] = set()
    compactions = 0
    daemon.start()
    try:
        for number in range(rounds):
            for writer in writers:
                writer.start(daemon)
            # Compaction begins a second after the start, so some kills hit a compaction.
            time.sleep(draw.uniform(1.0, 1.5) if number % 4 == 2 else draw.uniform(0.02, 0.4))
            compactions += daemon.client().info("persistence")["oort_compactions"]
            ending = ENDINGS[number % len(ENDINGS)]
            if ending == "term":
                assert daemon.stop(signal.SIGTERM) == 0
            else:
                daemon.kill()
            for writer in writers:
                writer.join()
            if ending == "wipe":
                for nonce in daemon.runtime_dir.iterdir():
                    nonce.unlink()
            elif ending == "index":
                (daemon.data_dir / "index").unlink()
            elif ending == "tables":
                tables = sorted(daemon.data_dir.glob("*.toc"))
                for table in draw.sample(tables, min(len(tables), 20)):
                    table.unlink()
            workers, fsync = plan[number % len(plan)]
            set_flag(daemon, "--workers", workers)
            set_flag(daemon, "--fsync", fsync)
            daemon.start()
            info = daemon.client().info("persistence")
            due = {"wipe": "rebuilt", "index": "rebuilt", "term": "clean"}.get(ending, AFTER_KILL)
            assert info["oort_recovery"] == due
            assert (info["oort_damaged_records"], info["oort_damaged_bytes"]) == (0, 0)
            recoveries.add(due)
            print(f"round {number}: {ending}, then {workers} workers, fsync {fsync}")
            for writer in writers:
                writer.check(daemon)
        assert recoveries == {AFTER_KILL, "rebuilt", "clean"}
        assert compactions > 0
        assert all(writer.answered > 0 for writer in writers)
    finally:
        daemon.end()
        for writer in writers:
            writer.join()
    print(f"{sum(w.answered for w in writers)} commands answered, {compactions} compactions")


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    run_rounds(tmp_path, seed, 8, [("1", "everysec"), ("2", "always"), ("0", "no")])


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_kill_9_many_times(tmp_path: Path, workers: str, fsync: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    run_rounds(tmp_path, seed, 200, [(workers, fsync)])
