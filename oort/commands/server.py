"""Commands about the server: TIME, SHUTDOWN, the saving commands and DEBUG.

A log store has every acknowledged write in its log already.  SAVE therefore means: on the device
when this returns; BGSAVE: the same behind the client's back; LASTSAVE: when that was last so.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

from oort.commands import reply
from oort.commands.dispatch import Later, Outcome, handles
from oort.commands.reply import OK, Reply
from oort.daemon.jobs import Job
from oort.dataplane import Request
from oort.errors import OortError
from oort.journal import log

if TYPE_CHECKING:
    from oort.daemon.daemon import Daemon

DEBUG_HELP = (
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "SLEEP <seconds>",
    "    Answer after <seconds>. Decimals allowed. Other connections are served meanwhile.",
    "HELP",
    "    Prints this help.",
)


@handles("time")
def time_of_day(daemon: Daemon, request: Request) -> bytes:
    microseconds = time.time_ns() // 1000
    return reply.bulks([str(microseconds // 1_000_000), str(microseconds % 1_000_000)])


@handles("lastsave")
def lastsave(daemon: Daemon, request: Request) -> bytes:
    return reply.integer(last_save(daemon))


def last_save(daemon: Daemon) -> int:
    """Seconds since the epoch; like Redis, the start counts as a save."""
    return max(int(daemon.store.stats().last_sync_ms) // 1000, int(daemon.started))


@handles("save")
def save(daemon: Daemon, request: Request) -> Job[bytes]:
    yield
    daemon.store.sync()
    return OK


@handles("bgsave")
def bgsave(daemon: Daemon, request: Request) -> bytes:
    argv = request.argv
    if len(argv) > 2 or (len(argv) == 2 and argv[1].lower() != b"schedule"):
        return reply.SYNTAX_ERROR
    if daemon.saving:
        return b"-ERR Background save already in progress\r\n"
    daemon.saving = True

    def job() -> Job[None]:
        yield
        daemon.store.sync()

    def done(result: object) -> None:
        daemon.saving = False
        if isinstance(result, OortError):
            log.error("background save failed: %s", result)

    daemon.run_job(job(), done)
    return b"+Background saving started\r\n"


@handles("shutdown")
def shutdown(daemon: Daemon, request: Request) -> Outcome:
    words = [word.lower() for word in request.argv[1:]]
    if not set(words) <= {b"save", b"nosave", b"now", b"force", b"abort"}:
        return reply.SYNTAX_ERROR
    if {b"save", b"nosave"} <= set(words) or (b"abort" in words and len(words) > 1):
        return reply.SYNTAX_ERROR
    if b"abort" in words:
        return b"-ERR No shutdown in progress.\r\n"
    # Everything acknowledged is in the log, and closing syncs it: SAVE and NOSAVE end alike.
    daemon.stop("SHUTDOWN from a client")
    return None


@handles("debug")
def debug(daemon: Daemon, request: Request) -> Outcome:
    argv = request.argv
    word = argv[1].lower()
    if word == b"sleep" and len(argv) == 3:
        return Later(_seconds(argv[2]), Reply(OK))
    if word == b"help" and len(argv) == 2:
        return reply.simples(DEBUG_HELP)
    return reply.unknown_or_wrong(argv[1], "debug")


def _seconds(text: bytes) -> float:
    """As strtod reads it: what is not a number is 0."""
    found = re.match(rb"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)", text)
    seconds = float(found[0]) if found else 0.0
    return min(max(0.0, seconds), 1e9) if math.isfinite(seconds) else 1e9
