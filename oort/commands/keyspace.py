"""Commands about the key space as a whole: SCAN, KEYS, RANDOMKEY, DBSIZE, FLUSH*, MEMORY USAGE.

All but DBSIZE may read the disk, so they are jobs for the helper thread.  Replies and errors are
those of Redis 7.0 (redis.io/commands).
"""

from __future__ import annotations

from collections.abc import Iterator

from oort.commands import reply
from oort.commands.context import Context
from oort.commands.dispatch import Handlers, Job
from oort.commands.glob import compile_glob
from oort.commands.reply import OK
from oort.dataplane import Request
from oort.metrics import STORE

HANDLERS = Handlers()

_KEYS = STORE["keys"]

SLICE_KEYS = 1000  # keys visited between two yields, which takes about a millisecond
CURSOR_END = 2**48  # every position of a scan is below


@HANDLERS.handles("dbsize")
def dbsize(context: Context, request: Request) -> bytes:
    return reply.integer(context.store.stats().each(_KEYS)[request.database])


def _slices(
    context: Context, database: int, position: int, want: int
) -> Iterator[tuple[int, list[bytes]]]:
    """Slices of keys, until about `want` keys were visited or no keys are left.

    Each slice comes with the position where the next slice begins; 0: the end.
    """
    while want > 0:
        position, keys = context.session.scan(database, position, min(want, SLICE_KEYS))
        yield position, keys
        if position == 0:
            return
        # A slice may find fewer keys than wanted, even no key, and nevertheless move on.
        want -= max(1, len(keys))


@HANDLERS.handles("scan")
def scan(context: Context, request: Request) -> Job[bytes]:
    argv = request.argv
    cursor = _cursor(argv[1])
    if cursor is None:
        return b"-ERR invalid cursor\r\n"
    count, match, wrong_type = 10, None, False
    position = 2
    while position < len(argv):
        option, rest = argv[position].lower(), len(argv) - position - 1
        if option == b"count" and rest:
            number = reply.parse_integer(argv[position + 1])
            if number is None:
                return reply.NOT_AN_INTEGER
            if number < 1:
                return reply.SYNTAX_ERROR
            count = number
        elif option == b"match" and rest:
            match = compile_glob(argv[position + 1])
        elif option == b"type" and rest:
            wrong_type = argv[position + 1].lower() != b"string"
        else:
            return reply.SYNTAX_ERROR
        position += 2
    found: list[bytes] = []
    goes_on = 0
    if cursor < CURSOR_END:  # a cursor of another server may be larger: there are no keys
        for following, names in _slices(context, request.database, cursor, count):
            goes_on = following
            if not wrong_type:
                found += names if match is None else filter(match, names)
            yield
    return reply.array([reply.bulk(str(goes_on)), reply.bulks(found)])


def _cursor(text: bytes) -> int | None:
    """A cursor as Redis reads it, with strtoul; None: the cursor is invalid.

    A sign is allowed.  White space is invalid, and so are further characters after the number.  An
    empty text is 0.
    """
    if not text:
        return 0
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    # Without leading zeros, a number of more than 20 digits is above 2**64.
    if not digits.isdigit() or len(digits.lstrip(b"0")) > 20 or int(digits[-20:]) >= 2**64:
        return None
    number = int(digits[-20:])
    return -number % 2**64 if text[:1] == b"-" else number


@HANDLERS.handles("keys")
def keys(context: Context, request: Request) -> Job[bytes]:
    match = compile_glob(request.argv[1])
    found: list[bytes] = []
    for _, slice_keys in _slices(context, request.database, 0, CURSOR_END):
        found += map(reply.bulk, filter(match, slice_keys))
        yield
    return reply.array(found)


@HANDLERS.handles("randomkey")
def randomkey(context: Context, request: Request) -> Job[bytes]:
    key = context.session.random_key(request.database)
    yield
    return reply.null(request.protocol) if key is None else reply.bulk(key)


@HANDLERS.handles("flushall", "flushdb")
def flush(context: Context, request: Request) -> Job[bytes]:
    argv = request.argv
    if len(argv) > 2 or (len(argv) == 2 and argv[1].lower() not in (b"async", b"sync")):
        return reply.SYNTAX_ERROR
    yield
    context.session.flush(None if argv[0].lower() == b"flushall" else request.database)
    return OK


@HANDLERS.handles("memory|usage")
def memory_usage(context: Context, request: Request) -> Job[bytes]:
    argv = request.argv
    position = 3
    while position < len(argv):
        if argv[position].lower() != b"samples" or position + 1 == len(argv):
            return reply.SYNTAX_ERROR
        samples = reply.parse_integer(argv[position + 1])
        if samples is None:
            return reply.NOT_AN_INTEGER
        if samples < 0:
            return reply.SYNTAX_ERROR
        position += 2
    yield
    size = context.session.stored_bytes(request.database, argv[2])
    return reply.null(request.protocol) if size is None else reply.integer(size)
