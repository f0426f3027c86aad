"""The main loop: events before it runs are not lost."""

from __future__ import annotations

import os
import signal

from oort.daemon.loop import Loop


def test_a_signal_that_comes_before_the_loop_runs_is_not_lost() -> None:
    """The daemon is asked to stop right after it has reported that it is ready."""
    loop = Loop()
    seen: list[str] = []

    def on_signal() -> None:
        seen.append("signal")
        loop.stop()

    loop.on_signal(signal.SIGUSR1, on_signal)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.after(5, loop.stop)
    loop.run()
    loop.close()
    assert seen == ["signal"]
