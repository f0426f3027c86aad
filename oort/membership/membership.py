"""Which ring this node is in, which node of it, and the configuration that comes with it.

A node that serves alone is in a ring of one.  Any other keeps its ring in a RingState.  Whoever
brings news (the follower, CmdCtrl) tells them here; transitions.py decides what they change, and
what follows is done here: the cached configuration is written, and the process is told to
reconfigure itself.

Calls come on any thread, between attach() and close(); layers() at any time.
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
    Came,
    Effect,
    Found,
    Held,
    InTouch,
    Lost,
    NewestRing,
    OtherId,
    Reconfigure,
    RestartAsked,
    Restarted,
    TellRing,
    Warn,
    WriteCache,
    transition,
)
from oort.ring.ring import Node, Ring

if TYPE_CHECKING:
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
        clock: Clock = SYSTEM,
    ) -> None:
        """source: where the ring is from, in words; ring_data: its file's bytes, None where the
        newest of the data directory counts; version: of the ring that the configuration is of."""
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
        """None: it is not known yet."""
        state = self.state
        return state.ring if state is not None else None

    @property
    def member(self) -> bool:
        """Whether the ring has this node; so, too, while the ring is not known."""
        ring = self.ring
        return ring is None or ring.node(self.local_id) is not None

    @property
    def configuration(self) -> RingConfiguration:
        return self._held.configuration

    def layers(self) -> list[Layer]:
        """Of the configuration.  Raises ConfigError."""
        return self.configuration.layers()

    # ---- life -----------------------------------------------------------------

    def attach(
        self, data_dir: str, cache_path: str, reconfigure: Callable[[RingConfiguration, str], None]
    ) -> None:
        """The store is open: the data directory is ours.  Raises BootError and RingError.

        reconfigure(configuration, cause): another configuration of the ring counts from now on; it
        is called on any thread, and must not wait.
        """
        # Imported late: a ring of one takes nothing that reads and makes rings.
        from oort.membership.state import RingState

        self._cache_path = cache_path
        state = RingState(data_dir, lambda _: self._newest_ring(), self._refused)
        if self._ring_data is not None:
            state.adopt(self.local_id, self._ring_data)
        elif not state.load(self.local_id):
            log.warning("there is no ring in %s: it is known when a syndicate answers", data_dir)
        self._ring_data = None
        self.state = state
        self._reconfigure = reconfigure

    def begin(self) -> None:
        """Clients are served."""
        if self._follower is not None:
            self._newest_ring(confirmed=True)
            self._follower.start(self)

    def close(self) -> None:
        """No news count any more."""
        if self._follower is not None:
            self._follower.close()
        with self._lock:
            self._reconfigure = None

    # ---- news -----------------------------------------------------------------

    def registered(self, server: str, local_id: int, ring: Ring, data: bytes) -> None:
        """A syndicate has answered, with the id and the ring.  Raises BootError and RingError."""
        state = self.state
        assert state is not None
        self._came(Found(server))
        if local_id == self.local_id:
            state.update(ring.version, data)
        else:
            self._came(OtherId(local_id))
            state.adopt(local_id, data)
        self._newest_ring(confirmed=True)

    def found(self, server: str) -> None:
        self._came(Found(server))

    def lost(self) -> None:
        self._came(Lost())

    def ask_for_restart(self) -> None:
        """The syndicate wants it, with the configuration of the ring as it is now."""
        self._came(RestartAsked())

    def restarted(self) -> None:
        self._came(Restarted())

    def in_touch(self) -> None:
        """The syndicate is there and has nothing newer: what is cached is not old."""
        with self._lock:
            if (ring := self.ring) is not None:
                self._apply(InTouch(ring, self._clock.monotonic()))

    def _newest_ring(self, *, confirmed: bool = False) -> None:
        """Rings come on several threads: whichever has brought the newest, that one counts."""
        with self._lock:
            if (ring := self.ring) is not None:
                self._apply(NewestRing(ring, self._clock.monotonic(), confirmed))

    def _refused(self, why: str) -> None:
        log.warning("%s", why)

    # ---- what follows -----------------------------------------------------------

    def _came(self, came: Came) -> None:
        with self._lock:
            self._apply(came)

    def _apply(self, came: Came) -> None:
        if self._reconfigure is not None:
            self._held, effects = transition(self._held, came)
            for effect in effects:
                self._carry_out(effect, self._reconfigure)

    def _carry_out(
        self, effect: Effect, reconfigure: Callable[[RingConfiguration, str], None]
    ) -> None:
        match effect:
            case Warn(text):
                log.warning("%s", text)
            case TellRing(version, nodes):
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
            # Once for each kind: it is tried again and again.
            if str(error) != self._cache_problem:
                log.warning(
                    "%s: without it this node cannot start while no syndicate answers", error
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
        """For the status line; empty: none."""
        if self._follower is not None and not self._held.connected:
            return "no syndicate answers"
        return "" if self.member else "this node is not in the ring any more"


class Alone(Membership):
    """A ring of one."""

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
        """It keeps no ring."""
