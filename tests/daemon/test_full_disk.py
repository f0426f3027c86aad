"""A small disk that fills up, with default settings: writes are refused before the disk is full,
everything else goes on, and deleting keys is enough to make writes work again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import Oortd, until

pytestmark = pytest.mark.system

VALUE = b"x" * 50_000
KEPT = 10  # one key in 10 is not deleted


@pytest.fixture(params=["48m", "300m"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    options = f"size={request.param}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(client: redis.Redis) -> int:
    """Write until a write is refused.  Returns the number of keys."""
    count = 0
    while is_writable(client, f"key{count}"):
        count += 1
    return count


def is_writable(client: redis.Redis, key: str = "again") -> bool:
    try:
        return bool(client.set(key, VALUE))
    except redis.ResponseError as refused:
        if str(refused).startswith("MISCONF oort is read-only: "):
            return False
        raise


def test_a_small_disk_fills_up_and_comes_back(small_disk: Path) -> None:
    daemon = Oortd(small_disk).start()
    try:
        client = daemon.client()
        disk = os.statvfs(small_disk)
        count = fill(client)
        assert count * len(VALUE) > disk.f_blocks * disk.f_frsize // 2
        assert os.statvfs(small_disk).f_bavail > 0
        assert client.info("persistence")["aof_last_write_status"] == "ok"
        daemon.kill()
        client = daemon.start().client()
        assert not is_writable(client)
        assert all(client.get(f"key{number}") == VALUE for number in range(count))
        gone = [number for number in range(count) if number % KEPT]
        for number in gone:
            assert client.delete(f"key{number}") == 1
        until(lambda: is_writable(client))
        client.delete("again")
        assert client.dbsize() == count - len(gone)
        assert all(client.get(f"key{number}") == VALUE for number in range(0, count, KEPT))
    finally:
        daemon.end()


def test_below_the_watermark_only_what_adds_is_refused(small_disk: Path) -> None:
    daemon = Oortd(small_disk, env={"OORT_VALUESTORECONFIG_FREE_DISK_LOW": "1 TiB"}).start()
    try:
        assert not is_writable(daemon.client())
        assert daemon.client().ping()
        with daemon.connect() as raw:
            for words in (["MSET", "a", "1", "b", "2"], ["INCR", "n"], ["APPEND", "a", "x"]):
                assert raw.call(*words).startswith(b"-MISCONF oort is read-only: "), words
            assert raw.call("GET", "a") == b"$-1\r\n"
            assert raw.call("DEL", "a") == b":0\r\n"
            assert raw.call("SAVE") == b"+OK\r\n"
            assert raw.call("FLUSHALL") == b"+OK\r\n"
    finally:
        daemon.end()
