"""Tests of join tokens: a token is read as it was made, and anything else is refused."""

from __future__ import annotations

import datetime

import pytest

from oort.errors import TLSError
from oort.tls import certificates, tokens


@pytest.fixture(scope="module")
def authority():
    return certificates.CertificateAuthority.create("oort of a test")


def test_a_token_is_one_line_and_complete(authority):
    text = tokens.make_token(authority, "operator", "7f3a-1", 3600)
    assert text.startswith("oort-join-")
    assert text.isprintable()
    assert " " not in text
    token = tokens.read_token(text)
    assert (token.role, token.id) == ("operator", "7f3a-1")
    assert token.authority == certificates.fingerprint(authority.certificate)
    assert certificates.role_of(token.certificate) == ("join", "operator/7f3a-1")
    assert tokens.granted("operator/7f3a-1") == ("operator", "7f3a-1")
    left = token.expires - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(minutes=59) < left <= datetime.timedelta(hours=1)
    identity = token.identity(authority.certificate)
    identity.check()


def test_wrapped_lines_are_read(authority):
    text = tokens.make_token(authority, "node", "1", 60)
    broken = "\n ".join(text[at : at + 70] for at in range(0, len(text), 70)) + "\n"
    assert tokens.read_token(broken) == tokens.read_token(text)


def test_damaged_tokens_are_refused(authority):
    text = tokens.make_token(authority, "node", "1", 60)
    other = tokens.make_token(authority, "node", "2", 60)
    head = len("oort-join-") + 43 * 4 // 3  # past version and fingerprint, into the key
    wrong = [
        "",
        "oort-join-",
        text[:-1],
        text[: len(text) // 2],
        text.replace("oort-join-", "oort-"),
        text[:-20] + "!" + text[-19:],
        other[:head] + text[head:],  # the key of one token with the certificate of another
        text + "A" * 8192,
        "oort-join-" + "B" * 700,
    ]
    for damaged in wrong:
        with pytest.raises(TLSError):
            tokens.read_token(damaged)


def test_invalid_tokens_roles_ids_and_times_are_refused(authority):
    for role, token_id, seconds in (
        ("syndicate", "1", 60),
        ("join", "1", 60),
        ("node", "", 60),
        ("node", "a/b", 60),
        ("node", "1", 0),
        ("node", "1", 10**10),
    ):
        with pytest.raises(TLSError):
            tokens.make_token(authority, role, token_id, seconds)


def test_a_certificate_of_another_role_is_not_a_token(authority):
    """A node's certificate in the form of a token is refused."""
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    identity = authority.issue("node", "a", ["a"])
    scalar = serialization.load_pem_private_key(identity.key, None).private_numbers().private_value
    der = x509.load_pem_x509_certificate(identity.certificate).public_bytes(
        serialization.Encoding.DER
    )
    content = b"\1" + bytes(32) + scalar.to_bytes(32, "big") + der
    with pytest.raises(TLSError, match="damaged"):
        tokens.read_token("oort-join-" + base64.urlsafe_b64encode(content).decode().rstrip("="))
