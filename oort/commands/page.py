"""Makes docs/commands.md from the command table: `python -m oort.commands.page`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from oort.commands import table

WIDTH = 118


def documentation() -> str:
    """The whole page."""
    lines = [
        "# Commands",
        "",
        "Made from `csrc/commands/table/` by `python -m oort.commands.page`; change it there.",
        "",
        "Commands behave as in Redis 7.0, or as in the Redis version that introduced them if that",
        "is newer. [compatibility.md](compatibility.md) lists the differences. The data path",
        "executes the commands marked *C* (native commands). The control process executes the",
        "other commands, which delay only their own connection.",
    ]
    groups = dict.fromkeys(command.group for command in table.COMMANDS)
    for group in groups:
        lines += ["", f"## {group.capitalize()}", ""]
        for command in table.COMMANDS:
            if command.group == group:
                lines += _item(command)
    return "\n".join(lines) + "\n"


def _item(command: table.Command) -> list[str]:
    syntax = f"{command.name.replace('|', ' ').upper()} {command.syntax()}".strip()
    mark = "*C*, since" if command.native else "Since"
    return textwrap.wrap(
        f"`{syntax}`: {command.summary.rstrip('.')}. {mark} {command.since}.",
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    root = Path(__file__).parent.parent.parent
    root.joinpath("docs", "commands.md").write_text(documentation())
