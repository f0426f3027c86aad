"""Keys, certificates and trust: what the rest of oort uses of them.

    tls_certificates  keys, certificates, roles, the certificate authority
    tls_tokens        join tokens
    tls_files         an identity in files
    tls_channels      credentials for gRPC, contexts for other sockets, fetching a certificate

Everything passes keys and certificates as PEM, and raises TLSError.  docs/security.md tells who
trusts whom, and why.  Importing this loads gRPC and OpenSSL; programs that only make keys take the
modules they need.
"""

from __future__ import annotations

from .tls_certificates import (
    JOIN,
    NODE,
    OPERATOR,
    SYNDICATE,
    CertificateAuthority,
    Identity,
    certificate_request,
    expiry,
    fingerprint,
    make_key,
    names_of,
    parse_fingerprint,
    pick,
    request_fingerprint,
    request_names,
    role_of,
    self_signed,
    valid_from,
)
from .tls_channels import (
    channel_credentials,
    client_context,
    fetch_certificate,
    fetch_pinned,
    peer_role,
    server_context,
    server_credentials,
    server_credentials_of_files,
    verify_peer,
)
from .tls_files import load_identity, save_identity, write_public
from .tls_tokens import JoinToken, granted, make_token, read_token

__all__ = [
    "JOIN",
    "NODE",
    "OPERATOR",
    "SYNDICATE",
    "CertificateAuthority",
    "Identity",
    "JoinToken",
    "certificate_request",
    "channel_credentials",
    "client_context",
    "expiry",
    "fetch_certificate",
    "fetch_pinned",
    "fingerprint",
    "granted",
    "load_identity",
    "make_key",
    "make_token",
    "names_of",
    "parse_fingerprint",
    "peer_role",
    "pick",
    "read_token",
    "request_fingerprint",
    "request_names",
    "role_of",
    "save_identity",
    "self_signed",
    "server_context",
    "server_credentials",
    "server_credentials_of_files",
    "valid_from",
    "verify_peer",
    "write_public",
]
