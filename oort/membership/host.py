"""What this machine is, as a syndicate wants to know it: names, addresses, hardware."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from oort import machine
from oort.syndicate import syndicate_pb2 as messages

MAX_ADDRESSES = 256  # told to a syndicate, which takes 64 in its NetFilter
MAX_CERTIFIED = 64  # addresses in a certificate


def addresses() -> list[str]:
    """CIDRs, such as 10.1.2.3/16."""
    return [str(interface) for interface in machine.interfaces()][:MAX_ADDRESSES]


def names() -> list[str]:
    """What a certificate of this host is to be for.

    With localhost: whoever controls a node from itself.
    """
    own = machine.addresses()[:MAX_CERTIFIED]
    return list(dict.fromkeys([socket.gethostname(), *machine.names(), "localhost", *own]))


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
