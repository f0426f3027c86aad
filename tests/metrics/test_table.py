"""The table of metrics in Python, and its page in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oort.metrics import ALL, COMMAND, PLANE, PROCESS, STORE, Histogram, Kind, label_values, page
from oort.store import StoreConfig, open_store

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page.documentation()


def test_names_are_what_prometheus_takes() -> None:
    names = [metric.name for metric in ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert all(metric.help.endswith(".") and metric.unit for metric in ALL)
    assert {metric.label for metric in ALL} == {"", "code", "command", "database"}


def test_no_two_metrics_are_the_same_field_of_info() -> None:
    fields = [(metric.section, metric.field) for metric in ALL if metric.shown]
    assert len(set(fields)) == len(fields)


def test_labels() -> None:
    assert label_values(PLANE["error_replies"])[:2] == ("ERR", "NOAUTH")
    assert label_values(STORE["keys"]) == tuple(map(str, range(16)))
    assert label_values(STORE["segments"]) == ()


def test_a_reading_has_the_metrics_of_its_owner() -> None:
    with open_store("mapstore", StoreConfig(directory="")) as store, store.session() as session:
        session.set(2, b"a", b"b")
        stats = store.stats()
        assert stats.each(STORE["keys"]) == [0, 0, 1, *(13 * [0])]
        assert stats[STORE["live_bytes"]] > 0
        for other in (PLANE["keyspace_hits"], COMMAND["command_calls"], STORE["fsync_latency"]):
            with pytest.raises(KeyError):
                stats[other]
        with pytest.raises(KeyError):
            STORE["no such metric"]
        empty = store.histogram(STORE["fsync_latency"])
        assert isinstance(empty, Histogram)
        assert (empty.count, empty.sum, empty.max, empty.percentile(99)) == (0, 0, 0, 0)
        bounds = [bound for bound, _ in empty.buckets()]
        assert bounds == sorted(bounds)
        assert bounds[0] == 0.064
        assert bounds[-1] == float("inf")


def test_what_the_process_holds_is_no_histogram() -> None:
    assert all(metric.kind is not Kind.HISTOGRAM for metric in PROCESS.values())
