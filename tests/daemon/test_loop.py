"""The main loop: what comes before it runs is not lost."""

from __future__ import annotations

import os
import signal

from oort.daemon.loop import Loop


def test_a_signal_that_comes_before_the_loop_runs_is_not_lost() -> None:
    """A daemon that was told to stop right after it had said that it is ready."""
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
