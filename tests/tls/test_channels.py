"""Tests of handshakes: which callers connect, and with which role."""

from __future__ import annotations

import datetime
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress

import grpc
import pytest
from OpenSSL import SSL

from oort.errors import TLSError
from oort.syndicate import syndicate_pb2 as messages
from oort.syndicate import syndicate_pb2_grpc as services
from oort.tls import certificates, channels, tokens

DEADLINE = 20.0


@pytest.fixture(scope="module")
def authority():
    return certificates.CertificateAuthority.create("oort of a test")


@pytest.fixture(scope="module")
def stranger():
    """Another syndicate's."""
    return certificates.CertificateAuthority.create("oort of a test")


@pytest.fixture(scope="module")
def synd(authority):
    return authority.issue("syndicate", "synd1", ["localhost", "127.0.0.1"])


class OperatorsOnly(services.SyndicateServicer):
    """Answers operators with the length of their name; refuses all other callers."""

    def GetVersion(self, request, context):  # noqa: N802
        caller = channels.peer_role(context)
        if caller is None or caller[0] != "operator":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"you are {caller}")
        return messages.RingStatus(status=True, version=len(caller[1]))


@contextmanager
def serving(credentials) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_SyndicateServicer_to_server(OperatorsOnly(), server)
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def port(synd):
    with serving(channels.server_credentials(synd)) as port:
        yield port


def ask(port, roots, identity=None, host="127.0.0.1"):
    """The answer, or the status code of the error."""
    credentials = channels.channel_credentials(roots, identity)
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        try:
            reply = services.SyndicateStub(channel).GetVersion(
                messages.EmptyMsg(), timeout=DEADLINE
            )
        except grpc.RpcError as error:
            return error.code()
        return reply.version


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DENIED = grpc.StatusCode.PERMISSION_DENIED


def test_an_operator_connects_to_either_name(authority, port):
    anna = authority.issue("operator", "anna")
    assert ask(port, authority.certificate, anna) == 4
    assert ask(port, authority.certificate, anna, "localhost") == 4


def test_other_certificates_of_the_authority_are_refused_by_role(authority, port):
    for role in ("node", "syndicate"):
        assert ask(port, authority.certificate, authority.issue(role, "anna")) == DENIED
    token = tokens.read_token(tokens.make_token(authority, "operator", "1", 60))
    assert ask(port, authority.certificate, token.identity(b"")) == DENIED


def test_nobody_else_connects(authority, stranger, port):
    assert ask(port, authority.certificate) == UNAVAILABLE
    assert ask(port, authority.certificate, stranger.issue("operator", "anna")) == UNAVAILABLE
    key = certificates.make_key()
    alone = certificates.Identity(certificates.self_signed(key, ["anna"]), key, b"")
    assert ask(port, authority.certificate, alone) == UNAVAILABLE
    # A certificate signed by a node's key is invalid, because nodes are not authorities.
    node = authority.issue("node", "a")
    with pytest.raises(TLSError, match="may not certify"):
        certificates.CertificateAuthority.load(node.certificate, node.key)


def test_expired_certificates_are_refused(authority, port):
    short = authority.issue("operator", "anna", days=1 / 86400)
    token = tokens.read_token(tokens.make_token(authority, "operator", "1", 1))
    deadline = time.monotonic() + DEADLINE
    # A certificate is still valid in the last second of its validity.
    end = max(certificates.expiry(short.certificate), token.expires) + datetime.timedelta(seconds=1)
    while datetime.datetime.now(datetime.UTC) < end:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask(port, authority.certificate, short) == UNAVAILABLE
    assert ask(port, authority.certificate, token.identity(b"")) == UNAVAILABLE


def test_a_server_needs_the_authority_the_name_and_the_right_usage(authority, stranger):
    anna = authority.issue("operator", "anna")
    for server, roots in (
        (authority.issue("syndicate", "s", ["127.0.0.1"]), stranger.certificate),
        (authority.issue("syndicate", "s", ["other.example.com", "127.0.0.2"]), None),
        (authority.issue("operator", "s", ["127.0.0.1"]), None),
    ):
        with serving(channels.server_credentials(server)) as port:
            assert ask(port, roots or authority.certificate, anna) == UNAVAILABLE


def test_without_mutual_tls_or_tls_nobody_has_a_role(authority, synd):
    with serving(channels.server_credentials(synd, mutual=False)) as port:
        assert ask(port, authority.certificate) == DENIED
        assert ask(port, authority.certificate, authority.issue("operator", "anna")) == DENIED
    with serving(None) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            services.SyndicateStub(channel).GetVersion(messages.EmptyMsg(), timeout=DEADLINE)
        assert refusal.value.code() == DENIED
        assert refusal.value.details() == "you are None"


def test_a_fetched_certificate_can_be_the_root(authority, synd, port):
    """A node may know only a fingerprint, of the server or of its authority."""
    anna = authority.issue("operator", "anna")
    own = channels.fetch_certificate("localhost", port, DEADLINE)
    assert certificates.fingerprint(own) == certificates.fingerprint(synd.certificate)
    assert ask(port, own, anna) == 4
    for certificate in (synd.certificate, authority.certificate):
        fingerprint = certificates.fingerprint(certificate)
        pinned = channels.fetch_pinned("127.0.0.1", port, fingerprint.upper(), DEADLINE)
        assert certificates.fingerprint(pinned) == fingerprint
        assert pinned.count(b"BEGIN") == 1
        assert ask(port, pinned, anna) == 4
    with pytest.raises(TLSError, match=f"127.0.0.1:{port}: the certificate's fingerprint is"):
        channels.fetch_pinned("127.0.0.1", port, "00" * 32, DEADLINE)


def test_a_pinned_certificate_excludes_other_servers(authority, stranger, synd, port):
    anna = authority.issue("operator", "anna")
    own = channels.fetch_certificate("127.0.0.1", port, DEADLINE)
    for other in (
        stranger.issue("syndicate", "synd1", ["127.0.0.1"]),
        authority.issue("syndicate", "synd1", ["127.0.0.1"]),
    ):
        with serving(channels.server_credentials(other)) as wrong:
            assert ask(wrong, own, anna) == UNAVAILABLE


def test_fetching_from_other_servers_fails_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TLSError, match=rf"127\.0\.0\.1:{port}: no answer in time"):
            channels.fetch_certificate("127.0.0.1", port, 0.2)
        silent.accept()[0].close()  # the connection of the caller that timed out
        chatty = threading.Thread(target=answer, args=(silent, b"HTTP/1.1 400 no\r\n\r\n"))
        chatty.start()
        with pytest.raises(TLSError, match=rf"{port} does not speak TLS"):
            channels.fetch_certificate("127.0.0.1", port, DEADLINE)
        chatty.join(DEADLINE)
    with pytest.raises(TLSError, match=f":{port}: Connection refused"):
        channels.fetch_certificate("127.0.0.1", port, DEADLINE)


def answer(listener, text):
    caller, _ = listener.accept()
    with caller:
        caller.recv(1)
        caller.sendall(text)
        caller.recv(65536)


def test_credentials_need_roots(authority, synd):
    bare = certificates.Identity(synd.certificate, synd.key, b"")
    with pytest.raises(TLSError, match="mutual TLS needs"):
        channels.server_credentials(bare)
    with pytest.raises(TLSError, match="no certificate"):
        channels.channel_credentials(b"")
    mixed = certificates.Identity(synd.certificate, certificates.make_key(), authority.certificate)
    with pytest.raises(TLSError, match="use a matching pair"):
        channels.server_credentials(mixed)


def shake_hands(server_context, client_context):
    """Both ends after a handshake in memory; raises OpenSSL's errors."""
    server, client = SSL.Connection(server_context, None), SSL.Connection(client_context, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(10):
        done = 0
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                done += 1
            except SSL.WantReadError:
                pass
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 16))
        if done == 2:
            client.send(b"hello")
            server.bio_write(client.bio_read(1 << 16))
            assert server.recv(5) == b"hello"
            return server, client
    raise AssertionError("the handshake does not end")


def test_contexts_verify_both_sides(authority, stranger, synd):
    node = authority.issue("node", "a")
    server, client = shake_hands(
        channels.server_context(synd), channels.client_context(authority.certificate, node)
    )
    assert client.get_protocol_version_name() == "TLSv1.3"
    channels.verify_peer(client, "LOCALHOST")
    channels.verify_peer(client, "127.0.0.1")
    for name in ("example.com", "127.0.0.2", "synd1", ""):
        with pytest.raises(TLSError, match="certificate is not for"):
            channels.verify_peer(client, name)
    peer = server.get_peer_certificate()
    assert peer is not None
    assert peer.to_cryptography().subject.rfc4514_string() == "CN=a"
    for server_identity, client_roots, client_identity in (
        (synd, authority.certificate, None),
        (synd, authority.certificate, stranger.issue("node", "a")),
        (synd, stranger.certificate, node),
        (authority.issue("operator", "s"), authority.certificate, node),
    ):
        with pytest.raises(SSL.Error):
            shake_hands(
                channels.server_context(server_identity),
                channels.client_context(client_roots, client_identity),
            )
    shake_hands(
        channels.server_context(synd, mutual=False), channels.client_context(authority.certificate)
    )
