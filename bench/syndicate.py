"""make bench: hosts that register at a synd, and rings pushed to nodes.

All hosts register at the same time over CONNECTIONS connections of this process.  Each answer holds
the whole ring.  Nodes are CmdCtrl servers with mutual TLS in this process, each with its own
address.  The time runs from the call that changes the ring until the last node has the new ring.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import grpc.aio
from servers import BrokenError

from oort.cmdctrl.service import ControlServer
from oort.syndicate.authority_pb2 import SignRequest, TokenRequest
from oort.syndicate.authority_pb2_grpc import AuthorityStub
from oort.syndicate.syndicate_pb2 import Node, RegisterRequest
from oort.syndicate.syndicate_pb2_grpc import SyndicateStub
from oort.tls import certificates, channels, tokens
from oort.tls.files import load_identity

HOSTS = (100, 1000)
CONNECTIONS = 50
NODES = 100
ROUNDS = 3
SECONDS = 120.0
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]

Figures = dict[str, float]


class _Synd:
    """A running synd, and an operator's channel to it."""

    def __init__(self, directory: Path, cmdctrl_port: int) -> None:
        self.ca, cert, key = (directory / name for name in ("ca.crt", "op.crt", "op.key"))
        config = directory / "syndicate.conf"
        config.write_text(
            f"State = {directory}/state\nNames = localhost\nCAFile = {self.ca}\n"
            f"OperatorCertFile = {cert}\nOperatorKeyFile = {key}\n"
            f"[bench]\nListenAddress = 127.0.0.1\nPort = 0\nNetFilter = 127.0.0.0/8\n"
            f"CmdCtrlPort = {cmdctrl_port}\nMoveWait = 0\n"
        )
        self.log = directory / "log"
        program = Path(sys.executable).with_name("synd")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program, "--config", config], stdout=log, stderr=log)
        self.target = f"localhost:{self._port()}"
        self.operator = load_identity(cert, key, self.ca)

    def _port(self) -> int:
        deadline = time.monotonic() + SECONDS
        while " ready: " not in (text := self.log.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BrokenError(f"synd did not start: {text}")
            time.sleep(0.01)
        return int(text.partition("bench: serving at 127.0.0.1:")[2].split()[0])

    def credentials(self, identity: certificates.Identity | None = None) -> grpc.ChannelCredentials:
        return channels.channel_credentials(self.ca.read_bytes(), identity or self.operator)

    def channel(self, identity: certificates.Identity | None = None) -> grpc.Channel:
        return grpc.secure_channel(self.target, self.credentials(identity), _OPTIONS)


@contextmanager
def _running(cmdctrl_port: int) -> Iterator[_Synd]:
    with tempfile.TemporaryDirectory(prefix="oort-bench-synd-") as directory:
        synd = _Synd(Path(directory), cmdctrl_port)
        try:
            yield synd
        finally:
            synd.process.kill()
            synd.process.wait()


# Registrations


async def _register(synd: _Synd, hosts: int) -> tuple[float, float]:
    """The seconds for all hosts, first as new hosts, then as known hosts."""
    channels = [
        grpc.aio.secure_channel(synd.target, synd.credentials(), _OPTIONS)
        for _ in range(CONNECTIONS)
    ]
    calls = [
        channel.unary_unary(
            "/proto.Syndicate/RegisterNode",
            request_serializer=RegisterRequest.SerializeToString,
            response_deserializer=len,
        )
        for channel in channels
    ]
    for channel in channels:
        await channel.channel_ready()
    requests = [
        RegisterRequest(
            hostname=f"host{n}",
            addrs=[f"127.9.{n >> 8}.{n & 255}/8"],
            tiers=[f"server{n}", f"zone{n % 5}"],
        )
        for n in range(hosts)
    ]

    async def all_at_once() -> float:
        begin = time.monotonic()
        await asyncio.gather(
            *(
                calls[n % CONNECTIONS](request, timeout=SECONDS)
                for n, request in enumerate(requests)
            )
        )
        return time.monotonic() - begin

    found = await all_at_once(), await all_at_once()
    for channel in channels:
        await channel.close()
    return found


def _registrations(hosts: int) -> Figures:
    with _running(4444) as synd:
        new, known = asyncio.run(_register(synd, hosts))
    return {"new_per_second": hosts / new, "known_per_second": hosts / known}


# Rings pushed


class _Holder:
    """The part of a node that takes rings."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.version = 0

    def ring_update(self, version: int, ring: bytes) -> int:
        with self.condition:
            self.version = max(self.version, version)
            self.condition.notify_all()
        return self.version

    def wait(self, version: int) -> None:
        with self.condition:
            if not self.condition.wait_for(lambda: self.version >= version, SECONDS):
                raise BrokenError("a node did not get the ring")


def _identity(synd: _Synd) -> certificates.Identity:
    """An identity that all nodes share: its certificate covers each of their addresses."""
    addresses = [f"127.8.0.{n + 1}" for n in range(NODES)]
    key = certificates.make_key()
    with synd.channel() as channel:
        request = TokenRequest(role="node", uses=1)
        token = tokens.read_token(
            AuthorityStub(channel).CreateToken(request, timeout=SECONDS).token
        )
    with synd.channel(token.identity(synd.ca.read_bytes())) as channel:
        reply = AuthorityStub(channel).Sign(
            SignRequest(request=certificates.certificate_request(key, addresses)), timeout=SECONDS
        )
    return certificates.Identity(reply.certificate, key, reply.authority)


def _push(rounds: int) -> Figures:
    port = _free_port()
    with ExitStack() as undo:
        synd = undo.enter_context(_running(port))
        holders = {}
        credentials = channels.server_credentials(_identity(synd))
        for number in range(NODES):
            holder: Any = _Holder()
            address = f"127.8.0.{number + 1}"
            server = ControlServer(holder, f"{address}:{port}", credentials, mutual=True)
            server.start()
            undo.callback(server.close)
            holders[address] = holder
        stub = SyndicateStub(undo.enter_context(synd.channel()))
        for number, address in enumerate(holders, 1):
            version = stub.AddNode(
                Node(id=number, active=True, capacity=100, addresses=[f"{address}:8001"]),
                timeout=SECONDS,
            ).version
        for holder in holders.values():
            holder.wait(version)
        acknowledged, pushed = [], []
        for number in range(rounds):
            time.sleep(1)
            begin = time.monotonic()
            version = stub.SetCapacity(Node(id=1, capacity=200 + number), timeout=SECONDS).version
            acknowledged.append(time.monotonic() - begin)
            for holder in holders.values():
                holder.wait(version)
            pushed.append(time.monotonic() - begin)
    return {"acknowledged_s": median(acknowledged), "pushed_s": median(pushed)}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def syndicate(say: Callable[[str], None]) -> dict[str, Figures]:
    """Medians of ROUNDS rounds: registrations by the number of hosts, and pushed rings."""
    results: dict[str, Figures] = {}
    for hosts in HOSTS:
        rounds = []
        for number in range(ROUNDS):
            say(f"{hosts} hosts register: {number + 1} of {ROUNDS}")
            rounds.append(_registrations(hosts))
        results[f"{hosts} hosts"] = {
            figure: median(measured[figure] for measured in rounds) for figure in rounds[0]
        }
    say(f"rings pushed to {NODES} nodes")
    results[f"{NODES} nodes"] = _push(2 * ROUNDS)
    return results


def lines(results: dict[str, Figures]) -> list[str]:
    """A table for people."""
    table = [f"{'registering':<18} {'new/s':>8} {'known/s':>8}"]
    table += [
        f"{name:<18} {row['new_per_second']:>8,.0f} {row['known_per_second']:>8,.0f}"
        for name, row in results.items()
        if "new_per_second" in row
    ]
    table += [f"{'a ring for':<18} {'durable s':>9} {'at all s':>8}"]
    table += [
        f"{name:<18} {row['acknowledged_s']:>9.3f} {row['pushed_s']:>8.3f}"
        for name, row in results.items()
        if "pushed_s" in row
    ]
    return table


if __name__ == "__main__":
    print("\n".join(lines(syndicate(lambda text: None))))
