"""The node's certificate: the node gets it once for a join token, and renews it before it expires.

A node has joined if CertFile contains a certificate of role `node` that has not expired.  Before
that the node verifies the syndicate by the first of these that it has: CAFile,
OORT_SYNDICATE_FINGERPRINT, the fingerprint in the token.  After that it verifies the syndicate by
CAFile.  The private key is made on the node and never leaves the node.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from oort.clock import SYSTEM, Clock, utc
from oort.config.settings import Settings
from oort.errors import ConfigError, TLSError
from oort.journal import log
from oort.membership import host
from oort.membership.discovery import FromSyndicate
from oort.syndicate import connection
from oort.syndicate.connection import Syndicate
from oort.tls import certificates, tokens
from oort.tls.certificates import read_certificates
from oort.tls.files import is_there, load_identity, read, save_identity

CALL_SECONDS = 20.0
RENEW_AFTER = 2 / 3  # of a certificate's life


class Joining:
    def __init__(self, origin: FromSyndicate, settings: Settings, clock: Clock = SYSTEM) -> None:
        """Raises ConfigError if the fingerprint is invalid."""
        self._settings = settings
        self._clock = clock
        self._token = origin.token
        self._fingerprint = ""
        self._key = certificates.make_key()  # the same for every host that is asked to sign
        if origin.fingerprint:
            try:
                self._fingerprint = certificates.parse_fingerprint(origin.fingerprint)
            except TLSError as error:
                raise ConfigError(f"environment: OORT_SYNDICATE_FINGERPRINT: {error}") from error

    @property
    def joined(self) -> bool:
        """Whether the node has joined.  Raises TLSError if a file is invalid."""
        return self._certificate() is not None

    def _certificate(self) -> bytes | None:
        """The node's certificate from the syndicate; None: it is missing or has expired.

        Raises TLSError if a file is invalid.
        """
        settings = self._settings
        if not (is_there(settings.cert_file) and is_there(settings.key_file)):
            return None
        identity = load_identity(settings.cert_file, settings.key_file, None)
        role = certificates.role_of(identity.certificate)
        if role is None:
            return None  # self-signed, such as the certificates of oort-cli keys
        if role[0] != certificates.NODE:
            raise TLSError(
                f"{settings.cert_file} has role {role[0]}: a node needs a certificate of role"
                f" {certificates.NODE}; name other files in [CmdCtrlConfig], or move this one away"
            )
        if certificates.expiry(identity.certificate) <= utc(self._clock.wall()):
            return None
        return identity.certificate

    def connection(self, address: tuple[str, int]) -> connection.Settings:
        """How to connect to the syndicate's host at this address.  Raises TLSError."""
        settings = self._settings
        return connection.Settings(
            host=address[0],
            port=address[1],
            ca_file=Path(settings.ca_file),
            cert_file=Path(settings.cert_file),
            key_file=Path(settings.key_file),
            fingerprint="" if is_there(settings.ca_file) else self._fingerprint,
            use_tls=True,
            timeout=CALL_SECONDS,
        )

    def join(self, address: tuple[str, int]) -> None:
        """Get a certificate from the syndicate's host at this address if the node has none.

        Raises TLSError and CallError.  If the files cannot be written the node does not ask, so no
        use of the token is lost.
        """
        settings = self._settings
        certificate = self._certificate()
        if certificate is not None:
            self._check_authority(certificate)
            if not (self._fingerprint or is_there(settings.ca_file)):
                raise TLSError(
                    f"{settings.ca_file} does not exist and OORT_SYNDICATE_FINGERPRINT is not set:"
                    " the syndicate cannot be verified; set OORT_SYNDICATE_FINGERPRINT"
                )
            return
        token = self._read_token()
        ca_file: str | None = settings.ca_file
        reach = self.connection(address)
        if is_there(settings.ca_file):
            roots = read(settings.ca_file)
            try:
                certificates.pick(roots, token.authority)
            except TLSError as error:
                raise TLSError(
                    f"{ca_file} is of another authority than the join token: move it away, or get"
                    " a token from the syndicate of that authority"
                ) from error
            ca_file = None  # never overwrite it: it may contain further authorities
        self._check_writable()
        trust_token = ca_file is not None and not self._fingerprint
        identity = connection.join(
            reach, token, trust_token=trust_token, names=host.names(), key=self._key
        )
        save_identity(identity, settings.cert_file, settings.key_file, ca_file)
        log.info(
            "joined: %s is valid until %s",
            settings.cert_file,
            certificates.expiry(identity.certificate).strftime("%Y-%m-%d"),
        )

    def _check_authority(self, certificate: bytes) -> None:
        """Raises TLSError if the certificate is of another authority than CAFile.

        This error is clearer than the one that the syndicate would cause.
        """
        settings = self._settings
        chain = read_certificates(certificate)
        if len(chain) == 1 or not is_there(settings.ca_file):
            return
        if chain[-1] not in read_certificates(read(settings.ca_file)):
            raise TLSError(
                f"{settings.cert_file} is of another authority than {settings.ca_file}: move it"
                " away to join anew"
            )

    def _read_token(self) -> tokens.JoinToken:
        file = self._settings.join_token_file
        text, source = self._token, "OORT_JOIN_TOKEN"
        if not text:
            source = file
            try:
                text = Path(file).read_text("ascii", "replace")
            except FileNotFoundError:
                raise TLSError(
                    f"{self._settings.cert_file} has no valid certificate from the syndicate, and"
                    f" there is no join token in OORT_JOIN_TOKEN or {file}: make a token with"
                    " syndicate-client token"
                ) from None
            except OSError as error:
                raise TLSError(f"cannot read {file}: {error.strerror}") from error
        try:
            token = tokens.read_token(text)
        except TLSError as error:
            raise TLSError(f"{source}: {error}") from error
        if token.role != certificates.NODE:
            raise TLSError(f"{source}: this token is for role {token.role}, not for a node")
        return token

    def _check_writable(self) -> None:
        settings = self._settings
        for path in (settings.cert_file, settings.key_file, settings.ca_file):
            directory = Path(path).resolve().parent
            if not os.access(directory, os.W_OK | os.X_OK):
                raise TLSError(
                    f"cannot write {path}: {directory} is missing, or uid {os.geteuid()} may not"
                    " write to it"
                )

    def renew(self, syndicate: Syndicate, needed: Collection[str]) -> bool:
        """Renew the certificate if it is old or is not valid for all addresses in `needed`.

        Returns whether the node got a new certificate.  Raises TLSError and CallError; the files
        do not change then.
        """
        certificate = self._certificate()
        if certificate is None:
            return False
        begins, ends = certificates.valid_from(certificate), certificates.expiry(certificate)
        old = utc(self._clock.wall()) >= begins + RENEW_AFTER * (ends - begins)
        if not old and set(needed) <= set(certificates.names_of(certificate)):
            return False
        identity = connection.renew(syndicate, host.names())
        save_identity(identity, self._settings.cert_file, self._settings.key_file, None)
        log.info(
            "certificate renewed: %s is valid until %s",
            self._settings.cert_file,
            certificates.expiry(identity.certificate).strftime("%Y-%m-%d"),
        )
        return True
