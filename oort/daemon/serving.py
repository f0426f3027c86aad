"""Serving clients: open, serve, stop.

CmdCtrl's Stop, Start and Restart refuse clients, serve them again and reopen the store without
ending the process (control.py).

Serving belongs to the main loop.  A stop has the reverse order of a start.  First no connections
are accepted.  Then the workers send the replies that they can send, and end.  Connections are
closed, the helper thread ends, and the store is closed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from oort.commands.context import Context, plane_settings
from oort.config.settings import Configuration, Settings
from oort.daemon import listeners
from oort.daemon.acceptor import Acceptor
from oort.daemon.executor import Executor
from oort.daemon.loop import Loop
from oort.daemon.progress import ProgressReporter
from oort.daemon.store_events import log_store_event
from oort.daemon.watchdog import Workers
from oort.dataplane import DataPlane
from oort.errors import OortError, StoreFailedError
from oort.journal import log, set_level
from oort.notify import Notifier
from oort.store import Store

POLL_SECONDS = 1.0


class Serving:
    def __init__(
        self,
        context: Context,
        loop: Loop,
        executor: Executor,
        sockets: Sequence[socket.socket],
        *,
        kept: listeners.KeptListeners,
        notifier: Notifier,
        open_store: Callable[[Settings], Store],
        fail: Callable[[str], None],
    ) -> None:
        """fail(reason): ends the process with exit code 1."""
        self.active = False  # clients are served
        self.workers = Workers(context.plane)
        self._context = context
        self._loop = loop
        self._executor = executor
        self._acceptor = Acceptor(context, loop, sockets)
        self._sockets = sockets
        self._kept = kept
        self._notifier = notifier
        self._open_store = open_store
        self._fail = fail

    def open(self) -> None:
        """Serve clients for the first time."""
        self._loop.watch(self._context.store.event_fd(), self._store_events)
        # Only rounds find idle connections, and without traffic no round begins.
        self._loop.every(POLL_SECONDS, self._poll)
        self._executor.start()
        self._serve()
        self._store_events()

    def end(self) -> None:
        """Stop serving for good.  The store stays open until close_store()."""
        self._acceptor.stop()
        for listener in self._sockets:
            listener.close()
        self._end_clients()

    def start(self) -> bool:
        """Serve clients.  False: clients are served already."""
        if self.active:
            return False
        self._listen_again()
        self._serve()
        return True

    def stop(self) -> bool:
        """Refuse new clients, and disconnect the present ones after their replies.

        False: no client is served already.  The store stays open, and everything acknowledged is
        made durable.  Raises StoreError.
        """
        if not self.active:
            return False
        self._acceptor.stop()
        for listener in self._sockets:
            listeners.stop_listening(listener)
        self._end_clients()
        self._new_plane()
        with ProgressReporter(self._notifier):
            self._context.store.sync()
        return True

    def restart(self, configuration: Configuration) -> None:
        """Disconnect the clients, open the store again with this configuration, and serve clients.

        New connections wait in the backlog meanwhile.  If the store cannot be closed or opened, the
        process ends, and the log says why.  The supervisor then starts the process again.
        """
        context = self._context
        was_active = self.active
        self._acceptor.stop()
        self._end_clients()
        self._executor.stop()
        self._loop.unwatch(context.store.event_fd())
        context.configuration = configuration
        try:
            if not self.close_store():
                raise StoreFailedError("the store was not closed cleanly: see the log")
            context.store = self._open_store(configuration.settings)
            context.session = context.store.session()
        except OortError as failure:
            log.critical("cannot open the store again: %s", failure)
            self._fail("no store")
            raise
        context.saving = False
        self._executor.restart()
        self._loop.watch(context.store.event_fd(), self._store_events)
        self._new_plane()
        set_level(configuration.settings.log_level)
        if not was_active:
            self._listen_again()
        self._serve()
        self._store_events()

    def close_store(self) -> bool:
        """Whether the store was closed cleanly.  If not, the log says why."""
        self._executor.stop()
        store = self._context.store
        if store.closed:
            return True
        self._store_events()
        try:
            with ProgressReporter(self._notifier):
                store.close()
        except OortError as failure:
            log.error("cannot close the store cleanly: %s", failure)
            return False
        return True

    def _listen_again(self) -> None:
        for listener in self._sockets:
            listeners.start_listening(listener)
            self._kept.keep(listener)  # systemd dropped the socket when it stopped listening

    def _serve(self) -> None:
        plane = self._context.plane
        self.active = True
        self._loop.watch(plane.request_fd(), self._executor.take_requests)
        if plane.threads == 0:
            self._loop.watch(plane.poll_fd(), self._poll)
        plane.start(self._worker_failed_on_its_thread)
        self._acceptor.start()

    def _end_clients(self) -> None:
        plane = self._context.plane
        if self.active:
            self.active = False
            self._loop.unwatch(plane.request_fd())
            if plane.threads == 0:
                self._loop.unwatch(plane.poll_fd())
        plane.stop()
        plane.close()
        self._context.clients.clear()

    def _new_plane(self) -> None:
        context = self._context
        settings = context.settings
        context.plane = DataPlane(context.store.handle, settings.workers, plane_settings(settings))
        context.figures.restart(context.plane.stats())
        self.workers = Workers(context.plane)

    def _store_events(self) -> None:
        while (event := self._context.store.next_event()) is not None:
            log_store_event(event)

    def _poll(self) -> None:
        plane = self._context.plane
        failure = plane.poll() if self.active and plane.threads == 0 else ""
        if failure:
            self._worker_failed(failure)

    def _worker_failed_on_its_thread(self, text: str) -> None:
        self._loop.call_soon_from_thread(lambda: self._worker_failed(text))

    def _worker_failed(self, text: str) -> None:
        log.critical("a data-plane worker failed: %s", text)
        self._fail("worker failure")
