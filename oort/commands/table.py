"""The command table for Python: rows that are read once from the C library.

The source of the rows is csrc/commands/table/.  Its README describes the fields.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from oort._native import ffi, lib


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument.  of: the parts of a block, or the alternatives of a oneof."""

    name: str
    type: str  # key, string, integer, double, pattern, unix-time, pure-token, oneof or block
    token: str = ""  # the word before the argument; for a pure-token, the argument itself
    optional: bool = False
    multiple: bool = False
    since: str = ""
    deprecated_since: str = ""
    of: tuple[Argument, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(name for name in ("optional", "multiple") if getattr(self, name))

    def syntax(self) -> str:
        """In the notation of Redis: `[EX seconds|PX milliseconds]`, `key [key ...]`."""
        if self.type == "oneof":
            text = "|".join(argument.syntax() for argument in self.of)
            if self.token or not self.optional:
                text = f"<{text}>"
        elif self.type == "block":
            text = " ".join(argument.syntax() for argument in self.of)
        else:
            text = "" if self.type == "pure-token" else self.name
        text = " ".join(part for part in (self.token, text) if part)
        if self.multiple:
            text = f"{text} [{text} ...]"
        return f"[{text}]" if self.optional else text


@dataclass(frozen=True, slots=True)
class Command:
    """A row.  The facts have the meanings of COMMAND INFO and COMMAND DOCS."""

    position: int
    name: str
    container: str  # of a subcommand: the name of its command; otherwise ""
    arity: int
    flags: int
    first_key: int  # 0: no keys
    last_key: int
    key_step: int
    summary: str
    since: str
    group: str
    complexity: str
    categories: tuple[str, ...]  # of ACL, without the @
    notify: tuple[str, ...]  # classes of keyspace notifications
    access: tuple[str, ...]  # how the command uses its keys
    key_note: str
    arguments: tuple[Argument, ...]
    tips: tuple[str, ...]
    help: tuple[str, ...]  # lines for the HELP of the container

    @property
    def native(self) -> bool:
        """Whether C executes the command."""
        return bool(self.flags & lib.OORT_CMD_NATIVE)

    @property
    def short_name(self) -> str:
        """The name without the container."""
        return self.name.rpartition("|")[2]

    def takes(self, count: int) -> bool:
        """Whether a request may have this many arguments, the name included."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def syntax(self) -> str:
        """All arguments in one line."""
        return " ".join(argument.syntax() for argument in self.arguments)


def _text(pointer: object) -> str:
    return str(ffi.string(pointer).decode())


def _arguments(rows: list[dict[str, Any]]) -> tuple[Argument, ...]:
    return tuple(Argument(**{**row, "of": _arguments(row.get("of", []))}) for row in rows)


def _read() -> tuple[Command, ...]:
    rows = [lib.oort_command_at(position) for position in range(lib.oort_command_count())]
    names = [_text(row.name) for row in rows]
    commands = []
    for position, row in enumerate(rows):
        details: dict[str, Any] = json.loads(_text(row.details))
        arguments = _arguments(details.pop("arguments"))
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in details.items()
        }
        commands.append(
            Command(
                position=position,
                name=names[position],
                container=names[row.container] if row.container >= 0 else "",
                arity=row.arity,
                flags=row.flags,
                first_key=row.first_key,
                last_key=row.last_key,
                key_step=row.key_step,
                arguments=arguments,
                **facts,
            )
        )
    return tuple(commands)


COMMANDS: tuple[Command, ...] = _read()
BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}
TOP_LEVEL: tuple[Command, ...] = tuple(command for command in COMMANDS if not command.container)
# By container and short name, in the order of the table.
SUBCOMMANDS: dict[str, dict[str, Command]] = {}
for _command in COMMANDS:
    if _command.container:
        SUBCOMMANDS.setdefault(_command.container, {})[_command.short_name] = _command


def find(name: bytes) -> Command | None:
    """The command, or the subcommand such as "client|id".  Case does not matter."""
    return BY_NAME.get(name.decode("ascii", "replace").lower())


def help_of(command: Command) -> tuple[str, ...]:
    """The lines of HELP, for a container or for a command that parses its subcommands itself."""
    below = SUBCOMMANDS.get(command.name, {}).values()
    return (
        f"{command.name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        *command.help,
        *(line for subcommand in below for line in subcommand.help),
        "HELP",
        "    Prints this help.",
    )
