"""Reports of runs: text for people, JSON and CSV for programs, and a progress bar."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from oort.clock import SYSTEM

from .load import QUANTILES, Load, Result

BAR_WIDTH = 30


class Progress:
    """A progress bar on a terminal, redrawn in place; without a terminal it prints nothing."""

    def __init__(self, name: str, load: Load, out: TextIO) -> None:
        self._name = name
        self._load = load
        self._out = out
        self._shown = out.isatty()
        self._began = SYSTEM.monotonic()
        self._last = (self._began, 0)
        self._rate = 0.0

    def __call__(self, answered: int) -> None:
        if not self._shown:
            return
        now = SYSTEM.monotonic()
        then, before = self._last
        if now - then >= 0.5:
            self._rate = (answered - before) / (now - then)
            self._last = (now, answered)
        elif before == 0 and now > then:
            self._rate = answered / (now - then)
        share = self._share(answered, now - self._began)
        full = int(share * BAR_WIDTH)
        bar = "#" * full + "." * (BAR_WIDTH - full)
        self._out.write(
            f"\r{self._name} [{bar}] {share:4.0%} {answered:,} {self._rate:,.0f}/s\x1b[K"
        )
        self._out.flush()

    def _share(self, answered: int, seconds: float) -> float:
        if self._load.requests:
            return min(1.0, answered / self._load.requests)
        return min(1.0, seconds / (self._load.warmup + self._load.seconds))

    def end(self) -> None:
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()


def percent_name(share: float) -> str:
    """The name of a quantile: p50, p99.9, ..."""
    return f"p{share * 100:.10g}"


def text(name: str, load: Load, result: Result, allow_missing: bool) -> str:
    """The result of one run as text for people."""
    lines = [
        f"{name}: {result.requests:,} requests in {result.seconds:.2f} s, "
        f"{result.per_second:,.0f} a second "
        f"({load.clients} clients, {load.threads} threads, pipeline {load.pipeline}"
        + (f", open loop at {load.rate:,.0f} a second" if load.rate else "")
        + ")",
        (
            f"  sent {result.bytes_out:,} bytes, received {result.bytes_in:,} bytes; "
            f"{result.cpu_seconds:.2f} s of CPU, "
            f"{result.per_core_second:,.0f} requests a core second"
        ),
    ]
    for operation, latency in result.latency.items():
        quantiles = "  ".join(
            f"{percent_name(share)} {value:,.0f}" for share, value in latency.quantiles.items()
        )
        lines.append(
            f"  {operation} latency, µs: mean {latency.mean:,.0f}  min {latency.minimum:,.0f}  "
            f"{quantiles}  max {latency.maximum:,.0f}"
        )
    if result.gets:
        lines.append(f"  values checked: {result.hits:,} right, {result.missing:,} missing")
    if result.unsent:
        lines.append(f"  {result.unsent:,} requests were due but were never sent")
    for problem, count in result.errors(allow_missing).items():
        lines.append(f"  ERROR: {count:,} {problem}")
    lines.extend(f"  ERROR: the server replied: {error}" for error in result.error_texts)
    return "\n".join(lines)


def as_dict(name: str, load: Load, result: Result, allow_missing: bool) -> dict[str, object]:
    """The settings (without the password) and the result of one run, for JSON."""
    settings = asdict(load)
    del settings["password"]
    found = asdict(result)
    found["latency"] = {
        operation: {
            "mean_us": latency.mean,
            "min_us": latency.minimum,
            "max_us": latency.maximum,
            **{f"{percent_name(share)}_us": us for share, us in latency.quantiles.items()},
        }
        for operation, latency in result.latency.items()
    }
    found["requests_per_second"] = result.per_second
    found["requests_per_core_second"] = result.per_core_second
    found["errors"] = result.errors(allow_missing)
    return {"name": name, "load": settings, "result": found}


def write_json(target: str, runs: list[dict[str, object]]) -> None:
    """Write the runs as JSON to a file, or to standard output for "-"."""
    document = json.dumps({"runs": runs}, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(document)
    else:
        Path(target).write_text(document, encoding="utf-8")


CSV_COLUMNS = (
    "name", "operation", "requests", "seconds", "requests_per_second", "requests_per_core_second",
    "clients", "threads", "pipeline", "rate", "mean_us", "min_us",
    *(f"{percent_name(share)}_us" for share in QUANTILES),
    "max_us", "hits", "missing", "errors",
)  # fmt: skip


def _csv_rows(runs: Iterable[tuple[str, Load, Result, bool]]) -> Iterable[list[object]]:
    for name, load, result, allow_missing in runs:
        for operation, latency in result.latency.items():
            count = {"get": result.gets, "set": result.sets, "all": result.requests}[operation]
            yield [
                name,
                operation,
                count,
                f"{result.seconds:.6f}",
                f"{count / result.seconds if result.seconds else 0:.1f}",
                f"{result.per_core_second:.1f}",
                load.clients,
                load.threads,
                load.pipeline,
                load.rate,
                f"{latency.mean:.3f}",
                f"{latency.minimum:.3f}",
                *(f"{us:.3f}" for us in latency.quantiles.values()),
                f"{latency.maximum:.3f}",
                result.hits,
                result.missing,
                sum(result.errors(allow_missing).values()),
            ]


def write_csv(target: str, runs: Iterable[tuple[str, Load, Result, bool]]) -> None:
    """Write a row for each run and kind of request to a file, or to standard output for "-"."""
    if target == "-":
        writer = csv.writer(sys.stdout)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(runs))
        return
    with Path(target).open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(runs))
