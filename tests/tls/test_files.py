"""Tests of an identity in files: modes, and kills at every step of a replacement."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from oort.errors import TLSError
from oort.tls import certificates
from oort.tls.files import load_identity, save_identity, write_key


@pytest.fixture(scope="module")
def authority():
    return certificates.CertificateAuthority.create("oort of a test")


@pytest.fixture
def files(tmp_path):
    return tmp_path / "server.crt", tmp_path / "server.key", tmp_path / "ca.crt"


@pytest.fixture(autouse=True)
def open_umask():
    """The umask must not be what protects a key."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_save_and_load(authority, files):
    identity = authority.issue("node", "a", ["a", "10.0.0.1"])
    save_identity(identity, *files)
    assert load_identity(*files) == identity
    assert [mode(path) for path in files] == [0o644, 0o600, 0o644]
    assert {path.name for path in files[0].parent.iterdir()} == {
        "ca.crt",
        "server.crt",
        "server.key",
    }
    cert, key, _ = files
    assert load_identity(cert, key, None).roots == b""


def test_a_key_keeps_its_owner_and_the_private_bits_of_its_mode(authority, files):
    save_identity(authority.issue("node", "a"), *files)
    _, key, _ = files
    group = 12345 if os.geteuid() == 0 else os.getegid()
    os.chown(key, -1, group)
    key.chmod(0o640)
    save_identity(authority.issue("node", "b"), *files)
    assert (mode(key), key.stat().st_gid) == (0o640, group)
    key.chmod(0o666)
    save_identity(authority.issue("node", "c"), *files)
    assert mode(key) == 0o660


def test_links_are_followed(authority, files, tmp_path):
    _, key, _ = files
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    key.symlink_to(elsewhere / "real.key")
    identity = authority.issue("node", "a")
    save_identity(identity, *files)
    assert key.is_symlink()
    assert (elsewhere / "real.key").read_bytes() == identity.key
    assert load_identity(*files) == identity


def test_errors_name_the_missing_or_mismatched_file(authority, files):
    cert, key, ca = files
    with pytest.raises(TLSError, match=r"server\.key: No such file"):
        load_identity(*files)
    save_identity(authority.issue("node", "a"), *files)
    key.write_bytes(certificates.make_key())
    with pytest.raises(TLSError, match=r"server\.key is not the private key of .*server\.crt"):
        load_identity(*files)
    ca.write_bytes(b"")
    cert.unlink()
    with pytest.raises(TLSError, match=r"server\.crt: No such file"):
        load_identity(*files)
    identity = authority.issue("node", "a")
    save_identity(certificates.Identity(identity.certificate, identity.key, b""), cert, key, None)
    with pytest.raises(TLSError, match=r"ca\.crt: no certificate"):
        load_identity(*files)
    mixed = certificates.Identity(identity.certificate, certificates.make_key(), b"")
    with pytest.raises(TLSError, match="use a matching pair"):
        save_identity(mixed, cert, key, None)
    assert load_identity(cert, key, None).key == identity.key


def test_a_missing_directory_is_named(authority, tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(TLSError, match=r"cannot write .*nowhere"):
        save_identity(
            authority.issue("node", "a"), nowhere / "a.crt", nowhere / "a.key", nowhere / "ca.crt"
        )


def test_a_new_key_is_never_written_over_another(tmp_path):
    path = tmp_path / "server.key"
    write_key(path, certificates.make_key())
    before = path.read_bytes()
    with pytest.raises(TLSError, match="not overwritten"):
        write_key(path, certificates.make_key())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# For n = 1, 2, ...: forks a child that dies before the n-th access to the file system that the
# interpreter's audit hook reports.
KILLED = """
import os, sys
from oort.tls.certificates import Identity
from oort.tls.files import save_identity
directory, new = sys.argv[1:3]
def part(name):
    with open(f"{new}/{name}", "rb") as file:
        return file.read()
identity = Identity(part("server.crt"), part("server.key"), part("ca.crt"))
step = 0
while True:
    step += 1
    pid = os.fork()
    if pid == 0:
        os.umask(0)
        seen = 0
        busy = False
        def on_event(event, arguments):
            global seen, busy
            if busy or not event.startswith(("open", "os.")):
                return
            busy = True
            for name in os.listdir(directory):
                # Empty files count, because a process that has one open can read later writes.
                if "key" in name and os.stat(f"{directory}/{name}").st_mode & 7:
                    os._exit(3)
            busy = False
            seen += 1
            if seen == step:
                os._exit(9)
        sys.addaudithook(on_event)
        save_identity(identity, *(f"{directory}/{name}" for name in
                                  ("server.crt", "server.key", "ca.crt")))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    if sys.stdin.readline() != "again\\n":
        break
"""


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_killed_at_any_step_leaves_the_old_or_the_new(authority, files, there):
    """At no step can everybody read a private key."""
    directory = files[0].parent / "here"
    new_directory = files[0].parent / "new"
    for each in (directory, new_directory):
        each.mkdir()
    here = tuple(directory / path.name for path in files)
    old, new = authority.issue("node", "old"), authority.issue("node", "new")
    save_identity(new, *(new_directory / path.name for path in files))

    def put_back():
        for path in directory.iterdir():
            path.unlink()
        if there:
            save_identity(old, *here)

    put_back()
    found = []
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(directory), str(new_directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            status = process.stdout.readline().strip()
            assert status in ("0", "9"), f"status {status}: a private key was readable by everybody"
            try:
                loaded = load_identity(*here)
            except TLSError:
                assert not there
                loaded = None
            found.append(loaded)
            assert loaded in ((old, new) if there else (None, new))
            if status == "0":
                break
            put_back()
            process.stdin.write("again\n")
            process.stdin.flush()
        process.stdin.close()
    assert len(found) > 10, "the steps were not counted"
    assert found[0] == (old if there else None)
    assert found[-1] == new
    changed = found.index(new)
    assert all(each == new for each in found[changed:]), "back to the old after the new"
    assert changed < len(found) - 2, "killed between key and certificate"
