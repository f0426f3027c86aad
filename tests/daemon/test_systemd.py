"""oortd as a service: its messages to systemd, and the descriptors that survive a restart.

These tests use a stand-in for systemd (supervisor.py).  tests/packaging uses systemd itself.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import logging.handlers
import os
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import oort.journal
from oort.daemon.held_directory import NAME as DATA_DIRECTORY
from oort.daemon.progress import ProgressReporter, describe
from oort.daemon.store_events import log_store_event
from oort.daemon.watchdog import Workers
from oort.journal import DAMAGED, JournalHandler
from oort.metrics import STORE
from oort.notify import Notifier
from oort.store import Event, Opening, Progress, StoreConfig, open_store
from tests import ptrace
from tests.conftest import Oortd, RawClient, until
from tests.daemon.supervisor import Supervisor
from tests.daemon.test_power_failure import Disk


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path) as made:
        yield made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Oortd]:
    daemon = Oortd(tmp_path)
    yield daemon
    daemon.end()


def _descriptors(pid: int) -> set[str]:
    return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_life_as_systemd_sees_it(supervisor: Supervisor, service: Oortd) -> None:
    supervisor.start(service, watchdog_seconds=0.4)
    assert supervisor.said("READY=1")
    client = service.client()
    client.set("a", "b")
    until(lambda: f"serving on 127.0.0.1:{service.port}: 1 connections, 1 keys" in (
        supervisor.status()
    ))  # fmt: skip
    assert supervisor.status().endswith("ops/s")
    until(lambda: supervisor.said("WATCHDOG=1"))
    before = len(supervisor.messages)
    os.kill(service.pid, signal.SIGHUP)
    until(lambda: any("READY=1" in message for message in supervisor.messages[before:]))
    words = [line for message in supervisor.messages[before:] for line in message.splitlines()]
    assert words.index("RELOADING=1") < words.index("READY=1")
    assert any(word.startswith("MONOTONIC_USEC=") for word in words)
    assert service.stop() == 0
    until(lambda: supervisor.said("STOPPING=1"))
    # A store that takes long to close does not keep the watchdog waiting.
    after = supervisor.messages[supervisor.messages.index("STOPPING=1\nSTATUS=stopping") :]
    assert not any("WATCHDOG=1" in message for message in after)


def test_a_restart_refuses_nobody(supervisor: Supervisor, service: Oortd) -> None:
    """Clients that open a connection for every command, during two restarts and a kill."""
    supervisor.start(service)
    over = threading.Event()
    refused: list[str] = []
    served = [0, 0]

    def connect_again_and_again(number: int) -> None:
        while not over.is_set():
            try:
                with RawClient(service.address) as client:
                    client.call("PING")
                    served[number] += 1
            except ConnectionRefusedError as error:
                refused.append(str(error))
            except (EOFError, OSError):
                continue  # accepted by the process that ended

    threads = [
        threading.Thread(target=connect_again_and_again, args=(number,)) for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for end in (service.stop, service.kill, service.stop):
        until(lambda: min(served) > 20)
        end()
        # oortd does not run, so new connections wait.
        waiting = RawClient(service.address)
        waiting.send("SET", "while", "away")
        served[:] = [0, 0]
        supervisor.start(service)
        assert waiting.reply() == b"+OK\r\n"
        waiting.close()
        until(lambda: min(served) > 20)
    over.set()
    for thread in threads:
        thread.join()
    assert refused == []
    assert len(supervisor.stored) == 2


def test_addresses_are_oortds_own_to_configure(supervisor: Supervisor, service: Oortd) -> None:
    """The setting changes from all addresses to one, on the same port, so the old socket must be
    closed first."""
    service.flags = ["--listen", "0.0.0.0:0", "--listen", "[::1]:0"]
    supervisor.start(service)
    assert len(supervisor.stored) == 3
    (name,) = (name for name in supervisor.stored if name.startswith("0.0.0.0_"))
    port = int(name.rpartition("_")[2])
    kept = f"socket:[{os.fstat(supervisor.stored[name]).st_ino}]"
    service.flags = ["--listen", f"0.0.0.0:{port}"]
    service.stop()
    supervisor.start(service)
    assert set(supervisor.stored) == {DATA_DIRECTORY, name}
    assert kept in _descriptors(service.pid)
    service.flags = ["--listen", f"127.0.0.1:{port}"]
    service.stop()
    supervisor.start(service)
    assert set(supervisor.stored) == {DATA_DIRECTORY, f"127.0.0.1_{port}"}
    assert kept not in _descriptors(service.pid)
    assert service.client().ping()


def test_descriptors_that_are_meant_for_another_process_are_left_alone(
    service: Oortd,
) -> None:
    """LISTEN_PID names another process, so descriptor 3 is not a listening socket."""
    with socket.socket() as other:
        service.env = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x"}
        service.inherit = [other.fileno()]
        service.start()
        assert service.client().ping()


def _alive_again(supervisor: Supervisor) -> None:
    before = len(supervisor.messages)
    until(lambda: any("WATCHDOG=1" in message for message in supervisor.messages[before:]))


def test_a_stalled_worker_is_noticed_and_nothing_else(
    supervisor: Supervisor, service: Oortd
) -> None:
    """One of two data-plane threads is idle and is stopped as a debugger stops a thread."""
    service.flags = ["--workers", "2"]
    supervisor.start(service, watchdog_seconds=0.4)
    sleeping = service.connect()
    sleeping.send("DEBUG", "SLEEP", "2")
    for _ in range(8):  # two seconds, in which a client waits for a sleep
        _alive_again(supervisor)
    assert sleeping.reply() == b"+OK\r\n"
    with ptrace.stopped(ptrace.thread(service.pid, "worker-1")):
        until(lambda: supervisor.status() == "data-plane worker 1 has stopped moving")
        assert service.log().count("worker 1 has stopped moving") == 1
        told = sum("WATCHDOG=1" in message for message in supervisor.messages)
        # The main loop and the other worker still run, so one of these requests gets a reply.
        clients = [service.connect().socket for _ in range(2)]
        for client in clients:
            client.sendall(b"TIME\r\n")
        assert select.select(clients, [], [], 60)[0]
        assert sum("WATCHDOG=1" in message for message in supervisor.messages) == told
    _alive_again(supervisor)
    until(lambda: supervisor.status().startswith("serving on"))


class _Plane:
    """A data plane with a worker that begins no round."""

    threads = 1

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def rounds(self, worker: int) -> int:
        return 1

    def thread(self, worker: int) -> int:
        return self._thread

    def nudge(self, worker: int) -> None:
        pass


def test_who_waits_for_the_disk_is_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {1: "D", 2: "S", 3: "R"}
    monkeypatch.setattr("oort.daemon.watchdog.thread_state", states.__getitem__)

    def stalled(thread: int, disk: bool) -> bool:
        monkeypatch.setattr("oort.daemon.watchdog.disk_is_waited_for", lambda: disk)
        workers = Workers(_Plane(thread))
        assert workers.check() == []
        assert workers.check() == []
        return workers.check() == [0]

    assert not stalled(1, True)  # the worker itself waits for the disk
    assert not stalled(2, True)  # the worker waits for a lock of a thread that waits for the disk
    assert stalled(2, False)
    assert stalled(3, True)  # the worker spins


@pytest.mark.system
def test_a_disk_that_does_not_answer_is_no_stall(tmp_path: Path, service: Oortd) -> None:
    """The file system is frozen: a thread that writes waits in the kernel until the thaw."""
    disk = Disk(tmp_path)
    try:
        service.data_dir = disk.mounted_at / "data"
        service.flags = ["--fsync", "always", "--workers", "2"]
        with Supervisor(tmp_path) as supervisor:
            supervisor.start(service, watchdog_seconds=0.4)
            client = service.connect()
            assert client.call("SET", "a", "b") == b"+OK\r\n"
            subprocess.run(["fsfreeze", "--freeze", str(disk.mounted_at)], check=True)
            try:
                clients = [service.connect() for _ in range(4)]
                for other in clients:
                    other.send("SET", "b", b"x" * 1000)
                until(lambda: "D" in _states(service.pid))
                for _ in range(30):
                    _alive_again(supervisor)
                assert not select.select([other.socket for other in clients], [], [], 0)[0]
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", str(disk.mounted_at)], check=True)
            assert [other.reply() for other in clients] == [b"+OK\r\n"] * 4
            assert "stopped moving" not in service.log()
            service.stop()
    finally:
        service.end()
        disk.unmount()


def _states(pid: int) -> set[str]:
    """The states of the process's threads, as the kernel's letters."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        found.add(path.read_text().rpartition(") ")[2][0])
    return found


def test_a_rebuild_shows_its_progress(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    config = StoreConfig(str(tmp_path / "data"), segment_bytes=65536, background=False)
    with open_store("valuestore", config) as store, store.session() as session:
        for number in range(1000):
            session.set(0, b"key:%d" % number, b"x" * 500)
    (tmp_path / "data" / "index").unlink()
    opening = Opening()
    assert describe(opening.progress()) == "opening the store"
    with open_store("valuestore", config, opening) as store:
        segments = store.stats()[STORE["segments"]]
        progress = opening.progress()
    assert progress == Progress("count", 16384, 16384, 1000)
    assert describe(progress) == "opening the store: counting keys: 100%"
    assert segments > 5
    assert describe(Progress("rebuild", 20, 8, 51234)) == (
        "rebuilding the index: 40% (8 of 20 segments), 51234 records"
    )


def test_more_time_is_asked_for_only_while_it_goes_on(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rebuild makes progress, then stops."""
    monkeypatch.setattr("oort.daemon.progress.disk_is_waited_for", lambda: False)
    looked = itertools.count()

    def progress() -> Progress:
        return Progress("rebuild", 10, min(next(looked), 3), 7)

    notifier = Notifier({"NOTIFY_SOCKET": str(supervisor.path)})
    with ProgressReporter(notifier, progress, seconds=0.01):
        until(lambda: next(looked) > 20)
    notifier.status("over")
    until(lambda: supervisor.status() == "over")
    assert "STATUS=rebuilding the index: 30% (3 of 10 segments), 7 records" in supervisor.messages
    asked = supervisor.messages.count("EXTEND_TIMEOUT_USEC=120000000")
    assert asked == len([one for one in supervisor.messages if "10 segments" in one])
    # The watchdog is not active before READY=1, and nothing activates it.
    assert not supervisor.said("WATCHDOG=1")


def test_a_supervisor_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": told.getsockname()})
        notifier.ready("first")
        for number in range(10_000):  # far more than any queue holds
            notifier.status(f"status {number}")
            notifier.alive()
            notifier.extend(1.0)
        told.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.recv(4096)
        # The notifier does not believe that systemd shows a status that was dropped.
        notifier.status("status 9999")
        assert told.recv(4096) == b"STATUS=status 9999"


def test_entries_for_the_journal_have_fields(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    log = logging.getLogger("oortd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(60)
        instead = logging.handlers.MemoryHandler(10)
        handler = JournalHandler(path, instead)
        log.addHandler(handler)
        try:
            log_store_event(Event(3, "bad\nplace", "damage", 0x2A))
            entry = journal.recv(65536).decode()
            log.error("%s", "x" * 500_000)
        finally:
            log.removeHandler(handler)
            handler.close()
    assert entry.splitlines() == [
        "MESSAGE=bad place",
        "PRIORITY=3",
        "SYSLOG_IDENTIFIER=oortd",
        f"MESSAGE_ID={DAMAGED}",
        "OORT_KIND=damage",
        "OORT_SEGMENT=000000000000002a",
    ]
    # A message that is too long for the journal is not lost.
    assert len(instead.buffer) == 1


def test_every_message_id_is_explained() -> None:
    """journalctl -x finds a text for each id, and the catalog has no other ids."""
    catalog = Path(__file__).parents[2] / "packaging/root/usr/lib/systemd/catalog/oortd.catalog"
    explained = set(re.findall(r"^-- (\w+)$", catalog.read_text(), re.MULTILINE))
    ids = {
        value
        for name, value in vars(oort.journal).items()
        if name.isupper() and re.fullmatch(r"[0-9a-f]{32}", str(value))
    }
    assert ids == explained
