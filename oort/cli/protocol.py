"""A blocking connection that speaks RESP2 and RESP3, with one reply for each command.

Replies are Python values.  Kinds of replies without a Python type (status, error, map with any
keys, ...) have a small class each, so that they can be printed differently.  An invalid reply
raises ProtocolError; the end of the connection raises ConnectionLostError.

The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self, TypeAlias

from oort.errors import OortError

MAX_DEPTH = 64
READ_BYTES = 65536


class ConnectionLostError(OortError):
    """The server cannot be reached, or it has closed the connection."""


class ProtocolError(OortError):
    """The server sent a reply that is not valid RESP."""


@dataclass(frozen=True)
class Status:
    text: bytes


@dataclass(frozen=True)
class ErrorReply:
    text: bytes


@dataclass(frozen=True)
class Double:
    text: bytes


@dataclass(frozen=True)
class Verbatim:
    text: bytes


@dataclass(frozen=True)
class Mapping:
    pairs: list[tuple[Reply, Reply]]


@dataclass(frozen=True)
class SetReply:
    members: list[Reply]


@dataclass(frozen=True)
class Push:
    parts: list[Reply]


Reply: TypeAlias = (
    "bool | int | bytes | list[Reply] | Status | ErrorReply | Double | Verbatim"
    " | Mapping | SetReply | Push | None"
)


def pack(arguments: list[bytes]) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts.append(b"$%d\r\n" % len(argument))
        parts.append(argument)
        parts.append(b"\r\n")
    return b"".join(parts)


class Connection:
    """A connection to a server.

    `timeout`, in seconds, limits connecting and every wait for the server; None means no limit.
    """

    def __init__(self, host: str, port: int, timeout: float | None = None) -> None:
        self._buffer = bytearray()
        try:
            self._socket = socket.create_connection((host, port), timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionLostError(f"Could not connect to {host}:{port}: {reason}") from error

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, *arguments: bytes | str | int) -> Reply:
        """Send a command and wait for its reply; push messages before the reply are dropped."""
        self.send(*arguments)
        reply = self.read()
        while isinstance(reply, Push):
            reply = self.read()
        return reply

    def send(self, *arguments: bytes | str | int) -> None:
        encoded = [
            argument if isinstance(argument, bytes) else str(argument).encode()
            for argument in arguments
        ]
        try:
            self._socket.sendall(pack(encoded))
        except OSError as error:
            raise ConnectionLostError(
                f"The connection is lost: {error.strerror or error}"
            ) from error

    def read(self) -> Reply:
        """The next reply, which may be a push message."""
        return self._read(0)

    def _more(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except OSError as error:
            raise ConnectionLostError(
                f"The connection is lost: {error.strerror or error}"
            ) from error
        if not data:
            raise ConnectionLostError("Server closed the connection")
        self._buffer += data

    def _line(self) -> bytes:
        seen = 0
        while (end := self._buffer.find(b"\r\n", seen)) < 0:
            seen = max(0, len(self._buffer) - 1)
            self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _bulk(self, size: int) -> bytes:
        while len(self._buffer) < size + 2:
            self._more()
        data = bytes(memoryview(self._buffer)[:size])
        if self._buffer[size : size + 2] != b"\r\n":
            raise ProtocolError("the server sent a bulk string without CRLF at its end")
        del self._buffer[: size + 2]
        return data

    def _number(self, text: bytes) -> int:
        try:
            return int(text)
        except ValueError:
            raise ProtocolError(f"the server sent {text!r} instead of a number") from None

    def _many(self, count: int, depth: int) -> list[Reply]:
        return [self._read(depth + 1) for _ in range(count)]

    def _read(self, depth: int) -> Reply:
        if depth > MAX_DEPTH:
            raise ProtocolError("the server sent a reply that is nested too deeply")
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return Status(rest)
        if kind == b"-":
            return ErrorReply(rest)
        if kind in (b":", b"("):
            return self._number(rest)
        if kind == b"_":
            return None
        if kind == b"#":
            return rest == b"t"
        if kind == b",":
            return Double(rest)
        if kind not in (b"$", b"!", b"=", b"*", b"%", b"~", b">", b"|"):
            raise ProtocolError(f"the server sent {line[:32]!r}, which is not a reply")
        count = self._number(rest)
        if count < 0:
            return None
        if kind == b"$":
            return self._bulk(count)
        if kind == b"!":
            return ErrorReply(self._bulk(count))
        if kind == b"=":
            return Verbatim(self._bulk(count)[4:])
        if kind == b"*":
            return self._many(count, depth)
        if kind == b"~":
            return SetReply(self._many(count, depth))
        if kind == b">":
            return Push(self._many(count, depth))
        pairs = [(self._read(depth + 1), self._read(depth + 1)) for _ in range(count)]
        if kind == b"|":  # attributes of the next reply, which are ignored
            return self._read(depth)
        return Mapping(pairs)
