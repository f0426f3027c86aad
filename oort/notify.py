"""sd_notify: tell systemd when a daemon is ready, what it does, and that it is alive.

Without $NOTIFY_SOCKET every call does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import sdnotify


class Notifier:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.active = bool(environment.get("NOTIFY_SOCKET"))
        self._notifier = sdnotify.SystemdNotifier() if self.active else None
        microseconds = environment.get("WATCHDOG_USEC", "")
        # Twice as often as systemd asks for, as its manual recommends; None: it does not ask.
        self.watchdog_seconds: float | None = (
            int(microseconds) / 2e6
            if self.active and microseconds.isdigit() and int(microseconds)
            else None
        )

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Until the next `ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(text)
