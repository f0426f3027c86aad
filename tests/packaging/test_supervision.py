"""Tests of systemd with oortd: descriptor store, watchdog, states, and journal entries."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oort import journal
from tests import ptrace
from tests.packaging.container import Container

pytestmark = pytest.mark.packages

OORTD = "oortd.service"
DROP_IN = f"/run/systemd/system/{OORTD}.d/test.conf"


def _entries(machine: Container, *matches: str) -> list[dict[str, Any]]:
    machine.run("journalctl", "--sync")
    shown = machine.run("journalctl", "-q", "--no-pager", "-o", "json", "-u", OORTD, *matches)
    return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture
def configured(installed: Container) -> Iterator[Container]:
    """The machine for tests that change settings; the settings are restored afterwards."""
    kept = installed.run("cat", "/etc/default/oortd")
    yield installed
    installed.write("/etc/default/oortd", kept)
    installed.run("rm", "-rf", str(Path(DROP_IN).parent))
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", OORTD)
    assert installed.redis("ping") == "PONG"


def test_a_restart_refuses_nobody(
    installed: Container, tmp_path: Path, record: Callable[[str, str], None]
) -> None:
    """A client opens a new connection for every command during restarts and a kill."""
    stop = tmp_path / "stop"
    words = [sys.executable, str(Path(__file__).with_name("connecting.py")), "6139", str(stop)]
    with subprocess.Popen(installed.in_network(*words), stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"go\n"
            for how in ("restart", "restart", "kill --signal=KILL"):
                before = installed.unit(OORTD, "MainPID")
                installed.shell(f"systemctl {how} {OORTD}")
                installed.until(
                    f'[ "$(systemctl show --value -p MainPID {OORTD})" != {before} ]'
                    f" && systemctl is-active {OORTD}"
                )
                assert installed.redis("ping") == "PONG"
        finally:
            stop.touch()
        told = json.loads(client.stdout.read())
    assert told["refused"] == 0, told
    assert told["served"] > 100, told
    record(
        "two restarts and a kill under load",
        f"{told['served']} connections served, {told['refused']} refused,"
        f" {told['broken']} ended without an answer",
    )
    # The descriptor store has the listening socket and the data directory.
    assert installed.unit(OORTD, "NFileDescriptorStore") == "2"


def test_a_changed_address_closes_the_stored_one(configured: Container) -> None:
    # The port is the same, so the old socket would be in use.
    configured.shell("echo OORT_LISTEN_ADDRESS=127.0.0.1:6139 >> /etc/default/oortd")
    configured.run("systemctl", "restart", OORTD)
    assert configured.redis("ping") == "PONG"
    assert configured.unit(OORTD, "NFileDescriptorStore") == "2"
    configured.shell("echo OORT_LISTEN_ADDRESS=127.0.0.1:6140 >> /etc/default/oortd")
    configured.run("systemctl", "restart", OORTD)
    assert configured.redis("-p", "6140", "ping") == "PONG"
    assert "refused" in configured.redis("-p", "6139", "ping")
    assert configured.unit(OORTD, "NFileDescriptorStore") == "2"


def test_a_stalled_worker_is_killed_and_a_sleeping_command_is_not(
    configured: Container,
) -> None:
    configured.write(DROP_IN, "[Service]\nWatchdogSec=3\n")
    configured.shell(f"systemctl daemon-reload; systemctl restart {OORTD}")
    before = configured.unit(OORTD, "MainPID")
    assert configured.redis("debug", "sleep", "7") == "OK"
    assert configured.unit(OORTD, "MainPID") == before
    assert configured.redis("set", "kept", "over a stall") == "OK"
    pid = configured.seen_from_here(before)
    with ptrace.stopped(ptrace.thread(pid, "worker-0")):
        configured.until(f"journalctl -u {OORTD} | grep -q 'Watchdog timeout'")
    configured.until(f'[ "$(systemctl show --value -p MainPID {OORTD})" != {before} ]')
    configured.until(f"systemctl is-active {OORTD}")
    assert configured.redis("get", "kept") == "over a stall"
    (told,) = _entries(configured, f"MESSAGE_ID={journal.STALLED}")
    assert told["OORT_WORKER"] == "0"
    assert told["PRIORITY"] == "2"


def test_states_are_shown(installed: Container) -> None:
    """systemd shows reloading and the status text of oortd."""
    installed.run("systemctl", "reload", OORTD)
    installed.until(f"systemctl is-active {OORTD}")
    with subprocess.Popen(
        installed.in_network("redis-cli", "-p", "6139"), stdin=subprocess.PIPE
    ):  # the program ends with its input
        installed.until(
            f"systemctl show --value -p StatusText {OORTD}"
            " | grep -E '^serving on .*:6139: [1-9][0-9]* connections, [0-9]+ keys, [0-9]+ ops/s$'"
        )


def test_entries_have_message_ids_and_explanations(installed: Container) -> None:
    installed.run("systemctl", "restart", OORTD)
    started = _entries(installed, f"MESSAGE_ID={journal.STARTED}")[-1]
    assert "ready on" in started["MESSAGE"]
    assert (started["PRIORITY"], started["SYSLOG_IDENTIFIER"]) == ("6", "oortd")
    assert started["OORT_RECOVERY"] == "0"
    assert started["_SYSTEMD_UNIT"] == OORTD
    for message_id in (journal.STOPPING, journal.STOPPED):
        assert _entries(installed, f"MESSAGE_ID={message_id}")
    explained = installed.run("journalctl", "-x", "--no-pager", "-u", OORTD)
    assert "The store is open and oortd listens on its addresses." in explained


def test_damage_names_its_segment(configured: Container) -> None:
    """The test changes bytes of a value on the disk."""
    configured.redis("set", "spoilt", "MARK" * 100)
    configured.run("systemctl", "stop", OORTD)
    configured.shell(
        "python3 - <<'E'\n"
        "from pathlib import Path\n"
        "for path in Path('/var/lib/oort').glob('*.log'):\n"
        "    data = path.read_bytes()\n"
        "    at = data.find(b'MARKMARK')\n"
        "    if at >= 0:\n"
        "        with path.open('r+b') as file:\n"
        "            file.seek(at)\n"
        "            file.write(b'KRAM')\n"
        "        print(path.stem)\n"
        "E"
    )
    configured.run("systemctl", "start", OORTD)
    assert "damaged" in configured.redis("get", "spoilt")
    entry = _entries(configured, f"MESSAGE_ID={journal.DAMAGED}")[-1]
    assert entry["PRIORITY"] == "3"
    assert configured.succeeds("test", "-e", f"/var/lib/oort/{entry['OORT_SEGMENT']}.log")
    # Writing the key again repairs it.
    assert configured.redis("set", "spoilt", "new") == "OK"


def test_a_full_disk_is_shown(configured: Container) -> None:
    configured.shell("echo OORT_VALUESTORECONFIG_FREE_DISK_LOW=1024TiB >> /etc/default/oortd")
    configured.run("systemctl", "restart", OORTD)
    entry = _entries(configured, f"MESSAGE_ID={journal.DISK_FULL}")[-1]
    assert entry["PRIORITY"] == "3"
    assert configured.redis("set", "a", "b") != "OK"
    configured.until(
        f"systemctl show --value -p StatusText {OORTD} | grep -q '^the disk is full, writes'"
    )


def test_a_long_rebuild_gets_enough_time(configured: Container) -> None:
    """The test slows oortd down until the start takes several times systemd's time limit."""
    configured.shell("oort-bench -settest -num 3000000 -vsize 16 -pipeline 64 -clients 8 -quiet")
    configured.run("systemctl", "stop", OORTD)
    configured.run("rm", "/var/lib/oort/index")
    configured.write(DROP_IN, "[Service]\nTimeoutStartSec=4\n")
    configured.run("systemctl", "daemon-reload")
    configured.run("systemctl", "start", "--no-block", OORTD)
    configured.until(f"systemctl show -p StatusText {OORTD} | grep -q 'opening the store'")
    pid = configured.seen_from_here(configured.unit(OORTD, "MainPID"))
    for _ in range(30):  # in nine seconds the process runs for half a second
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.015)
    assert configured.unit(OORTD, "StatusText").startswith("rebuilding the index: ")
    configured.until(f"systemctl is-active {OORTD}")
    assert configured.unit(OORTD, "NRestarts") == "0"
    assert "oort_recovery:rebuilt" in configured.redis("info")
