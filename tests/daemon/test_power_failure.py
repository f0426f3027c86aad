"""A power failure: data that is not on the device is lost, but durable writes survive.

A file system on a loop device is shut down while oortd is under load, as in ext4's crash tests
(EXT4_IOC_SHUTDOWN without a flush of the journal).  After that nothing reaches the device.  A new
mount shows the state that a machine would find after a power failure.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Oortd
from tests.daemon.test_kill import ENVIRONMENT
from tests.daemon.writers import Writer

pytestmark = pytest.mark.system

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_BYTES = 1 << 30


class Disk:
    """A file system on a loop device whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "image"
        self.mounted_at = directory / "disk"
        self.mounted_at.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mounted_at)], check=True)

    def unmount(self) -> None:
        if self.mounted_at.is_mount():
            subprocess.run(["umount", str(self.mounted_at)], check=True)

    def cut_power(self) -> None:
        descriptor = os.open(self.mounted_at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.unmount()


def daemon_on(disk: Disk, fsync: str) -> Oortd:
    daemon = Oortd(disk.mounted_at, "--fsync", fsync, env=ENVIRONMENT)
    daemon.log_path = disk.image.parent / "log"
    return daemon


def freeze(daemon: Oortd) -> None:
    """Stop the process, and return when none of its threads runs, even in the kernel."""
    os.kill(daemon.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{daemon.pid}/task")
    while any(
        (task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()
    ):
        time.sleep(0.001)


def power_returns(disk: Disk, daemon: Oortd) -> None:
    """The machine starts again.  Its memory is empty, and so is the runtime directory."""
    daemon.kill()
    for nonce in daemon.runtime_dir.iterdir():
        nonce.unlink()
    disk.unmount()
    disk.mount()
    daemon.start()
    info = daemon.client().info("persistence")
    assert info["oort_recovery"] == "rebuilt"
    assert (info["oort_damaged_records"], info["oort_damaged_bytes"]) == (0, 0)


def test_always_loses_nothing_acknowledged(disk: Disk) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    daemon = daemon_on(disk, "always")
    writers = [Writer(n, seed, database=max(0, n - 1), large=400_000) for n in range(4)]
    daemon.start()
    try:
        for _ in range(4):
            before = [writer.answered for writer in writers]
            for writer in writers:
                writer.start(daemon)
            while any(w.answered < was + 50 for w, was in zip(writers, before, strict=True)):
                time.sleep(draw.uniform(0.1, 0.5))
            # Without power nothing runs, so freeze oortd before the shutdown.  A process that runs
            # during the shutdown sometimes gets success for a sync that did not happen: a plain
            # loop of pwrite and fdatasync loses its last synced write in one round of twelve.
            freeze(daemon)
            disk.cut_power()
            power_returns(disk, daemon)
            for writer in writers:
                writer.join()
                writer.check(daemon)
    finally:
        daemon.end()


def test_the_file_system_goes_and_comes_back_in_the_same_boot(disk: Disk) -> None:
    """A volume is detached: the kernel drops pages of the index, but the machine goes on, and the
    nonce in the runtime directory still matches."""
    daemon = daemon_on(disk, "always")
    count = 8_000
    daemon.start()
    try:
        pipeline = daemon.client().pipeline(transaction=False)
        for n in range(count):
            pipeline.set(f"kept:{n}", f"{n}" * 200)
        pipeline.execute()
        daemon.kill()
        disk.cut_power()
        disk.unmount()
        disk.mount()
        assert list(daemon.runtime_dir.iterdir())
        daemon.start()
        client = daemon.client()
        assert client.info("persistence")["oort_recovery"] == "rebuilt"
        time.sleep(3)  # compaction begins a second after the start
        kept = client.mget([f"kept:{n}" for n in range(count)])
        assert kept == [b"%d" % n * 200 for n in range(count)]
    finally:
        daemon.end()


def test_save_makes_durable_what_came_before(disk: Disk) -> None:
    """Without fsync only writes before a SAVE are durable.  Any other key is valid or absent."""
    daemon = daemon_on(disk, "no")
    count = 20_000
    daemon.start()
    try:
        pipeline = daemon.client().pipeline(transaction=False)
        for n in range(count):
            pipeline.set(f"saved:{n}", f"{n}" * 20)
        pipeline.delete("saved:0")
        pipeline.execute()
        assert daemon.client().save()
        for n in range(count):
            pipeline.set(f"later:{n}", f"{n}" * 20)
        pipeline.execute()
        disk.cut_power()
        power_returns(disk, daemon)
        client = daemon.client()
        saved = client.mget([f"saved:{n}" for n in range(count)])
        assert saved == [None, *(b"%d" % n * 20 for n in range(1, count))]
        later = client.mget([f"later:{n}" for n in range(count)])
        assert all(value in (None, b"%d" % n * 20) for n, value in enumerate(later))
        assert None in later  # otherwise nothing was lost, and this test shows nothing
    finally:
        daemon.end()
