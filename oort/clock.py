"""The clock: the time of day, and a monotonic time.

Code that makes decisions takes the time as an argument.  Code that waits or measures takes a Clock.
No other file of oort/ asks the system for the time (tests/lint/test_time.py).
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Both times are in seconds, with a precision of a microsecond."""

    def monotonic(self) -> float:
        """The time since an unspecified moment.  It never goes back."""

    def wall(self) -> float:
        """The time since the Unix epoch.  An operator or NTP may set it forward or back."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


SYSTEM: Clock = SystemClock()


def utc(wall: float) -> datetime.datetime:
    """A time since the Unix epoch in the form that certificates use."""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC)
