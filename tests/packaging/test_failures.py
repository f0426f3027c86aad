"""Tests of failing starts: one line in `systemctl status`, and nothing else breaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.packaging.container import Container

pytestmark = pytest.mark.packages

OORTD = "oortd.service"
_LISTENER = (
    "import socket, time; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', 6139));"
    "s.listen(); print('bound', flush=True); time.sleep(600)"
)


@pytest.fixture
def stopped(installed: Container) -> Iterator[Container]:
    """The machine with oortd stopped; afterwards everything is restored, and oortd serves again."""
    configuration = installed.run("cat", "/etc/default/oortd")
    installed.run("systemctl", "stop", OORTD)
    yield installed
    installed.write("/etc/default/oortd", configuration)
    installed.run("systemctl", "stop", OORTD)
    installed.run("systemctl", "reset-failed", OORTD, check=False)
    installed.run("systemctl", "start", OORTD)
    assert installed.redis("ping") == "PONG"


def _fails(machine: Container) -> str:
    """Start oortd; returns the only line that it logs, which `systemctl status` must show."""
    assert not machine.succeeds("systemctl", "start", OORTD)
    attempt = machine.unit(OORTD, "InvocationID")
    status = machine.run("systemctl", "status", "--no-pager", "--full", OORTD, check=False)
    machine.run("journalctl", "--sync")
    words = ["journalctl", "-q", "--no-pager", "-o", "cat"]
    said = machine.run(*words, f"_SYSTEMD_INVOCATION_ID={attempt}").splitlines()
    assert len(said) == 1, said
    assert said[0] in status
    assert "Traceback" not in status
    return said[0]


def test_a_missing_dependency(stopped: Container) -> None:
    where = "/usr/lib/python3/dist-packages/configobj"
    stopped.run("mv", where, f"{where}.away")
    try:
        assert "no Python module configobj" in _fails(stopped)
    finally:
        stopped.run("mv", f"{where}.away", where)


def test_a_port_in_use(stopped: Container) -> None:
    with subprocess.Popen(
        stopped.in_network(sys.executable, "-c", _LISTENER), stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"bound\n"
            assert re.search(r"6139.*in use", _fails(stopped))
        finally:
            other.kill()


def test_a_broken_configuration(stopped: Container) -> None:
    stopped.shell("echo OORT_FSYNC=sometimes >> /etc/default/oortd")
    said = _fails(stopped)
    assert stopped.unit(OORTD, "ActiveState") == "failed"
    assert "sometimes" in said
    assert "always, everysec, no" in said


def test_a_key_that_cannot_be_read(stopped: Container) -> None:
    """The control interface needs the node's key even without a syndicate."""
    stopped.shell("echo OORT_CMDCTRLCONFIG_ENABLED=true >> /etc/default/oortd")
    stopped.shell("chown root:root /etc/oort/server.key; chmod 600 /etc/oort/server.key")
    try:
        said = _fails(stopped)
        assert "/etc/oort/server.key" in said
        assert "ermission denied" in said
    finally:
        stopped.shell("chown root:oort /etc/oort/server.key; chmod 640 /etc/oort/server.key")


def test_a_data_directory_that_cannot_be_used(stopped: Container) -> None:
    stopped.shell("echo OORT_DATA_DIR=/usr/share/oort-data >> /etc/default/oortd")
    assert "/usr/share/oort-data" in _fails(stopped)


def test_a_failing_start_does_not_break_dpkg(container: Container) -> None:
    with subprocess.Popen(
        container.in_network(sys.executable, "-c", _LISTENER), stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"bound\n"
            container.install()
        finally:
            other.kill()
    state = container.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "oortd")
    assert state.strip() == "ii"
    # When the port is free again, oortd starts by itself.
    container.until(f"systemctl is-active {OORTD}")
    assert container.redis("ping") == "PONG"
