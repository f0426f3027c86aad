"""Which ring this node is in, which node of it, and the configuration that comes with it.

A node that serves alone is in a ring of one.  Any other keeps its ring in a RingState.  Whoever
brings a newer one (the follower, CmdCtrl), its configuration is applied as a reload would, and the
cached configuration is written anew.  A configuration that is wrong changes nothing, and is not
cached.

Calls come on any thread, between attach() and close(); layers() at any time.
"""

from __future__ import annotations

import threading
import time
from array import array
from typing import TYPE_CHECKING, Protocol

from oort import journal
from oort.config.settings import Layer
from oort.daemon import reload
from oort.errors import CacheError, ConfigError, OortError
from oort.journal import log
from oort.membership import cache
from oort.membership import configuration as ring_configuration
from oort.membership.configuration import RingConfiguration
from oort.ring.ring import Node, Ring

if TYPE_CHECKING:
    from oort.daemon.daemon import Daemon
    from oort.membership.state import RingState


class RingFollower(Protocol):
    """Brings rings for as long as the node serves (follower.py)."""

    def start(self, membership: Membership) -> None: ...

    def close(self) -> None: ...


class Membership:
    def __init__(
        self,
        source: str,
        local_id: int,
        configuration: RingConfiguration,
        *,
        ring_data: bytes | None = None,
        version: int = 0,
        follower: RingFollower | None = None,
    ) -> None:
        """source: where the ring is from, in words; ring_data: its file's bytes, None where the
        newest of the data directory counts; version: of the ring that the configuration is of."""
        self.source = source
        self.connected = False
        self.restart_asked = False  # by a configuration that came since the last
        self.state: RingState | None = None
        self._local_id = local_id
        self._configuration = configuration
        self._ring_data = ring_data
        self._version = version
        self._follower = follower
        self._daemon: Daemon | None = None
        self._cache_path = ""
        self._cached_at = float("-inf")  # monotonic
        self._cache_problem = ""
        self._lock = threading.Lock()

    @property
    def in_syndicate(self) -> bool:
        return self._follower is not None

    @property
    def local_id(self) -> int:
        state = self.state
        return state.local_id if state is not None else self._local_id

    @property
    def ring(self) -> Ring | None:
        """None: it is not known yet."""
        state = self.state
        return state.ring if state is not None else None

    @property
    def member(self) -> bool:
        """Whether the ring has this node; so, too, while the ring is not known."""
        ring = self.ring
        return ring is None or ring.node(self.local_id) is not None

    @property
    def ring_configuration(self) -> bytes:
        """The text of every node's."""
        return self._configuration.ring

    def layers(self) -> list[Layer]:
        """Of the configuration.  Raises ConfigError."""
        return self._configuration.layers()

    # ---- life -----------------------------------------------------------------

    def attach(self, daemon: Daemon) -> None:
        """The store is open: the data directory is ours.  Raises BootError and RingError."""
        # Imported late: a ring of one takes nothing that reads and makes rings.
        from oort.membership.state import RingState

        settings = daemon.settings
        self._cache_path = settings.config_cache
        state = RingState(settings.data_dir, lambda _: self._apply(), self._refused)
        if self._ring_data is not None:
            state.adopt(self._local_id, self._ring_data)
        elif not state.load(self._local_id):
            log.warning(
                "there is no ring in %s: it is known when a syndicate answers", settings.data_dir
            )
        self._ring_data = None
        self.state = state
        self._daemon = daemon

    def begin(self) -> None:
        """Clients are served."""
        if self._follower is None:
            return
        self._apply(force=True)
        self._follower.start(self)

    def close(self) -> None:
        """Nothing reaches the daemon any more."""
        if self._follower is not None:
            self._follower.close()
        with self._lock:
            self._daemon = None

    # ---- what the syndicate says ------------------------------------------------

    def registered(self, server: str, local_id: int, ring: Ring, data: bytes) -> None:
        """A syndicate has answered, with the id and the ring.  Raises BootError and RingError."""
        state = self.state
        assert state is not None
        self.found(server)
        if local_id == state.local_id:
            state.update(ring.version, data)
        else:
            if state.local_id:
                log.warning("this node has another id: %d, it was %d", local_id, state.local_id)
            self._version = 0
            state.adopt(local_id, data)
        self._apply(force=True)

    def found(self, server: str) -> None:
        self.source = f"syndicate {server}"
        self.connected = True

    def lost(self) -> None:
        self.connected = False

    def ask_for_restart(self) -> None:
        """The syndicate wants it, with the configuration of the ring as it is now."""
        if not self.restart_asked:
            log.warning("the ring's configuration asks for a restart of this node")
        self.restart_asked = True

    def in_touch(self) -> None:
        """The syndicate is there and has nothing newer: what is cached is not old."""
        if time.monotonic() - self._cached_at > cache.RENEW_SECONDS:
            self._apply(force=True)

    # ---- what follows from a ring ---------------------------------------------------

    def _refused(self, why: str) -> None:
        log.warning("%s", why)

    def _apply(self, *, force: bool = False) -> None:
        """The newest ring counts.  force: write the cache whether or not there is something new."""
        state = self.state
        if state is None:
            return
        with self._lock:
            ring, before = state.ring, self._configuration
            if ring is None or ring.version < self._version:
                return  # what we have of it is newer than the file that was left
            now = ring_configuration.of_ring(ring, state.local_id, before)
            news = ring.version != self._version
            now_cached = before.cached and not self.connected and not news
            self._configuration = RingConfiguration(now.ring, now.node, now_cached)
            self._version = ring.version
            changed = not now.same_texts(before)
            try:
                ignored = self._configuration.ignored()
            except ConfigError:
                good = False  # the reload says what is wrong
            else:
                good = True
                if changed:
                    for why in ignored:
                        log.warning("%s; it is left out", why)
            if good and not now_cached and (news or changed or force):
                self._write_cache(state, ring)
            if news and not self.member:
                log.warning(
                    "ring %d is without this node (%d): it serves on, with the configuration it"
                    " has; a restart registers it anew",
                    ring.version,
                    state.local_id,
                )
            daemon = self._daemon
            if daemon is None:
                return
            if news:
                kind = journal.entry(journal.RING_CHANGED, ring_version=ring.version)
                log.info("ring %d: %d nodes", ring.version, len(ring.nodes), extra=kind)
            if changed:
                cause = f"ring {ring.version}"
                daemon.loop.call_soon_from_thread(lambda: _reload(daemon, cause))

    def _write_cache(self, state: RingState, ring: Ring) -> None:
        if self._follower is None:
            return
        configuration = self._configuration
        try:
            cache.write(
                self._cache_path,
                cache.Cached(state.local_id, ring.version, configuration.ring, configuration.node),
            )
        except CacheError as error:
            # Once for each kind: it is tried again and again.
            if str(error) != self._cache_problem:
                log.warning(
                    "%s: without it this node cannot start while no syndicate answers", error
                )
            self._cache_problem = str(error)
        else:
            self._cache_problem = ""
        self._cached_at = time.monotonic()

    # ---- for INFO -------------------------------------------------------------------

    def facts(self) -> list[tuple[str, object]]:
        ring = self.ring
        return [
            ("oort_ring_source", self.source),
            ("oort_ring_local_id", str(self.local_id)),
            ("oort_ring_version", str(ring.version if ring is not None else 0)),
            ("oort_ring_nodes", len(ring.nodes) if ring is not None else 0),
            (
                "oort_ring_active_nodes",
                sum(node.active for node in ring.nodes) if ring is not None else 0,
            ),
            ("oort_ring_replicas", ring.replica_count if ring is not None else 0),
            ("oort_ring_partitions", ring.partitions if ring is not None else 0),
            ("oort_ring_member", int(ring is not None and self.member)),
            ("oort_ring_restart_asked", int(self.restart_asked)),
            ("oort_syndicate_connected", int(self.connected)),
        ]

    @property
    def trouble(self) -> str:
        """For the status line; empty: none."""
        if self._follower is not None and not self.connected:
            return "no syndicate answers"
        return "" if self.member else "this node is not in the ring any more"


class Alone(Membership):
    """A ring of one."""

    def __init__(self, local_id: int = 0) -> None:
        super().__init__("standalone", local_id or 1, RingConfiguration())
        self._ring = Ring(
            version=0,
            conf=b"",
            nodes=[Node(self._local_id)],
            partition_bits=0,
            rows=[array("i", [0])],
            local_index=0,
        )

    @property
    def ring(self) -> Ring | None:
        return self._ring

    def attach(self, daemon: Daemon) -> None:
        """It keeps no ring."""


def _reload(daemon: Daemon, cause: str) -> None:
    try:
        reload.reload(daemon, cause)
    except OortError as error:
        log.error("%s: %s", cause, error)
