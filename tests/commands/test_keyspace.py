"""SCAN, KEYS, RANDOMKEY, FLUSH*, MEMORY USAGE; slow commands do not delay other clients."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.conftest import Oortd

StartOortd = Callable[..., Oortd]


def fill(daemon: Oortd, names: list[str], db: int = 0) -> None:
    pipeline = daemon.client(db=db).pipeline(transaction=False)
    for name in names:
        pipeline.set(name, "v")
    pipeline.execute()


@pytest.fixture(autouse=True)
def _empty(shared_oortd: Oortd) -> None:
    shared_oortd.client().flushall()


def test_a_whole_scan_finds_every_key_once(shared_oortd: Oortd) -> None:
    names = [f"key:{i}" for i in range(20_000)]
    fill(shared_oortd, names)
    fill(shared_oortd, ["elsewhere"], db=3)
    client = shared_oortd.client(decode_responses=True)
    for count in (None, 1000, 1_000_000):
        found = list(client.scan_iter(count=count))
        assert sorted(found) == sorted(names)
    assert sorted(client.scan_iter(match="key:1?")) == sorted(f"key:1{i}" for i in range(10))
    assert len(list(client.scan_iter(_type="string", count=5000))) == len(names)
    assert list(client.scan_iter(_type="list", count=5000)) == []
    assert sorted(client.keys()) == sorted(names)
    assert client.keys("key:1999[5-7]") != []


def test_cursors_fit_48_bits_and_scan_survives_churn(shared_oortd: Oortd) -> None:
    """SCAN finds the keys that exist all the time while other keys come and go."""
    stable = {f"stable:{i}" for i in range(5000)}
    fill(shared_oortd, sorted(stable))
    stop = threading.Event()

    def churn() -> None:
        client = shared_oortd.client()
        number = 0
        while not stop.is_set():
            pipeline = client.pipeline(transaction=False)
            for i in range(100):
                pipeline.set(f"churn:{number + i}", "x" * 50)
                pipeline.delete(f"churn:{number + i - 1000}")
            pipeline.execute()
            number += 100

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        client = shared_oortd.client(decode_responses=True)
        for _ in range(3):
            found: set[str] = set()
            cursor = 0
            while True:
                cursor, keys = client.scan(cursor, count=50)
                assert 0 <= cursor < 2**48
                found.update(keys)
                if cursor == 0:
                    break
            assert stable <= found
    finally:
        stop.set()
        thread.join()


def test_randomkey_comes_from_the_selected_database(shared_oortd: Oortd) -> None:
    fill(shared_oortd, ["a", "b", "c"], db=1)
    fill(shared_oortd, ["z"], db=2)
    client = shared_oortd.client(db=1, decode_responses=True)
    seen = {client.randomkey() for _ in range(200)}
    assert seen == {"a", "b", "c"}
    assert shared_oortd.client().randomkey() is None


def test_flushdb_takes_one_database_and_flushall_every(shared_oortd: Oortd) -> None:
    for db in (0, 1, 15):
        fill(shared_oortd, [f"{db}:{i}" for i in range(100)], db=db)
    sizes = lambda: [shared_oortd.client(db=db).dbsize() for db in (0, 1, 15)]  # noqa: E731
    shared_oortd.client(db=1).flushdb()
    assert sizes() == [100, 0, 100]
    assert list(shared_oortd.client(db=1).scan_iter()) == []
    shared_oortd.client().flushall(asynchronous=True)
    assert sizes() == [0, 0, 0]


def test_flush_outlives_a_kill(start_oortd: StartOortd) -> None:
    daemon = start_oortd()
    fill(daemon, ["old"])
    daemon.client().flushall()
    fill(daemon, ["new"])
    daemon.kill()
    daemon.start()
    assert daemon.client().keys() == [b"new"]


def test_memory_usage_grows_with_the_value(shared_oortd: Oortd) -> None:
    client = shared_oortd.client()
    client.set("small", "x" * 10)
    client.set("large", "x" * 100_000)
    small, large = client.memory_usage("small"), client.memory_usage("large")
    assert 10 < small < 500
    assert 100_000 < large < 110_000


def test_a_sleeping_connection_delays_nobody(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as sleeper, shared_oortd.connect() as other:
        identifier = sleeper.call("CLIENT", "ID")[1:-2].decode()
        sleeper.send("DEBUG", "SLEEP", "1000")
        for i in range(100):
            assert other.call("SET", "k", str(i)) == b"+OK\r\n"
            assert other.call("DBSIZE") == b":1\r\n"
            assert other.call("SCAN", "0") == b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"
        with shared_oortd.connect() as late:
            assert late.call("GET", "k") == b"$2\r\n99\r\n"
        sleeper.send("PING")
        sleeper.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            sleeper.socket.recv(1)
        sleeper.socket.settimeout(60)
        assert other.call("CLIENT", "KILL", "ID", identifier) == b":1\r\n"
        assert sleeper.at_end()


def test_a_client_that_leaves_during_a_slow_command_is_forgotten(shared_oortd: Oortd) -> None:
    fill(shared_oortd, [f"key:{i}" for i in range(20_000)])
    for _ in range(10):
        with shared_oortd.connect() as leaving:
            leaving.send("KEYS", "*")
        with shared_oortd.connect() as leaving:
            leaving.send("DEBUG", "SLEEP", "0.01")
    assert shared_oortd.client().dbsize() == 20_000
