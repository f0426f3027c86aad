"""The command table is checked, matches its handlers, and the pages made from it are current."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oort.commands import page as commands_page
from oort.commands import table
from oort.commands.handlers import ALL
from oort.config import page as config_page
from oort.config.settings import resolve

ROOT = Path(__file__).parent.parent.parent

_SPEC = importlib.util.spec_from_file_location(
    "generate", ROOT / "csrc" / "commands" / "generate.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)


def test_the_table_and_the_handlers_of_python_fit() -> None:
    """The build compares the table with the sources.  This test uses the registered handlers."""
    python = {
        command.name
        for command in table.COMMANDS
        if not command.native and (command.name not in table.SUBCOMMANDS or command.arity == -1)
    }
    assert set(ALL) == python


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arity": None}, "get: arity is missing"),
        ({"sumary": "x"}, "get: unknown field 'sumary'"),
        ({"flags": ["readonly", "quick"]}, "get: flags: unknown word 'quick'"),
        ({"flags": ["readonly", "write"]}, "either write or readonly"),
        ({"keys": {"first": 2, "access": ["RO"]}}, "beyond the smallest arity"),
        ({"keys": {"first": 1, "access": ["R"]}}, "get: keys: access: unknown word 'R'"),
        ({"arguments": [{"name": "x", "type": "oneof"}]}, "has `of`"),
    ],
)
def test_a_wrong_row_fails_the_build(tmp_path: Path, change: dict[str, object], told: str) -> None:
    row: dict[str, object] = {
        "summary": "Get",
        "since": "1.0.0",
        "runs_in": "c",
        "arity": 2,
        "keys": {"first": 1, "access": ["RO"]},
    }
    changed = {name: value for name, value in (row | change).items() if value is not None}
    (tmp_path / "string.toml").write_text(f'group = "string"\n[get]\n{_toml(changed)}')
    with pytest.raises(generate.TableError, match=re.escape(told)):
        generate.read_table(tmp_path)


def _toml(row: dict[str, object]) -> str:
    """A row as TOML."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in row.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def test_a_handler_without_a_row_and_a_row_without_a_handler_fail_the_build() -> None:
    rows = generate.read_table()
    generate.check_handlers(rows)
    without = {name: row for name, row in rows.items() if name != "get"}
    with pytest.raises(generate.TableError, match="get: C has a handler"):
        generate.check_handlers(without)
    with pytest.raises(generate.TableError, match="getx: the table has a row and C has no handler"):
        generate.check_handlers(rows | {"getx": rows["get"]})
    without = {name: row for name, row in rows.items() if name != "client|id"}
    with pytest.raises(generate.TableError, match=r"client\|id: Python has a handler"):
        generate.check_handlers(without)
    with pytest.raises(generate.TableError, match="ask: the table has a row and Python has no"):
        generate.check_handlers(rows | {"ask": rows["dbsize"]})


@settings(deadline=None)
@given(st.sets(st.from_regex(r"[a-z][a-z0-9_-]{0,30}", fullmatch=True), min_size=1, max_size=300))
def test_the_hash_of_any_names_is_perfect(names: set[str]) -> None:
    entries = [(name, number % 3 - 1) for number, name in enumerate(sorted(names))]
    multiplier, bits, places = generate.perfect_hash(entries)
    for position, (name, container) in enumerate(entries):
        assert places[generate.hash_of(name, container, multiplier, bits)] == position


def test_every_command_with_keys_says_how_it_uses_them() -> None:
    for command in table.COMMANDS:
        assert bool(command.access) == bool(command.first_key), command.name


def test_the_commands_page_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == commands_page.documentation()


def test_the_configuration_page_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == config_page.documentation()


def test_defaults_pass_their_own_checks() -> None:
    defaults = resolve([]).settings
    assert defaults.value_cap == 512 * 1024 * 1024
    assert defaults.listen_address == ("0.0.0.0:6139",)
    assert defaults.protected_mode is True
    assert defaults.workers >= 1
