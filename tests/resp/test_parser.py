"""Tests of the C request parser: the same results as the reference, however the input is cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oort._native import ffi, lib
from tests.resp import reference

BULK_CAP = 50_000


def parse(pieces: Iterable[bytes], authenticated: bool) -> reference.Outcome:
    outcome = reference.Outcome()
    parser = ffi.gc(lib.oort_parser_open(), lib.oort_parser_close)
    argv, argc = ffi.new("const oort_bytes **"), ffi.new("uint32_t *")
    for piece in pieces:
        assert lib.oort_parser_feed(parser, piece, len(piece)) == lib.OORT_OK
        while True:
            status = lib.oort_parser_next(parser, BULK_CAP, authenticated, argv, argc)
            if status != lib.OORT_OK:
                break
            outcome.requests.append(
                [bytes(ffi.buffer(argv[0][i].data, argv[0][i].size)) for i in range(argc[0])]
            )
        if status == lib.OORT_ERR_ARGUMENT:
            outcome.error = ffi.string(lib.oort_parser_error(parser)).decode("latin-1")
            return outcome
        assert status == lib.OORT_MISSING
    return outcome


def check(stream: bytes, cuts: Iterable[int], authenticated: bool = True) -> None:
    expected = reference.read(stream, BULK_CAP, authenticated)
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    got = parse(pieces, authenticated)
    assert (got.requests, got.error) == (expected.requests, expected.error)


def multibulk(arguments: list[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


numbers = st.one_of(
    st.integers(-2, 20).map(lambda number: b"%d" % number),
    st.sampled_from(b"- -0 00 +1 x 16384 16385 50000 50001 2147483647 2147483648".split()),
    st.sampled_from([b"", b" 1", b"1 ", b"9223372036854775807", b"9223372036854775808", b"9" * 30]),
)
line_ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\rX", b"\0\r\n", b""])
good = st.lists(st.binary(max_size=40), max_size=14).map(multibulk)
inline = st.lists(
    st.sampled_from(
        [b"a", b"PING", b" ", b"\t", b"\v", b'"', b"'", b"\\", b"\\x41", b"\\n", b"\xff"]
    ),
    max_size=12,
).map(lambda pieces: b"".join(pieces) + b"\r\n")
broken = st.builds(
    lambda mark, number, end, rest: mark + number + end + rest,
    st.sampled_from([b"*", b"*1\r\n$", b"*1\r\n", b"*2\r\n$1\r\na\r\n$", b"$", b"*1\r\n:"]),
    numbers,
    line_ends,
    st.binary(max_size=10),
)
anything = st.one_of(good, inline, broken, st.binary(max_size=30))
streams = st.lists(anything, max_size=5).map(b"".join)


@settings(max_examples=600, deadline=None)
@given(data=st.data(), stream=streams, authenticated=st.booleans())
def test_same_as_reference_wherever_it_is_cut(
    data: st.DataObject, stream: bytes, authenticated: bool
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    check(stream, cuts, authenticated)


@settings(max_examples=100, deadline=None)
@given(stream=streams, authenticated=st.booleans())
def test_split_at_every_byte(stream: bytes, authenticated: bool) -> None:
    for place in range(len(stream) + 1):
        check(stream, [place], authenticated)
    check(stream, range(len(stream)), authenticated)


@pytest.mark.parametrize("prefix", [b"", b"*", b"*1\r\n$", b"\0", b"*\0", b"*1\r\n$\0"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_lines_at_their_cap(prefix: bytes, beyond: int, end: bytes) -> None:
    line = prefix.rsplit(b"\n", 1)[-1]
    stream = prefix + b"1" * (reference.LINE_CAP + beyond - len(line)) + end
    check(stream, [])
    check(stream, range(0, len(stream), 16384))
    check(stream, [len(stream) - 1, len(stream) - 2])


def test_many_arguments_in_a_buffer_that_moves() -> None:
    arguments = [b"argument-%d" % number for number in range(5000)]
    stream = multibulk(arguments) + multibulk([b"PING"])
    check(stream, range(0, len(stream), 777))
