"""The ring and the configuration that oortd boots with, from wherever the environment says.

alone           a ring of one, no configuration but the node's own
a ring file     that ring, and what it says
a syndicate     what registering gives; if no syndicate answers, what is cached of the last time
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oort.clock import SYSTEM
from oort.config.settings import Settings
from oort.errors import BootError, CacheError, ConfigError, DiscoveryError, OortError, RingError
from oort.journal import log
from oort.membership import cache
from oort.membership.configuration import RingConfiguration, of_ring
from oort.membership.discovery import ALONE, Alone, FromSyndicate, Origin, RingFile
from oort.membership.membership import Alone as RingOfOne
from oort.membership.membership import Membership
from oort.ring.ring import Ring

if TYPE_CHECKING:
    from oort.membership.link import Seeker


def find(origin: Origin, settings: Settings) -> Membership:
    """settings: the node's own.  Raises BootError, and ConfigError for what is wrong in those."""
    if isinstance(origin, Alone):
        return RingOfOne(origin.local_id)
    if isinstance(origin, RingFile):
        membership, configuration = _from_file(origin)
    else:
        membership, configuration = _from_syndicate(origin, settings)
    try:
        for why in configuration.ignored():
            log.warning("%s; it is left out", why)
    except ConfigError as error:
        # Not this node's settings: who keeps the ring's can put them right any moment.
        raise BootError(f"{error}; put it right where the ring is kept") from error
    return membership


def configuration_of(origin: Origin, settings: Settings) -> tuple[RingConfiguration, str]:
    """What find() would boot with now, without joining or registering; and what is in the way."""
    if isinstance(origin, Alone):
        return RingConfiguration(), ""
    if isinstance(origin, RingFile):
        return _from_file(origin)[1], ""
    try:
        link = _seeker(origin, settings).connect(may_join=False)
        try:
            return RingConfiguration(*link.texts()), ""
        finally:
            link.close()
    except ConfigError:
        raise
    except OortError as error:
        reason = f"no syndicate answers: {error}"
    try:
        cached = cache.read(settings.config_cache, SYSTEM.wall(), to_show=True)
    except CacheError as error:
        return RingConfiguration(), f"{reason}; {error}"
    return RingConfiguration(cached.ring_conf, cached.node_conf, cached=True), reason


def _from_file(origin: RingFile) -> tuple[Membership, RingConfiguration]:
    # Imported late: a node on its own has no use for it.
    from oort.ring import files

    path = origin.path
    try:
        data = Path(path).read_bytes()
        ring = files.decode_ring(data)
    except OSError as error:
        raise BootError(f"OORT_RING_FILE: {path}: {(error.strerror or str(error))}") from error
    except RingError as error:
        raise BootError(f"OORT_RING_FILE: {path}: {error}") from error
    local_id = _local_id(origin, ring)
    configuration = of_ring(ring, local_id, RingConfiguration())
    membership = Membership(
        f"file {Path(path).absolute()}",
        local_id,
        configuration,
        ring_data=data,
        version=ring.version,
    )
    return membership, configuration


def _local_id(origin: RingFile, ring: Ring) -> int:
    if not origin.local_ids:
        if ring.local_node is not None:
            return ring.local_node.id
        raise BootError(
            f"OORT_RING_FILE: {origin.path}: it does not say which node this is: set OORT_LOCALID"
        )
    for local_id in origin.local_ids:
        if ring.node(local_id) is not None:
            return local_id
    raise BootError(
        f"OORT_LOCALID: there is no node {origin.local_ids[0]} in the ring {origin.path}"
    )


def _seeker(origin: FromSyndicate, settings: Settings) -> Seeker:
    # Imported late: gRPC takes its time, and a node without a syndicate does without.
    from oort.membership.link import Seeker

    return Seeker(origin, settings)


def _from_syndicate(
    origin: FromSyndicate, settings: Settings
) -> tuple[Membership, RingConfiguration]:
    seeker = _seeker(origin, settings)
    from oort.membership.follower import Follower

    try:
        link, registered = seeker.register()
    except DiscoveryError as error:
        membership, configuration = _from_cache(settings, seeker, error)
        return membership, configuration
    configuration = of_ring(registered.ring, registered.local_id, RingConfiguration())
    membership = Membership(
        f"syndicate {link.server}",
        registered.local_id,
        configuration,
        ring_data=registered.data,
        version=registered.ring.version,
        follower=Follower(seeker, link),
    )
    log.info(
        "syndicate %s: this is node %d, ring %d has %d nodes",
        link.server,
        registered.local_id,
        registered.ring.version,
        len(registered.ring.nodes),
    )
    return membership, configuration


def _from_cache(
    settings: Settings, seeker: Seeker, reason: DiscoveryError
) -> tuple[Membership, RingConfiguration]:
    from oort.membership.follower import Follower

    try:
        cached = cache.read(settings.config_cache, SYSTEM.wall())
    except CacheError as error:
        hint = "" if ALONE in str(reason) else f"; {ALONE}"
        raise BootError(f"no syndicate answers: {reason}; and {error}{hint}") from error
    log.warning(
        "no syndicate answers: %s; starting from the configuration that was cached %s ago, and"
        " asking on",
        reason,
        _duration(cached.age),
    )
    configuration = RingConfiguration(cached.ring_conf, cached.node_conf, cached=True)
    membership = Membership(
        f"cache {settings.config_cache}",
        cached.local_id,
        configuration,
        version=cached.version,
        follower=Follower(seeker, None),
    )
    return membership, configuration


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
