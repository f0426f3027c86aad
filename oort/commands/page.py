"""docs/commands.md, made from the command table: `python -m oort.commands.page`."""

from __future__ import annotations

from pathlib import Path

from oort.commands import table


def documentation() -> str:
    """The whole page."""
    lines = [
        "# Commands",
        "",
        "Made from `csrc/commands/commands.def` by `python -m oort.commands.page`;"
        " change it there.",
        "",
        "Commands behave as in Redis 7.0 (or the version they came with); differences are in",
        "[compatibility.md](compatibility.md). *C* marks those the data path executes itself; the",
        "others run in the control process and delay nobody but their own connection.",
    ]
    groups = dict.fromkeys(command.group for command in table.COMMANDS)
    for group in groups:
        lines += [
            "",
            f"## {group.capitalize()}",
            "",
            "| command | | since |",
            "| --- | --- | --- |",
        ]
        for command in table.COMMANDS:
            if command.group != group:
                continue
            syntax = f"{command.name.replace('|', ' ').upper()} {command.arguments}".strip()
            mark = " *C*" if command.hot else ""
            summary = command.summary.replace("|", "\\|").rstrip(".")
            escaped = syntax.replace("|", "\\|")
            lines.append(f"| `{escaped}` | {summary}.{mark} | {command.since} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    root = Path(__file__).parent.parent.parent
    root.joinpath("docs", "commands.md").write_text(documentation())
