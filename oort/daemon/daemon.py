"""oortd while it runs: the main loop's state, and what happens on every event.

The order of a stop is the reverse of the start: no new connections, workers end after sending what
they can, the helper thread ends, connections are closed, then the store.  Clients can be turned
away and the store reopened without ending the process: Stop, Start and Restart of control.py.
"""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import GeneratorType
from typing import Any, Protocol

from oort.commands import (  # noqa: F401 (importing a command module registers its handlers)
    command,
    config,
    connection,
    info,
    keyspace,
    server,
    table,
)
from oort.commands.clients import Client
from oort.commands.dispatch import Answer, Dispatcher, Later
from oort.commands.reply import Reply, error
from oort.config.settings import Configuration, Settings, join_address
from oort.daemon import listeners, reload
from oort.daemon.jobs import Job, Jobs, Timed
from oort.daemon.loop import Loop
from oort.daemon.patience import Patience
from oort.daemon.watchdog import Workers
from oort.dataplane import AUTHENTICATED, DataPlane, Limits, Request
from oort.errors import (
    OortError,
    StoreFailedError,
    StoreFullError,
    StoreIOError,
    StoreMemoryError,
)
from oort.journal import STALLED, STOPPED, STOPPING, entry, log, log_store_event, set_level
from oort.membership.membership import Membership
from oort.notify import Notifier
from oort.store import Session, Store

REDIS_VERSION = "7.0.15"  # whose commands and texts these are; clients choose features by it
REQUEST_BATCH = 256  # cold commands executed before the loop looks at anything else
SAMPLE_SECONDS = 1.0
STATUS_SECONDS = 2.0
NO_DESCRIPTORS_PAUSE = 0.1


@dataclass(slots=True)
class Rates:
    """Per second, over the last sample; bytes and commands."""

    commands: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


def limits_of(settings: Settings) -> Limits:
    return Limits(
        query_bytes=settings.query_buffer_limit,
        output_bytes=settings.output_buffer_limit,
        value_cap=settings.value_cap,
        idle_seconds=settings.idle_timeout,
        no_password=not settings.require_pass,
    )


class ControlInterface(Protocol):
    """What control.py adds to the daemon: it begins once clients are served and ends with them."""

    def start(self) -> None: ...

    def close(self) -> None: ...


class Daemon:
    def __init__(
        self,
        configuration: Configuration,
        *,
        version: str,
        config_file: str | None,
        store: Store,
        session: Session,
        plane: DataPlane,
        sockets: list[socket.socket],
        notifier: Notifier,
        client_room: int,
        read_configuration: Callable[[], Configuration],
        open_store: Callable[[Settings], Store],
        membership: Membership,
        kept: listeners.Kept,
    ) -> None:
        self.configuration = configuration
        self.version, self.redis_version = version, REDIS_VERSION
        self.config_file = config_file
        self.store, self.session = store, session
        self.plane = plane
        self.notifier = notifier
        self.client_room = client_room
        self.read_configuration = read_configuration
        self.membership = membership
        self.control: ControlInterface | None = None
        self.needs_restart: tuple[str, ...] = ()  # settings that are not as the layers have them
        self.serving = False
        self.started = time.time()
        self.run_id = secrets.token_hex(20)
        self.loop = Loop()
        self.jobs = Jobs(session.close)
        self.dispatcher = Dispatcher()
        self.clients: dict[int, Client] = {}
        self.addresses = [join_address(*listener.getsockname()[:2]) for listener in sockets]
        self.saving = False
        self.received_connections = 0
        self.rejected_connections = 0
        self.rates = Rates()
        self.exit_code = 0
        self._sockets = sockets
        self._watched: set[socket.socket] = set()
        self._open_store = open_store
        self._kept = kept
        self._workers = Workers(plane)
        self._stalled: list[int] = []
        self._stopping = False
        self._peak_memory = 0
        self._last_sample = time.monotonic()
        self._last_stats = plane.stats()

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    # ---- life ---------------------------------------------------------------

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until a signal or SHUTDOWN; the exit code."""
        loop = self.loop
        for number in (signal.SIGTERM, signal.SIGINT):
            name = signal.Signals(number).name
            loop.on_signal(number, lambda name=name: self.stop(name))  # type: ignore[misc]
        loop.on_signal(signal.SIGHUP, self._hang_up)
        loop.watch(self.store.event_fd(), self._store_events)
        # Idle connections are found by rounds, and without traffic nothing starts one.
        loop.every(1.0, self._poll)
        loop.every(SAMPLE_SECONDS, self._sample)
        if self.notifier.active:
            loop.every(STATUS_SECONDS, self._status)
        if self.notifier.watchdog_seconds is not None:
            # A stall is noticed by the third look: well before systemd's patience ends.
            loop.every(self.notifier.watchdog_seconds / 2, self._alive)
        self.jobs.start()
        self._serve()
        self._store_events()
        try:
            if self.control is not None:
                self.control.start()
            ready()
            loop.run()
        finally:
            self._close()
        return self.exit_code

    def _hang_up(self) -> None:
        self.notifier.reloading()
        reload.reload(self, "SIGHUP")
        self.notifier.ready()

    def _alive(self) -> None:
        """The main loop runs; tell the watchdog so if the data plane does too."""
        stalled = self._workers.check() if self.serving else []
        if not stalled:
            self.notifier.alive()
        elif stalled != self._stalled:
            names = ", ".join(map(str, stalled))
            log.critical(
                "data-plane worker %s has stopped moving: the watchdog will end this process",
                names,
                extra=entry(STALLED, worker=names),
            )
            self.notifier.status(f"data-plane worker {names} has stopped moving")
        self._stalled = stalled

    def stop(self, reason: str) -> None:
        if not self._stopping:
            self._stopping = True
            log.info("%s: stopping", reason, extra=entry(STOPPING))
            self.notifier.stopping()
            self.loop.stop()

    def _close(self) -> None:
        self._unwatch_listeners()
        for listener in self._sockets:
            listener.close()
        self._end_clients()
        if self.control is not None:
            self.control.close()
        self.membership.close()
        self._close_store()
        self.loop.close()
        log.info("stopped", extra=entry(STOPPED))

    # ---- serving clients, or not --------------------------------------------

    def start_serving(self) -> bool:
        """Let clients in; False: they are already."""
        if self.serving:
            return False
        self._listen_again()
        self._serve()
        return True

    def _listen_again(self) -> None:
        for listener in self._sockets:
            listeners.start_listening(listener)
            self._kept.keep(listener)  # systemd let go of it when it stopped listening

    def stop_serving(self) -> bool:
        """Turn clients away, and end those that are there once they have their replies; False: that
        is so already.  The store stays open, and what was acknowledged is made durable."""
        if not self.serving:
            return False
        self._unwatch_listeners()
        for listener in self._sockets:
            listeners.stop_listening(listener)
        self._end_clients()
        self._new_plane()
        with Patience(self.notifier):
            self.store.sync()
        return True

    def restart_serving(self, configuration: Configuration) -> None:
        """End the clients, close the store and open it again with this configuration, let clients
        in.  Who connects meanwhile waits in the backlog.  When the store does not open the daemon
        ends: its supervisor tries again, and has the reason in the log."""
        was_serving = self.serving
        self._unwatch_listeners()
        self._end_clients()
        self.jobs.stop()
        self.loop.unwatch(self.store.event_fd())
        self.configuration = configuration
        try:
            self._close_store()
            if self.exit_code:
                raise StoreFailedError("the store was not closed in order: see the log")
            self.store = self._open_store(configuration.settings)
            self.session = self.store.session()
        except OortError as failure:
            log.critical("cannot open the store again: %s", failure)
            self.exit_code = 1
            self.stop("no store")
            raise
        self.saving = False
        self.membership.restart_asked = False
        self.jobs = Jobs(self.session.close)
        self.jobs.start()
        self.loop.watch(self.store.event_fd(), self._store_events)
        self._new_plane()
        set_level(configuration.settings.log_level)
        if not was_serving:
            self._listen_again()
        self._serve()
        self._store_events()

    def _serve(self) -> None:
        self.serving = True
        self.loop.watch(self.plane.request_fd(), self._requests)
        if self.plane.threads == 0:
            self.loop.watch(self.plane.poll_fd(), self._poll)
        self.plane.start(self._worker_failed_elsewhere)
        for listener in self._sockets:
            self._watch_listener(listener)

    def _end_clients(self) -> None:
        if self.serving:
            self.serving = False
            self.loop.unwatch(self.plane.request_fd())
            if self.plane.threads == 0:
                self.loop.unwatch(self.plane.poll_fd())
        self.plane.stop()
        self.plane.close()
        self.clients.clear()

    def _new_plane(self) -> None:
        settings = self.settings
        self.plane = DataPlane(self.store.handle, settings.workers, limits_of(settings))
        self._last_stats = self.plane.stats()
        self._workers = Workers(self.plane)

    def _close_store(self) -> None:
        self.jobs.stop()
        if self.store.closed:
            return
        self._store_events()
        try:
            with Patience(self.notifier):
                self.store.close()
        except OortError as failure:
            log.error("closing the store: %s", failure)
            self.exit_code = 1

    def _worker_failed_elsewhere(self, text: str) -> None:
        self.loop.call_soon_from_thread(lambda: self._worker_failed(text))

    def _worker_failed(self, text: str) -> None:
        log.critical("a data-plane worker failed: %s", text)
        self.exit_code = 1
        self.stop("worker failure")

    # ---- connections --------------------------------------------------------

    def _watch_listener(self, listener: socket.socket) -> None:
        if self.serving and listener not in self._watched:
            self._watched.add(listener)
            self.loop.watch(listener.fileno(), lambda: self._accept(listener))

    def _unwatch_listeners(self) -> None:
        while self._watched:
            self.loop.unwatch(self._watched.pop().fileno())

    def _accept(self, listener: socket.socket) -> None:
        try:
            for peer in listeners.accept_batch(listener):
                self._accepted(peer)
        except OSError as failure:
            # Out of descriptors or memory: the connection stays in the backlog, so waiting for
            # readability would spin.
            log.error("cannot accept a connection: %s", failure.strerror or failure)
            self._watched.discard(listener)
            self.loop.unwatch(listener.fileno())
            self.loop.after(NO_DESCRIPTORS_PAUSE, lambda: self._watch_listener(listener))

    def _accepted(self, peer: socket.socket) -> None:
        settings = self.settings
        if len(self.clients) >= settings.max_clients:
            self._forget_closed()
        if len(self.clients) >= settings.max_clients:
            self.rejected_connections += 1
            listeners.refuse(peer, listeners.MAX_CLIENTS_REACHED)
            return
        try:
            host, address, local_address = listeners.names(peer)
            listeners.prepare(peer, settings.tcp_keepalive)
        except OSError:
            peer.close()  # gone before we looked
            return
        if (
            settings.protected_mode
            and not settings.require_pass
            and not listeners.is_loopback(host)
        ):
            self.rejected_connections += 1
            listeners.refuse(peer, listeners.PROTECTED)
            return
        flags = 0 if settings.require_pass else AUTHENTICATED
        identifier = self.plane.adopt(peer.detach(), flags)
        if identifier == 0:
            log.error("cannot serve %s: memory is short", address)
            return
        self.received_connections += 1
        self.clients[identifier] = Client(identifier, address, local_address)

    def _forget_closed(self) -> None:
        for identifier in self.plane.closed():
            self.clients.pop(identifier, None)

    # ---- cold commands ------------------------------------------------------

    def _poll(self) -> None:
        failure = self.plane.poll() if self.serving and self.plane.threads == 0 else ""
        if failure:
            self._worker_failed(failure)

    def _requests(self) -> None:
        for _ in range(REQUEST_BATCH):
            request = self.plane.next_request()
            if request is None:
                break
            self._execute(request)
        self._forget_closed()

    def _execute(self, request: Request) -> None:
        client = self.clients.get(request.connection)
        if client is None:
            return  # closed meanwhile
        plane = self.plane
        found = self.dispatcher.find(request)
        if isinstance(found, bytes):
            self._answer(plane, request, "", found)
            return
        name, handler = found
        client.last_cold, client.last_cold_position = name, request.command
        begin = time.perf_counter_ns()
        try:
            outcome = handler(self, request)
        except OortError as failure:
            outcome = _failure(failure)
        except Exception:
            log.exception("command %s failed", name)
            outcome = b"-ERR internal error, see the server's log\r\n"
        self.dispatcher.spent(name, time.perf_counter_ns() - begin)
        if isinstance(outcome, GeneratorType):
            timed = Timed(outcome)

            def done(result: Answer | Exception) -> None:
                self.dispatcher.spent(name, timed.nanoseconds)
                self._finished(plane, request, name, result)

            self.run_job(timed.job(), done)
        elif isinstance(outcome, Later):
            late = outcome
            self.loop.after(late.seconds, lambda: self._answer(plane, request, name, late.reply))
        elif isinstance(outcome, bytes | Reply):
            self._answer(plane, request, name, outcome)

    def run_job(self, job: Job[Any], done: Callable[[Any], None]) -> None:
        """Run a job on the helper thread; done(result or exception) runs on the main loop."""
        call = self.loop.call_soon_from_thread
        self.jobs.submit(job, lambda result: call(lambda: done(result)))

    def _finished(
        self, plane: DataPlane, request: Request, name: str, result: Answer | Exception
    ) -> None:
        if isinstance(result, OortError):
            result = _failure(result)
        elif isinstance(result, Exception):
            log.error("command %s failed", name, exc_info=result)
            result = b"-ERR internal error, see the server's log\r\n"
        self._answer(plane, request, name, result)

    def _answer(self, plane: DataPlane, request: Request, name: str, answer: Answer) -> None:
        self.dispatcher.count(name, answer)
        if plane is not self.plane:
            return  # a Stop or Restart has ended its connection
        plane.reply(request.connection, Reply(answer) if isinstance(answer, bytes) else answer)

    # ---- settings and figures -----------------------------------------------

    def change_settings(
        self, changes: dict[str, Any], sources: Mapping[str, str] | None = None
    ) -> tuple[str, str] | None:
        """Apply checked values, all of them; or the parameter and the reason why not, and none.

        sources: where each value comes from; without it, from CONFIG SET.
        """
        wanted = changes.get("max_clients", 0)
        if wanted > self.client_room:
            return (
                "maxclients",
                "The operating system is not able to handle the specified number of clients, try"
                f" with {self.client_room}",
            )
        for field, value in changes.items():
            source = sources[field] if sources else "CONFIG SET"
            self.configuration = self.configuration.with_setting(field, value, source)
        if "fsync" in changes:
            self.store.set_fsync(changes["fsync"])
        if "log_level" in changes:
            set_level(changes["log_level"])
        self.plane.set_limits(limits_of(self.settings))
        return None

    def reset_stats(self) -> None:
        self.plane.reset_stats()
        self.dispatcher.reset()
        self.received_connections = 0
        self.rejected_connections = 0
        self._last_stats = self.plane.stats()

    def sample_memory(self) -> int:
        """The highest private memory seen by any sample, bytes."""
        self._peak_memory = max(self._peak_memory, info.process_memory()["RssAnon"])
        return self._peak_memory

    def _sample(self) -> None:
        now, stats, before = time.monotonic(), self.plane.stats(), self._last_stats
        seconds = max(1e-9, now - self._last_sample)
        self.rates = Rates(
            max(0, stats.commands - before.commands) / seconds,
            max(0, stats.bytes_in - before.bytes_in) / seconds,
            max(0, stats.bytes_out - before.bytes_out) / seconds,
        )
        self._last_sample, self._last_stats = now, stats
        self.sample_memory()

    def status(self) -> str:
        """What it does, at a glance."""
        if not self.serving:
            return "stopped through CmdCtrl: no client is served until Start"
        stats = self.store.stats()
        trouble = (
            "the store has failed, writes are refused; "
            if stats.failed
            else "the disk is full, writes are refused; "
            if stats.read_only
            else ""
        )
        apart = f"; {self.membership.trouble}" if self.membership.trouble else ""
        return (
            f"{trouble}serving on {', '.join(self.addresses)}: {len(self.clients)} connections,"
            f" {sum(stats.keys)} keys, {self.rates.commands:.0f} ops/s{apart}"
        )

    def _status(self) -> None:
        if not self._stalled:
            self.notifier.status(self.status())

    def _store_events(self) -> None:
        while (event := self.store.next_event()) is not None:
            log_store_event(event)


def _failure(failure: OortError) -> bytes:
    """With the code that the data plane gives the same failure."""
    match failure:
        case StoreFullError() | StoreFailedError() | StoreIOError():
            code = "MISCONF"
        case StoreMemoryError():
            code = "OOM"
        case _:
            code = "ERR"
    return error(f"{code} {failure}")
