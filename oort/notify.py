"""The interface to systemd: sd_notify messages, the descriptor store, and passed descriptors.

Without $NOTIFY_SOCKET no message is sent.  Sending never raises an error, because a supervisor that
does not listen must not stop the store.  If systemd's queue is full, repeated messages are dropped
at once, and other messages wait at most WAIT_SECONDS.

The descriptor store (FileDescriptorStoreMax=) keeps listening sockets open while oortd restarts.
Clients that connect meanwhile wait in the backlog.  See sd_notify(3) for the messages and
sd_listen_fds(3) for the passed descriptors.
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
    """A descriptor that systemd has passed, and the name under which it was stored."""

    fd: int
    name: str


def passed_descriptors(environment: MutableMapping[str, str]) -> list[Passed]:
    """The descriptors passed to this process.

    The variables are removed from the environment, so that no child process uses them.
    """
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
    """Sends messages to systemd.  Thread safe."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the NUL byte at the start of an abstract address.
        self._path = f"\0{path[1:]}" if path.startswith("@") else path
        self.active = bool(path)
        self._status = ""
        self._dropped = False  # whether the last status was not sent
        self._running = False
        microseconds = environment.get("WATCHDOG_USEC", "")
        pid = environment.get("WATCHDOG_PID", "")
        # Half of systemd's interval, as sd_watchdog_enabled(3) recommends; None: no watchdog.
        self.watchdog_seconds: float | None = (
            int(microseconds) / 2e6
            if self.active
            and microseconds.isdigit()
            and int(microseconds)
            and pid in ("", str(os.getpid()))
            else None
        )

    def ready(self, status: str = "") -> None:
        """The service has started, or has reloaded; an empty status keeps the last status."""
        self._running = True
        self._status = status or self._status
        self._send(f"READY=1\nSTATUS={self._status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`; an unchanged status is not sent again."""
        if status != self._status or self._dropped:
            self._status = status
            self._dropped = not self._send(f"STATUS={status}", wait=0.0)

    def reloading(self) -> None:
        """The service is reloading until the next ready()."""
        now = int(SYSTEM.monotonic() * 1e6)
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._running = False
        self._status = "stopping"
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """Reset the watchdog, which is active from ready() to stopping()."""
        if self._running:
            self._send("WATCHDOG=1", wait=0.0)

    def extend(self, seconds: float) -> None:
        """Allow the start or the stop so many more seconds from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", wait=0.0)

    def store(self, name: str, fd: int) -> None:
        """Store a descriptor for the next start; systemd stores no descriptor twice."""
        self._send(f"FDSTORE=1\nFDNAME={name}", fd)

    def forget(self, name: str) -> None:
        """Remove the descriptors of this name from the descriptor store."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def wait_until_done(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until systemd has processed all earlier messages, at most `seconds`."""
        if not self.active:
            return
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._send("BARRIER=1", write)
            os.close(write)
            write = -1
            # systemd closes its end when it processes the message.
            select.select([read], [], [], seconds)
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)

    def _send(self, text: str, *descriptors: int, wait: float = WAIT_SECONDS) -> bool:
        """Send a message and return whether it was sent; waits `wait` seconds for room."""
        if not self.active:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.settimeout(wait)
                peer.connect(self._path)
                socket.send_fds(peer, [text.encode()], descriptors)
        except OSError:
            # Nothing can be done if systemd does not listen; it has its own timeouts.
            return False
        return True
