"""What this machine is, as a syndicate wants to know it: names, addresses, hardware."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import psutil

from oort.daemon.discovery import full_host_name
from oort.syndicate import syndicate_pb2 as messages

MAX_ADDRESSES = 256  # told to a syndicate, which takes 64 in its NetFilter
MAX_CERTIFIED = 64  # addresses in a certificate


def addresses() -> list[str]:
    """CIDRs of the interfaces that are up, such as 10.1.2.3/16.

    Link-local addresses are left out: nobody on another link can use them.
    """
    found: dict[str, None] = {}
    up = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name in up and not up[name].isup:
            continue
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            try:
                address = ipaddress.ip_address(entry.address.partition("%")[0])
                prefix = _prefix(entry.netmask, address.max_prefixlen)
            except ValueError:
                continue  # nothing that an address is
            if not address.is_link_local:
                found[f"{address}/{prefix}"] = None
    return list(found)[:MAX_ADDRESSES]


def _prefix(netmask: str | None, longest: int) -> int:
    return longest if not netmask else bin(int(ipaddress.ip_address(netmask))).count("1")


def names() -> list[str]:
    """What a certificate of this host is to be for.

    With localhost: whoever controls a node from itself.
    """
    hosts = [socket.gethostname(), full_host_name(), "localhost"]
    own = [cidr.partition("/")[0] for cidr in addresses()][:MAX_CERTIFIED]
    return list(dict.fromkeys([*(host.rstrip(".") for host in hosts), *own]))


def hardware(data_dir: str) -> messages.HardwareProfile:
    """Of the disks only the one that holds the data: nothing else is this node's capacity."""
    memory = psutil.virtual_memory()
    return messages.HardwareProfile(
        memtotal=memory.total,
        memfree=memory.available,
        cpus=os.cpu_count() or 1,
        disks=_disks(data_dir),
    )


def _disks(data_dir: str) -> list[messages.Disk]:
    place = Path(data_dir).resolve()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = psutil.disk_usage(str(place))
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return []  # the syndicate then goes by the memory
    holding = [one for one in mounts if place.is_relative_to(one.mountpoint)]
    mount = max(holding, key=lambda one: len(one.mountpoint), default=None)
    return [
        messages.Disk(
            device=mount.device if mount else "",
            path=mount.mountpoint if mount else str(place),
            size=usage.total,
            used=usage.used,
        )
    ]


def registration(tiers: tuple[str, ...], data_dir: str) -> messages.RegisterRequest:
    return messages.RegisterRequest(
        hostname=socket.gethostname(),
        addrs=addresses(),
        tiers=tiers,
        hardware=hardware(data_dir),
    )
