"""RESP replies as bytes, for commands that Python executes.

Every function returns one complete RESP value.  A function takes the connection's protocol (2 or 3)
if the value differs between RESP2 and RESP3.  A simple string or an error is one line: CR and LF
within its text become spaces.  CR and LF at the end of an error are removed, as in Redis.  The
formats are those of redis.io/docs/reference/protocol-spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

OK = b"+OK\r\n"
SYNTAX_ERROR = b"-ERR syntax error\r\n"
NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def simple(text: str) -> bytes:
    return b"+" + text.encode().translate(_ONE_LINE) + b"\r\n"


def error(text: bytes | str) -> bytes:
    """An error.  The text begins with the error's code, such as ERR."""
    raw = text.encode() if isinstance(text, str) else text
    return b"-" + raw.rstrip(b"\r\n").translate(_ONE_LINE) + b"\r\n"


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def bulk(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def verbatim(value: bytes | str, protocol: int) -> bytes:
    """A text for people: a verbatim string in RESP3, a bulk string in RESP2."""
    raw = value.encode() if isinstance(value, str) else value
    return bulk(raw) if protocol == 2 else b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw)


def null(protocol: int) -> bytes:
    return b"$-1\r\n" if protocol == 2 else b"_\r\n"


def null_array(protocol: int) -> bytes:
    return b"*-1\r\n" if protocol == 2 else b"_\r\n"


def array(items: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(items)


def bulks(items: Sequence[bytes | str]) -> bytes:
    return array([bulk(item) for item in items])


def simples(items: Iterable[str]) -> bytes:
    return array([simple(item) for item in items])


def as_set(items: Sequence[bytes], protocol: int) -> bytes:
    return (b"*" if protocol == 2 else b"~") + array(items)[1:]


def pairs(items: Sequence[tuple[bytes, bytes]], protocol: int) -> bytes:
    """A map of encoded keys and values: a map in RESP3, an array twice as long in RESP2."""
    body = b"".join(part for item in items for part in item)
    head = b"*%d\r\n" % (2 * len(items)) if protocol == 2 else b"%%%d\r\n" % len(items)
    return head + body


def parse_integer(text: bytes) -> int | None:
    """A signed 64-bit integer as Redis reads it; None: the text is invalid.

    Spaces, a plus sign and leading zeros are invalid.
    """
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 19 or (digits[:1] == b"0" and text != b"0"):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


def unknown_or_wrong(name: bytes, container: str) -> bytes:
    return error(
        b"ERR unknown subcommand or wrong number of arguments for '%b'. Try %b HELP."
        % (_c_text(name), container.upper().encode())
    )


def _c_text(name: bytes) -> bytes:
    """The part of an argument that C's "%.128s" prints."""
    return name.partition(b"\0")[0][:128]
