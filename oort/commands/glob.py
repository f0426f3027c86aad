"""Glob patterns that match exactly as in Redis (redis.io/commands/keys).

`*` matches any bytes, `?` one byte.  `[abc]` and `[a-z]` match one byte of the class, `[^...]` one
byte outside the class.  The ends of a range may come in either order.  `\\x` is the byte x itself.
An unclosed class ends with the pattern.

A pattern is compiled once.  A pattern with at most one star becomes a regular expression that never
backtracks.  For a pattern with more stars, the runs between the stars are searched one after the
other.  A match takes at most time proportional to the pattern's length times the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Match = Callable[[bytes], bool]

_FOLD = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))


class _Star:
    """The token of `*`."""


_STAR = _Star()
_ANY = bytes(range(256))
_Token = bytes | _Star  # the bytes that match at one position, or a star


def compile_glob(pattern: bytes, fold: bool = False) -> Match:
    """A predicate for `pattern`.  fold: ASCII letters match in either case."""
    tokens = _tokens(pattern, fold)
    if tokens == [_STAR]:
        return lambda text: True
    match = _as_re(tokens) if tokens.count(_STAR) <= 1 else _search_runs(tokens)
    return (lambda text: match(text.translate(_FOLD))) if fold else match


def _tokens(pattern: bytes, fold: bool) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            if not tokens or tokens[-1] is not _STAR:
                tokens.append(_STAR)
        elif byte == b"?":
            tokens.append(_ANY)
        elif byte == b"[":
            allowed, position = _class(pattern, position, fold)
            tokens.append(allowed)
        else:
            if byte == b"\\" and position < len(pattern):
                byte = pattern[position : position + 1]
                position += 1
            tokens.append(byte.translate(_FOLD) if fold else byte)
    return tokens


def _class(pattern: bytes, position: int, fold: bool) -> tuple[bytes, int]:
    """The bytes that a class matches, and the position after the class.

    position: the position after the class's opening bracket.
    """
    negated = pattern[position : position + 1] == b"^"
    if negated:
        position += 1
    allowed: set[int] = set()
    while position < len(pattern) and pattern[position] != ord("]"):
        if pattern[position] == ord("\\") and position + 1 < len(pattern):
            allowed.update(_folded(pattern[position + 1 : position + 2], fold))
            position += 2
        elif position + 2 < len(pattern) and pattern[position + 1] == ord("-"):
            ends = _folded(
                pattern[position : position + 1] + pattern[position + 2 : position + 3], fold
            )
            allowed.update(range(min(ends), max(ends) + 1))
            position += 3
        else:
            allowed.update(_folded(pattern[position : position + 1], fold))
            position += 1
    every = set(range(256))
    return bytes(sorted(every - allowed if negated else allowed)), position + 1


def _folded(text: bytes, fold: bool) -> bytes:
    return text.translate(_FOLD) if fold else text


def _as_re(tokens: list[_Token]) -> Match:
    """A matcher for tokens with at most one star, for which `re` never backtracks."""
    expression = bytearray()
    for token in tokens:
        if isinstance(token, _Star):
            expression += b".*"
        elif len(token) == 256:
            expression += b"."
        elif len(token) == 1:
            expression += re.escape(token)
        elif not token:
            expression += b"(?!)"
        else:
            expression += b"[" + b"".join(b"\\x%02x" % byte for byte in token) + b"]"
    matcher = re.compile(bytes(expression), re.DOTALL).fullmatch
    return lambda text: matcher(text) is not None


def _search_runs(tokens: list[_Token]) -> Match:
    """A matcher that takes the leftmost match of each run between two stars.

    An earlier star never needs another try, so nothing backtracks.  bytes.find finds a run that
    has no classes.
    """
    runs: list[list[bytes]] = [[]]
    for token in tokens:
        if isinstance(token, _Star):
            runs.append([])
        else:
            runs[-1].append(token)
    head, *middle, tail = runs
    finders = [_finder(run) for run in middle]
    match_head, match_tail = _as_re(list(head)), _as_re(list(tail))

    def match(text: bytes) -> bool:
        end = len(text) - len(tail)
        if len(head) > end or not match_head(text[: len(head)]) or not match_tail(text[end:]):
            return False
        position = len(head)
        for run, find in zip(middle, finders, strict=True):
            position = find(text, position, end)
            if position < 0:
                return False
            position += len(run)
        return True

    return match


def _finder(run: list[bytes]) -> Callable[[bytes, int, int], int]:
    if all(len(token) == 1 for token in run):
        literal = b"".join(run)
        return lambda text, start, end: text.find(literal, start, end)
    expression = b"".join(
        b"[" + b"".join(b"\\x%02x" % byte for byte in token) + b"]" if token else b"(?!)"
        for token in run
    )
    search = re.compile(expression, re.DOTALL).search

    def find(text: bytes, start: int, end: int) -> int:
        found = search(text, start, end)
        return found.start() if found else -1

    return find
