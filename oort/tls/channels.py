"""Connections: credentials for gRPC, contexts for other sockets, a server's certificate unseen.

Everything verifies, and wants both sides to show a certificate, unless told otherwise.  Contexts
have no Python callbacks, which cffi can only make in memory that is writable and executable, so the
name of a server is compared after the handshake: verify_peer().
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from oort.clock import SYSTEM
from oort.errors import TLSError

from . import certificates
from . import files as tls_files
from .certificates import Identity

_TIMED_OUT = "no answer in time"

log = logging.getLogger("oortd.tls")


# gRPC


def server_credentials(identity: Identity, mutual: bool = True) -> grpc.ServerCredentials:
    """For a server's port.  `mutual`: callers must show a certificate of the identity's roots."""
    identity.check()
    if mutual and not identity.roots:
        raise TLSError("mutual TLS needs the certificate of an authority to verify callers by")
    return grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)],
        root_certificates=identity.roots if mutual else None,
        require_client_auth=mutual,
    )


def server_credentials_of_files(
    cert_file: Path | str, key_file: Path | str, ca_file: Path | str | None
) -> grpc.ServerCredentials:
    """The same from files, which are read anew for every handshake that finds them changed: a
    renewed certificate needs no restart.  Without a `ca_file` callers show no certificate.

    Raises TLSError for files that cannot be used now; later ones that cannot leave the last good,
    which is logged once.
    """
    paths = [Path(one) for one in (cert_file, key_file, ca_file) if one is not None]
    seen = unusable = _state_of(paths)

    def configuration() -> grpc.ServerCertificateConfiguration:
        identity = tls_files.load_identity(cert_file, key_file, ca_file)
        identity.check()
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.certificate)],
            root_certificates=identity.roots if ca_file is not None else None,
        )

    def changed() -> Any:
        """None: as they were.  (gRPC's types leave that out.)"""
        nonlocal seen, unusable
        now = _state_of(paths)
        if now == seen:
            return None
        try:
            renewed = configuration()
        except TLSError as error:
            # The next handshake looks again: half of it may be written.
            if now != unusable:
                log.warning("%s; what was read before is shown on", error)
                unusable = now
            return None
        seen = now
        return renewed

    return grpc.dynamic_ssl_server_credentials(
        configuration(), changed, require_client_authentication=ca_file is not None
    )


def _state_of(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What tells a file from the one that replaces it; zeros while it is not there."""
    states = []
    for path in paths:
        try:
            status = path.stat()
            states.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            states.append((0, 0, 0))
    return states


def channel_credentials(roots: bytes, identity: Identity | None = None) -> grpc.ChannelCredentials:
    """For a client: verifies the server by `roots` alone, and shows `identity`."""
    certificates.read_certificates(roots)
    if identity is None:
        return grpc.ssl_channel_credentials(root_certificates=roots)
    identity.check()
    return grpc.ssl_channel_credentials(
        root_certificates=roots,
        private_key=identity.key,
        certificate_chain=identity.certificate,
    )


def peer_role(
    context: grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any],
) -> tuple[str, str] | None:
    """Role and subject of a caller; None for one without a certificate (no TLS, or not mutual)."""
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return certificates.role_of(bytes(pem))
    return None


# Contexts for other sockets


def _context(identity: Identity | None, roots: bytes, verify: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if identity is not None:
        identity.check()
        chain = certificates.read_certificates(identity.certificate)
        key = certificates.read_key(identity.key)
        try:
            context.use_certificate(chain[0])
            for certificate in chain[1:]:
                context.add_extra_chain_cert(certificate)
            context.use_privatekey(key)
        except TypeError:  # pyOpenSSL before 24 knows its own types only
            context.use_certificate(crypto.X509.from_cryptography(chain[0]))
            for certificate in chain[1:]:
                context.add_extra_chain_cert(crypto.X509.from_cryptography(certificate))
            context.use_privatekey(crypto.PKey.from_cryptography_key(key))
    if verify:
        store = context.get_cert_store()
        if store is None:
            raise TLSError("OpenSSL gives no certificate store")
        for root in certificates.read_certificates(roots):
            store.add_cert(crypto.X509.from_cryptography(root))
        # A pinned certificate need not be an authority's.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(verify)
    return context


def server_context(identity: Identity, mutual: bool = True) -> SSL.Context:
    """`mutual`: clients must show a certificate of the identity's roots."""
    verify = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT if mutual else SSL.VERIFY_NONE
    return _context(identity, identity.roots, verify)


def client_context(roots: bytes, identity: Identity | None = None) -> SSL.Context:
    """Verifies the server's chain; its name is for verify_peer()."""
    return _context(identity, roots, SSL.VERIFY_PEER)


def verify_peer(connection: SSL.Connection, name: str) -> None:
    """After the handshake: TLSError unless the peer's certificate is for this host or address."""
    peer = connection.get_peer_certificate()
    if peer is None:
        raise TLSError(f"{name} showed no certificate")
    pem = peer.to_cryptography().public_bytes(serialization.Encoding.PEM)
    names = certificates.names_of(pem)
    if not any(_same_host(name, other) for other in names):
        raise TLSError(
            f"the certificate is not for {name}: it is for {', '.join(names) or 'nobody'}"
        )


def _same_host(asked: str, certified: str) -> bool:
    try:
        return ipaddress.ip_address(asked) == ipaddress.ip_address(certified)
    except ValueError:
        return asked.lower().removesuffix(".") == certified.lower().removesuffix(".")


# A server's certificate, unseen


def fetch_certificate(host: str, port: int, timeout: float) -> bytes:
    """The server's own certificate.  It proves nothing: compare its fingerprint."""
    chain = _fetch(host, port, timeout)
    return certificates.pick(chain, certificates.fingerprint(chain))


def fetch_pinned(host: str, port: int, fingerprint: str, timeout: float) -> bytes:
    """Among the certificates the server shows, the one with this fingerprint: its own or its
    authority's.  To be used as the only root.  TLSError if there is none.
    """
    wanted = certificates.parse_fingerprint(fingerprint)
    chain = _fetch(host, port, timeout)
    try:
        return certificates.pick(chain, wanted)
    except TLSError as error:
        raise TLSError(f"{host}:{port}: {error}") from error


def _fetch(host: str, port: int, timeout: float) -> bytes:
    """The chain a server shows, its own certificate first.

    TLS 1.3 only: there the server has proved to have the key before it asks for a certificate of
    ours, which we do not show.
    """
    deadline = SYSTEM.monotonic() + timeout
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([b"h2"])
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout) as plain:
            plain.setblocking(False)
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            _handshake(connection, plain, deadline)
            chain = connection.get_peer_cert_chain()
    except TimeoutError as error:
        raise TLSError(f"{where}: {_TIMED_OUT}") from error
    except OSError as error:
        raise TLSError(f"{where}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise TLSError(f"{where}: {host!r} is not a host name") from error
    except SSL.Error as error:
        raise TLSError(f"{where} does not speak TLS 1.3") from error
    if not chain:
        raise TLSError(f"{where} showed no certificate")
    return b"".join(
        certificate.to_cryptography().public_bytes(serialization.Encoding.PEM)
        for certificate in chain
    )


def _handshake(connection: SSL.Connection, plain: socket.socket, deadline: float) -> None:
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            events = select.POLLIN
        except SSL.WantWriteError:
            events = select.POLLOUT
        else:
            return
        poll = select.poll()
        poll.register(plain, events)
        if not poll.poll(max(0, deadline - SYSTEM.monotonic()) * 1000):
            raise TimeoutError
