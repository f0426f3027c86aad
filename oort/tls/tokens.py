"""Join tokens: one line of text that lets its holder request a certificate from the syndicate.

A token contains a short-lived client certificate of role `join`, its key, and the fingerprint of
the authority that issued it.  The signing port can therefore use mutual TLS like every other port,
and the fingerprint identifies the right syndicate.  A token is a secret, because anybody who has
the token can join.

    oort-join-  base64url of: version (1 byte), authority's fingerprint (32), private scalar (32),
                certificate (DER)

The subject of the certificate is `ROLE/ID`: the role that the holder may get, and the id of the
token.  The keeper of the authority counts the uses of a token by its id.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oort.errors import TLSError

from . import certificates
from .certificates import JOIN, NODE, OPERATOR, CertificateAuthority, Identity

PREFIX = "oort-join-"
MAX_TOKEN_CHARACTERS = 8192
MAX_SECONDS = 366 * 86400

_VERSION = 1
_FINGERPRINT_BYTES = 32
_SCALAR_BYTES = 32
_CERTIFICATE_AT = 1 + _FINGERPRINT_BYTES + _SCALAR_BYTES
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class JoinToken:
    id: str
    role: str  # the role that the holder may get: node or operator
    certificate: bytes  # PEM
    key: bytes  # PEM
    expires: datetime.datetime  # aware, UTC
    authority: str  # fingerprint of the authority's certificate

    def __repr__(self) -> str:
        return f"JoinToken({self.role}/{self.id})"  # never the key

    def identity(self, roots: bytes) -> Identity:
        """The token's certificate and key, with `roots` to verify the syndicate by."""
        return Identity(self.certificate, self.key, roots)


def granted(subject: str) -> tuple[str, str]:
    """The role and the id of a token, from the subject of its certificate.

    Raises TLSError if the subject is not that of a token.

    >>> granted("node/7f3a")
    ('node', '7f3a')
    """
    role, _, token_id = subject.partition("/")
    if role not in (NODE, OPERATOR) or not _ID.fullmatch(token_id):
        raise TLSError(f"{subject[:80]!r} is not the subject of a join token")
    return role, token_id


def make_token(authority: CertificateAuthority, role: str, token_id: str, seconds: float) -> str:
    """A token for `role` (node or operator), valid for `seconds`.

    The caller chooses the id, which must be unique.
    """
    subject = f"{role}/{token_id}"
    granted(subject)
    if not 1 <= seconds <= MAX_SECONDS:
        raise TLSError(f"a token is valid for 1 to {MAX_SECONDS} seconds, not for {seconds:g}")
    identity = authority.issue(JOIN, subject, days=seconds / 86400)
    key = certificates.read_key(identity.key)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TLSError("the key of a token must be of an elliptic curve")
    certificate = certificates.read_certificates(identity.certificate)[0]
    content = (
        bytes([_VERSION])
        + bytes.fromhex(certificates.fingerprint(authority.certificate))
        + key.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")
        + certificate.public_bytes(serialization.Encoding.DER)
    )
    return PREFIX + base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


def read_token(text: str) -> JoinToken:
    """The contents of a token, which may have expired; TLSError if it is invalid."""
    text = "".join(text.split())  # mail and terminals break long lines
    if not text.startswith(PREFIX):
        raise TLSError(f"this is not a join token: a token begins with {PREFIX}")
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise TLSError("this is not a join token: it is too long")
    bare = text.removeprefix(PREFIX)
    try:
        content = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TLSError("the join token is damaged: copy the whole line") from error
    if content and content[0] != _VERSION:
        raise TLSError("the join token is damaged, or a newer version of oort made it")
    authority = content[1 : 1 + _FINGERPRINT_BYTES]
    scalar = content[1 + _FINGERPRINT_BYTES : _CERTIFICATE_AT]
    try:
        key = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
        certificate = x509.load_der_x509_certificate(content[_CERTIFICATE_AT:])
    except (ValueError, TypeError) as error:
        raise TLSError("the join token is damaged: copy the whole line") from error
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = certificates.key_pem(key)
    found = certificates.role_of(certificate_pem)
    if found is None or found[0] != JOIN or not certificates.belong(certificate_pem, key_pem):
        raise TLSError("the join token is damaged: copy the whole line")
    role, token_id = granted(found[1])
    expires = certificates.expiry(certificate_pem)
    return JoinToken(token_id, role, certificate_pem, key_pem, expires, authority.hex())
