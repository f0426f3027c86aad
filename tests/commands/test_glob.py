"""Glob patterns against a direct, recursive implementation of their definition."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from oort.commands.glob import compile_glob


def matches(pattern: bytes, text: bytes) -> bool:
    if not pattern:
        return not text
    head, rest = pattern[:1], pattern[1:]
    if head == b"*":
        return any(matches(rest, text[i:]) for i in range(len(text) + 1))
    if not text:
        return False
    if head == b"?":
        return matches(rest, text[1:])
    if head == b"[":
        allowed, rest = class_of(rest, text[0])
        return allowed and matches(rest, text[1:])
    if head == b"\\" and rest:
        head, rest = rest[:1], rest[1:]
    return head == text[:1] and matches(rest, text[1:])


def class_of(rest: bytes, byte: int) -> tuple[bool, bytes]:
    negated = rest[:1] == b"^"
    rest = rest[negated:]
    found = False
    while rest and rest[:1] != b"]":
        if rest[:1] == b"\\" and len(rest) >= 2:
            found |= rest[1] == byte
            rest = rest[2:]
        elif len(rest) >= 3 and rest[1:2] == b"-":
            found |= min(rest[0], rest[2]) <= byte <= max(rest[0], rest[2])
            rest = rest[3:]
        else:
            found |= rest[0] == byte
            rest = rest[1:]
    return found != negated, rest[1:]


patterns = st.lists(st.sampled_from(list(b"ab*?[]^-\\\n")), max_size=9).map(bytes)
texts = st.lists(st.sampled_from(list(b"ab]-^\\[\n\xff")), max_size=7).map(bytes)


@settings(max_examples=800, deadline=None)
@given(patterns, texts)
@example(b"[a-", b"a")
@example(b"[^]a", b"xa")
@example(b"*a*b*", b"ab")
@example(b"\\", b"\\")
def test_same_as_the_definition(pattern: bytes, text: bytes) -> None:
    assert compile_glob(pattern)(text) == matches(pattern, text)


@settings(max_examples=200, deadline=None)
@given(patterns, texts)
def test_folded_is_the_same_in_any_case(pattern: bytes, text: bytes) -> None:
    assert compile_glob(pattern.upper(), fold=True)(text) == matches(pattern, text)


def test_many_stars_end_at_once() -> None:
    """Plain backtracking would never finish with this pattern."""
    assert not compile_glob(b"*a" * 60 + b"*[b]" * 60)(b"a" * 60_000)
    assert compile_glob(b"*a?" * 60)(b"ab" * 30_000)
