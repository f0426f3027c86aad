"""The ring and the configuration that oortd boots with.  The environment decides on the source.

alone           a ring with this node only; no configuration but the node's own
a ring file     the ring of the file, and the configuration in that ring
a syndicate     the result of registering, or the cached configuration if no syndicate answers
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
    """The membership that the node boots with.

    settings: the node's own.  Raises BootError, and ConfigError if a setting is invalid.
    """
    if isinstance(origin, Alone):
        return RingOfOne(origin.local_id)
    if isinstance(origin, RingFile):
        membership, configuration = _from_file(origin)
    else:
        membership, configuration = _from_syndicate(origin, settings)
    try:
        for why in configuration.ignored():
            log.warning("%s; it is ignored", why)
    except ConfigError as error:
        # A BootError, because these settings are not the node's own.  An operator may correct them
        # at any time, so systemd must start oortd again.
        raise BootError(f"{error}; correct the configuration of the ring") from error
    return membership


def configuration_of(origin: Origin, settings: Settings) -> tuple[RingConfiguration, str]:
    """The configuration that find() would boot with now, and a problem, or "".

    The node neither joins nor registers.  Raises BootError, and ConfigError if a setting is
    invalid.
    """
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
    # Imported late, because a standalone node does not need this code.
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
            f"OORT_RING_FILE: {origin.path}: the ring does not say which node this is: set"
            " OORT_LOCALID"
        )
    for local_id in origin.local_ids:
        if ring.node(local_id) is not None:
            return local_id
    raise BootError(
        f"OORT_LOCALID: the ring {origin.path} has no node {origin.local_ids[0]}: set the id of a"
        " node in this ring"
    )


def _seeker(origin: FromSyndicate, settings: Settings) -> Seeker:
    # Imported late, because gRPC loads slowly and a node without a syndicate does not need it.
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
        "no syndicate answers: %s; starting with the configuration that was cached %s ago, and"
        " asking again",
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
