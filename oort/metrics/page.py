"""Makes docs/metrics.md from the table: `python -m oort.metrics.page`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from oort.metrics import ALL, Kind, Metric

WIDTH = 118
OWNERS = {
    "process": "The process",
    "plane": "The data plane",
    "command": "Commands",
    "store": "The store",
}

_OPENING = """\
# Metrics

Made from `csrc/base/metrics.def` by `python -m oort.metrics.page`; change it there.

INFO and CmdCtrl's Stats show these values. A metric's entry ends with its section and its field of
INFO. A field with `<…>` exists once for each value of the metric's label.

- A *counter* only grows. A counter marked *resets* starts again at 0 with CONFIG RESETSTAT.
- A *gauge* is a value of the moment.
- A *histogram* counts durations in buckets: four for every power of two from 64 ns to 68.7 s. Its
  field of INFO has the percentiles p50, p99 and p99.9 in microseconds. They are at most a quarter
  too high. Fields outside latencystats also have the maximum, the number of durations and their
  sum. CONFIG RESETSTAT empties every histogram.

A histogram takes 992 bytes. There is one for each command, shared by all workers, and one for each
other histogram below. The main loop times every command that it executes. Each worker times the
first 255 calls of a command, and then one call in 256, which stands for the others.
"""


def documentation() -> str:
    """The whole page."""
    lines = _OPENING.splitlines()
    for owner, title in OWNERS.items():
        lines += ["", f"## {title}", ""]
        for metric in ALL:
            if metric.owner == owner:
                lines += _item(metric)
    return "\n".join(lines) + "\n"


def _item(metric: Metric) -> list[str]:
    unit = ", ".join(f"{value}: {name}" for value, name in enumerate(metric.states)) or metric.unit
    facts = [metric.kind.name.lower(), unit]
    if metric.label:
        facts.append(f"by {metric.label}")
    if metric.resets and metric.kind is Kind.COUNTER:
        facts.append("resets")
    field = f" INFO {metric.section}: `{metric.field}`." if metric.field else ""
    return textwrap.wrap(
        f"`oort_{metric.name}` ({'; '.join(facts)}): {metric.help}{field}",
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    root = Path(__file__).parent.parent.parent
    root.joinpath("docs", "metrics.md").write_text(documentation())
