"""Connections: gRPC credentials, contexts for other sockets, and fetching unverified certificates.

By default both sides must show a certificate, and both verify it.  Contexts have no Python
callbacks, because cffi needs memory that is writable and executable for them.  The name of a server
is therefore compared after the handshake, by verify_peer().
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
    """Credentials of a server's port.

    With `mutual`, callers must show a certificate that the identity's roots have signed.
    """
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
    """Credentials of a server's port from files, read again by a handshake when they have changed.

    A renewed certificate therefore needs no restart.  Without a `ca_file`, callers show no
    certificate.

    Raises TLSError if the files are invalid at first.  If they become invalid later, the last valid
    certificate stays in use, and a warning is logged once.
    """
    paths = [Path(path) for path in (cert_file, key_file, ca_file) if path is not None]
    seen = unusable = _state_of(paths)

    def configuration() -> grpc.ServerCertificateConfiguration:
        identity = tls_files.load_identity(cert_file, key_file, ca_file)
        identity.check()
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.certificate)],
            root_certificates=identity.roots if ca_file is not None else None,
        )

    def changed() -> Any:
        """The new configuration, or None if nothing changed, which gRPC's types do not mention."""
        nonlocal seen, unusable
        now = _state_of(paths)
        if now == seen:
            return None
        try:
            renewed = configuration()
        except TLSError as error:
            # The next handshake tries again, because the files may be half written.
            if now != unusable:
                log.warning("%s; the last valid certificate stays in use", error)
                unusable = now
            return None
        seen = now
        return renewed

    return grpc.dynamic_ssl_server_credentials(
        configuration(), changed, require_client_authentication=ca_file is not None
    )


def _state_of(paths: Sequence[Path]) -> list[tuple[int, int, int]]:
    """Inode, modification time and size of each file; zeros if the file is missing."""
    states = []
    for path in paths:
        try:
            status = path.stat()
            states.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            states.append((0, 0, 0))
    return states


def channel_credentials(roots: bytes, identity: Identity | None = None) -> grpc.ChannelCredentials:
    """Credentials of a client, which verifies the server by `roots` only and shows `identity`."""
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
    """The role and the subject of a caller.

    None if the caller showed no certificate, or a certificate without a role.
    """
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
        except TypeError:  # pyOpenSSL before 24 accepts only its own types
            context.use_certificate(crypto.X509.from_cryptography(chain[0]))
            for certificate in chain[1:]:
                context.add_extra_chain_cert(crypto.X509.from_cryptography(certificate))
            context.use_privatekey(crypto.PKey.from_cryptography_key(key))
    if verify:
        store = context.get_cert_store()
        if store is None:
            raise TLSError("OpenSSL has no certificate store")
        for root in certificates.read_certificates(roots):
            store.add_cert(crypto.X509.from_cryptography(root))
        # A pinned certificate need not be that of an authority.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(verify)
    return context


def server_context(identity: Identity, mutual: bool = True) -> SSL.Context:
    """A server's context.

    With `mutual`, clients must show a certificate that the identity's roots have signed.
    """
    verify = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT if mutual else SSL.VERIFY_NONE
    return _context(identity, identity.roots, verify)


def client_context(roots: bytes, identity: Identity | None = None) -> SSL.Context:
    """A client's context, which verifies the server's chain; verify_peer() verifies its name."""
    return _context(identity, roots, SSL.VERIFY_PEER)


def verify_peer(connection: SSL.Connection, name: str) -> None:
    """Check, after the handshake, that the peer's certificate is for this host or address.

    Raises TLSError if it is not.
    """
    peer = connection.get_peer_certificate()
    if peer is None:
        raise TLSError(f"{name} showed no certificate")
    pem = peer.to_cryptography().public_bytes(serialization.Encoding.PEM)
    names = certificates.names_of(pem)
    if not any(_same_host(name, other) for other in names):
        raise TLSError(
            f"the certificate is not for {name}: it is for {', '.join(names) or 'no host'}"
        )


def _same_host(requested: str, certified: str) -> bool:
    try:
        return ipaddress.ip_address(requested) == ipaddress.ip_address(certified)
    except ValueError:
        return requested.lower().removesuffix(".") == certified.lower().removesuffix(".")


# Fetching a server's certificate without verifying it


def fetch_certificate(host: str, port: int, timeout: float) -> bytes:
    """The server's own certificate, unverified: the caller must compare its fingerprint.

    `timeout` is in seconds.  Raises TLSError.
    """
    chain = _fetch(host, port, timeout)
    return certificates.pick(chain, certificates.fingerprint(chain))


def fetch_pinned(host: str, port: int, fingerprint: str, timeout: float) -> bytes:
    """The certificate with this fingerprint among those that the server shows.

    The certificate is the server's own or its authority's; use it as the only root.  `timeout` is
    in seconds.  Raises TLSError if the server shows no such certificate.
    """
    wanted = certificates.parse_fingerprint(fingerprint)
    chain = _fetch(host, port, timeout)
    try:
        return certificates.pick(chain, wanted)
    except TLSError as error:
        raise TLSError(f"{host}:{port}: {error}") from error


def _fetch(host: str, port: int, timeout: float) -> bytes:
    """The chain that a server shows, its own certificate first.

    This needs TLS 1.3, in which the server proves that it has its key before it asks the client
    for a certificate.  This client has none to show.
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
