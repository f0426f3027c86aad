"""While the main thread is busy with the store for long: tell systemd how far it is, ask for time.

A rebuild of the index after a crash may take minutes; systemd would take the silence for a failure.
    with Patience(notifier, progress):
        store = open_store(...)
A thread of its own says the progress every second.  More time is asked for, and life is shown to
the watchdog, only as long as there is progress or a thread waits for the disk: an open that has
come to a standstill is ended by systemd.
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
# Asked for from every sign of life on.
MORE_SECONDS = 120.0

_STAGES = {
    "files": "opening the store",
    "replay": "opening the store: replaying what was written last",
    "rebuild": "rebuilding the index",
    "count": "opening the store: counting keys",
}


def describe(progress: Progress) -> str:
    """For an operator, as in: rebuilding the index: 40% (8 of 20 segments), 51234 records."""
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


class Patience:
    def __init__(
        self,
        notifier: Notifier,
        progress: Callable[[], Progress] | None = None,
        seconds: float = TELL_SECONDS,
    ) -> None:
        """progress: what changes as long as the work goes on; None: only the disk may take long."""
        self._notifier = notifier
        self._progress = progress
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="patience", daemon=True)

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
