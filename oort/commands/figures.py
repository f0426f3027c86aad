"""The figures of INFO and CmdCtrl that neither the store nor the data plane counts.

Every method belongs to the main loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oort.dataplane import Stats


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
    def __init__(self, stats: Stats, now: float) -> None:
        """stats: of the data plane; now: monotonic, as everywhere here."""
        self.rates = Rates()
        self.received_connections = 0
        self.rejected_connections = 0
        self.nanoseconds: dict[str, int] = {}  # by full name, of the commands that Python executes
        self._peak_memory = 0
        self._last_stats = stats
        self._last_sample = now

    def sample(self, stats: Stats, now: float) -> None:
        """Call it about once a second."""
        before = self._last_stats
        seconds = max(1e-9, now - self._last_sample)
        self.rates = Rates(
            max(0, stats.commands - before.commands) / seconds,
            max(0, stats.bytes_in - before.bytes_in) / seconds,
            max(0, stats.bytes_out - before.bytes_out) / seconds,
        )
        self._last_sample, self._last_stats = now, stats
        self.peak_memory()

    def restart(self, stats: Stats) -> None:
        """There is another data plane, which counts from zero."""
        self._last_stats = stats

    def reset(self, stats: Stats) -> None:
        """CONFIG RESETSTAT; the data plane has reset its own."""
        self.nanoseconds.clear()
        self.received_connections = 0
        self.rejected_connections = 0
        self._last_stats = stats

    def peak_memory(self) -> int:
        """The highest private memory seen by any sample, bytes."""
        self._peak_memory = max(self._peak_memory, process_memory()["RssAnon"])
        return self._peak_memory

    def spent(self, name: str, seconds: float) -> None:
        """Add to the time a command has taken, waiting for its turn not counted."""
        self.nanoseconds[name] = self.nanoseconds.get(name, 0) + round(seconds * 1e9)
