"""Timed runs: redis-benchmark's lines against one server after the other.

Every figure is a median over rounds.  Rounds alternate between the servers, so that other work on
the machine affects all servers alike.  CPU time is the server's user and system time from /proc.
The kernel's writeback runs in threads of its own.  Its CPU time is a separate figure, as far as
/proc shows these threads.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from servers import TICKS, BrokenError, Server, process_cpu_seconds

from oort.bench.load import Load, run

CLIENTS = 50
VALUE_BYTES = 100
KEYSPACE = 1_000_000
WRITEBACK = ("kworker", "jbd2", "xfsaild", "kswapd", "loop", "flush")


@dataclass(frozen=True)
class Line:
    """One line of work: SET or GET at one depth of pipeline."""

    operation: str
    pipeline: int
    requests: int

    @property
    def name(self) -> str:
        return f"{self.operation} P{self.pipeline}"


@dataclass(frozen=True)
class Sample:
    requests_per_second: float
    cpu_us: float  # of the server, per request
    writeback_us: float  # of kernel threads, per request
    elsewhere: float  # other work's share of the machine's CPU time
    p50_ms: float
    p99_ms: float


def benchmark_program() -> str:
    """Path of redis-benchmark; BrokenError if it is missing."""
    path = shutil.which("redis-benchmark")
    if path is None:
        raise BrokenError("redis-benchmark is missing: apt-get install redis-tools")
    return path


def writeback_seconds() -> float:
    """CPU time of the kernel threads that write dirty pages, as far as /proc shows them."""
    total = 0.0
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            if (directory / "comm").read_text().startswith(WRITEBACK):
                total += process_cpu_seconds(int(directory.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
    return total


def machine_busy_seconds() -> float:
    """CPU time of everything on the machine, and the time that its hypervisor gave to others."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_cpu_seconds() -> float:
    """CPU time of this process and of the load generators that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def preload(server: Server, keyspace: int = KEYSPACE, prefix: str = "key:") -> float:
    """Write every key that redis-benchmark will ask for; the seconds that this took."""
    result = run(
        Load(
            port=server.port,
            clients=CLIENTS,
            pipeline=16,
            keys="sequential",
            keyspace=keyspace,
            requests=keyspace,
            value_min=VALUE_BYTES,
            value_max=VALUE_BYTES,
            prefix=prefix,
            timeout=120.0,
        )
    )
    if result.errors():
        raise BrokenError(f"{server.name}: errors while keys were loaded: {result.errors()}")
    return result.seconds


def sample(server: Server, line: Line) -> Sample:
    """Run one line of redis-benchmark."""
    kernel = writeback_seconds()
    cpu = server.cpu_seconds()
    began, busy, own = time.monotonic(), machine_busy_seconds(), own_cpu_seconds()
    rate, p50, p99 = benchmark(server.port, line)
    cpu = server.cpu_seconds() - cpu
    busy, own = machine_busy_seconds() - busy, own_cpu_seconds() - own
    available = (time.monotonic() - began) * (os.cpu_count() or 1)
    kernel = writeback_seconds() - kernel
    return Sample(
        requests_per_second=rate,
        cpu_us=cpu * 1e6 / line.requests,
        writeback_us=max(0.0, kernel) * 1e6 / line.requests,
        elsewhere=max(0.0, busy - own - cpu - max(0.0, kernel)) / available,
        p50_ms=p50,
        p99_ms=p99,
    )


def benchmark(port: int, line: Line, host: str = "127.0.0.1") -> tuple[float, float, float]:
    """Requests a second, p50 and p99 in ms, as redis-benchmark reports them."""
    arguments = [benchmark_program(), "-h", host, "-p", str(port), "-c", str(CLIENTS),
                 "-d", str(VALUE_BYTES), "-r", str(KEYSPACE), "-P", str(line.pipeline),
                 "-n", str(line.requests), "-t", line.operation.lower(), "--csv"]  # fmt: skip
    shown = subprocess.run(arguments, capture_output=True, text=True, check=False)
    rows = list(csv.DictReader(text for text in shown.stdout.splitlines() if text[:1] == '"'))
    if shown.returncode != 0 or not rows or "rps" not in rows[0]:
        output = (shown.stderr or shown.stdout).strip().splitlines() or ["nothing"]
        raise BrokenError(f"redis-benchmark against port {port} failed: {output[-1]}")
    row = rows[0]
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def summary(samples: list[Sample]) -> dict[str, float]:
    """The median of every figure."""
    rows = [asdict(each) for each in samples]
    return {name: median(row[name] for row in rows) for name in rows[0]}


def compare(
    servers: list[Server], lines: list[Line], rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians by line and server, over alternating rounds."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    for number in range(rounds):
        for line in lines:
            # Each round begins with another server, so that no server always runs after a sync.
            start = number % len(servers)
            for server in servers[start:] + servers[:start]:
                say(f"round {number + 1} of {rounds}: {line.name} against {server.name}")
                samples.setdefault((line.name, server.name), []).append(sample(server, line))
    return {
        line.name: {server.name: summary(samples[line.name, server.name]) for server in servers}
        for line in lines
    }
