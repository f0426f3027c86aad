"""The clock: the time of day, and a monotonic time.

Code that decides takes the time as an argument.  Code that waits or measures is given a Clock.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both times are in seconds, with a precision of a microsecond."""

    def monotonic(self) -> float:
        """The time since an unspecified moment; it never goes back."""

    def wall(self) -> float:
        """The time since the Unix epoch; an operator or NTP may set it forward or back."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


SYSTEM: Clock = SystemClock()
