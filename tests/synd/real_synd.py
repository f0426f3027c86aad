"""A real synd, started as a program, and calls as an operator, a node or another caller."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc

from oort.syndicate.authority_pb2 import SignRequest, TokenRequest
from oort.syndicate.authority_pb2_grpc import AuthorityStub
from oort.syndicate.syndicate_pb2_grpc import SyndicateStub
from oort.syndicate.tool.main import main as tool
from oort.tls import certificates, channels, tokens
from oort.tls.files import load_identity
from tests.conftest import START_SECONDS, STOP_SECONDS, clean_environment

SECONDS = 60.0  # timeout of a call
RING = "[oort]\nListenAddress = 127.0.0.1\nPort = 0\nNetFilter = 127.0.0.0/8, 10.0.0.0/8\n"
PROGRAM = Path(sys.executable).with_name("synd")


def bounded(call):
    return lambda request, **more: call(request, **{"timeout": SECONDS, **more})


class RealSynd:
    """A synd that can be stopped, killed and started again on the same ports."""

    def __init__(self, directory: Path, rings: str = RING, shared: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.config = directory / "syndicate.conf"
        self.ca, self.cert, self.key = (
            directory / name for name in ("ca.crt", "operator.crt", "operator.key")
        )
        self.log_path = directory / "log"
        self.env: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        if "State" not in shared:
            shared += f"State = {directory / 'state'}\n"
        self.configure(
            f"{shared}Names = localhost\nAdvertise = localhost\nCAFile = {self.ca}\n"
            f"OperatorCertFile = {self.cert}\nOperatorKeyFile = {self.key}\n{rings}"
        )

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run synd until it ends, for runs that must not start or that print something."""
        return subprocess.run(
            [PROGRAM, "--config", self.config, *flags],
            env=clean_environment(self.env),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def start(self) -> RealSynd:
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--config", self.config],
                env=clean_environment(self.env),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while " ready: " not in (text := self.log_path.read_bytes()[offset:].decode()):
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.01)
        for name, port in re.findall(r"(\S+): serving at \S+:(\d+)", text):
            self.ports[name] = int(port)
            known = re.compile(rf"(\[{name}\]\n(?:[^\[]*\n)??Port = )0\n")
            self.configure(known.sub(rf"\g<1>{port}\n", self.config.read_text()))
        return self

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    # ---- callers ------------------------------------------------------------

    @property
    def operator(self) -> certificates.Identity:
        return load_identity(self.cert, self.key, self.ca)

    @contextmanager
    def calls(
        self, identity: certificates.Identity | None = None, ring: str = "oort", **more: int
    ) -> Iterator:
        """The methods of both services as a namespace.

        The default identity is an operator's.  `more` are options of gRPC.
        """
        identity = identity or self.operator
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        options += [(f"grpc.{name}", value) for name, value in more.items()]
        credentials = channels.channel_credentials(self.ca.read_bytes(), identity)
        target = f"localhost:{self.ports[ring]}"
        with grpc.secure_channel(target, credentials, options) as channel:
            stubs = {**vars(SyndicateStub(channel)), **vars(AuthorityStub(channel))}
            made = SimpleNamespace(**{name: bounded(call) for name, call in stubs.items()})
            made.channel = channel
            yield made

    def member(self, role: str = "node", *names: str) -> certificates.Identity:
        """Get an identity of this role with a join token."""
        with self.calls() as calls:
            token = tokens.read_token(calls.CreateToken(TokenRequest(role=role, uses=1)).token)
        key = certificates.make_key()
        with self.calls(token.identity(self.ca.read_bytes())) as calls:
            reply = calls.Sign(SignRequest(request=certificates.certificate_request(key, names)))
        return certificates.Identity(reply.certificate, key, reply.authority)

    def tool(self, *arguments: str, ring: str = "oort") -> int:
        """Run syndicate-client as the operator."""
        options = [f"--cert={self.cert}", f"--key={self.key}", f"--ca={self.ca}", "--timeout=60"]
        return tool([f"--server=localhost:{self.ports[ring]}", *options, *arguments])


def refused(call, *arguments, **more) -> grpc.Call:
    """The error of a call that must fail."""
    try:
        reply = call(*arguments, **more)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"not refused: {reply}")
