"""The acceptor: checks limits and hands each new connection to the data plane.

The acceptor belongs to the main loop.  listeners.py handles the sockets themselves.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from oort.commands.clients import Client
from oort.commands.context import Context
from oort.commands.figures import RECEIVED, REJECTED
from oort.daemon import listeners
from oort.daemon.loop import Loop
from oort.dataplane import AUTHENTICATED
from oort.journal import log

NO_DESCRIPTORS_PAUSE = 0.1  # seconds


class Acceptor:
    def __init__(self, context: Context, loop: Loop, sockets: Sequence[socket.socket]) -> None:
        self._context = context
        self._loop = loop
        self._sockets = sockets
        self._accepting = False
        self._watched: set[socket.socket] = set()

    def start(self) -> None:
        self._accepting = True
        for listener in self._sockets:
            self._watch(listener)

    def stop(self) -> None:
        """Accept no more.  New connections wait in the backlog."""
        self._accepting = False
        while self._watched:
            self._loop.unwatch(self._watched.pop().fileno())

    def _watch(self, listener: socket.socket) -> None:
        if self._accepting and listener not in self._watched:
            self._watched.add(listener)
            self._loop.watch(listener.fileno(), lambda: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            for peer in listeners.accept_batch(listener):
                self._accepted(peer)
        except OSError as failure:
            # Descriptors or memory are short.  The connection stays in the backlog and keeps the
            # listener readable, so watching the listener now would spin.
            log.error("cannot accept a connection: %s", failure.strerror or failure)
            self._watched.discard(listener)
            self._loop.unwatch(listener.fileno())
            self._loop.after(NO_DESCRIPTORS_PAUSE, lambda: self._watch(listener))

    def _accepted(self, peer: socket.socket) -> None:
        context = self._context
        settings, clients = context.settings, context.clients
        if len(clients) >= settings.max_clients:
            context.forget(context.plane.closed())
        if len(clients) >= settings.max_clients:
            self._refuse(peer, listeners.MAX_CLIENTS_REACHED)
            return
        try:
            host, address, local_address = listeners.names(peer)
            listeners.prepare(peer, settings.tcp_keepalive)
        except OSError:
            peer.close()  # the client has disconnected already
            return
        if (
            settings.protected_mode
            and not settings.require_pass
            and not listeners.is_loopback(host)
        ):
            self._refuse(peer, listeners.PROTECTED)
            return
        flags = 0 if settings.require_pass else AUTHENTICATED
        identifier = context.plane.adopt(peer.detach(), flags)
        if identifier == 0:
            log.error("cannot serve %s: there is not enough memory", address)
            return
        context.figures.count(RECEIVED)
        clients[identifier] = Client(identifier, address, local_address, context.clock.wall())

    def _refuse(self, peer: socket.socket, text: bytes) -> None:
        self._context.figures.count(REJECTED)
        listeners.refuse(peer, text)
