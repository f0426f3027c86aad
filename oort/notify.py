"""systemd's side of a service: sd_notify, the descriptor store, what is handed over at a start.

Without $NOTIFY_SOCKET every message goes nowhere.  Sending never fails the caller: a supervisor
that does not listen must not stop the store.  Where its queue is full, what is said again and again
is dropped at once, and what is said once waits WAIT_SECONDS at most.

The descriptor store (FileDescriptorStoreMax=) keeps listening sockets open while oortd is away:
who connects meanwhile waits in their backlog.  sd_notify(3) has the words, sd_listen_fds(3) the
way back.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from oort.clock import SYSTEM

FIRST_PASSED = 3  # SD_LISTEN_FDS_START
WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Passed:
    """A descriptor that systemd has handed over, and the name under which it is stored."""

    fd: int
    name: str


def passed_descriptors(environment: MutableMapping[str, str]) -> list[Passed]:
    """What was handed to this very process.  The variables are taken out of the environment, so
    that no child believes that they are meant for it."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for number in range(int(count)):
        fd = FIRST_PASSED + number
        os.set_inheritable(fd, False)
        found.append(Passed(fd, names[number] if number < len(names) else ""))
    return found


class Notifier:
    """Thread safe."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the NUL byte of an abstract address.
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        self.active = bool(path)
        self._status = ""
        self._dropped = False  # the last status
        self._running = False
        microseconds = environment.get("WATCHDOG_USEC", "")
        pid = environment.get("WATCHDOG_PID", "")
        # Twice as often as systemd asks for, as its manual recommends; None: it does not ask.
        self.watchdog_seconds: float | None = (
            int(microseconds) / 2e6
            if self.active
            and microseconds.isdigit()
            and int(microseconds)
            and pid in ("", str(os.getpid()))
            else None
        )

    def ready(self, status: str = "") -> None:
        """Without a status the one that was shown stays."""
        self._running = True
        self._status = status or self._status
        self._send(f"READY=1\nSTATUS={self._status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`; the same again is not sent."""
        if status != self._status or self._dropped:
            self._status = status
            self._dropped = not self._send(f"STATUS={status}", wait=0.0)

    def reloading(self) -> None:
        """Until the next ready()."""
        now = int(SYSTEM.monotonic() * 1e6)
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._running = False
        self._status = "stopping"
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """For the watchdog, which watches from ready() to stopping()."""
        if self._running:
            self._send("WATCHDOG=1", wait=0.0)

    def extend(self, seconds: float) -> None:
        """The start, or the stop, may take so long from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", wait=0.0)

    def store(self, name: str, fd: int) -> None:
        """Keep a descriptor for the next start; one that is kept already is not kept twice."""
        self._send(f"FDSTORE=1\nFDNAME={name}", fd)

    def forget(self, name: str) -> None:
        """Keep the descriptors of this name no longer."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def wait_until_done(self, seconds: float = WAIT_SECONDS) -> None:
        """Until systemd has acted on everything sent before, at most so long."""
        if not self.active:
            return
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._send("BARRIER=1", write)
            os.close(write)
            write = -1
            # It closes its end when it comes to it.
            select.select([read], [], [], seconds)
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)

    def _send(self, text: str, *descriptors: int, wait: float = WAIT_SECONDS) -> bool:
        """Whether it was sent; wait: seconds, for room in the queue."""
        if not self.active:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.settimeout(wait)
                peer.connect(self._path)
                socket.send_fds(peer, [text.encode()], descriptors)
        except OSError:
            # Nobody listens; there is nobody to tell either, and systemd acts on silence itself.
            return False
        return True
