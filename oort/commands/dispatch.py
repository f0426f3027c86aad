"""From a request to the function that executes it, and what that function may answer.

Each file of commands has its handlers in one Handlers, by their names in the command table
("client|id"); oort/commands/handlers.py has all of them.  What a handler returns decides how its
connection goes on:
 - bytes or a Reply: answered at once;
 - Later: answered by the data plane after a time, while only its connection waits;
 - a generator: a Job for the helper thread, for what takes long or may read the disk;
 - Background: answered at once, and a Job is done behind the client's back;
 - Stop: never answered, the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from oort.commands import table
from oort.commands.context import Context
from oort.dataplane import Reply, Request

Result = TypeVar("Result")

# Does a slice of work, yields, and so on; its return value is the result.
Job = Generator[None, None, Result]


@dataclass(frozen=True, slots=True)
class Later:
    seconds: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Background:
    reply: bytes
    job: Job[object]
    done: Callable[[object], None]  # is given the result, or the exception, on the main loop


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
    """The full name and the handler of a request.  The data path has found the command, or the
    subcommand, and checked its arity."""
    name = table.COMMANDS[request.command].name
    return name, handlers[name]
