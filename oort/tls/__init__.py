"""Keys, certificates and trust.

certificates  keys, certificates, roles, the certificate authority
tokens        join tokens
files         an identity in files
channels      credentials for gRPC, contexts for other sockets, fetching a certificate

Everything passes keys and certificates as PEM, and raises TLSError.  docs/security.md tells who
trusts whom, and why.  Only `channels` loads gRPC.
"""
