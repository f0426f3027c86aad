"""The main thread's event loop: descriptors, timers, signals and calls from other threads.

The loop does not depend on what its callbacks do.  Every method but call_soon_from_thread belongs
to the thread that runs the loop.  A callback must be short, because the loop does nothing else
meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable
from types import FrameType

from oort.clock import SYSTEM, Clock

Callback = Callable[[], None]


class Loop:
    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[Callback] = deque()
        self._signals: dict[int, Callback] = {}
        self._signal_read, self._signal_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = False
        self.watch(self._wake, self._run_calls)
        self.watch(self._signal_read, self._run_signals)

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back every time that fd is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> None:
        when = self._clock.monotonic() + seconds
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def every(self, seconds: float, callback: Callback) -> None:
        """Call back repeatedly, each time so many seconds after the end of the last call."""

        def again() -> None:
            callback()
            self.after(seconds, again)

        self.after(seconds, again)

    def call_soon_from_thread(self, callback: Callback) -> None:
        """Call back in the next turn of the loop.  Thread safe."""
        self._calls.append(callback)
        os.eventfd_write(self._wake, 1)

    def on_signal(self, number: int, callback: Callback) -> None:
        """The loop calls back after the signal; the signal's handler itself does nothing."""
        self._signals[number] = callback
        # Set the descriptor before the handler, so that no signal is lost, even before run().
        signal.set_wakeup_fd(self._signal_write, warn_on_full_buffer=False)
        signal.signal(number, self._ignore)

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """The interpreter has already written the signal's number to the wake-up descriptor."""

    def run(self) -> None:
        """Run until stop()."""
        while not self._stopped:
            for key, _ in self._selector.select(self._pause()):
                # An earlier callback of this turn may have unwatched the descriptor, or may have
                # watched it with another callback.
                if not self._stopped and self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._run_timers()

    def stop(self) -> None:
        """End run().  No further callback begins."""
        self._stopped = True

    def close(self) -> None:
        if self._signals:
            signal.set_wakeup_fd(-1)
        self._selector.close()
        for fd in (self._wake, self._signal_read, self._signal_write):
            os.close(fd)

    def _pause(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - self._clock.monotonic())

    def _run_timers(self) -> None:
        # A timer that one of these callbacks sets waits for the next turn.  A delay of zero can
        # therefore not starve the descriptors.
        due = []
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for callback in due:
            if not self._stopped:
                callback()

    def _run_calls(self) -> None:
        os.eventfd_read(self._wake)
        for _ in range(len(self._calls)):
            if not self._stopped:
                self._calls.popleft()()

    def _run_signals(self) -> None:
        for number in os.read(self._signal_read, 512):
            if number in self._signals and not self._stopped:
                self._signals[number]()
