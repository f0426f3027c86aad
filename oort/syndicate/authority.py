"""synd's certificate authority: made at the first start, kept with the state; join tokens.

A token's uses are facts of the state, `token/ID/N`, each kept by exactly one caller for ever:
however many synds are asked at once, a token makes no more certificates than it was made for.
"""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Callable, Sequence

import grpc

from oort import tls
from oort.errors import OortError, StateError, TLSError
from oort.tls_certificates import request_names

from .authority_pb2 import SignReply, SignRequest, TokenReply, TokenRequest
from .authority_pb2_grpc import AuthorityServicer
from .state import State

MAX_USES = 100_000
DEFAULT_SECONDS = 3600

_FACT = "authority"

log = logging.getLogger("synd.authority")


def load(state: State, reserved: Sequence[str]) -> tls.CertificateAuthority:
    """The authority, made where there is none yet: of any number of synds, one's is everybody's."""
    fresh = state.take(_FACT)
    if fresh is None:
        made = tls.CertificateAuthority.create("oort syndicate")
        fresh = state.keep(_FACT, made.certificate + made.key)
    at = fresh.find(b"-----BEGIN PRIVATE KEY-----")
    if at < 0:
        raise StateError("the authority that is kept is damaged: restore the state from a backup")
    return tls.CertificateAuthority.load(fresh[:at], fresh[at:], reserved)


class AuthorityService(AuthorityServicer):
    """The gRPC service.  Any synd answers it: it takes no leader."""

    def __init__(
        self,
        authority: tls.CertificateAuthority,
        state: State,
        allowed: Callable[[str], bool],
        reserved: Sequence[str],
    ) -> None:
        """allowed(address): whether a node may have it; reserved: names that are the synds'."""
        self._authority = authority
        self._state = state
        self._allowed = allowed
        self._reserved = {name.lower().rstrip(".") for name in reserved}

    def Sign(self, request: SignRequest, context: grpc.ServicerContext) -> SignReply:  # noqa: N802
        caller = tls.peer_role(context)
        if caller is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "show a join token")
        role, subject = caller
        try:
            names = self._names(request.request)
            if role == "join":
                role, token = tls.granted(subject)
                use = self._use(token)
                if use is None:
                    context.abort(
                        grpc.StatusCode.PERMISSION_DENIED,
                        "the token has been used as often as it may be: get another",
                    )
                host = next((name for name in names if not _is_address(name)), "")
                subject = host if role == "node" and host else f"{role}-{token}-{use}"
            elif role not in ("node", "operator"):
                context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, f"nothing is signed for role {role}"
                )
            certificate = self._authority.sign(
                request.request, role, subject, names if role == "node" else []
            )
        except TLSError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OortError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        log.info("signed for %s %s: %s", role, subject, tls.fingerprint(certificate))
        return SignReply(certificate=certificate, authority=self._authority.certificate)

    def CreateToken(  # noqa: N802
        self, request: TokenRequest, context: grpc.ServicerContext
    ) -> TokenReply:
        caller = tls.peer_role(context)
        if caller is None or caller[0] != "operator":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "tokens are made for operators")
        uses = request.uses or 1
        if uses > MAX_USES:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a token has at most {MAX_USES} uses")
        token_id = uuid.uuid4().hex[:16]
        try:
            token = tls.make_token(
                self._authority,
                request.role or "node",
                token_id,
                request.valid_seconds or DEFAULT_SECONDS,
            )
            self._state.keep(f"token/{token_id}", str(uses).encode())
        except TLSError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OortError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        log.info("token %s for role %s, %d uses, by %s", token_id, request.role, uses, caller[1])
        return TokenReply(token=token)

    def _use(self, token_id: str) -> int | None:
        """Take one of the token's uses; which, or None when there is none left."""
        kept = self._state.take(f"token/{token_id}")
        if kept is None:
            return None
        ours = secrets.token_bytes(16)
        for use in range(1, int(kept) + 1):
            name = f"token/{token_id}/{use}"
            if self._state.take(name) is None and self._state.keep(name, ours) == ours:
                return use
        return None

    def _names(self, request: bytes) -> list[str]:
        """Of the names asked for, those that a node may have."""
        return [
            name
            for name in request_names(request)
            if name.lower().rstrip(".") not in self._reserved
            and (not _is_address(name) or self._allowed(name))
        ]


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()
