"""The node's membership: its ring, its id in the ring, and the configuration from the ring.

A standalone node has a ring with one node.  Any other node keeps its ring in a RingState.  The
follower and CmdCtrl report news to the membership.  transitions.py decides on the effects, and the
membership carries them out: it writes the cached configuration, and makes the process reconfigure
itself.

Methods may be called on any thread between attach() and close(), and layers() at any time.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from oort import journal
from oort.clock import SYSTEM, Clock
from oort.config.settings import Layer
from oort.errors import CacheError
from oort.journal import log
from oort.membership import cache
from oort.membership.configuration import RingConfiguration
from oort.membership.transitions import (
    AnnounceRing,
    Effect,
    Found,
    Held,
    InTouch,
    Lost,
    NewestRing,
    News,
    OtherId,
    Reconfigure,
    RestartAsked,
    Restarted,
    Warn,
    WriteCache,
    transition,
)
from oort.ring.ring import Node, Ring

if TYPE_CHECKING:
    from oort.membership.state import RingState


class RingFollower(Protocol):
    """Receives new rings while the node serves (follower.py)."""

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
        clock: Clock = SYSTEM,
    ) -> None:
        """source: the source of the ring, for people.  ring_data: the bytes of a ring file; None:
        use the newest ring in the data directory.  version: that of the configuration's ring.
        """
        self.state: RingState | None = None
        self._held = Held(local_id, version, configuration, source)
        self._ring_data = ring_data
        self._follower = follower
        self._clock = clock
        self._cache_path = ""
        self._cache_problem = ""
        self._reconfigure: Callable[[RingConfiguration, str], None] | None = None
        self._lock = threading.Lock()

    @property
    def in_syndicate(self) -> bool:
        return self._follower is not None

    @property
    def local_id(self) -> int:
        return self._held.local_id

    @property
    def ring(self) -> Ring | None:
        """The ring; None: the node does not know its ring yet."""
        state = self.state
        return state.ring if state is not None else None

    @property
    def member(self) -> bool:
        """Whether the ring has this node; True also while the ring is not known."""
        ring = self.ring
        return ring is None or ring.node(self.local_id) is not None

    @property
    def configuration(self) -> RingConfiguration:
        return self._held.configuration

    def layers(self) -> list[Layer]:
        """The layers of the ring's configuration.  Raises ConfigError."""
        return self.configuration.layers()

    # ---- life -----------------------------------------------------------------

    def attach(
        self, data_dir: str, cache_path: str, reconfigure: Callable[[RingConfiguration, str], None]
    ) -> None:
        """Read or write the ring in the data directory, which the open store has locked.

        reconfigure(configuration, cause): applies another configuration of the ring.  Any thread
        may call it, and it must not wait.  Raises BootError and RingError.
        """
        # Imported late, because a standalone node does not need the code that reads rings.
        from oort.membership.state import RingState

        self._cache_path = cache_path
        state = RingState(data_dir, lambda _: self._newest_ring(), self._refused)
        if self._ring_data is not None:
            state.adopt(self.local_id, self._ring_data)
        elif not state.load(self.local_id):
            log.warning("there is no ring in %s until a syndicate answers", data_dir)
        self._ring_data = None
        self.state = state
        self._reconfigure = reconfigure

    def begin(self) -> None:
        """Start following the ring.  Clients are served now."""
        if self._follower is not None:
            self._newest_ring(confirmed=True)
            self._follower.start(self)

    def close(self) -> None:
        """Stop following the ring.  Later news have no effect."""
        if self._follower is not None:
            self._follower.close()
        with self._lock:
            self._reconfigure = None

    # ---- news -----------------------------------------------------------------

    def registered(self, server: str, local_id: int, ring: Ring, data: bytes) -> None:
        """A syndicate has registered this node.  Raises BootError and RingError.

        server: the syndicate's host.  local_id, ring, data: the node's id, its ring, and the bytes
        of the ring.
        """
        state = self.state
        assert state is not None
        self._report(Found(server))
        if local_id == self.local_id:
            state.update(ring.version, data)
        else:
            self._report(OtherId(local_id))
            state.adopt(local_id, data)
        self._newest_ring(confirmed=True)

    def found(self, server: str) -> None:
        self._report(Found(server))

    def lost(self) -> None:
        self._report(Lost())

    def ask_for_restart(self) -> None:
        """The syndicate asks for a restart with the present configuration of the ring."""
        self._report(RestartAsked())

    def restarted(self) -> None:
        self._report(Restarted())

    def in_touch(self) -> None:
        """The syndicate has answered and has no newer ring, so the cache may be renewed."""
        with self._lock:
            if (ring := self.ring) is not None:
                self._apply(InTouch(ring, self._clock.monotonic()))

    def _newest_ring(self, *, confirmed: bool = False) -> None:
        """Apply the ring of the RingState, which keeps the newest of all threads' rings."""
        with self._lock:
            if (ring := self.ring) is not None:
                self._apply(NewestRing(ring, self._clock.monotonic(), confirmed))

    def _refused(self, why: str) -> None:
        log.warning("%s", why)

    # ---- effects ----------------------------------------------------------------

    def _report(self, news: News) -> None:
        with self._lock:
            self._apply(news)

    def _apply(self, news: News) -> None:
        if self._reconfigure is not None:
            self._held, effects = transition(self._held, news)
            for effect in effects:
                self._carry_out(effect, self._reconfigure)

    def _carry_out(
        self, effect: Effect, reconfigure: Callable[[RingConfiguration, str], None]
    ) -> None:
        match effect:
            case Warn(text):
                log.warning("%s", text)
            case AnnounceRing(version, nodes):
                kind = journal.entry(journal.RING_CHANGED, ring_version=version)
                log.info("ring %d: %d nodes", version, nodes, extra=kind)
            case WriteCache(cached):
                self._write_cache(cached)
            case Reconfigure(configuration, cause):
                reconfigure(configuration, cause)

    def _write_cache(self, cached: cache.Cached) -> None:
        if self._follower is None:
            return
        try:
            cache.write(self._cache_path, cached, self._clock.wall())
        except CacheError as error:
            # Writing is tried again and again, so log each problem only once.
            if str(error) != self._cache_problem:
                log.warning(
                    "%s: without this file the node cannot start while no syndicate answers", error
                )
            self._cache_problem = str(error)
        else:
            self._cache_problem = ""

    # ---- for INFO -------------------------------------------------------------------

    def facts(self) -> list[tuple[str, object]]:
        ring, held = self.ring, self._held
        return [
            ("oort_ring_source", held.source),
            ("oort_ring_local_id", str(held.local_id)),
            ("oort_ring_version", str(ring.version if ring is not None else 0)),
            ("oort_ring_nodes", len(ring.nodes) if ring is not None else 0),
            (
                "oort_ring_active_nodes",
                sum(node.active for node in ring.nodes) if ring is not None else 0,
            ),
            ("oort_ring_replicas", ring.replica_count if ring is not None else 0),
            ("oort_ring_partitions", ring.partitions if ring is not None else 0),
            ("oort_ring_member", int(ring is not None and self.member)),
            ("oort_ring_restart_asked", int(held.restart_asked)),
            ("oort_syndicate_connected", int(held.connected)),
        ]

    @property
    def trouble(self) -> str:
        """A problem for the status line; empty without a problem."""
        if self._follower is not None and not self._held.connected:
            return "no syndicate answers"
        return "" if self.member else "this node was removed from the ring"


class Alone(Membership):
    """The membership of a standalone node: a ring with this node only."""

    def __init__(self, local_id: int = 0) -> None:
        local_id = local_id or 1
        super().__init__("standalone", local_id, RingConfiguration())
        self._ring = Ring(
            version=0,
            conf=b"",
            nodes=[Node(local_id)],
            partition_bits=0,
            rows=[array("i", [0])],
            local_index=0,
        )

    @property
    def ring(self) -> Ring | None:
        return self._ring

    def attach(
        self, data_dir: str, cache_path: str, reconfigure: Callable[[RingConfiguration, str], None]
    ) -> None:
        """Nothing to do, because a standalone node stores no ring."""
