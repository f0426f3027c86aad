"""oortd joins a syndicate: trust, token, certificate, registration, renewal."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable

import pytest

from oort.cli.main import main as oort_cli
from oort.ring import files
from oort.tls import certificates, channels
from oort.tls.files import load_identity, save_identity
from tests.conftest import until
from tests.membership.syndicate import RingNode, Synd


def authority_of(synd: Synd) -> certificates.CertificateAuthority:
    """The authority of a synd, as root on its machine could read it."""
    for part in sorted((synd.directory / "state").rglob("*")):
        text = part.read_bytes() if part.is_file() else b""
        at = text.find(b"-----BEGIN PRIVATE")
        if at > 0:
            return certificates.CertificateAuthority.load(text[:at], text[at:])
    raise AssertionError("there is no authority in synd's state")


def test_joins_registers_and_serves(synd: Synd, node: RingNode) -> None:
    synd.set_config('StoreType = "mapstore"\n')
    node.start()
    facts = node.ring_facts()
    assert facts["oort_ring_source"] == f"syndicate {synd.server}"
    assert facts["oort_ring_nodes"] == 1
    assert facts["oort_ring_member"] == 1
    assert facts["oort_syndicate_connected"] == 1
    assert node.client().info("server")["oort_store"] == "mapstore"
    # The ring is on disk before it is used, and only the owner may read the key.
    version = facts["oort_ring_version"]
    kept = files.read_ring(node.data_dir / f"{version}-oort.ring")
    assert str(kept.nodes[0].id) == str(facts["oort_ring_local_id"])
    assert stat.S_IMODE((node.keys / "server.key").stat().st_mode) == 0o600
    certificate = (node.keys / "server.crt").read_bytes()
    role = certificates.role_of(certificate)
    assert role is not None
    assert role[0] == "node"
    assert "127.0.0.1" in certificates.names_of(certificate)
    assert stat.S_IMODE(node.cache.stat().st_mode) == 0o600
    # From now on the certificate identifies the node: the id stays, and no token is needed.
    del node.env["OORT_JOIN_TOKEN"]
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    node.restart()
    assert node.ring_facts()["oort_ring_local_id"] == facts["oort_ring_local_id"]


def test_is_controlled_by_its_operator(
    synd: Synd, node: RingNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enabled = auto: mutual TLS, with a certificate for the registered addresses."""
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
    """The token may be in a file too.  The node's facts are in the ring."""
    node.env["OORT_TIERS"] = "rack1, site2"
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    (node.keys / "join.token").write_text(node.env.pop("OORT_JOIN_TOKEN") + "\n")
    (node.keys / "ca.crt").write_bytes((synd.directory / "ca.crt").read_bytes())
    node.start()
    (found,) = synd.nodes()
    assert found["meta"] == socket.gethostname()
    assert found["tiers"] == ["rack1", "site2"]
    assert "127.0.0.1:8001" in found["addresses"]
    # The size of the disk with the data, in GiB.
    assert found["capacity"] == max(1, shutil.disk_usage(node.data_dir).total // 1024**3)


def test_the_fingerprint_may_be_of_the_certificate_itself(synd: Synd, node: RingNode) -> None:
    shown = channels.fetch_certificate("localhost", synd.port, 60)
    node.env["OORT_SYNDICATE_FINGERPRINT"] = certificates.fingerprint(shown).upper()
    node.start()
    assert node.ring_facts()["oort_ring_nodes"] == 1


def test_the_token_alone_is_enough(node: RingNode) -> None:
    """The token contains the authority's fingerprint."""
    del node.env["OORT_SYNDICATE_FINGERPRINT"]
    node.start()
    assert node.ring_facts()["oort_ring_nodes"] == 1


def test_a_key_of_its_own_is_replaced(node: RingNode) -> None:
    """A self-signed certificate of oort-cli keys is not from the syndicate."""
    assert oort_cli(["keys", "--dir", str(node.keys)]) == 0
    node.start()
    role = certificates.role_of((node.keys / "server.crt").read_bytes())
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
    """The exit code is 1, so systemd tries again.  No use of the token is lost."""
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
    other = certificates.CertificateAuthority.create("another")
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    save_identity(other.issue("node", "here", ["localhost"]), *names)
    assert "certificate verify failed" in node.cannot_start()[1].lower().replace("_", " ")
    names[2].write_bytes((synd.directory / "ca.crt").read_bytes())
    assert f"{names[0]} is of another authority than {names[2]}" in node.cannot_start()[1]
    names[2].unlink()
    names[0].unlink()
    node.start()


def test_a_certificate_follows_the_addresses(synd: Synd, node: RingNode) -> None:
    """The syndicate calls the node at its registered addresses."""
    node.start()
    node.stop()
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    before = load_identity(*names)
    assert certificates.names_of(before.certificate)
    authority = authority_of(synd)
    save_identity(authority.issue("node", "here", ["localhost"]), *names)
    node.start()
    until(lambda: "certificate renewed" in node.log())
    renewed = load_identity(*names)
    # A certificate for another host name needs a token.
    assert set(certificates.names_of(renewed.certificate)) == {
        name for name in certificates.names_of(before.certificate) if name != socket.gethostname()
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
    assert "for role operator, not for a node" in other.cannot_start()[1]


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"OORT_SYNDICATE_OVERRIDE": "a b"}, "OORT_SYNDICATE_OVERRIDE: 'a b' is not HOST:PORT"),
        ({"OORT_SYNDICATE_FINGERPRINT": "xy"}, "OORT_SYNDICATE_FINGERPRINT: 'xy' is not a SHA-256"),
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
    """The certificate is old from the beginning: ten of its fifteen minutes have passed."""
    authority = authority_of(synd)
    names = [node.keys / name for name in ("server.crt", "server.key", "ca.crt")]
    short = authority.issue("node", "here", ["localhost"], days=280 / 86400)
    save_identity(short, *names)
    node.start()
    until(lambda: names[0].read_bytes() != short.certificate)
    until(lambda: "certificate renewed" in node.log())
    renewed = load_identity(*names)
    assert certificates.expiry(renewed.certificate) > certificates.expiry(short.certificate)
    assert node.client().ping()
