"""INFO: what the server knows of itself, in Redis's sections and field names.

Fields keep Redis's names where their meaning is the same; what exists here only begins with oort_.
A field that would have to be invented is left out.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from oort.commands import reply, table
from oort.commands.connection import REDIS_VERSION
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.figures import process_memory
from oort.commands.server import last_save
from oort.config.settings import split_address
from oort.dataplane import Request

HANDLERS = Handlers()

Fields = list[tuple[str, object]]

_RECOVERY = {0: "clean", 1: "replayed", 2: "rebuilt"}


def human(size: int) -> str:
    """As Redis writes sizes: 1536 is 1.50K."""
    value = float(size)
    for unit in ("B", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{size}B" if unit == "B" else f"{value:.2f}{unit}"


def _server(context: Context) -> Fields:
    process = context.process
    uptime = int(context.clock.wall() - process.started)
    return [
        ("redis_version", REDIS_VERSION),
        ("oort_version", process.version),
        ("redis_mode", "standalone"),
        ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("arch_bits", 64 if sys.maxsize > 2**32 else 32),
        ("multiplexing_api", "epoll"),
        ("process_id", os.getpid()),
        ("process_supervised", "systemd" if process.supervised else "no"),
        ("run_id", process.run_id),
        ("tcp_port", split_address(process.addresses[0])[1]),
        ("server_time_usec", int(context.clock.wall() * 1_000_000)),
        ("uptime_in_seconds", uptime),
        ("uptime_in_days", uptime // 86400),
        ("executable", Path(sys.argv[0]).resolve()),
        (
            "config_file",
            Path(process.config_file).resolve() if process.config_file else "",
        ),
        ("io_threads_active", int(context.settings.workers > 1)),
        ("oort_workers", context.settings.workers),
        ("oort_store", context.settings.store_type),
        ("oort_needs_restart", " ".join(name.replace(" ", "") for name in context.needs_restart)),
    ]


def _clients(context: Context) -> Fields:
    connections = context.plane.connections().values()
    return [
        ("connected_clients", len(context.clients)),
        ("cluster_connections", 0),
        ("maxclients", context.settings.max_clients),
        ("client_recent_max_input_buffer", max((c.query_bytes for c in connections), default=0)),
        ("client_recent_max_output_buffer", max((c.output_bytes for c in connections), default=0)),
        ("blocked_clients", 0),
        ("tracking_clients", 0),
        ("oort_clients_waiting_sync", context.plane.stats().waiting_sync),
    ]


def _memory(context: Context) -> Fields:
    memory = process_memory()
    used, resident, peak = memory["RssAnon"], memory["VmRSS"], context.figures.peak_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        ("used_memory", used),
        ("used_memory_human", human(used)),
        ("used_memory_rss", resident),
        ("used_memory_rss_human", human(resident)),
        ("used_memory_peak", peak),
        ("used_memory_peak_human", human(peak)),
        ("used_memory_peak_perc", f"{100 * used / max(1, peak):.2f}%"),
        ("total_system_memory", total),
        ("total_system_memory_human", human(total)),
        ("maxmemory", 0),
        ("maxmemory_human", "0B"),
        ("maxmemory_policy", "noeviction"),
        ("mem_fragmentation_ratio", f"{resident / max(1, used):.2f}"),
        ("mem_allocator", "libc"),
        ("oort_file_memory", memory["RssFile"] + memory["RssShmem"]),
    ]


def _persistence(context: Context) -> Fields:
    stats = context.store.stats()
    healthy = "ok" if stats.failed == 0 else "err"
    return [
        ("loading", 0),
        ("async_loading", 0),
        ("rdb_bgsave_in_progress", int(context.saving)),
        ("rdb_last_save_time", last_save(context)),
        ("rdb_last_bgsave_status", healthy),
        ("aof_enabled", int(context.settings.store_type == "valuestore")),
        ("aof_rewrite_in_progress", int(stats.compacting)),
        ("aof_last_write_status", healthy),
        ("oort_fsync", context.settings.fsync),
        ("oort_segments", stats.segments),
        ("oort_log_bytes", stats.log_bytes),
        ("oort_live_bytes", stats.live_bytes),
        ("oort_index_bytes", stats.index_bytes),
        ("oort_unsynced_bytes", stats.unsynced_bytes),
        ("oort_syncs", stats.syncs),
        ("oort_compactions", stats.compactions),
        ("oort_compacted_bytes", stats.compacted_bytes),
        ("oort_damaged_records", stats.damaged_records),
        ("oort_damaged_bytes", stats.damaged_bytes),
        ("oort_recovery", _RECOVERY[stats.recovery]),
        ("oort_recovered_records", stats.recovered_records),
        ("oort_cut_bytes", stats.cut_bytes),
        ("oort_free_bytes", stats.free_bytes),
        ("oort_read_only", int(stats.read_only)),
    ]


def _stats(context: Context) -> Fields:
    stats = context.plane.stats()
    store = context.store.stats()
    rates = context.figures.rates
    return [
        ("total_connections_received", context.figures.received_connections),
        ("total_commands_processed", stats.commands),
        ("instantaneous_ops_per_sec", int(rates.commands)),
        ("total_net_input_bytes", stats.bytes_in),
        ("total_net_output_bytes", stats.bytes_out),
        ("instantaneous_input_kbps", f"{rates.bytes_in / 1024:.2f}"),
        ("instantaneous_output_kbps", f"{rates.bytes_out / 1024:.2f}"),
        ("total_error_replies", sum(context.plane.error_stats().values())),
        ("rejected_connections", context.figures.rejected_connections),
        ("sync_full", 0),
        ("sync_partial_ok", 0),
        ("sync_partial_err", 0),
        ("expired_keys", store.expired_keys),
        ("evicted_keys", 0),
        ("evicted_clients", 0),
        ("keyspace_hits", stats.hits),
        ("keyspace_misses", stats.misses),
        ("pubsub_channels", 0),
        ("pubsub_patterns", 0),
        ("latest_fork_usec", 0),
        ("total_forks", 0),
        ("oort_protocol_errors", stats.protocol_errors),
        ("oort_dropped_slow_clients", stats.dropped_slow),
        ("oort_dropped_idle_clients", stats.dropped_idle),
        ("oort_dropped_query_clients", stats.dropped_query),
        ("oort_cold_reads", stats.cold_reads),
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
    whole = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    main = resource.getrusage(resource.RUSAGE_THREAD)
    return [
        ("used_cpu_sys", f"{whole.ru_stime:.6f}"),
        ("used_cpu_user", f"{whole.ru_utime:.6f}"),
        ("used_cpu_sys_children", f"{children.ru_stime:.6f}"),
        ("used_cpu_user_children", f"{children.ru_utime:.6f}"),
        ("used_cpu_sys_main_thread", f"{main.ru_stime:.6f}"),
        ("used_cpu_user_main_thread", f"{main.ru_utime:.6f}"),
    ]


def _modules(context: Context) -> Fields:
    return []


def _commandstats(context: Context) -> Fields:
    """Redis's shape, which parsers take by position.

    Every command of the main loop is timed. Of the hot ones some are, and the others are taken to
    be like them: a clock read for each would cost a good part of what it takes.
    """
    rows: Fields = []
    for command, (calls, failed, rejected, nanoseconds) in zip(
        table.COMMANDS, context.plane.command_stats(), strict=True
    ):
        if calls or rejected:
            usec = (nanoseconds + context.figures.nanoseconds.get(command.name, 0)) // 1000
            per_call = usec / calls if calls else 0.0
            counts = (
                f"calls={calls},usec={usec},usec_per_call={per_call:.2f},"
                f"rejected_calls={rejected},failed_calls={failed}"
            )
            rows.append((f"cmdstat_{command.name}", counts))
    return rows


def _errorstats(context: Context) -> Fields:
    counts = context.plane.error_stats()
    return [(f"errorstat_{code}", f"count={count}") for code, count in counts.items() if count]


def _cluster(context: Context) -> Fields:
    return [("cluster_enabled", 0)]


def _ring(context: Context) -> Fields:
    return context.ring_facts()


def _keyspace(context: Context) -> Fields:
    # The store does not count how many of its keys expire: that stands in their records.  Parsers
    # want the fields all the same.
    keys = context.store.stats().keys
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
    "cluster": ("Cluster", _cluster),
    "ring": ("Ring", _ring),
    "keyspace": ("Keyspace", _keyspace),
}
_DEFAULT = frozenset(_SECTIONS) - {"commandstats"}


def _typed(value: object) -> object:
    """A field as JSON has it: a decimal fraction is a number, a=1,b=2 an object."""
    if isinstance(value, int):
        return value
    text = str(value)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    if re.fullmatch(r"\w+=[^,=]*(,\w+=[^,=]*)*", text):
        pairs = (pair.split("=") for pair in text.split(","))
        return {key: int(one) if one.isdigit() else _typed(one) for key, one in pairs}
    return text


def facts(context: Context) -> dict[str, dict[str, object]]:
    """All of INFO for programs, by section and field, numbers as numbers."""
    return {
        section: {field: _typed(value) for field, value in fields(context)}
        for section, (_, fields) in _SECTIONS.items()
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
    for name, (title, fields) in _SECTIONS.items():
        if name in asked:
            rows = "".join(f"{field}:{value}\r\n" for field, value in fields(context))
            sections.append(f"# {title}\r\n{rows}")
    return reply.verbatim("\r\n".join(sections), request.protocol)
