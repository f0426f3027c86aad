"""Tests of synd as a program: settings, failures to start, signals, systemd, and files."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from oort.synd import config
from oort.syndicate import syndicate_pb2 as messages
from oort.tls import certificates, channels
from oort.tls.files import save_identity
from tests.conftest import until
from tests.synd.real_synd import PROGRAM, RING, refused

ROOT = Path(__file__).parents[2]


def test_version_and_help():
    def run(*flags):
        return subprocess.run([PROGRAM, *flags], capture_output=True, text=True, timeout=60)

    assert re.fullmatch(r"synd \d+\.\d+\.\d+\n", run("--version").stdout)
    assert "--config" in run("--help").stdout
    wrong = run("--nothing")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no ring"),
        ("[client]\nServer = localhost\n", "no ring"),
        ("Sate = /x\n[oort]\n", "unknown setting Sate"),
        ("[oort]\nPrt = 1\n", "unknown setting [oort] Prt"),
        ("[oort]\nPort = 65536\n", "[oort] Port"),
        ("[oort]\nPort = many\n", "[oort] Port"),
        ("[oort]\nNetFilter = 10.0.0.0/33\n", "[oort] NetFilter"),
        ("[oort]\nNetFilter = 10.0.0.1/8\n", "[oort] NetFilter"),
        ("[oort]\nTierFilter = (\n", "[oort] TierFilter"),
        ("[oort]\nCapacity = much\n", "[oort] Capacity"),
        ("[oort]\nReplicas = 0\n", "[oort] Replicas"),
        ("[oort]\nListenAddress = here\n", "[oort] ListenAddress"),
        ("[../oort]\n", "cannot be the name of a service"),
        ("[authority]\n", "this name is reserved"),
        ("[a]\nPort = 1\n[b]\nPort = 1\n", "two rings have the same Port 1"),
        ("State = http://here\n[oort]\n", "State"),
        ("EtcdCertFile = /x\n[oort]\n", "EtcdCertFile"),
        ("State\n", "line 1"),
    ],
)
def test_an_invalid_setting_is_one_line(make_synd, text, says):
    synd = make_synd()
    synd.configure(text)
    ended = synd.run()
    assert ended.returncode == os.EX_CONFIG
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert says in ended.stderr
    assert str(synd.config) in ended.stderr


def test_without_a_file(make_synd):
    synd = make_synd()
    synd.config.unlink()
    ended = synd.run()
    assert ended.returncode == os.EX_CONFIG
    assert len(ended.stderr.splitlines()) == 1
    assert str(synd.config) in ended.stderr


def test_print_config_has_the_form_of_the_file(make_synd):
    synd = make_synd(
        "[oort]\nTierFilter = 'a,b', \"it's\"\nNetFilter = 10.0.0.0/8,\n[other]\nPort = 1\n"
    )
    shown = synd.run("--print-config")
    assert shown.returncode == 0
    assert "PointsAllowed = 1" in shown.stdout
    synd.configure(shown.stdout)
    assert synd.run("--print-config").stdout == shown.stdout
    read = config.read(synd.config)
    assert [service.name for service in read.services] == ["oort", "other"]
    assert [one.pattern for one in read.services[0].tiers] == ["a,b", "it's"]


def test_its_settings_are_documented():
    page = (ROOT / "docs" / "syndicate.md").read_text()
    assert config.renew(page) == page, "python -m oort.synd.config"


def one_line(synd):
    ended = synd.run()
    assert ended.returncode == 1, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "INFO" not in line]
    assert len(lines) == 1, ended.stderr
    assert "cannot start: " in lines[0]
    return lines[0]


def test_a_port_in_use(make_synd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(make_synd(RING.replace("Port = 0", f"Port = {port}")))
    assert f"127.0.0.1:{port}" in line


def test_a_state_in_use(make_synd):
    first = make_synd().start()
    second = make_synd(shared=f"State = {first.directory / 'state'}\n")
    assert "another synd" in one_line(second)
    assert first.tool("version") == 0


def test_an_impossible_state(make_synd):
    synd = make_synd()
    (synd.directory / "state").write_text("a file")
    assert str(synd.directory / "state") in one_line(synd)


def test_a_damaged_ring_is_not_ignored(make_synd):
    synd = make_synd().start()
    assert synd.stop() == 0
    newest = max((synd.directory / "state" / "oort").glob("*-oort.ring"))
    newest.write_bytes(newest.read_bytes()[:-9])
    assert newest.name.partition("-")[0] in one_line(synd)


def test_an_etcd_that_does_not_answer(make_synd):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "no answer from etcd" in one_line(make_synd(shared=f"State = etcd://127.0.0.1:{port}\n"))


def test_its_own_files(make_synd):
    synd = make_synd().start()
    assert stat.S_IMODE(synd.key.stat().st_mode) == 0o600
    assert certificates.role_of(synd.cert.read_bytes())[0] == "operator"
    state = synd.directory / "state"
    for path in (state, *state.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    before = synd.cert.read_bytes(), synd.key.read_bytes(), synd.ca.read_bytes()
    assert synd.stop() == 0
    synd.start()
    assert (synd.cert.read_bytes(), synd.key.read_bytes(), synd.ca.read_bytes()) == before


def test_files_of_another_authority_are_kept(make_synd):
    synd = make_synd()
    other = certificates.CertificateAuthority.create("another")
    save_identity(other.issue("operator", "anna"), synd.cert, synd.key, synd.ca)
    before = synd.ca.read_bytes()
    synd.start()
    assert synd.ca.read_bytes() == before
    assert f"{synd.ca} is not this authority's" in synd.log()
    assert "no operator's certificate" in synd.log()


def test_the_fingerprint_stays_the_same_after_a_restart(make_synd):
    synd = make_synd().start()
    own = re.search(r"certificate's fingerprint: (\w+)", synd.log())[1]
    authority = re.search(r"OORT_SYNDICATE_FINGERPRINT=(\w+)", synd.log())[1]
    synd.kill()
    synd.start()
    for wanted in (own, authority):
        pinned = channels.fetch_pinned("localhost", synd.ports["oort"], wanted, 30)
        assert certificates.fingerprint(pinned) == wanted
        options = [f"--server=localhost:{synd.ports['oort']}", f"--fingerprint={wanted}"]
        assert synd.tool(*options, "version") == 0


def test_systemd_is_notified(make_synd, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(60)
        synd = make_synd()
        synd.env["NOTIFY_SOCKET"] = str(path)
        synd.start()

        def heard(word):
            while word not in (text := told.recv(4096).decode()):
                pass
            return text

        assert "oort at 127.0.0.1:" in heard("READY=1")
        assert synd.tool("add", "capacity=1", "address0=127.0.0.1:1") == 0
        assert "STATUS=" in heard("1 node")
        synd.process.send_signal(signal.SIGHUP)
        heard("RELOADING=1")
        heard("READY=1")
        assert synd.stop() == 0
        heard("STOPPING=1")


def test_a_failed_start_is_in_the_status(make_synd, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(60)
        synd = make_synd()
        synd.env["NOTIFY_SOCKET"] = str(path)
        synd.configure("nothing")
        assert synd.run().returncode == os.EX_CONFIG
        assert told.recv(4096).decode().startswith("STATUS=cannot start: ")


def test_hangup_reads_the_filters_again(make_synd):
    synd = make_synd().start()
    host = messages.RegisterRequest(hostname="a", addrs=["192.168.1.1/24"])
    with synd.calls() as calls:
        assert refused(calls.RegisterNode, host).code().name == "PERMISSION_DENIED"
        synd.configure(synd.config.read_text().replace("10.0.0.0/8", "192.168.0.0/16"))
        synd.process.send_signal(signal.SIGHUP)
        until(lambda: "reload: done" in synd.log())
        assert calls.RegisterNode(host).localid
        right = synd.config.read_text()
        synd.configure("[oort]\nNetFilter = nothing\n")
        synd.process.send_signal(signal.SIGHUP)
        until(lambda: "reload: nothing was changed" in synd.log())
        synd.configure(right + "[another]\n")
        synd.process.send_signal(signal.SIGHUP)
        until(lambda: "these changes need a restart: rings" in synd.log())
        changed = right.replace("Advertise = localhost", "Advertise = elsewhere")
        changed = changed.replace("CAFile = ", "CAFile = /other").replace(
            "ListenAddress = 127.0.0.1", "ListenAddress = 127.0.0.2"
        )
        synd.configure(changed)
        # Port was 0 when synd started.
        said = "need a restart: Advertise, CAFile, [oort] ListenAddress, [oort] Port\n"
        for times in (1, 2):  # logged at each reload until the restart
            synd.process.send_signal(signal.SIGHUP)
            until(lambda times=times: synd.log().count(said) == times)
        assert calls.RegisterNode(host).localid


def test_stops_with_a_subscriber(make_synd):
    synd = make_synd().start()
    with synd.calls() as calls:
        stream = calls.GetRingStream(messages.SubscriberID(id="me"))
        next(stream)
        synd.process.send_signal(signal.SIGINT)
        assert refused(lambda: next(stream)).code().name == "UNAVAILABLE"
        assert synd.process.wait(60) == 0
    assert synd.log().splitlines()[-1].endswith("stopped")
