"""A real synd and real nodes that join it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from oort.syndicate.tool.main import main as syndicate_client
from tests.conftest import STOP_SECONDS, Oortd, clean_environment

BIN = Path(sys.executable).parent
START_SECONDS = 60.0


class Synd:
    """A synd with one directory.  Tests can stop, kill and start the process; its port stays."""

    listen_address = "127.0.0.1"
    names = "localhost"

    def __init__(self, directory: Path, net_filter: str = "0.0.0.0/0, 127.0.0.0/8") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.net_filter = net_filter
        self.port = 0
        self.log_path = directory / "synd.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"localhost:{self.port}"

    def words(self, *command: str) -> list[str]:
        """The command line that runs a command on synd's machine."""
        return list(command)

    @property
    def config(self) -> Path:
        return self.directory / "syndicate.conf"

    def start(self) -> Synd:
        own = self.directory
        self.config.write_text(
            f"State = {own}/state\nNames = {self.names}\nCAFile = {own}/ca.crt\n"
            f"OperatorCertFile = {own}/operator.crt\nOperatorKeyFile = {own}/operator.key\n"
            f"[oort]\nListenAddress = {self.listen_address}\nPort = {self.port}\n"
            f"NetFilter = {self.net_filter}\nMoveWait = 0\n"
        )
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.words(str(BIN / "synd"), "--config", str(self.config)),
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = self.log_path.read_bytes()[offset:].decode()
            found = re.search(r"oort: serving at [\d.]+:(\d+)", text)
            if found and " ready: " in text:
                self.port = int(found[1])
                return self
            assert self.process.poll() is None, f"synd ended: {text}"
            assert time.monotonic() < deadline, f"synd is not ready: {text}"
            time.sleep(0.01)

    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the syndicate's authority."""
        return re.findall(r"OORT_SYNDICATE_FINGERPRINT=([0-9a-f]{64})", self.log())[-1]

    def client(self, *arguments: str) -> int:
        """Run syndicate-client as the operator."""
        own = self.directory
        files = [f"--cert={own}/operator.crt", f"--key={own}/operator.key", f"--ca={own}/ca.crt"]
        return syndicate_client([f"--server={self.server}", *files, "--timeout=60", *arguments])

    def output(self, *arguments: str) -> str:
        """The output of syndicate-client, run as the operator."""
        own = self.directory
        files = [f"--cert={own}/operator.crt", f"--key={own}/operator.key", f"--ca={own}/ca.crt"]
        return subprocess.run(
            self.words(
                str(BIN / "syndicate-client"), f"--server={self.server}", *files, *arguments
            ),
            check=True,
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=60,
        ).stdout

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.output("--json", "search"))
        return found

    def token(self, uses: int = 1, role: str = "node", seconds: int = 3600) -> str:
        return self.output(
            "token", f"--role={role}", f"--uses={uses}", f"--seconds={seconds}"
        ).split()[0]

    def set_config(self, text: str) -> None:
        path = self.directory / "ring.conf"
        path.write_text(text)
        assert self.client("set", f"config={path}") == 0


class RingNode(Oortd):
    """An oortd that finds its ring through its environment, with its own files."""

    def __init__(self, directory: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.keys = directory / "keys"
        self.keys.mkdir(exist_ok=True)
        self.cache = directory / "oortd-config.cache"
        own = {
            "OORT_CONFIG_CACHE": str(self.cache),
            "OORT_JOIN_TOKEN_FILE": str(self.keys / "join.token"),
            "OORT_CMDCTRLCONFIG_LISTEN_ADDRESS": "127.0.0.1:0",
        }
        for name, file in (("CERT", "server.crt"), ("KEY", "server.key"), ("CA", "ca.crt")):
            own[f"OORT_CMDCTRLCONFIG_{name}_FILE"] = str(self.keys / file)
        super().__init__(directory, *flags, env=own | (env or {}))
        self.standalone = False

    def attempt(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run an oortd that must fail, or that only prints."""
        return subprocess.run(
            [*self.command(), *flags],
            env=clean_environment(self.env),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def cannot_start(self) -> tuple[int, str]:
        """The exit code and the last line.  All earlier lines must be warnings."""
        ended = self.attempt()
        assert ended.returncode != 0
        lines = ended.stderr.splitlines()
        assert "cannot start: " in lines[-1], ended.stderr
        assert all(re.match(r"\d{4}-\d\d-\d\d .* (INFO|WARNING|CRITICAL) ", line) for line in lines)
        return ended.returncode, lines[-1]

    def shown(self) -> dict[str, str]:
        """--print-config: the value and the layer of every setting, by section and name."""
        printed = self.attempt("--print-config")
        assert printed.returncode == 0, printed.stderr
        section, found = "", {}
        for line in printed.stdout.splitlines():
            if line.startswith("["):
                section = line
            elif line:
                name, _, rest = line.partition(" = ")
                found[section + name] = rest
        return found

    def ring_facts(self) -> dict[str, object]:
        client = self.client()
        try:
            return client.info("ring")
        finally:
            client.close()
