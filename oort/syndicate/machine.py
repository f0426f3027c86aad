"""What this machine is called, and its addresses."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def addresses() -> list[str]:
    """Of all interfaces, without those that mean something on one link only."""
    found: dict[str, None] = {}
    for interface in psutil.net_if_addrs().values():
        for one in interface:
            if one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(one.address.partition("%")[0])
            if not address.is_link_local:
                found[str(address)] = None
    return list(found)


def is_here(host: str) -> bool:
    """Whether that address is one of this machine's."""
    try:
        return ipaddress.ip_address(host).is_loopback or host in addresses()
    except ValueError:
        return False


def names() -> list[str]:
    """The host's names, the full one first where there is one."""
    host = socket.gethostname()
    full = socket.getfqdn(host)  # localhost, where that is what /etc/hosts has first
    return [host] if full.startswith("localhost") else list(dict.fromkeys((full, host)))
