"""The addresses of the syndicate's hosts, from the environment or from DNS.

DNS has SRV records for `_syndicate._tcp.` followed by the domain of the local host name.  Their
order follows priority and weight (RFC 2782).
"""

from __future__ import annotations

from oort import machine
from oort.errors import DiscoveryError
from oort.membership.discovery import ALONE, ELSEWHERE, FromSyndicate, srv_name

DNS_SECONDS = 10.0  # for all DNS servers together


def hosts(origin: FromSyndicate) -> list[tuple[str, int]]:
    """Host and port of each of the syndicate's hosts, in the order in which to try them.

    Every call asks DNS again and draws the order by weight again.  Raises DiscoveryError, and
    ConfigError if the address in the environment is invalid.
    """
    if origin.override:
        # Imported late, because this module imports gRPC.
        from oort.syndicate.connection import parse_address

        return [parse_address(origin.override, "environment: OORT_SYNDICATE_OVERRIDE")]
    return _look_up(srv_name(machine.full_name()))


def _look_up(name: str) -> list[tuple[str, int]]:
    import dns.exception
    import dns.rdtypes.IN.SRV
    import dns.resolver

    try:
        answer = dns.resolver.resolve(name, "SRV", lifetime=DNS_SECONDS, search=False)
    except (dns.exception.DNSException, OSError) as error:
        reason = str(error)
        if isinstance(error, dns.resolver.NXDOMAIN):
            reason = "the name does not exist"
        elif isinstance(error, dns.resolver.NoAnswer):
            reason = "the name has no SRV records"
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
