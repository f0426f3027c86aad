"""Tests of install, upgrade, remove and purge: acknowledged data and configuration are kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.conftest import EARLIER, Built
from tests.packaging.container import SHARED, Container

pytestmark = pytest.mark.packages

OORTD = "oortd.service"
CLIENTS = 4
# A purge may leave files of oortd only here: the records of apt and dpkg, and logs.
BOOKS = ("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg", "/var/log", "/srv", "/proc", "/sys")


def _installed_version(machine: Container) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Version}", "oortd")


def test_installation(container: Container, record: Callable[[str, str], None]) -> None:
    begin = time.monotonic()
    printed = container.install()
    record("apt install with its dependencies, s", f"{time.monotonic() - begin:.1f}")
    assert container.redis("ping") == "PONG"
    assert "warning" not in printed.lower(), printed
    assert "no TLS key" not in printed
    size = container.shell("du -sk /usr/lib/oort | cut -f1").strip()
    record("/usr/lib/oort with bytecode, KiB", size)


def test_an_upgrade_under_load_loses_nothing_acknowledged(
    container: Container,
    built: Built,
    tmp_path: Path,
    record: Callable[[str, str], None],
) -> None:
    container.install(f"oortd={EARLIER}-1")
    container.until(f"systemctl is-active {OORTD}")
    changed = container.run("cat", "/etc/default/oortd") + "\nOORT_MAX_CLIENTS=4321\n"
    container.write("/etc/default/oortd", changed)
    keys = container.run("sha256sum", "/etc/oort/server.key")
    before = container.unit(OORTD, "MainPID")
    stop = tmp_path / "stop"
    load = Path(__file__).with_name("acknowledged.py")
    with subprocess.Popen(
        container.in_network(sys.executable, str(load), "6139", str(CLIENTS), str(stop)),
        stdout=subprocess.PIPE,
    ) as writer:
        try:
            container.until("redis=$(oort-cli dbsize) && [ $redis -ge 100 ]")
            upgraded = container.run(
                "apt-get", "install", "-qy", "-o", "Dpkg::Options::=--force-confold", "oortd"
            )
            container.until(f"systemctl is-active {OORTD}")
            assert container.unit(OORTD, "MainPID") != before
            sofar = int(container.redis("incr", "after the upgrade"))
            time.sleep(1)  # some more load on the new version
        finally:
            stop.touch()
        assert writer.stdout is not None
        told = json.loads(writer.stdout.read())
    assert sofar == 1
    assert told["wrong"] == []
    assert told["acknowledged"] > 1000
    record(
        "upgrade under load",
        f"{told['acknowledged']} writes acknowledged, none lost,"
        f" {told['reconnections'] / CLIENTS:.0f} attempts to reconnect a client",
    )
    assert EARLIER not in _installed_version(container)
    assert "Setting up oortd" in upgraded
    # The new version ships a different file; the administrator's file is kept.
    assert container.run("cat", "/etc/default/oortd") == changed
    assert container.redis("config", "get", "maxclients").split() == ["maxclients", "4321"]
    assert container.run("sha256sum", "/etc/oort/server.key") == keys


def test_a_service_that_was_stopped_stays_stopped(container: Container) -> None:
    container.install(f"oortd={EARLIER}-1")
    container.shell(f"systemctl disable --now {OORTD}")
    container.install()
    assert container.unit(OORTD, "ActiveState") == "inactive"
    assert container.run("systemctl", "is-enabled", OORTD, check=False).strip() == "disabled"


def test_remove_keeps_data_configuration_and_keys(container: Container) -> None:
    container.install()
    container.redis("set", "kept", "over a removal")
    keys = container.run("sha256sum", "/etc/oort/server.key")
    container.run("apt-get", "remove", "-qy", "oortd")
    assert container.unit(OORTD, "LoadState") == "not-found"
    assert not container.succeeds("test", "-e", "/usr/lib/oort")
    assert container.succeeds("test", "-e", "/etc/default/oortd")
    container.install()
    container.until(f"systemctl is-active {OORTD}")
    assert container.redis("get", "kept") == "over a removal"
    assert container.run("sha256sum", "/etc/oort/server.key") == keys


def test_purge_leaves_nothing_but_the_user(container: Container) -> None:
    container.install()
    container.redis("set", "gone", "with the purge")
    container.run("touch", "/var/cache/oort/oortd-config.cache")
    container.run("apt-get", "purge", "-qy", "oortd")
    prune = " -o ".join(f"-path {book}" for book in BOOKS)
    left = container.shell(
        f"find / \\( {prune} \\) -prune -o \\( -iname '*oort*' -o -name 'synd*' -o -user oort"
        " -o -group oort \\) -print"
    )
    # The entry of the repository is made by the test.
    assert left.split() == ["/etc/apt/sources.list.d/oort.list"]
    assert container.run("getent", "passwd", "oort").startswith("oort:")
    assert "oortd" not in container.run("dpkg-query", "-W", "-f", "${Package}\n")
    assert container.unit(OORTD, "LoadState") == "not-found"


def test_purge_empties_a_mount_point(container: Container) -> None:
    container.shell("mkdir /var/lib/oort && mount -t tmpfs tmpfs /var/lib/oort")
    container.install()
    container.redis("set", "gone", "with the purge")
    assert container.shell("ls /var/lib/oort").strip()
    container.run("apt-get", "purge", "-qy", "oortd")
    assert container.succeeds("mountpoint", "/var/lib/oort")
    assert container.shell("ls -A /var/lib/oort") == ""


def test_policy_can_forbid_the_start(container: Container, built: Built) -> None:
    """This test installs the package from its file."""
    container.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    container.run("chmod", "755", "/usr/sbin/policy-rc.d")
    container.install(f"{SHARED}/packages/{built.deb.name}")
    assert container.unit(OORTD, "ActiveState") == "inactive"
    assert container.run("systemctl", "is-enabled", OORTD).strip() == "enabled"
    container.run("apt-get", "purge", "-qy", "oortd")


def test_installation_without_systemd(container: Container, built: Built) -> None:
    """In a chroot, or while an image is built, everything is installed and nothing is started."""
    package = f"{SHARED}/packages/{built.deb.name}"
    inside = f"mount -t tmpfs tmpfs /run && apt-get install -qy --no-install-recommends {package}"
    printed = container.run("unshare", "--mount", "sh", "-ec", inside)
    assert "no TLS key" not in printed
    assert container.unit(OORTD, "ActiveState") == "inactive"
    assert container.run("stat", "-c", "%a %U:%G", "/etc/oort/server.key").split() == [
        "640",
        "root:oort",
    ]
    # The service is enabled for the next boot.
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", OORTD)
    assert container.run("systemctl", "is-enabled", OORTD).strip() == "enabled"
    assert container.redis("ping") == "PONG"
    for step in ("remove", "purge"):
        inside = f"mount -t tmpfs tmpfs /run && apt-get {step} -qy oortd"
        container.run("unshare", "--mount", "sh", "-ec", inside)
    assert not container.succeeds("test", "-e", "/var/lib/oort")


def test_rpm_installs_verifies_and_erases(container: Container, built: Built) -> None:
    """This test uses rpm's tools on Debian, with --nodeps because Debian's names differ."""
    container.install()  # for the dependencies
    container.run("apt-get", "purge", "-qy", "oortd")
    container.run("apt-get", "install", "-qy", "--no-install-recommends", "rpm")
    package = f"{SHARED}/packages/{built.rpm.name}"
    container.run("rpm", "--install", "--nodeps", package)
    assert container.run("rpm", "--verify", "--nodeps", "oortd") == ""
    container.run("systemctl", "start", OORTD)
    assert container.redis("set", "kept", "over an erasure") == "OK"
    # The running daemon has changed no file of the package.
    assert container.run("rpm", "--verify", "--nodeps", "oortd") == ""
    assert container.run("stat", "-c", "%a %U:%G", "/etc/oort/server.key").split() == [
        "640",
        "root:oort",
    ]
    before = container.unit(OORTD, "MainPID")
    container.run("rpm", "--upgrade", "--nodeps", "--replacepkgs", package)
    container.until(f"systemctl is-active {OORTD}")
    assert container.unit(OORTD, "MainPID") != before
    assert container.redis("get", "kept") == "over an erasure"
    container.run("rpm", "--erase", "--nodeps", "oortd")
    assert container.unit(OORTD, "LoadState") == "not-found"
    assert not container.succeeds("test", "-e", "/usr/lib/oort")
    assert container.succeeds("test", "-e", "/var/lib/oort/index")
