"""oortd under CmdCtrl: the node that oort/cmdctrl/service.py controls.

Calls come on gRPC's threads.  What they ask for is done on the main loop, one call after the other
and never beside a client's command; a call that the loop does not get to in time is taken back and
has changed nothing.

Stop ends the clients and turns new ones away; the store stays open and the process goes on.
Restart does what a restart of the process would do short of a new process: clients end, the store
is closed and opened with the configuration as it is then.  The listening addresses and this
interface itself stay as they are.
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

# Seconds until a call is given up.
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
        """The main loop has ended: answer whoever waits, and whoever comes."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(_stopping())

    def _on_loop(self, act: Callable[[], Result], seconds: float) -> Result:
        """Do this on the main loop and wait for it."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(act())
            except Exception as error:  # raised again where it was asked for
                future.set_exception(error)

        with self._lock:
            if self._closed:
                raise _stopping()
            self._waiting.add(future)
            self._daemon.loop.call_soon_from_thread(run)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            taken_back = future.cancel()
            raise ControlError(
                f"the main loop has not come to it for {seconds:.0f} s; nothing was done"
                if taken_back
                else f"not done after {seconds:.0f} s, but under way: ask for the health",
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
        log.info("Restart: the store was opened again, clients are served")
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
            log.error("Stop: no client is served, but not all may be durable: %s", error)
            return Outcome(False, f"no client is served, but not all may be durable: {error}")
        return Outcome(True, "no client is served" if ended else "no client was served already")

    def exit(self) -> Outcome:
        return self._on_loop(self._exit, QUICK)

    def _exit(self) -> Outcome:
        # As a timer: the answer to this call is on its way when the loop ends.
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
            return Outcome(True, f"this is {version} already")
        wanted = version or "VERSION"
        return Outcome(
            False,
            "oortd has no right to install packages, and keeps it so: on the node, run"
            f" apt-get install oortd={wanted} (dnf install oortd-{wanted})",
        )


def interface(daemon: Daemon, ring: RingState | None) -> Interface:
    """What the settings ask for, listening.  Raises BootError or TLSError."""
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
            "CmdCtrl listens on %s instead of %s: with %s nothing tells who calls, and only"
            " callers on the node itself are served",
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
    """The control interface as the daemon has it: begins with its clients, ends with its loop."""

    def __init__(self, control: Control, server: ControlServer) -> None:
        self._control = control
        self._server = server

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._control.close()
        self._server.close()


def _ring_of_one(version: int, ring: bytes) -> int:
    """A node on its own is in a ring of version 0; whoever means to give it another is told so."""
    # Imported late: a node on its own has no use for it.
    from oort.ring import files

    try:
        found = files.decode_ring(ring)
    except RingError as error:
        log.warning("ring of version %d was not taken: %s", version, error)
        return 0
    if found.version != version:
        log.warning("ring of version %d was not taken: it says %d", version, found.version)
        return 0
    raise ControlError("this node serves standalone: it is in no ring", code="FAILED_PRECONDITION")


def _stopping() -> ControlError:
    return ControlError("the node is stopping", code="UNAVAILABLE")
