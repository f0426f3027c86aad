"""Packages, a repository and containers for the tests of `make test-packages`.

Everything is built once: two versions of the package from one staged root (the configuration file
of the earlier version differs), a repository with both versions that is signed with a new key, and
the root that containers boot.  Figures that tests `record` are printed at the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging import manifest
from tests.packaging.container import Container, make_root

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "package-tools" / "bin" / "python"
WORK = ROOT / "build" / "test-packages"
EARLIER = "0.0.1"
# All builds of a run use the same time, even if there is a commit meanwhile.
EPOCH = subprocess.run(
    ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], stdout=subprocess.PIPE, text=True
).stdout.strip()
FIGURES: dict[str, str] = {}


def packaging(*words: str, **environment: str) -> str:
    """Run a script of packaging/ as the Makefile does; returns its output."""
    done = subprocess.run(
        [str(TOOLS), *words],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": "packaging:fpm",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SOURCE_DATE_EPOCH": EPOCH,
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The results: the directory that containers see, the staged root, and the packages."""

    shared: Path
    stage: Path
    deb: Path
    rpm: Path
    earlier_deb: Path

    def fpm(self, package_format: str) -> list[str]:
        """fpm's command line, split as by a shell."""
        printed = packaging(
            "packaging/build.py", package_format, "--packager", "fpm", "--dry-run",
            "--stage", str(self.stage), "--out", str(self.shared.parent / "dry"),
        )  # fmt: skip
        return shlex.split(printed.replace("\\\n", " "))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gpg key that signs the repository; the environment gets gpg's home."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    os.environ["GNUPGHOME"] = str(home)
    name = "packages@oort.invalid"
    words = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", name]
    subprocess.run([*words, "rsa3072", "sign"], check=True, capture_output=True)
    yield name
    subprocess.run(["gpgconf", "--kill", "all"], check=True)


@pytest.fixture(scope="session")
def built(key: str) -> Built:
    shared, stage, earlier = WORK / "shared", WORK / "stage", WORK / "stage-earlier"
    shutil.rmtree(shared, ignore_errors=True)
    packages = shared / "packages"
    words = ["packaging/build.py", "--packager", "nfpm", "--out", str(packages)]
    made = packaging(*words, "--stage", str(stage), "stage", "deb", "rpm").split()
    shutil.rmtree(earlier, ignore_errors=True)
    shutil.copytree(stage, earlier, symlinks=True)
    with (earlier / "root/etc/default/oortd").open("a") as file:
        file.write("\n# A line of the earlier version.\n")
    (before,) = packaging(*words, "--stage", str(earlier), "--version", EARLIER, "deb").split()
    packaging(
        "packaging/repository.py", "--packages", str(packages), "--out",
        str(shared / "repository"), "--key", key,
    )  # fmt: skip
    return Built(shared, stage, Path(made[0]), Path(made[1]), Path(before))


@pytest.fixture(scope="session")
def root(built: Built) -> Path:
    """The root that containers boot."""
    relations = manifest.of_deb(built.deb).relations
    depends = [line.split()[1] for line in relations if line.startswith("depends ")]
    wanted = {name for name in depends if not name.startswith(("the", "systemd"))}
    return make_root(WORK / "debian", {*wanted, "rpm"})


@pytest.fixture
def container(built: Built, root: Path, tmp_path: Path) -> Iterator[Container]:
    """A new machine that uses the repository."""
    with Container(root, built.shared, tmp_path / "console") as machine:
        machine.use_repository()
        yield machine


@pytest.fixture(scope="module")
def installed(
    built: Built, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """A machine that a module's tests share, with oortd installed and serving."""
    with Container(root, built.shared, tmp_path_factory.mktemp("console") / "log") as machine:
        machine.use_repository()
        machine.install()
        machine.until("systemctl is-active oortd.service")
        yield machine


@pytest.fixture(scope="session")
def record() -> Callable[[str, str], None]:
    """record(name, figure) stores a figure that is printed at the end."""
    return FIGURES.__setitem__


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("packages")
        for what, figure in FIGURES.items():
            terminalreporter.write_line(f"{what}: {figure}")
