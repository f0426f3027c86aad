"""Formats replies for terminals, for pipes (raw) and as JSON; splits input lines into arguments."""

from __future__ import annotations

import json

from .protocol import Double, ErrorReply, Mapping, Push, Reply, SetReply, Status, Verbatim

_ESCAPES = {
    0x22: b'\\"', 0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x07: b"\\a",
    0x08: b"\\b",
}  # fmt: skip
_UNESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}


def quote(data: bytes) -> bytes:
    """The bytes in double quotes, with unprintable bytes escaped."""
    parts = [
        _ESCAPES.get(byte) or (bytes((byte,)) if 0x20 <= byte < 0x7F else b"\\x%02x" % byte)
        for byte in data
    ]
    return b'"' + b"".join(parts) + b'"'


def terminal(reply: Reply, indent: int = 0) -> bytes:
    """A reply as redis-cli prints it on a terminal, without the last line end."""
    if reply is None:
        return b"(nil)"
    if isinstance(reply, bool):
        return b"(true)" if reply else b"(false)"
    if isinstance(reply, int):
        return b"(integer) %d" % reply
    if isinstance(reply, bytes):
        return quote(reply)
    if isinstance(reply, (Status, Verbatim)):
        return reply.text
    if isinstance(reply, ErrorReply):
        return b"(error) " + reply.text
    if isinstance(reply, Double):
        return b"(double) " + reply.text
    if isinstance(reply, Mapping):
        return _pairs(reply, indent)
    if isinstance(reply, SetReply):
        return _numbered(reply.members, b"~", b"(empty set)", indent)
    if isinstance(reply, Push):
        return _numbered(reply.parts, b")", b"(empty push)", indent)
    return _numbered(reply, b")", b"(empty array)", indent)


def _numbered(replies: list[Reply], mark: bytes, empty: bytes, indent: int) -> bytes:
    if not replies:
        return empty
    width = len(str(len(replies)))
    lines = []
    for number, reply in enumerate(replies, 1):
        start = b"" if number == 1 else b" " * indent
        lines.append(
            start + b"%*d%b " % (width, number, mark) + terminal(reply, indent + width + 2)
        )
    return b"\n".join(lines)


def _pairs(reply: Mapping, indent: int) -> bytes:
    if not reply.pairs:
        return b"(empty hash)"
    width = len(str(len(reply.pairs)))
    inner = indent + width + 2
    lines = []
    for number, (key, value) in enumerate(reply.pairs, 1):
        start = b"" if number == 1 else b" " * indent
        line = start + b"%*d# " % (width, number) + terminal(key, inner) + b" => "
        if _several(value):
            line += b"\n" + b" " * inner
        lines.append(line + terminal(value, inner))
    return b"\n".join(lines)


def _several(reply: Reply) -> bool:
    """Whether the reply needs more than one line."""
    if isinstance(reply, Mapping):
        return len(reply.pairs) > 1
    if isinstance(reply, SetReply):
        return len(reply.members) > 1
    if isinstance(reply, Push):
        return len(reply.parts) > 1
    return isinstance(reply, list) and len(reply) > 1


def raw(reply: Reply) -> bytes:
    """The bytes of a reply as they are, one element a line."""
    if reply is None:
        return b""
    if isinstance(reply, bool):
        return b"(true)" if reply else b"(false)"
    if isinstance(reply, int):
        return b"%d" % reply
    if isinstance(reply, bytes):
        return reply
    if isinstance(reply, (Status, Double, Verbatim)):
        return reply.text
    if isinstance(reply, ErrorReply):
        return reply.text + b"\n"
    if isinstance(reply, Mapping):
        return b"\n".join(raw(key) + b" " + raw(value) for key, value in reply.pairs)
    members = reply.members if isinstance(reply, SetReply) else reply
    members = members.parts if isinstance(members, Push) else members
    return b"\n".join(raw(member) for member in members)


def as_json(reply: Reply) -> bytes:
    """A reply as JSON; bytes that are not UTF-8 become backslash escapes."""
    return json.dumps(_plain(reply), ensure_ascii=False).encode()


def _plain(reply: Reply) -> object:
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    if isinstance(reply, (Status, Verbatim)):
        return _plain(reply.text)
    if isinstance(reply, ErrorReply):
        return {"error": _plain(reply.text)}
    if isinstance(reply, Double):
        number = float(reply.text)
        return number if abs(number) < float("inf") else _plain(reply.text)
    if isinstance(reply, Mapping):
        return {
            key.decode("utf-8", "backslashreplace")
            if isinstance(key, bytes)
            else raw(key).decode("utf-8", "backslashreplace"): _plain(value)
            for key, value in reply.pairs
        }
    if isinstance(reply, SetReply):
        return [_plain(member) for member in reply.members]
    if isinstance(reply, Push):
        return [_plain(part) for part in reply.parts]
    if isinstance(reply, list):
        return [_plain(member) for member in reply]
    return reply


def split(line: str) -> list[bytes] | None:
    """The arguments of a typed line, separated by blanks.

    "..." may contain escapes; '...' may contain only \\'.  Returns None if a quote is not closed,
    or if a closing quote is not followed by a blank or the end.
    """
    arguments: list[bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at].isspace():
            at += 1
        if at == len(line):
            return arguments
        argument = bytearray()
        while at < len(line) and not line[at].isspace():
            if line[at] in "\"'":
                end = _quoted(line, at, argument)
                if end is None or (end < len(line) and not line[end].isspace()):
                    return None
                at = end
                break
            argument += line[at].encode("utf-8", "surrogateescape")
            at += 1
        arguments.append(bytes(argument))


def _quoted(line: str, at: int, into: bytearray) -> int | None:
    """Append the quoted text to `into`.

    Returns the position after the closing quote, or None if there is no closing quote.
    """
    mark = line[at]
    at += 1
    while at < len(line) and line[at] != mark:
        char, following = line[at], line[at + 1 : at + 2]
        if char == "\\" and mark == '"' and following:
            digits = line[at + 2 : at + 4]
            if (
                following == "x"
                and len(digits) == 2
                and all(digit in "0123456789abcdefABCDEF" for digit in digits)
            ):
                into.append(int(digits, 16))
                at += 4
                continue
            into += _UNESCAPES.get(following) or following.encode("utf-8", "surrogateescape")
            at += 2
        elif char == "\\" and mark == "'" and following == "'":
            into += b"'"
            at += 2
        else:
            into += char.encode("utf-8", "surrogateescape")
            at += 1
    return at + 1 if at < len(line) else None
