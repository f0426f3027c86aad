"""oortd while no syndicate answers: the cached configuration, and when it is valid."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path

from oort.membership import cache
from oort.membership.configuration import RingConfiguration, of_ring
from oort.membership.membership import Membership
from oort.ring import files
from oort.ring.builder import Builder
from tests.conftest import until
from tests.membership.syndicate import RingNode, Synd

HOURS = 3600


def test_boots_from_a_fresh_cache_and_keeps_trying(synd: Synd, node: RingNode) -> None:
    """The path of the cache is a symbolic link, as in an installation."""
    target = node.directory / "inside" / "file.cache"
    target.parent.mkdir()
    node.cache.symlink_to("inside/file.cache")
    synd.set_config("MaxClients = 123\n")
    node.start()
    before = node.ring_facts()
    node.stop()
    assert node.cache.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    synd.kill()
    node.start()
    assert re.search(r"no syndicate answers: .*; starting with the config.* cached", node.log())
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == f"cache {node.cache}"
    for same in ("oort_ring_local_id", "oort_ring_version", "oort_ring_nodes"):
        assert facts[same] == before[same]
    assert node.client().config_get("maxclients") == {"maxclients": "123"}
    synd.start()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 1)
    assert node.ring_facts()["oort_ring_source"] == f"syndicate {synd.server}"


def damaged(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def stale(path: Path) -> None:
    old = time.time() - 49 * HOURS
    os.utime(path, (old, old))


def said_to_be_stale(path: Path) -> None:
    """A copy has a new file time, so the time in the file matters too."""
    content = json.loads(path.read_text())
    content["written"] -= 49 * HOURS
    path.write_text(json.dumps(content))


def for_all_to_write(path: Path) -> None:
    path.chmod(0o666)


def missing(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED = (
    (damaged, "is damaged"),
    (stale, "is 49 hours old and valid for only 48 hours"),
    (said_to_be_stale, "is 49 hours old"),
    (for_all_to_write, "is refused: users other than uid"),
    (missing, "there is no cached configuration"),
    (a_directory, "cannot be read"),
)


def test_caches_that_do_not_count(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    good = node.cache.read_bytes()
    for spoil, text in SPOILED:
        node.cache.unlink(missing_ok=True)
        node.cache.touch(0o600)
        node.cache.write_bytes(good)
        spoil(node.cache)
        code, line = node.cannot_start()
        assert code == 1
        assert "no syndicate answers" in line
        assert f"{node.cache} {text}" in line or f"{text} {node.cache}" in line
        assert "--standalone" in line


def test_a_cache_of_47_hours_counts(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    old = time.time() - 47 * HOURS
    os.utime(node.cache, (old, old))
    node.start()
    assert "cached 47 h ago" in node.log()


class Silent:
    """A follower without news."""

    def start(self, membership: Membership) -> None:
        pass

    def close(self) -> None:
        pass


class StoppedClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return time.time()


def test_a_cache_is_written_again_every_hour_in_touch(tmp_path: Path) -> None:
    """Otherwise, after two days without a new ring, the node could not start on its own."""
    path = tmp_path / "a.cache"
    builder = Builder(replicas=1)
    builder.add(node_id=7, capacity=1)
    builder.rebalance(time.time_ns())
    ring = builder.ring()
    data = files.encode(ring)
    clock = StoppedClock()
    membership = Membership(
        "test", 7, of_ring(ring, 7, RingConfiguration()),
        ring_data=data, version=ring.version, follower=Silent(), clock=clock,
    )  # fmt: skip
    membership.attach(str(tmp_path / "data"), str(path), lambda configuration, cause: None)
    membership.begin()

    def written_again_after(seconds: float) -> bool:
        old = time.time() - 47 * HOURS
        os.utime(path, (old, old))
        begun = clock.now
        clock.now += seconds
        membership.in_touch()
        clock.now = begun
        return cache.read(str(path), time.time()).age < HOURS

    assert not written_again_after(HOURS / 2)
    assert written_again_after(HOURS + 1)
    assert cache.read(str(path), time.time()).local_id == 7


def test_without_its_ring_file_it_boots_all_the_same(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    (ring,) = node.data_dir.glob("*-oort.ring")
    ring.write_bytes(b"garbage")
    node.start()
    assert node.ring_facts()["oort_ring_version"] == 0
    assert str(ring) in node.log()
    synd.start()
    until(lambda: node.ring_facts()["oort_ring_nodes"] == 1)


def test_a_cache_that_cannot_be_written_is_said(node: RingNode) -> None:
    node.env["OORT_CONFIG_CACHE"] = "/proc/nowhere"
    node.start()
    until(lambda: "cannot write the cached configuration /proc/nowhere" in node.log())
    assert node.client().ping()
