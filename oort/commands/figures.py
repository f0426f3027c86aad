"""What Python counts and samples: the counters of the process, rates and peak memory.

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
    """Per second, over the last sample; bytes and commands."""

    commands: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


class Figures:
    def __init__(self, stats: Reading, now: float) -> None:
        """stats: of the data plane; now: monotonic, as everywhere here."""
        self.rates = Rates()
        self._counts: dict[Metric, int] = {}
        self._peak_memory = 0
        self._last_stats = stats
        self._last_sample = now

    def sample(self, stats: Reading, now: float) -> None:
        """Call it about once a second."""
        before = self._last_stats
        seconds = max(1e-9, now - self._last_sample)

        def rate(metric: Metric) -> float:
            return max(0, stats[metric] - before[metric]) / seconds

        self.rates = Rates(rate(_COMMANDS), rate(_BYTES_IN), rate(_BYTES_OUT))
        self._last_sample, self._last_stats = now, stats
        self.peak_memory()

    def restart(self, stats: Reading) -> None:
        """There is another data plane, which counts from zero."""
        self._last_stats = stats

    def reset(self, stats: Reading) -> None:
        """CONFIG RESETSTAT; the data plane has reset its own."""
        self._counts.clear()
        self._last_stats = stats

    def count(self, metric: Metric) -> None:
        """Add 1 to a counter of the process."""
        self._counts[metric] = self.counted(metric) + 1

    def counted(self, metric: Metric) -> int:
        return self._counts.get(metric, 0)

    def peak_memory(self) -> int:
        """The highest private memory seen by any sample, bytes."""
        self._peak_memory = max(self._peak_memory, process_memory()["RssAnon"])
        return self._peak_memory
