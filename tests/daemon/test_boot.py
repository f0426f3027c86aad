"""Start and stop: one clear line if oortd cannot start, and a clean stop on request."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Oortd, clean_environment, oortd_command

StartOortd = Callable[..., Oortd]


def run(*flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*oortd_command(), *flags],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
    )


def cannot_start(*flags: str, env: dict[str, str] | None = None) -> str:
    """The only line of an oortd that cannot start."""
    ended = run(*flags, env=env)
    assert ended.returncode != 0
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def standalone(tmp_path: Path, *flags: str) -> list[str]:
    # Such a process ends before it creates any file there.
    runtime = [] if "--runtime-dir" in flags else ["--runtime-dir", "/dev/shm"]
    listen = [] if "--listen" in flags else ["--listen", "127.0.0.1:0"]
    data = [] if "--data-dir" in flags else ["--data-dir", str(tmp_path / "data")]
    return ["--standalone", *runtime, *listen, *data, *flags]


def test_without_a_ring_it_says_how_to_start_alone() -> None:
    assert "--standalone" in cannot_start()


def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = cannot_start(*standalone(tmp_path, "--listen", address))
    assert address in line
    assert "in use" in line
    assert not (tmp_path / "data").exists()


def test_data_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert str(tmp_path / "data") in cannot_start(*standalone(tmp_path))


def test_data_dir_that_cannot_be_made(tmp_path: Path) -> None:
    line = cannot_start(*standalone(tmp_path, "--data-dir", "/proc/no-such/data"))
    assert "/proc/no-such/data" in line


def test_data_dir_not_writable(tmp_path: Path) -> None:
    """The directory is read-only even for root."""
    assert "/proc" in cannot_start(*standalone(tmp_path, "--data-dir", "/proc"))


def test_runtime_dir_not_on_tmpfs() -> None:
    """On a disk the nonce would survive a reboot, and would then be wrong about the page cache."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        line = cannot_start(*standalone(Path(directory), "--runtime-dir", directory))
    assert directory in line
    assert "tmpfs" in line


def test_data_dir_in_use(oortd: Oortd, tmp_path: Path) -> None:
    line = cannot_start(*standalone(tmp_path, "--data-dir", str(oortd.data_dir)))
    assert str(oortd.data_dir) in line
    assert oortd.client().ping()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--nonsense"], "--nonsense"),
        (["--fsync", "sometimes"], "Fsync"),
        (["--workers", "many"], "Workers"),
        (["--store", "tape"], "StoreType"),
        (["--listen", "localhost"], "ListenAddress"),
        (["--listen", "127.0.0.1:99999"], "ListenAddress"),
        (["--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_flags(tmp_path: Path, flags: list[str], named: str) -> None:
    assert named in cannot_start(*standalone(tmp_path, *flags))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("MaxClients = lots\n", "MaxClients"),
        ("MaxClients = 0\n", "MaxClients"),
        ("NoSuch = 1\n", "NoSuch"),
        ("maxclients = 1\n", "did you mean MaxClients"),
        ("[ValueStoreConfig]\nSegmentSize = 1 GiB\n", "[ValueStoreConfig] SegmentSize"),
        ("[Nowhere]\na = 1\n", "[Nowhere]"),
        ("this is no configuration\n", "line"),
        ("MaxClients = 1\nMaxClients = 2\n", "line"),
        ("requirepass secret\n", "line 1"),  # Redis's syntax
    ],
)
def test_bad_configuration_files_are_named_with_the_place(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "oortd.conf"
    path.write_text(text)
    line = cannot_start(*standalone(tmp_path, "--config", str(path)))
    assert str(path) in line
    assert named in line
    assert "secret" not in line


def test_bad_environment(tmp_path: Path) -> None:
    assert "OORT_NONSENSE" in cannot_start(*standalone(tmp_path), env={"OORT_NONSENSE": "1"})
    assert "MaxClients" in cannot_start(*standalone(tmp_path), env={"OORT_MAX_CLIENTS": "x"})
    assert "OORTD_SKIP_SRV" in cannot_start(env={"OORTD_SKIP_SRV": "perhaps"})


def test_every_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "oortd.conf"
    path.write_text(
        'ListenAddress = "127.0.0.1:1111"\nMaxClients = 11\nFsync = always\nRequirePass = "50% #"\n'
        'StoreType = "oortstore"\n[ValueStoreConfig]\nSegmentSize = 8 MiB\n'
    )
    env = {
        "OORT_MAX_CLIENTS": "22",
        "OORT_FSYNC": '"no"',
        "OORT_VALUESTORECONFIG_TOMBSTONE_AGE": "5",
    }
    shown = run("--config", str(path), "--fsync", "everysec", "--print-config", env=env)
    assert shown.returncode == 0, shown.stderr
    section, lines = "", {}
    for line in shown.stdout.splitlines():
        if line.startswith("["):
            section = line
        lines[f"{section}{line.partition(' = ')[0]}"] = line
    assert lines["ListenAddress"] == f"ListenAddress = 127.0.0.1:1111  # {path}"
    assert lines["StoreType"] == f"StoreType = valuestore  # {path}"
    assert lines["[ValueStoreConfig]SegmentSize"] == f"SegmentSize = 8 MiB  # {path}"
    assert lines["MaxClients"] == "MaxClients = 22  # environment"
    assert lines["[ValueStoreConfig]TombstoneAge"] == "TombstoneAge = 5  # environment"
    assert lines["Fsync"] == "Fsync = everysec  # flags"
    assert lines["IdleTimeout"] == "IdleTimeout = 0  # default"
    assert "50%" not in shown.stdout


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    env = {
        "OORTD_SKIP_SRV": "true",
        "OORT_LISTEN_ADDRESS": "127.0.0.1:0",
        "OORT_DATA_DIR": str(tmp_path / "data"),
        "OORT_STORE_TYPE": "mapstore",
    }
    daemon = Oortd(tmp_path, env=env)
    daemon.command = oortd_command  # type: ignore[method-assign]
    try:
        daemon.start()
        assert "mapstore" in daemon.log()
        assert daemon.stop() == 0
    finally:
        daemon.end()


def test_version() -> None:
    assert run("--version").stdout.startswith("oortd ")


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_cleanly_and_nothing_is_lost(
    start_oortd: StartOortd, workers: str, number: int
) -> None:
    daemon = start_oortd("--workers", workers)
    idle = daemon.connect()
    pipeline = daemon.client().pipeline(transaction=False)
    for i in range(1000):
        pipeline.set(f"key:{i}", f"value {i}")
    pipeline.execute()
    assert daemon.stop(number) == 0
    assert idle.at_end()
    daemon.start()
    found = daemon.client().mget([f"key:{i}" for i in range(1000)])
    assert found == [f"value {i}".encode() for i in range(1000)]


def test_sighup_is_survived(oortd: Oortd) -> None:
    oortd.client().set("a", "b")
    os.kill(oortd.pid, signal.SIGHUP)
    assert oortd.client().get("a") == b"b"
    assert oortd.stop() == 0
    assert "SIGHUP" in oortd.log()


@pytest.mark.parametrize(
    "words", [["SHUTDOWN"], ["SHUTDOWN", "NOSAVE"], ["SHUTDOWN", "SAVE", "NOW"]]
)
def test_shutdown_closes_without_a_reply_and_keeps_everything(
    oortd: Oortd, words: list[str]
) -> None:
    client = oortd.connect()
    assert client.call("SET", "a", "b") == b"+OK\r\n"
    client.send(*words)
    assert client.at_end()
    assert oortd.wait() == 0
    assert oortd.start().client().get("a") == b"b"


def test_values_expiry_and_databases_outlive_kill_9(start_oortd: StartOortd) -> None:
    daemon = start_oortd()
    client = daemon.client()
    big = os.urandom(3_000_000)
    client.set("big", big)
    client.set(b"\0\r\n\xff", b"binary\0", ex=1000)
    client.set("gone", "x")
    client.delete("gone")
    other = daemon.client(db=15)
    other.set("elsewhere", "15")
    for _ in range(2):
        daemon.kill()
        daemon.start()
        client, other = daemon.client(), daemon.client(db=15)
        assert client.get("big") == big
        assert client.get(b"\0\r\n\xff") == b"binary\0"
        assert 0 < client.ttl(b"\0\r\n\xff") <= 1000
        assert client.get("gone") is None
        assert (client.dbsize(), other.dbsize()) == (2, 1)
        assert other.get("elsewhere") == b"15"


def test_the_in_memory_store_forgets(start_oortd: StartOortd) -> None:
    daemon = start_oortd("--store", "mapstore")
    daemon.client().set("a", "b")
    assert daemon.restart().client().get("a") is None


def test_several_addresses_both_families(start_oortd: StartOortd) -> None:
    daemon = start_oortd("--listen", "127.0.0.1:0", "--listen", "[::1]:0")
    line = next(line for line in daemon.log().splitlines() if "ready on" in line)
    v6_port = int(line.partition("[::1]:")[2].partition(",")[0])
    daemon.client().set("a", "b")
    with socket.create_connection(("::1", v6_port), timeout=60) as connection:
        connection.sendall(b"GET a\r\nCLIENT INFO\r\n")
        received = b""
        while b"resp=" not in received:
            received += connection.recv(4096)
    assert received.startswith(b"$1\r\nb\r\n")
    assert b" laddr=[::1]:%d " % v6_port in received


def test_systemd_is_told(tmp_path: Path, start_oortd: StartOortd) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(60)
        notify.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        daemon = start_oortd(env=env)
        messages: list[str] = []
        while not any("WATCHDOG=1" in message for message in messages):
            messages.append(notify.recv(4096).decode())
        assert any("READY=1" in message for message in messages)
        assert daemon.stop() == 0
        while not any("STOPPING=1" in message for message in messages):
            messages.append(notify.recv(4096).decode())


def test_lines_for_the_journal_have_priorities(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("wb") as log:
        status = os.fstat(log.fileno())
        env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(
            oortd_command(), stderr=log, env=clean_environment(env), timeout=60, check=False
        )
    assert path.read_text().startswith("<2>")


def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    """With too few descriptors oortd serves fewer clients, or cannot start, and logs the reason."""
    limit = ["prlimit", "--nofile=1200:1200", "--"]
    daemon = Oortd(tmp_path)
    inner = daemon.command
    # Without the privilege to raise the limit.
    drop = (
        ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-all"] if os.geteuid() == 0 else []
    )
    daemon.command = lambda: [*limit, *drop, *inner()]  # type: ignore[method-assign]
    daemon.start()
    try:
        shown = daemon.client().config_get("maxclients")
        assert int(shown["maxclients"]) < 10000
        assert "limit on open files" in daemon.log()
    finally:
        daemon.end()


def test_the_log_says_nothing_but_lines(oortd: Oortd) -> None:
    oortd.client().set("a", "b")
    oortd.stop()
    assert json.dumps(oortd.log()).count("Traceback") == 0
