"""The running oortd: its parts, signals, reports to systemd, and the end of the process.

serving     opens, serves and stops
executor    executes the commands that are not native
reload      reads the configuration again
membership  knows the ring of this node
control     CmdCtrl, if the settings enable it
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from oort.commands.context import Context
from oort.config.settings import Configuration, Layer, Settings
from oort.daemon import listeners
from oort.daemon.executor import Executor
from oort.daemon.loop import Loop
from oort.daemon.reload import Reload
from oort.daemon.serving import Serving
from oort.journal import STALLED, STOPPED, STOPPING, entry, log
from oort.membership.configuration import RingConfiguration
from oort.membership.membership import Membership
from oort.metrics import STORE
from oort.notify import Notifier
from oort.store import Store

_KEYS = STORE["keys"]
_FAILED = STORE["failed"]
_READ_ONLY = STORE["read_only"]

SAMPLE_SECONDS = 1.0
STATUS_SECONDS = 2.0


class ControlInterface(Protocol):
    """The interface of control.py: starts when clients are served, is closed when they are not."""

    def start(self) -> None: ...

    def close(self) -> None: ...


class Daemon:
    def __init__(
        self,
        context: Context,
        loop: Loop,
        *,
        sockets: Sequence[socket.socket],
        kept: listeners.KeptListeners,
        notifier: Notifier,
        open_store: Callable[[Settings], Store],
        own_layers: Callable[[], list[Layer]],
        membership: Membership,
    ) -> None:
        """own_layers: reads all layers of the configuration but the ring's."""
        self.context = context
        self.loop = loop
        self.notifier = notifier
        self.membership = membership
        self.control: ControlInterface | None = None
        self.reload = Reload(context, own_layers, membership.configuration)
        executor = Executor(context, loop, self.stop)
        self.serving = Serving(
            context,
            loop,
            executor,
            sockets,
            kept=kept,
            notifier=notifier,
            open_store=open_store,
            fail=self.fail,
        )
        self._exit_code = 0
        self._stalled: list[int] = []
        self._stopping = False

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until a stop.  Returns the exit code.  ready() is called once clients are served.

        SIGTERM, SIGINT, SHUTDOWN, CmdCtrl's Exit and a failed worker stop the process.
        """
        loop = self.loop
        for number in (signal.SIGTERM, signal.SIGINT):
            name = signal.Signals(number).name
            loop.on_signal(number, lambda name=name: self.stop(name))  # type: ignore[misc]
        loop.on_signal(signal.SIGHUP, self._hang_up)
        loop.every(SAMPLE_SECONDS, self._sample)
        if self.notifier.active:
            loop.every(STATUS_SECONDS, self._status)
        if self.notifier.watchdog_seconds is not None:
            # The third check after a worker stops, at the latest, finds the stall and logs it.
            # systemd ends the process half a period later.
            loop.every(self.notifier.watchdog_seconds / 2, self._alive)
        self.serving.open()
        try:
            if self.control is not None:
                self.control.start()
            ready()
            loop.run()
        finally:
            self._close()
        return self._exit_code

    def stop(self, reason: str) -> None:
        if not self._stopping:
            self._stopping = True
            log.info("%s: stopping", reason, extra=entry(STOPPING))
            self.notifier.stopping()
            self.loop.stop()

    def fail(self, reason: str) -> None:
        """Stop with exit code 1."""
        self._exit_code = 1
        self.stop(reason)

    def _close(self) -> None:
        self.serving.end()
        if self.control is not None:
            self.control.close()
        # Membership ends before the store is closed, because only the owner of the data directory
        # may write rings, and the open store makes this process the owner.
        self.membership.close()
        if not self.serving.close_store():
            self._exit_code = 1
        self.loop.close()
        log.info("stopped", extra=entry(STOPPED))

    def restart(self, configuration: Configuration) -> None:
        """Serving.restart().  It also counts as the restart that the ring asked for."""
        self.serving.restart(configuration)
        self.membership.restarted()

    def reconfigure(self, ring: RingConfiguration, cause: str) -> None:
        """Apply another configuration of the ring.  Thread safe; returns at once."""
        self.loop.call_soon_from_thread(lambda: self.reload.follow(ring, cause))

    def _hang_up(self) -> None:
        self.notifier.reloading()
        self.reload.reload("SIGHUP")
        self.notifier.ready()

    def _sample(self) -> None:
        context = self.context
        context.figures.sample(context.plane.stats(), context.clock.monotonic())

    # ---- reports to systemd -------------------------------------------------

    def _alive(self) -> None:
        """Tell systemd's watchdog that the main loop runs, but only if every worker runs too."""
        stalled = self.serving.workers.check() if self.serving.active else []
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

    def _status(self) -> None:
        if not self._stalled:
            self.notifier.status(self.status())

    def status(self) -> str:
        """The status line of systemctl."""
        if not self.serving.active:
            return "stopped through CmdCtrl: no client is served until Start"
        context = self.context
        stats = context.store.stats()
        trouble = (
            "the store has failed, writes are refused; "
            if stats[_FAILED]
            else "the disk is full, writes are refused; "
            if stats[_READ_ONLY]
            else ""
        )
        apart = f"; {self.membership.trouble}" if self.membership.trouble else ""
        return (
            f"{trouble}serving on {', '.join(context.process.addresses)}:"
            f" {len(context.clients)} connections, {sum(stats.each(_KEYS))} keys,"
            f" {context.figures.rates.commands:.0f} ops/s{apart}"
        )
