"""Tests of keys, certificates and the authority, partly with the openssl program."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from oort.errors import TLSError
from oort.tls import certificates, tokens


@pytest.fixture(scope="module")
def authority():
    return certificates.CertificateAuthority.create("oort of a test")


def openssl(*arguments, data=None):
    if shutil.which("openssl") is None:
        raise AssertionError("these tests need openssl")
    return subprocess.run(
        ["openssl", *arguments], input=data, capture_output=True, check=True, timeout=30
    ).stdout.decode()


def test_a_certificate_of_the_authority_passes_the_strictest_check(authority, tmp_path):
    key = certificates.make_key()
    request = certificates.certificate_request(key, ["node1.example.com", "10.1.2.3", "fd00::17"])
    chain = authority.sign(request, "node", "node1.example.com")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "node.crt").write_bytes(chain)
    for purpose in ("sslserver", "sslclient"):
        assert openssl(
            *("verify", "-x509_strict", "-purpose", purpose),
            *("-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "node.crt")),
        ).endswith("OK\n")
    text = openssl("x509", "-noout", "-text", data=chain)
    for expected in (
        "Version: 3",
        "ASN1 OID: prime256v1",
        "Signature Algorithm: ecdsa-with-SHA256",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "DNS:node1.example.com, IP Address:10.1.2.3, IP Address:FD00:0:0:0:0:0:0:17, "
        "URI:oort://node/node1.example.com",
    ):
        assert expected in text
    assert certificates.names_of(chain) == ["node1.example.com", "10.1.2.3", "fd00::17"]
    assert certificates.role_of(chain) == ("node", "node1.example.com")
    (tmp_path / "node.key").write_bytes(key)
    assert openssl("pkey", "-in", str(tmp_path / "node.key"), "-pubout") == openssl(
        "x509", "-noout", "-pubkey", data=chain
    )


def test_the_authority_certifies_but_does_not_serve(authority):
    text = openssl("x509", "-noout", "-text", data=authority.certificate)
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign\n" in text
    assert "TLS Web" not in text


def test_serial_numbers_are_random_and_clocks_may_differ(authority):
    request = certificates.certificate_request(certificates.make_key(), [])
    made = [
        x509.load_pem_x509_certificate(authority.sign(request, "operator", "anna"))
        for _ in range(50)
    ]
    serials = {certificate.serial_number for certificate in made}
    assert len(serials) == 50
    assert max(serials).bit_length() > 120
    assert all(0 < serial < 1 << 159 for serial in serials)
    now = datetime.datetime.now(datetime.UTC)
    chain = authority.sign(request, "operator", "anna", days=2)
    assert certificates.valid_from(chain) < now - datetime.timedelta(minutes=5)
    assert certificates.expiry(chain) <= now + datetime.timedelta(days=2, minutes=1)


def test_only_nodes_and_synds_may_serve(authority):
    request = certificates.certificate_request(certificates.make_key(), ["synd.example.com"])
    usages = {
        role: openssl("x509", "-noout", "-text", data=authority.sign(request, role, "x"))
        for role in ("node", "syndicate", "operator", "join")
    }
    for role, text in usages.items():
        assert ("TLS Web Server Authentication" in text) == (role in ("node", "syndicate"))
        assert ("synd.example.com" in text) == (role in ("node", "syndicate"))
        assert "TLS Web Client Authentication" in text


def test_no_certificate_outlives_its_authority():
    authority = certificates.CertificateAuthority.create("short", days=1)
    request = certificates.certificate_request(certificates.make_key(), ["a"])
    assert certificates.expiry(
        authority.sign(request, "node", "a", days=30)
    ) == certificates.expiry(authority.certificate)
    expired = certificates.CertificateAuthority.create("shorter", days=1 / 86400)
    deadline = time.monotonic() + 30
    while datetime.datetime.now(datetime.UTC) <= certificates.expiry(expired.certificate):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(TLSError, match="authority has expired"):
        expired.sign(request, "node", "a")


def test_reserved_names_are_only_for_the_syndicate(authority):
    guarded = certificates.CertificateAuthority.load(
        authority.certificate, authority.key, reserved=["Synd.example.com", "10.0.0.1", "fd00::1"]
    )
    key = certificates.make_key()
    for name in ("synd.example.com", "SYND.EXAMPLE.COM", "synd.example.com.", "10.0.0.1",
                 "fd00:0::1"):  # fmt: skip
        with pytest.raises(TLSError, match=r"reserved for the syndicate|neither a host name"):
            guarded.sign(certificates.certificate_request(key, ["mine", name]), "node", "mine")
    request = certificates.certificate_request(key, ["synd.example.com", "10.0.0.1"])
    assert certificates.role_of(guarded.sign(request, "syndicate", "synd1")) == (
        "syndicate",
        "synd1",
    )
    assert guarded.sign(
        certificates.certificate_request(key, ["other.example.com"]), "node", "other"
    )


def test_only_key_and_host_names_of_a_request_are_used(authority):
    """The request asks for a role, to be an authority, and for wildcards."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("node1"),
                    x509.UniformResourceIdentifier("oort://syndicate/evil"),
                    x509.RFC822Name("a@example.com"),
                ]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    chain = authority.sign(request, "node", "node1")
    assert certificates.role_of(chain) == ("node", "node1")
    assert "CA:FALSE" in openssl("x509", "-noout", "-text", data=chain)
    wild = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wild = wild.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("*.example.com")]), critical=False
    )
    pem = wild.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TLSError, match="neither a host name nor an address"):
        authority.sign(pem, "node", "node1")


def request_of(key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_requests_with_weak_or_unsupported_keys_are_refused(authority):
    for key in (
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        dsa.generate_private_key(1024),
    ):
        with pytest.raises(TLSError, match="signing request"):
            authority.sign(request_of(key), "node", "a")
    strong = rsa.generate_private_key(65537, 2048)
    assert certificates.role_of(authority.sign(request_of(strong), "node", "a")) == ("node", "a")


def test_a_request_must_be_signed_by_its_key(authority):
    request = x509.load_pem_x509_csr(
        certificates.certificate_request(certificates.make_key(), ["a"])
    )
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TLSError, match="not signed by its own key"):
        authority.sign(forged, "node", "a")


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"A" * 10**6]
)
def test_garbage_is_one_kind_of_error(authority, garbage):
    for attempt in (
        lambda: authority.sign(garbage, "node", "a"),
        lambda: certificates.role_of(garbage),
        lambda: certificates.fingerprint(garbage),
        lambda: certificates.CertificateAuthority.load(garbage, authority.key),
        lambda: certificates.CertificateAuthority.load(authority.certificate, garbage),
        lambda: certificates.self_signed(garbage, ["a"]),
    ):
        with pytest.raises(TLSError):
            attempt()


def test_names_and_subjects_are_checked(authority):
    key = certificates.make_key()
    for name in ("a b", "*", "x" * 64, "a..b", "", "(a|b)*", "a\nb", "10.0.0.0/24", "é"):
        with pytest.raises(TLSError):
            certificates.certificate_request(key, [name])
    with pytest.raises(TLSError, match="at most 100"):
        certificates.certificate_request(key, [f"n{number}" for number in range(101)])
    request = certificates.certificate_request(key, ["a"])
    for subject in ("", "x" * 256, "a\nb"):
        with pytest.raises(TLSError, match="subject"):
            authority.sign(request, "node", subject)
    with pytest.raises(TLSError, match="not a role"):
        authority.sign(request, "root", "a")
    for strange in ("a/b ?#%@é" + "x" * 200, "é" * 100):
        assert certificates.role_of(authority.sign(request, "node", strange)) == ("node", strange)


def test_an_authority_is_a_certificate_that_may_certify_and_its_key(authority):
    other = certificates.CertificateAuthority.create("other")
    with pytest.raises(TLSError, match="does not match its certificate"):
        certificates.CertificateAuthority.load(authority.certificate, other.key)
    key = certificates.make_key()
    with pytest.raises(TLSError, match="may not certify"):
        certificates.CertificateAuthority.load(certificates.self_signed(key, ["a"]), key)


def test_fingerprints_as_openssl_writes_them(authority):
    text = openssl("x509", "-noout", "-fingerprint", "-sha256", data=authority.certificate)
    ours = certificates.fingerprint(authority.certificate)
    assert re.fullmatch(r"[0-9a-f]{64}", ours)
    assert certificates.parse_fingerprint(text) == ours
    assert certificates.parse_fingerprint(ours.upper()) == ours
    for wrong in ("", ours[:-1], ours + "0", "g" * 64, "SHA1 Fingerprint=" + "00" * 20):
        with pytest.raises(TLSError, match="SHA-256"):
            certificates.parse_fingerprint(wrong)


def test_an_identity_does_not_print_its_key(authority):
    identity = authority.issue("node", "a", ["a"])
    assert "PRIVATE" not in repr(identity)
    token = tokens.read_token(tokens.make_token(authority, "node", "1", 60))
    assert "PRIVATE" not in repr(token)


def test_a_self_signed_certificate_has_no_role():
    key = certificates.make_key()
    certificate = certificates.self_signed(key, ["server1", "::1"])
    assert certificates.names_of(certificate) == ["server1", "::1"]
    assert certificates.role_of(certificate) is None
    with pytest.raises(TLSError, match="valid for more than 0 days"):
        certificates.self_signed(key, ["a"], days=0)
