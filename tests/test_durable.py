"""Tests of durable files: kills, the order of syncs and renames, and modes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from oort import durable

# Dies before the n-th file-system event that the interpreter reports.
KILLED = """
import os, sys
from pathlib import Path
from oort import durable
act, path, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
seen = 0
def on_event(event, arguments):
    global seen
    if event.startswith(("open", "os.")):
        seen += 1
        if seen == step:
            os._exit(9)
sys.addaudithook(on_event)
getattr(durable, act)(path, b"new" * 10000)
os._exit(0)
"""


def killed_at(step: int, act: str, path: Path) -> bool:
    command = [sys.executable, "-c", KILLED, act, str(path), str(step)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], timeout=60)
    assert done.returncode in (0, 9)
    return done.returncode == 9


@pytest.mark.parametrize("act", ["replace", "create"])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, act: str) -> None:
    path, old, new = tmp_path / "file", b"old" * 5, b"new" * 10000
    found = []
    step = 1
    while True:
        for left in tmp_path.iterdir():
            left.unlink()
        if act == "replace":
            path.write_bytes(old)
        killed = killed_at(step, act, path)
        found.append(path.read_bytes() if path.exists() else None)
        beside = [left.name for left in tmp_path.iterdir() if left != path]
        assert all(name.endswith(durable.UNFINISHED) for name in beside)
        if not killed:
            break
        step += 1
    before = old if act == "replace" else None
    assert set(found) == {before, new}
    assert found == sorted(found, key=lambda content: content == new), "back to the old file"
    assert beside == []


def test_data_then_name_then_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other order can lose both files when the power fails."""
    told: list[str] = []
    path = tmp_path / "file"
    sync, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        told.append("directory" if directory else f"{os.fstat(descriptor).st_size} bytes")
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        told.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    durable.replace(path, b"abc")
    assert told == ["3 bytes", "rename", "directory"]


def test_a_new_file_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.create(path, b"first")
    with pytest.raises(FileExistsError):
        durable.create(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    durable.replace(path, b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        durable.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_modes(tmp_path: Path) -> None:
    """Modes do not depend on the umask."""
    before = os.umask(0o077)
    try:
        durable.replace(tmp_path / "private", b"")
        durable.replace(tmp_path / "public", b"", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o644
