"""The data plane from Python: messages that answer no request, and commands that wait."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oort.dataplane import AUTHENTICATED, DataPlane, PlaneSettings, Reply, Request
from oort.metrics import PLANE
from oort.store import StoreConfig, open_store
from tests.conftest import until

SETTINGS = {
    "query_bytes": 2**30,
    "output_bytes": 2**20,
    "value_cap": 2**29,
    "idle_seconds": 0,
    "no_password": 1,
}
Connect = Callable[[], tuple[int, socket.socket]]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    """A data plane with two running workers."""

    def failed(text: str) -> None:
        raise AssertionError(text)

    with open_store("mapstore", StoreConfig(directory=str(tmp_path))) as store:
        opened = DataPlane(store.handle, 2, PlaneSettings(**SETTINGS))
        try:
            opened.start(failed)
            yield opened
        finally:
            opened.stop()
            opened.close()


@pytest.fixture
def connect(plane: DataPlane) -> Iterator[Connect]:
    """Connect a client: the id of its connection, and its socket."""
    clients: list[socket.socket] = []

    def connected() -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        clients.append(ours)
        return plane.adopt(theirs.detach(), AUTHENTICATED), ours

    yield connected
    for client in clients:
        client.close()


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        assert more, data
        data += more
    return data


def is_silent(client: socket.socket) -> bool:
    return not select.select([client], [], [], 0)[0]


def next_request(plane: DataPlane) -> Request:
    while True:
        assert select.select([plane.request_fd()], [], [], 60)[0]
        if request := plane.next_request():
            return request
        list(plane.closed())


def test_a_message_reaches_clients_of_every_worker(plane: DataPlane, connect: Connect) -> None:
    clients = [connect() for _ in range(10)]
    data = b">2\r\n$4\r\nnews\r\n$5000\r\n" + b"n" * 5000 + b"\r\n"
    gone, client = clients[0]
    client.close()
    until(lambda: gone not in plane.connections())
    assert plane.send([identifier for identifier, _ in clients] + [10**9], data) == 9
    for _, client in clients[1:]:
        assert receive(client, len(data)) == data
        client.sendall(b"PING\r\n")
        assert receive(client, 7) == b"+PONG\r\n"
    assert plane.send([], data) == 0
    until(lambda: plane.stats()[PLANE["message_bytes"]] == 0)


def test_a_message_that_cannot_be_sent_is_released(plane: DataPlane) -> None:
    with pytest.raises(OverflowError):
        plane.send([-1], b"+news\r\n")
    assert plane.stats()[PLANE["message_bytes"]] == 0


def test_a_client_that_does_not_read_is_dropped(plane: DataPlane, connect: Connect) -> None:
    slow, _ = connect()
    fast, client = connect()
    data = b"+" + b"m" * 100_000 + b"\r\n"
    for _ in range(30):
        plane.send([slow, fast], data)
        assert receive(client, len(data)) == data
    until(lambda: slow not in plane.connections())
    assert plane.stats()[PLANE["dropped_slow_clients"]] == 1
    until(lambda: plane.stats()[PLANE["message_bytes"]] == 0)


def test_a_message_follows_the_reply_that_is_under_way(plane: DataPlane, connect: Connect) -> None:
    identifier, client = connect()
    client.sendall(b"DBSIZE\r\nECHO after\r\n")
    assert next_request(plane).connection == identifier
    assert plane.send([identifier], b"+message\r\n") == 1
    plane.reply(identifier, Reply(b":1\r\n"))
    expected = b":1\r\n+message\r\n$5\r\nafter\r\n"
    assert receive(client, len(expected)) == expected


def test_a_command_waits_until_it_is_woken_or_its_time_passes(
    plane: DataPlane, connect: Connect
) -> None:
    identifier, client = connect()
    client.sendall(b"DBSIZE\r\nSELECT 3\r\nDBSIZE\r\n")
    next_request(plane)
    wait = plane.reply_later(identifier, Reply(b"*-1\r\n"), None)
    plane.send([identifier], b"+message\r\n")
    assert receive(client, 10) == b"+message\r\n"
    assert is_silent(client)
    assert not plane.wake(identifier, wait + 1, Reply(b":0\r\n"))
    assert plane.wake(identifier, wait, Reply(b":1\r\n"))
    assert not plane.wake(identifier, wait, Reply(b":2\r\n"))
    assert receive(client, 4) == b":1\r\n"
    next_request(plane)
    wait = plane.reply_later(identifier, Reply(b"+OK\r\n", database=3), 0.01)
    assert receive(client, 5) == b"+OK\r\n"
    assert not plane.wake(identifier, wait, Reply(b":2\r\n"))
    assert next_request(plane).database == 3
    # The end of the connection is reported although nothing has ended the wait.
    wait = plane.reply_later(identifier, Reply(b"*-1\r\n"), None)
    assert plane.kill(identifier)
    assert client.recv(1) == b""
    until(lambda: identifier in list(plane.closed()))
    assert not plane.wake(identifier, wait, Reply(b":2\r\n"))


def test_settings_are_complete_and_change_together(plane: DataPlane, connect: Connect) -> None:
    with pytest.raises(TypeError, match="oort_plane_settings: value_cap"):
        PlaneSettings(**{name: 1 for name in SETTINGS if name != "value_cap"})
    with pytest.raises(TypeError, match="oort_plane_settings: colour"):
        PlaneSettings(**SETTINGS, colour=1)
    _, client = connect()
    client.sendall(b"PING\r\n")
    assert receive(client, 7) == b"+PONG\r\n"
    plane.configure(PlaneSettings(**{**SETTINGS, "value_cap": 5}))
    error = b"-ERR Protocol error: invalid bulk length\r\n"

    def is_refused() -> bool:
        """The worker may begin its next round after this request."""
        _, client = connect()
        client.sendall(b"*2\r\n$4\r\nECHO\r\n$6\r\n123456\r\n")
        return receive(client, 1) == error[:1]

    until(is_refused)
