"""A clear parser of RESP requests that behaves like Redis 7.0 and works on the whole stream.

`read` returns the requests in a stream, and the error in which the stream ends.  This parser is the
reference for the C parser and shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LINE_CAP = 65536
SPACES = b" \t\n\v\f\r"
WORD_ENDS = b" \t\n\r"
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
HEX = b"0123456789abcdefABCDEF"


class IncompleteError(Exception):
    """The stream ends inside a request."""


class MalformedError(Exception):
    """A protocol error, with Redis's text."""


@dataclass
class Outcome:
    requests: list[list[bytes]] = field(default_factory=list)
    error: str | None = None


def integer(text: bytes) -> int | None:
    """A signed 64-bit number without spaces, plus or leading zeros."""
    digits = text.removeprefix(b"-")
    if not digits or any(byte not in b"0123456789" for byte in digits):
        return None
    if digits[:1] == b"0" and text != b"0":
        return None
    value = int(text) if len(text) <= 20 else 1 << 64
    return value if -(1 << 63) <= value < 1 << 63 else None


def line_end(stream: bytes, start: int, end: bytes, too_long: str) -> int:
    """The position of the end of the line; a NUL before it hides it, as in C strings."""
    window = stream[start : start + LINE_CAP + 1]
    text, found, _ = window.partition(end)
    if found and b"\0" not in text:
        return start + len(text)
    if len(window) > LINE_CAP:
        raise MalformedError(too_long)
    raise IncompleteError


def words(line: bytes) -> list[bytes]:
    """Split an inline request by Redis's quoting rules."""
    found: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at] in SPACES:
            at += 1
        if at == len(line):
            return found
        word = b""
        while at < len(line) and line[at] not in WORD_ENDS:
            byte = line[at : at + 1]
            at += 1
            if byte not in (b'"', b"'"):
                word += byte
                continue
            text, at = quoted(line, at, byte)
            word += text
            break
        found.append(word)


def quoted(line: bytes, at: int, quote: bytes) -> tuple[bytes, int]:
    """The text up to the closing quote, and the position after the quote."""
    text = b""
    while at < len(line):
        byte, following = line[at : at + 1], line[at + 1 : at + 2]
        if byte == quote:
            if following and following not in SPACES:
                break
            return text, at + 1
        if quote == b'"' and byte == b"\\" and following:
            digits = line[at + 2 : at + 4]
            if following == b"x" and len(digits) == 2 and all(digit in HEX for digit in digits):
                text += bytes([int(digits, 16)])
                at += 4
            else:
                text += ESCAPES.get(following, following)
                at += 2
        elif quote == b"'" and byte + following == b"\\'":
            text += b"'"
            at += 2
        else:
            text += byte
            at += 1
    raise MalformedError("unbalanced quotes in request")


def header(stream: bytes, start: int, too_long: str) -> tuple[bytes, int]:
    """A header line without its CR, and the position after the byte that follows the CR."""
    end = line_end(stream, start, b"\r", too_long)
    if end + 2 > len(stream):
        raise IncompleteError
    return stream[start:end], end + 2


def request(stream: bytes, at: int, bulk_cap: int, authenticated: bool) -> tuple[list[bytes], int]:
    """The request that starts at this position, and the position after the request."""
    if stream[at : at + 1] != b"*":
        end = line_end(stream, at, b"\n", "too big inline request")
        return words(stream[at:end].removesuffix(b"\r")), end + 1
    line, at = header(stream, at, "too big mbulk count string")
    count = integer(line[1:])
    if count is None or count > 2**31 - 1:
        raise MalformedError("invalid multibulk length")
    if count > 10 and not authenticated:
        raise MalformedError("unauthenticated multibulk length")
    arguments: list[bytes] = []
    while len(arguments) < count:
        line, at = header(stream, at, "too big bulk count string")
        if line[:1] != b"$":
            # Redis shows the CR of an empty line.  A reply cannot contain a CR; the code that
            # writes replies handles that.
            raise MalformedError(
                "expected '$', got '" + (line[:1] or b"\r").decode("latin-1") + "'"
            )
        size = integer(line[1:])
        if size is None or not 0 <= size <= bulk_cap:
            raise MalformedError("invalid bulk length")
        if size > 16384 and not authenticated:
            raise MalformedError("unauthenticated bulk length")
        if at + size + 2 > len(stream):
            raise IncompleteError
        arguments.append(stream[at : at + size])
        at += size + 2
    return arguments, at


def read(stream: bytes, bulk_cap: int = 512 << 20, authenticated: bool = True) -> Outcome:
    outcome = Outcome()
    at = 0
    try:
        while at < len(stream):
            arguments, at = request(stream, at, bulk_cap, authenticated)
            outcome.requests.append(arguments)
    except IncompleteError:
        pass  # the rest is an incomplete request, which is not an error
    except MalformedError as malformed:
        outcome.error = f"Protocol error: {malformed}"
    return outcome
