"""Listening sockets, and new connections until the data plane gets them.

oortd's settings name the addresses.  oortd reuses the listening sockets that systemd has kept over
a restart, together with the connections in their backlogs.  A kept socket is closed if no setting
names its address any more.

Connections are accepted in batches.  A connection beyond MaxClients, or one that protected mode
does not allow, gets Redis's error and is closed.  The data plane never sees such a connection.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from oort.config.settings import join_address, split_address
from oort.errors import BootError
from oort.notify import Notifier, Passed

BACKLOG = 4096  # the kernel caps this at net.core.somaxconn
BATCH = 256  # the most connections accepted in one turn of the main loop

MAX_CLIENTS_REACHED = b"-ERR max number of clients reached\r\n"
# Redis's exact text, which some clients search for.
PROTECTED = (
    b"-DENIED Redis is running in protected mode because protected mode is enabled and no password"
    b" is set for the default user. In this mode connections are only accepted from the loopback"
    b" interface. If you want to connect from external computers to Redis you may adopt one of the"
    b" following solutions: 1) Just disable protected mode sending the command 'CONFIG SET"
    b" protected-mode no' from the loopback interface by connecting to Redis from the same host the"
    b" server is running, however MAKE SURE Redis is not publicly accessible from internet if you"
    b" do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just"
    b" disable the protected mode by editing the Redis configuration file, and setting the"
    b" protected mode option to 'no', and then restarting the server. 3) If you started the server"
    b" manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an"
    b" authentication password for the default user. NOTE: You only need to do one of the above"
    b" things in order for the server to start accepting connections from the outside.\r\n"
)


@dataclass(frozen=True)
class Place:
    """One socket address.  The address of a setting may stand for several."""

    family: int
    host: str
    port: int
    # The argument of bind(), which has more than host and port for IPv6.
    where: tuple[Any, ...] = field(compare=False)


class KeptListeners:
    """Listening sockets that systemd's descriptor store keeps over a restart, by address."""

    def __init__(self, notifier: Notifier, passed: Iterable[Passed] = ()) -> None:
        self._notifier = notifier
        self._found: dict[Place, tuple[socket.socket, str]] = {}
        self._unusable: list[tuple[socket.socket, str]] = []  # not TCP
        for descriptor in passed:
            kept = socket.socket(fileno=descriptor.fd)
            kept.setblocking(False)
            internet = kept.family in (socket.AF_INET, socket.AF_INET6)
            if internet and kept.type == socket.SOCK_STREAM:
                self._found[_place(kept.family, kept.getsockname())] = (kept, descriptor.name)
            else:
                self._unusable.append((kept, descriptor.name))

    def close_others(self, wanted: Iterable[Place]) -> None:
        """Keep only the sockets of these addresses.  Afterwards all other addresses are free."""
        others = [self._found.pop(place) for place in set(self._found) - set(wanted)]
        others += self._unusable
        self._unusable = []
        for other, name in others:
            other.close()
            self._notifier.forget(name)
        if others:
            self._notifier.wait_until_done()

    def take(self, place: Place) -> socket.socket | None:
        """The kept socket of this address, which the caller now owns; None: no socket was kept."""
        kept, _ = self._found.pop(place, (None, ""))
        return kept

    def keep(self, listener: socket.socket) -> None:
        """Keep a listening socket for the next start."""
        host, port = listener.getsockname()[:2]
        # systemd allows no colons in the name of a stored descriptor.
        self._notifier.store(f"{host}_{port}".replace(":", "."), listener.fileno())


def _place(family: int, where: tuple[Any, ...]) -> Place:
    return Place(int(family), str(where[0]), int(where[1]), where)


def bind(addresses: Iterable[str], kept: KeptListeners) -> list[socket.socket]:
    """Bind these addresses, host:port.  A host name may stand for several addresses.

    New connections are refused until start_listening().  Connections to a kept socket wait in its
    backlog.  Raises BootError.
    """
    places = {address: _resolve(address) for address in addresses}
    kept.close_others(place for found in places.values() for place in found)
    sockets: list[socket.socket] = []
    try:
        for address, found in places.items():
            sockets.extend(kept.take(place) or _bind(address, place) for place in found)
    except BootError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _resolve(address: str) -> list[Place]:
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _cannot_listen(address, error) from error
    return list(dict.fromkeys(_place(family, where) for family, _, _, _, where in found))


def _bind(address: str, place: Place) -> socket.socket:
    listener: socket.socket | None = None
    try:
        listener = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit this option.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(place.where)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise _cannot_listen(address, error) from error
    return listener


def start_listening(listener: socket.socket) -> None:
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # another process bound the address too, and listened first
        raise _cannot_listen(join_address(*listener.getsockname()[:2]), error) from error


def stop_listening(listener: socket.socket) -> None:
    """Refuse new connections until start_listening(), but keep the address (Linux)."""
    address = listener.getsockname()
    listener.shutdown(socket.SHUT_RD)
    try:
        listener.bind(address)  # the shutdown releases a port that the kernel has chosen
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the socket still has its address
            raise _cannot_listen(join_address(*address[:2]), error) from error


def _cannot_listen(address: str, error: OSError) -> BootError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "the address is in use; stop the other server or choose another port"
    return BootError(f"cannot listen on {address}: {reason}")


def accept_batch(listener: socket.socket) -> Iterator[socket.socket]:
    """The waiting connections, at most BATCH.  Raises OSError without descriptors or memory."""
    for _ in range(BATCH):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # The client or the network ended this connection while it waited.  Accept the others.
            if error.errno in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN):
                continue
            raise
        yield connection


def prepare(connection: socket.socket, keepalive: int) -> None:
    connection.setblocking(False)
    if keepalive:
        options = socket.IPPROTO_TCP
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(options, socket.TCP_KEEPIDLE, keepalive)
        connection.setsockopt(options, socket.TCP_KEEPINTVL, max(1, keepalive // 3))
        connection.setsockopt(options, socket.TCP_KEEPCNT, 3)


def refuse(connection: socket.socket, text: bytes) -> None:
    """Close the connection.  Send the reason first if that is possible without waiting."""
    with connection:
        try:
            connection.setblocking(False)
            connection.send(text)
        except OSError:
            return  # the client has disconnected already


def is_loopback(host: str) -> bool:
    return host.startswith(("127.", "::ffff:127.")) or host == "::1"


def names(connection: socket.socket) -> tuple[str, str, str]:
    """The client's host, then the client's and the local address as host:port.

    Raises OSError if the client has disconnected.
    """
    peer, local = connection.getpeername(), connection.getsockname()
    return peer[0], join_address(peer[0], peer[1]), join_address(local[0], local[1])
