"""The node's certificate: got once against a join token, renewed in time, shown from then on.

A node has joined when CertFile holds a certificate of role `node` that has not expired.  Until then
the syndicate is verified by CAFile where there is one, else by OORT_SYNDICATE_FINGERPRINT, else by
the fingerprint in the token; from then on by CAFile.  The private key is made here and stays here.
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
        """Raises ConfigError for a fingerprint that is none."""
        self._settings = settings
        self._clock = clock
        self._token = origin.token
        self._fingerprint = ""
        self._key = certificates.make_key()  # the same for every host that is asked to sign it
        if origin.fingerprint:
            try:
                self._fingerprint = certificates.parse_fingerprint(origin.fingerprint)
            except TLSError as error:
                raise ConfigError(f"environment: OORT_SYNDICATE_FINGERPRINT: {error}") from error

    @property
    def joined(self) -> bool:
        """Raises TLSError for files that are there and of no use."""
        return self._certificate() is not None

    def _certificate(self) -> bytes | None:
        """The one of the syndicate's authority, while it is valid."""
        settings = self._settings
        if not (is_there(settings.cert_file) and is_there(settings.key_file)):
            return None
        identity = load_identity(settings.cert_file, settings.key_file, None)
        role = certificates.role_of(identity.certificate)
        if role is None:
            return None  # one that stands for itself, such as oort-cli keys makes
        if role[0] != certificates.NODE:
            raise TLSError(
                f"{settings.cert_file} is of role {role[0]}: a node shows one of its own; name"
                " other files in [CmdCtrlConfig], or move this one away"
            )
        if certificates.expiry(identity.certificate) <= utc(self._clock.wall()):
            return None
        return identity.certificate

    def connection(self, address: tuple[str, int]) -> connection.Settings:
        """How to reach the syndicate's host at this address.  Raises TLSError."""
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
        """Get a certificate from the syndicate's host at this address, unless there is one.

        Raises TLSError and CallError.  Where the files could not be written nothing is asked for,
        and no use of the token is spent.
        """
        settings = self._settings
        certificate = self._certificate()
        if certificate is not None:
            self._check_authority(certificate)
            if not (self._fingerprint or is_there(settings.ca_file)):
                raise TLSError(
                    f"{settings.ca_file} is not there, and OORT_SYNDICATE_FINGERPRINT not set:"
                    " nothing tells the syndicate from another server"
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
                    " a token of the syndicate that it is of"
                ) from error
            ca_file = None  # there may be others in it
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
        """What the syndicate would answer to a certificate of another authority tells nobody."""
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
                    f"{self._settings.cert_file} is not of the syndicate or has expired, and there"
                    f" is no join token in OORT_JOIN_TOKEN or {file}: an operator makes one with"
                    " syndicate-client token"
                ) from None
            except OSError as error:
                raise TLSError(f"cannot read {file}: {error.strerror}") from error
        try:
            token = tokens.read_token(text)
        except TLSError as error:
            raise TLSError(f"{source}: {error}") from error
        if token.role != certificates.NODE:
            raise TLSError(f"{source}: this token is for an {token.role}, not for a node")
        return token

    def _check_writable(self) -> None:
        settings = self._settings
        for path in (settings.cert_file, settings.key_file, settings.ca_file):
            directory = Path(path).resolve().parent
            if not os.access(directory, os.W_OK | os.X_OK):
                raise TLSError(
                    f"cannot write {path}: {directory} is missing, or not writable for uid"
                    f" {os.geteuid()}"
                )

    def renew(self, syndicate: Syndicate, needed: Collection[str]) -> bool:
        """Get another certificate when this one has lived for long, or is not for all of the
        addresses `needed`; whether it did.

        Raises TLSError and CallError; what there is stays as it is then.
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
