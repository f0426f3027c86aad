"""oortd in a ring: layers of configuration, effects of a ring, a ring file, a standalone node."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from oort.cli.main import main as oort_cli
from oort.ring import files
from oort.ring.builder import Builder
from oort.syndicate.syndicate_pb2 import NodeConfig, RingStatus
from oort.syndicate.syndicate_pb2_grpc import (
    SyndicateServicer,
    add_SyndicateServicer_to_server,
)
from oort.tls import certificates, channels
from oort.tls.files import save_identity
from tests.conftest import until
from tests.membership.syndicate import RingNode, Synd

# ---- layers ---------------------------------------------------------------------------


def test_every_layer_wins_over_the_one_before(
    synd: Synd, node: RingNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = 'MaxClients = 11\nTCPKeepalive = 11\nIdleTimeout = 11\nFsync = "no"\nWorkers = 11\n'
    synd.set_config(ring + 'StoreType = "oortstore"\nNoSuch = 1\n[NoSection]\na = "b"\n')
    node.start()
    assert "ring configuration: unknown setting NoSuch; it is ignored" in node.log()
    assert "ring configuration: unknown section [NoSection]; it is ignored" in node.log()
    local_id = str(node.ring_facts()["oort_ring_local_id"])
    path = tmp_path / "node.conf"
    path.write_text("TCPKeepalive = 22\nIdleTimeout = 22\nFsync = always\nWorkers = 2\n")
    assert synd.client("set", local_id, f"config={path}") == 0
    local = tmp_path / "oortd.conf"
    local.write_text("IdleTimeout = 33\nFsync = everysec\nWorkers = 3\n")
    node.env |= {"OORT_FSYNC": "always", "OORT_WORKERS": "0"}
    node.flags += ["--config", str(local), "--workers", "1"]
    node.restart()
    expected = {
        "LogLevel": "info  # default",
        "MaxClients": "11  # {}ring configuration",
        "TCPKeepalive": "22  # {}node configuration",
        "IdleTimeout": f"33  # {local}",
        "Fsync": "always  # environment",
        "Workers": "1  # flags",
        "StoreType": "valuestore  # {}ring configuration",
    }
    shown = node.shown()
    assert {name: shown[name] for name in expected} == {
        name: text.format("") for name, text in expected.items()
    }
    wanted = node.client().config_get("maxclients", "timeout", "tcp-keepalive", "appendfsync")
    assert wanted == {
        "maxclients": "11",
        "timeout": "33",
        "tcp-keepalive": "22",
        "appendfsync": "always",
    }
    synd.kill()
    shown = node.shown()
    assert {name: shown[name] for name in expected} == {
        name: text.format("cached ") for name, text in expected.items()
    }


def test_a_wrong_value_is_an_error_with_its_place(synd: Synd, node: RingNode) -> None:
    """The start fails with exit code 1, because somebody may correct the ring.  A running node
    changes nothing."""
    synd.set_config("MaxClients = 77\n")
    node.start()
    synd.set_config("MaxClients = 78\n[ValueStoreConfig]\nSegmentSize = big\n")
    wrong = r"ring configuration: \[ValueStoreConfig\] SegmentSize = 'big': must be a size"
    until(lambda: re.search(f"{wrong}.*nothing was changed", node.log()) is not None)
    assert node.client().config_get("maxclients") == {"maxclients": "77"}
    node.stop()
    code, line = node.cannot_start()
    assert code == 1
    assert re.search(wrong, line)
    # An invalid configuration is not cached.
    synd.kill()
    node.start()
    assert node.client().config_get("maxclients") == {"maxclients": "77"}


# ---- following the ring -----------------------------------------------------------------


def test_a_change_is_applied_as_by_a_reload(synd: Synd, node: RingNode, tmp_path: Path) -> None:
    node.start()
    client = node.client()
    before = node.ring_facts()
    segment = "[ValueStoreConfig]\nSegmentSize = 8 MiB\n"
    synd.set_config(f"MaxClients = 55\nRequirePass = secret\n{segment}")
    until(lambda: "RequirePass = (hidden)" in node.log())
    client = node.client(password="secret")
    assert client.config_get("maxclients") == {"maxclients": "55"}
    assert client.info("server")["oort_needs_restart"] == "[ValueStoreConfig]SegmentSize"
    assert "[ValueStoreConfig] SegmentSize = 8 MiB needs a restart" in node.log()
    version = client.info("ring")["oort_ring_version"]
    assert version > before["oort_ring_version"]
    assert (node.data_dir / f"{version}-oort.ring").exists()
    until(lambda: json.loads(node.cache.read_text())["version"] == str(version))
    # The configuration of the node overrides that of the ring.
    path = tmp_path / "node.conf"
    path.write_text("MaxClients = 66\nRequirePass = ''\n")
    assert synd.client("set", str(before["oort_ring_local_id"]), f"config={path}") == 0
    until(lambda: 'RequirePass = "" (was (hidden))' in node.log())
    assert node.client().config_get("maxclients") == {"maxclients": "66"}


def test_a_syndicate_that_was_killed_is_found_again(synd: Synd, node: RingNode) -> None:
    node.start()
    before = node.ring_facts()
    synd.kill()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 0)
    assert node.client().set("key", "value")
    assert f"syndicate {synd.server} is lost" in node.log()
    synd.start()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 1)
    assert node.ring_facts()["oort_ring_local_id"] == before["oort_ring_local_id"]
    synd.set_config("MaxClients = 44\n")
    until(lambda: node.client().config_get("maxclients") == {"maxclients": "44"})


def test_a_node_that_is_taken_out_serves_on(synd: Synd, node: RingNode) -> None:
    """The node registers again only after a restart."""
    node.start()
    local_id = str(node.ring_facts()["oort_ring_local_id"])
    assert synd.client("rm", local_id) == 0
    until(lambda: node.ring_facts()["oort_ring_member"] == 0)
    assert node.client().set("key", "value")
    synd.kill()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 0)
    synd.start()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 1)
    assert node.ring_facts()["oort_ring_member"] == 0
    node.restart()
    assert node.ring_facts()["oort_ring_member"] == 1


# ---- a faulty syndicate --------------------------------------------------------------------


class Registrar(SyndicateServicer):
    """Answers a registration with a given message."""

    def __init__(self) -> None:
        self.answer = NodeConfig()

    def GetVersion(self, request, context):  # noqa: N802
        return RingStatus(status=True, version=1)

    def RegisterNode(self, request, context):  # noqa: N802
        return self.answer


@pytest.fixture
def registrar(make: Callable[..., RingNode]) -> Iterator[tuple[Registrar, RingNode]]:
    """A faulty syndicate, and a node that has joined it."""
    authority = certificates.CertificateAuthority.create("a test")
    service = Registrar()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_SyndicateServicer_to_server(service, server)
    identity = authority.issue("syndicate", "synd", ["localhost"])
    port = server.add_secure_port("127.0.0.1:0", channels.server_credentials(identity))
    server.start()
    node = make({"OORT_SYNDICATE_OVERRIDE": f"localhost:{port}"})
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    save_identity(authority.issue("node", "here", ["localhost"]), *names)
    yield service, node
    server.stop(None)


def test_bad_rings_from_a_syndicate(registrar: tuple[Registrar, RingNode]) -> None:
    service, node = registrar
    builder = Builder(replicas=1)
    builder.add(node_id=7, capacity=1)
    builder.rebalance(time.time_ns())
    ring = files.encode(builder.ring())
    builder.conf = b"\xff\xfe is no text"
    builder.rebalance(time.time_ns())
    for answer, text in (
        (NodeConfig(localid=7), "damaged ring data"),
        (NodeConfig(localid=7, ring=b"garbage"), "ring data"),
        (NodeConfig(localid=7, ring=ring[:-1]), "ring data"),
        (NodeConfig(localid=7, ring=files.encode(builder)), "this is a builder"),
        (NodeConfig(localid=8, ring=ring), "gave this node the id 8, but its ring"),
        (NodeConfig(ring=ring), "gave this node the id 0, but its ring"),
        (NodeConfig(localid=7, ring=files.encode(builder.ring())), "is not UTF-8 text"),
    ):
        service.answer = answer
        code, line = node.cannot_start()
        assert code == 1
        assert text in line
    assert not node.data_dir.exists()
    service.answer = NodeConfig(localid=7, ring=ring)
    node.start()
    assert node.ring_facts()["oort_ring_local_id"] == 7


def test_a_configuration_may_ask_for_a_restart(synd: Synd, node: RingNode, tmp_path: Path) -> None:
    def asked() -> object:
        return node.ring_facts()["oort_ring_restart_asked"]

    node.start()
    path = tmp_path / "ring.conf"

    def set_and_wait(clients: int, *more: str) -> None:
        path.write_text(f"MaxClients = {clients}\n")
        assert synd.client("set", f"config={path}", *more) == 0
        until(lambda: f"MaxClients = {clients}" in node.log())

    set_and_wait(51)
    set_and_wait(52, "restart=true")
    until(lambda: asked() == 1)
    assert node.log().count("the ring's configuration asks for a restart of this node") == 1
    # Another configuration does not cancel the request.  A restart fulfils it.
    set_and_wait(53)
    assert asked() == 1
    node.restart()
    assert asked() == 0
    # CmdCtrl's Restart fulfils the request too.
    set_and_wait(54, "restart=true")
    until(lambda: asked() == 1)
    assert node.client().ping()
    port = re.findall(r"CmdCtrl on 127\.0\.0\.1:(\d+)", node.log())[-1]
    own = synd.directory
    names = [f"--cert={own}/operator.crt", f"--key={own}/operator.key", f"--ca={own}/ca.crt"]
    assert oort_cli(["ctl", "--host=127.0.0.1", f"--port={port}", *names, "restart"]) == 0
    assert asked() == 0


# ---- a ring file --------------------------------------------------------------------------


def ring_file(path: Path) -> list[int]:
    builder = Builder(replicas=2)
    for number in range(3):
        builder.add(
            capacity=1,
            addresses=[f"127.0.0.1:{8001 + number}"],
            conf=b"MaxClients = %d" % (100 + number),
        )
    builder.conf = b'StoreType = "mapstore"\n[TCPMsgRingConfig]\nUseTLS = true\n'
    builder.rebalance(time.time_ns())
    files.write(path, builder.ring())
    return [node.id for node in builder.nodes]


@pytest.mark.parametrize("form", ["{}", "{:x}", "0x{:X}"])
def test_a_ring_file_without_a_syndicate(
    make: Callable[..., RingNode], tmp_path: Path, form: str
) -> None:
    path = tmp_path / "a.ring"
    ids = ring_file(path)
    node = make(
        {
            "OORTD_SKIP_SRV": "true",
            "OORT_RING_FILE": str(path),
            "OORT_LOCALID": form.format(ids[1]),
            "OORT_LISTEN_ADDRESS": "127.0.0.1:0",
        }
    )
    node.start()
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == f"file {path}"
    assert facts["oort_ring_nodes"] == 3
    assert str(facts["oort_ring_local_id"]) == str(ids[1])
    assert node.client().config_get("maxclients") == {"maxclients": "101"}
    assert node.client().info("server")["oort_store"] == "mapstore"
    assert node.shown()["MaxClients"] == "101  # node configuration"
    assert not node.cache.exists()
    assert "grpc" not in Path(f"/proc/{node.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("content", "local_id", "text", "code"),
    [
        (None, "1", "No such file", 1),
        (b"garbage", "1", "not gzip, or is damaged", 1),
        (b"", "1", "cut off", 1),
        ("ring", "", "set OORT_LOCALID", 1),
        ("ring", "12345", "has no node 12345", 1),
        ("ring", "one", "OORT_LOCALID = 'one'", os.EX_CONFIG),
    ],
)
def test_bad_ring_files(
    make: Callable[..., RingNode],
    tmp_path: Path,
    content: bytes | str | None,
    local_id: str,
    text: str,
    code: int,
) -> None:
    path = tmp_path / "a.ring"
    if content == "ring":
        ring_file(path)
    elif content is not None:
        path.write_bytes(content)
    node = make({"OORTD_SKIP_SRV": "true", "OORT_RING_FILE": str(path), "OORT_LOCALID": local_id})
    ended, line = node.cannot_start()
    assert ended == code
    assert text in line


def test_alone_it_is_a_ring_of_one(make: Callable[..., RingNode]) -> None:
    node = make({"OORTD_SKIP_SRV": "true", "OORT_LOCALID": "7"})
    node.start()
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == "standalone"
    assert (facts["oort_ring_nodes"], facts["oort_ring_local_id"]) == (1, 7)
    assert facts["oort_ring_member"] == 1
