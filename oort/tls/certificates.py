"""Keys, certificates and the syndicate's certificate authority.

Keys are P-256, and signatures use SHA-256.  A URI among the names of a certificate gives its role
and its subject: `oort://ROLE/SUBJECT`.  The roles:

    node       an oortd; serves and calls
    syndicate  a synd; serves and calls
    operator   a person or a program at the command line; calls only
    join       the holder of a join token (oort/tls/tokens.py); calls only, to get another role

A role is valid only in a certificate that was verified against the authority, as mutual TLS does.
Nothing in this file verifies a chain.  Public functions take and return certificates and keys as
PEM.  If they are given a chain, they use its first certificate.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import ipaddress
import re
import urllib.parse
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from oort.clock import SYSTEM, utc
from oort.errors import TLSError

NODE = "node"
OPERATOR = "operator"
SYNDICATE = "syndicate"
JOIN = "join"
ROLES = (NODE, OPERATOR, SYNDICATE, JOIN)

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
# Certificates are valid from a little before they are issued, because clocks differ.
CLOCK_SKEW = datetime.timedelta(minutes=10)

MAX_PEM_BYTES = 64 * 1024
MAX_NAMES = 100
MAX_SUBJECT = 255
_MAX_COMMON_NAME = 64  # bytes (X.520, ub-common-name)

_SCHEME = "oort://"
_DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_PEM_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
_FINGERPRINT_LABEL = re.compile(r"\s*sha-?256(\s*fingerprint)?\s*[=:]", re.IGNORECASE)
# The errors that cryptography raises for malformed input.
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True)
class Identity:
    """The certificate and key of one side of a connection, and its roots to verify the other."""

    certificate: bytes  # a chain, the own certificate first
    key: bytes
    roots: bytes  # certificates of authorities; empty if the other side is not verified

    def __repr__(self) -> str:
        return f"Identity({fingerprint(self.certificate)})"  # never the key

    def check(self) -> None:
        """Raise TLSError if a part cannot be read or the key does not match the certificate."""
        own = read_certificates(self.certificate)[0]
        if self.roots:
            read_certificates(self.roots)
        if not _belong(own, read_key(self.key)):
            raise TLSError("the private key does not match the certificate: use a matching pair")


# Reading


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in a text, in its order; TLSError if there are none."""
    if len(pem) > MAX_PEM_BYTES:
        raise TLSError(f"the certificates are larger than {MAX_PEM_BYTES} bytes")
    try:
        certificates = [
            x509.load_pem_x509_certificate(block) for block in _PEM_CERTIFICATE.findall(pem)
        ]
    except _MALFORMED as error:
        raise TLSError(f"a certificate cannot be read: {error}") from error
    if not certificates:
        raise TLSError("no certificate found: expected PEM (-----BEGIN CERTIFICATE-----)")
    return certificates


def read_key(pem: bytes) -> PrivateKey:
    """An elliptic-curve or RSA private key without a passphrase; TLSError for anything else."""
    try:
        key = serialization.load_pem_private_key(pem[:MAX_PEM_BYTES], password=None)
    except _MALFORMED as error:
        raise TLSError("no private key found: expected PEM without a passphrase") from error
    if not isinstance(key, PrivateKey):
        raise TLSError("the private key is neither an elliptic-curve key nor an RSA key")
    return key


def _spki(key: PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _belong(certificate: x509.Certificate, key: PrivateKey) -> bool:
    public = certificate.public_key()
    return isinstance(public, PublicKey) and _spki(public) == _spki(key.public_key())


def belong(certificate_pem: bytes, key_pem: bytes) -> bool:
    """Whether the key is that of the first certificate."""
    return _belong(read_certificates(certificate_pem)[0], read_key(key_pem))


def _utc(certificate: x509.Certificate, which: str) -> datetime.datetime:
    aware = getattr(certificate, f"{which}_utc", None)  # from cryptography 42 on
    if isinstance(aware, datetime.datetime):
        return aware
    naive: datetime.datetime = getattr(certificate, which)
    return naive.replace(tzinfo=datetime.UTC)


def expiry(certificate_pem: bytes) -> datetime.datetime:
    """The end of the first certificate's validity (aware, UTC)."""
    return _utc(read_certificates(certificate_pem)[0], "not_valid_after")


def valid_from(certificate_pem: bytes) -> datetime.datetime:
    return _utc(read_certificates(certificate_pem)[0], "not_valid_before")


def subject_text(certificate_pem: bytes) -> str:
    """The subject's distinguished name, for people."""
    return read_certificates(certificate_pem)[0].subject.rfc4514_string()


def fingerprint(certificate_pem: bytes) -> str:
    """The SHA-256 of the first certificate in lower-case hexadecimal."""
    return read_certificates(certificate_pem)[0].fingerprint(hashes.SHA256()).hex()


def parse_fingerprint(text: str) -> str:
    """A fingerprint in the form of fingerprint(); TLSError if it is invalid.

    The text may have colons, spaces, upper case and a label, as openssl prints them.
    """
    bare = re.sub(r"[:\s]", "", _FINGERPRINT_LABEL.sub("", text)).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", bare):
        raise TLSError(f"{text!r} is not a SHA-256 fingerprint: expected 64 hexadecimal digits")
    return bare


def pick(certificates_pem: bytes, wanted: str) -> bytes:
    """The certificate with this fingerprint; TLSError if there is none."""
    wanted = parse_fingerprint(wanted)
    for certificate in read_certificates(certificates_pem):
        if hmac.compare_digest(certificate.fingerprint(hashes.SHA256()).hex(), wanted):
            return _pem(certificate)
    raise TLSError(
        f"the certificate's fingerprint is {fingerprint(certificates_pem)}, not {wanted}: "
        "another server answers, or its certificate was renewed"
    )


# Names


def _general_name(name: str) -> x509.GeneralName:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if not _DNS_NAME.fullmatch(name):
            raise TLSError(f"{name!r} is neither a host name nor an address") from None
        return x509.DNSName(name)
    # The zone of a link-local address is dropped because it has no meaning on other machines.
    return x509.IPAddress(ipaddress.ip_address(address.packed))


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    if len(names) > MAX_NAMES:
        raise TLSError(f"a certificate with {len(names)} names: at most {MAX_NAMES} are allowed")
    return list(dict.fromkeys(_general_name(name) for name in names))


def _alternative_names(
    source: x509.Certificate | x509.CertificateSigningRequest,
) -> list[x509.GeneralName]:
    try:
        return list(source.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
    except (*_MALFORMED, x509.DuplicateExtension) as error:
        raise TLSError(f"the names of a certificate cannot be read: {error}") from error


def _host_names(source: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    return [
        str(name.value)
        for name in _alternative_names(source)
        if isinstance(name, x509.DNSName | x509.IPAddress)
    ]


def names_of(certificate_pem: bytes) -> list[str]:
    """The host names and addresses of the first certificate."""
    return _host_names(read_certificates(certificate_pem)[0])


@functools.lru_cache(maxsize=1024)
def role_of(certificate_pem: bytes) -> tuple[str, str] | None:
    """The role and the subject; None for a certificate without a role.

    The caller must have verified the certificate (see the top of the file).
    """
    uris = [
        name.value
        for name in _alternative_names(read_certificates(certificate_pem)[0])
        if isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith(_SCHEME)
    ]
    if len(uris) != 1:
        return None
    role, slash, subject = uris[0].removeprefix(_SCHEME).partition("/")
    if role not in ROLES or not slash or not subject:
        return None
    return role, urllib.parse.unquote(subject)


# Issuing


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_key() -> bytes:
    """A new private key."""
    return key_pem(ec.generate_private_key(ec.SECP256R1()))


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _common_name(name: str) -> x509.Name:
    short = name.encode()[:_MAX_COMMON_NAME].decode(errors="ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short or "oort")])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    subject: x509.Name,
    key: PublicKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    days: float,
    names: Sequence[x509.GeneralName],
    serves: bool = True,
    authority: bool = False,
) -> x509.Certificate:
    now = utc(SYSTEM.wall()).replace(microsecond=0)
    try:
        end = now + datetime.timedelta(seconds=round(days * 86400))
    except OverflowError:
        raise TLSError(f"a certificate cannot be valid for {days:g} days") from None
    if end <= now:
        raise TLSError("a certificate must be valid for more than 0 days")
    if issuer is not None:
        end = min(end, _utc(issuer, "not_valid_after"))
        if end <= now:
            raise TLSError("the certificate authority has expired: create a new authority")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(
            x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
        )
        .add_extension(_key_usage(authority=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not authority:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if serves:
            usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def self_signed(key: bytes, names: Sequence[str], days: float = CERTIFICATE_DAYS) -> bytes:
    """A self-signed certificate; its first name is also its subject."""
    if not names:
        raise TLSError("a certificate needs a name")
    private = read_key(key)
    return _pem(
        _certificate(
            _common_name(names[0]),
            private.public_key(),
            issuer=None,
            issuer_key=private,
            days=days,
            names=_general_names(names),
        )
    )


def certificate_request(key: bytes, names: Sequence[str]) -> bytes:
    """A signing request for host names and addresses."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        _common_name(names[0] if names else "")
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(_general_names(names)), critical=False
        )
    return builder.sign(read_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _read_request(pem: bytes) -> tuple[x509.CertificateSigningRequest, PublicKey]:
    """The request and its key.

    Raises TLSError if the request is not signed by its key, or if the key is too weak.
    """
    if len(pem) > MAX_PEM_BYTES:
        raise TLSError(f"the signing request is larger than {MAX_PEM_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        proved = request.is_signature_valid
        key = request.public_key()
    except (*_MALFORMED, InvalidSignature) as error:
        raise TLSError(f"the signing request cannot be read: {error}") from error
    if not proved:
        raise TLSError("the signing request is not signed by its own key")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise TLSError(f"the curve of the signing request is {key.curve.name}: use P-256")
        return request, key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096:
        return request, key
    raise TLSError(
        "the key of the signing request is neither P-256, P-384 nor RSA of 2048 to 4096 bits"
    )


def request_names(request: bytes) -> list[str]:
    """The host names and addresses in a signing request."""
    return _host_names(_read_request(request)[0])


def request_fingerprint(request: bytes) -> str:
    """The SHA-256 of the public key of a signing request in lower-case hexadecimal."""
    return hashlib.sha256(_spki(_read_request(request)[1])).hexdigest()


class CertificateAuthority:
    """A certificate and a key that sign other certificates.  Immutable; the caller stores them.

    `reserved` are host names and addresses that only certificates of role syndicate may have, so
    that no node can impersonate a synd.
    """

    def __init__(self, certificate: bytes, key: bytes, reserved: Collection[str] = ()) -> None:
        self.certificate = certificate
        self.key = key
        self._certificate = read_certificates(certificate)[0]
        self._key = read_key(key)
        self._reserved = {_general_name(_folded(name)) for name in reserved}
        if not _belong(self._certificate, self._key):
            raise TLSError("the authority's key does not match its certificate")
        try:
            constraints = self._certificate.extensions.get_extension_for_class(
                x509.BasicConstraints
            )
        except x509.ExtensionNotFound:
            raise TLSError("the authority's certificate may not certify others") from None
        if not constraints.value.ca:
            raise TLSError("the authority's certificate may not certify others")

    @classmethod
    def create(cls, name: str, days: float = AUTHORITY_DAYS) -> CertificateAuthority:
        """A new authority; `name` is its subject, for people."""
        private = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            _common_name(name),
            private.public_key(),
            issuer=None,
            issuer_key=private,
            days=days,
            names=(),
            authority=True,
        )
        return cls(_pem(certificate), key_pem(private))

    @classmethod
    def load(
        cls, certificate: bytes, key: bytes, reserved: Collection[str] = ()
    ) -> CertificateAuthority:
        """An authority with a stored certificate and key; TLSError if they are not valid."""
        return cls(certificate, key, reserved)

    def sign(
        self,
        request: bytes,
        role: str,
        subject: str,
        names: Sequence[str] | None = None,
        days: float = CERTIFICATE_DAYS,
    ) -> bytes:
        """Sign a request; returns a chain of the new certificate and the authority's.

        Only the key of the request is used, and its host names and addresses if `names` is None.
        Operators and token holders do not serve, so their certificates have no host names.  Raises
        TLSError if the request is invalid or asks for a reserved name.
        """
        parsed, key = _read_request(request)
        wanted = _host_names(parsed) if names is None else names
        return self._issue(key, role, subject, wanted, days)

    def issue(
        self, role: str, subject: str, names: Sequence[str] = (), days: float = CERTIFICATE_DAYS
    ) -> Identity:
        """A new key with its certificate, for the authority's own machine."""
        private = ec.generate_private_key(ec.SECP256R1())
        chain = self._issue(private.public_key(), role, subject, names, days)
        return Identity(chain, key_pem(private), self.certificate)

    def _issue(
        self,
        key: PublicKey,
        role: str,
        subject: str,
        names: Sequence[str],
        days: float,
    ) -> bytes:
        if role not in ROLES:
            raise TLSError(f"{role!r} is not a role: expected one of {', '.join(ROLES)}")
        if not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
            raise TLSError(f"{subject[:80]!r} cannot be the subject of a certificate")
        serves = role in (NODE, SYNDICATE)
        hosts = _general_names([_folded(name) for name in names]) if serves else []
        if role != SYNDICATE and not self._reserved.isdisjoint(hosts):
            raise TLSError("a requested name is reserved for the syndicate")
        uri = f"{_SCHEME}{role}/{urllib.parse.quote(subject, safe='')}"
        certificate = _certificate(
            _common_name(subject),
            key,
            issuer=self._certificate,
            issuer_key=self._key,
            days=days,
            names=[*hosts, x509.UniformResourceIdentifier(uri)],
            serves=serves,
        )
        return _pem(certificate) + _pem(self._certificate)


def _folded(name: str) -> str:
    """A host name in the form that is compared: lower case, without the dot of the root."""
    return name.lower().removesuffix(".")
