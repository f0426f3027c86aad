"""Boot: every step between a valid configuration and a serving daemon, in order.

A step that fails raises a BootError or a StoreError, with one line for the operator.
"""

from __future__ import annotations

import os
import resource
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from oort.clock import SYSTEM
from oort.commands.context import Context, Process, plane_settings
from oort.commands.figures import Figures
from oort.config.settings import Configuration, Layer, Settings, join_address
from oort.daemon import listeners
from oort.daemon.daemon import Daemon
from oort.daemon.held_directory import NAME as HELD_NAME
from oort.daemon.held_directory import HeldDirectory
from oort.daemon.loop import Loop
from oort.daemon.progress import ProgressReporter
from oort.dataplane import DataPlane
from oort.errors import BootError
from oort.journal import STARTED, entry, log
from oort.membership.membership import Membership
from oort.metrics import STORE
from oort.notify import Notifier, Passed
from oort.store import Opening, Store, StoreConfig, on_tmpfs, open_store

_RECOVERY = STORE["recovery"]

# Descriptors for segments, index, pollers and log, as opposed to clients.
DESCRIPTOR_RESERVE = 1024


def prepare_data_dir(directory: str) -> None:
    """Create the data directory if it is missing.

    Raises BootError if the path is not a directory that this process can write to.
    """
    path = Path(directory)
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise BootError(f"data directory {directory}: this is not a directory") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BootError(f"data directory {directory}: cannot create it: {reason}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise BootError(f"data directory {directory}: uid {os.geteuid()} may not write to it")


def runtime_dir(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """The runtime directory, which is on a tmpfs.  It is created if it is missing.

    None: no directory is suitable, so a restart after a kill rebuilds the index.  Raises BootError
    if RuntimeDir is set and is not suitable.
    """
    if settings.runtime_dir:
        candidates = [settings.runtime_dir]
    else:
        candidates = [
            *environment.get("RUNTIME_DIRECTORY", "").split(":")[:1],
            *(["/run/oortd"] if os.geteuid() == 0 else []),
            *(
                [f"{environment['XDG_RUNTIME_DIR']}/oort"]
                if environment.get("XDG_RUNTIME_DIR")
                else []
            ),
            f"/dev/shm/oort-{os.geteuid()}",  # noqa: S108 (owner and kind are checked below)
        ]
    reason = ""
    for candidate in filter(None, candidates):
        try:
            Path(candidate).mkdir(mode=0o700, exist_ok=True)
            status = os.lstat(candidate)
        except OSError as error:
            reason = f"{candidate}: {error.strerror or error}"
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            # Never trust the files in another user's directory, or behind a link.
            reason = f"{candidate}: this is not a directory of uid {os.geteuid()}"
        elif not os.access(candidate, os.W_OK | os.X_OK):
            reason = f"{candidate}: this directory is not writable"
        elif not on_tmpfs(candidate):
            reason = f"{candidate}: this directory is not on a tmpfs"
        else:
            return candidate
    if settings.runtime_dir:
        raise BootError(f"runtime directory {reason}")
    log.warning("no runtime directory (%s): a restart after a kill rebuilds the index", reason)
    return None


def raise_descriptor_limit(settings: Settings) -> int:
    """Raise the limit on open files for MaxClients.  Returns the number of clients it allows."""
    wanted = settings.max_clients + DESCRIPTOR_RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        for ceiling in (max(wanted, hard) if hard != resource.RLIM_INFINITY else hard, hard):
            try:
                target = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, ceiling))
                break
            except (ValueError, OSError):
                continue  # raising the hard limit takes a privilege; raise the soft limit alone
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return 1_000_000
    return max(0, soft - DESCRIPTOR_RESERVE)


def fit_clients(configuration: Configuration) -> tuple[Configuration, int]:
    """The configuration with a MaxClients that the limit on open files allows.

    Also returns the number of clients that this limit allows.  Raises BootError for less than 1.
    """
    wanted = configuration.settings.max_clients
    room = raise_descriptor_limit(configuration.settings)
    if room >= wanted:
        return configuration, room
    if room < 1:
        raise BootError(
            "the limit on open files is too low to serve any client: raise it (ulimit -n) to at"
            f" least {wanted + DESCRIPTOR_RESERVE}"
        )
    log.warning(
        "MaxClients is %d instead of %d: the limit on open files allows no more; raise it"
        " (ulimit -n, or LimitNOFILE= in the unit) to %d",
        room,
        wanted,
        wanted + DESCRIPTOR_RESERVE,
    )
    return configuration.with_setting("max_clients", room, "limit on open files"), room


def _open_store(
    settings: Settings, environment: Mapping[str, str], notifier: Notifier, held: HeldDirectory
) -> Store:
    on_disk = settings.store_type == "valuestore"
    runtime = runtime_dir(settings, environment) if on_disk else None
    config = StoreConfig(
        directory=settings.data_dir,
        runtime_directory=runtime,
        held_directory=held.descriptor(),
        segment_bytes=settings.segment_size,
        free_bytes_low=settings.free_disk_low,
        compaction_bytes_per_second=settings.compaction_rate,
        compaction_dead_percent=settings.compaction_threshold,
        tombstone_age_seconds=settings.tombstone_age,
        fsync=settings.fsync,
    )
    opening = Opening()
    with ProgressReporter(notifier, opening.progress):
        store = open_store(settings.store_type, config, opening)
    if on_disk:
        held.hold(settings.data_dir)
    return store


def serve(
    configuration: Configuration,
    environment: Mapping[str, str],
    *,
    version: str,
    config_file: str | None,
    own_layers: Callable[[], list[Layer]],
    membership: Membership,
    passed: Sequence[Passed] = (),
) -> int:
    """Boot and serve until a stop.  Returns the exit code.

    own_layers: reads all layers of the configuration but the ring's.  passed: descriptors from
    systemd.  Raises BootError, StoreError, RingError and TLSError.
    """
    configuration, room = fit_clients(configuration)
    settings = configuration.settings
    notifier = Notifier(environment)
    with ExitStack() as undo:
        undo.callback(membership.close)
        # Bind the ports first: a second oortd must find them in use before it touches the data.
        kept = listeners.KeptListeners(
            notifier, [descriptor for descriptor in passed if descriptor.name != HELD_NAME]
        )
        held = HeldDirectory(notifier, passed)
        undo.callback(held.close)
        sockets = listeners.bind(settings.listen_address, kept)
        for listener in sockets:
            undo.enter_context(listener)
        prepare_data_dir(settings.data_dir)
        notifier.status("opening the store")
        store = _open_store(settings, environment, notifier, held)
        undo.callback(store.close)
        session = store.session()
        undo.callback(session.close)
        for listener in sockets:
            listeners.start_listening(listener)
            kept.keep(listener)
        plane = DataPlane(store.handle, settings.workers, plane_settings(settings))
        undo.callback(plane.close)
        process = Process(
            version=version,
            run_id=secrets.token_hex(20),
            started=SYSTEM.wall(),
            config_file=config_file,
            addresses=tuple(join_address(*listener.getsockname()[:2]) for listener in sockets),
            client_room=room,
            supervised=notifier.active,
        )
        context = Context(
            process=process,
            clock=SYSTEM,
            configuration=configuration,
            store=store,
            session=session,
            plane=plane,
            figures=Figures(plane.stats(), SYSTEM.monotonic()),
            ring_facts=membership.facts,
        )
        daemon = Daemon(
            context,
            Loop(),
            sockets=sockets,
            kept=kept,
            notifier=notifier,
            open_store=lambda settings: _open_store(settings, environment, notifier, held),
            own_layers=own_layers,
            membership=membership,
        )
        membership.attach(settings.data_dir, settings.config_cache, daemon.reconfigure)
        wanted = settings.control_enabled
        if wanted == "true" or (wanted == "auto" and membership.in_syndicate):
            # Imported late, because a node without a control interface needs no gRPC.
            from oort.daemon.control import interface

            daemon.control = interface(daemon, membership.state)
        undo.pop_all()  # the daemon closes all of them from now on
    return daemon.run(lambda: _ready(daemon))


def _ready(daemon: Daemon) -> None:
    context = daemon.context
    settings, version = context.settings, context.process.version
    where = (
        f" in {Path(settings.data_dir).resolve()}" if settings.store_type == "valuestore" else ""
    )
    fsync = f"fsync {settings.fsync}, " if settings.store_type == "valuestore" else ""
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    log.info(
        "oortd %s ready on %s, %s%s (%s%s)",
        version,
        ", ".join(context.process.addresses),
        settings.store_type,
        where,
        fsync,
        workers,
        extra=entry(STARTED, version=version, recovery=context.store.stats()[_RECOVERY]),
    )
    daemon.notifier.ready(daemon.status())
    daemon.membership.begin()
