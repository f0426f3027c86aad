"""Which node a registering host is: what it may claim, and what it becomes.

Addresses count where they lie in the service's NetFilter; a machine has others (bridges, loopback),
which are left out.  Loopback counts only where the filter names it.  Tiers must each match one of
the TierFilter expressions, wholly.  Host names are compared exactly and are never patterns.

A host is known by its name together with an address in common: it gets its id back, and what has
changed of it is changed.  Capacity, state and configuration of a known node are the operator's.
An address that a node of another name has is refused: one of the two is wrong.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oort.errors import RegistrationError
from oort.ring.ring import Node

from .config import Network, Service
from .draft import Draft, Unchanged, host_of
from .syndicate_pb2 import HardwareProfile, RegisterRequest

MAX_REQUEST_BYTES = 256 * 1024
MAX_ADDRESSES = 64  # of a node
MAX_TIERS = 64
MAX_TIER = 255  # characters
GIB = 1024**3

# RFC 1123, and the underscore that some networks have.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Host:
    """A request that is as it must be."""

    name: str
    addresses: tuple[str, ...]  # ip:port, as nodes have them
    tiers: tuple[str, ...]
    capacity: int


def _lies_in(address: Address, networks: Sequence[Network]) -> bool:
    for network in networks:
        if network.version != address.version or address not in network:
            continue
        # 0.0.0.0/0 does not mean loopback; 127.0.0.0/8 does.
        if address.is_loopback and not network.is_loopback:
            continue
        return True
    return False


def allowed(address: str, service: Service) -> bool:
    """Whether an address without a prefix lies in the service's NetFilter."""
    try:
        return _lies_in(ipaddress.ip_address(address), service.networks)
    except ValueError:
        return False


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def capacity_of(hardware: HardwareProfile) -> int:
    """The space of all disks in GiB, each device once; without any, the memory's; at least 1."""
    sizes: dict[str, int] = {}
    for disk in hardware.disks:
        sizes[disk.device or disk.path] = max(sizes.get(disk.device or disk.path, 0), disk.size)
    total = sum(sizes.values()) or hardware.memtotal
    return int(min(max(total // GIB, 1), 2**32 - 1))


def check(request: RegisterRequest, service: Service) -> Host:
    """Raises RegistrationError."""
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
            continue  # of one link: nobody else can use it
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
    """Of the nodes that share an address with it, the one that this host is.

    RegistrationError where its addresses are another's.
    """
    for node in sharing:
        if node.meta == host.name:
            return node
    if sharing:
        node = sharing[0]
        theirs = {host_of(address) for address in node.addresses}
        common = ", ".join(one for one in map(host_of, host.addresses) if one in theirs)
        raise RegistrationError(
            f"{common} belongs to node {node.id} ({node.meta or 'without a name'}): remove that"
            " node if it is gone, or give the host its name back",
            exists=True,
        )
    return None


def same(node: Node, host: Host) -> bool:
    """Whether there is nothing to change of a known node."""
    return node.addresses == host.addresses and (not host.tiers or node.tiers == host.tiers)


def registering(host: Host) -> Callable[[Draft], int | Unchanged[int]]:
    """The change that makes a host a node; it returns the node's id."""

    def change(draft: Draft) -> int | Unchanged[int]:
        node = known(draft.sharing(host.addresses), host)
        if node is None:
            return draft.add(
                capacity=host.capacity,
                tiers=host.tiers,
                addresses=host.addresses,
                meta=host.name,
            ).id
        if same(node, host):
            return Unchanged(node.id)
        draft.change(node.id, addresses=host.addresses, tiers=host.tiers or node.tiers)
        return node.id

    return change
