"""Commands about the server: TIME, SHUTDOWN, SAVE, BGSAVE, LASTSAVE and DEBUG.

The log has every acknowledged write already.  SAVE therefore syncs the log: when SAVE replies,
every earlier write is on the device.  BGSAVE does the same in the background.  LASTSAVE is the time
of the last sync.
"""

from __future__ import annotations

import math
import re

from oort.commands import reply, table
from oort.commands.context import Context
from oort.commands.dispatch import Background, Handlers, Job, Later, Outcome, Stop
from oort.commands.reply import OK
from oort.dataplane import Reply, Request
from oort.errors import OortError
from oort.journal import log
from oort.metrics import STORE

HANDLERS = Handlers()

_LAST_SYNC = STORE["last_sync"]  # milliseconds


@HANDLERS.handles("time")
def time_of_day(context: Context, request: Request) -> bytes:
    microseconds = int(context.clock.wall() * 1_000_000)
    return reply.bulks([str(microseconds // 1_000_000), str(microseconds % 1_000_000)])


@HANDLERS.handles("lastsave")
def lastsave(context: Context, request: Request) -> bytes:
    return reply.integer(last_save(context))


def last_save(context: Context) -> int:
    """Seconds since 1970.  The start of the process counts as a save, as in Redis."""
    return max(context.store.stats()[_LAST_SYNC] // 1000, int(context.process.started))


@HANDLERS.handles("save")
def save(context: Context, request: Request) -> Job[bytes]:
    yield
    context.store.sync()
    return OK


@HANDLERS.handles("bgsave")
def bgsave(context: Context, request: Request) -> bytes | Background:
    argv = request.argv
    if len(argv) > 2 or (len(argv) == 2 and argv[1].lower() != b"schedule"):
        return reply.SYNTAX_ERROR
    if context.saving:
        return b"-ERR Background save already in progress\r\n"
    context.saving = True

    def job() -> Job[None]:
        yield
        context.store.sync()

    def done(result: object) -> None:
        context.saving = False
        if isinstance(result, OortError):
            log.error("background save failed: %s", result)

    return Background(b"+Background saving started\r\n", job(), done)


@HANDLERS.handles("shutdown")
def shutdown(context: Context, request: Request) -> Outcome:
    words = [word.lower() for word in request.argv[1:]]
    if not set(words) <= {b"save", b"nosave", b"now", b"force", b"abort"}:
        return reply.SYNTAX_ERROR
    if {b"save", b"nosave"} <= set(words) or (b"abort" in words and len(words) > 1):
        return reply.SYNTAX_ERROR
    if b"abort" in words:
        return b"-ERR No shutdown in progress.\r\n"
    # SAVE and NOSAVE have the same effect, because closing the store syncs the log, which has every
    # acknowledged write.
    return Stop("SHUTDOWN from a client")


@HANDLERS.handles("debug")
def debug(context: Context, request: Request) -> Outcome:
    argv = request.argv
    word = argv[1].lower()
    if word == b"sleep" and len(argv) == 3:
        return Later(_seconds(argv[2]), Reply(OK))
    if word == b"help" and len(argv) == 2:
        return reply.simples(table.help_of(table.BY_NAME["debug"]))
    return reply.unknown_or_wrong(argv[1], "debug")


def _seconds(text: bytes) -> float:
    """A number of seconds as strtod reads it, between 0 and 1e9.  Any other text is 0."""
    found = re.match(rb"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)", text)
    seconds = float(found[0]) if found else 0.0
    return min(max(0.0, seconds), 1e9) if math.isfinite(seconds) else 1e9
