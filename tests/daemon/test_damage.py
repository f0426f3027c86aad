"""Damage to a whole file of the data directory while oortd is down: the log names the file, all
other records are served, and no reply is ever wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Oortd, until

StartOortd = Callable[..., Oortd]

KEYS = 6000
SMALL_SEGMENTS = {"OORT_VALUESTORECONFIG_SEGMENT_SIZE": "256 KiB"}


def value(number: int) -> bytes:
    return b"%06d" % number * 40


def segments(data: Path) -> list[Path]:
    return sorted(data.glob("*.log"))


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def overwrite(file: Path, offset: int, size: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        old = opened.read(size)
        opened.seek(offset)
        opened.write(bytes(byte ^ 0xFF for byte in old))


# The change of the directory, and whether the records of the third segment are lost.
INDEX: dict[str, Callable[[Path], object]] = {
    "no index": lambda data: (data / "index").unlink(),
    "an empty index": lambda data: (data / "index").write_bytes(b""),
    "half an index": lambda data: cut(data / "index"),
    "another file as index": lambda data: (data / "index").write_bytes(b"not an index" * 1000),
    "a changed index header": lambda data: overwrite(data / "index", 8, 40),
    "no tables of contents": lambda data: [toc.unlink() for toc in data.glob("*.toc")],
    "empty tables of contents": lambda data: [toc.write_bytes(b"") for toc in data.glob("*.toc")],
    "changed tables of contents": lambda data: [
        overwrite(toc, 90, 50) for toc in data.glob("*.toc")
    ],
}
SEGMENT: dict[str, Callable[[Path], object]] = {
    "a segment gone": lambda segment: segment.unlink(),
    "a segment and its table gone": lambda segment: (
        segment.unlink(),
        segment.with_suffix(".toc").unlink(),
    ),
    "half a segment": cut,
    "an empty segment": lambda segment: segment.write_bytes(b""),
    "a segment of zeros": lambda segment: segment.write_bytes(bytes(segment.stat().st_size)),
    "a changed segment header": lambda segment: overwrite(segment, 16, 8),
    "a segment header of zeros": lambda segment: segment.write_bytes(
        bytes(4096) + segment.read_bytes()[4096:]
    ),
}


def filled(daemon: Oortd) -> None:
    with daemon.client().pipeline(transaction=False) as pipe:
        for number in range(KEYS):
            pipe.set(f"key{number}", value(number))
        pipe.execute()


def served(daemon: Oortd) -> int:
    """The number of keys that exist.  Each of them must have its own value."""
    with daemon.client().pipeline(transaction=False) as pipe:
        for number in range(KEYS):
            pipe.get(f"key{number}")
        found = pipe.execute(raise_on_error=False)
    right = sum(found[number] == value(number) for number in range(KEYS))
    assert all(one is None or isinstance(one, Exception | bytes) for one in found)
    assert right == sum(isinstance(one, bytes) for one in found)
    return right


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_what_can_be_made_again(start_oortd: StartOortd, killed: bool) -> None:
    daemon = start_oortd(env=SMALL_SEGMENTS)
    filled(daemon)
    for what, damage in INDEX.items():
        daemon.kill() if killed else daemon.stop()
        damage(daemon.data_dir)
        daemon.start()
        assert served(daemon) == KEYS, what
        assert daemon.client().dbsize() == KEYS, what


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("what", SEGMENT)
def test_lost_segments_are_told(start_oortd: StartOortd, what: str, killed: bool) -> None:
    daemon = start_oortd(env=SMALL_SEGMENTS)
    filled(daemon)
    victim = segments(daemon.data_dir)[2]
    until(victim.with_suffix(".toc").exists)
    daemon.kill() if killed else daemon.stop()
    SEGMENT[what](victim)
    before = daemon.log()
    daemon.start()
    count = served(daemon)
    assert 0 < count < KEYS
    told = [line for line in daemon.log()[len(before) :].splitlines() if "ERROR" in line]
    without_name = what == "a segment and its table gone"
    assert any(("segment number" if without_name else victim.stem) in line for line in told) or (
        without_name and killed
    ), told
    # Lost keys can be written again, and the next start is an ordinary one.
    filled(daemon)
    daemon.restart()
    assert served(daemon) == KEYS
    assert daemon.client().dbsize() == KEYS
