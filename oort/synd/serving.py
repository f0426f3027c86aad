"""A running synd: its authority and its rings, from start to stop.

One event loop answers every call and pushes rings.  Work that waits for a disk or for etcd has its
own threads: one for the changes of each ring, one for the announcements of the state, and a few for
calls that read the state.  Callers and nodes therefore cannot delay one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from oort import __version__, journal
from oort.errors import OortError, ServeError
from oort.notify import Notifier
from oort.synd.state.directory import DirectoryState
from oort.synd.state.etcd import EtcdState
from oort.synd.state.state import State
from oort.syndicate.authority_pb2_grpc import add_AuthorityServicer_to_server
from oort.syndicate.connection import address
from oort.syndicate.syndicate_pb2_grpc import add_SyndicateServicer_to_server
from oort.tls import certificates
from oort.tls.files import read as read_pem

from . import authority as authorities
from . import registration
from .calls import MOST_CALLS, OPTIONS, Calls
from .config import Config, Service
from .forward import Leader
from .identity import OwnIdentity, write_local_files
from .keeper import Held, RingKeeper
from .nodes import Nodes
from .push import Pusher
from .service import SyndicateService
from .subscribers import Subscribers

T = TypeVar("T")

GRACE_SECONDS = 10.0  # for running calls when synd stops
FIRST_SECONDS = 20.0  # for the first version of a ring, which may need an election
RENEWAL_SECONDS = 3600.0  # between two checks of the certificate
DESCRIPTORS = 65536
SWITCH_SECONDS = 0.0005  # longest time that a rebalance keeps the interpreter lock from calls

log = logging.getLogger("synd")


def open_state(config: Config, name: str, advertise: str) -> State:
    """The state for the service with this name.  Raises StateError and TLSError."""
    if not config.etcd:
        return DirectoryState(Path(config.state), name, advertise)
    credentials = None
    if config.etcd_ca_file:
        credentials = grpc.ssl_channel_credentials(
            read_pem(config.etcd_ca_file),
            read_pem(config.etcd_key_file) if config.etcd_key_file else None,
            read_pem(config.etcd_cert_file) if config.etcd_cert_file else None,
        )
    return EtcdState(config.etcd, name, advertise, credentials, prefix=config.etcd_prefix)


class _Ring:
    """One service: its port, its state, and the receivers of new rings."""

    def __init__(self, service: Service, identity: OwnIdentity) -> None:
        self.service = service
        self.leading = False
        self.held: Held | None = None
        self.has_ring = asyncio.Event()
        self._identity = identity
        self.server = grpc.aio.server(
            interceptors=[Calls()], options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS
        )
        self.port = self._bind()
        self.where = address(service.listen_address, self.port)

    def _bind(self) -> int:
        wanted = address(self.service.listen_address, self.service.port)
        try:
            port = self.server.add_secure_port(wanted, self._identity.server_credentials())
        except RuntimeError:
            port = 0
        if not port:
            raise ServeError(
                f"[{self.service.name}] cannot listen at {wanted}: the port is in use, or the"
                " address does not belong to this machine"
            )
        return port

    def open(self, state: State, authority: authorities.AuthorityService) -> None:
        """Create the parts that need the state; the service is available after start()."""
        self.state = state
        self.keeper = RingKeeper(self.service, state)
        self.nodes = Nodes(lambda: self._identity.current, lambda: self.service.cmdctrl_port)
        self.pusher = Pusher(self.service.name, self.nodes)
        self.subscribers = Subscribers()
        self.leader = Leader(lambda: self._identity.current)
        self.servicer = SyndicateService(
            self.service,
            state,
            self.keeper,
            self.subscribers,
            self.nodes,
            self.pusher,
            self.leader,
        )
        add_SyndicateServicer_to_server(self.servicer, self.server)
        add_AuthorityServicer_to_server(authority, self.server)

    async def start(self, changed: Callable[[], None]) -> None:
        """Start serving; `changed` is called on the loop when described() changes."""

        def announce(held: Held) -> None:
            self.held = held
            self.has_ring.set()
            self.subscribers.announce(held)
            self.pusher.announce(held)
            changed()

        def lead(leading: bool) -> None:
            self.leading = leading
            self.pusher.activate(leading)
            changed()

        self.keeper.watch(_soon(announce))
        await asyncio.to_thread(self.keeper.start)
        self.state.on_lead(_soon(lead))
        await self.server.start()

    def configure(self, service: Service) -> None:
        """Use other settings; the address and the port stay the same."""
        self.service = self.servicer.configuration = service
        self.keeper.configure(service)

    async def close(self) -> None:
        self.subscribers.close()
        await self.server.stop(GRACE_SECONDS)
        await self.pusher.close()
        await self.leader.close()
        await asyncio.to_thread(self.keeper.close)
        await asyncio.to_thread(self.state.close)

    def described(self) -> str:
        role = "leading" if self.leading else "not leading"
        if self.held is None:
            return f"{self.service.name} at {self.where}: {role}, no ring yet"
        count = len(self.held.ring.nodes)
        return (
            f"{self.service.name} at {self.where}: {role}, version {self.held.version}, "
            f"{count} {'node' if count == 1 else 'nodes'}"
        )


class Synd:
    """A synd process; run() may be called only once."""

    def __init__(
        self, config: Config, notifier: Notifier, read_configuration: Callable[[], Config]
    ) -> None:
        self._config = config
        self._notifier = notifier
        self._read = read_configuration
        self._rings: list[_Ring] = []
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._ready = False

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.  Raises OortError if synd cannot start."""
        _raise_descriptor_limit()
        sys.setswitchinterval(SWITCH_SECONDS)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with AsyncExitStack() as undo:
            identity = await self._start(undo)
            renewal = asyncio.create_task(_renew(identity))
            await self._stop.wait()
            log.info("stopping")
            self._notifier.stopping()
            renewal.cancel()
        log.info("stopped")

    async def _start(self, undo: AsyncExitStack) -> OwnIdentity:
        config = self._config
        self._notifier.status("opening the state")
        state = open_state(config, authorities.SERVICE, config.advertise)
        undo.push_async_callback(asyncio.to_thread, state.close)
        loaded = authorities.load(state)
        authority = certificates.CertificateAuthority.load(loaded.certificate, loaded.key, ())
        identity = OwnIdentity(authority, state, config.names)
        write_local_files(config, authority)
        # All ports are opened first, so that synd does not serve some rings if a port is in use.
        rings = [_Ring(service, identity) for service in config.services]
        servicer = authorities.AuthorityService(
            authority,
            state,
            lambda text: any(registration.allowed(text, ring.service) for ring in rings),
            config.reserved,
        )
        for ring in rings:
            advertise = address(config.advertise, ring.port)
            ring.open(open_state(config, ring.service.name, advertise), servicer)
            undo.push_async_callback(ring.close)
        for ring in rings:
            await ring.start(self._changed)
            log.info("%s: serving at %s", ring.service.name, ring.where)
        self._rings = rings
        await self._first_versions()
        names = [ring.service.name for ring in rings]
        log.info("certificate for %s", ", ".join(config.names))
        log.info(
            "certificate's fingerprint: %s", certificates.fingerprint(identity.current.certificate)
        )
        log.info("OORT_SYNDICATE_FINGERPRINT=%s", certificates.fingerprint(authority.certificate))
        log.info(
            "synd %s ready: %s in %s", __version__, ", ".join(names), config.state
        )  # fmt: skip
        self._ready = True
        self._notifier.ready(self._described())
        return identity

    async def _first_versions(self) -> None:
        """Wait until new rings have their first version, at most FIRST_SECONDS."""

        async def all_made() -> None:
            for ring in self._rings:
                await ring.has_ring.wait()

        made, stopped = asyncio.create_task(all_made()), asyncio.create_task(self._stop.wait())
        both: set[asyncio.Task[Any]] = {made, stopped}
        await asyncio.wait(both, timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not made.done():
            made.cancel()
            log.warning(
                "not every ring has a version yet: no synd leads, or the state cannot be written"
            )

    def _described(self) -> str:
        return "; ".join(ring.described() for ring in self._rings)

    def _changed(self) -> None:
        if self._ready and not self._stop.is_set():
            self._notifier.status(self._described())

    def _hang_up(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        """Read the configuration again, after SIGHUP, and apply all settings except FIXED."""
        async with self._reloading:
            if not self._ready or self._stop.is_set():
                return
            self._notifier.reloading()
            try:
                # In a thread, because looking up the host's names may wait for DNS.
                self._follow(await asyncio.to_thread(self._read))
            except OortError as error:
                log.error("reload: nothing was changed: %s", error)
            if not self._stop.is_set():
                self._notifier.ready(self._described())

    def _follow(self, config: Config) -> None:
        restart = self._config.fixed_changes(config)
        wanted = {service.name: service for service in config.services}
        for ring in self._rings:
            ring.configure(wanted.get(ring.service.name, ring.service))
        journal.set_level(config.log_level)
        log.info("reload: done")
        if restart:
            log.warning("reload: these changes need a restart: %s", ", ".join(restart))


def _soon(function: Callable[[T], None]) -> Callable[[T], None]:
    """A version of the function that other threads may call; it runs on this loop."""
    loop = asyncio.get_running_loop()

    def called(argument: T) -> None:
        loop.call_soon_threadsafe(function, argument)

    return called


async def _renew(identity: OwnIdentity) -> None:
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        try:
            await asyncio.to_thread(identity.renew)
        except OortError as error:
            log.warning("cannot renew the certificate, will try again: %s", error)
        except Exception:
            # No error may end this task, because the certificate would then expire.
            log.exception("cannot renew the certificate, will try again")


def _raise_descriptor_limit() -> None:
    """Allow more connections: each node has one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # If this is not permitted, as under systemd, the present limit stays.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(config: Config, notifier: Notifier, read_configuration: Callable[[], Config]) -> None:
    """Run synd until it is stopped.  Raises OortError if synd cannot start."""

    async def run() -> None:
        await Synd(config, notifier, read_configuration).run()

    asyncio.run(run())
