"""Tests of oort-bench through its command line: requests, counts, and detected errors."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oort.bench.main import main
from oort.cli.protocol import Connection
from tests.conftest import Oortd


@pytest.fixture
def bench(oortd: Oortd, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Runs oort-bench against oortd; returns its exit status and the runs in its JSON."""

    def run(*arguments: str) -> tuple[int, Any]:
        status = main(["--port", str(oortd.port), "--json", "-", *arguments])
        return status, json.loads(capsys.readouterr().out)["runs"]

    return run


def test_writes_then_reads_every_key(bench: Callable[..., tuple[int, Any]], oortd: Oortd) -> None:
    for pipeline, threads in (("1", "1"), ("16", "3")):
        shape = ["-pipeline", pipeline, "-procs", threads, "-clients", "7", "-vsize", "10:3000"]
        status, runs = bench("-num", "5000", *shape, "-settest", "-gettest")
        assert status == 0
        written, read = (run["result"] for run in runs)
        assert (written["sets"], read["gets"], read["hits"]) == (5000, 5000, 5000)
        assert read["errors"] == {}
        assert read["latency"]["get"]["p50_us"] <= read["latency"]["get"]["p99.9_us"]
    assert oortd.client().dbsize() == 5000
    assert oortd.client().exists("key:000000000000", "key:000000004999") == 2


def test_finds_wrong_values(bench: Callable[..., tuple[int, Any]], oortd: Oortd) -> None:
    assert bench("-num", "100", "-settest")[0] == 0
    client = oortd.client()
    client.delete("key:000000000001")
    client.setrange("key:000000000002", 99, "!")
    client.append("key:000000000003", "tail")
    client.set("key:000000000004", client.get("key:000000000005"))
    status, runs = bench("-num", "100", "-gettest")
    assert status == 1
    assert runs[0]["result"]["hits"] == 96
    assert runs[0]["result"]["errors"] == {
        "missing values": 1,
        "wrong values": 2,
        "values of the wrong size": 1,
    }
    assert bench("-num", "100", "-gettest", "-seed", "2")[1][0]["result"]["hits"] == 0


def test_mixes_orders_and_rates(bench: Callable[..., tuple[int, Any]]) -> None:
    for keys in ("uniform", "zipf", "sequential"):
        status, runs = bench("--mix", "3:1", "--preload", "--keyspace", "300", "--num", "4000",
                             "--keys", keys, "--clients", "5")  # fmt: skip
        result = runs[1]["result"]
        assert status == 0
        assert result["gets"] + result["sets"] == 4000
        assert 2700 < result["gets"] < 3300
        assert result["hits"] == result["gets"]
    status, runs = bench("--mix", "0:1", "--rate", "2000", "--seconds", "0.5", "--warmup", "0.1")
    result = runs[0]["result"]
    assert status == 0
    assert result["sets"] + result["unsent"] <= 1001
    assert result["answered"] >= result["sets"] > 0


def test_missing_values_may_be_allowed(bench: Callable[..., tuple[int, Any]]) -> None:
    assert bench("--mix", "1:0", "--num", "50")[0] == 1
    status, runs = bench("--mix", "1:0", "--num", "50", "--allow-missing")
    assert (status, runs[0]["result"]["missing"]) == (0, 50)


def test_password_and_database(start_oortd: Callable[..., Oortd], tmp_path: Path) -> None:
    oortd = start_oortd()
    oortd.client().config_set("requirepass", "sesame")
    port = ["--port", str(oortd.port), "--num", "10", "--quiet"]
    assert main([*port, "--password", "sesame", "--db", "3"]) == 0
    assert oortd.client(password="sesame", db=3).dbsize() == 10
    assert main([*port, "--password", "wrong"]) == 1
    assert main(port) == 1


def test_csv(oortd: Oortd, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(oortd.port), "--num", "100", "--csv", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["name"], row["requests"], row["errors"]) for row in rows] == [
        ("set", "100", "0"),
        ("get", "100", "0"),
    ]


def test_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert said == f"oort-bench: cannot connect to 127.0.0.1 port {port}: Connection refused\n"


@pytest.mark.parametrize(
    "arguments",
    [["-mix", "9"], ["-vsize", "9:1"], ["-keys", "odd"], ["-bogus"], ["-num", "x"]],
)
def test_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("oort-bench: ")
    assert said.count("\n") == 1


def test_invalid_settings_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-procs", "9", "-clients", "3"], ["-num", "0"], ["-port", "0"]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith("oort-bench: ")
        assert said.count("\n") == 1


@pytest.fixture
def liar() -> Iterator[Callable[[bytes, float], int]]:
    """liar(reply, delay) returns the port of a server that answers every request with `reply`."""
    listeners = []

    def answer(connection: socket.socket, reply: bytes, delay: float) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    time.sleep(delay)
                    if not reply:
                        return
                    connection.sendall(reply)
            except ConnectionError:
                return

    def serve(listener: socket.socket, reply: bytes, delay: float) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, reply, delay), daemon=True).start()

    def start(reply: bytes, delay: float = 0.0) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, reply, delay), daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"-LOADING not yet\r\n", "error replies"),
        (b":1\r\n", "unexpected replies"),
        (b"*0\r\n", "connections lost"),
        (b"", "connections lost"),
        (b"", "requests unanswered"),
    ],
)
def test_server_that_answers_wrong(
    liar: Callable[..., int], capsys: pytest.CaptureFixture[str], reply: bytes, problem: str
) -> None:
    port = liar(reply)
    assert main(["-port", str(port), "-num", "10", "-clients", "2", "-settest", "-json", "-"]) == 1
    told = capsys.readouterr()
    result = json.loads(told.out)["runs"][0]["result"]
    assert result["errors"][problem] >= 2
    assert result["error_texts"] == (["LOADING not yet"] if reply[:1] == b"-" else [])


def test_a_silent_server_aborts_the_run(liar: Callable[..., int]) -> None:
    assert main(["-port", str(liar(b"+OK", 0.0)), "-num", "9", "-timeout", "0.2", "-quiet"]) == 1


def test_open_loop_charges_a_stall(
    liar: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each reply takes 50 ms and a request is due every 5 ms; the wait before sending counts."""
    main(["-port", str(liar(b"+OK\r\n", 0.05)), "-settest", "-clients", "1", "-rate", "200",
          "-num", "20", "-json", "-"])  # fmt: skip
    latency = json.loads(capsys.readouterr().out)["runs"][0]["result"]["latency"]["set"]
    assert latency["max_us"] > 20 * 50_000 - 20 * 5_000 - 50_000
    assert latency["min_us"] > 49_000


@pytest.mark.system
def test_against_redis(redis_server: tuple[str, int]) -> None:
    with Connection(*redis_server) as connection:
        connection.call("FLUSHALL")
        port = ["-port", str(redis_server[1])]
        assert main([*port, "-num", "2000", "-pipeline", "8", "-vsize", "0:100000"]) == 0
        assert connection.call("DBSIZE") == 2000
