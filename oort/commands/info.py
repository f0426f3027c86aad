"""INFO: the state of the server, in the sections and fields of redis.io/commands/info.

A section has its own fields here.  The metrics that name the section in csrc/base/metrics.def
follow in the place of _METRICS.  A field with the same meaning as in Redis has Redis's name.  The
name of a field that exists only in oort begins with oort_.  A field of Redis is left out if its
value would have to be invented.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from oort.commands import process, reply, table
from oort.commands.connection import REDIS_VERSION
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.server import last_save
from oort.config.settings import split_address
from oort.dataplane import Request
from oort.metrics import ALL, COMMAND, PLANE, STORE, Histogram, Kind, Metric, label_values

HANDLERS = Handlers()

Fields = list[tuple[str, object]]

_METRICS: tuple[str, object] = ("", "")

_KEYS = STORE["keys"]
_FAILED = STORE["failed"]
_ERRORS = PLANE["error_replies"]
_CALLS = COMMAND["command_calls"]
_FAILED_CALLS = COMMAND["command_failed_calls"]
_REJECTED_CALLS = COMMAND["command_rejected_calls"]
_LATENCY = COMMAND["command_latency"]

# The decimals of float values, by unit.
_DECIMALS = {"seconds": 6, "KiB per second": 2}


def human(size: int) -> str:
    """A size in bytes as Redis writes it: 1536 is 1.50K."""
    value = float(size)
    for unit in ("B", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{size}B" if unit == "B" else f"{value:.2f}{unit}"


def _value(metric: Metric, value: float) -> object:
    if metric.states:
        return metric.states[int(value)]
    return f"{value:.{_DECIMALS[metric.unit]}f}" if isinstance(value, float) else value


def _percentiles(histogram: Histogram) -> str:
    """In Redis's format, in microseconds."""
    return ",".join(
        f"p{percent:g}={histogram.percentile(percent):.3f}" for percent in (50, 99, 99.9)
    )


def _durations(histogram: Histogram) -> str:
    return (
        f"{_percentiles(histogram)},max={histogram.max:.3f},count={histogram.count},"
        f"sum={histogram.sum:.3f}"
    )


def _metrics(context: Context, section: str) -> Fields:
    """The metrics that are fields of this section, in the order of their table."""
    shown = [metric for metric in ALL if metric.shown and metric.section == section]
    if not shown:
        return []
    values = process.read(context, section)
    plane, store = context.plane.stats(), context.store.stats()
    fields: Fields = []
    for metric in shown:
        if metric.kind is Kind.HISTOGRAM:
            source = context.plane if metric.owner == "plane" else context.store
            fields.append((metric.field, _durations(source.histogram(metric))))
        elif metric.owner == "process":
            fields.append((metric.field, _value(metric, values[metric])))
        else:
            reading = plane if metric.owner == "plane" else store
            fields.append((metric.field, _value(metric, reading[metric])))
    return fields


def _server(context: Context) -> Fields:
    me = context.process
    return [
        ("redis_version", REDIS_VERSION),
        ("oort_version", me.version),
        ("redis_mode", "standalone"),
        ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("arch_bits", 64 if sys.maxsize > 2**32 else 32),
        ("multiplexing_api", "epoll"),
        ("process_id", os.getpid()),
        ("process_supervised", "systemd" if me.supervised else "no"),
        ("run_id", me.run_id),
        ("tcp_port", split_address(me.addresses[0])[1]),
        ("server_time_usec", int(context.clock.wall() * 1_000_000)),
        _METRICS,
        ("uptime_in_days", int(process.read(context, "server")[process.UPTIME]) // 86400),
        ("executable", Path(sys.argv[0]).resolve()),
        (
            "config_file",
            Path(me.config_file).resolve() if me.config_file else "",
        ),
        ("io_threads_active", int(context.settings.workers > 1)),
        ("oort_workers", context.settings.workers),
        ("oort_store", context.settings.store_type),
        ("oort_needs_restart", " ".join(name.replace(" ", "") for name in context.needs_restart)),
    ]


def _clients(context: Context) -> Fields:
    return [
        _METRICS,
        ("cluster_connections", 0),
        ("maxclients", context.settings.max_clients),
        ("blocked_clients", 0),
        ("tracking_clients", 0),
    ]


def _memory(context: Context) -> Fields:
    values = process.read(context, "memory")
    used, resident = int(values[process.MEMORY]), int(values[process.RESIDENT])
    peak, total = int(values[process.PEAK]), int(values[process.SYSTEM])
    return [
        _METRICS,
        ("used_memory_human", human(used)),
        ("used_memory_rss_human", human(resident)),
        ("used_memory_peak_human", human(peak)),
        ("used_memory_peak_perc", f"{100 * used / max(1, peak):.2f}%"),
        ("total_system_memory_human", human(total)),
        ("maxmemory", 0),
        ("maxmemory_human", "0B"),
        ("maxmemory_policy", "noeviction"),
        ("mem_fragmentation_ratio", f"{resident / max(1, used):.2f}"),
        ("mem_allocator", "libc"),
    ]


def _persistence(context: Context) -> Fields:
    healthy = "err" if context.store.stats()[_FAILED] else "ok"
    return [
        ("loading", 0),
        ("async_loading", 0),
        ("rdb_bgsave_in_progress", int(context.saving)),
        ("rdb_last_save_time", last_save(context)),
        ("rdb_last_bgsave_status", healthy),
        ("aof_enabled", int(context.settings.store_type == "valuestore")),
        ("aof_last_write_status", healthy),
        ("oort_fsync", context.settings.fsync),
        _METRICS,
    ]


def _stats(context: Context) -> Fields:
    return [
        _METRICS,
        ("total_error_replies", sum(context.plane.stats().each(_ERRORS))),
        ("sync_full", 0),
        ("sync_partial_ok", 0),
        ("sync_partial_err", 0),
        ("evicted_keys", 0),
        ("evicted_clients", 0),
        ("pubsub_channels", 0),
        ("pubsub_patterns", 0),
        ("latest_fork_usec", 0),
        ("total_forks", 0),
    ]


def _replication(context: Context) -> Fields:
    return [
        ("role", "master"),
        ("connected_slaves", 0),
        ("master_failover_state", "no-failover"),
        ("master_replid", context.process.run_id),
        ("master_replid2", "0" * 40),
        ("master_repl_offset", 0),
        ("second_repl_offset", -1),
        ("repl_backlog_active", 0),
        ("repl_backlog_size", 0),
        ("repl_backlog_first_byte_offset", 0),
        ("repl_backlog_histlen", 0),
    ]


def _cpu(context: Context) -> Fields:
    return [_METRICS]


def _modules(context: Context) -> Fields:
    return []


def _commandstats(context: Context) -> Fields:
    """In Redis's format, which parsers read by position."""
    rows: Fields = []
    for command, stats in zip(table.COMMANDS, context.plane.command_stats(), strict=True):
        calls, rejected = stats[_CALLS], stats[_REJECTED_CALLS]
        if calls or rejected:
            usec = int(context.plane.command_histogram(_LATENCY, command.position).sum)
            per_call = usec / calls if calls else 0.0
            counts = (
                f"calls={calls},usec={usec},usec_per_call={per_call:.2f},"
                f"rejected_calls={rejected},failed_calls={stats[_FAILED_CALLS]}"
            )
            rows.append((f"cmdstat_{command.name}", counts))
    return rows


def _errorstats(context: Context) -> Fields:
    counts = context.plane.stats().each(_ERRORS)
    return [
        (f"errorstat_{code}", f"count={count}")
        for code, count in zip(label_values(_ERRORS), counts, strict=True)
        if count
    ]


def _latencystats(context: Context) -> Fields:
    histograms = (
        (command.name, context.plane.command_histogram(_LATENCY, command.position))
        for command in table.COMMANDS
    )
    return [
        (f"latency_percentiles_usec_{name}", _percentiles(histogram))
        for name, histogram in histograms
        if histogram.count
    ]


def _cluster(context: Context) -> Fields:
    return [("cluster_enabled", 0)]


def _ring(context: Context) -> Fields:
    return context.ring_facts()


def _keyspace(context: Context) -> Fields:
    # The store does not count the keys with an expiry, which only the records know.  Parsers need
    # the two fields nevertheless.
    keys = context.store.stats().each(_KEYS)
    return [
        (f"db{number}", f"keys={count},expires=0,avg_ttl=0")
        for number, count in enumerate(keys)
        if count
    ]


_SECTIONS: dict[str, tuple[str, Callable[[Context], Fields]]] = {
    "server": ("Server", _server),
    "clients": ("Clients", _clients),
    "memory": ("Memory", _memory),
    "persistence": ("Persistence", _persistence),
    "stats": ("Stats", _stats),
    "replication": ("Replication", _replication),
    "cpu": ("CPU", _cpu),
    "modules": ("Modules", _modules),
    "commandstats": ("Commandstats", _commandstats),
    "errorstats": ("Errorstats", _errorstats),
    "latencystats": ("Latencystats", _latencystats),
    "cluster": ("Cluster", _cluster),
    "ring": ("Ring", _ring),
    "keyspace": ("Keyspace", _keyspace),
}
_DEFAULT = frozenset(_SECTIONS) - {"commandstats", "latencystats"}


def _fields(context: Context, section: str) -> Fields:
    """Every field of a section."""
    fields: Fields = []
    for field in _SECTIONS[section][1](context):
        fields += _metrics(context, section) if field is _METRICS else [field]
    return fields


def _typed(value: object) -> object:
    """A field for JSON: a decimal fraction becomes a number, a=1,b=2 becomes an object."""
    if isinstance(value, int):
        return value
    text = str(value)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    if re.fullmatch(r"[\w.]+=[^,=]*(,[\w.]+=[^,=]*)*", text):
        pairs = (pair.split("=") for pair in text.split(","))
        return {key: int(word) if word.isdigit() else _typed(word) for key, word in pairs}
    return text


def facts(context: Context) -> dict[str, dict[str, object]]:
    """All of INFO for programs, by section and field.  Numbers are numbers, not texts."""
    return {
        section: {field: _typed(value) for field, value in _fields(context, section)}
        for section in _SECTIONS
    }


@HANDLERS.handles("info")
def info(context: Context, request: Request) -> bytes:
    asked: set[str] = set()
    for word in request.argv[1:] or (b"default",):
        name = word.decode("ascii", "replace").lower()
        if name in ("all", "everything"):
            asked |= set(_SECTIONS)
        elif name == "default":
            asked |= _DEFAULT
        else:
            asked.add(name)
    sections = []
    for name, (title, _) in _SECTIONS.items():
        if name in asked:
            rows = "".join(f"{field}:{value}\r\n" for field, value in _fields(context, name))
            sections.append(f"# {title}\r\n{rows}")
    return reply.verbatim("\r\n".join(sections), request.protocol)
