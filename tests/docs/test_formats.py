"""Checks every offset, size and constant in docs/formats.md against the C structures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text()

STRUCT = re.compile(
    r"^### `([\w ]+)`, in `csrc/([\w./]+)`\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL
)
FIELD = re.compile(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", re.MULTILINE)
CONSTANT = re.compile(r"^\| `([A-Z_]+)` \| (\d+) \|$", re.MULTILINE)
SOURCES = ("log/vlog.h", "log/toc.h", "index/index_trie.h", "index/index_blocks.c")


def compile_checks(sources: list[str], checks: list[str]) -> None:
    """Each check is an integer constant expression of C that must be true."""
    text = "".join(f'#include "{source}"\n' for source in sources)
    text += "".join(f'_Static_assert({check}, "{check}");\n' for check in checks)
    done = subprocess.run(
        ["gcc", "-std=c11", "-D_GNU_SOURCE", "-I.", "-fsyntax-only", "-w", "-xc", "-"],
        input=text,
        cwd=ROOT / "csrc",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "source", "body"), STRUCT.findall(PAGE))
def test_structures(name: str, source: str, body: str) -> None:
    fields = [(int(offset), int(size), field) for offset, size, field in FIELD.findall(body)]
    end = 0
    for offset, size, field in fields:
        assert offset == end, f"{name}.{field}: a gap or an overlap"
        end += size
    checks = [f"sizeof({name}) == {end}"]
    for offset, size, field in fields:
        checks.append(f"offsetof({name}, {field}) == {offset}")
        checks.append(f"sizeof((({name} *)0)->{field}) == {size}")
    compile_checks([source], checks)


def test_constants() -> None:
    constants = CONSTANT.findall(PAGE)
    compile_checks(list(SOURCES), [f"{name} == {value}" for name, value in constants])


def test_all_tables_of_the_page_are_found() -> None:
    assert len(STRUCT.findall(PAGE)) == 11
    assert len(CONSTANT.findall(PAGE)) == 24
