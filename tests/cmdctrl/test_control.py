"""Tests of CmdCtrl with a real oortd, gRPC over mutual TLS, and Redis clients at the same time."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import redis

from oort.cli.main import main as oort_cli
from oort.cmdctrl import cmdctrl_pb2 as messages
from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
from oort.ring import files
from oort.ring.builder import Builder
from oort.tls import certificates, channels
from oort.tls.files import save_identity
from tests.conftest import Oortd, until

NOTHING = messages.EmptyMsg()
SECONDS = 60.0


@pytest.fixture(scope="module")
def authority() -> certificates.CertificateAuthority:
    return certificates.CertificateAuthority.create("ring of tests")


def bounded(call):
    return lambda request=NOTHING: call(request, timeout=SECONDS)


class Node:
    """An oortd with its control interface, and the certificates to call it."""

    def __init__(self, daemon: Oortd, authority: certificates.CertificateAuthority) -> None:
        self.daemon = daemon
        self.authority = authority

    @property
    def port(self) -> int:
        return int(re.findall(r"CmdCtrl on 127\.0\.0\.1:(\d+)", self.daemon.log())[-1])

    @contextmanager
    def calls(
        self, role: str | None = "operator", *, by: certificates.CertificateAuthority | None = None
    ):
        """A stub for a caller with this role; None means a caller without a certificate."""
        identity = (by or self.authority).issue(role, "somebody", []) if role else None
        credentials = channels.channel_credentials(self.authority.certificate, identity)
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials) as channel:
            stub = vars(CmdCtrlStub(channel))
            yield SimpleNamespace(**{name: bounded(call) for name, call in stub.items()})


@pytest.fixture
def start_node(
    start_oortd: Callable[..., Oortd], authority: certificates.CertificateAuthority, tmp_path: Path
) -> Callable[..., Node]:
    def start(*flags: str, **env: str) -> Node:
        names = [tmp_path / name for name in ("server.crt", "server.key", "ca.crt")]
        save_identity(authority.issue("node", "7", ["localhost", "127.0.0.1"]), *names)
        settings = dict(zip(("CERT_FILE", "KEY_FILE", "CA_FILE"), map(str, names), strict=True))
        settings |= {"ENABLED": "true", "LISTEN_ADDRESS": "127.0.0.1:0"}
        environment = {f"OORT_CMDCTRLCONFIG_{name}": value for name, value in settings.items()}
        return Node(start_oortd(*flags, env=environment | env), authority)

    return start


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    return start_node()


def refused(node: Node) -> bool:
    try:
        node.daemon.connect().close()
    except ConnectionRefusedError:
        return True
    return False


# ---- authorization ---------------------------------------------------------


@pytest.mark.parametrize("role", ["operator", "syndicate"])
def test_operators_and_syndicates_control(node: Node, role: str) -> None:
    with node.calls(role) as calls:
        assert calls.HealthCheck().status
        assert calls.Reload().msg == "nothing changed"
    assert f"CmdCtrl: Reload, requested by {role} somebody" in node.daemon.log()


def test_other_roles_are_refused(node: Node) -> None:
    with node.calls("node") as calls, pytest.raises(grpc.RpcError) as raised:
        calls.Stop()
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    strangers = certificates.CertificateAuthority.create("another")
    for role, by in ((None, None), ("operator", strangers)):
        with node.calls(role, by=by) as calls, pytest.raises(grpc.RpcError) as raised:
            calls.Stop()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert node.daemon.client().ping()


@pytest.mark.parametrize("off", ["USE_TLS", "MUTUAL_TLS"])
def test_without_certificates_only_this_machine_may_call(
    start_node: Callable[..., Node], authority: certificates.CertificateAuthority, off: str
) -> None:
    addresses = {"OORT_CMDCTRLCONFIG_LISTEN_ADDRESS": "0.0.0.0:0"}
    node = start_node(**addresses, **{f"OORT_CMDCTRLCONFIG_{off}": "false"})
    target = f"127.0.0.1:{node.port}"
    verified = channels.channel_credentials(authority.certificate)
    channel = {
        "USE_TLS": lambda: grpc.insecure_channel(target),
        "MUTUAL_TLS": lambda: grpc.secure_channel(target, verified),
    }[off]
    with channel() as opened:
        assert CmdCtrlStub(opened).HealthCheck(NOTHING, timeout=SECONDS).status
    assert "CmdCtrl listens on 127.0.0.1 instead of 0.0.0.0" in node.daemon.log()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", node.port))  # another address of this machine


def test_an_invalid_certificate_is_logged_and_changes_nothing(node: Node, tmp_path: Path) -> None:
    (tmp_path / "server.crt").write_text("nothing of the kind")
    for _ in range(3):
        with node.calls() as calls:
            assert calls.HealthCheck().status
    assert node.daemon.log().count("the last valid certificate stays in use") == 1


def test_a_renewed_certificate_needs_no_restart(
    node: Node, authority: certificates.CertificateAuthority, tmp_path: Path
) -> None:
    before = channels.fetch_certificate("127.0.0.1", node.port, SECONDS)
    renewed = authority.issue("node", "7", ["localhost", "127.0.0.1"])
    names = [tmp_path / name for name in ("server.crt", "server.key", "ca.crt")]
    save_identity(renewed, *names)
    after = channels.fetch_certificate("127.0.0.1", node.port, SECONDS)
    assert certificates.fingerprint(after) == certificates.fingerprint(renewed.certificate)
    assert certificates.fingerprint(after) != certificates.fingerprint(before)
    with node.calls() as calls:
        assert calls.HealthCheck().status


def test_a_node_without_the_interface(start_oortd: Callable[..., Oortd]) -> None:
    """Such a node does not load gRPC."""
    daemon = start_oortd()
    assert daemon.client().ping()
    assert "CmdCtrl" not in daemon.log()
    assert "grpc" not in Path(f"/proc/{daemon.pid}/maps").read_text()


@pytest.mark.parametrize("missing", ["server.key", "ca.crt"])
def test_a_missing_file_is_one_line(
    start_node: Callable[..., Node], tmp_path: Path, missing: str
) -> None:
    other = tmp_path / "nowhere" / missing
    name = {"server.key": "KEY_FILE", "ca.crt": "CA_FILE"}[missing]
    with pytest.raises(AssertionError, match=f"ended with 1.*cannot start: .*{other}"):
        start_node(**{f"OORT_CMDCTRLCONFIG_{name}": str(other)})


# ---- stop, start, restart ----------------------------------------------------


@pytest.mark.parametrize("workers", ["0", "2"])
def test_stop_and_start(start_node: Callable[..., Node], workers: str) -> None:
    node = start_node("--workers", workers)
    client = node.daemon.client()
    client.set("key", "value")
    with node.daemon.connect() as raw, node.calls() as calls:
        assert raw.call("PING") == b"+PONG\r\n"
        assert calls.Stop() == messages.StatusMsg(status=True, msg="no client is served")
        assert raw.at_end()
        assert refused(node)
        assert calls.Stop().msg == "no client was served already"
        health = calls.HealthCheck()
        assert (health.status, health.msg) == (False, "no client is served until Start")
        assert abs(health.ts - time.time()) < 3600
        assert json.loads(calls.Stats().statsjson)["keyspace"] == {
            "db0": {"keys": 1, "expires": 0, "avg_ttl": 0}
        }
        assert calls.Start() == messages.StatusMsg(status=True, msg="clients are served")
        assert calls.Start().msg == "clients were served already"
        assert calls.HealthCheck().status
    assert client.get("key") == b"value"


def test_restart_uses_the_current_configuration(
    start_node: Callable[..., Node], tmp_path: Path
) -> None:
    file = tmp_path / "oortd.conf"
    file.write_text("Workers = 1\n")
    node = start_node("--config", str(file))
    client = node.daemon.client()
    client.set("key", "value")
    with node.calls() as calls:
        file.write_text("Workers = 3\nFsync = always\nListenAddress = 127.0.0.1:1\n")
        answer = calls.Restart()
        assert answer.status
        assert answer.msg == "restarted, changed: Fsync, Workers"
        assert client.get("key") == b"value"
        assert client.info("server")["oort_workers"] == 3
        assert client.info("persistence")["oort_recovery"] == "clean"
        file.write_text("Workers = many\n")
        answer = calls.Restart()
        assert not answer.status
        assert "Workers = 'many': must be" in answer.msg
        assert client.get("key") == b"value"
        assert not calls.Reload().status
        calls.Stop()
        file.write_text("Workers = 0\n")
        assert calls.Restart().status
        assert client.get("key") == b"value"


BATCH = 20


class Hammer(threading.Thread):
    """Writes numbers to its own keys, BATCH at once, and records the acknowledged numbers."""

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(name=name)
        self.node = node
        self.acknowledged = 0
        self.ends = 0
        self.over = False
        self.failure = ""

    def run(self) -> None:
        client = redis.Redis(*self.node.daemon.address, socket_timeout=SECONDS, retry=None)
        try:
            while not self.over:
                try:
                    batch = client.pipeline(transaction=False)
                    for number in range(self.acknowledged, self.acknowledged + BATCH):
                        batch.set(f"{self.name}:{number}", number)
                    batch.execute()
                except (redis.ConnectionError, ConnectionError):
                    self.ends += 1
                    time.sleep(0.001)
                else:
                    self.acknowledged += BATCH
        except Exception as error:
            self.failure = repr(error)
        finally:
            client.close()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_any_number_of_times_under_load(start_node: Callable[..., Node], workers: str) -> None:
    node = start_node("--workers", workers)
    hammers = [Hammer(node, f"hammer{number}") for number in range(4)]
    rounds = 25

    def held() -> tuple[int, int]:
        process = Path(f"/proc/{node.daemon.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def written() -> list[int]:
        return [hammer.acknowledged for hammer in hammers]

    def until_all_write() -> None:
        before = written()
        until(lambda: all(now > then for now, then in zip(written(), before, strict=True)))

    def control(names: tuple[str, ...], errors: list[str], *, patient: bool = False) -> None:
        """With `patient`, every client writes between one stop and the next."""
        with node.calls() as calls:
            for number in range(rounds):
                name = names[number % len(names)]
                answer = getattr(calls, name)()
                if not answer.status:
                    errors.append(answer.msg)
                if patient and name != "Stop":
                    until_all_write()

    errors: list[str] = []
    for hammer in hammers:
        hammer.start()
    try:
        control(("Stop", "Start", "Restart"), errors, patient=True)
        warm = held()
        others = [
            threading.Thread(target=control, args=(names, errors))
            for names in (("Stop", "Start"), ("Restart", "Start"), ("Reload", "Restart"))
        ]
        for other in others:
            other.start()
        for other in others:
            other.join()
        with node.calls() as calls:
            assert calls.Start().status
        until_all_write()
    finally:
        for hammer in hammers:
            hammer.over = True
            hammer.join()
    assert not errors
    assert not [hammer.failure for hammer in hammers if hammer.failure]
    assert all(hammer.ends > 0 for hammer in hammers)
    client = node.daemon.client()
    for hammer in hammers:
        keys = [f"{hammer.name}:{number}" for number in range(hammer.acknowledged)]
        assert client.mget(keys) == [b"%d" % number for number in range(hammer.acknowledged)]
    client.close()
    # Connections come and go; a leak in each round would be visible 75 times.
    now = held()
    assert now[0] <= warm[0] + 20
    assert now[1] <= warm[1] + 8


# ---- other calls -------------------------------------------------------------


def test_exit_is_answered_and_ends_in_order(node: Node) -> None:
    node.daemon.client().set("key", "value")
    with node.calls() as calls:
        assert calls.Exit() == messages.StatusMsg(status=True, msg="stopping")
    assert node.daemon.wait() == 0
    node.daemon.start()
    assert node.daemon.client().info("persistence")["oort_recovery"] == "clean"


def test_a_signal_ends_a_node_under_control(node: Node) -> None:
    """A call that comes too late is refused instead of waiting."""
    with node.calls() as calls:
        calls.Stop()
        os.kill(node.daemon.pid, signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as raised:  # noqa: PT012
            while True:
                calls.HealthCheck()
        gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # gRPC's own errors
        assert raised.value.code() in gone
    assert node.daemon.wait() == 0


def test_stats_are_json_with_numbers(node: Node) -> None:
    node.daemon.client().set("key", "value")
    with node.calls() as calls:
        stats = json.loads(calls.Stats().statsjson)
    assert stats["server"]["process_id"] == node.daemon.pid
    assert stats["server"]["redis_version"] == "7.0.15"
    assert isinstance(stats["cpu"]["used_cpu_user"], float)
    assert stats["commandstats"]["cmdstat_set"]["calls"] == 1
    assert stats["keyspace"]["db0"]["keys"] == 1


def test_software(node: Node) -> None:
    with node.calls() as calls:
        version = calls.SoftwareVersion().version
        assert version == node.daemon.client().info("server")["oort_version"]
        assert calls.SelfUpgrade(messages.SelfUpgradeMsg(version=version)).status
        answer = calls.SelfUpgrade(messages.SelfUpgradeMsg(version="99.0"))
        assert not answer.status
        assert "apt-get install oortd=99.0" in answer.msg


def test_a_standalone_node_takes_no_ring(node: Node) -> None:
    builder = Builder(replicas=1)
    builder.add(capacity=1)
    ring = ring_of(builder, 1_000)
    with node.calls() as calls:
        assert calls.RingUpdate(messages.Ring(version=1, ring=b"ring")).newversion == 0
        assert calls.RingUpdate(messages.Ring(version=1, ring=ring.ring)).newversion == 0
        with pytest.raises(grpc.RpcError) as raised:
            calls.RingUpdate(ring)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert calls.HealthCheck().status


def ring_of(builder: Builder, now: int) -> messages.Ring:
    builder.rebalance(now)
    return messages.Ring(version=builder.version, ring=files.encode(builder.ring()))


def test_rings(start_node: Callable[..., Node], tmp_path: Path) -> None:
    """A node takes a newer ring; anything else changes nothing, and the answer says so."""
    builder = Builder(replicas=2)
    builder.add(node_id=1, capacity=1, addresses=["127.0.0.1:8001"])
    older = ring_of(builder, 1_000)
    first = ring_of(builder, 2_000)
    path = tmp_path / "first.ring"
    path.write_bytes(first.ring)
    node = start_node(OORTD_SKIP_SRV="true", OORT_RING_FILE=str(path), OORT_LOCALID="1")
    client = node.daemon.client()
    builder.add(node_id=2, capacity=1, addresses=["127.0.0.1:8002"], conf=b"MaxClients = 77\n")
    builder.conf = b"MaxClients = 55\n"
    second = ring_of(builder, 3_000)
    third = ring_of(builder, 4_000)

    def held() -> tuple[object, ...]:
        kept = sorted((file.name, file.read_bytes()) for file in tmp_path.rglob("*-oort.ring"))
        facts = client.info("ring")
        return facts["oort_ring_version"], facts["oort_ring_nodes"], kept

    with node.calls() as calls:
        assert calls.RingUpdate(second).newversion == 3_000
        until(lambda: client.config_get("maxclients") == {"maxclients": "55"})
        before = held()
        assert before[:2] == (3_000, 2)
        assert ("3000-oort.ring", second.ring) in before[2]
        for wrong in (
            older,
            first,
            second,
            messages.Ring(version=3_000, ring=third.ring),
            messages.Ring(version=5_000, ring=third.ring),
            messages.Ring(version=-1, ring=third.ring),
            messages.Ring(version=0, ring=third.ring),
            messages.Ring(version=4_000, ring=b""),
            messages.Ring(version=4_000, ring=third.ring[:-1]),
            messages.Ring(version=4_000, ring=third.ring + b"x"),
            messages.Ring(version=4_000, ring=b"\x1f\x8b" + os.urandom(1000)),
            messages.Ring(version=4_000, ring=gzip.compress(bytes(32 << 20))),
            messages.Ring(version=4_000, ring=files.encode(builder)),
            messages.Ring(version=3_500, ring=third.ring),
            messages.Ring(),
        ):
            assert calls.RingUpdate(wrong).newversion == 3_000
            assert held() == before
        assert calls.RingUpdate(third).newversion == 4_000
        assert held()[:2] == (4_000, 2)
        # A ring without the node is taken too, because the node may have been removed.
        builder.remove(1)
        assert calls.RingUpdate(ring_of(builder, 5_000)).newversion == 5_000
        assert calls.HealthCheck().status
    assert client.set("key", "value")
    facts = client.info("ring")
    assert (facts["oort_ring_nodes"], facts["oort_ring_member"]) == (1, 0)


# ---- oort-cli ctl ------------------------------------------------------------


@pytest.fixture
def ctl(
    node: Node, authority: certificates.CertificateAuthority, tmp_path: Path
) -> Callable[..., int]:
    names = [tmp_path / name for name in ("operator.crt", "operator.key", "ca.crt")]
    save_identity(authority.issue("operator", "me", []), *names)
    options = [f"--{name}={path}" for name, path in zip(("cert", "key", "ca"), names, strict=True)]

    def run(*arguments: str) -> int:
        return oort_cli(["ctl", f"--port={node.port}", *options, *arguments])

    return run


def test_ctl(node: Node, ctl: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("health") == 0
    assert "connections" in capsys.readouterr().out
    assert ctl("stop") == 0
    assert ctl("--json", "health") == 1
    out = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (out["ok"], out["message"]) == (False, "no client is served until Start")
    assert ctl("start") == 0
    capsys.readouterr()
    assert ctl("--json", "stats") == 0
    assert json.loads(capsys.readouterr().out)["stats"]["server"]["tcp_port"] == node.daemon.port
    assert ctl("upgrade", "99.0") == 1
    assert "apt-get install oortd=99.0" in capsys.readouterr().out


def test_errors_of_ctl(
    node: Node, ctl: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.ring"
    builder = Builder(replicas=1)
    builder.add(capacity=1, addresses=["127.0.0.1:8001"])
    builder.rebalance(time.time_ns())
    files.write(path, builder.ring())
    assert ctl("ring", str(path)) == 1
    assert "FAILED_PRECONDITION" in capsys.readouterr().err
    assert ctl("--port=1", "health") == 3
    assert "UNAVAILABLE" in capsys.readouterr().err
    assert ctl("--cert=/nowhere", "health") == 1
    assert "/nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        ctl("upgrade")
    assert raised.value.code == 2


def test_compressed_calls_are_refused(node: Node) -> None:
    """The size of a message is unknown until it is decompressed."""
    identity = node.authority.issue("syndicate", "somebody", [])
    credentials = channels.channel_credentials(node.authority.certificate, identity)
    with (
        grpc.secure_channel(f"127.0.0.1:{node.port}", credentials) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        CmdCtrlStub(channel).RingUpdate(
            messages.Ring(version=1, ring=bytes(100 << 20)),
            timeout=SECONDS,
            compression=grpc.Compression.Gzip,
        )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
