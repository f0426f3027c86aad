"""The counters of the process, rates and peak memory.

Every method belongs to the main loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oort.metrics import PLANE, PROCESS, Metric, Reading

RECEIVED = PROCESS["connections_received"]
REJECTED = PROCESS["connections_rejected"]
_COMMANDS = PLANE["commands_processed"]
_BYTES_IN = PLANE["network_input_bytes"]
_BYTES_OUT = PLANE["network_output_bytes"]


def process_memory() -> dict[str, int]:
    """RssAnon, VmRSS and others from /proc/self/status, in bytes."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest.split()[0]) * 1024
    return found


@dataclass(slots=True)
class Rates:
    """Bytes and commands per second, between the last two samples."""

    commands: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


class Figures:
    def __init__(self, stats: Reading, now: float) -> None:
        """stats: the data plane's metrics; now: monotonic, in seconds, in every method."""
        self.rates = Rates()
        self._counts: dict[Metric, int] = {}
        self._peak_memory = 0
        self._last_stats = stats
        self._last_sample = now

    def sample(self, stats: Reading, now: float) -> None:
        """Measure rates and memory.  The caller does so about once a second."""
        before = self._last_stats
        seconds = max(1e-9, now - self._last_sample)

        def rate(metric: Metric) -> float:
            return max(0, stats[metric] - before[metric]) / seconds

        self.rates = Rates(rate(_COMMANDS), rate(_BYTES_IN), rate(_BYTES_OUT))
        self._last_sample, self._last_stats = now, stats
        self.peak_memory()

    def restart(self, stats: Reading) -> None:
        """Another data plane is in use, and its counters start at zero."""
        self._last_stats = stats

    def reset(self, stats: Reading) -> None:
        """CONFIG RESETSTAT.  The data plane has already reset its own counters."""
        self._counts.clear()
        self._last_stats = stats

    def count(self, metric: Metric) -> None:
        """Add 1 to a counter of the process."""
        self._counts[metric] = self.counted(metric) + 1

    def counted(self, metric: Metric) -> int:
        return self._counts.get(metric, 0)

    def peak_memory(self) -> int:
        """The private memory (RssAnon) of the highest sample, in bytes.  Takes a sample too."""
        self._peak_memory = max(self._peak_memory, process_memory()["RssAnon"])
        return self._peak_memory
