"""Reports to systemd while the store keeps the main thread busy: progress, and requests for time.

    with ProgressReporter(notifier, progress):
        store = open_store(...)

A rebuild of the index after a crash may take minutes, and systemd would take silence for a failure.
A separate thread therefore reports the progress every second.  The thread asks for more time, and
tells the watchdog that the process is alive, only if there is progress or if some thread waits for
the disk.  systemd ends a process that makes no progress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from oort.daemon.watchdog import disk_is_waited_for
from oort.notify import Notifier
from oort.store import Progress

TELL_SECONDS = 1.0
# The time that systemd allows after each sign of progress.
MORE_SECONDS = 120.0

_STAGES = {
    "files": "opening the store",
    "replay": "opening the store: replaying the last writes",
    "rebuild": "rebuilding the index",
    "count": "opening the store: counting keys",
}


def describe(progress: Progress) -> str:
    """A line such as: rebuilding the index: 40% (8 of 20 segments), 51234 records."""
    stage = _STAGES[progress.stage]
    if progress.stage == "files" or not progress.segments:
        return stage
    percent = 100 * min(progress.done, progress.segments) // progress.segments
    if progress.stage == "count":
        return f"{stage}: {percent}%"
    separator = ", " if ":" in stage else ": "
    return (
        f"{stage}{separator}{percent}% ({progress.done} of {progress.segments} segments),"
        f" {progress.records} records"
    )


class ProgressReporter:
    def __init__(
        self,
        notifier: Notifier,
        progress: Callable[[], Progress] | None = None,
        seconds: float = TELL_SECONDS,
    ) -> None:
        """progress: returns a value that changes while the work goes on.

        None: only a wait for the disk counts as progress.
        """
        self._notifier = notifier
        self._progress = progress
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._notifier.active:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        before: Progress | None = None
        while not self._over.wait(self._seconds):
            now = self._progress() if self._progress is not None else None
            if now is not None:
                self._notifier.status(describe(now))
            if now != before or disk_is_waited_for():
                self._notifier.extend(MORE_SECONDS)
                self._notifier.alive()
            before = now
