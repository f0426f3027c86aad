"""Man pages, made from the programs' own help.

    usage(program, library) -> Usage    the program's argument parser
    page(usage, ...) -> str             the program's man page, in roff

The program's entry point is run with `--help`, and its argparse parser is intercepted.  A page can
therefore not differ from the program.  If a program writes its help by itself, its page contains
the unchanged text.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from description import DescriptionError, Program

PARTS = {1: "User Commands", 8: "System Administration"}


@dataclass(frozen=True)
class Usage:
    """A program with its parser, or with the text of its help if it has no parser."""

    program: Program
    parser: argparse.ArgumentParser | None
    text: str
    # Commands by name: those of the parser, and those that have their own --help.
    commands: Mapping[str, argparse.ArgumentParser]


def usage(program: Program, library: Path) -> Usage:
    """Run the program's entry point with --help in this process; library: oort's directory."""
    sys.dont_write_bytecode = True
    if str(library) not in sys.path:
        sys.path.insert(0, str(library))
    function = getattr(importlib.import_module(program.module), program.function)
    parser, text = _help_of(function, "--help")
    if parser is None and not text:
        raise DescriptionError(f"{program.name} --help prints nothing")
    below = commands(parser) if parser else {}
    for command in program.commands:
        found, _ = _help_of(function, command, "--help")
        if found is None:
            raise DescriptionError(f"{program.name} {command} --help prints nothing")
        below[command] = found
    return Usage(program, parser, text, below)


def _help_of(
    function: Callable[[list[str]], int], *arguments: str
) -> tuple[argparse.ArgumentParser | None, str]:
    """The parser that had to print its help, if there is one, and the printed text."""
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, file: object = None) -> None:
        caught.append(parser)

    stored = io.BytesIO()
    printed = io.TextIOWrapper(stored, encoding="utf-8")  # like the stdout of a program
    with (
        mock.patch.object(argparse.ArgumentParser, "print_help", catch),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        function(list(arguments))
    printed.flush()
    text = stored.getvalue().decode()
    if not caught:
        return None, text
    parser = caught[0]
    if getattr(parser.format_help, "__func__", None) is not argparse.ArgumentParser.format_help:
        return None, parser.format_help()
    return parser, text


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option in the output of --help."""
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield action


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the program's commands by name; empty if it has no commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def values(action: argparse.Action) -> str:
    """The value of the option or argument, as --help writes it."""
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _escape(text: str) -> str:
    """Text that roff prints unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def _paragraphs(text: str | None) -> list[str]:
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        if paragraph:
            lines += [".PP", _escape(" ".join(paragraph.split()))]
    return lines


def _synopsis(usage: Usage) -> list[str]:
    if usage.parser is None:
        return [f".B {_escape(usage.program.name)}", ".I ARGUMENTS"]
    shown = " ".join(usage.parser.format_usage().removeprefix("usage:").split())
    rest = shown.removeprefix(usage.parser.prog).strip()
    return [f".B {_escape(usage.parser.prog)}", _escape(rest)]


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if not action.help:
        return ""
    named: dict[str, Any] = {**vars(action), "prog": parser.prog}
    if action.choices is not None:
        named["choices"] = ", ".join(map(str, action.choices))
    return " ".join((action.help % named).split())


def _entry(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    takes = values(action)
    if action.option_strings:
        names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in action.option_strings)
        term = names + (f" \\fI{_escape(takes)}\\fR" if takes else "")
    else:
        term = f"\\fI{_escape(takes)}\\fR"
    return [".TP", term, _escape(_help(parser, action)) or "\\&"]


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, list[str]]]:
    """Title, introduction and entries of each group of arguments that has entries."""
    for group in parser._action_groups:
        entries: list[str] = []
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
                continue
            entries += _entry(parser, action)
        if entries:
            yield group.title or "options", group.description or "", entries


def _commands(
    parser: argparse.ArgumentParser, found: Mapping[str, argparse.ArgumentParser], above: str = ""
) -> Iterator[str]:
    summaries: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                summaries[choice.dest] = choice.help or ""
    for name, command in found.items():
        yield f'.SS "{_escape(f"{above} {name}".strip())}"'
        about = command.description or summaries.get(name, "")
        yield from _paragraphs(about)
        yield ".PP"
        shown = " ".join(command.format_usage().removeprefix("usage:").split())
        yield _escape(shown)
        for _, introduction, entries in _groups(command):
            yield from _paragraphs(introduction)
            yield from entries
        yield from _commands(command, commands(command), f"{above} {name}".strip())


def _environment() -> Iterator[str]:
    """oortd's settings, from oort/config/settings.py."""
    config = importlib.import_module("oort.config.settings")
    for name, about in config.RING_ENVIRONMENT.items():
        yield ".TP"
        yield f"\\fB{_escape(name)}\\fR"
        yield _escape(about)
    for setting in config.SETTINGS:
        default = setting.default or "empty"
        text = f"{setting.doc} Takes {config.wanted(setting)}. Default: {default}."
        yield ".TP"
        yield f"\\fB{_escape(setting.environment)}\\fR"
        yield _escape(" ".join(text.replace("`", "").split()))


_FILES = {
    "oortd": {
        "/etc/default/oortd": "Environment of the service. It may hold every variable above.",
        "/etc/oort": "Configuration, keys and certificates of this node.",
        "/etc/oort/join.token": "The join token. It is needed until the node has its certificate.",
        "/var/lib/oort": "The data and the ring. apt purge removes them, apt remove does not.",
        "/var/cache/oortd-config.cache": "The last configuration from a syndicate.",
        "/usr/share/doc/oortd": "Documents for operators.",
    },
    "synd": {
        "/etc/oort/syndicate.conf": "The configuration of synd.",
        "/var/lib/oort/synd": "The state of synd.",
    },
    "syndicate-client": {"/etc/oort/syndicate.conf": "The address of the syndicate."},
}


def page(usage: Usage, *, version: str, epoch: int) -> str:
    program, parser = usage.program, usage.parser
    date = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    lines = [
        f'.TH "{program.name.upper()}" "{program.section}" "{date}" "oort {version}"'
        f' "{PARTS[program.section]}"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_escape(program.name)} \\- {_escape(program.summary)}",
        ".SH SYNOPSIS",
        *_synopsis(usage),
        ".SH DESCRIPTION",
    ]
    if parser is None:
        lines += [".nf", *_escape(usage.text.rstrip()).splitlines(), ".fi"]
    else:
        described = _paragraphs(parser.description) or _paragraphs(
            f"{program.summary.capitalize()}."
        )
        lines += described[1:] if described[0] == ".PP" else described
        for title, introduction, entries in _groups(parser):
            lines += [f'.SH "{_escape(title.upper())}"', *_paragraphs(introduction), *entries]
        found = list(_commands(parser, usage.commands))
        lines += [".SH COMMANDS", *found] if found else []
        if parser.epilog:
            lines += [".SH NOTES", *_paragraphs(textwrap.dedent(parser.epilog))[1:]]
    if program.name == "oortd":
        lines += [".SH ENVIRONMENT", *_environment()]
    if program.name in _FILES:
        lines.append(".SH FILES")
        for path, about in _FILES[program.name].items():
            lines += [".TP", f"\\fI{_escape(path)}\\fR", _escape(about)]
    return "\n".join(lines) + "\n"
