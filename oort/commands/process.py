"""The values of the process's metrics, by the section of INFO that shows them.

A section is read as a whole, because some sections are expensive: the sizes of the clients' buffers
need a list of every connection.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping

from oort.commands.context import Context
from oort.commands.figures import RECEIVED, REJECTED, process_memory
from oort.metrics import PROCESS, Metric

Values = Mapping[Metric, float]

MEMORY = PROCESS["memory_bytes"]
RESIDENT = PROCESS["resident_memory_bytes"]
PEAK = PROCESS["peak_memory_bytes"]
SYSTEM = PROCESS["system_memory_bytes"]
UPTIME = PROCESS["uptime_seconds"]
_FILES = PROCESS["file_memory_bytes"]
_INPUT_BUFFER = PROCESS["largest_input_buffer_bytes"]
_OUTPUT_BUFFER = PROCESS["largest_output_buffer_bytes"]
_COMMAND_RATE = PROCESS["command_rate"]
_INPUT_RATE = PROCESS["network_input_rate"]
_OUTPUT_RATE = PROCESS["network_output_rate"]
_CPU = tuple(
    (
        PROCESS[f"cpu_system{suffix}_seconds"],
        PROCESS[f"cpu_user{suffix}_seconds"],
        number,
    )
    for suffix, number in (
        ("", resource.RUSAGE_SELF),
        ("_children", resource.RUSAGE_CHILDREN),
        ("_main_thread", resource.RUSAGE_THREAD),
    )
)


def _server(context: Context) -> Values:
    return {UPTIME: int(context.clock.wall() - context.process.started)}


def _clients(context: Context) -> Values:
    connections = context.plane.connections().values()
    return {
        _INPUT_BUFFER: max((c.query_bytes for c in connections), default=0),
        _OUTPUT_BUFFER: max((c.output_bytes for c in connections), default=0),
    }


def _memory(context: Context) -> Values:
    memory = process_memory()
    return {
        MEMORY: memory["RssAnon"],
        RESIDENT: memory["VmRSS"],
        PEAK: context.figures.peak_memory(),
        SYSTEM: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        _FILES: memory["RssFile"] + memory["RssShmem"],
    }


def _stats(context: Context) -> Values:
    rates = context.figures.rates
    return {
        RECEIVED: context.figures.counted(RECEIVED),
        REJECTED: context.figures.counted(REJECTED),
        _COMMAND_RATE: int(rates.commands),
        _INPUT_RATE: rates.bytes_in / 1024,
        _OUTPUT_RATE: rates.bytes_out / 1024,
    }


def _cpu(context: Context) -> Values:
    values = {}
    for system, user, number in _CPU:
        used = resource.getrusage(number)
        values[system], values[user] = used.ru_stime, used.ru_utime
    return values


_SECTIONS: dict[str, Callable[[Context], Values]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "stats": _stats,
    "cpu": _cpu,
}


def read(context: Context, section: str) -> Values:
    """The values of the process's metrics in this section of INFO.  Belongs to the main loop."""
    collect = _SECTIONS.get(section)
    return collect(context) if collect else {}
