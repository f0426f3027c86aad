"""From a request to the function that executes it, and the outcomes of such a function.

Each file of commands registers its handlers in its HANDLERS, by the names of their commands in the
command table, such as "client|id".  oort/commands/handlers.py has all of them.  The outcome of a
handler decides what happens to its connection:
 - bytes or a Reply: the connection gets this reply at once;
 - Later: the data plane sends the reply after a time, and only this connection waits;
 - a generator: a Job for the helper thread, because the command takes long or may read the disk;
 - Background: the connection gets the reply at once, and a Job runs in the background;
 - Stop: the connection gets no reply, and the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from oort.commands import table
from oort.commands.context import Context
from oort.dataplane import Reply, Request

Result = TypeVar("Result")

# A job does a slice of its work between two yields.  Its return value is the result.
Job = Generator[None, None, Result]


@dataclass(frozen=True, slots=True)
class Later:
    seconds: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Background:
    reply: bytes
    job: Job[object]
    done: Callable[[object], None]  # called on the main loop with the result or the exception


@dataclass(frozen=True, slots=True)
class Stop:
    reason: str


Answer = bytes | Reply
Outcome = Answer | Later | Job[Answer] | Background | Stop
Handler = Callable[[Context, Request], Outcome]


class Handlers(dict[str, Handler]):
    """Handlers by the names of their commands."""

    def handles(self, *names: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            for name in names:
                self[name] = handler
            return handler

        return register


def find(handlers: Mapping[str, Handler], request: Request) -> tuple[str, Handler]:
    """The full name and the handler of a request's command or subcommand.

    The data path has found the command already and has checked its arity.
    """
    name = table.COMMANDS[request.command].name
    return name, handlers[name]
