"""The source of this node's ring, and the syndicate's name in DNS.

The environment decides (RING_ENVIRONMENT in oort/config/settings.py).  The source is a syndicate at
a given address, a syndicate that DNS knows, a ring file, or no source for a node that serves alone.
This module never uses the network; hosts.py does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oort.errors import ConfigError, DiscoveryError

SRV_PREFIX = "_syndicate._tcp."
ELSEWHERE = "set OORT_SYNDICATE_OVERRIDE=HOST:PORT"
ALONE = "to serve without a ring: oortd --standalone, or OORTD_SKIP_SRV=true"


@dataclass(frozen=True)
class Alone:
    """A ring with this node only."""

    local_id: int = 0


@dataclass(frozen=True)
class RingFile:
    path: str
    local_ids: tuple[int, ...]  # possible meanings of OORT_LOCALID; empty: the ring names the node


@dataclass(frozen=True)
class FromSyndicate:
    override: str  # host:port; empty: ask DNS
    fingerprint: str
    token: str


Origin = Alone | RingFile | FromSyndicate


def origin(environment: Mapping[str, str], standalone: bool) -> Origin:
    """The source that the environment names.  standalone: the flag, which overrides it.

    Raises ConfigError.
    """
    if standalone:
        return Alone()
    override = environment.get("OORT_SYNDICATE_OVERRIDE", "").strip()
    if override or not _is_true(environment, "OORTD_SKIP_SRV"):
        return FromSyndicate(
            override,
            environment.get("OORT_SYNDICATE_FINGERPRINT", "").strip(),
            environment.get("OORT_JOIN_TOKEN", "").strip(),
        )
    local_ids = _local_ids(environment.get("OORT_LOCALID", "").strip())
    path = environment.get("OORT_RING_FILE", "").strip()
    if not path:
        return Alone(local_ids[0] if local_ids else 0)
    return RingFile(path, local_ids)


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in ("", "true", "false", "1", "0", "yes", "no"):
        raise ConfigError(f"environment: {name} = {text!r}: must be true or false")
    return text in ("true", "1", "yes")


def _local_ids(text: str) -> tuple[int, ...]:
    """The numbers that a text may mean in decimal and in hexadecimal.  The ring decides which."""
    if not text:
        return ()
    found: list[int] = []
    if re.fullmatch(r"[0-9]{1,20}", text):
        found.append(int(text))
    if re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,16}", text):
        found.append(int(text, 16))
    found = [number for number in dict.fromkeys(found) if 0 < number < 1 << 64]
    if not found:
        raise ConfigError(
            f"environment: OORT_LOCALID = {text!r}: must be a node's id, decimal or hexadecimal"
        )
    return tuple(found)


def srv_name(host_name: str) -> str:
    """The name of the syndicate's SRV records (RFC 2782).

    host_name: the full name of this host.  Raises DiscoveryError if the name has no domain.
    """
    domain = host_name.rstrip(".").partition(".")[2]
    if not domain:
        raise DiscoveryError(
            f"host name {host_name!r} has no domain, so DNS cannot name a syndicate: give the host"
            f" its full name (hostnamectl, or /etc/hosts), or {ELSEWHERE}; {ALONE}"
        )
    return f"{SRV_PREFIX}{domain}"
