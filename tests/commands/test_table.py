"""One table: every cold command has a handler, and the pages made from the sources are current."""

from __future__ import annotations

import re
from pathlib import Path

from oort.commands import page as commands_page
from oort.commands import table
from oort.commands.arguments import ARGUMENTS, Argument
from oort.commands.command import _KEY_FLAGS
from oort.commands.handlers import ALL
from oort.config import page as config_page
from oort.config.settings import resolve

ROOT = Path(__file__).parent.parent.parent


def test_handlers_are_exactly_the_cold_commands() -> None:
    cold = {
        command.name
        for command in table.COMMANDS
        if not command.hot and (command.name not in table.SUBCOMMANDS or command.name == "command")
    }
    assert set(ALL) == cold


def test_every_command_with_keys_says_how_it_uses_them() -> None:
    with_keys = {command.name for command in table.COMMANDS if command.first_key}
    assert set(_KEY_FLAGS) == with_keys


def words(arguments: tuple[Argument, ...]) -> set[str]:
    return {one.word for one in arguments} | {word for one in arguments for word in words(one.of)}


def test_the_syntax_of_a_command_is_that_of_its_arguments() -> None:
    assert {command.name for command in table.COMMANDS if command.arguments} == set(ARGUMENTS)
    for name, arguments in ARGUMENTS.items():
        syntax = set(re.findall(r"[A-Z][A-Z-]+", table.BY_NAME[name].arguments))
        assert words(arguments) - {""} == syntax, name


def test_the_commands_page_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == commands_page.documentation()


def test_the_configuration_page_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == config_page.documentation()


def test_defaults_pass_their_own_checks() -> None:
    settings = resolve([]).settings
    assert settings.value_cap == 512 * 1024 * 1024
    assert settings.listen_address == ("0.0.0.0:6139",)
    assert settings.protected_mode is True
    assert settings.workers >= 1
