"""Stops one thread of another process, as a debugger does, while its other threads run."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_ALL = 0x40000000  # __WALL: wait for threads too


def thread(pid: int, name: str) -> int:
    """The id of the thread with this name."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            return int(task.name)
    raise AssertionError(f"no thread {name}")


def _ptrace(request: int, thread_id: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    done: int = library.ptrace(request, thread_id, None, None)
    return done


@contextlib.contextmanager
def stopped(thread_id: int) -> Iterator[None]:
    """Stop a thread until the end of the block, or until its process is killed."""
    assert _ptrace(_SEIZE, thread_id) == 0, os.strerror(ctypes.get_errno())
    try:
        assert _ptrace(_INTERRUPT, thread_id) == 0, os.strerror(ctypes.get_errno())
        os.waitpid(thread_id, _ALL)
        yield
    finally:
        if _ptrace(_DETACH, thread_id) != 0:
            os.waitpid(
                thread_id, _ALL
            )  # a killed thread ends only after its tracer has waited for it
