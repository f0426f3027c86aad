"""Tests of oort-cli through its command line; its output is compared with redis-cli's."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from oort.cli.format import split
from tests.conftest import Oortd, clean_environment

COMMANDS = r"""
set a "x\x00\"y\n\xff"
get a
get nope
rpush l a b c d e f g h i j k
lrange l 0 -1
hset h f 1 g 2
hgetall h
sadd s m
smembers s
badcmd 'it\'s'
command info get set
mget a nope l
lrange none 0 -1
zadd z 1.5 a
zscore z a
eval "return {1,{2,{3,'x'}},{}}" 0
"""


def cli(
    address: tuple[str, int], *arguments: str, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    host, port = address
    return subprocess.run(
        [sys.executable, "-m", "oort.cli.main", "-h", host, "-p", str(port), *arguments],
        input=None if given is None else given.encode("utf-8", "surrogateescape"),
        capture_output=True,
        env=clean_environment(environment),
        check=False,
    )


def test_one_command(oortd: Oortd) -> None:
    assert cli(oortd.address, "SET", "k", "a b").stdout == b"OK\n"
    assert cli(oortd.address, "GET", "k").stdout == b"a b\n"
    assert cli(oortd.address, "--no-raw", "GET", "k").stdout == b'"a b"\n'
    assert cli(oortd.address, "--no-raw", "GET", "none").stdout == b"(nil)\n"
    assert cli(oortd.address, "--no-raw", "STRLEN", "k").stdout == b"(integer) 3\n"
    assert cli(oortd.address, "--no-raw", "MGET", "k", "none").stdout == b'1) "a b"\n2) (nil)\n'
    assert cli(oortd.address, "-x", "SET", "k", given="\0raw\n").stdout == b"OK\n"
    assert oortd.client().get("k") == b"\0raw\n"


def test_errors_and_exit_status(oortd: Oortd) -> None:
    failed = cli(oortd.address, "--no-raw", "GET")
    assert failed.stdout == b"(error) ERR wrong number of arguments for 'get' command\n"
    assert failed.returncode == 1
    refused = cli(("127.0.0.1", 1), "PING")
    assert refused.stderr == b"Could not connect to 127.0.0.1:1: Connection refused\n"
    assert refused.returncode == 1


def test_database_password_and_protocol(oortd: Oortd) -> None:
    assert cli(oortd.address, "-n", "5", "SET", "k", "v").returncode == 0
    assert oortd.client(db=5).get("k") == b"v"
    assert b"proto" in cli(oortd.address, "-3", "HELLO").stdout
    told = json.loads(cli(oortd.address, "--json", "CONFIG", "GET", "requirepass").stdout)
    assert told == {"requirepass": ""}
    oortd.client().config_set("requirepass", "sesame")
    for good in ({"OORT_PASSWORD": "sesame"}, {"REDISCLI_AUTH": "sesame"}):
        assert cli(oortd.address, "PING", **good).stdout == b"PONG\n"
    assert cli(oortd.address, "-a", "sesame", "PING").stdout == b"PONG\n"
    assert cli(oortd.address, "-a", "wrong", "PING").returncode == 1
    assert cli(oortd.address, "PING").returncode == 1


def test_commands_from_stdin(oortd: Oortd) -> None:
    done = cli(oortd.address, given="set k 1\n\nincr k\nget 'k'\n")
    assert (done.stdout, done.returncode) == (b"OK\n2\n2\n", 0)
    failed = cli(oortd.address, given='nonsense\nget "k\nget k\n')
    assert failed.returncode == 1
    assert failed.stdout.endswith(b"\n2\n")
    assert failed.stderr == b"oort-cli: line 2: unbalanced quotes\n"
    bytes_in = cli(oortd.address, given="set k \udcff\udc80\n", LC_ALL="C.UTF-8")
    assert bytes_in.stdout == b"OK\n"
    assert oortd.client().get("k") == b"\xff\x80"


def test_prompt(oortd: Oortd, tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    host, port = oortd.address
    process = subprocess.Popen(
        [sys.executable, "-m", "oort.cli.main", "-h", host, "-p", str(port)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean_environment({"HOME": str(tmp_path), "TERM": "dumb"}),
    )
    os.close(theirs)
    os.write(terminal, b'set k "a b"\nget k\nAUTH secret\nget "\nselect 2\nquit\n')
    shown = b""
    try:
        while data := os.read(terminal, 4096):
            shown += data
    except OSError:
        pass  # EIO: the other end is closed
    assert process.wait(30) == 0
    assert b'"a b"\r\n' in shown
    assert b"Invalid argument(s)" in shown
    assert f"{host}:{port}[2]> ".encode() in shown
    history = tmp_path / ".oort_cli_history"
    assert "get k" in history.read_text()
    assert "secret" not in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    os.close(terminal)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", []),
        ("  get   a ", [b"get", b"a"]),
        (r'"a\x00\n\"\q" b', [b'a\0\n"q', b"b"]),
        (r"'a\n\'b'", [b"a\\n'b"]),
        ('""', [b""]),
        ('"open', None),
        ('"a"b', None),
        ("é", ["é".encode()]),
    ],
)
def test_split(line: str, arguments: list[bytes] | None) -> None:
    assert split(line) == arguments


@pytest.mark.system
@pytest.mark.parametrize("form", ["--raw", "--no-raw"])
@pytest.mark.parametrize("protocol", [[], ["-3"]])
def test_prints_as_redis_cli_does(
    redis_server: tuple[str, int], form: str, protocol: list[str]
) -> None:
    cli(redis_server, "FLUSHALL")
    ours = cli(redis_server, form, *protocol, given=COMMANDS)
    cli(redis_server, "FLUSHALL")
    theirs = subprocess.run(
        ["redis-cli", "-h", redis_server[0], "-p", str(redis_server[1]), form, *protocol],
        input=COMMANDS.encode(),
        capture_output=True,
        check=True,
    )
    assert ours.stdout == theirs.stdout
