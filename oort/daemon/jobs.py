"""Jobs: work that takes long or waits for the disk, on one helper thread beside the main loop.

Jobs take turns slice by slice, so a SCAN does not wait for an earlier KEYS over millions of keys.
The helper thread owns Python's only session with the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from oort.clock import Clock
from oort.commands.dispatch import Job, Result


class Timed:
    """Measures a job: `seconds` is the time that its slices took, valid once the job has ended."""

    def __init__(self, job: Job[object], clock: Clock) -> None:
        self.seconds = 0.0
        self._job = job
        self._clock = clock

    def job(self) -> Job[Any]:
        while True:
            begin = self._clock.monotonic()
            try:
                next(self._job)
            except StopIteration as end:
                return end.value
            finally:
                self.seconds += self._clock.monotonic() - begin
            yield


class Jobs:
    """The helper thread.  It calls done(result or exception) itself."""

    def __init__(self, close_session: Callable[[], None]) -> None:
        self._close_session = close_session
        self._condition = threading.Condition()
        self._queue: deque[tuple[Job[object], Callable[[object], None]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job[Result], done: Callable[[Result | Exception], None]) -> None:
        with self._condition:
            self._queue.append((job, done))  # type: ignore[arg-type]
            self._condition.notify()

    def stop(self) -> None:
        """End the thread after its present slice.  Unfinished jobs are dropped."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    while not self._queue and not self._stopping:
                        self._condition.wait()
                    if self._stopping:
                        return
                    job, done = self._queue.popleft()
                self._slice(job, done)
        finally:
            self._close_session()

    def _slice(self, job: Job[object], done: Callable[[object], None]) -> None:
        try:
            next(job)
        except StopIteration as end:
            done(end.value)
        except Exception as error:  # the main loop logs the error and replies
            done(error)
        else:
            with self._condition:
                self._queue.append((job, done))
