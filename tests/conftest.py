"""Real servers for tests: processes of oortd and of redis-server.

`start_oortd` starts daemons with given flags, and `oortd` is a daemon with the defaults.  They
listen on a free port, have their data in a temporary directory and their nonce on tmpfs, and are
killed when the test ends.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

START_SECONDS = 60.0
STOP_SECONDS = 60.0


def oortd_command() -> list[str]:
    """The oortd that is installed in the environment of the tests."""
    return [str(Path(sys.executable).parent / "oortd")]


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment without variables that configure oortd."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OORT_", "OORTD_"))}
    return {**kept, **(extra or {})}


class Oortd:
    """An oortd with its data directory; it can be stopped, killed and started again."""

    def __init__(self, directory: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        # A restart after a kill is fast only if this is on tmpfs.
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="oortd-test-", dir="/dev/shm"))
        self.log_path = directory / "log"
        self.flags = list(flags)
        self.standalone = "OORT_RING_FILE" not in (env or {})
        self.env = env or {}
        self.host = "127.0.0.1"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        # Descriptors that the process inherits.
        self.inherit: list[int] = []
        self._clients: list[redis.Redis | RawClient] = []

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        flags = ["--runtime-dir", str(self.runtime_dir)]
        if "--listen" not in self.flags:
            flags += ["--listen", f"{self.host}:{self.port}"]
        return [
            *oortd_command(),
            *(["--standalone"] if self.standalone else []),
            "--data-dir",
            str(self.data_dir),
            *flags,
            *self.flags,
        ]

    def start(self) -> Oortd:
        """Start oortd and wait until it is ready.  A restart keeps the port."""
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stderr=log,
                stdout=log,
                env=clean_environment(self.env),
                pass_fds=self.inherit,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = self.log_path.read_bytes()[offset:].decode("utf-8", "replace")
            found = re.search(r"ready on [^,\n]*?:(\d+)[,\s]", text)
            if found:
                self.port = int(found[1])
                return self
            code = self.process.poll()
            assert code is None, f"oortd ended with {code}: {text}"
            assert time.monotonic() < deadline, f"oortd is not ready: {text}"
            time.sleep(0.01)

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def restart(self) -> Oortd:
        self.stop()
        return self.start()

    def client(self, protocol: int = 2, **options: Any) -> redis.Redis:
        client = redis.Redis(self.host, self.port, protocol=protocol, **options)
        self._clients.append(client)
        return client

    def connect(self) -> RawClient:
        raw = RawClient(self.address)
        self._clients.append(raw)
        return raw

    def end(self) -> None:
        """Close every client, and kill oortd if it still runs."""
        for client in self._clients:
            client.close()
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                self.kill()
            elif code not in (0, -signal.SIGKILL):
                print(f"oortd ended with {code}:\n{self.log()}")  # a failing test shows it
        shutil.rmtree(self.runtime_dir, ignore_errors=True)


class RawClient:
    """A client that returns raw replies; it knows only enough RESP to find the end of a reply."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self._buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, *words: bytes | str) -> None:
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        body = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n" % len(parts) + body)

    def call(self, *words: bytes | str) -> bytes:
        """Send a command and return the raw bytes of its reply."""
        self.send(*words)
        return self.reply()

    def reply(self) -> bytes:
        """The raw bytes of the next reply; EOFError if the server has closed the connection."""
        end = self._end(0)
        raw, self._buffer = self._buffer[:end], self._buffer[end:]
        return raw

    def at_end(self) -> bool:
        """Whether the server closes the connection without sending another byte."""
        try:
            return not self._buffer and not self.socket.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        received = self.socket.recv(1 << 20)
        if not received:
            raise EOFError(f"closed after {self._buffer!r}")
        self._buffer += received

    def _end(self, start: int) -> int:
        while (line_end := self._buffer.find(b"\r\n", start)) < 0:
            self._more()
        kind, text = self._buffer[start : start + 1], self._buffer[start + 1 : line_end]
        end = line_end + 2
        if kind in b"$=" and int(text) >= 0:
            end += int(text) + 2
            while len(self._buffer) < end:
                self._more()
        elif kind in b"*~%>":
            for _ in range(int(text) * (2 if kind == b"%" else 1)):
                end = self._end(end)
        return end


def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + STOP_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.005)


@pytest.fixture
def start_oortd(tmp_path: Path) -> Iterator[Callable[..., Oortd]]:
    """start_oortd("--workers", "0", ...) returns a running Oortd; `env` adds variables."""
    started: list[Oortd] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Oortd:
        directory = tmp_path / f"oortd-{len(started)}"
        directory.mkdir()
        daemon = Oortd(directory, *flags, env=env)
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.end()


@pytest.fixture
def oortd(start_oortd: Callable[..., Oortd]) -> Oortd:
    """An oortd with the default settings."""
    return start_oortd()


@pytest.fixture(
    scope="module", params=["valuestore-1", "mapstore-1", "valuestore-0", "valuestore-3"]
)
def shared_oortd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Oortd]:
    """An oortd shared by the tests of a module, for each store and each number of workers."""
    store, workers = request.param.split("-")
    daemon = Oortd(tmp_path_factory.mktemp("oortd"), "--store", store, "--workers", workers)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of the distribution's redis-server, which is the reference for replies."""
    program = shutil.which("redis-server")
    assert program is not None, "install redis-server (make test-system does)"
    directory = tmp_path_factory.mktemp("redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: tuple[str, int] = probe.getsockname()
    options = ["--port", str(address[1]), "--bind", "127.0.0.1", "--dir", str(directory)]
    process = subprocess.Popen(
        [program, *options, "--save", "", "--enable-debug-command", "yes"],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(address).close()
            break
        except ConnectionRefusedError:
            assert process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
    yield address
    process.kill()
    process.wait()
