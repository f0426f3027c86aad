"""Registration: checks the request of a host, and makes the host a node.

Only addresses in the service's NetFilter are used.  A machine has others (bridges, loopback), which
are left out.  Loopback addresses are used only if NetFilter names them.  Each tier must match one
of the TierFilter expressions as a whole.  Host names are compared exactly and are never patterns.

A host is a known node if the name is the same and an address is the same.  It gets its old id, and
its addresses and tiers are updated.  Capacity, state and configuration of a known node are set by
the operator.  Several nodes may have an address in common, because the bridge of every machine may
have the same address (docker0).  Such addresses come last, so that a node is called at an address
of its own.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oort.errors import RegistrationError
from oort.ring.ring import Node
from oort.syndicate.syndicate_pb2 import HardwareProfile, RegisterRequest

from .config import Network, Service
from .draft import Draft, Unchanged, host_of

MAX_REQUEST_BYTES = 256 * 1024
MAX_ADDRESSES = 64  # of a node
MAX_TIERS = 64
MAX_TIER = 255  # characters
GIB = 1024**3

# RFC 1123, section 2.1, and the underscore, which some networks use.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

log = logging.getLogger("synd.ring")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Host:
    """The contents of a valid request."""

    name: str
    addresses: tuple[str, ...]  # ip:port, as in nodes
    tiers: tuple[str, ...]
    capacity: int


def _lies_in(address: Address, networks: Sequence[Network]) -> bool:
    for network in networks:
        if network.version != address.version or address not in network:
            continue
        # 0.0.0.0/0 does not include loopback; 127.0.0.0/8 does.
        if address.is_loopback and not network.is_loopback:
            continue
        return True
    return False


def allowed(address: str, service: Service) -> bool:
    """Whether an address (without a prefix length) lies in the service's NetFilter."""
    try:
        return _lies_in(ipaddress.ip_address(address), service.networks)
    except ValueError:
        return False


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def capacity_of(hardware: HardwareProfile) -> int:
    """The size in GiB of all disks, each device once; without disks, of the memory; at least 1."""
    sizes: dict[str, int] = {}
    for disk in hardware.disks:
        sizes[disk.device or disk.path] = max(sizes.get(disk.device or disk.path, 0), disk.size)
    total = sum(sizes.values()) or hardware.memtotal
    return int(min(max(total // GIB, 1), 2**32 - 1))


def check(request: RegisterRequest, service: Service) -> Host:
    """Check a request.  Raises RegistrationError if it is invalid or outside the filters."""
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise RegistrationError(f"a registration has at most {MAX_REQUEST_BYTES} bytes")
    if not _HOST_NAME.fullmatch(request.hostname):
        raise RegistrationError(f"{request.hostname[:80]!r} is not a host name")
    addresses = _addresses(request, service)
    if len(request.tiers) > MAX_TIERS:
        raise RegistrationError(f"a node has at most {MAX_TIERS} tiers")
    for tier in request.tiers:
        if len(tier) > MAX_TIER or not any(pattern.fullmatch(tier) for pattern in service.tiers):
            raise RegistrationError(f"tier {tier[:80]!r} does not match TierFilter", denied=True)
    capacity = service.capacity
    return Host(
        name=request.hostname,
        addresses=addresses,
        tiers=tuple(request.tiers),
        capacity=capacity_of(request.hardware) if capacity is None else capacity,
    )


def _addresses(request: RegisterRequest, service: Service) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in request.addrs:
        try:
            address = ipaddress.ip_interface(text).ip
        except ValueError as error:
            raise RegistrationError(
                f"{text[:80]!r} is not an address such as 10.1.2.3/16"
            ) from error
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            continue  # valid on one link only
        if _lies_in(address, service.networks):
            found[_endpoint(address, service.ring_port)] = None
    if not found:
        shown = ", ".join(text[:50] for text in request.addrs[:8]) or "none"
        raise RegistrationError(
            f"none of the addresses lies in NetFilter of {service.name}: {shown}", denied=True
        )
    if len(found) > MAX_ADDRESSES:
        raise RegistrationError(f"a node has at most {MAX_ADDRESSES} addresses in NetFilter")
    return tuple(found)


def known(sharing: Sequence[Node], host: Host) -> Node | None:
    """The known node that is this host, among the nodes that share an address with it."""
    return next((node for node in sharing if node.meta == host.name), None)


def same(node: Node, host: Host) -> bool:
    """Whether a known node needs no change."""
    return set(node.addresses) == set(host.addresses) and host.tiers in ((), node.tiers)


def _own_first(host: Host, others: Sequence[Node]) -> tuple[str, ...]:
    """The host's addresses; those of other nodes come last, because synd calls the first."""
    taken = {host_of(address) for node in others for address in node.addresses}
    return tuple(sorted(host.addresses, key=lambda address: host_of(address) in taken))


def registering(host: Host) -> Callable[[Draft], int | Unchanged[int]]:
    """A change that adds or updates the node of a host; its result is the node's id."""

    def change(draft: Draft) -> int | Unchanged[int]:
        sharing = draft.sharing(host.addresses)
        node = known(sharing, host)
        if node is not None and same(node, host):
            return Unchanged(node.id)
        addresses = _own_first(host, [other for other in sharing if other is not node])
        if node is None:
            for other in sharing:
                if host_of(addresses[0]) in map(host_of, other.addresses):
                    log.warning(
                        "%s has no address of its own: node %d (%s) also has %s; if that node is"
                        " the same host under another name, remove it: syndicate-client rm %d",
                        host.name,
                        other.id,
                        other.meta or "without a name",
                        host_of(addresses[0]),
                        other.id,
                    )
            return draft.add(
                capacity=host.capacity,
                tiers=host.tiers,
                addresses=addresses,
                meta=host.name,
            ).id
        draft.change(node.id, addresses=addresses, tiers=host.tiers or node.tiers)
        return node.id

    return change
