"""There is one clock, and code that makes decisions uses neither a clock nor the network.

Production and simulation can therefore run the same code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

OORT = Path(__file__).parents[2] / "oort"

CLOCK = "clock.py"

# Code that makes decisions.  It takes the time and facts about the network as arguments.
DECIDES = (
    "commands/figures.py",
    "commands/glob.py",
    "config/layers.py",
    "config/settings.py",
    "membership/configuration.py",
    "membership/discovery.py",
    "membership/transitions.py",
    "ring/builder.py",
    "ring/rebalance.py",
    "ring/report.py",
    "ring/ring.py",
    "ring/shares.py",
    "synd/draft.py",
    "synd/registration.py",
)
ASKS = frozenset(
    {"asyncio", "dns", "grpc", "oort.clock", "oort.machine", "select", "socket", "threading"}
)


def imported(path: Path) -> Iterator[str]:
    """The names of imported modules, and of names imported from modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources() -> list[Path]:
    return [path for path in sorted(OORT.rglob("*.py")) if "_pb2" not in path.name]


def test_only_the_clock_asks_the_system_for_the_time() -> None:
    for path in sources():
        if path.relative_to(OORT) == Path(CLOCK):
            continue
        assert "time" not in set(imported(path)), f"{path}: use oort/clock.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("now", "utcnow", "today"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", DECIDES)
def test_code_that_decides_asks_nobody(name: str) -> None:
    assert not set(imported(OORT / name)) & ASKS
