"""Readings: the values of an owner's metrics at one moment, and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oort._native import ffi, lib
from oort.metrics.table import Kind, Metric

_PLACES = {"store": lib.OORT_METRICS_STORE, "plane": lib.OORT_METRICS_PLANE}
BUCKETS: int = lib.OORT_HISTOGRAM_BUCKETS


class Reading:
    """The counters and gauges of one owner."""

    __slots__ = ("_owner", "_values")

    def __init__(self, owner: str, values: Sequence[int]) -> None:
        self._owner = owner
        self._values = values

    def __getitem__(self, metric: Metric) -> int:
        """The value of a metric without a label."""
        return self.each(metric)[0]

    def each(self, metric: Metric) -> Sequence[int]:
        """The values of a metric, in the order of label_values().

        Raises KeyError for a histogram, and for a metric of another owner.
        """
        if metric.owner != self._owner or metric.kind is Kind.HISTOGRAM:
            raise KeyError(f"{metric.name} is not in a reading of the {self._owner}")
        return self._values[metric.place : metric.place + metric.values]


def read(owner: str, fill: Any, source: Any) -> Reading:
    """fill: the C function that fills the owner's array; source: its first argument."""
    places = lib.oort_metric_places(_PLACES[owner])
    out = ffi.new("uint64_t[]", places)
    fill(source, out)
    return Reading(owner, ffi.unpack(out, places))


class Histogram:
    """Durations since the last CONFIG RESETSTAT.  All values are in microseconds."""

    __slots__ = ("_native",)

    def __init__(self, native: Any) -> None:
        """native: an oort_histogram *."""
        self._native = native

    @property
    def count(self) -> int:
        return int(self._native.count)

    @property
    def sum(self) -> float:
        return int(self._native.sum_ns) / 1000

    @property
    def max(self) -> float:
        return int(self._native.max_ns) / 1000

    def percentile(self, percent: float) -> float:
        """The duration that so many percent of all durations do not exceed; 0 without durations.

        The result is at most a quarter too high.
        """
        return int(lib.oort_histogram_percentile(self._native, percent)) / 1000

    def buckets(self) -> list[tuple[float, int]]:
        """The upper bound and the count of each bucket.  The last bound is infinite."""
        counts = ffi.unpack(self._native.buckets, BUCKETS)
        bounds = [lib.oort_histogram_bound(i) / 1000 for i in range(BUCKETS - 1)]
        return list(zip([*bounds, float("inf")], counts, strict=True))
