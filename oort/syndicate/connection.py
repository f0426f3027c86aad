"""A caller's connection to a syndicate, and the errors of failed calls.

The server is verified by the authorities in a file or by a fingerprint, and the caller shows its
certificate (oort/tls).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from oort.clock import SYSTEM, utc
from oort.errors import CallError, ConfigError, TLSError
from oort.tls import certificates, channels, tokens
from oort.tls.files import is_there, load_identity

from .authority_pb2 import SignReply, SignRequest
from .authority_pb2_grpc import AuthorityStub
from .syndicate_pb2_grpc import SyndicateStub

DEFAULT_PORT = 8443
MAX_MESSAGE_BYTES = 256 * 1024**2  # enough for a ring with the most partitions

# Statuses which mean that the server was not reached or did not answer.
UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class Settings:
    """The address of a syndicate, how to verify it, and the caller's certificate."""

    host: str
    port: int
    ca_file: Path
    cert_file: Path
    key_file: Path
    fingerprint: str  # of the server's certificate or its authority's; empty: ca_file is used
    use_tls: bool
    timeout: float  # seconds for a call
    cmdctrl_port: int = 4444  # the CmdCtrl port of nodes, for commands to nodes

    @property
    def server(self) -> str:
        return address(self.host, self.port)


def address(host: str, port: int) -> str:
    """host:port in gRPC's form, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str, source: str) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT, [IPv6] or [IPv6]:PORT.

    Raises ConfigError, which names `source`, if the text is invalid.
    """
    found = re.fullmatch(
        r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?",
        text.strip(),
    )
    if found is None:
        raise ConfigError(f"{source}: {text!r} is not HOST:PORT")
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ConfigError(f"{source}: {port} is not a port")
    return found["v6"] or found["host"], port


def roots_of(settings: Settings) -> bytes:
    """The certificates to verify the syndicate by.  Raises TLSError."""
    if settings.fingerprint:
        return channels.fetch_pinned(
            settings.host, settings.port, settings.fingerprint, settings.timeout
        )
    try:
        return settings.ca_file.read_bytes()
    except OSError as error:
        raise TLSError(
            f"cannot read {settings.ca_file}: {error.strerror}; to verify the syndicate, give "
            "--ca FILE or --fingerprint, or join with a token (syndicate-client join)"
        ) from error


def identity_of(settings: Settings) -> certificates.Identity:
    """The caller's certificate and key.  Raises TLSError."""
    if not is_there(settings.cert_file):
        raise TLSError(
            f"{settings.cert_file} does not exist: get an operator's certificate with a token "
            "(syndicate-client join), or give yours with --cert and --key"
        )
    return load_identity(settings.cert_file, settings.key_file, None)


def channel(
    target: str, settings: Settings, roots: bytes, identity: certificates.Identity | None
) -> grpc.Channel:
    """A channel that connects at its first call.  `roots` and `identity` are unused without TLS."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),
        # With a shared pool a new channel would inherit the pause after an earlier one's failures.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not settings.use_tls:
        return grpc.insecure_channel(target, options)
    if settings.fingerprint:
        names = certificates.names_of(roots)
        if names:
            # The root is the server's own certificate, so comparing names would add nothing.  The
            # certificate of an authority has no names; then the server's name is compared.
            options.append(("grpc.ssl_target_name_override", names[0]))
    return grpc.secure_channel(target, channels.channel_credentials(roots, identity), options)


def call_error(target: str, error: grpc.RpcError) -> CallError:
    """A CallError with the target, gRPC's status and the details, in one line."""
    if not isinstance(error, grpc.Call):
        return CallError(f"{target}: {error}")
    code = error.code()
    details = " ".join((error.details() or "").split()) or "no reason was given"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = "no answer in time"
    return CallError(
        f"{target}: {code.name}: {details}", code=code.name, unreachable=code in UNREACHABLE
    )


class Syndicate:
    """A connection to the syndicate, opened by the first call.

    The constructor raises TLSError if certificates are missing or invalid.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.roots = roots_of(settings) if settings.use_tls else b""
        self.identity = identity_of(settings) if settings.use_tls else None
        self._channel = channel(settings.server, settings, self.roots, self.identity)
        self.rings = SyndicateStub(self._channel)
        self.authority = AuthorityStub(self._channel)

    def __enter__(self) -> Syndicate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def call(self, method: Any, request: Message, timeout: float | None = None) -> Any:
        """The reply of a method of `rings` or `authority`.  Raises CallError.

        `timeout`, in seconds, replaces the timeout of the settings.
        """
        try:
            return method(request, timeout=timeout or self.settings.timeout)
        except grpc.RpcError as error:
            raise call_error(self.settings.server, error) from error

    def stream(self, method: Any, request: Message) -> Iterator[Any]:
        """The replies of a streaming method, without a timeout.  Raises CallError."""
        try:
            yield from method(request)
        except grpc.RpcError as error:
            raise call_error(self.settings.server, error) from error


def join(
    settings: Settings,
    token: tokens.JoinToken,
    *,
    trust_token: bool,
    names: Sequence[str] = (),
    key: bytes | None = None,
) -> certificates.Identity:
    """Get an identity with a join token; nothing is written.

    `key` is the key of an earlier attempt whose answer may have been lost; using the key again
    costs no further use of the token.  `names` are the host names and addresses for the
    certificate, if the holder serves.  With `trust_token` the syndicate is verified by the
    fingerprint in the token instead of the settings.

    Raises TLSError, for example if the token has expired, and CallError.
    """
    if token.expires <= utc(SYSTEM.wall()):
        raise TLSError(
            f"the join token expired at {token.expires:%Y-%m-%d %H:%M} UTC: get another token"
        )
    if trust_token:
        settings = dataclasses.replace(settings, fingerprint=token.authority)
    roots = roots_of(settings)
    with channel(settings.server, settings, roots, token.identity(roots)) as opened:
        return _signed(settings, AuthorityStub(opened), names, key or certificates.make_key())


def renew(syndicate: Syndicate, names: Sequence[str]) -> certificates.Identity:
    """Get a renewed identity with a new key; nothing is written.  Raises CallError, TLSError."""
    return _signed(syndicate.settings, syndicate.authority, names, certificates.make_key())


def _signed(
    settings: Settings, authority: AuthorityStub, names: Sequence[str], key: bytes
) -> certificates.Identity:
    request = SignRequest(request=certificates.certificate_request(key, names))
    try:
        reply: SignReply = authority.Sign(request, timeout=settings.timeout)
    except grpc.RpcError as error:
        raise call_error(settings.server, error) from error
    identity = certificates.Identity(reply.certificate, key, reply.authority)
    identity.check()
    return identity
