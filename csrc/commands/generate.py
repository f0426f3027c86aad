"""Reads the command table (table/*.toml), checks it, and writes C.

    python3 csrc/commands/generate.py OUTPUT_DIRECTORY

writes two files to this directory:

  commands/handlers.h  the declaration of each handler in C
  commands/table.inc   the rows, in the order of their positions, and a perfect hash of their names

The build runs this program (oort/native_build.py, csrc/Makefile), so the repository has no
generated files.  The program fails with one line for a field that is unknown, missing or invalid,
for a row without a handler, and for a handler without a row.  table/README.md describes the fields.

A command's name is hashed as two words: its first and its last eight bytes, in lower case.
name_words() in table.c does the same at run time.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TABLE = HERE / "table"
# The folders with handlers: C functions command_NAME(struct oort_call *call), and Python functions
# that are registered under the full names of their commands.
C_ROOMS = (HERE, HERE.parent / "types")
PYTHON_ROOM = HERE.parent.parent / "oort" / "commands"

FLAGS = (
    "write", "readonly", "denyoom", "admin", "noscript", "loading", "stale", "fast", "no_auth",
    "allow_busy", "blocking", "no_multi", "no_async_loading",
)  # fmt: skip
# In Redis's order.
CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap",
    "hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous",
    "connection", "transaction", "scripting",
)  # fmt: skip
# The categories that each flag implies.  A command without "fast" is slow.
IMPLIED = {
    "write": ("write",),
    "readonly": ("read",),
    "admin": ("admin", "dangerous"),
    "blocking": ("blocking",),
    "fast": ("fast",),
}
NOTIFY = ("generic", "string", "list", "set", "hash", "zset", "stream")
ACCESS = (
    "RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "variable_flags",
)  # fmt: skip
ARGUMENT_TYPES = (
    "key", "string", "integer", "double", "pattern", "unix-time", "pure-token", "oneof", "block",
)  # fmt: skip

ROW_FIELDS = {
    "summary": str, "since": str, "complexity": str, "runs_in": str, "arity": int, "flags": list,
    "categories": list, "notify": list, "keys": dict, "arguments": list, "tips": list,
    "help": list,
}  # fmt: skip
KEY_FIELDS = {"first": int, "last": int, "step": int, "access": list, "note": str}
ARGUMENT_FIELDS = {
    "name": str, "type": str, "token": str, "optional": bool, "multiple": bool, "since": str,
    "deprecated_since": str, "of": list,
}  # fmt: skip

MOST_TRIES = 200_000  # the most multipliers tried for one size of the hash table
WORD = (1 << 64) - 1


class TableError(Exception):
    """The message is one line: the row, the error, and a hint."""


Row = dict[str, Any]


# ---- reading and checking ----------------------------------------------------------------


def _check_fields(where: str, row: Row, fields: dict[str, type], needed: tuple[str, ...]) -> None:
    for name, value in row.items():
        if name not in fields:
            raise TableError(f"{where}: unknown field {name!r}; known are {', '.join(fields)}")
        if type(value) is not fields[name]:
            raise TableError(f"{where}: {name} must be of type {fields[name].__name__}")
    for name in needed:
        if name not in row:
            raise TableError(f"{where}: {name} is missing")


def _check_words(where: str, words: list[str], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise TableError(f"{where}: unknown word {word!r}; known are {', '.join(known)}")


def _check_arguments(where: str, arguments: list[Row]) -> None:
    for argument in arguments:
        _check_fields(where, argument, ARGUMENT_FIELDS, ("name", "type"))
        _check_words(where, [argument["type"]], ARGUMENT_TYPES)
        if ("of" in argument) != (argument["type"] in ("oneof", "block")):
            raise TableError(f"{where}: an argument has `of` if and only if it is a oneof or block")
        _check_arguments(where, argument.get("of", []))


def _check(name: str, row: Row) -> None:
    _check_fields(name, row, ROW_FIELDS, ("summary", "since", "runs_in", "arity"))
    if re.fullmatch(r"[a-z][a-z0-9_-]*(\|[a-z][a-z0-9_-]*)?", name) is None:
        raise TableError(f"{name}: a name is lower case, a subcommand's is container|subcommand")
    _check_words(f"{name}: runs_in", [row["runs_in"]], ("c", "python"))
    _check_words(f"{name}: flags", row.get("flags", []), FLAGS)
    _check_words(f"{name}: categories", row.get("categories", []), CATEGORIES)
    _check_words(f"{name}: notify", row.get("notify", []), NOTIFY)
    if row["arity"] == 0:
        raise TableError(f"{name}: arity counts the name, and is negative for a minimum")
    _check_arguments(f"{name}: arguments", row.get("arguments", []))
    keys = row.get("keys")
    if keys is not None:
        _check_fields(f"{name}: keys", keys, KEY_FIELDS, ("first", "access"))
        _check_words(f"{name}: keys: access", keys["access"], ACCESS)
        if not 0 < keys["first"] < 256 or keys.get("step", 1) < 1 or keys.get("last", 1) == 0:
            raise TableError(f"{name}: keys: first and step are positive, last is not 0")
        if keys["first"] >= abs(row["arity"]):
            raise TableError(f"{name}: keys: the first key is beyond the smallest arity")
    if ("write" in row.get("flags", [])) and ("readonly" in row.get("flags", [])):
        raise TableError(f"{name}: flags: a command is either write or readonly")


def read_table(directory: Path = TABLE) -> dict[str, Row]:
    """All rows by name, in the order of their positions: that of the files and of their rows."""
    rows: dict[str, Row] = {}
    for path in sorted(directory.glob("*.toml")):
        with path.open("rb") as file:
            content = tomllib.load(file)
        group = content.pop("group", None)
        if group != path.stem:
            raise TableError(f"{path.name}: the file must begin with group = {path.stem!r}")
        for name, row in content.items():
            if name in rows:
                raise TableError(f"{name}: two rows have this name")
            if not isinstance(row, dict):
                raise TableError(f"{path.name}: {name} is not a row")
            _check(name, row)
            rows[name] = {**row, "group": group}
    for name in rows:
        if "|" in name and name.partition("|")[0] not in rows:
            raise TableError(f"{name}: the container of this subcommand has no row")
    return rows


def _c_handlers(rooms: tuple[Path, ...]) -> Iterator[str]:
    pattern = re.compile(r"^int32_t command_(\w+)\(struct oort_call \*call\)$", re.MULTILINE)
    for room in rooms:
        for path in sorted(room.glob("*.c")):
            yield from pattern.findall(path.read_text(encoding="utf-8"))


def _python_handlers(room: Path) -> Iterator[str]:
    for path in sorted(room.glob("*.py")):
        for names in re.findall(r"^@HANDLERS\.handles\(([^)]*)\)", path.read_text(), re.MULTILINE):
            yield from re.findall(r'"([^"]+)"', names)


def _compare(rows: set[str], handlers: list[str], language: str) -> None:
    for name in handlers:
        if name not in rows:
            raise TableError(f"{name}: {language} has a handler and the table has no row for it")
        if handlers.count(name) > 1:
            raise TableError(f"{name}: {language} has two handlers")
    for name in sorted(rows - set(handlers)):
        raise TableError(f"{name}: the table has a row and {language} has no handler for it")


def identifier(name: str) -> str:
    return name.replace("|", "_").replace("-", "_")


def is_container(name: str, rows: dict[str, Row]) -> bool:
    return any(other.startswith(name + "|") for other in rows)


def check_handlers(rows: dict[str, Row]) -> None:
    """Check that each command has one handler, in the language of its row.

    A container that needs a subcommand, according to its arity, has no handler.
    """
    native = {identifier(name) for name, row in rows.items() if row["runs_in"] == "c"}
    _compare(native, list(_c_handlers(C_ROOMS)), "C")
    if PYTHON_ROOM.is_dir():
        python = {
            name
            for name, row in rows.items()
            if row["runs_in"] == "python" and not (is_container(name, rows) and row["arity"] < -1)
        }
        _compare(python, list(_python_handlers(PYTHON_ROOM)), "Python")


# ---- details for documentation and clients -------------------------------------------------


def categories(row: Row) -> list[str]:
    found = set(row.get("categories", []))
    for flag in row.get("flags", []):
        found.update(IMPLIED.get(flag, ()))
    if "fast" not in found:
        found.add("slow")
    return [name for name in CATEGORIES if name in found]


def details(row: Row) -> str:
    """A row's details as JSON, which oort/commands/table.py reads."""
    keys = row.get("keys", {})
    return json.dumps(
        {
            "summary": row["summary"],
            "since": row["since"],
            "group": row["group"],
            "complexity": row.get("complexity", ""),
            "categories": categories(row),
            "notify": row.get("notify", []),
            "access": keys.get("access", []),
            "key_note": keys.get("note", ""),
            "arguments": row.get("arguments", []),
            "tips": row.get("tips", []),
            "help": row.get("help", []),
        },
        separators=(",", ":"),
    )


# ---- the perfect hash ------------------------------------------------------------------------


def name_words(name: str) -> tuple[int, int]:
    """The same as name_words() in table.c."""
    data = name.encode()
    lower = int.from_bytes(b"\x20" * 8, "little")
    head = data[:8]
    mask = lower & ((1 << (8 * len(head))) - 1)
    tail = int.from_bytes(data[-8:], "little") | lower if len(data) > 8 else 0
    return int.from_bytes(head, "little") | mask, tail


def hash_of(name: str, container: int, multiplier: int, bits: int) -> int:
    """The same as hash_of() in table.c.  container: its position; -1: the name is a command."""
    head, tail = name_words(name)
    rotated = (tail << 29 | tail >> 35) & WORD
    mixed = head ^ rotated ^ (container + 1) << 40 ^ len(name) << 56
    return ((mixed & WORD) * multiplier & WORD) >> (64 - bits)


def perfect_hash(entries: list[tuple[str, int]]) -> tuple[int, int, list[int]]:
    """A perfect hash of these (short name, position of the container).

    Returns the multiplier, the number of bits, and the position by hash; -1: no command.
    """
    draw = random.Random(1)
    for bits in range(max(4, len(entries).bit_length()), 15):
        for _ in range(MOST_TRIES // (1 << bits) + 1000):
            multiplier = draw.getrandbits(64) | 1
            places = [-1] * (1 << bits)
            for position, (name, container) in enumerate(entries):
                at = hash_of(name, container, multiplier, bits)
                if places[at] >= 0:
                    break
                places[at] = position
            else:
                return multiplier, bits, places
    raise TableError("no perfect hash was found for the names")


# ---- writing C -----------------------------------------------------------------------------------


def _literal(text: str) -> str:
    """A C string, in pieces that fit into a line.  No piece ends within an escape sequence."""
    escaped = [{'"': '\\"', "\\": "\\\\", "\n": "\\n"}.get(letter, letter) for letter in text]
    pieces: list[str] = [""]
    for part in escaped:
        if len(pieces[-1]) + len(part) > 80:
            pieces.append("")
        pieces[-1] += part
    return "\n        ".join(f'"{piece}"' for piece in pieces)


def handlers_header(rows: dict[str, Row]) -> str:
    native = [name for name, row in rows.items() if row["runs_in"] == "c"]
    return "\n".join(
        [
            "/* Made by commands/generate.py from commands/table/: the handlers in C. */",
            "#ifndef OORT_COMMANDS_HANDLERS_H",
            "#define OORT_COMMANDS_HANDLERS_H",
            "",
            '#include "commands/call.h"',
            "",
            *(f"int32_t command_{identifier(name)}(struct oort_call *call);" for name in native),
            "",
            "#endif",
            "",
        ]
    )


def table_source(rows: dict[str, Row]) -> str:
    positions = {name: position for position, name in enumerate(rows)}
    entries = []
    names = []
    lines = [
        "/* Made by commands/generate.py from commands/table/: part of table.c. */",
        f"#define COMMAND_COUNT {len(rows)}u",
        "const struct command_row command_rows[COMMAND_COUNT] = {",
    ]
    for name, row in rows.items():
        container, _, short = name.rpartition("|")
        above = positions[container] if container else -1
        entries.append((short, above))
        head, tail = name_words(short)
        flags = [f"OORT_CMD_{flag.upper()}" for flag in row.get("flags", [])]
        flags += ["OORT_CMD_NATIVE"] if row["runs_in"] == "c" else []
        flags += ["OORT_CMD_CONTAINER"] if is_container(name, rows) else []
        keys = row.get("keys", {})
        first = keys.get("first", 0)
        handler = f"command_{identifier(name)}" if row["runs_in"] == "c" else "NULL"
        container_word = "true" if is_container(name, rows) else "false"
        # The two words and the size identify a name of up to 16 letters.
        exact = "true" if short.isalpha() and len(short) <= 16 else "false"
        lines += [
            f'    {{.info = {{.name = "{name}",',
            f"              .details = {_literal(details(row))},",
            f"              .arity = {row['arity']},",
            f"              .flags = {' | '.join(flags) or '0'},",
            f"              .container = {above},",
            f"              .first_key = {first},",
            f"              .last_key = {keys.get('last', first)},",
            f"              .key_step = {keys.get('step', 1) if first else 0}}},",
            f"     .handler = {handler}}},",
        ]
        names.append(
            f"{{.head = UINT64_C(0x{head:016x}), .tail = UINT64_C(0x{tail:016x}),"
            f" .position = {positions[name]}, .container = {above}, .size = {len(short)},"
            f" .is_exact = {exact}, .is_container = {container_word},"
            f" .first_key = {first if row['runs_in'] == 'c' else 0}}}"
        )
    multiplier, bits, places = perfect_hash(entries)
    lines += [
        "};",
        f"#define COMMAND_HASH_MULTIPLIER UINT64_C(0x{multiplier:016x})",
        f"#define COMMAND_HASH_BITS {bits}",
        "/* By hash; size 0: no command has this hash. */",
        f"static const struct command_name names[{1 << bits}] = {{",
    ]
    lines += [
        f"    [{at}] = {names[position]}," for at, position in enumerate(places) if position >= 0
    ]
    return "\n".join([*lines, "};", ""])


def _write(path: Path, text: str) -> None:
    """Write a file, unless it has this text already: a new time would compile everything again."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate(directory: Path) -> None:
    rows = read_table()
    check_handlers(rows)
    room = directory / "commands"
    room.mkdir(parents=True, exist_ok=True)
    _write(room / "handlers.h", handlers_header(rows))
    _write(room / "table.inc", table_source(rows))


if __name__ == "__main__":
    try:
        generate(Path(sys.argv[1]))
    except TableError as error:
        sys.exit(f"csrc/commands/table: {error}")
