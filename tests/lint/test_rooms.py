"""Tests of lint/rooms.py: it finds every kind of problem in a small tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TABLE = """
readme = ["csrc/*"]
[c]
"oort.h" = []
base = ["oort.h"]
store = ["oort.h", "base"]
plane = ["base", "store/store.h"]
[python]
__init__ = []
errors = []
store = ["errors"]
daemon = ["__init__", "errors", "store.session"]
"""

FILES = {
    "csrc/oort.h": "",
    "csrc/base/README.md": "# base\n",
    "csrc/base/hash.c": '#include "oort.h"\n#include <string.h>\n',
    "csrc/base/hash.h": "",
    "csrc/store/README.md": "# store\n",
    "csrc/store/store.h": '#include "oort.h"\n#include "base/hash.h"\n',
    "csrc/store/private.h": '#include "store/store.h"\n',
    "csrc/plane/README.md": "# plane\n" + "line\n" * 9,
    "csrc/plane/plane.c": '#include "store/store.h"\n',
    "csrc/build/plain/base/hash.o": "",
    "oort/__init__.py": "",
    "oort/errors.py": "import os\n",
    "oort/store/__init__.py": "from oort.errors import StoreError\n",
    "oort/store/session.py": "from . import other\nfrom .. import errors\n",
    "oort/store/other.py": "",
    "oort/daemon/main.py": "from oort import __version__, errors\nimport oort.store.session\n",
}


def problems(root: Path, files: dict[str, str], table: str = TABLE) -> list[str]:
    """The output of the check for a tree of FILES and these files."""
    for name, text in {**FILES, **files, "lint/rooms.toml": table}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, ROOT / "lint" / "rooms.py", root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == (1 if done.stdout else 0)
    return done.stdout.splitlines()


def test_a_tree_without_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {"csrc/base/events.c": '\n # include "store/store.h"\n'},
            "csrc/base/events.c:2: base may not use store (store/store.h); it may use: oort.h",
        ),
        (
            {"csrc/plane/turn.c": '#include "store/private.h"\n'},
            "csrc/plane/turn.c:1: plane may not use store (store/private.h);"
            " it may use: base, store/store.h",
        ),
        ({"csrc/base/crc.c": '#include "hash.h"\n'}, "csrc/base/crc.c:1: hash.h is not in csrc/"),
        (
            {"csrc/base/crc.c": '#include "../base/hash.h"\n'},
            "csrc/base/crc.c:1: ../base/hash.h is not in csrc/",
        ),
        (
            {"csrc/log/README.md": "# log\n", "csrc/log/log.c": ""},
            "csrc/log: has no row in lint/rooms.toml",
        ),
        ({"csrc/load.h": ""}, "csrc/load.h: has no row in lint/rooms.toml"),
        (
            {"csrc/plane/README.md": "line\n" * 11},
            "csrc/plane/README.md: has 11 lines; 10 are allowed",
        ),
        (
            {"oort/errors.py": "def f() -> None:\n    import oort.store.session\n"},
            "oort/errors.py:2: errors may not use store (store.session); it may use: nothing",
        ),
        (
            {"oort/store/other.py": "if TYPE_CHECKING:\n    from oort.daemon.main import Daemon\n"},
            "oort/store/other.py:2: store may not use daemon (daemon.main); it may use: errors",
        ),
        (
            {"oort/store/other.py": "from ..daemon import main\n"},
            "oort/store/other.py:1: store may not use daemon (daemon.main); it may use: errors",
        ),
        (
            {"oort/daemon/boot.py": "from oort.store import other\n"},
            "oort/daemon/boot.py:1: daemon may not use store (store.other);"
            " it may use: __init__, errors, store.session",
        ),
        (
            {"oort/store/other.py": "from oort import __version__\n"},
            "oort/store/other.py:1: store may not use __init__ (__init__); it may use: errors",
        ),
        (
            {"oort/daemon/boot.py": "import oort.gone\n"},
            "oort/daemon/boot.py:1: gone is not in oort/",
        ),
        ({"oort/notify.py": ""}, "oort/notify: has no row in lint/rooms.toml"),
        ({"oort/cluster/policy.py": ""}, "oort/cluster: has no row in lint/rooms.toml"),
    ],
)
def test_a_broken_wall(tmp_path: Path, files: dict[str, str], found: str) -> None:
    assert problems(tmp_path, files) == [found]


def test_a_missing_readme(tmp_path: Path) -> None:
    table = TABLE.replace("[python]", 'log = ["base"]\n[python]')
    found = problems(tmp_path, {"csrc/log/log.c": ""}, table)
    assert found == ["csrc/log/README.md: is missing"]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ('log = ["base"]', "has a row for log, which is not in csrc/"),
        ('"load.h" = []', "has a row for load.h, which is not in csrc/"),
    ],
)
def test_a_row_without_a_room(tmp_path: Path, row: str, found: str) -> None:
    table = TABLE.replace("[python]", f"{row}\n[python]")
    assert problems(tmp_path, {}, table) == [f"lint/rooms.toml: [c] {found}"]


def test_an_entry_that_does_not_exist(tmp_path: Path) -> None:
    table = TABLE.replace("store/store.h", "store/stores.h")
    assert problems(tmp_path, {}, table) == [
        "lint/rooms.toml: [c] lets plane use store/stores.h, which is not in csrc/",
        "csrc/plane/plane.c:1: plane may not use store (store/store.h);"
        " it may use: base, store/stores.h",
    ]


def test_a_circle(tmp_path: Path) -> None:
    table = TABLE.replace('base = ["oort.h"]', 'base = ["oort.h", "plane"]')
    assert problems(tmp_path, {}, table) == [
        "lint/rooms.toml: [c] has a circle: base -> plane -> base"
    ]


def test_a_table_without_rows_is_not_checked(tmp_path: Path) -> None:
    table = TABLE[: TABLE.index("__init__ =")]
    assert problems(tmp_path, {"oort/errors.py": "import oort.daemon.main\n"}, table) == []
