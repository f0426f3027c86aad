"""Reads the description of the package: packaging/package.toml, pyproject.toml and the version.

`read(format)` returns a `Package` for "deb" or "rpm", which holds everything that a packager needs
except the files.  The version is `oort.__version__`.  The compiled extension says which version of
the C library it needs.  The time of a build is the time of the last commit, so that two builds of
one commit are identical.  Every inconsistency is a DescriptionError of one line.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("deb", "rpm")
# Each format's name of the architecture that `uname -m` prints.
ARCHITECTURES = {
    "x86_64": {"deb": "amd64", "rpm": "x86_64"},
    "aarch64": {"deb": "arm64", "rpm": "aarch64"},
}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?")


class DescriptionError(Exception):
    """The description contradicts itself or the source tree; the text is one line."""


@dataclass(frozen=True)
class Program:
    name: str
    section: int
    summary: str
    module: str
    function: str
    # Commands that have their own --help and are not in the program's parser.
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """A required package; `version` is the oldest allowed version, empty for any version."""

    name: str
    version: str = ""

    def text(self, package_format: str) -> str:
        if not self.version:
            return self.name
        written = f"{self.name} >= {self.version}"
        return f"{self.name} (>= {self.version})" if package_format == "deb" else written


@dataclass(frozen=True)
class Package:
    format: str
    name: str
    version: str
    revision: str
    architecture: str
    summary: str
    description: str
    homepage: str
    maintainer: str
    license: str
    section: str
    priority: str
    compression: str
    depends: tuple[Relation, ...]
    suggests: tuple[str, ...]
    configuration: tuple[str, ...]
    directories: tuple[str, ...]
    # Paths of the staged root that are not in packages of this format.
    excluded: tuple[str, ...]
    # The paths of the scripts in the source tree, by the packager's names (after_install, ...).
    scripts: dict[str, str]
    epoch: int

    @property
    def full_version(self) -> str:
        return f"{self.version}-{self.revision}"

    @property
    def file_name(self) -> str:
        if self.format == "deb":
            return f"{self.name}_{self.full_version}_{self.architecture}.deb"
        return f"{self.name}-{self.full_version}.{self.architecture}.rpm"


def _toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def settings() -> dict[str, Any]:
    return _toml(ROOT / "packaging" / "package.toml")


def project() -> dict[str, Any]:
    table: dict[str, Any] = _toml(ROOT / "pyproject.toml")["project"]
    return table


def source_version() -> str:
    """`oort.__version__`, without an import of the package."""
    text = (ROOT / "oort" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise DescriptionError('oort/__init__.py: there is no line __version__ = "..."')
    return found[1]


def source_epoch() -> int:
    """The time of the build, in seconds since 1970.

    The first of these that exists: $SOURCE_DATE_EPOCH, the time of the last commit, the newest date
    in CHANGELOG.md.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not given.isdigit():
            raise DescriptionError(f"SOURCE_DATE_EPOCH={given}: must be a number of seconds")
        return int(given)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"],
        capture_output=True,
        text=True,
        check=False,
    )
    if commit.returncode == 0 and commit.stdout.strip():
        return int(commit.stdout)
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    dates = re.findall(r"^## \S+ \((\d{4}-\d{2}-\d{2})\)", text, re.MULTILINE)
    if not dates:
        raise DescriptionError("no git history, no date in CHANGELOG.md: set SOURCE_DATE_EPOCH")
    return int(datetime.fromisoformat(max(dates)).replace(tzinfo=UTC).timestamp())


def programs() -> list[Program]:
    """The scripts in pyproject.toml, each with its entry in package.toml."""
    described = settings()["programs"]
    found = []
    for name, entry in sorted(project()["scripts"].items()):
        if name not in described:
            raise DescriptionError(f"packaging/package.toml: [programs.{name}] is missing")
        module, _, function = entry.partition(":")
        if not (ROOT / Path(*module.split("."))).with_suffix(".py").exists():
            raise DescriptionError(f"pyproject.toml: {name} = {entry}: there is no module {module}")
        about = described[name]
        commands = tuple(about.get("commands", []))
        found.append(Program(name, about["section"], about["summary"], module, function, commands))
    return found


def glibc_version(library: Path) -> str:
    """The newest GLIBC_x.y that a compiled library requires."""
    shown = subprocess.run(
        ["readelf", "-W", "--version-info", str(library)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"GLIBC_(\d+)\.(\d+)", shown.stdout)
    if not found:
        raise DescriptionError(f"{library}: requires no version of the C library")
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in found))


def _libc(package_format: str, architecture: str, version: str) -> Relation:
    if package_format == "deb":
        return Relation("libc6", version)
    bits = "(64bit)" if architecture in ("x86_64", "aarch64") else ""
    return Relation(f"libc.so.6(GLIBC_{version}){bits}")


def _python_relations(package_format: str) -> list[Relation]:
    about, names = project(), settings()["python"]
    found = [Relation("python3", about["requires-python"].removeprefix(">="))]
    for requirement in about["dependencies"]:
        parsed = _REQUIREMENT.fullmatch(requirement)
        if parsed is None:
            raise DescriptionError(f"pyproject.toml: {requirement!r}: must be NAME>=VERSION")
        name = parsed[1].lower()
        if name not in names:
            raise DescriptionError(
                f"packaging/package.toml: [python.{name}] is missing: add the names of the"
                " distributions' packages"
            )
        version = names[name].get(f"{package_format}_version", parsed[2] or "")
        found.append(Relation(names[name][package_format], version))
    return found


def read(package_format: str, library: Path, version: str = "") -> Package:
    """The package in one format.

    library: the compiled extension of the package; version: replaces the source tree's version.
    """
    if package_format not in FORMATS:
        raise DescriptionError(f"{package_format}: must be {' or '.join(FORMATS)}")
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise DescriptionError(f"{machine}: there are no packages for this architecture")
    architecture = ARCHITECTURES[machine][package_format]
    whole = settings()
    about, own = whole["package"], whole[package_format]
    others = [other for other in FORMATS if other != package_format]
    libc = _libc(package_format, architecture, glibc_version(library))
    excluded = tuple(path for other in others for path in whole[other]["only"])
    return Package(
        format=package_format,
        name=about["name"],
        version=version or source_version(),
        revision=about["revision"],
        architecture=architecture,
        # A summary begins with a lower-case letter in Debian, and with a capital letter in RPM.
        summary=about["summary"] if package_format == "deb" else about["summary"].capitalize(),
        description=about["description"].strip("\n"),
        homepage=about["homepage"],
        maintainer=about["maintainer"],
        license=about["license"],
        section=own["section"],
        priority=own.get("priority", ""),
        compression=own["compression"],
        depends=(
            libc,
            *_python_relations(package_format),
            *(Relation(name) for name in own["depends"]),
        ),
        suggests=tuple(own["suggests"]),
        configuration=tuple(path for path in about["configuration"] if path not in excluded),
        directories=(*about["directories"], *own.get("directories", [])),
        excluded=excluded,
        scripts=dict(own["scripts"]),
        epoch=source_epoch(),
    )
