"""Tests of join tokens and certificates of a real synd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from oort.synd import authority
from oort.synd.identity import OwnIdentity
from oort.synd.state.directory import DirectoryState
from oort.syndicate.authority_pb2 import SignRequest, TokenRequest
from oort.syndicate.syndicate_pb2 import EmptyMsg
from oort.tls import certificates, tokens
from tests.synd.real_synd import refused


def token(synd, **what):
    with synd.calls() as calls:
        made = tokens.read_token(calls.CreateToken(TokenRequest(**what)).token)
    return made.identity(synd.ca.read_bytes())


def request(*names, key=None):
    return SignRequest(
        request=certificates.certificate_request(key or certificates.make_key(), names)
    )


def test_a_token_has_a_limited_number_of_uses(shared_synd):
    identity = token(shared_synd, role="node", uses=20)
    with shared_synd.calls(identity) as calls, ThreadPoolExecutor(30) as pool:

        def sign(number):
            try:
                return calls.Sign(request(f"host{number}"))
            except grpc.RpcError as error:
                return error.code()

        made = list(pool.map(sign, range(30)))
    assert made.count(grpc.StatusCode.PERMISSION_DENIED) == 10
    subjects = {
        certificates.role_of(one.certificate)
        for one in made
        if not isinstance(one, grpc.StatusCode)
    }
    assert len(subjects) == 20


def test_the_same_key_gets_a_certificate_again(shared_synd):
    identity = token(shared_synd, role="node", uses=1)
    key = certificates.make_key()
    with shared_synd.calls(identity) as calls:
        assert calls.Sign(request("a", key=key)).certificate
        assert calls.Sign(request("a", key=key)).certificate  # as if the answer was lost
        assert refused(calls.Sign, request("a")).code() is grpc.StatusCode.PERMISSION_DENIED
        for method in ("GetVersion", "GetRing"):
            error = refused(getattr(calls, method), EmptyMsg())
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_uses_outlive_a_kill(make_synd):
    synd = make_synd().start()
    identity = token(synd, role="node", uses=3)
    for _ in range(3):
        with synd.calls(identity) as calls:
            assert calls.Sign(request("a")).certificate
        synd.kill()
        synd.start()
    with synd.calls(identity) as calls:
        assert refused(calls.Sign, request("a")).code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"role": "syndicate"}, "INVALID_ARGUMENT"),
        ({"role": "join"}, "INVALID_ARGUMENT"),
        ({"role": "node", "uses": 100_001}, "INVALID_ARGUMENT"),
        ({"role": "node", "valid_seconds": 2**32 - 1}, "INVALID_ARGUMENT"),
    ],
)
def test_invalid_tokens_are_not_made(shared_synd, what, code):
    with shared_synd.calls() as calls:
        assert refused(calls.CreateToken, TokenRequest(**what)).code().name == code


def test_only_operators_make_tokens(shared_synd):
    with shared_synd.calls(shared_synd.member("node", "a")) as calls:
        error = refused(calls.CreateToken, TokenRequest(role="operator"))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_names_of_a_certificate(shared_synd):
    node = shared_synd.member("node", "host1", "10.1.0.1", "2001:db8::1")
    assert certificates.role_of(node.certificate) == ("node", "host1")
    assert certificates.names_of(node.certificate) == [
        "host1",
        "10.1.0.1",
    ]  # the other address is not in NetFilter
    operator = shared_synd.member("operator", "host1")
    assert certificates.role_of(operator.certificate)[0] == "operator"
    assert certificates.names_of(operator.certificate) == []


def test_a_node_renews_its_own_names_only(shared_synd):
    node = shared_synd.member("node", "host1", "10.1.0.1")
    with shared_synd.calls(node) as calls:
        reply = calls.Sign(request("host1", "host2", "10.1.0.2"))
    assert certificates.role_of(reply.certificate) == ("node", "host1")
    assert certificates.names_of(reply.certificate) == ["host1", "10.1.0.2"]


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\n"])
def test_an_invalid_signing_request(shared_synd, wrong):
    with shared_synd.calls(token(shared_synd, role="node", uses=1)) as calls:
        error = refused(calls.Sign, SignRequest(request=wrong))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert calls.Sign(request("a")).certificate  # the invalid request did not use the token


def test_a_stranger_gets_no_connection(shared_synd):
    other = certificates.CertificateAuthority.create("another").issue("operator", "me")
    with shared_synd.calls(other) as calls:
        assert refused(calls.GetVersion, EmptyMsg()).code() is grpc.StatusCode.UNAVAILABLE


def test_synds_certificate_is_renewed_in_time(tmp_path):
    state = DirectoryState(tmp_path, "authority")
    try:
        made = authority.load(state)
        first = OwnIdentity(made, state, ["synd.example.com"])
        assert not first.renew()
        assert OwnIdentity(made, state, ["synd.example.com"]).current == first.current
        assert OwnIdentity(made, state, ["other.example.com"]).current != first.current
        # The validity is so short that most of it is the ten minutes before it was made.
        short = OwnIdentity(made, state, ["short.example.com"], days=1 / 1440)
        before = short.current
        assert short.renew()
        assert short.current != before
        newest = OwnIdentity(made, state, ["short.example.com"])
        assert certificates.fingerprint(newest.current.certificate) != certificates.fingerprint(
            before.certificate
        )
    finally:
        state.close()
