"""Where this node's ring comes from, and where its syndicate is.

What decides stands in the environment (RING_ENVIRONMENT in oort/config/settings.py): a syndicate
at a given address, or one that DNS knows, or a ring file, or nothing but this node.  A syndicate's
hosts are SRV records of `_syndicate._tcp.` and the domain of the local host name, tried by priority
and weight as RFC 2782 has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oort import machine
from oort.errors import ConfigError, DiscoveryError

SRV_PREFIX = "_syndicate._tcp."
DNS_SECONDS = 10.0  # for all of the resolver's servers together
ELSEWHERE = "set OORT_SYNDICATE_OVERRIDE=HOST:PORT"
ALONE = "to serve without a ring: oortd --standalone, or OORTD_SKIP_SRV=true"


@dataclass(frozen=True)
class Alone:
    """A ring of one."""

    local_id: int = 0


@dataclass(frozen=True)
class RingFile:
    path: str
    local_ids: tuple[int, ...]  # what OORT_LOCALID may mean; none: the ring's own word counts


@dataclass(frozen=True)
class FromSyndicate:
    override: str  # host:port; empty: DNS knows
    fingerprint: str
    token: str


Origin = Alone | RingFile | FromSyndicate


def origin(environment: Mapping[str, str], standalone: bool) -> Origin:
    """What the environment says; `standalone`: the flag, which wins.  Raises ConfigError."""
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
    """Decimal or hexadecimal; where it can be both, both: the ring tells which it is."""
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


def srv_name() -> str:
    """Raises DiscoveryError for a host without a domain."""
    name = machine.full_name()
    domain = name.rstrip(".").partition(".")[2]
    if not domain:
        raise DiscoveryError(
            f"host name {name!r} has no domain to look for a syndicate in: give the host its full"
            f" name (hostnamectl, or /etc/hosts), or {ELSEWHERE}; {ALONE}"
        )
    return f"{SRV_PREFIX}{domain}"


def hosts(found: FromSyndicate) -> list[tuple[str, int]]:
    """Host and port of each of the syndicate's hosts, in the order to try them.

    Every call asks anew, and draws the weights anew.  Raises DiscoveryError.
    """
    if found.override:
        # Imported late, as gRPC is behind it.
        from oort.syndicate.connection import parse_address

        return [parse_address(found.override, "environment: OORT_SYNDICATE_OVERRIDE")]
    return _look_up(srv_name())


def _look_up(name: str) -> list[tuple[str, int]]:
    import dns.exception
    import dns.rdtypes.IN.SRV
    import dns.resolver

    try:
        answer = dns.resolver.resolve(name, "SRV", lifetime=DNS_SECONDS, search=False)
    except (dns.exception.DNSException, OSError) as error:
        reason = str(error)
        if isinstance(error, dns.resolver.NXDOMAIN):
            reason = "there is no such name"
        elif isinstance(error, dns.resolver.NoAnswer):
            reason = "it has no SRV records"
        elif isinstance(error, dns.exception.Timeout):
            reason = "no DNS server answers"
        elif isinstance(error, dns.resolver.NoNameservers):
            reason = "no DNS server has an answer"
        raise DiscoveryError(
            f"DNS knows no syndicate at {name}: {reason}; {ELSEWHERE}; {ALONE}"
        ) from error
    ordered = answer.rrset.processing_order() if answer.rrset is not None else []
    found = [
        (record.target.to_text(omit_final_dot=True), record.port)
        for record in ordered
        if isinstance(record, dns.rdtypes.IN.SRV.SRV) and str(record.target) != "."
    ]
    if not found:
        raise DiscoveryError(f"DNS says there is no syndicate at {name}; {ELSEWHERE}; {ALONE}")
    return found
