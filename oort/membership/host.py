"""The facts about this host that a syndicate needs: names, addresses, hardware."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from oort import machine
from oort.syndicate import syndicate_pb2 as messages

MAX_ADDRESSES = 256  # sent to a syndicate, which accepts at most 64 in its NetFilter
MAX_CERTIFIED = 64  # addresses in a certificate


def addresses() -> list[str]:
    """This host's addresses in CIDR notation, such as 10.1.2.3/16."""
    return [str(interface) for interface in machine.interfaces()][:MAX_ADDRESSES]


def names() -> list[str]:
    """The names and addresses for a certificate of this host.

    localhost is included for callers on the node itself.
    """
    own = machine.addresses()[:MAX_CERTIFIED]
    return list(dict.fromkeys([socket.gethostname(), *machine.names(), "localhost", *own]))


def hardware(data_dir: str) -> messages.HardwareProfile:
    """Memory in bytes, CPUs, and the disk with the data.  Other disks add no capacity."""
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
        return []  # the syndicate then uses the memory as the capacity
    holding = [mount for mount in mounts if place.is_relative_to(mount.mountpoint)]
    mount = max(holding, key=lambda mount: len(mount.mountpoint), default=None)
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
