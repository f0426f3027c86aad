"""A stand-in for systemd: a notify socket, a descriptor store, and a start with both."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from tests.conftest import Oortd, until

# Moves the descriptors to the numbers of sd_listen_fds(3), then executes the daemon.
_START = """
import os, sys
count = int(sys.argv[1])
high = []
for place, word in enumerate(sys.argv[2 : 2 + count]):
    high.append(os.dup2(int(word), 200 + place))
    os.close(int(word))
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""


class Supervisor:
    """A context manager that listens from the beginning."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.messages: list[str] = []
        self.stored: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"END", str(self.path))
        self._thread.join()
        self._socket.close()
        for fd in self.stored.values():
            os.close(fd)

    def _listen(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 8)
            text = data.decode()
            said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
            if text == "END":
                return
            if "FDSTORE" in said and said["FDNAME"] not in self.stored:
                (self.stored[said["FDNAME"]],) = descriptors
            else:
                if "FDSTOREREMOVE" in said:
                    os.close(self.stored.pop(said["FDNAME"]))
                for fd in descriptors:  # of a barrier: the reply is to close the descriptor
                    os.close(fd)
            self.messages.append(text)

    def said(self, *lines: str) -> bool:
        """Whether one message had all these lines."""
        return any(set(lines) <= set(message.splitlines()) for message in list(self.messages))

    def status(self) -> str:
        """The last STATUS=."""
        for message in reversed(list(self.messages)):
            for line in message.splitlines():
                if line.startswith("STATUS="):
                    return line.removeprefix("STATUS=")
        return ""

    def start(self, daemon: Oortd, *, watchdog_seconds: float = 0) -> None:
        """Start or restart the daemon as a service."""
        inner = type(daemon).command
        names, fds = list(self.stored), list(self.stored.values())
        daemon.env |= {
            "NOTIFY_SOCKET": str(self.path),
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        if watchdog_seconds:
            daemon.env["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
        words = [sys.executable, "-c", _START, str(len(fds)), *map(str, fds)]
        daemon.command = lambda: [*words, *inner(daemon)]  # type: ignore[method-assign]
        for fd in fds:
            os.set_inheritable(fd, True)
        daemon.inherit = fds
        before = len(self.messages)
        daemon.start()
        until(lambda: any("READY=1" in message for message in self.messages[before:]))
