"""The names and addresses of this machine, for registration, certificates and discovery.

Nothing is cached, because names and addresses change while a daemon runs.
"""

from __future__ import annotations

import ipaddress
import socket

import psutil

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def interfaces() -> list[Interface]:
    """The addresses of the interfaces that are up, with their networks, such as 10.1.2.3/16.

    Link-local addresses are left out, because other links cannot use them.
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
                continue  # the entry is not an address
            if not address.is_link_local:
                found[ipaddress.ip_interface(f"{address}/{prefix}")] = None
    return list(found)


def _prefix(netmask: str | None, longest: int) -> int:
    return longest if not netmask else bin(int(ipaddress.ip_address(netmask))).count("1")


def addresses() -> list[str]:
    """The addresses of interfaces() without their networks, each once."""
    return list(dict.fromkeys(str(interface.ip) for interface in interfaces()))


def is_here(host: str) -> bool:
    """Whether the address belongs to this machine; False for a host name."""
    try:
        return ipaddress.ip_address(host).is_loopback or host in addresses()
    except ValueError:
        return False


def full_name() -> str:
    """The fully qualified host name, completed by the resolver if necessary and possible."""
    name = socket.gethostname()
    if "." in name.rstrip("."):
        return name
    try:
        for *_, canonical, _ in socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME):
            if "." in canonical.rstrip("."):
                return canonical
    except OSError:
        pass  # the name is unknown, so try the addresses
    full = socket.getfqdn(name)
    return name if full.startswith("localhost") else full  # often the first entry of /etc/hosts


def names() -> list[str]:
    """The names of the host, the fully qualified name first."""
    return list(dict.fromkeys(name.rstrip(".") for name in (full_name(), socket.gethostname())))
