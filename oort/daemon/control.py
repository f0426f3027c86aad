"""oortd as the node that CmdCtrl controls (oort/cmdctrl/service.py).

gRPC's threads receive the calls.  The main loop executes them, one after the other, and executes no
client's command at the same time.  A call that the main loop does not begin in time is cancelled
and changes nothing.

Stop disconnects the clients and refuses new ones.  The store stays open, and the process goes on.
Restart has the effect of a restart, but within the same process.  It disconnects the clients,
closes the store, reads the configuration again and opens the store with it.  The listening
addresses and the control interface itself do not change.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from oort.cmdctrl.node import Outcome
from oort.cmdctrl.service import ControlServer
from oort.commands import info
from oort.config.settings import join_address, split_address
from oort.daemon.daemon import Daemon
from oort.errors import ControlError, OortError, RingError
from oort.journal import log
from oort.metrics import STORE
from oort.tls.channels import server_credentials_of_files

if TYPE_CHECKING:
    from oort.membership.state import RingState

_KEYS = STORE["keys"]
_FAILED = STORE["failed"]
_READ_ONLY = STORE["read_only"]
_FREE = STORE["free_bytes"]

# Seconds before a call fails.
QUICK = 10.0
HEALTH = 5.0
RESTART = 300.0  # closing and opening a store of any size

Result = TypeVar("Result")


class Control:
    """Implements NodeControl (oort/cmdctrl/node.py)."""

    def __init__(self, daemon: Daemon, ring: RingState | None) -> None:
        self._daemon = daemon
        self._ring = ring
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._closed = False

    def close(self) -> None:
        """The main loop has ended: fail the waiting calls and all later calls."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(_stopping())

    def _on_loop(self, act: Callable[[], Result], seconds: float) -> Result:
        """Call `act` on the main loop and return its result, or raise its error.

        Raises ControlError if the main loop has not finished the call after this many seconds.
        """
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(act())
            except Exception as error:  # raised again by the waiting thread
                future.set_exception(error)

        with self._lock:
            if self._closed:
                raise _stopping()
            self._waiting.add(future)
            self._daemon.loop.call_soon_from_thread(run)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            cancelled = future.cancel()
            raise ControlError(
                f"the main loop was busy for {seconds:.0f} s; nothing was done: try again"
                if cancelled
                else f"still running after {seconds:.0f} s: ask for the health to see the result",
                code="DEADLINE_EXCEEDED",
            ) from error
        finally:
            with self._lock:
                self._waiting.discard(future)

    # ---- NodeControl ----------------------------------------------------------

    def ring_update(self, version: int, ring: bytes) -> int:
        if self._ring is None:
            return _ring_of_one(version, ring)
        return self._ring.update(version, ring)

    def reload(self) -> Outcome:
        return self._on_loop(lambda: self._daemon.reload.reload("Reload"), QUICK)

    def restart(self) -> Outcome:
        return self._on_loop(self._restart, RESTART)

    def _restart(self) -> Outcome:
        try:
            configuration, changes = self._daemon.reload.again("Restart")
        except OortError as error:
            log.error("Restart: %s; nothing was done", error)
            return Outcome(False, f"{error}; nothing was done")
        self._daemon.restart(configuration)
        log.info("Restart: the store is open again, and clients are served")
        return Outcome(True, f"restarted, {changes}")

    def start(self) -> Outcome:
        return self._on_loop(self._start, QUICK)

    def _start(self) -> Outcome:
        try:
            begun = self._daemon.serving.start()
        except OortError as error:
            log.error("Start: %s", error)
            return Outcome(False, str(error))
        return Outcome(True, "clients are served" if begun else "clients were served already")

    def stop(self) -> Outcome:
        return self._on_loop(self._stop, QUICK)

    def _stop(self) -> Outcome:
        try:
            ended = self._daemon.serving.stop()
        except OortError as error:
            log.error("Stop: no client is served, but some writes may not be durable: %s", error)
            return Outcome(
                False, f"no client is served, but some writes may not be durable: {error}"
            )
        return Outcome(True, "no client is served" if ended else "no client was served already")

    def exit(self) -> Outcome:
        return self._on_loop(self._exit, QUICK)

    def _exit(self) -> Outcome:
        # A timer calls stop(), so the loop sends the reply to this call before it ends.
        self._daemon.loop.after(0.0, lambda: self._daemon.stop("Exit through CmdCtrl"))
        return Outcome(True, "stopping")

    def stats(self) -> bytes:
        facts = self._on_loop(lambda: info.facts(self._daemon.context), QUICK)
        return json.dumps(facts).encode()

    def health(self) -> Outcome:
        try:
            return self._on_loop(self._health, HEALTH)
        except ControlError as error:
            if error.code != "DEADLINE_EXCEEDED":
                raise
            return Outcome(False, str(error))

    def _health(self) -> Outcome:
        context = self._daemon.context
        stats = context.store.stats()
        if stats[_FAILED]:
            return Outcome(
                False, "the store refuses writes after an I/O error: see the log, then restart"
            )
        if stats[_READ_ONLY]:
            return Outcome(False, f"writes are refused: {stats[_FREE]} bytes of disk are free")
        if not self._daemon.serving.active:
            return Outcome(False, "no client is served until Start")
        return Outcome(True, f"{len(context.clients)} connections, {sum(stats.each(_KEYS))} keys")

    def software_version(self) -> str:
        return self._daemon.context.process.version

    def self_upgrade(self, version: str) -> Outcome:
        if version == self._daemon.context.process.version:
            return Outcome(True, f"oortd is version {version} already")
        wanted = version or "VERSION"
        return Outcome(
            False,
            "oortd may not install packages: on the node, run apt-get install"
            f" oortd={wanted} (dnf install oortd-{wanted})",
        )


def interface(daemon: Daemon, ring: RingState | None) -> Interface:
    """The control interface that the settings describe; it listens already.

    Raises BootError and TLSError.
    """
    settings = daemon.context.settings
    control = Control(daemon, ring)
    credentials = None
    mutual = settings.control_mutual
    if settings.control_tls:
        credentials = server_credentials_of_files(
            settings.cert_file, settings.key_file, settings.ca_file if mutual else None
        )
    host, port = split_address(settings.control_address)
    kind = "mutual TLS" if credentials and mutual else "TLS" if credentials else "no TLS"
    if not (credentials and mutual) and not _is_loopback(host):
        own = "::1" if ":" in host else "127.0.0.1"
        log.warning(
            "CmdCtrl listens on %s instead of %s: with %s it cannot authenticate callers, so only"
            " callers on this node are served",
            own,
            host,
            "UseTLS = false" if credentials is None else "MutualTLS = false",
        )
        host = own
    server = ControlServer(control, join_address(host, port), credentials, mutual=mutual)
    log.info("CmdCtrl on %s (%s)", join_address(host, server.port), kind)
    return Interface(control, server)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Interface:
    """The control interface for the daemon.

    It starts when clients are served, and it is closed after the main loop has ended.
    """

    def __init__(self, control: Control, server: ControlServer) -> None:
        self._control = control
        self._server = server

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._control.close()
        self._server.close()


def _ring_of_one(version: int, ring: bytes) -> int:
    """The reply of a standalone node, which has a ring of version 0, to RingUpdate.

    Raises ControlError for a valid ring.
    """
    # Imported late, because a standalone node needs this code only here.
    from oort.ring import files

    try:
        found = files.decode_ring(ring)
    except RingError as error:
        log.warning("ring of version %d was refused: %s", version, error)
        return 0
    if found.version != version:
        log.warning(
            "ring of version %d was refused: its content has version %d", version, found.version
        )
        return 0
    raise ControlError("this node is standalone: it has no ring", code="FAILED_PRECONDITION")


def _stopping() -> ControlError:
    return ControlError("the node is stopping", code="UNAVAILABLE")
