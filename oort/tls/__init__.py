"""Keys, certificates and trust.

certificates  keys, certificates, roles, the certificate authority
tokens        join tokens
files         an identity in files
channels      credentials for gRPC, contexts for other sockets, fetching a certificate

Functions take and return keys and certificates as PEM, and raise TLSError.  docs/security.md
explains who trusts whom, and why.  Only `channels` loads gRPC.
"""
