"""oortd in a syndicate: joining, registering, its layers, its cache, and what a ring changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from oort import tls
from oort.cli.main import main as oort_cli
from oort.daemon import cache
from oort.daemon.daemon import Daemon
from oort.daemon.membership import Membership
from oort.daemon.ring_configuration import RingConfiguration, of_ring
from oort.ring import files
from oort.ring.builder import Builder
from oort.syndicate.syndicate_pb2 import NodeConfig, RingStatus
from oort.syndicate.syndicate_pb2_grpc import (
    SyndicateServicer,
    add_SyndicateServicer_to_server,
)
from tests.conftest import until
from tests.daemon.syndicate import RingNode, Synd

HOURS = 3600


@pytest.fixture(scope="module")
def synd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synd]:
    """One for all tests here; each has its own nodes, and takes them out again."""
    made = Synd(tmp_path_factory.mktemp("synd"))
    yield made.start()
    made.end()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., RingNode]]:
    """make(env): a node that is not started yet."""
    made: list[RingNode] = []

    def one(env: dict[str, str] | None = None, *flags: str) -> RingNode:
        made.append(RingNode(tmp_path / f"node{len(made)}", *flags, env=env))
        return made[-1]

    yield one
    for node in made:
        node.end()


@pytest.fixture
def node(synd: Synd, make: Callable[..., RingNode]) -> Iterator[RingNode]:
    """One with all it takes to join; afterwards the ring is empty again."""
    if synd.process is None or synd.process.poll() is not None:
        synd.start()
    yield make(
        {
            "OORT_SYNDICATE_OVERRIDE": synd.server,
            "OORT_SYNDICATE_FINGERPRINT": synd.fingerprint,
            "OORT_JOIN_TOKEN": synd.token(),
        }
    )
    if synd.process.poll() is not None:
        synd.start()
    synd.set_config("")
    left = synd.nodes()
    if left:
        synd.client("rm", *(one["id"] for one in left))


def authority_of(synd: Synd) -> tls.CertificateAuthority:
    """As its machine's root could."""
    for part in sorted((synd.directory / "state").rglob("*")):
        text = part.read_bytes() if part.is_file() else b""
        at = text.find(b"-----BEGIN PRIVATE")
        if at > 0:
            return tls.CertificateAuthority.load(text[:at], text[at:])
    raise AssertionError("there is no authority in synd's state")


# ---- joining ---------------------------------------------------------------------


def test_joins_registers_and_serves(synd: Synd, node: RingNode) -> None:
    synd.set_config('StoreType = "mapstore"\n')
    node.start()
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == f"syndicate {synd.server}"
    assert facts["oort_ring_nodes"] == 1
    assert facts["oort_ring_member"] == 1
    assert facts["oort_syndicate_connected"] == 1
    assert node.client().info("server")["oort_store"] == "mapstore"
    # The ring is on disk before anybody hears of it; the key is nobody else's.
    version = facts["oort_ring_version"]
    kept = files.read_ring(node.data_dir / f"{version}-oort.ring")
    assert str(kept.nodes[0].id) == str(facts["oort_ring_local_id"])
    assert stat.S_IMODE((node.keys / "server.key").stat().st_mode) == 0o600
    certificate = (node.keys / "server.crt").read_bytes()
    role = tls.role_of(certificate)
    assert role is not None
    assert role[0] == "node"
    assert "127.0.0.1" in tls.names_of(certificate)
    assert stat.S_IMODE(node.cache.stat().st_mode) == 0o600
    # Known by its certificate from now on: the token is not needed, and the id is the same.
    del node.env["OORT_JOIN_TOKEN"]
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    node.restart()
    assert node.ring_facts()["oort_ring_local_id"] == facts["oort_ring_local_id"]


def test_is_controlled_by_its_operator(
    synd: Synd, node: RingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enabled = auto: with mutual TLS, and a certificate for the addresses it registered."""
    node.start()
    port = re.findall(r"CmdCtrl on 127\.0\.0\.1:(\d+) \(mutual TLS\)", node.log())[-1]
    own = synd.directory
    names = [f"--cert={own}/operator.crt", f"--key={own}/operator.key", f"--ca={own}/ca.crt"]
    code = oort_cli(["ctl", "--host=127.0.0.1", f"--port={port}", *names, "--json", "stats"])
    out = capsys.readouterr().out.splitlines()[-1]
    assert code == 0, out
    ring = json.loads(out)["stats"]["ring"]
    assert ring["oort_ring_local_id"] == str(node.ring_facts()["oort_ring_local_id"])
    assert ring["oort_ring_nodes"] == 1


def test_the_authority_in_a_file_is_enough(synd: Synd, node: RingNode) -> None:
    """And the token may be in a file.  What the node says of itself is in the ring."""
    node.env["OORT_TIERS"] = "rack1, site2"
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    (node.keys / "join.token").write_text(node.env.pop("OORT_JOIN_TOKEN") + "\n")
    (node.keys / "ca.crt").write_bytes((synd.directory / "ca.crt").read_bytes())
    node.start()
    (found,) = synd.nodes()
    assert found["meta"] == socket.gethostname()
    assert found["tiers"] == ["rack1", "site2"]
    assert "127.0.0.1:8001" in found["addresses"]
    # GiB of the disk that holds its data.
    assert found["capacity"] == max(1, shutil.disk_usage(node.data_dir).total // 1024**3)


def test_the_fingerprint_may_be_of_the_certificate_itself(synd: Synd, node: RingNode) -> None:
    shown = tls.fetch_certificate("localhost", synd.port, 60)
    node.env["OORT_SYNDICATE_FINGERPRINT"] = tls.fingerprint(shown).upper()
    node.start()
    assert node.ring_facts()["oort_ring_nodes"] == 1


def test_the_token_alone_is_enough(node: RingNode) -> None:
    """It names its authority."""
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    node.start()
    assert node.ring_facts()["oort_ring_nodes"] == 1


def test_a_key_of_its_own_is_replaced(node: RingNode) -> None:
    """What oort-cli keys makes for a server on its own is not of the syndicate."""
    assert oort_cli(["keys", "--dir", str(node.keys)]) == 0
    node.start()
    role = tls.role_of((node.keys / "server.crt").read_bytes())
    assert role is not None
    assert role[0] == "node"


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"OORT_SYNDICATE_FINGERPRINT": "00" * 32}, "fingerprint is .*, not 0000"),
        ({"OORT_JOIN_TOKEN": ""}, "there is no join token in OORT_JOIN_TOKEN or .*join.token"),
        ({"OORT_JOIN_TOKEN": "oort-join-AAAA"}, "OORT_JOIN_TOKEN: the join token is damaged"),
        ({"OORT_CMDCTRLCONFIG_CERT_FILE": "/nowhere/server.crt"}, "cannot write /nowhere/server"),
        ({"OORT_CMDCTRLCONFIG_CA_FILE": "/etc"}, "cannot read /etc: Is a directory"),
        ({"OORT_CMDCTRLCONFIG_CA_FILE": f"/{'a' * 300}"}, "cannot read /aaa.*: File name too long"),
        ({"OORT_SYNDICATE_OVERRIDE": "localhost:1"}, "localhost:1: .*refused"),
        ({"OORT_SYNDICATE_OVERRIDE": "a..b"}, "a..b:8443: 'a..b' is not a host name"),
    ],
)
def test_what_keeps_it_from_joining_is_one_line(
    node: RingNode, env: dict[str, str], text: str
) -> None:
    """Exit code 1: systemd tries again.  Nothing of the token is used up."""
    token = node.env["OORT_JOIN_TOKEN"]
    before = dict(node.env)
    node.env.update(env)
    code, line = node.cannot_start()
    assert code == 1
    assert re.search(f"no syndicate answers: .*{text}", line), line
    assert "there is no cached configuration" in line
    assert token not in line
    assert not (node.keys / "server.crt").exists()
    node.env = before
    node.start()


def test_a_certificate_of_another_syndicate_is_named(synd: Synd, node: RingNode) -> None:
    other = tls.CertificateAuthority.create("another")
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    tls.save_identity(other.issue("node", "here", ["localhost"]), *names)
    assert "certificate verify failed" in node.cannot_start()[1].lower().replace("_", " ")
    names[2].write_bytes((synd.directory / "ca.crt").read_bytes())
    assert f"{names[0]} is of another authority than {names[2]}" in node.cannot_start()[1]
    names[2].unlink()
    names[0].unlink()
    node.start()


def test_a_certificate_follows_the_addresses(synd: Synd, node: RingNode) -> None:
    """The syndicate calls the node at what it has registered."""
    node.start()
    node.stop()
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    before = tls.load_identity(*names)
    assert tls.names_of(before.certificate)
    authority = authority_of(synd)
    tls.save_identity(authority.issue("node", "here", ["localhost"]), *names)
    node.start()
    until(lambda: "certificate renewed" in node.log())
    renewed = tls.load_identity(*names)
    # Another host name takes a token.
    assert set(tls.names_of(renewed.certificate)) == {
        name for name in tls.names_of(before.certificate) if name != socket.gethostname()
    }


def test_a_token_has_its_uses_and_its_role(
    synd: Synd, node: RingNode, make: Callable[..., RingNode]
) -> None:
    node.start()
    other = make(dict(node.env, OORT_CONFIG_CACHE="/nowhere/cache"))
    for name, file in (("CERT", "crt"), ("KEY", "key"), ("CA", "ca")):
        other.env[f"OORT_CMDCTRLCONFIG_{name}_FILE"] = str(other.keys / file)
    assert "the token has been used" in other.cannot_start()[1]
    other.env["OORT_JOIN_TOKEN"] = synd.token(role="operator")
    assert "for an operator, not for a node" in other.cannot_start()[1]


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"OORT_SYNDICATE_OVERRIDE": "a b"}, "OORT_SYNDICATE_OVERRIDE: 'a b' is not HOST:PORT"),
        ({"OORT_SYNDICATE_FINGERPRINT": "xy"}, "OORT_SYNDICATE_FINGERPRINT: 'xy' is no SHA-256"),
        ({"OORT_SYNDICATE_OVERRIDE": "", "OORTD_SKIP_SRV": "perhaps"}, "OORTD_SKIP_SRV"),
    ],
)
def test_wrong_variables_are_not_tried_again(
    make: Callable[..., RingNode], env: dict[str, str], text: str
) -> None:
    code, line = make({"OORT_SYNDICATE_OVERRIDE": "localhost:1"} | env).cannot_start()
    assert code == os.EX_CONFIG
    assert text in line


def test_override_wins_over_skipping(node: RingNode) -> None:
    node.env["OORTD_SKIP_SRV"] = "true"
    node.start()
    assert "syndicate" in str(node.ring_facts()["oort_ring_source"])


def test_a_certificate_is_renewed_in_time(synd: Synd, node: RingNode) -> None:
    """Two thirds of its life are over from the beginning: ten of its fifteen minutes."""
    authority = authority_of(synd)
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    short = authority.issue("node", "here", ["localhost"], days=280 / 86400)
    tls.save_identity(short, *names)
    node.start()
    until(lambda: names[0].read_bytes() != short.certificate)
    until(lambda: "certificate renewed" in node.log())
    renewed = tls.load_identity(*names)
    assert tls.expiry(renewed.certificate) > tls.expiry(short.certificate)
    assert node.client().ping()


# ---- layers ---------------------------------------------------------------------------


def test_every_layer_wins_over_the_one_before(
    synd: Synd, node: RingNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = 'MaxClients = 11\nTCPKeepalive = 11\nIdleTimeout = 11\nFsync = "no"\nWorkers = 11\n'
    synd.set_config(ring + 'StoreType = "oortstore"\nNoSuch = 1\n[NoSection]\na = "b"\n')
    node.start()
    assert "ring configuration: unknown setting NoSuch; it is left out" in node.log()
    assert "ring configuration: unknown section [NoSection]; it is left out" in node.log()
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
    """At the start; while it runs nothing changes.  Exit code 1: the ring may be put right."""
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
    # What is wrong is not what is remembered.
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
    # A node's own, over it.
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
    """And does not put itself back in before it is started again."""
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


# ---- a syndicate that is not right ---------------------------------------------------------


class Registrar(SyndicateServicer):
    """Answers a registration with what it is given."""

    def __init__(self) -> None:
        self.answer = NodeConfig()

    def GetVersion(self, request, context):  # noqa: N802
        return RingStatus(status=True, version=1)

    def RegisterNode(self, request, context):  # noqa: N802
        return self.answer


@pytest.fixture
def registrar(make: Callable[..., RingNode]) -> Iterator[tuple[Registrar, RingNode]]:
    """And a node that has its certificate."""
    authority = tls.CertificateAuthority.create("a test")
    service = Registrar()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_SyndicateServicer_to_server(service, server)
    identity = authority.issue("syndicate", "synd", ["localhost"])
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity))
    server.start()
    node = make({"OORT_SYNDICATE_OVERRIDE": f"localhost:{port}"})
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    tls.save_identity(authority.issue("node", "here", ["localhost"]), *names)
    yield service, node
    server.stop(None)


def test_bad_rings_from_a_syndicate(registrar: tuple[Registrar, RingNode]) -> None:
    service, node = registrar
    builder = Builder(replicas=1)
    builder.add(node_id=7, capacity=1)
    builder.rebalance()
    ring = files.encode(builder.ring())
    builder.conf = b"\xff\xfe is no text"
    builder.rebalance()
    for answer, text in (
        (NodeConfig(localid=7), "damaged ring data"),
        (NodeConfig(localid=7, ring=b"garbage"), "ring data"),
        (NodeConfig(localid=7, ring=ring[:-1]), "ring data"),
        (NodeConfig(localid=7, ring=files.encode(builder)), "this is a builder"),
        (NodeConfig(localid=8, ring=ring), "made this node 8, and its ring"),
        (NodeConfig(ring=ring), "made this node 0, and its ring"),
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
    # Another configuration does not take it back; a restart does what was asked for.
    set_and_wait(53)
    assert asked() == 1
    node.restart()
    assert asked() == 0
    # That of CmdCtrl as well.
    set_and_wait(54, "restart=true")
    until(lambda: asked() == 1)
    assert node.client().ping()
    port = re.findall(r"CmdCtrl on 127\.0\.0\.1:(\d+)", node.log())[-1]
    own = synd.directory
    names = [f"--cert={own}/operator.crt", f"--key={own}/operator.key", f"--ca={own}/ca.crt"]
    assert oort_cli(["ctl", "--host=127.0.0.1", f"--port={port}", *names, "restart"]) == 0
    assert asked() == 0


# ---- the cache --------------------------------------------------------------------------


def test_boots_from_a_fresh_cache_and_keeps_trying(synd: Synd, node: RingNode) -> None:
    """The cache is reached through a link, as where it is installed."""
    target = node.directory / "inside" / "file.cache"
    target.parent.mkdir()
    node.cache.symlink_to("inside/file.cache")
    synd.set_config("MaxClients = 123\n")
    node.start()
    before = node.ring_facts()
    node.stop()
    assert node.cache.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    synd.kill()
    node.start()
    assert re.search(r"no syndicate answers: .*; starting from the config.* cached", node.log())
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == f"cache {node.cache}"
    for same in ("oort_ring_local_id", "oort_ring_version", "oort_ring_nodes"):
        assert facts[same] == before[same]
    assert node.client().config_get("maxclients") == {"maxclients": "123"}
    synd.start()
    until(lambda: node.ring_facts()["oort_syndicate_connected"] == 1)
    assert node.ring_facts()["oort_ring_source"] == f"syndicate {synd.server}"


def damaged(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def stale(path: Path) -> None:
    old = time.time() - 49 * HOURS
    os.utime(path, (old, old))


def said_to_be_stale(path: Path) -> None:
    """A copy has a new time; what was written in it counts too."""
    content = json.loads(path.read_text())
    content["written"] -= 49 * HOURS
    path.write_text(json.dumps(content))


def for_all_to_write(path: Path) -> None:
    path.chmod(0o666)


def missing(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED = (
    (damaged, "is damaged"),
    (stale, "is 49 hours old: it counts for 48"),
    (said_to_be_stale, "is 49 hours old"),
    (for_all_to_write, "does not count: others than uid"),
    (missing, "there is no cached configuration"),
    (a_directory, "cannot be read"),
)


def test_caches_that_do_not_count(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    good = node.cache.read_bytes()
    for spoil, text in SPOILED:
        node.cache.unlink(missing_ok=True)
        node.cache.touch(0o600)
        node.cache.write_bytes(good)
        spoil(node.cache)
        code, line = node.cannot_start()
        assert code == 1
        assert "no syndicate answers" in line
        assert f"{node.cache} {text}" in line or f"{text} {node.cache}" in line
        assert "--standalone" in line


def test_a_cache_of_47_hours_counts(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    old = time.time() - 47 * HOURS
    os.utime(node.cache, (old, old))
    node.start()
    assert "cached 47 h ago" in node.log()


class Silent:
    """A follower that brings nothing."""

    def start(self, membership: Membership) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_cache_is_written_again_every_hour_in_touch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a node whose ring does not change for two days could not start without a syndicate."""
    path = tmp_path / "a.cache"
    builder = Builder(replicas=1)
    builder.add(node_id=7, capacity=1)
    builder.rebalance()
    ring = builder.ring()
    data = files.encode(ring)
    membership = Membership(
        "test", 7, of_ring(ring, 7, RingConfiguration()),
        ring_data=data, version=ring.version, follower=Silent(),
    )  # fmt: skip
    settings = SimpleNamespace(data_dir=str(tmp_path / "data"), config_cache=str(path))
    membership.attach(cast(Daemon, SimpleNamespace(settings=settings)))
    membership.begin()

    def written_again_after(seconds: float) -> bool:
        old = time.time() - 47 * HOURS
        os.utime(path, (old, old))
        now = time.monotonic()
        with monkeypatch.context() as later:
            later.setattr("oort.daemon.membership.time.monotonic", lambda: now + seconds)
            membership.in_touch()
        return cache.read(str(path)).age < HOURS

    assert not written_again_after(HOURS / 2)
    assert written_again_after(HOURS + 1)
    assert cache.read(str(path)).local_id == 7


def test_without_its_ring_file_it_boots_all_the_same(synd: Synd, node: RingNode) -> None:
    node.start()
    node.stop()
    synd.kill()
    (ring,) = node.data_dir.glob("*-oort.ring")
    ring.write_bytes(b"garbage")
    node.start()
    assert node.ring_facts()["oort_ring_version"] == 0
    assert str(ring) in node.log()
    synd.start()
    until(lambda: node.ring_facts()["oort_ring_nodes"] == 1)


def test_a_cache_that_cannot_be_written_is_said(node: RingNode) -> None:
    node.env["OORT_CONFIG_CACHE"] = "/proc/nowhere"
    node.start()
    until(lambda: "cannot write the cached configuration /proc/nowhere" in node.log())
    assert node.client().ping()


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
    builder.rebalance()
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
        ("ring", "12345", "there is no node 12345", 1),
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
