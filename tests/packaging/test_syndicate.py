"""Tests of a machine with synd and an oortd that has joined it, with the packages' files."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.packaging.container import Container

pytestmark = pytest.mark.packages

OORTD, SYND = "oortd.service", "synd.service"
ADDRESS = "10.9.0.1"  # in a private network, which the default NetFilter allows


@pytest.fixture(scope="module")
def member(installed: Container) -> Container:
    """synd runs with the shipped configuration; oortd has joined it with one added line."""
    words = installed.in_network("ip", "address", "add", f"{ADDRESS}/24", "dev", "lo")
    subprocess.run(words, check=True)
    installed.run("systemctl", "enable", "--now", SYND)
    installed.shell(
        "umask 027; syndicate-client token > /etc/oort/join.token; chgrp oort /etc/oort/join.token"
    )
    # The override wins over the shipped standalone default, which is not changed.
    installed.shell("echo OORT_SYNDICATE_OVERRIDE=localhost:8443 >> /etc/default/oortd")
    installed.run("systemctl", "restart", OORTD)
    return installed


def _nodes(machine: Container) -> list[dict[str, object]]:
    shown = machine.run("syndicate-client", "--json", "search")
    found: list[dict[str, object]] = json.loads(shown)
    return found


def test_it_has_joined(member: Container) -> None:
    assert "OORTD_SKIP_SRV=true" in member.run("cat", "/etc/default/oortd")
    assert len(_nodes(member)) == 1
    assert "oort_syndicate_connected:1" in member.redis("info")
    assert member.run("stat", "-c", "%a %U", "/etc/oort/server.key").split() == ["640", "oort"]
    cached = "/var/cache/oort/oortd-config.cache"
    assert member.run("stat", "-c", "%a %U %F", cached).split() == [
        "600", "oort", "regular", "file",
    ]  # fmt: skip
    assert member.run("readlink", "/var/cache/oortd-config.cache").strip() == (
        "oort/oortd-config.cache"
    )
    assert "oortd-config.cache" in member.run("cat", "/usr/lib/tmpfiles.d/oortd.conf")


def test_it_takes_commands(member: Container) -> None:
    words = ["syndicate-client"]
    assert "connections" in member.run(*words, "health", "all")
    member.run(*words, "reload", "all")
    # A stopped node refuses connections.  After a start its socket is stored again.
    member.run(*words, "stop", "all")
    assert "refused" in member.redis("ping")
    member.until(f"systemctl show -p NFileDescriptorStore --value {OORTD} | grep -qx 1")
    member.run(*words, "start", "all")
    assert member.redis("ping") == "PONG"
    member.until(f"systemctl show -p NFileDescriptorStore --value {OORTD} | grep -qx 2")


def test_a_restart_of_either_changes_nothing(member: Container) -> None:
    member.redis("set", "kept", "in a ring")
    before = _nodes(member)
    for unit in (OORTD, SYND, OORTD):
        member.run("systemctl", "restart", unit)
        member.until("oort-cli ping")
        assert _nodes(member) == before
    member.until("oort-cli info | grep -q oort_syndicate_connected:1")
    assert member.redis("get", "kept") == "in a ring"
    assert member.succeeds("test", "-s", "/var/cache/oort/oortd-config.cache")


def test_without_its_syndicate_it_starts_from_the_cache(member: Container) -> None:
    member.run("systemctl", "stop", SYND)
    member.run("systemctl", "restart", OORTD)
    assert member.redis("get", "kept") == "in a ring"
    member.until(f"systemctl show --value -p StatusText {OORTD} | grep -q 'no syndicate answers'")
    member.run("systemctl", "start", SYND)
    member.until("oort-cli info | grep -q oort_syndicate_connected:1")


def test_there_were_no_errors(member: Container) -> None:
    """There is no denied system call and no traceback, and synd shows its status."""
    for unit in (OORTD, SYND):
        journal = member.journal(unit)
        assert "Traceback" not in journal
        assert "ermission denied" not in journal
        assert "not permitted" not in journal
    assert "oort at" in member.unit(SYND, "StatusText")
    assert member.unit(SYND, "NRestarts") == "0"
    assert member.unit(OORTD, "NRestarts") == "0"


def test_logcheck_ignores_routine_messages(member: Container) -> None:
    """The shipped rules match all ordinary log lines of both programs."""
    member.run("systemctl", "reload", OORTD)
    member.run("systemctl", "reload", SYND)
    member.run("systemctl", "restart", OORTD)
    member.run("journalctl", "--sync")
    left = member.shell(
        "journalctl -q --no-pager -o short -p debug"
        f" _SYSTEMD_UNIT={OORTD} + _SYSTEMD_UNIT={SYND}"
        " | grep -Ev -f /etc/logcheck/ignore.d.server/oortd || true"
    )
    # Only lines that matter to an operator remain: the syndicate or the node was unavailable.
    away = ("no syndicate answers", "is lost:", "did not take the ring")
    assert [line for line in left.splitlines() if not any(word in line for word in away)] == []
