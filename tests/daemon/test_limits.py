"""Limits: clients, protected mode, idle time, buffers, value size; and CONFIG SET of each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import redis

from tests.conftest import Oortd, until

StartOortd = Callable[..., Oortd]

FULL = b"-ERR max number of clients reached\r\n"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_max_clients(start_oortd: StartOortd, workers: str) -> None:
    daemon = start_oortd("--max-clients", "3", "--workers", workers)
    inside = [daemon.connect() for _ in range(3)]
    for raw in inside:
        assert raw.call("PING") == b"+PONG\r\n"
    with daemon.connect() as refused:
        assert refused.reply() == FULL
        assert refused.at_end()
    inside[0].call("CONFIG", "SET", "maxclients", "4")
    with daemon.connect() as raw:
        assert raw.call("PING") == b"+PONG\r\n"
    for raw in inside[1:]:
        raw.socket.close()
    # New clients are accepted as soon as the server has noticed the ends of the old connections.
    until(lambda: b"connected_clients:1\r\n" in inside[0].call("INFO", "clients"))
    assert b"rejected_connections:1\r\n" in inside[0].call("INFO", "stats")
    with daemon.connect() as raw:
        assert raw.call("PING") == b"+PONG\r\n"


def check_protected_mode(daemon: Oortd, connect: Callable[[], bytes]) -> None:
    """connect: returns the reply to a PING from an address that is not loopback."""
    assert connect().startswith(b"-DENIED Redis is running in protected mode")
    admin = daemon.client()
    admin.config_set("requirepass", "pw")
    assert connect() == b"-NOAUTH Authentication required.\r\n"
    admin.config_set("requirepass", "")
    assert connect().startswith(b"-DENIED ")
    admin.config_set("protected-mode", "no")
    assert connect() == b"+PONG\r\n"


@pytest.mark.system
def test_protected_mode_from_another_network(start_oortd: StartOortd) -> None:
    """The client is in another network namespace."""
    name = f"oort{os.getpid()}"
    script = (
        "import socket, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)\n"
        "try: s.sendall(b'PING\\r\\n')\n"
        "except OSError: pass\n"
        "sys.stdout.buffer.write(s.makefile('rb').readline())\n"
    )

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", "inner", "netns", name)
        ip("address", "add", "198.51.100.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "address", "add", "198.51.100.2/30", "dev", "inner")
        ip("-n", name, "link", "set", "inner", "up")
        daemon = start_oortd("--listen", "0.0.0.0:0")
        inside = ["ip", "netns", "exec", name, sys.executable, "-c", script]
        command = [*inside, "198.51.100.1", str(daemon.port)]
        check_protected_mode(
            daemon, lambda: subprocess.run(command, capture_output=True, check=True).stdout
        )
    finally:
        ip("netns", "delete", name)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_idle_connections_are_closed_and_busy_ones_kept(
    start_oortd: StartOortd, workers: str
) -> None:
    daemon = start_oortd("--workers", workers)
    with daemon.connect() as idle, daemon.connect() as busy:
        assert idle.call("PING") == b"+PONG\r\n"
        assert busy.call("CONFIG", "SET", "timeout", "1") == b"+OK\r\n"
        idle.socket.setblocking(False)

        def gone() -> bool:
            assert busy.call("PING") == b"+PONG\r\n"
            try:
                return idle.socket.recv(1) == b""
            except BlockingIOError:
                return False

        until(gone)
        assert b"oort_dropped_idle_clients:1\r\n" in busy.call("INFO", "stats")


def test_a_client_that_does_not_read_is_dropped(start_oortd: StartOortd) -> None:
    daemon = start_oortd()
    admin = daemon.client()
    admin.config_set("client-output-buffer-limit", "normal 1mb 0 0")
    admin.set("big", b"x" * 500_000)
    with daemon.connect() as slow:
        try:
            for _ in range(200):
                slow.send("GET", "big")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was dropped before it had sent everything
        until(lambda: admin.info("stats")["oort_dropped_slow_clients"] == 1)
    assert admin.get("big") == b"x" * 500_000


def test_a_request_beyond_the_query_buffer_ends_its_connection(start_oortd: StartOortd) -> None:
    daemon = start_oortd(env={"OORT_QUERY_BUFFER_LIMIT": "1mb"})
    with daemon.connect() as raw, daemon.connect() as other:
        raw.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8000000\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                raw.socket.sendall(b"x" * 100_000)
        assert raw.at_end()
        assert other.call("EXISTS", "a") == b":0\r\n"


def test_value_cap(start_oortd: StartOortd) -> None:
    daemon = start_oortd(env={"OORT_VALUE_CAP": "1 MiB"})
    client = daemon.client()
    assert client.set("fits", b"x" * 1024 * 1024)
    with daemon.connect() as raw:
        raw.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048577\r\n")
        assert raw.reply() == b"-ERR Protocol error: invalid bulk length\r\n"
        assert raw.at_end()
    client.config_set("proto-max-bulk-len", "2mb")
    assert client.set("more", b"x" * 2 * 1024 * 1024)


def test_config_set_is_all_or_nothing(oortd: Oortd) -> None:
    client = oortd.client(decode_responses=True)
    with pytest.raises(redis.ResponseError, match="maxclients"):
        client.execute_command("CONFIG", "SET", "timeout", "77", "maxclients", "none")
    assert client.config_get("timeout") == {"timeout": "0"}
    client.execute_command("CONFIG", "SET", "timeout", "77", "appendfsync", "always")
    assert client.config_get("timeout", "appendfsync") == {"timeout": "77", "appendfsync": "always"}
    assert client.set("a", "b")
    client.config_set("maxclients", "20")
    assert client.info("clients")["maxclients"] == 20


def test_what_a_client_insists_on_and_is_so_is_accepted(oortd: Oortd) -> None:
    client = oortd.client(decode_responses=True)
    assert client.config_set("appendonly", "yes")
    assert client.config_set("save", "")
    assert client.config_get("save", "appendonly") == {"save": "", "appendonly": "yes"}
    with pytest.raises(redis.ResponseError, match="log"):
        client.config_set("appendonly", "no")


def test_info_counts(oortd: Oortd) -> None:
    client = oortd.client()
    client.set("a", "b")
    client.get("a")
    client.get("none")
    client.client_id()
    with pytest.raises(redis.ResponseError):
        client.execute_command("CLIENT", "LIST", "TYPE", "nonsense")
    info = client.info("everything")
    assert (info["keyspace_hits"], info["keyspace_misses"]) == (1, 1)
    assert info["cmdstat_get"]["calls"] == 2
    assert info["cmdstat_client|id"]["calls"] == 1
    listed = info["cmdstat_client|list"]
    assert (listed["calls"], listed["rejected_calls"], listed["failed_calls"]) == (1, 0, 1)
    assert info["oort_log_bytes"] > 0
    assert info["process_id"] == oortd.pid
    assert info["tcp_port"] == oortd.port
    client.config_resetstat()
    info = client.info("everything")
    assert (info["keyspace_hits"], info["keyspace_misses"]) == (0, 0)
    assert "cmdstat_client|id" not in info


def test_saving_is_truthful(oortd: Oortd) -> None:
    client = oortd.client()
    client.config_set("appendfsync", "no")
    client.set("a", "b")
    before = client.info("persistence")["oort_syncs"]
    assert client.save()
    info = client.info("persistence")
    assert info["oort_unsynced_bytes"] == 0
    assert info["oort_syncs"] > before
    client.set("a", "c")
    assert client.bgsave()
    until(lambda: client.info("persistence")["oort_unsynced_bytes"] == 0)
