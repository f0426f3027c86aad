"""Tests of syndicate-client's command line with a syndicate over gRPC and mutual TLS."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time

import pytest

from oort.ring import files
from oort.syndicate.tool import main as tool
from oort.tls import certificates, channels, tokens
from oort.tls.files import save_identity
from tests.syndicate.tool.small_syndicate import serve, serve_node


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OORT"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def running():
    server, service, port = serve()
    yield service, port
    service.closed = True
    server.stop(None).wait()


@pytest.fixture
def service(running):
    """The syndicate without nodes and without a configuration."""
    service, _ = running
    with service.changed:
        for node in service.builder.nodes:
            service.builder.remove(node.id)
        service.builder.set_replicas(2)
        service.builder.conf = b""
        service.restart_required = False
        service.builder.rebalance(time.time_ns())
    return service


@pytest.fixture
def arguments(running, tmp_path):
    """The options of an operator."""
    service, port = running
    paths = [str(tmp_path / name) for name in ("operator.crt", "operator.key", "ca.crt")]
    save_identity(service.authority.issue("operator", "anna"), *paths)
    cert, key, ca = paths
    config = tmp_path / "syndicate.conf"
    config.write_text(
        f"[client]\nServer = 127.0.0.1:{port}\nCAFile = {ca}\nCertFile = {cert}\nKeyFile = {key}\n"
    )
    return ["--config", str(config)]


@pytest.fixture
def run(arguments, capsys):
    """run("version", ...) returns the output; `status` is the expected exit status."""

    def run(*given, status=0, options=arguments):
        assert tool.main([*options, *given]) == status
        out, err = capsys.readouterr()
        if status == 0:
            assert err == "" or given[0] == "token"
            return out
        assert out == ""
        assert re.fullmatch(r"syndicate-client: .*\n", err), "an error is one line"
        return err

    return run


def nodes_of(run, *filters):
    return json.loads(run("search", *filters, "--json"))


def add(run, meta, *more):
    run("add", f"meta={meta}", "capacity=100", f"tier0={meta}", f"address0={meta}:8001", *more)
    [node] = [node for node in nodes_of(run) if node["meta"] == meta]
    return node["id"]


def test_nodes_are_added_found_changed_and_removed(run, service):
    first = int(run("version"))
    config = add(run, "node1", "id=0x1f", "tier1=zone1", "address1=10.0.0.1:8001")
    assert config == "31"
    add(run, "node2", "active=false")
    assert nodes_of(run, "meta=node1") == [
        {
            "id": "31",
            "active": True,
            "capacity": 100,
            "tiers": ["node1", "zone1"],
            "addresses": ["node1:8001", "10.0.0.1:8001"],
            "meta": "node1",
            "conf": "",
        }
    ]
    for filters in (("id=31",), ("tier=zone1",), ("address=10.0.0.1:8001",), ("meta=node1",)):
        assert [node["meta"] for node in nodes_of(run, *filters)] == ["node1"]
    assert nodes_of(run, "meta=nobody") == []
    table = run("search").splitlines()
    assert table[0].split() == ["id", "active", "capacity", "tiers", "addresses", "meta"]
    assert [line.split()[-1] for line in table[1:]] == ["node1", "node2"]
    assert run("search", "meta=nobody") == "no such node\n"

    run("capacity", "node1", "250")
    run("active", "node2", "true")
    run("active", "0x000000000000001F", "false")
    run("addresses", "31", "10.0.0.9:8001", "10.0.0.10:8001")
    run("tiers", "31", "server9", "zone9")
    [node] = nodes_of(run, "id=31")
    assert (node["capacity"], node["active"]) == (250, False)
    assert node["addresses"] == ["10.0.0.9:8001", "10.0.0.10:8001"]
    assert node["tiers"] == ["server9", "zone9"]
    assert [node["active"] for node in nodes_of(run, "meta=node2")] == [True]

    version = json.loads(run("replicas", "3", "--json"))["version"]
    assert int(version) == service.ring.version > first
    assert service.ring.replica_count == 3
    run("rm", "node1", "node2")
    assert nodes_of(run) == []


def test_configurations_are_stored_unchanged(run, service, tmp_path):
    text = "[CmdCtrlConfig]\nListenAddress = 0.0.0.0:4444\n# é\n"
    (tmp_path / "conf").write_text(text)
    run("set", f"config={tmp_path}/conf", "restart=true")
    assert run("config") == text
    reply = json.loads(run("config", "--json"))
    assert reply["conf"] == text
    assert reply["restart_required"] is True
    assert reply["version"] == run("version").strip()
    add(run, "node1", f"config={tmp_path}/conf")
    assert run("config", "node1") == text
    (tmp_path / "conf").write_text("Fsync = always\n")
    run("set", "node1", f"config={tmp_path}/conf", "capacity=7", "meta=node 1")
    assert run("config", "node 1") == "Fsync = always\n"
    assert [node["capacity"] for node in nodes_of(run)] == [7]


def test_the_ring_is_fetched_and_watched(run, service, tmp_path):
    add(run, "node1")
    out = run("ring", str(tmp_path / "oort.ring"))
    ring = files.read_ring(tmp_path / "oort.ring")
    assert out == f"version {ring.version} is in {tmp_path}/oort.ring\n"
    assert [node.meta for node in ring.nodes] == ["node1"]
    watched = [json.loads(run("watch", "--count", "1", "--json"))]
    changer = threading.Timer(0.2, service.builder.rebalance, [time.time_ns()])
    changer.start()
    watched += [json.loads(line) for line in run("watch", "--count", "2", "--json").splitlines()]
    changer.join()
    versions = [int(each["version"]) for each in watched]
    assert versions[0] == versions[1] == ring.version < versions[2]
    assert (watched[0]["nodes"], watched[0]["active"], watched[0]["replicas"]) == (1, 1, 2)
    assert re.fullmatch(
        r"[-0-9]+ [:0-9]+  version \d+: 1 nodes \(1 active\), 2 replicas, \d+ partitions\n",
        run("watch", "--count", "1"),
    )


def test_the_holder_of_a_token_becomes_an_operator(run, service, running, tmp_path, capsys):
    _, port = running
    made = json.loads(run("token", "--role", "operator", "--seconds", "60", "--json"))
    assert (made["role"], made["uses"]) == ("operator", 1)
    assert made["authority"] == certificates.fingerprint(service.authority.certificate)
    there = tmp_path / "there"
    there.mkdir()
    config = tmp_path / "there.conf"
    config.write_text(
        f"[client]\nCertFile = {there}/o.crt\nKeyFile = {there}/o.key\nCAFile = {there}/ca.crt\n"
    )
    options = ["--config", str(config), "--server", f"127.0.0.1:{port}"]
    assert "get an operator's certificate" in run(
        "version", "--fingerprint", made["authority"], status=1, options=options
    )
    out = run("join", made["token"], options=options)
    assert out.startswith(f"{there}/o.crt: operator ")
    assert stat.S_IMODE((there / "o.key").stat().st_mode) == 0o600
    assert run("version", options=options) == run("version")
    # The token is used up; its certificate stays valid.
    refused = run("join", made["token"], status=1, options=options)
    assert "PERMISSION_DENIED: the token has been used" in refused
    assert run("version", options=options) == run("version")
    # The files of another authority are not changed.
    (there / "ca.crt").write_bytes(certificates.CertificateAuthority.create("other").certificate)
    before = (there / "o.crt").read_bytes()
    token = json.loads(run("token", "--role", "operator", "--json"))["token"]
    assert "is of another authority" in run("join", token, status=1, options=options)
    assert (there / "o.crt").read_bytes() == before
    (there / "ca.crt").write_bytes(service.authority.certificate)
    run("join", token, options=options)  # the failed attempt did not use the token
    assert (there / "o.crt").read_bytes() != before
    # Without --json, standard output has only the token.
    assert tool.main([*options, "token", "--uses", "2"]) == 0
    out, err = capsys.readouterr()
    token = tokens.read_token(out)
    assert out.count("\n") == 1
    assert token.role == "node"
    assert err.startswith("For 2 nodes, until ")


def test_a_node_may_not_change_the_ring(run, running, tmp_path, service):
    _, port = running
    paths = [str(tmp_path / name) for name in ("node.crt", "node.key", "node-ca.crt")]
    save_identity(service.authority.issue("node", "node1", ["node1"]), *paths)
    options = [
        *("--server", f"127.0.0.1:{port}", "--cert", paths[0], "--key", paths[1]),
        *("--ca", paths[2]),
    ]
    assert run("version", options=options)
    assert run("replicas", "3", status=1, options=options) == (
        f"syndicate-client: 127.0.0.1:{port}: PERMISSION_DENIED: ('node', 'node1') may not\n"
    )


@pytest.fixture
def two_nodes(run, service):
    """node1 and node2 at two addresses with one port: their services, and the port's option."""
    one, first, port = serve_node(service.authority, "node1", "127.0.0.2")
    two, second, _ = serve_node(service.authority, "node2", "127.0.0.3", port)
    for number, host in ((1, "127.0.0.2"), (2, "127.0.0.3")):
        run("add", f"id={number}", f"meta=node{number}", "capacity=1", f"address0={host}:8001")
    yield first, second, ("--cmdctrl-port", str(port))
    one.stop(None).wait()
    two.stop(None).wait()


def test_commands_go_to_one_node_or_all(run, two_nodes):
    first, second, port = two_nodes
    assert [line.split() for line in run("health", "all", *port).splitlines()] == [
        ["id", "node", "result", "message"],
        ["1", "node1", "ok", "well"],
        ["2", "node2", "ok", "well"],
    ]
    for verb in ("reload", "restart", "start", "exit"):
        run(verb, "all", *port)
    assert run("stop", "node2", *port).splitlines()[1].split(maxsplit=3) == [
        "2", "node2", "ok", "node2: stop"
    ]  # fmt: skip
    assert first.commands == ["reload", "restart", "start", "exit"]
    assert second.commands == ["reload", "restart", "start", "exit", "stop"]
    assert json.loads(run("stats", "1", "--json", *port)) == [
        {
            "id": "1",
            "meta": "node1",
            "ok": True,
            "unreachable": False,
            "message": "",
            "stats": {"node": "node1"},
        }
    ]
    assert run("stats", "all", *port).count('"node": "node') == 2


def test_a_failing_node_does_not_stop_the_others(run, two_nodes, arguments, capsys):
    _, second, port = two_nodes
    run("stop", "2", *port)
    assert tool.main([*arguments, "health", "all", "--json", *port]) == 1
    out, err = capsys.readouterr()
    health = {each["id"]: each for each in json.loads(out)}
    assert health["1"]["ok"] is True
    assert health["1"]["time"] == 7
    assert (health["2"]["ok"], health["2"]["message"]) == (False, "stopped")
    assert err == "syndicate-client: health: 1 of 2 nodes failed\n"
    second.commands.clear()
    run("add", "id=3", "meta=node3", "address0=127.0.0.4:8001")
    assert tool.main([*arguments, "reload", "all", *port]) == 3
    out, err = capsys.readouterr()
    lines = [line.split(maxsplit=3) for line in out.splitlines()[1:]]
    assert [line[:3] for line in lines] == [
        ["1", "node1", "ok"],
        ["2", "node2", "ok"],
        ["3", "node3", "unreachable"],
    ]
    assert "UNAVAILABLE" in lines[2][3]
    assert second.commands == ["reload"]
    assert tool.main([*arguments, "add", "id=4", "meta=node4"]) == 0
    assert tool.main([*arguments, "reload", "node4", *port]) == 1
    assert "node 4 has no address" in capsys.readouterr().out


def test_a_node_must_have_a_certificate_for_its_address(run, two_nodes, service, arguments, capsys):
    _, _, port = two_nodes
    server, impostor, _ = serve_node(
        service.authority, "node2", "127.0.0.4", int(port[1]), certified="127.0.0.3"
    )
    run("addresses", "1", "127.0.0.4:8001")
    assert tool.main([*arguments, "exit", "1", *port]) == 3
    assert "unreachable" in capsys.readouterr().out
    assert impostor.commands == []
    server.stop(None).wait()


def test_software_commands_go_through_the_syndicate(run, two_nodes, arguments, capsys):
    _, _, port = two_nodes
    assert json.loads(run("software-version", "node1", "--json"))[0]["version"] == "node1's"
    direct = json.loads(run("software-version", "node1", "--json", "--direct", *port))
    assert direct[0]["version"] == "node1's own"
    assert "on to 2.0" in run("upgrade", "all", "2.0")
    run("set", "2", "meta=old")
    assert tool.main([*arguments, "upgrade", "all", "2.0"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split(maxsplit=3) == ["2", "old", "failed", "too old"]
    assert err == "syndicate-client: upgrade: 1 of 2 nodes failed\n"
    assert tool.main([*arguments, "upgrade", "1", "2.0", "--direct", *port]) == 1
    assert "not to 2.0" in capsys.readouterr().out


def test_nodes_are_verified_only_by_the_authority(run, two_nodes, running, tmp_path):
    """The server's certificate alone cannot verify nodes."""
    _, _, port = two_nodes
    _, server_port = running
    own = certificates.fingerprint(channels.fetch_certificate("127.0.0.1", server_port, 20))
    run("reload", "1", "--fingerprint", own, *port)
    (tmp_path / "ca.crt").unlink()
    said = run("reload", "1", "--fingerprint", own, *port, status=1)
    assert "nodes are verified by the authority's certificate" in said


def test_there_are_no_nodes(run, service):
    assert run("reload", "all", status=1) == "syndicate-client: there are no nodes\n"


def test_trust_by_fingerprint_by_option_environment_and_file(
    run, running, arguments, monkeypatch, service, tmp_path
):
    _, port = running
    right = certificates.fingerprint(service.authority.certificate)
    own = certificates.fingerprint(channels.fetch_certificate("127.0.0.1", port, 20))
    wrong = "00" * 32
    expected = run("version")
    for fingerprint in (right, own):
        assert run("version", "--fingerprint", fingerprint) == expected
    assert "fingerprint is" in run("version", "--fingerprint", wrong, status=1)
    monkeypatch.setenv("OORT_SYNDICATE_FINGERPRINT", wrong)
    assert "fingerprint is" in run("version", status=1)
    assert run("version", "--ca", str(tmp_path / "ca.crt")) == expected
    monkeypatch.setenv("OORT_SYNDICATE_FINGERPRINT", right)
    (tmp_path / "ca.crt").unlink()
    assert run("version") == expected
    # The server's name is compared if the root is an authority, but not if it is the server's own
    # certificate.
    assert run("version", "--server", f"localhost:{port}", "--fingerprint", own) == expected
    assert "UNAVAILABLE" in run("version", "--server", f"localhost:{port}", status=3)


def test_the_servers_address_by_option_environment_and_file(run, running, monkeypatch):
    _, port = running
    monkeypatch.setenv("OORT_SYNDICATE_OVERRIDE", "127.0.0.1:1")
    assert "127.0.0.1:1: UNAVAILABLE" in run("version", status=3)
    assert run("version", "--server", f"127.0.0.1:{port}")
    monkeypatch.setenv("OORT_SYNDICATE_OVERRIDE", "")
    assert run("version")
    for wrong in ("a b", "host:port", "host:0", "host:99999", "::1", "http://host", ""):
        assert "--server: " in run("version", "--server", wrong, status=1)
    assert "[::1]:1: UNAVAILABLE" in run("version", "--server", "[::1]:1", status=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[client]\nSever = a\n", r"unknown setting \[client\] Sever"),
        ("[client]\nTimeout = soon\n", r"\[client\] Timeout: .*soon"),
        ("[client]\nCmdCtrlPort = 70000\n", r"\[client\] CmdCtrlPort: .*70000"),
        ("client = 1\n", "must be a section"),
        ("[client\n", "client"),
        ("[client]\nFingerprint = abc\n", "not a SHA-256 fingerprint"),
        ("[client]\nServer = a b\n", r"\[client\] Server: 'a b'"),
    ],
)
def test_an_invalid_configuration_is_named(run, tmp_path, text, said):
    config = tmp_path / "wrong.conf"
    config.write_text(text)
    assert re.search(said, run("version", status=1, options=["--config", str(config)]))


def test_a_missing_configuration(run, tmp_path):
    options = ["--config", str(tmp_path / "none")]
    assert "none" in run("version", status=1, options=options)


def test_errors_are_one_line(run, service, tmp_path):
    for node_id in (1, 2):
        run("add", "meta=node1", "capacity=1", f"id={node_id}")
    (tmp_path / "binary").write_bytes(b"a = \xff")
    for given, said in (
        (("capacity", "nobody", "1"), "there is no node 'nobody'"),
        (("capacity", "node1", "1"), "2 nodes are called 'node1'"),
        (("capacity", "1", "many"), "must be a whole number"),
        (("capacity", "1", str(1 << 32)), "must be a whole number"),
        (("active", "1", "yes"), "must be true or false"),
        (("add", "colour=red"), "'colour=red': expected NAME=VALUE"),
        (("add", "id=red"), "'red' is not an id"),
        (("search", "capacity=1"), "expected NAME=VALUE"),
        (("set", f"config={tmp_path}/none"), "none: No such file"),
        (("set", "1", f"config={tmp_path}/binary"), "binary is not UTF-8 text"),
        (("set", "1", "meta=\udcff"), "is not UTF-8 text"),
        (("search", "meta=\udcff"), "is not UTF-8 text"),
        (("set", "restart=true"), "expected config=FILE"),
        (("set", "1"), "expected NODE NAME=VALUE"),
        (("add", "id=1"), "INVALID_ARGUMENT: node 1 already exists"),
        (("replicas", "0"), "INVALID_ARGUMENT: "),
        (("join", "oort-join-"), "damaged"),
        (("token", "--seconds", "999999999"), "INVALID_ARGUMENT: a token is valid for"),
    ):
        assert said in run(*given, status=1), given


@pytest.mark.parametrize(
    "given", [["nothing"], [], ["capacity", "1"], ["token", "--uses", "0"], ["--timeout", "x"]]
)
def test_an_invalid_command_line(given, capsys):
    with pytest.raises(SystemExit) as end:
        tool.main(given)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"syndicate-client.*: .+ \(see syndicate-client.* --help\)", line)
