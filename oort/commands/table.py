"""The command table as Python sees it: rows read once from the C library.

Their source is csrc/commands/commands.def.
"""

from __future__ import annotations

from dataclasses import dataclass

from oort._native import ffi, lib


@dataclass(frozen=True, slots=True)
class Command:
    """One row: facts as in COMMAND INFO and COMMAND DOCS."""

    position: int
    name: str
    summary: str
    since: str
    group: str
    complexity: str
    categories: tuple[str, ...]
    arguments: str
    arity: int
    flags: int
    first_key: int
    last_key: int
    key_step: int

    @property
    def hot(self) -> bool:
        """Executed in C."""
        return bool(self.flags & lib.OORT_CMD_HOT)

    @property
    def container(self) -> str:
        """The command this is a subcommand of, or nothing."""
        return self.name.partition("|")[0] if "|" in self.name else ""

    def takes(self, count: int) -> bool:
        """Whether a request of so many arguments (the name is one) has the right number."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity


def _text(pointer: object) -> str:
    return str(ffi.string(pointer).decode())


def _read() -> tuple[Command, ...]:
    rows = []
    for position in range(lib.oort_command_count()):
        row = lib.oort_command_at(position)
        rows.append(
            Command(
                position=position,
                name=_text(row.name),
                summary=_text(row.summary),
                since=_text(row.since),
                group=_text(row.group),
                complexity=_text(row.complexity),
                categories=tuple(_text(row.categories).split()),
                arguments=_text(row.arguments),
                arity=row.arity,
                flags=row.flags,
                first_key=row.first_key,
                last_key=row.last_key,
                key_step=row.key_step,
            )
        )
    return tuple(rows)


COMMANDS: tuple[Command, ...] = _read()
BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}
TOP_LEVEL: tuple[Command, ...] = tuple(command for command in COMMANDS if not command.container)
SUBCOMMANDS: dict[str, dict[str, Command]] = {}
for _command in COMMANDS:
    if _command.container:
        _short = _command.name.partition("|")[2]
        SUBCOMMANDS.setdefault(_command.container, {})[_short] = _command


def find(name: bytes) -> Command | None:
    """A command or, as "client|id", a subcommand, in any case."""
    return BY_NAME.get(name.decode("ascii", "replace").lower())
