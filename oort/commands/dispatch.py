"""From a cold request to the function that executes it.

Handlers register under their name in the command table ("client|id").  What a handler returns
decides how its connection goes on:
 - bytes or a Reply: answered at once;
 - Later: answered after a time, nothing else waits;
 - a generator: a job for the helper thread (see jobs.py), for what takes long or may read the disk;
 - None: never answered (SHUTDOWN).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oort.commands import reply, table
from oort.commands.reply import Reply
from oort.daemon.jobs import Job
from oort.dataplane import Request

if TYPE_CHECKING:
    from oort.daemon.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Later:
    seconds: float
    reply: Reply


Answer = bytes | Reply
Outcome = Answer | Later | Job[Answer] | None
Handler = Callable[["Daemon", Request], Outcome]

HANDLERS: dict[str, Handler] = {}

# Containers that find their subcommands themselves: Redis has none in its table for these.
_OPEN_CONTAINERS = frozenset({"debug"})


def handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


@dataclass(slots=True)
class SubcommandStats:
    """What the data plane cannot count: it sees containers only."""

    calls: int = 0
    failed: int = 0
    rejected: int = 0


@dataclass(slots=True)
class Dispatcher:
    stats: dict[str, SubcommandStats] = field(default_factory=dict)
    nanoseconds: dict[str, int] = field(default_factory=dict)

    def reset(self) -> None:
        self.stats.clear()
        self.nanoseconds.clear()

    def spent(self, name: str, nanoseconds: int) -> None:
        """Add to the time a command has taken, waiting for its turn not counted."""
        self.nanoseconds[name] = self.nanoseconds.get(name, 0) + nanoseconds

    def find(self, request: Request) -> tuple[str, Handler] | bytes:
        """The full name and handler of a request whose command is known, or an error reply."""
        command = table.COMMANDS[request.command]
        short = table.SUBCOMMANDS.get(command.name)
        if short is None or command.name in _OPEN_CONTAINERS or len(request.argv) == 1:
            return command.name, HANDLERS[command.name]
        word = request.argv[1].decode("ascii", "replace").lower()
        subcommand = short.get(word)
        if subcommand is None:
            return reply.unknown_subcommand(request.argv[1], command.name)
        if not subcommand.takes(len(request.argv)):
            self._of(subcommand.name).rejected += 1
            return reply.wrong_arity(subcommand.name)
        return subcommand.name, HANDLERS[subcommand.name]

    def count(self, name: str, answer: Answer) -> None:
        if "|" not in name:
            return
        stats = self._of(name)
        stats.calls += 1
        data = answer.data if isinstance(answer, Reply) else answer
        stats.failed += data.startswith(b"-")

    def _of(self, name: str) -> SubcommandStats:
        return self.stats.setdefault(name, SubcommandStats())
