"""The watchdog's check: does every data-plane worker still run?

The main loop calls Workers.check(), which proves that the main loop runs.  A worker runs if it has
begun a round since the last check.  A worker that has not begun a round is nudged, so an idle
worker begins one.  A worker that begins no round after a nudge is stalled, unless it waits for the
disk.

A worker waits for the disk in two cases.  Either it is in the kernel's uninterruptible sleep
itself, or it sleeps while another thread of the process is in that state.  In the second case the
worker may be waiting for a lock of that thread.  A slow disk is therefore not a stall.  A thread
that spins, is stopped, or waits for a lock that is never released is stalled.

Limits: a thread that waits for a dead NFS server counts as waiting for the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_THREADS = Path("/proc/self/task")
_UNKNOWN = "?"


class Plane(Protocol):
    """The part of DataPlane that the check needs."""

    @property
    def threads(self) -> int: ...

    def rounds(self, worker: int) -> int: ...

    def thread(self, worker: int) -> int: ...

    def nudge(self, worker: int) -> None: ...


def thread_state(thread: int) -> str:
    """The kernel's letter for the state of a thread of this process, such as R, S or D (proc(5)).

    ?: the thread has ended.
    """
    try:
        text = (_THREADS / str(thread) / "stat").read_bytes()
    except OSError:
        return _UNKNOWN
    # The thread's name, which is in brackets, may contain any character.
    return text[text.rindex(b")") + 2 :][:1].decode()


def disk_is_waited_for() -> bool:
    """Whether any thread of this process is in uninterruptible sleep at this moment."""
    try:
        threads = [int(path.name) for path in _THREADS.iterdir()]
    except OSError:
        return False
    return any(thread_state(thread) == "D" for thread in threads)


@dataclass(slots=True)
class _Seen:
    rounds: int
    nudged: bool = False


class Workers:
    """The workers of one data plane, with their state at the last check."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._seen = [_Seen(-1) for _ in range(plane.threads)]

    def check(self) -> list[int]:
        """The numbers of the stalled workers."""
        stalled = []
        for worker, seen in enumerate(self._seen):
            rounds = self._plane.rounds(worker)
            if rounds != seen.rounds:
                seen.rounds, seen.nudged = rounds, False
            elif not seen.nudged:
                seen.nudged = True
                self._plane.nudge(worker)
            elif not self._waits_for_the_disk(worker):
                stalled.append(worker)
        return stalled

    def _waits_for_the_disk(self, worker: int) -> bool:
        state = thread_state(self._plane.thread(worker))
        return state == "D" or (state == "S" and disk_is_waited_for())
