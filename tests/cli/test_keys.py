"""Tests of oort-cli keys: created files, existing files, and the server's command KEYS."""

from __future__ import annotations

import grp
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oort.tls import certificates, files
from tests.conftest import Oortd, clean_environment


def cli(*arguments: str, umask: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oort.cli.main", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        umask=umask,
        timeout=60,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_and_a_certificate_that_serve(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "oort"
    done = cli("keys", "--dir", str(directory), "--group", "no-such-group")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"created {directory}/server.key\ncreated {directory}/server.crt\n"
    assert mode(directory / "server.key") == 0o600
    assert mode(directory / "server.crt") == 0o644
    assert mode(directory) == 0o755
    names = certificates.names_of((directory / "server.crt").read_bytes())
    assert {"localhost", "127.0.0.1", socket.gethostname()} <= set(names)
    assert handshake(directory, "127.0.0.1") == "hello"


def handshake(directory: Path, host: str) -> str:
    """The greeting of a TLS server with these files, read by a client that trusts server.crt."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(directory / "server.crt", directory / "server.key")
    calling = ssl.create_default_context(cafile=directory / "server.crt")
    with socket.create_server((host, 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with serving.wrap_socket(accepted, server_side=True) as connection:
                connection.sendall(b"hello")

        server = threading.Thread(target=serve)
        server.start()
        with (
            socket.create_connection(listener.getsockname(), 20) as plain,
            calling.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            greeting = connection.recv(100).decode()
        server.join(20)
    return greeting


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    assert cli("keys", "--dir", str(tmp_path)).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = cli("keys", "--dir", str(tmp_path), "--names", "other.example.com")
    assert done.returncode == 0
    assert "nothing was created" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_existing_key_gets_its_certificate(tmp_path: Path) -> None:
    key = certificates.make_key()
    files.write_key(tmp_path / "server.key", key)
    done = cli("keys", "--dir", str(tmp_path), "--names", "a.example.com,10.0.0.1", "--names", "b")
    assert done.stdout == f"created {tmp_path}/server.crt\n"
    identity = files.load_identity(tmp_path / "server.crt", tmp_path / "server.key", None)
    assert identity.key == key
    assert certificates.names_of(identity.certificate) == ["a.example.com", "10.0.0.1", "b"]


def test_a_certificate_without_its_key_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "server.crt").write_text("something")
    done = cli("keys", "--dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("server.key: move it away first\n")
    assert [path.name for path in tmp_path.iterdir()] == ["server.crt"]


def test_the_group_may_read_the_key(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid())
    assert cli("keys", "--dir", str(tmp_path), "--group", group.gr_name).returncode == 0
    key = tmp_path / "server.key"
    # Only root may give a file to any group.
    assert mode(key) == (0o640 if os.geteuid() == 0 else 0o600)
    assert key.stat().st_gid == group.gr_gid


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--names", "a b"), "'a b' is neither a host name nor an address"),
        (("--days", "0"), "a certificate must be valid for more than 0 days"),
        (("--days", "99999999"), "a certificate cannot be valid for 1e+08 days"),
        (("--show",), "no server.crt in"),
    ],
)
def test_an_error_creates_nothing(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    done = cli("keys", "--dir", str(tmp_path), *arguments)
    assert done.returncode == 1
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert cli("keys", "--dir", str(tmp_path / "server.key" / "x"), "--days", "a").returncode == 2


def test_show_prints_the_existing_files(tmp_path: Path) -> None:
    authority = certificates.CertificateAuthority.create("the syndicate's")
    identity = authority.issue("node", "node1", ["node1.example.com", "10.0.0.1"])
    places = [tmp_path / name for name in ("server.crt", "server.key", "ca.crt")]
    files.save_identity(identity, *places)
    done = cli("keys", "--dir", str(tmp_path), "--show")
    assert done.returncode == 0
    expiry = certificates.expiry(identity.certificate)
    for expected in (
        "subject      CN=node1\n",
        "names        node1.example.com, 10.0.0.1\n",
        f"fingerprint  {certificates.fingerprint(identity.certificate)}\n",
        f"fingerprint  {certificates.fingerprint(authority.certificate)}\n",
        f" to {expiry:%Y-%m-%d %H:%M} UTC\n",
        "role         node (node1)\n",
        f"private key  {tmp_path}/server.key: matches\n",
    ):
        assert expected in done.stdout
    assert "PRIVATE KEY" not in done.stdout
    (tmp_path / "server.key").write_bytes(certificates.make_key())
    assert "belongs to another certificate" in cli("keys", "--dir", str(tmp_path), "--show").stdout


def test_keys_with_a_pattern_is_the_servers_command(oortd: Oortd) -> None:
    host, port = oortd.address
    where = ("-h", host, "-p", str(port))
    assert cli(*where, "mset", "a1", "x", "a2", "x", "b", "x").stdout == "OK\n"
    assert sorted(cli(*where, "keys", "a*").stdout.split()) == ["a1", "a2"]
    assert cli(*where, "KEYS").stdout.strip() == "ERR wrong number of arguments for 'keys' command"
