"""Ten minutes of mixed load: values stay right, and memory, descriptors and disk stay bounded.

SOAK_SECONDS in the environment sets another length.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.conftest import Oortd
from tests.daemon.writers import Writer

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
MIB = 1024 * 1024
BENCH_DATABASE, EXPIRING_DATABASE, LASTING_DATABASE = 10, 11, 12
LASTING_KEYS = 20_000


class Background:
    """Repeats an action in a thread until stop(), which raises the action's exception."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._step()
                self.rounds += 1
        except BaseException as error:
            self._error = error

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def bench(daemon: Oortd, seconds: float, *options: str) -> subprocess.Popen[bytes]:
    """Run oort-bench, which checks every value that it reads and fails if a value is wrong."""
    program = Path(sys.executable).parent / "oort-bench"
    target = ["-port", str(daemon.port), "-db", str(BENCH_DATABASE), "-quiet"]
    return subprocess.Popen(
        [program, *target, "-seconds", str(seconds), "-preload", "-mix", "50:50", *options],
        stdout=subprocess.DEVNULL,
    )


def expire_many(daemon: Oortd, draw: random.Random) -> Callable[[], None]:
    client = daemon.client(db=EXPIRING_DATABASE)

    def step() -> None:
        pipeline = client.pipeline(transaction=False)
        for _ in range(200):
            name = f"session:{draw.randrange(10**9)}"
            pipeline.set(name, draw.randbytes(draw.randrange(500)), px=draw.randrange(100, 5000))
        pipeline.execute()
        time.sleep(0.05)

    return step


def walk(daemon: Oortd) -> Callable[[], None]:
    """SCAN finds every key of a database that does not change while other databases change."""
    client = daemon.client(db=LASTING_DATABASE)
    for first in range(0, LASTING_KEYS, 1000):
        client.mset({f"lasting:{n}": f"value {n}" for n in range(first, first + 1000)})
    due = {b"lasting:%d" % n for n in range(LASTING_KEYS)}

    def step() -> None:
        assert set(client.scan_iter(count=500)) == due
        number = random.randrange(LASTING_KEYS)
        assert client.get(f"lasting:{number}") == b"value %d" % number

    return step


def operate(daemon: Oortd, draw: random.Random) -> Callable[[], None]:
    """Run an operator's commands, and kill a client that then connects again."""
    admin = daemon.client()

    def step() -> None:
        admin.config_set("appendfsync", draw.choice(("always", "everysec", "no")))
        admin.config_set("timeout", draw.choice((0, 300)))
        assert admin.info("everything")["oort_damaged_records"] == 0
        victims = [daemon.client(db=15) for _ in range(10)]
        for victim in victims:
            victim.set("victim", draw.randbytes(100_000))
            assert admin.client_kill_filter(_id=str(victim.client_id())) == 1
            assert victim.strlen("victim") == 100_000  # over a new connection
            victim.close()
        assert len(admin.client_list()) < 150
        admin.save()
        time.sleep(0.5)

    return step


def status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    return {"memory": memory, "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def test_mixed_load_for_long(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    env = {"OORT_VALUESTORECONFIG_SEGMENT_SIZE": "4 MiB"}
    daemon = Oortd(tmp_path, "--workers", "2", env=env)
    daemon.start()
    writers = [Writer(n, seed, database=max(0, n - 1), large=5 * MIB) for n in range(4)]
    others: list[Background] = []
    loads: list[subprocess.Popen[bytes]] = []
    samples: list[dict[str, int]] = []
    try:
        zipf = ["-keyspace", "200000", "-keys", "zipf", "-rate", "4000", "-prefix", "zipf:"]
        sized = ["-keyspace", "50000", "-vsize", "16:5000", "-rate", "1000", "-pipeline", "8"]
        loads.extend(bench(daemon, SECONDS, *options) for options in (zipf, sized))
        for writer in writers:
            writer.start(daemon)
        steps = (expire_many(daemon, draw), walk(daemon), operate(daemon, draw))
        others.extend(map(Background, steps))
        admin = daemon.client()
        for load in loads:
            while load.poll() is None:
                time.sleep(min(2.0, SECONDS / 20))
                info = admin.info("persistence")
                samples.append(
                    {
                        **status(daemon.pid),
                        "log": info["oort_log_bytes"],
                        "live": info["oort_live_bytes"],
                        "compactions": info["oort_compactions"],
                    }
                )
            assert load.returncode == 0
        for other in others:
            other.stop()
            assert other.rounds > 1
        expiring = daemon.client(db=EXPIRING_DATABASE)
        assert expiring.dbsize() < 100_000
        # Memory and files do not grow in the second half.
        first, second = samples[: len(samples) // 2], samples[len(samples) // 2 :]
        print(json.dumps([samples[0], samples[len(samples) // 2], samples[-1]]))
        for figure, slack in (("memory", 48 * MIB), ("descriptors", 100), ("log", 256 * MIB)):
            before, after = (max(sample[figure] for sample in half) for half in (first, second))
            assert after <= before * 1.2 + slack, f"{figure} grew from {before} to {after}"
        assert samples[-1]["compactions"] > 0
        daemon.kill()
        for writer in writers:
            writer.join()
        daemon.start()
        for writer in writers:
            writer.check(daemon)
        walk_again = daemon.client(db=LASTING_DATABASE)
        assert walk_again.dbsize() == LASTING_KEYS
        assert daemon.client().info("stats")["oort_dropped_slow_clients"] == 0
    finally:
        for load in loads:
            load.kill()
            load.wait()
        daemon.end()
        for other in others:
            with contextlib.suppress(redis.ConnectionError):
                other.stop()
        for writer in writers:
            writer.join()
