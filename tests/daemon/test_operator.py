"""The operator's view: INFO in the format of Redis's parsers, and SIGHUP."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from oort.metrics import ALL
from tests.conftest import Oortd, until

StartOortd = Callable[..., Oortd]


def section(daemon: Oortd, name: str) -> dict[str, str]:
    """The fields of a section as texts, which redis-py would parse."""
    with daemon.connect() as raw:
        lines = raw.call("INFO", name).decode().split("\r\n")[2:]
    return dict(line.partition(":")[::2] for line in lines if line)


def test_keyspace_and_commandstats_as_exporters_parse_them(shared_oortd: Oortd) -> None:
    client = shared_oortd.client()
    client.flushall()
    client.config_resetstat()
    client.mset({"a": "1", "b": "2"})
    shared_oortd.client(db=9).set("c", "3")
    list(client.scan_iter())
    with pytest.raises(redis.ResponseError):
        client.incr("a", "x")  # type: ignore[arg-type]
    with pytest.raises(redis.ResponseError):
        client.execute_command("GET")
    assert section(shared_oortd, "keyspace") == {
        "db0": "keys=2,expires=0,avg_ttl=0",
        "db9": "keys=1,expires=0,avg_ttl=0",
    }
    stats = section(shared_oortd, "commandstats")
    shape = re.compile(
        r"calls=(\d+),usec=(\d+),usec_per_call=(\d+\.\d\d),rejected_calls=(\d+),failed_calls=(\d+)"
    )
    found = {name: shape.fullmatch(value) for name, value in stats.items()}
    assert all(found.values()), stats
    assert stats["cmdstat_get"] == (
        "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0"
    )
    assert stats["cmdstat_incrby"].endswith("rejected_calls=0,failed_calls=1")
    scanned, informed = found["cmdstat_scan"], found["cmdstat_info"]
    assert scanned is not None
    assert int(scanned[2]) > 0  # commands of the helper thread are timed
    assert informed is not None
    assert int(informed[2]) > 0  # and commands of the main loop
    client.config_resetstat()
    assert "cmdstat_scan" not in section(shared_oortd, "commandstats")


def test_every_metric_is_a_field_of_its_section(shared_oortd: Oortd) -> None:
    for name in {metric.section for metric in ALL}:
        shown = {metric.field for metric in ALL if metric.shown and metric.section == name}
        fields = section(shared_oortd, name)
        assert shown <= set(fields)
        assert "" not in fields


def test_latencystats_in_redis_shape(shared_oortd: Oortd) -> None:
    client = shared_oortd.client()
    client.config_resetstat()
    for _ in range(1000):
        client.set("a", "b")
    list(client.scan_iter())
    client.client_id()
    stats = section(shared_oortd, "latencystats")
    shape = re.compile(r"p50=(\d+\.\d{3}),p99=(\d+\.\d{3}),p99\.9=(\d+\.\d{3})")
    prefix = "latency_percentiles_usec_"
    assert {"set", "scan", "client|id", "config|resetstat"} <= {
        name.removeprefix(prefix) for name in stats
    }
    assert f"{prefix}get" not in stats
    for text in stats.values():
        found = shape.fullmatch(text)
        assert found, stats
        assert 0 < float(found[1]) <= float(found[2]) <= float(found[3])
    assert not any(name.startswith(prefix) for name in client.info())
    assert any(name.startswith(prefix) for name in client.info("everything"))
    client.config_resetstat()
    assert set(section(shared_oortd, "latencystats")) == {f"{prefix}config|resetstat"}


def test_syncs_are_timed(start_oortd: StartOortd) -> None:
    daemon = start_oortd("--fsync", "always")
    client = daemon.client()
    for _ in range(50):
        client.incr("a")
    info = client.info("persistence")
    times = info["oort_fsync_usec"]
    assert times["count"] >= info["oort_syncs"] >= 50
    assert 0 < times["p50"] <= times["p99"] <= times["p99.9"] <= times["max"] <= times["sum"]
    assert info["oort_compaction_usec"]["count"] == 0
    client.config_resetstat()
    info = client.info("persistence")
    assert info["oort_fsync_usec"]["count"] == 0
    assert info["oort_syncs"] >= 50  # RESETSTAT does not reset this total


def test_resetstat_starts_the_counters_again(start_oortd: StartOortd) -> None:
    client = start_oortd().client()
    client.set("a", "b", px=1)
    until(lambda: client.get("a") is None)
    stats = client.info("stats")
    assert stats["expired_keys"] == 1
    assert stats["total_connections_received"] >= 1
    assert stats["keyspace_misses"] >= 1
    client.config_resetstat()
    stats = client.info("stats")
    assert stats["expired_keys"] == stats["total_connections_received"] == 0
    assert stats["keyspace_misses"] == stats["keyspace_hits"] == 0
    assert stats["total_commands_processed"] <= 2  # the two commands above


def test_errors_are_counted_by_their_code(start_oortd: StartOortd) -> None:
    daemon = start_oortd()
    with daemon.connect() as raw:
        for words in (["GET"], ["NOSUCH"], ["INCRBY", "a", "x"], ["CLIENT", "FOO"], ["HELLO", "9"]):
            assert raw.call(*words)[:1] == b"-"
        raw.call("CONFIG", "SET", "requirepass", "secret")
        with daemon.connect() as stranger:
            assert stranger.call("GET", "a").startswith(b"-NOAUTH")
            assert stranger.call("AUTH", "wrong").startswith(b"-WRONGPASS")
            stranger.socket.sendall(b"*x\r\n")
            assert stranger.reply().startswith(b"-ERR Protocol error")
        raw.call("CONFIG", "SET", "requirepass", "")
    counts = {
        name.removeprefix("errorstat_"): value["count"]
        for name, value in daemon.client().info("errorstats").items()
    }
    assert counts == {"ERR": 5, "NOPROTO": 1, "NOAUTH": 1, "WRONGPASS": 1}
    assert daemon.client().info("stats")["total_error_replies"] == 8
    daemon.client().config_resetstat()
    assert daemon.client().info("errorstats") == {}


def test_who_leaves_before_the_answer_is_no_error(shared_oortd: Oortd) -> None:
    for _ in range(50):
        raw = shared_oortd.connect()
        raw.send("CLIENT", "INFO")
        raw.send("CLIENT", "LIST")
        raw.close()
    assert shared_oortd.client().ping()
    until(lambda: len(shared_oortd.client().client_list()) < 10)
    assert "failed" not in shared_oortd.log()


def test_a_cursor_of_any_length_is_an_error_not_a_failure(shared_oortd: Oortd) -> None:
    with shared_oortd.connect() as raw:
        assert raw.call("SCAN", "9" * 5000) == b"-ERR invalid cursor\r\n"
        assert raw.call("SCAN", str(2**64)) == b"-ERR invalid cursor\r\n"
        assert raw.call("SCAN", str(2**64 - 1)) == b"*2\r\n$1\r\n0\r\n*0\r\n"
        assert raw.call("SCAN", "0" * 5000).startswith(b"*2\r\n")


def test_flush_is_synced_before_its_reply_under_always(start_oortd: StartOortd) -> None:
    daemon = start_oortd("--fsync", "always")
    client = daemon.client()
    client.set("a", "b")
    before = int(section(daemon, "persistence")["oort_syncs"])
    client.flushall()
    after = section(daemon, "persistence")
    assert int(after["oort_syncs"]) > before
    assert after["oort_unsynced_bytes"] == "0"


def hang_up(daemon: Oortd, wanted: str) -> None:
    """Send SIGHUP and wait for a new line of the log with this text."""
    offset = len(daemon.log())
    os.kill(daemon.pid, signal.SIGHUP)
    until(lambda: wanted in daemon.log()[offset:])


def test_sighup_reads_the_configuration_again(start_oortd: StartOortd, tmp_path: Path) -> None:
    path = tmp_path / "oortd.conf"
    path.write_text("MaxClients = 100\nIdleTimeout = 50\n")
    daemon = start_oortd("--config", str(path), env={"OORT_IDLE_TIMEOUT": "70"})
    client = daemon.client(decode_responses=True)
    hang_up(daemon, "nothing changed")
    client.config_set("timeout", "7")
    path.write_text(
        'MaxClients = 200\nIdleTimeout = 60\nFsync = always\nRequirePass = "sesame"\nWorkers = 2\n'
        "LogLevel = debug\n"
    )
    hang_up(daemon, "RequirePass")
    shown = client.config_get("*")
    assert shown["maxclients"] == "200"
    assert shown["timeout"] == "70"  # the environment overrides the file and CONFIG SET
    assert (shown["appendfsync"], shown["loglevel"]) == ("always", "debug")
    until(lambda: "Workers = 2 needs a restart: still 1" in daemon.log())
    assert "MaxClients = 200 (was 100)" in daemon.log()
    assert "sesame" not in daemon.log()
    with daemon.connect() as raw:
        assert raw.call("PING") == b"-NOAUTH Authentication required.\r\n"
        assert raw.call("AUTH", "sesame") == b"+OK\r\n"


def test_sighup_with_an_error_changes_nothing(start_oortd: StartOortd, tmp_path: Path) -> None:
    path = tmp_path / "oortd.conf"
    path.write_text("MaxClients = 100\n")
    daemon = start_oortd("--config", str(path))
    path.write_text("MaxClients = 200\nIdleTimeout = never\n")
    hang_up(daemon, "IdleTimeout = 'never': must be a number")
    assert daemon.client().config_get("maxclients") == {"maxclients": "100"}
    path.unlink()
    hang_up(daemon, "; nothing was changed")
    assert daemon.client().ping()
