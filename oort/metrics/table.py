"""The descriptions of the metrics, read once from the C library.

Their source is csrc/base/metrics.def, whose opening comment says what the columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import count

from oort._native import ffi, lib


class Kind(Enum):
    COUNTER = lib.OORT_COUNTER
    GAUGE = lib.OORT_GAUGE
    HISTOGRAM = lib.OORT_HISTOGRAM


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    owner: str  # store, plane, command or process
    name: str  # without the "oort_" in front
    kind: Kind
    unit: str
    label: str  # distinguishes the values of the metric, or ""
    section: str  # of INFO
    field: str  # of INFO, or ""
    help: str
    resets: bool  # by CONFIG RESETSTAT
    place: int  # of the first value in a reading
    values: int  # the number of values

    @property
    def states(self) -> tuple[str, ...]:
        """For a metric that is a state: the names of the values 0, 1 and so on."""
        return tuple(self.unit.split("|")) if "|" in self.unit else ()

    @property
    def shown(self) -> bool:
        """Whether the metric is one field of INFO."""
        return bool(self.field) and "<" not in self.field


def _text(pointer: object) -> str:
    return str(ffi.string(pointer).decode())


def _read(owner: str, number: int) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for position in count():
        row = lib.oort_metric_at(number, position)
        if row == ffi.NULL:
            return found
        name = _text(row.name)
        found[name] = Metric(
            owner=owner,
            name=name,
            kind=Kind(row.kind),
            unit=_text(row.unit),
            label=_text(row.label),
            section=_text(row.section),
            field=_text(row.field),
            help=_text(row.help),
            resets=bool(row.resets),
            place=int(row.place),
            values=int(row.values),
        )
    raise AssertionError("unreachable")


STORE: Mapping[str, Metric] = _read("store", lib.OORT_METRICS_STORE)
PLANE: Mapping[str, Metric] = _read("plane", lib.OORT_METRICS_PLANE)
COMMAND: Mapping[str, Metric] = _read("command", lib.OORT_METRICS_COMMAND)
PROCESS: Mapping[str, Metric] = _read("process", lib.OORT_METRICS_PROCESS)
ALL: tuple[Metric, ...] = tuple(
    metric for table in (PROCESS, PLANE, COMMAND, STORE) for metric in table.values()
)


def label_values(metric: Metric) -> tuple[str, ...]:
    """The label of each value of a metric, but not of metrics with a value for each command.

    The command table has the commands.
    """
    if metric.label == "code":
        return tuple(_text(lib.oort_error_code(i)) for i in range(metric.values))
    if metric.label == "database":
        return tuple(map(str, range(metric.values)))
    return ()
