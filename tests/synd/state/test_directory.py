"""Tests of a state directory with kills, damage, full disks and a second synd."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oort.errors import StateError, StateLockedError
from oort.synd.state.directory import KEPT_VERSIONS, DirectoryState
from oort.synd.state.state import Snapshot

from .snapshots import conf_of, random_conf, snapshot

# Makes a version and a fact, and dies before its n-th file operation in the directory.
PROJECT = Path(__file__).parents[3]

DYING = """
import os, sys
sys.path.append(os.getcwd())
from oort.synd.state.directory import DirectoryState
from tests.synd.state.snapshots import snapshot
directory, last = sys.argv[1], int(sys.argv[2])
steps = 0
def count(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.remove") and directory in str(arguments[0]):
        steps += 1
        if steps == last:
            os._exit(9)
state = DirectoryState(directory, "one")
version = state.read().version
sys.addaudithook(count)
state.write(version, snapshot(version + 1))
print("written", version + 1, flush=True)
state.keep(f"fact {version + 1}", b"whole")
print("kept", version + 1, flush=True)
state.close()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock", "facts"}


def files_of(*versions: int) -> set[str]:
    return {f"{v}-oort.{kind}" for v in versions for kind in ("builder", "ring")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a service in a state directory, with versions 1 to 3."""
    state = DirectoryState(tmp_path, "one")
    for version in (1, 2, 3):
        state.write(version - 1, snapshot(version))
    state.close()
    return tmp_path / "one"


def opened(folder: Path) -> Snapshot:
    """The snapshot that a starting synd finds."""
    state = DirectoryState(folder.parent, folder.name)
    try:
        return state.read()
    finally:
        state.close()


def test_a_kill_at_any_step_loses_nothing_acknowledged(tmp_path: Path) -> None:
    step, version = 0, 0
    done = False
    while not done:
        step += 1
        run = subprocess.run(
            [sys.executable, "-c", DYING, str(tmp_path), str(step)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=PROJECT,
        )
        assert run.returncode in (0, 9), run.stderr
        done = run.returncode == 0
        state = DirectoryState(tmp_path, "one")
        now = state.read().version
        assert now in (version, version + 1)
        if "written" in run.stdout:
            assert now == version + 1
        fact = state.take(f"fact {version + 1}")
        assert fact in ((b"whole",) if "kept" in run.stdout else (b"whole", None))
        state.close()
        kept = range(max(1, now - KEPT_VERSIONS + 1), now + 1)
        assert names(tmp_path / "one") <= files_of(*kept)
        assert names(tmp_path / "one") >= files_of(*kept[1:])
        assert not list((tmp_path / "one" / "facts").glob("*.unfinished"))
        version = now
    assert step > 8  # two files and their folders, and the removal of old versions


def test_the_remains_of_a_kill_are_removed(folder: Path) -> None:
    left = ["4-oort.builder", "4-oort.ring.unfinished", "9-oort.builder.unfinished"]
    for name in left:
        (folder / name).write_bytes(b"half")
    (folder / "1-oort.ring").unlink()  # as if the removal of old versions was interrupted
    (folder / "facts" / "half.unfinished").write_bytes(b"half")
    (folder / "notes.txt").write_text("not ours")
    assert opened(folder) == snapshot(3)
    assert names(folder) == files_of(2, 3) | {"notes.txt"}
    assert list((folder / "facts").iterdir()) == []


@pytest.mark.parametrize("kind", ["builder", "ring"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another"])
def test_damage_of_the_newest_version_is_reported(folder: Path, kind: str, damage: str) -> None:
    path = folder / f"3-oort.{kind}"
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    other = (folder / "2-oort.ring").read_bytes()
    path.write_bytes({"empty": b"", "cut": data[:-5], "flipped": flipped, "another": other}[damage])
    before = names(folder)
    with pytest.raises(StateError, match=r"version 3 in .*/one is damaged: .*restore") as told:
        opened(folder)
    assert "\n" not in str(told.value)
    assert names(folder) == before
    # The cure in the message.
    for name in files_of(3):
        (folder / name).unlink()
    assert opened(folder) == snapshot(2)


def test_a_missing_builder_is_reported(folder: Path) -> None:
    (folder / "3-oort.builder").unlink()
    with pytest.raises(StateError, match=r"3-oort\.builder is missing: .*go back to version 2"):
        opened(folder)
    (folder / "3-oort.ring").unlink()
    assert opened(folder) == snapshot(2)


def test_damage_of_older_versions_is_ignored(folder: Path) -> None:
    (folder / "2-oort.ring").write_bytes(b"nonsense")
    (folder / "1-oort.builder").unlink()
    assert opened(folder) == snapshot(3)


def test_a_few_versions_are_kept(folder: Path) -> None:
    state = DirectoryState(folder.parent, "one")
    for version in range(4, 20):
        state.write(version - 1, snapshot(version, b"%d" % version))
        assert len(names(folder)) <= 2 * KEPT_VERSIONS
    state.close()
    newest = range(20 - KEPT_VERSIONS, 20)
    assert names(folder) == files_of(*newest)
    for version in (19, 18):
        for name in files_of(*(v for v in newest if v > version)):
            (folder / name).unlink(missing_ok=True)
        assert conf_of(opened(folder)) == b"%d" % version


def test_one_synd_at_a_time(folder: Path) -> None:
    first = DirectoryState(folder.parent, "one")
    with pytest.raises(StateLockedError, match=f"{folder} is used by another synd: stop that synd"):
        DirectoryState(folder.parent, "one")
    other = DirectoryState(folder.parent, "other")
    first.write(3, snapshot(4))
    first.close()
    assert opened(folder) == snapshot(4)
    other.close()


def test_files_are_private(folder: Path) -> None:
    state = DirectoryState(folder.parent, "one")
    state.keep("key", b"secret")
    state.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_path_that_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"cannot use .*: Not a directory; name a directory"):
        DirectoryState(tmp_path / "file", "one")
    with pytest.raises(StateError, match=r"cannot use .*/file: Not a directory"):
        DirectoryState(tmp_path, "file")
    deep = DirectoryState(tmp_path / "a" / "b" / "c", "one")
    deep.write(0, snapshot(1))
    deep.close()


# ---- tests that need a file system of their own --------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "oort-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.system
def test_a_full_disk_changes_nothing(small_disk: Path) -> None:
    state = DirectoryState(small_disk, "one")
    state.write(0, snapshot(1))
    ballast = small_disk / "ballast"
    size = 256 << 10
    while True:  # every amount of free space from 0 up, until it is enough
        size -= 4096
        with ballast.open("wb", buffering=0) as file:
            file.write(bytes(size))  # as much as fits
        try:
            state.write(1, snapshot(2, random_conf(20_000)))
            break
        except StateError as error:
            told = str(error)
        assert "No space left on device; free disk space" in told
        with pytest.raises(StateError, match="free disk space"):
            state.put("large", bytes(200_000))
        assert state.read() == snapshot(1)
        assert names(small_disk / "one") == files_of(1)
    assert state.read().version == 2
    assert state.take("large") is None
    state.close()
    assert opened(small_disk / "one").version == 2


@pytest.mark.system
def test_a_directory_that_cannot_be_written(small_disk: Path) -> None:
    state = DirectoryState(small_disk, "one")
    state.write(0, snapshot(1))
    state.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for service in ("one", "another"):
        with pytest.raises(StateError, match=r"cannot use .*Read-only file system; mount it writa"):
            DirectoryState(small_disk, service)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert opened(small_disk / "one") == snapshot(1)


@pytest.mark.system
def test_a_directory_of_another_user(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from oort.errors import StateError\n"
        "from oort.synd.state.directory import DirectoryState\n"
        "os.setuid(65534)\n"
        "try: DirectoryState(sys.argv[1], 'one')\n"
        "except StateError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(
        r"cannot use /.*: Permission denied; give it to the user that runs synd, with mode 0700\n",
        run.stdout,
    )
