"""Checks the dependencies between the project's rooms against the table in rooms.toml.

    python lint/rooms.py [ROOT]

A room is a folder of csrc/, a header directly in csrc/, or a sub-package or top-level module of
oort/.  Each room has a row in the table, which lists everything that the room may use.  The check
reads all #include lines of C and all import statements of Python.  It does not see names that a
program builds at run time.

It reports dependencies that a row does not allow, includes and imports of files that do not exist,
rooms without a row, rows without a room, circles in the table, and folders whose README.md is
missing or longer than ten lines.  Each problem is one line on stdout.  The exit status is 1 if
there are problems.  A table without rows is not checked.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

README_LINES = 10
TABLE = Path("lint/rooms.toml")

Rows = Mapping[str, Sequence[str]]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"')
_C_SUFFIXES = {".c", ".h", ".def"}
_PYTHON_SUFFIXES = {".py", ".pyi"}


@dataclass(frozen=True)
class Use:
    """A line of a source file that uses another part.

    `part` is a path below the root folder, or a dotted module name without the package's name.
    """

    file: Path
    line: int
    room: str
    part: str


class Section(ABC):
    """The sources of one language: their rooms, and the parts that they use."""

    name: str
    folder: str
    separator: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources = root / self.folder

    @abstractmethod
    def rooms(self) -> set[str]: ...

    @abstractmethod
    def uses(self) -> Iterator[Use]: ...

    @abstractmethod
    def exists(self, part: str) -> bool: ...

    def room_of(self, part: str) -> str:
        return part.split(self.separator)[0]

    def allows(self, entry: str, part: str) -> bool:
        return part == entry or part.startswith(entry + self.separator)


class CSection(Section):
    """C: every #include gives a path below csrc/, so that the line names the room."""

    name, folder, separator = "c", "csrc", "/"

    def _files(self) -> Iterator[Path]:
        for path in sorted(self.sources.glob("*.h")):
            yield path
        for path in sorted(self.sources.glob("*/*")):
            if path.suffix in _C_SUFFIXES:
                yield path

    def rooms(self) -> set[str]:
        return {path.relative_to(self.sources).parts[0] for path in self._files()}

    def exists(self, part: str) -> bool:
        generated = self.sources / "build" / "generated"
        return (self.sources / part).exists() or (generated / part).exists()

    def uses(self) -> Iterator[Use]:
        for path in self._files():
            room = path.relative_to(self.sources).parts[0]
            text = path.read_text(encoding="utf-8")
            for number, line in enumerate(text.splitlines(), start=1):
                if match := _INCLUDE.match(line):
                    yield Use(path.relative_to(self.root), number, room, match[1])


class PythonSection(Section):
    """Python: imports under TYPE_CHECKING and inside functions count too.

    The package itself, as in `from oort import __version__`, is the room `__init__`.
    """

    name, folder, separator = "python", "oort", "."

    def _files(self) -> Iterator[Path]:
        for path in sorted(self.sources.rglob("*")):
            if path.suffix in _PYTHON_SUFFIXES:
                yield path

    def _module(self, path: Path) -> list[str]:
        """The parts of the dotted name of a file, without the package's name."""
        parts = list(path.relative_to(self.sources).with_suffix("").parts)
        return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts

    def rooms(self) -> set[str]:
        return {self._module(path)[0] for path in self._files()}

    def exists(self, part: str) -> bool:
        base = self.sources.joinpath(*part.split("."))
        return base.is_dir() or any(base.with_suffix(end).exists() for end in _PYTHON_SUFFIXES)

    def uses(self) -> Iterator[Use]:
        for path in self._files():
            room = self._module(path)[0]
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for part in self._parts(path, node):
                        yield Use(path.relative_to(self.root), node.lineno, room, part)

    def _parts(self, path: Path, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        """The parts of the package that a statement uses: modules, or `__init__`."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == self.folder:
                    yield ".".join(rest) or "__init__"
            return
        if node.level:
            package = [self.folder, *path.relative_to(self.sources).parent.parts]
            base = package[: len(package) - node.level + 1]
        else:
            base = []
        base += node.module.split(".") if node.module else []
        if base[:1] != [self.folder]:
            return
        for alias in node.names:
            member = ".".join([*base[1:], alias.name])
            yield member if self.exists(member) else ".".join(base[1:]) or "__init__"


SECTIONS: tuple[type[Section], ...] = (CSection, PythonSection)


def check(root: Path) -> list[str]:
    """All problems in the tree at `root`, one line each."""
    table = tomllib.loads((root / TABLE).read_text(encoding="utf-8"))
    found: list[str] = []
    for make in SECTIONS:
        section = make(root)
        rows: Rows = table.get(section.name, {})
        if rows:
            found += _table(section, rows)
            found += _arrows(section, rows)
    for pattern in table.get("readme", []):
        found += _readmes(root, pattern)
    return found


def _table(section: Section, rows: Rows) -> Iterator[str]:
    where = f"{TABLE}: [{section.name}]"
    rooms = section.rooms()
    for room in sorted(rooms - rows.keys()):
        yield f"{section.folder}/{room}: has no row in {TABLE}"
    for room in sorted(rows.keys() - rooms):
        yield f"{where} has a row for {room}, which is not in {section.folder}/"
    for room, entries in rows.items():
        for entry in entries:
            if section.room_of(entry) not in rows or not section.exists(entry):
                yield f"{where} lets {room} use {entry}, which is not in {section.folder}/"
    if circle := _circle({room: [section.room_of(e) for e in row] for room, row in rows.items()}):
        yield f"{where} has a circle: {' -> '.join(circle)}"


def _circle(arrows: Rows) -> list[str]:
    """The rooms of a circle, with the first room again at the end; empty if there is no circle."""
    done: set[str] = set()

    def walk(room: str, path: list[str]) -> list[str]:
        if room in path:
            return [*path[path.index(room) :], room]
        if room in done:
            return []
        for other in arrows.get(room, ()):
            if found := walk(other, [*path, room]):
                return found
        done.add(room)
        return []

    for room in arrows:
        if found := walk(room, []):
            return found
    return []


def _arrows(section: Section, rows: Rows) -> Iterator[str]:
    for use in section.uses():
        target = section.room_of(use.part)
        if not section.exists(use.part):
            yield f"{use.file}:{use.line}: {use.part} is not in {section.folder}/"
        elif target != use.room and use.room in rows:
            allowed = rows[use.room]
            if any(section.allows(entry, use.part) for entry in allowed):
                continue
            yield (
                f"{use.file}:{use.line}: {use.room} may not use {target} ({use.part});"
                f" it may use: {', '.join(allowed) or 'nothing'}"
            )


def _readmes(root: Path, pattern: str) -> Iterator[str]:
    for folder in sorted(root.glob(pattern)):
        sources = _C_SUFFIXES | _PYTHON_SUFFIXES
        if not folder.is_dir() or not any(path.suffix in sources for path in folder.iterdir()):
            continue
        readme = folder / "README.md"
        shown = readme.relative_to(root)
        if not readme.exists():
            yield f"{shown}: is missing"
        elif (lines := len(readme.read_text(encoding="utf-8").splitlines())) > README_LINES:
            yield f"{shown}: has {lines} lines; {README_LINES} are allowed"


def main(arguments: Sequence[str]) -> int:
    found = check(Path(arguments[0]) if arguments else Path())
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
