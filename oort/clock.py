"""The one clock: the time of day, and a time that never steps.

Code that decides takes the time as an argument; code that waits or measures is given a Clock.  No
other file of oort/ asks the system for the time (tests/lint/test_time.py).
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Both are in seconds, and precise to a microsecond."""

    def monotonic(self) -> float:
        """Since some moment in the past.  It never goes back."""

    def wall(self) -> float:
        """Since 1970.  An operator or NTP may set it at any moment, forward or back."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


SYSTEM: Clock = SystemClock()


def utc(wall: float) -> datetime.datetime:
    """The time of day as certificates have it."""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC)
