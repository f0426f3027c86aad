"""synd's certificate authority, which is created at the first start and stored in the state.

The uses of a join token are facts of the state, `token/ID/N`.  Each fact belongs to one key
permanently, and the facts are created in order.  Even if several synds are asked at the same time,
a token therefore gives certificates to no more keys than it has uses.  A caller that asks again
with the same key, because the answer was lost, gets a certificate again.

A renewed certificate can only have host names that the old certificate has.  Addresses may change;
they are checked against NetFilter each time.  The names of the synds are reserved for synds and for
nodes on the same machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Sequence

from oort import machine
from oort.clock import SYSTEM, Clock, utc
from oort.errors import RequestError, StateError
from oort.synd.state.state import State
from oort.syndicate.authority_pb2 import SignReply, SignRequest, TokenReply, TokenRequest
from oort.syndicate.authority_pb2_grpc import AuthorityServicer
from oort.tls import certificates, tokens

from .calls import Context, admit

SERVICE = "authority"  # the service name under which the authority's facts are stored
MAX_USES = 100_000
DEFAULT_SECONDS = 3600

_FACT = "authority"

log = logging.getLogger("synd.authority")


def load(state: State) -> certificates.CertificateAuthority:
    """The authority, created if there is none; several synds all get the same authority.

    Raises StateError.
    """
    stored = state.take(_FACT)
    if stored is None:
        new = certificates.CertificateAuthority.create("oort syndicate")
        stored = state.keep(_FACT, new.certificate + new.key)
    at = stored.find(b"-----BEGIN PRIVATE KEY-----")
    if at < 0:
        raise StateError("the stored authority is damaged: restore the state from a backup")
    return certificates.CertificateAuthority.load(stored[:at], stored[at:])


class AuthorityService(AuthorityServicer):
    """The gRPC service Authority.  Every synd answers it; no leader is needed."""

    def __init__(
        self,
        authority: certificates.CertificateAuthority,
        state: State,
        allowed: Callable[[str], bool],
        reserved: Collection[str],
        clock: Clock = SYSTEM,
    ) -> None:
        """`allowed(address)` says whether a node may have the address.

        `reserved` are the names of the synds.
        """
        self._clock = clock
        self._authority = authority
        self._tokens = Tokens(state)
        self._allowed = allowed
        self._reserved = {_folded(name) for name in reserved}

    async def Sign(self, request: SignRequest, context: Context) -> SignReply:  # noqa: N802
        admit(context, certificates.JOIN, certificates.NODE)
        chain = _certificate_of(context)
        if certificates.expiry(chain) <= utc(self._clock.wall()):
            raise RequestError("the certificate has expired: get a token", "UNAUTHENTICATED")
        role, subject = certificates.role_of(chain) or ("", "")
        names = self._names(certificates.request_names(request.request), _on_this_machine(context))
        if role == certificates.JOIN:
            role, token_id = tokens.granted(subject)
            key = certificates.request_fingerprint(request.request)
            use = await asyncio.to_thread(self._tokens.use, token_id, key)
            if use is None:
                raise RequestError(
                    "the token has been used as often as it may be: get another token",
                    "PERMISSION_DENIED",
                )
            host = next((name for name in names if not _is_address(name)), "")
            subject = host if role == certificates.NODE and host else f"{role}-{token_id}-{use}"
        else:
            if role == certificates.SYNDICATE:
                raise RequestError("a synd issues its own certificate", "PERMISSION_DENIED")
            had = {_folded(name) for name in certificates.names_of(chain)}
            names = [name for name in names if _is_address(name) or _folded(name) in had]
        certificate = self._authority.sign(
            request.request, role, subject, names if role == certificates.NODE else []
        )
        log.info("signed for %s %s: %s", role, subject, certificates.fingerprint(certificate))
        return SignReply(certificate=certificate, authority=self._authority.certificate)

    async def CreateToken(  # noqa: N802
        self, request: TokenRequest, context: Context
    ) -> TokenReply:
        caller = admit(context)
        uses, role = request.uses or 1, request.role or certificates.NODE
        if uses > MAX_USES:
            raise RequestError(f"a token has at most {MAX_USES} uses", "INVALID_ARGUMENT")
        token_id = uuid.uuid4().hex[:16]
        token = tokens.make_token(
            self._authority, role, token_id, request.valid_seconds or DEFAULT_SECONDS
        )
        await asyncio.to_thread(self._tokens.create, token_id, uses)
        log.info("token %s for role %s, %d uses, by %s", token_id, role, uses, caller)
        return TokenReply(token=token)

    def _names(self, requested: Sequence[str], same_machine: bool) -> list[str]:
        """The requested names that a node may have."""
        return [
            name
            for name in requested
            if (same_machine or _folded(name) not in self._reserved)
            and (not _is_address(name) or self._allowed(name))
        ]


class Tokens:
    """Counts the uses of each token.  Thread safe; methods wait for the state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._used: dict[str, int] = {}  # known uses by token id; there may be more

    def create(self, token_id: str, uses: int) -> None:
        self._state.keep(f"token/{token_id}", str(uses).encode())

    def use(self, token_id: str, key: str) -> int | None:
        """Use a token for a key; returns the number of the use, or None if none is left."""
        limit = self._state.take(f"token/{token_id}")
        if limit is None:
            return None
        owner = f"token/{token_id}/key/{key}"
        with self._mutex:
            earlier = self._state.take(owner)
            if earlier is not None:
                return int(earlier)
            use = self._take(token_id, int(limit), key.encode())
            if use is not None:
                self._state.keep(owner, str(use).encode())
            return use

    def _take(self, token_id: str, uses: int, key: bytes) -> int | None:
        used = self._used.get(token_id)
        if used is None:
            used = self._count(token_id, uses)
        # The last use may belong to this key if a kill prevented the owner from being stored.
        if used and self._state.take(f"token/{token_id}/{used}") == key:
            return used
        for use in range(used + 1, uses + 1):
            holder = self._state.keep(f"token/{token_id}/{use}", key)
            self._used[token_id] = use
            if holder == key:
                return use
        return None

    def _count(self, token_id: str, uses: int) -> int:
        """The number of uses so far, by bisection, because uses are stored in order."""
        least, most = 0, uses + 1
        while most - least > 1:
            middle = (least + most) // 2
            if self._state.take(f"token/{token_id}/{middle}") is None:
                most = middle
            else:
                least = middle
        return least


def _certificate_of(context: Context) -> bytes:
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return bytes(pem)
    return b""


def _on_this_machine(context: Context) -> bool:
    """Whether the peer is on this machine.

    gRPC's names of peers look like ipv4:127.0.0.1:4711 and ipv6:%5B::1%5D:4711.
    """
    host = context.peer().partition(":")[2].rpartition(":")[0]
    return machine.is_here(host.replace("%5B", "").replace("%5D", "").strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _folded(name: str) -> str:
    return name.lower().rstrip(".")
