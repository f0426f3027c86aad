"""The installed service joins a ring: as its own user, confined, by what is in /etc/default/oortd."""

from __future__ import annotations

import pytest

from tests.packaging.container import Container

pytestmark = pytest.mark.packages

OORTD = "oortd.service"
CACHE = "/var/cache/oort/oortd-config.cache"


@pytest.fixture(scope="module")
def token(installed: Container) -> str:
    """Made by an operator of the machine's own synd."""
    installed.write(
        "/etc/oort/syndicate.conf",
        "Names = localhost\n[oort]\nListenAddress = 127.0.0.1\nNetFilter = 127.0.0.0/8\n",
    )
    installed.run("systemctl", "start", "synd.service")
    return installed.run("syndicate-client", "token", "--role", "node").split()[0]


def test_a_line_in_the_defaults_and_a_token_join_it(installed: Container, token: str) -> None:
    installed.shell(
        "echo OORT_SYNDICATE_OVERRIDE=localhost:8443 >> /etc/default/oortd;"
        f"echo OORT_JOIN_TOKEN={token} >> /etc/default/oortd"
    )
    installed.run("systemctl", "restart", OORTD)
    ring = installed.redis("info", "ring")
    assert "oort_ring_source:syndicate localhost:8443" in ring
    assert "oort_ring_nodes:1" in ring
    listed = installed.shell("stat -c '%n %a %U:%G' /etc/oort/server.* /etc/oort/ca.crt")
    assert listed.splitlines() == [
        "/etc/oort/server.crt 644 oort:oort",
        "/etc/oort/server.key 640 oort:oort",
        "/etc/oort/ca.crt 644 oort:oort",
    ]
    assert "127.0.0.1" in installed.run("oort-cli", "keys", "--show")
    installed.shell("ls /var/lib/oort/*-oort.ring")
    assert "machine" in installed.run("syndicate-client", "health", "all")
    assert "oort_ring_source" in installed.run("oort-cli", "ctl", "--host=127.0.0.1", "stats")


def test_the_cache_is_replaced_behind_its_link(installed: Container, token: str) -> None:
    before = installed.run("stat", "-c", "%i", CACHE)
    installed.write("/etc/oort/ring.conf", "MaxClients = 4321\n")
    installed.run("syndicate-client", "set", "config=/etc/oort/ring.conf")
    installed.until("oort-cli config get maxclients | grep -q 4321")
    installed.until(f"[ $(stat -c %i {CACHE}) != {before.strip()} ]")
    assert installed.run("stat", "-c", "%a %U:%G", CACHE).strip() == "600 oort:oort"
    assert installed.run("readlink", "/var/cache/oortd-config.cache").strip() == (
        "oort/oortd-config.cache"
    )


def test_it_starts_from_the_cache_and_without_it_waits(installed: Container, token: str) -> None:
    installed.run("systemctl", "stop", "synd.service")
    installed.run("systemctl", "restart", OORTD)
    assert "oort_ring_source:cache /var/cache/oortd-config.cache" in installed.redis("info", "ring")
    assert "no syndicate answers" in installed.journal()
    installed.shell(f"systemctl stop {OORTD}; rm {CACHE}; systemctl start --no-block {OORTD}")
    installed.until(f"systemctl status {OORTD} | grep -q 'cannot start: no syndicate answers'")
    installed.run("systemctl", "start", "synd.service")
    installed.until(f"systemctl is-active {OORTD}")
    assert "oort_syndicate_connected:1" in installed.redis("info", "ring")
    # root sees what the service would take.
    shown = installed.shell("set -a; . /etc/default/oortd; oortd --print-config")
    assert "MaxClients = 4321  # ring configuration" in shown
