"""Invalid input: its connection gets Redis's error and is closed; other clients see no effect."""

from __future__ import annotations

import random
import re
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import Oortd, RawClient, until

StartOortd = Callable[..., Oortd]

MIB = 1024 * 1024
HEAD = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n"

# Bytes, and the error for them.
PROTOCOL_ERRORS = [
    (b"*abc\r\n", b"invalid multibulk length"),
    (b"*\r\n", b"invalid multibulk length"),
    (b"*1x\r\n", b"invalid multibulk length"),
    (b"* 1\r\n", b"invalid multibulk length"),
    (b"*2147483648\r\n", b"invalid multibulk length"),
    (b"*99999999999999999999999\r\n", b"invalid multibulk length"),
    (b"*" + b"1" * 70_000, b"too big mbulk count string"),
    (b"*1\r\nPING\r\n", b"expected '$', got 'P'"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"expected '$', got '*'"),
    (b"*1\r\n:4\r\n", b"expected '$', got ':'"),
    (b"*1\r\n\r\n", b"expected '$', got '\r'"),
    (b"*1\r\n$-1\r\n", b"invalid bulk length"),
    (b"*1\r\n$\r\n", b"invalid bulk length"),
    (b"*1\r\n$four\r\n", b"invalid bulk length"),
    (b"*1\r\n$4 \r\n", b"invalid bulk length"),
    (b"*1\r\n$+4\r\nPING\r\n", b"invalid bulk length"),
    (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
    (b"*1\r\n$18446744073709551615\r\n", b"invalid bulk length"),
    (b"*1\r\n$" + b"1" * 70_000, b"too big bulk count string"),
    (HEAD + b"$-5\r\nhello\r\n", b"invalid bulk length"),
    (HEAD + b"$1000000000\r\n", b"invalid bulk length"),
    (b'SET k "unbalanced\r\n', b"unbalanced quotes in request"),
    (b"SET k 'unbalanced\r\n", b"unbalanced quotes in request"),
    (b'SET k "glued"x\r\n', b"unbalanced quotes in request"),
    (b"x" * 70_000, b"too big inline request"),
]


def as_error(text: bytes) -> bytes:
    return b"-ERR Protocol error: " + text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n"


def anonymous_memory(pid: int) -> int:
    """Private memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def connections(raw: RawClient) -> int:
    """The number of connections, this one included."""
    return raw.call("CLIENT", "LIST").count(b" addr=")


@pytest.fixture(scope="module", params=["0", "1", "2"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Oortd]:
    """An oortd for all tests of this file, with this number of workers."""
    daemon = Oortd(tmp_path_factory.mktemp("oortd"), "--workers", request.param)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture
def bystander(daemon: Oortd) -> Iterator[RawClient]:
    """A connection that is open before and after each test."""
    with daemon.connect() as raw:
        raw.call("FLUSHALL")
        assert raw.call("SET", "bystander", "here") == b"+OK\r\n"
        yield raw
        assert raw.call("GET", "bystander") == b"$4\r\nhere\r\n"
    with daemon.connect() as raw:
        assert raw.call("PING") == b"+PONG\r\n"


def test_protocol_errors_end_their_connection_only(daemon: Oortd, bystander: RawClient) -> None:
    before = daemon.client().info("stats")["oort_protocol_errors"]
    for data, text in PROTOCOL_ERRORS:
        with daemon.connect() as raw:
            # Earlier requests get their replies; later requests are not executed.
            raw.socket.sendall(b"PING\r\n" + data)
            assert raw.reply() == b"+PONG\r\n"
            assert raw.reply() == as_error(text), data[:40]
            assert raw.at_end(), data[:40]
    with daemon.connect() as raw:
        raw.socket.sendall(b"*x\r\nSET after error\r\n")
        assert raw.reply() == as_error(b"invalid multibulk length")
        assert raw.at_end()
    assert bystander.call("EXISTS", "after", "k") == b":0\r\n"
    after = daemon.client().info("stats")["oort_protocol_errors"]
    assert after - before == len(PROTOCOL_ERRORS) + 1


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET after http\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\nSET after http\r\n",
        b"*2\r\n$4\r\npost\r\n$1\r\n/\r\nSET after http\r\n",
    ],
)
def test_a_browser_gets_no_further(daemon: Oortd, bystander: RawClient, request_: bytes) -> None:
    """As in Redis, a request that a web page makes a browser send must not run commands."""
    before = daemon.client().info("stats")["oort_protocol_errors"]
    with daemon.connect() as raw:
        raw.socket.sendall(request_)
        assert raw.at_end()
    assert bystander.call("EXISTS", "after") == b":0\r\n"
    assert daemon.client().info("stats")["oort_protocol_errors"] == before + 1


def test_what_is_odd_and_no_error(bystander: RawClient, daemon: Oortd) -> None:
    with daemon.connect() as raw:
        for ignored in (b"\r\n", b"\n", b"   \r\n", b"*0\r\n", b"*-1\r\n", b"*-2147483648\r\n"):
            raw.socket.sendall(ignored)
            assert raw.call("PING") == b"+PONG\r\n"
        raw.socket.sendall(b"SET  \"a\\x00b\"   'c d' \n")
        assert raw.reply() == b"+OK\r\n"
        assert raw.call("GET", b"a\x00b") == b"$3\r\nc d\r\n"
        raw.socket.sendall(b"*1\r\n$0\r\n\r\n")
        assert raw.reply().startswith(b"-ERR unknown command ''")
        assert raw.call("GET").startswith(b"-ERR wrong number of arguments for 'get' command")
        assert raw.call(b"\x00\xff").startswith(b"-ERR unknown command")
        assert raw.call("GET", "a", "b", "c").startswith(b"-ERR wrong number of arguments")
        assert raw.call(*["x" * 3000] * 100).startswith(b"-ERR unknown command 'xxx")
        assert raw.call("EXISTS", *["bystander"] * 200_000) == b":200000\r\n"
        assert raw.call("PING") == b"+PONG\r\n"


def mutated(draw: random.Random) -> bytes:
    """A few valid requests with bytes changed, removed, doubled and inserted."""
    requests = [
        b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$10\r\n0123456789\r\n",
        b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
        b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
        b"*2\r\n$6\r\nCLIENT\r\n$7\r\nGETNAME\r\n",
        b"INCR n\r\n",
        b"SET 'quoted key' \"\\x00\\n\"\r\n",
        b"*1\r\n$6\r\nDBSIZE\r\n",
    ]
    data = bytearray(b"".join(draw.choices(requests, k=draw.randrange(1, 6))))
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(data))
        change = draw.randrange(4)
        if change == 0:
            data[place] = draw.randrange(256)
        elif change == 1:
            del data[place : place + draw.randrange(1, 5)]
        elif change == 2:
            data[place:place] = draw.choice((b"\r\n", b"$-1\r\n", b"*9\r\n", b"\x00", b"99999"))
        else:
            data[place:place] = data[draw.randrange(len(data)) :]
        data = data or bytearray(b"*")
    return bytes(data)


def everything(address: tuple[str, int], data: bytes) -> bytes:
    """The server's complete output for these bytes."""
    received = b""
    with socket.create_connection(address, 60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            received += more
    return received


def test_mutated_requests(daemon: Oortd, bystander: RawClient) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(300):
        everything(daemon.address, mutated(draw))
    assert bystander.call("PING") == b"+PONG\r\n"


@pytest.mark.system
def test_bad_input_gets_the_bytes_that_redis_sends(
    oortd: Oortd, redis_server: tuple[str, int]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    streams = [b"PING\r\n" + data for data, _ in PROTOCOL_ERRORS]
    # One more byte turns SET into LSET, which exists in Redis.
    elsewhere = set(redis.Redis(*redis_server).command_list()) - set(oortd.client().command_list())
    streams += [
        data
        for data in (mutated(draw) for _ in range(5000))
        if elsewhere.isdisjoint(re.findall(rb"\w+", data.lower()))
    ]
    for data in streams:
        due, got = (
            everything(address, b"FLUSHALL\r\n" + data) for address in (redis_server, oortd.address)
        )
        assert got == due, data


@pytest.mark.memory
def test_what_is_announced_and_never_sent_costs_nothing(
    daemon: Oortd, bystander: RawClient
) -> None:
    before = anonymous_memory(daemon.pid)
    clients = [daemon.connect() for _ in range(60)]
    others = connections(bystander) - 60
    for number, raw in enumerate(clients):
        data = (
            HEAD + b"$536870912\r\nand no more",
            b"*2147483647\r\n",
            b"*1048576\r\n$3\r\nDEL\r\n$1\r\na\r\n",
        )[number % 3]
        raw.socket.sendall(data)
    # When each connection is listed with waiting or parsed bytes, everything has been read.
    until(lambda: bystander.call("CLIENT", "LIST").count(b" qbuf=0 ") <= others + 20)
    assert anonymous_memory(daemon.pid) - before < 30 * MIB
    for raw in clients:
        raw.close()
    until(lambda: connections(bystander) == others)
    assert bystander.call("EXISTS", "k") == b":0\r\n"


def test_a_byte_at_a_time(daemon: Oortd, bystander: RawClient) -> None:
    request = b'*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$5\r\nv\r\nal\r\nGET "slow"\r\nDBSIZE\r\n'
    clients = [daemon.connect() for _ in range(5)]
    for raw in clients:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(len(request)):
        for raw in clients:
            raw.socket.sendall(request[position : position + 1])
        assert bystander.call("PING") == b"+PONG\r\n"
    for raw in clients:
        assert [raw.reply(), raw.reply(), raw.reply()] == [
            b"+OK\r\n",
            b"$5\r\nv\r\nal\r\n",
            b":2\r\n",
        ]


def test_half_closed_connections_get_every_reply(daemon: Oortd, bystander: RawClient) -> None:
    with daemon.connect() as raw:
        requests = b"".join(
            b"INCR n\r\nECHO %d\r\n" % number + b"DBSIZE\r\n" * (number % 100 == 0)
            for number in range(2000)
        )
        raw.socket.sendall(requests + b"*1\r\n$4\r\nPI")
        raw.socket.shutdown(socket.SHUT_WR)
        for number in range(2000):
            assert raw.reply() == b":%d\r\n" % (number + 1)
            assert raw.reply() == b"$%d\r\n%d\r\n" % (len(str(number)), number)
            if number % 100 == 0:
                assert raw.reply() == b":2\r\n"
        assert raw.at_end()
    with daemon.connect() as raw:
        raw.call("SET", "large", b"x" * 20 * MIB)
        raw.send("GET", "large")
        raw.socket.shutdown(socket.SHUT_WR)
        assert len(raw.reply()) == 20 * MIB + len(b"$20971520\r\n\r\n")
        assert raw.at_end()


def test_connections_that_vanish(daemon: Oortd, bystander: RawClient) -> None:
    """Connections reset within a request, within a reply, and during a command of the main loop."""
    bystander.call("SET", "large", b"x" * 8 * MIB)
    others = connections(bystander)
    for number in range(60):
        with daemon.connect() as raw:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.socket.sendall(
                (
                    HEAD + b"$100000\r\nbeginning",
                    b"GET large\r\n" * 20,
                    b"KEYS *\r\nDEBUG SLEEP 0.01\r\nSET late 1\r\n",
                )[number % 3]
            )
    until(lambda: connections(bystander) == others)
    assert bystander.call("EXISTS", "k") == b":0\r\n"


@pytest.mark.memory
def test_clients_that_never_read_hold_no_memory(daemon: Oortd, bystander: RawClient) -> None:
    """A large value for a waiting client stays in the store and is not copied."""
    bystander.call("SET", "large", b"x" * 4 * MIB)
    others = connections(bystander)
    before = anonymous_memory(daemon.pid)
    clients = [daemon.connect() for _ in range(20)]
    for raw in clients:
        raw.socket.sendall(b"GET large\r\n" * 30)
    until(lambda: bystander.call("CLIENT", "LIST").count(b"cmd=get ") == 20)
    assert bystander.call("STRLEN", "large") == b":%d\r\n" % (4 * MIB)
    assert anonymous_memory(daemon.pid) - before < 200 * MIB
    # The values are overwritten meanwhile.  Clients get the values at the time of their requests.
    bystander.call("SET", "large", b"y" * 4 * MIB)
    assert clients[0].reply() == b"$4194304\r\n" + b"x" * 4 * MIB + b"\r\n"
    for raw in clients:
        raw.close()
    until(lambda: connections(bystander) == others)


@pytest.mark.memory
def test_thousands_of_idle_connections(start_oortd: StartOortd) -> None:
    count = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle: list[socket.socket] = []
    try:
        daemon = start_oortd("--workers", "2")
        with daemon.connect() as raw:
            before = anonymous_memory(daemon.pid)
            idle.extend(socket.create_connection(daemon.address, 60) for _ in range(count))
            for one in idle:
                one.sendall(b"PING\r\n")
            for one in idle:
                assert one.recv(100) == b"+PONG\r\n"
            assert b"connected_clients:%d\r\n" % (count + 1) in raw.call("INFO", "clients")
            assert anonymous_memory(daemon.pid) - before < count * 16 * 1024
            assert raw.call("SET", "a", "b") == b"+OK\r\n"
            for one in idle:
                one.close()
            until(lambda: b"connected_clients:1\r\n" in raw.call("INFO", "clients"))
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
