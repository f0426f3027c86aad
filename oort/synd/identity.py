"""synd's own certificate: made by its authority, kept with the state, renewed in time.

It is the same after a restart, so that who knows synd by its fingerprint goes on knowing it.  Synds
with other names have others, also in one etcd.  Renewals are facts `identity/NAMES/N`; the last one
counts.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Sequence

import grpc

from oort.clock import SYSTEM, Clock, utc
from oort.errors import StateError, TLSError
from oort.synd.state.state import State
from oort.tls import certificates
from oort.tls.certificates import CERTIFICATE_DAYS
from oort.tls.files import is_there, load_identity, read, save_identity, write_public

from .config import Config

_KEY = b"-----BEGIN PRIVATE KEY-----"

log = logging.getLogger("synd.identity")


class OwnIdentity:
    """`current` may be read from any thread, `renew` called from one at a time."""

    def __init__(
        self,
        authority: certificates.CertificateAuthority,
        state: State,
        names: Sequence[str],
        days: float = CERTIFICATE_DAYS,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._authority = authority
        self._state = state
        self._names = list(names)
        self._days = days
        digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
        self._fact = f"identity/{digest[:32]}"
        self._number = 0
        self.current = self._newest()
        self.renew()

    def _newest(self) -> certificates.Identity:
        kept, found = None, self._state.take(f"{self._fact}/1")
        while found is not None:
            self._number += 1
            kept, found = found, self._state.take(f"{self._fact}/{self._number + 1}")
        return self._make() if kept is None else self._read(kept)

    def _make(self) -> certificates.Identity:
        made = self._authority.issue(
            certificates.SYNDICATE, self._names[0], self._names, self._days
        )
        self._number += 1
        kept = self._state.keep(f"{self._fact}/{self._number}", made.certificate + made.key)
        return self._read(kept)

    def _read(self, kept: bytes) -> certificates.Identity:
        at = kept.find(_KEY)
        if at < 0:
            raise StateError(f"{self._fact} is damaged: restore the state from a backup")
        identity = certificates.Identity(kept[:at], kept[at:], self._authority.certificate)
        identity.check()
        return identity

    def renew(self) -> bool:
        """Another one where a third of its time is left, or less; whether it was."""
        certificate = self.current.certificate
        life = certificates.expiry(certificate) - certificates.valid_from(certificate)
        if certificates.expiry(certificate) - utc(self._clock.wall()) > life / 3:
            return False
        self.current = self._make()
        log.info(
            "the certificate was renewed: %s", certificates.fingerprint(self.current.certificate)
        )
        return True

    def server_credentials(self) -> grpc.ServerCredentials:
        """For ports; handshakes from a renewal on show the new certificate."""
        shown = self.current

        def configuration(identity: certificates.Identity) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(identity.key, identity.certificate)], root_certificates=identity.roots
            )

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            if self.current is shown:
                return None
            shown = self.current
            return configuration(shown)

        return grpc.dynamic_ssl_server_credentials(
            configuration(shown),
            changed,  # type: ignore[arg-type] # None: as it was
            require_client_authentication=True,
        )


def hand_out(config: Config, authority: certificates.CertificateAuthority) -> None:
    """The authority's certificate, and an operator's, for this machine: what is there stays."""
    try:
        if not is_there(config.ca_file):
            write_public(config.ca_file, authority.certificate)
            log.info("the authority's certificate is in %s", config.ca_file)
        else:
            certificates.pick(read(config.ca_file), certificates.fingerprint(authority.certificate))
    except TLSError as error:
        log.warning("%s is not this authority's, or cannot be used: %s", config.ca_file, error)
    try:
        _hand_out_operator(config, authority)
    except TLSError as error:
        log.warning("no operator's certificate for this machine: %s", error)


def _hand_out_operator(config: Config, authority: certificates.CertificateAuthority) -> None:
    cert, key = config.operator_cert_file, config.operator_key_file
    if is_there(cert) or is_there(key):
        there = load_identity(cert, key, None)
        certificates.pick(there.certificate, certificates.fingerprint(authority.certificate))
        left = certificates.expiry(there.certificate) - utc(SYSTEM.wall())
        if left > datetime.timedelta(days=CERTIFICATE_DAYS / 12):
            return
    operator = authority.issue(certificates.OPERATOR, "first")
    save_identity(operator, cert, key, None)
    log.info("an operator's certificate is in %s, its key in %s", cert, key)
