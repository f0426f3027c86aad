"""Tests of the installed programs: man pages and completion match --help; imports are safe."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import Built
from tests.packaging.container import Container

pytestmark = pytest.mark.packages

_OPTION = re.compile(r"(?<![\w-])--?[a-z0-9][a-z0-9-]*")


def programs(built: Built) -> list[str]:
    return sorted(path.name for path in (built.stage / "root/usr/bin").iterdir())


def _help(machine: Container, program: str) -> str:
    return machine.run(f"/usr/bin/{program}", "--help")


def _options(text: str) -> set[str]:
    """The options at the beginning of a line of --help."""
    found: set[str] = set()
    for line in text.splitlines():
        if re.match(r"\s{2,4}-", line):
            head = re.split(r"\s{2,}", line.strip())[0]
            found |= set(_OPTION.findall(head))
    return found


def test_every_option_is_in_the_man_page(built: Built, installed: Container) -> None:
    seen = 0
    for program in programs(built):
        (page,) = (built.stage / "root/usr/share/man").glob(f"man?/{program}.?.gz")
        done = subprocess.run(
            ["man", "--warnings", "--encoding=UTF-8", "--local-file", str(page)],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "", program
        text = re.sub(r".\x08", "", done.stdout)
        for option in _options(_help(installed, program)):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (program, option)
            seen += 1
    assert seen > 50


def test_every_option_is_completed(built: Built, installed: Container) -> None:
    for program in programs(built):
        path = built.stage / "root/usr/share/bash-completion/completions" / program
        options = {option for option in _options(_help(installed, program)) if "--" in option}
        script = (
            f'source "{path}"; COMP_WORDS=({program} --) COMP_CWORD=1;'
            f' "$(complete -p {program} | sed "s/.*-F \\([^ ]*\\).*/\\1/")";'
            ' printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-euc", script], capture_output=True, text=True, check=True
        )
        assert options <= set(done.stdout.split()), program
        assert done.stderr == ""


def test_commands_and_files_are_completed(built: Built, tmp_path: Path) -> None:
    path = built.stage / "root/usr/share/bash-completion/completions/oort-ring"
    (tmp_path / "oort.builder").touch()
    for words, due in (
        ("(oort-ring oo) COMP_CWORD=1", "oort.builder"),
        ("(oort-ring oort.builder cre) COMP_CWORD=2", "create"),
    ):
        script = f'source "{path}"; COMP_WORDS={words}; _oort_ring; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(
            ["bash", "--norc", "-euc", script], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.stdout.split(), done.stderr) == ([due], "")


def test_a_module_in_the_way_is_not_imported(built: Built, installed: Container) -> None:
    installed.shell(
        "mkdir -p /tmp/evil && cd /tmp/evil && for name in oort configobj argparse redis; do"
        " echo 'raise SystemExit(\"evil\")' > $name.py; done"
    )
    for program in programs(built):
        for environment in ("", "PYTHONPATH=/tmp/evil PYTHONSTARTUP=/tmp/evil/oort.py"):
            shown = installed.shell(f"cd /tmp/evil && env {environment} {program} --help")
            assert "evil" not in shown
            assert shown.strip()
    assert installed.run("oortd", "--version").startswith("oortd ")


def test_a_program_run_by_root_leaves_nothing_behind(built: Built, installed: Container) -> None:
    """The installation compiles all bytecode."""

    def caches() -> str:
        return installed.shell("find /usr/lib/oort -name '*.pyc' | sort")

    before = caches()
    assert "daemon/__pycache__/main" in before
    for program in programs(built):
        _help(installed, program)
    assert caches() == before
