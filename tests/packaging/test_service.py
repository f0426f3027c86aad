"""Tests of oortd installed by name from the repository: service, restarts, and confinement."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.packaging.container import Container

pytestmark = pytest.mark.packages

OORTD = "oortd.service"


def _main_pid(machine: Container) -> str:
    return machine.unit(OORTD, "MainPID")


def _restarted(machine: Container, before: str) -> None:
    machine.until(f'[ "$(systemctl show --value -p MainPID {OORTD})" != {before} ]')
    machine.until(f"systemctl is-active {OORTD}")


def test_it_serves_redis_clients(installed: Container) -> None:
    assert installed.redis("ping") == "PONG"
    script = (
        "import redis; r = redis.Redis(port=6139); r.set('greeting', 'hello', ex=3600);"
        "print(r.get('greeting').decode(), r.ttl('greeting') > 3000)"
    )
    done = subprocess.run(
        installed.in_network(sys.executable, "-c", script), capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["hello", "True"], "")
    assert installed.run("oort-cli", "get", "greeting").strip() == "hello"


def test_systemctl_status_shows_the_description(installed: Container) -> None:
    assert installed.unit(OORTD, "ActiveState") == "active"
    assert installed.unit(OORTD, "StatusText")
    status = installed.run("systemctl", "status", OORTD)
    assert "Status:" in status
    assert "oort key/value store" in status


def test_the_journal_is_quiet(installed: Container) -> None:
    installed.run("journalctl", "--sync")
    words = ["journalctl", "--no-pager", "--unit", OORTD, "--output", "json"]
    entries = [json.loads(line) for line in installed.run(*words).splitlines()]
    loud = [entry["MESSAGE"] for entry in entries if int(entry.get("PRIORITY", 6)) <= 4]
    assert loud == []
    own = [entry["MESSAGE"] for entry in entries if entry.get("_COMM") == "oortd"]
    assert any("ready on" in message for message in own)


def test_other_machines_are_refused_without_a_password(installed: Container) -> None:
    subprocess.run(
        installed.in_network("ip", "address", "add", "192.0.2.1/32", "dev", "lo"), check=True
    )
    assert "DENIED" in installed.redis("-h", "192.0.2.1", "ping")
    assert installed.redis("-h", "127.0.0.1", "ping") == "PONG"


def test_keys_were_created(installed: Container) -> None:
    listed = installed.run("stat", "-c", "%n %a %U:%G", "/etc/oort/server.key")
    assert listed.split() == ["/etc/oort/server.key", "640", "root:oort"]
    shown = installed.shell("openssl x509 -in /etc/oort/server.crt -noout -ext subjectAltName")
    assert "DNS:machine" in shown
    before = installed.run("sha256sum", "/etc/oort/server.key", "/etc/oort/server.crt")
    installed.run("dpkg-reconfigure", "oortd")
    assert installed.run("sha256sum", "/etc/oort/server.key", "/etc/oort/server.crt") == before
    installed.until(f"systemctl is-active {OORTD}")


def test_data_survives_a_kill(installed: Container) -> None:
    assert installed.redis("set", "kept", "over a kill") == "OK"
    before = _main_pid(installed)
    installed.run("systemctl", "kill", "--signal=KILL", OORTD)
    _restarted(installed, before)
    assert installed.redis("get", "kept") == "over a kill"
    # The index was not rebuilt, because the boot id and the runtime directory were available.
    assert "oort_recovery:rebuilt" not in installed.redis("info")


def test_a_stopped_process_is_found_by_the_watchdog(installed: Container) -> None:
    assert installed.unit(OORTD, "WatchdogUSec") == "30s"
    installed.write(f"/run/systemd/system/{OORTD}.d/test.conf", "[Service]\nWatchdogSec=3\n")
    installed.shell(f"systemctl daemon-reload; systemctl restart {OORTD}")
    installed.redis("set", "kept", "over a watchdog")
    before = _main_pid(installed)
    installed.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", OORTD)
    _restarted(installed, before)
    assert "Watchdog timeout" in installed.journal()
    assert installed.redis("get", "kept") == "over a watchdog"
    installed.shell(f"rm -r /run/systemd/system/{OORTD}.d; systemctl daemon-reload")
    installed.run("systemctl", "restart", OORTD)


def test_reload_keeps_the_process(installed: Container) -> None:
    before = _main_pid(installed)
    installed.run("systemctl", "reload", OORTD)
    installed.until(f"journalctl -u {OORTD} -o cat | grep -q SIGHUP")
    installed.until(f"systemctl is-active {OORTD}")
    assert _main_pid(installed) == before


def test_the_units_are_valid_and_confined(
    installed: Container, record: Callable[[str, str], None]
) -> None:
    for unit in (OORTD, "synd.service"):
        path = f"/usr/lib/systemd/system/{unit}"
        assert installed.run("systemd-analyze", "verify", "--man=no", path) == ""
        shown = installed.run("systemd-analyze", "security", "--no-pager", unit)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
        assert found is not None, shown
        record(f"exposure of {unit}", found[1])
        assert float(found[1]) <= 1.5, shown


def test_libraries_work_under_write_xor_execute(installed: Container) -> None:
    """gRPC, cffi and OpenSSL work under the confinement of the unit."""
    unit = installed.run("cat", f"/usr/lib/systemd/system/{OORTD}")
    unit = re.sub(
        r"^(Type|ExecReload|Restart|WatchdogSec|EnvironmentFile)=.*\n", "", unit, flags=re.M
    )
    unit = re.sub(r"^(State|Cache|Runtime)Directory.*\n", "", unit, flags=re.M)
    unit = re.sub(
        r"^ExecStart=.*", "Type=oneshot\nExecStart=/usr/local/bin/probe", unit, flags=re.M
    )
    installed.write("/run/systemd/system/probe.service", unit)
    installed.write("/usr/local/bin/probe", PROBE)
    installed.shell("chmod 755 /usr/local/bin/probe; systemctl daemon-reload")
    installed.run("systemctl", "start", "probe.service")
    assert "all of it works" in installed.journal("probe.service")


PROBE = """\
#!/usr/bin/python3 -IB
import ctypes, mmap, sys
sys.path.insert(0, "/usr/lib/oort")
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except OSError:
    pass
else:
    sys.exit("memory may be written and executed")
from concurrent import futures
import grpc, OpenSSL.SSL
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pb2
from oort._native import ffi, lib

ec.generate_private_key(ec.SECP256R1())
context = OpenSSL.SSL.Context(OpenSSL.SSL.TLS_METHOD)
OpenSSL.SSL.Connection(context, None).set_connect_state()
server = grpc.server(futures.ThreadPoolExecutor(1))
answer = grpc.unary_unary_rpc_method_handler(lambda request, context: request + b"!")
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("probe", {"Echo": answer}),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    assert channel.unary_unary("/probe/Echo")(b"yes", timeout=20) == b"yes!"
server.stop(None)
open("/proc/sys/kernel/random/boot_id").read()
print("all of it works")
"""


def test_synd_is_installed_and_disabled(installed: Container) -> None:
    assert installed.run("systemctl", "is-enabled", "synd.service", check=False).strip() == (
        "disabled"
    )
    assert installed.unit("synd.service", "ActiveState") == "inactive"
    assert installed.run("systemctl", "is-enabled", OORTD).strip() == "enabled"


def test_a_replaced_cached_configuration_stays_in_its_directory(installed: Container) -> None:
    assert installed.run("readlink", "/var/cache/oortd-config.cache").strip() == (
        "oort/oortd-config.cache"
    )
    listed = installed.shell("stat -c '%n %a %U:%G' /var/lib/oort /var/cache/oort /etc/oort")
    assert listed.splitlines() == [
        "/var/lib/oort 750 oort:oort",
        "/var/cache/oort 750 oort:oort",
        "/etc/oort 775 root:oort",
    ]


def test_seconds_to_ready(installed: Container, record: Callable[[str, str], None]) -> None:
    begin = time.monotonic()
    installed.run("systemctl", "restart", OORTD)
    assert installed.redis("ping") == "PONG"
    record("restart until it answers, s", f"{time.monotonic() - begin:.2f}")
    started, ready = (
        int(installed.unit(OORTD, f"{moment}TimestampMonotonic"))
        for moment in ("InactiveExit", "ActiveEnter")
    )
    record("start to READY, s", f"{(ready - started) / 1e6:.2f}")
