"""Is oortd alive?  The main loop asks every data-plane thread, and tells systemd that all is well.

Workers.check() is called by the main loop, which shows that the loop runs.  A worker is well when
it has begun a round since the last call: whoever has not is nudged, so that an idle one does.  One
that has not although it was nudged is stalled, unless it waits for the disk: it is in the kernel's
uninterruptible sleep itself, or it sleeps while another thread of the process is there, whose
locks it may want.  A slow disk is thus no stall; a thread that spins, is stopped, or waits for a
lock that nobody gives back is one.

Limits: a thread that waits for a dead NFS server is taken for one that waits for the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_THREADS = Path("/proc/self/task")
_UNKNOWN = "?"


class Plane(Protocol):
    """What is asked of a DataPlane."""

    @property
    def threads(self) -> int: ...

    def rounds(self, worker: int) -> int: ...

    def thread(self, worker: int) -> int: ...

    def nudge(self, worker: int) -> None: ...


def thread_state(thread: int) -> str:
    """The kernel's letter for what a thread of this process does, as R, S, D; ?: it is gone."""
    try:
        text = (_THREADS / str(thread) / "stat").read_bytes()
    except OSError:
        return _UNKNOWN
    # The name, in brackets, may hold anything.
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
    """The workers of one data plane, from check to check."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._seen = [_Seen(-1) for _ in range(plane.threads)]

    def check(self) -> list[int]:
        """The workers that are stalled; none: all is well."""
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
