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

from oort.commands import reply, table
from oort.commands.context import Context
from oort.commands.figures import Figures
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


# Containers that find their subcommands themselves: Redis has none in its table for these.
_OPEN_CONTAINERS = frozenset({"debug"})


def find(
    handlers: Mapping[str, Handler], request: Request, figures: Figures
) -> tuple[str, Handler] | bytes:
    """The full name and handler of a request whose command is known, or an error reply."""
    command = table.COMMANDS[request.command]
    short = table.SUBCOMMANDS.get(command.name)
    if short is None or command.name in _OPEN_CONTAINERS or len(request.argv) == 1:
        return command.name, handlers[command.name]
    word = request.argv[1].decode("ascii", "replace").lower()
    subcommand = short.get(word)
    if subcommand is None:
        return reply.unknown_subcommand(request.argv[1], command.name)
    if not subcommand.takes(len(request.argv)):
        figures.rejected(subcommand.name)
        return reply.wrong_arity(subcommand.name)
    return subcommand.name, handlers[subcommand.name]
