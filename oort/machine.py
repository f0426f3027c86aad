"""What this machine is called, and its addresses: for registration, certificates and discovery.

Asked anew at every call: names and addresses change while a daemon runs.
"""

from __future__ import annotations

import ipaddress
import socket

import psutil

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def interfaces() -> list[Interface]:
    """Addresses with their networks, such as 10.1.2.3/16, of the interfaces that are up.

    Link-local addresses are left out: nobody on another link can use them.
    """
    found: dict[Interface, None] = {}
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
                found[ipaddress.ip_interface(f"{address}/{prefix}")] = None
    return list(found)


def _prefix(netmask: str | None, longest: int) -> int:
    return longest if not netmask else bin(int(ipaddress.ip_address(netmask))).count("1")


def addresses() -> list[str]:
    """The same without their networks, each once."""
    return list(dict.fromkeys(str(interface.ip) for interface in interfaces()))


def is_here(host: str) -> bool:
    """Whether that address is one of this machine's."""
    try:
        return ipaddress.ip_address(host).is_loopback or host in addresses()
    except ValueError:
        return False


def full_name() -> str:
    """The local host name if it is fully qualified, else what the resolver makes of it."""
    name = socket.gethostname()
    if "." in name.rstrip("."):
        return name
    try:
        for *_, canonical, _ in socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME):
            if "." in canonical.rstrip("."):
                return canonical
    except OSError:
        pass  # nobody knows it: then by its addresses
    full = socket.getfqdn(name)
    return name if full.startswith("localhost") else full  # what /etc/hosts has first


def names() -> list[str]:
    """The host's names, the full one first where there is one."""
    return list(dict.fromkeys(name.rstrip(".") for name in (full_name(), socket.gethostname())))
