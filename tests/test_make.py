"""Tests of `make run`: it installs only what serving needs, serves, and keeps its data."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.conftest import RawClient

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def environment() -> dict[str, str]:
    """The environment without the variables of an outer make and without settings of oortd."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "OORT"))}


def dry_run(target: str, venv: Path) -> str:
    """The commands of `make target` if the virtual environment `venv` does not exist yet."""
    shown = subprocess.run(
        ["make", "--dry-run", target, f"VENV={venv}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.replace("\\\n", "")


def announced(target: str, venv: Path) -> list[str]:
    """The lines that `make target` prints before its steps."""
    pattern = r'^echo "((?:creating|installing|compiling) .*)"$'
    return re.findall(pattern, dry_run(target, venv), re.MULTILINE)


def test_make_run_announces_its_steps_and_installs_only_what_serving_needs(tmp_path: Path) -> None:
    lines = announced("run", tmp_path)
    assert [line.split()[0] for line in lines] == ["creating", "installing", "compiling"]
    assert f"{tmp_path}/dependencies" in lines[1]
    assert lines[2] == "compiling the data path (csrc/)"


@pytest.mark.parametrize(
    "target", ["build", "test", "lint", "bench", "soak", "test-system", "test-sanitized"]
)
def test_other_targets_install_the_development_tools_too(target: str, tmp_path: Path) -> None:
    run, other = announced("run", tmp_path), announced(target, tmp_path)
    assert set(run) < set(other)
    (more,) = set(other) - set(run)
    assert "development tools" in more


def test_the_requirements_come_from_pyproject(tmp_path: Path) -> None:
    pattern = r"^\S+/bin/python -c '(import tomllib;[^']*)' > \S+/(\w+)$"
    lists = {}
    for code, name in re.findall(pattern, dry_run("build", tmp_path), re.MULTILINE):
        printed = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        lists[name] = printed.stdout.splitlines()
    assert lists == {
        "dependencies": PROJECT["dependencies"],
        "development": PROJECT["optional-dependencies"]["dev"],
    }


def test_make_run_serves_and_keeps_what_it_stored(tmp_path: Path) -> None:
    # make must not pass the compiler's flags on to oortd, which would refuse them as a setting.
    env = {**environment(), "OORT_CFLAGS": "-Werror"}
    command = ["make", "run", "LISTEN=127.0.0.1:0", f"DATA={tmp_path / 'data'}"]
    for write in (True, False):
        log = tmp_path / f"log-{write}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            found = None
            give_up = time.monotonic() + 300  # make may have to build first
            while found is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                found = re.search(r"ready on 127\.0\.0\.1:(\d+),", log.read_text())
                time.sleep(0.01)
            with RawClient(("127.0.0.1", int(found[1]))) as raw:
                if write:
                    assert raw.call("SET", "greeting", "hello") == b"+OK\r\n"
                assert raw.call("GET", "greeting") == b"$5\r\nhello\r\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_source_distribution_has_all_that_a_build_needs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    made = shutil.ignore_patterns("build", "__pycache__", "_native.abi3.so", "_native.c")
    for name in ("csrc", "oort"):
        shutil.copytree(ROOT / name, tree / name, ignore=made)

    def run(folder: Path, *words: str) -> str:
        # Not optimized, because this test is about the files and not about the code.
        env = {k: v for k, v in environment().items() if not k.startswith(("LD_", "PYTHON"))}
        env["OORT_CFLAGS"] = "-O0"
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(tree, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("oort-*.tar.gz")
    subprocess.run(["tar", "xzf", archive], cwd=tmp_path, check=True)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert not list(unpacked.rglob("build"))
    run(unpacked, "setup.py", "-q", "build_ext", "--inplace")
    imported = run(unpacked, "-c", "import oort._native; print(oort._native.__file__)")
    assert imported.startswith(str(unpacked))
