"""synd's own certificate, which its authority issues.  It is stored in the state.

The certificate stays the same after a restart, so a client that knows its fingerprint can still
verify synd.  Synds with different names have different certificates, also in a shared etcd.
Renewals are facts `identity/NAMES/N`; the highest N is the current certificate.
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
    """synd's certificate and key.

    `current` may be read from any thread.  Only one thread at a time may call `renew`.
    """

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
        newest, following = None, self._state.take(f"{self._fact}/1")
        while following is not None:
            self._number += 1
            newest, following = following, self._state.take(f"{self._fact}/{self._number + 1}")
        return self._make() if newest is None else self._read(newest)

    def _make(self) -> certificates.Identity:
        new = self._authority.issue(certificates.SYNDICATE, self._names[0], self._names, self._days)
        self._number += 1
        stored = self._state.keep(f"{self._fact}/{self._number}", new.certificate + new.key)
        return self._read(stored)

    def _read(self, stored: bytes) -> certificates.Identity:
        at = stored.find(_KEY)
        if at < 0:
            raise StateError(f"{self._fact} is damaged: restore the state from a backup")
        identity = certificates.Identity(stored[:at], stored[at:], self._authority.certificate)
        identity.check()
        return identity

    def renew(self) -> bool:
        """Renew the certificate if at most a third of its validity is left; returns whether it did.

        Raises StateError.
        """
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
        """Credentials for ports; handshakes after a renewal show the new certificate."""
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
            changed,  # type: ignore[arg-type] # None means unchanged
            require_client_authentication=True,
        )


def write_local_files(config: Config, authority: certificates.CertificateAuthority) -> None:
    """Write the authority's certificate, and an operator's, for this machine.

    Existing files are kept, except an operator's certificate of this authority that expires soon.
    Errors are only logged, because synd can serve without these files.
    """
    try:
        if not is_there(config.ca_file):
            write_public(config.ca_file, authority.certificate)
            log.info("the authority's certificate is in %s", config.ca_file)
        else:
            certificates.pick(read(config.ca_file), certificates.fingerprint(authority.certificate))
    except TLSError as error:
        log.warning("%s is not this authority's, or cannot be used: %s", config.ca_file, error)
    try:
        _write_operator_files(config, authority)
    except TLSError as error:
        log.warning("no operator's certificate for this machine: %s", error)


def _write_operator_files(config: Config, authority: certificates.CertificateAuthority) -> None:
    cert, key = config.operator_cert_file, config.operator_key_file
    if is_there(cert) or is_there(key):
        existing = load_identity(cert, key, None)
        certificates.pick(existing.certificate, certificates.fingerprint(authority.certificate))
        left = certificates.expiry(existing.certificate) - utc(SYSTEM.wall())
        if left > datetime.timedelta(days=CERTIFICATE_DAYS / 12):
            return
    operator = authority.issue(certificates.OPERATOR, "first")
    save_identity(operator, cert, key, None)
    log.info("an operator's certificate is in %s, its key in %s", cert, key)
