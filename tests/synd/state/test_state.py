"""The contract of State, tested on every implementation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oort.errors import RingFormatError, StateConflict, StateError
from oort.synd.state.directory import DirectoryState
from oort.synd.state.etcd import EtcdState
from oort.synd.state.state import Snapshot, State

from .etcd_server import EtcdCluster
from .snapshots import eventually, snapshot

Opener = Callable[..., State]


@pytest.fixture(params=["directory", pytest.param("etcd", marks=pytest.mark.system)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same state repeatedly, one at a time; a second argument names a service."""
    with contextlib.ExitStack() as stack:

        def keep(state: State) -> State:
            stack.callback(state.close)
            eventually(lambda: state.leading, "it leads")
            return state

        if request.param == "directory":
            yield lambda service="one": keep(DirectoryState(tmp_path, service, "here:1"))
        else:
            cluster = stack.enter_context(EtcdCluster(tmp_path, 1)).wait()
            yield lambda service="one": keep(
                EtcdState(cluster.endpoints, service, "here:1", lease_seconds=2)
            )


def test_versions_follow_each_other_and_are_durable(opener: Opener) -> None:
    state = opener()
    assert state.read() == Snapshot(0, b"", b"")
    assert state.leader == "here:1"
    state.write(0, snapshot(7))
    state.write(7, snapshot(8, b"conf"))
    assert state.read() == snapshot(8, b"conf")
    state.close()
    again = opener()
    assert again.read() == snapshot(8, b"conf")
    again.write(8, snapshot(9))
    assert again.read() == snapshot(9)


def test_a_refused_write_changes_nothing(opener: Opener) -> None:
    state = opener()
    state.write(0, snapshot(7))
    for expected in (0, 6, 8):
        with pytest.raises(StateConflict, match="at version 7, not at"):
            state.write(expected, snapshot(9))
    for version in (7, 6):
        with pytest.raises(ValueError, match="not newer"):
            state.write(7, snapshot(version))
    good = snapshot(9)
    for bad in (
        Snapshot(9, good.builder, b"nonsense"),
        Snapshot(9, good.ring, good.ring),
        Snapshot(10, good.builder, good.ring),
        Snapshot(9, good.builder[:-9], good.ring),
    ):
        with pytest.raises(RingFormatError):
            state.write(7, bad)
    assert state.read() == snapshot(7)
    state.close()
    assert opener().read() == snapshot(7)


def test_one_of_many_writers_wins_each_version(opener: Opener) -> None:
    state = opener()
    won: list[int] = []

    def write() -> None:
        for version in range(1, 11):
            while (now := state.read().version) < version:
                try:
                    state.write(now, snapshot(now + 1))
                    won.append(now + 1)
                except StateConflict:
                    assert state.read().version > now

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 11))


def test_facts_are_kept_once_or_replaced(opener: Opener) -> None:
    state = opener()
    names = ["token/a/1", "..", "node software/50%\n", "é" * 30, ".", "a" * 240]
    for name in names:
        assert state.take(name) is None
        assert state.keep(name, name.encode()) == name.encode()
        assert state.keep(name, b"another") == name.encode()
    state.put("version", b"1")
    state.put("version", b"")
    assert state.take("version") == b""
    state.close()
    again = opener()
    for name in names:
        assert again.take(name) == name.encode()
        assert again.keep(name, b"another") == name.encode()
    assert again.take("version") == b""
    for wrong in ("", "a" * 241, "é" * 100):
        with pytest.raises(ValueError, match="name"):
            again.put(wrong, b"")
    with pytest.raises(ValueError, match="at most"):
        again.put("large", bytes((1 << 20) + 1))
    assert again.take("large") is None


def test_services_are_independent(opener: Opener) -> None:
    one, other = opener("one"), opener("on")
    one.write(0, snapshot(5))
    one.keep("name", b"1")
    assert other.read() == Snapshot()
    assert other.take("name") is None
    other.write(0, snapshot(3))
    assert (one.read().version, other.read().version) == (5, 3)
    for service in ("", "..", "a/b", ".hidden", "a" * 65):
        with pytest.raises(StateError, match="name of a service"):
            opener(service)


def test_changes_are_announced_in_order(opener: Opener) -> None:
    state = opener()
    first: list[int] = []
    second: list[int] = []
    leads: list[bool] = []
    state.watch(lambda seen: first.append(seen.version))
    state.on_lead(leads.append)
    eventually(lambda: first == [0] and leads == [True], "the present state is announced")

    def follow(seen: Snapshot) -> None:
        if seen.version < 4:  # a callback may make changes
            state.write(seen.version, snapshot(seen.version + 1))
        second.append(seen.version)

    state.watch(follow)
    eventually(lambda: second[-1:] == [4] and first[-1:] == [4], "every change is announced")
    assert first == [0, 1, 2, 3, 4]
    assert second == [0, 1, 2, 3, 4]
    for version in range(5, 50):
        state.write(version - 1, snapshot(version))
    eventually(lambda: first[-1] == 49, "the newest is announced")
    assert first == sorted(set(first))
    state.close()
    with pytest.raises(StateError, match="closed"):
        state.read()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_callback_is_not_ignored(opener: Opener) -> None:
    state = opener()

    def fail(_: Snapshot) -> None:
        raise RuntimeError("the callback's own fault")

    def refused() -> bool:
        try:
            state.read()
        except StateError as error:
            return "the callback's own fault" in str(error)
        return False

    state.watch(fail)
    eventually(refused, "the state says what has failed")
    with pytest.raises(StateError, match="restart synd"):
        state.write(0, snapshot(1))
