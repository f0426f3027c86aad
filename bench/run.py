"""make bench: compare oortd with redis and valkey, with the same work against each in turn.

The program prints medians, the server's CPU time per request, and ratios of oort's figure to each
peer's.  It writes the run as JSON and SVG to bench/results/.  docs/benchmarking.md explains the
figures.  --target benchmarks one server that is already running.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import chart
import rings
import syndicate
from footprint import footprint
from measure import Line, benchmark, benchmark_program, compare, preload
from servers import ALL, AbsentError, BrokenError, Fleet, Server

from oort.errors import OortError

RESULTS = Path(__file__).resolve().parent / "results"


def say(text: str) -> None:
    """Show the progress on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def fleet_of(fleet: Fleet, names: list[str], fsync: str, absent: dict[str, str]) -> list[Server]:
    """The available servers, started and loaded with every key; the others go to `absent`."""
    servers = []
    for name in names:
        if name in absent:
            continue
        try:
            server = fleet.add(name, fsync)
            say(f"starting {name} {server.version}")
            server.start()
            say(f"loading {name}")
            preload(server)
            servers.append(server)
        except (AbsentError, BrokenError) as error:
            absent[name] = str(error)
    return servers


def table(results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Medians, and the ratios of oort's medians to each peer's."""
    header = (
        f"{'work':<14} {'server':<12} {'requests/s':>11} {'CPU µs':>7} {'writeback µs':>13} "
        f"{'p50 ms':>7} {'p99 ms':>7}   oort / this server: rate, CPU"
    )
    lines = [header]
    for work, row in results.items():
        ours = row.get("oort")
        for server, figures in row.items():
            ratio = ""
            if ours is not None and server != "oort":
                rate = ours["requests_per_second"] / figures["requests_per_second"]
                cpu = ours["cpu_us"] / figures["cpu_us"] if figures["cpu_us"] else float("nan")
                ratio = f"   {rate:.2f}, {cpu:.2f}"
            lines.append(
                f"{work:<14} {server:<12} {figures['requests_per_second']:>11,.0f} "
                f"{figures['cpu_us']:>7.2f} {figures['writeback_us']:>13.2f} "
                f"{figures['p50_ms']:>7.3f} {figures['p99_ms']:>7.3f}{ratio}"
            )
    shares = [figures["elsewhere"] for row in results.values() for figures in row.values()]
    if shares:
        lines.append(
            f"other work took {median(shares):.0%} of the machine's CPU time during the runs"
        )
    return lines


def footprint_lines(found: dict[str, dict[str, float | None]]) -> list[str]:
    columns = {
        "rss_bytes_per_key": "RSS B/key",
        "rss_anon_growth_mib": "RssAnon MiB",
        "index_bytes_per_key": "index B/key",
        "disk_bytes_per_key": "disk B/key",
        "empty_start_s": "start s",
        "clean_restart_s": "clean s",
        "killed_restart_s": "killed s",
        "clean_restart_s_per_million": "clean s/M",
        "killed_restart_s_per_million": "killed s/M",
    }
    lines = [f"{'server':<12} " + " ".join(f"{title:>11}" for title in columns.values())]
    for name, row in found.items():
        figures = (row[column] for column in columns)
        lines.append(
            f"{name:<12} "
            + " ".join(f"{'-' if value is None else f'{value:.3f}':>11}" for value in figures)
        )
    return lines


def machine() -> dict[str, object]:
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def run_fleet(options: argparse.Namespace) -> dict[str, object]:
    absent: dict[str, str] = {}
    scale = 0.25 if options.quick else 1.0
    lines = [
        Line("SET", 1, int(200_000 * scale)),
        Line("GET", 1, int(200_000 * scale)),
        Line("SET", 16, int(1_600_000 * scale)),
        Line("GET", 16, int(1_600_000 * scale)),
    ]
    document: dict[str, object] = {"machine": machine(), "rounds": options.rounds}
    with Fleet(options.directory) as fleet:
        servers = fleet_of(fleet, options.servers, "everysec", absent)
        document["versions"] = {server.name: server.version for server in servers}
        results = compare(servers, lines, options.rounds, say) if servers else {}
        for server in servers:
            fleet.remove(server)

        always = [Line("SET", 1, int(50_000 * scale))]
        servers = fleet_of(fleet, options.servers, "always", absent)
        if servers:
            found = compare(servers, always, options.rounds, say)
            results["SET P1 always"] = found["SET P1"]
        for server in servers:
            fleet.remove(server)

        sizes: dict[str, dict[str, float | None]] = {}
        for name in options.servers:
            if name not in absent and options.keys:
                sizes[name] = footprint(fleet, name, options.keys, say)
    rebalances = rings.rings(say)
    registrations = syndicate.syndicate(say)
    clear()
    print("\n".join(table(results)))
    if sizes:
        print(f"\n{options.keys:,} keys of 100 bytes:")
        print("\n".join(footprint_lines(sizes)))
    print("\n" + "\n".join(rings.lines(rebalances)))
    print("\n" + "\n".join(syndicate.lines(registrations)))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    document.update(results=results, footprint=sizes, rings=rebalances, absent=absent)
    document["syndicate"] = registrations
    return document


def run_target(options: argparse.Namespace) -> dict[str, object]:
    """redis-benchmark's lines against a server that this program did not start: no CPU figures."""
    host, _, port = options.target.rpartition(":")
    if not host or not port.isdigit():
        raise BrokenError(f"--target {options.target}: must be HOST:PORT")
    scale = 0.25 if options.quick else 1.0
    results: dict[str, dict[str, float]] = {}
    for operation, pipeline, requests in (
        ("SET", 1, 200_000), ("GET", 1, 200_000), ("SET", 16, 1_600_000), ("GET", 16, 1_600_000),
    ):  # fmt: skip
        line = Line(operation, pipeline, int(requests * scale))
        found = []
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}: {line.name}")
            found.append(benchmark(int(port), line, host))
        rate, p50, p99 = (median(column) for column in zip(*found, strict=True))
        results[line.name] = {"requests_per_second": rate, "p50_ms": p50, "p99_ms": p99}
        clear()
        print(f"{line.name:<8} {rate:>11,.0f} requests/s   p50 {p50:.3f} ms   p99 {p99:.3f} ms")
    return {"machine": machine(), "target": options.target, "results": results}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--target", metavar="HOST:PORT", help="benchmark a server that is already running"
    )
    parser.add_argument("--rounds", type=int, help="default: 5 (--quick: 2)")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten")
    parser.add_argument("--keys", type=int, metavar="N",
                        help="keys for memory and restarts; 0: skip (default: 2 M)")  # fmt: skip
    parser.add_argument("--full", action="store_true", help="10 M keys")
    parser.add_argument("--servers", default=",".join(ALL), help="default: %(default)s")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"),
                        help="directory of the data (default: %(default)s)")  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    options.servers = [name for name in options.servers.split(",") if name]
    if options.rounds is None:
        options.rounds = 2 if options.quick else 5
    if options.keys is None:
        options.keys = 10_000_000 if options.full else 400_000 if options.quick else 2_000_000
    # If this process is ended from outside, its servers must end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work: Callable[[argparse.Namespace], dict[str, object]]
    work = run_target if options.target else run_fleet
    try:
        benchmark_program()
        document = work(options)
    except (AbsentError, BrokenError, OortError) as error:
        clear()
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        clear()
        print("bench: interrupted", file=sys.stderr)
        return 130
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    stem.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    if not options.target:
        results = document["results"]
        assert isinstance(results, dict)
        names = [name for name in options.servers if any(name in row for row in results.values())]
        stem.with_suffix(".svg").write_text(chart.draw(results, names))
    print(f"\nresults: {stem}.json" + ("" if options.target else " and .svg"))
    # A comparison without oort has failed.
    missing = document.get("absent")
    return 1 if isinstance(missing, dict) and "oort" in missing else 0


if __name__ == "__main__":
    sys.exit(main())
