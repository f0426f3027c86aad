"""Checks that the description of the packages matches the tree, before a build would fail."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGES = """\
# Changelog

## 0.2.0 (unreleased)

- Faster, at 100% of
  something.
- Smaller.

## 0.1.0 (2026-02-03)

- First.
"""
MAINTAINER = "Somebody <somebody@example.net>"


@pytest.fixture
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The modules of packaging/, which is not a package: its scripts import each other by name."""
    names = ("description", "changelog")
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "packaging"))
        for name in names:
            sys.modules.pop(name, None)


def test_every_dependency_has_a_name_in_both_formats(scripts: dict[str, ModuleType]) -> None:
    description = scripts["description"]
    (library,) = (ROOT / "oort").glob("_native*.so")
    wanted = len(description.project()["dependencies"])
    for package_format in ("deb", "rpm"):
        package = description.read(package_format, library)
        named = [one for one in package.depends if one.name.startswith("python3-")]
        assert len(named) == wanted
        assert package.version == description.source_version()
        assert re.fullmatch(
            rf"oortd[_-]{package.version}-1[._]\w+\.{package_format}", (package.file_name)
        )
        for script in package.scripts.values():
            assert (ROOT / script).exists()


def test_packages_are_named_after_the_machine(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    description = scripts["description"]
    (library,) = (ROOT / "oort").glob("_native*.so")
    version = description.source_version()
    named = {}
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(description.platform, "machine", lambda machine=machine: machine)
        named[machine] = [description.read(one, library).file_name for one in ("deb", "rpm")]
    assert named == {
        "x86_64": [f"oortd_{version}-1_amd64.deb", f"oortd-{version}-1.x86_64.rpm"],
        "aarch64": [f"oortd_{version}-1_arm64.deb", f"oortd-{version}-1.aarch64.rpm"],
    }
    monkeypatch.setattr(description.platform, "machine", lambda: "riscv64")
    with pytest.raises(description.DescriptionError, match="riscv64"):
        description.read("deb", library)


def test_every_program_is_described(scripts: dict[str, ModuleType]) -> None:
    description = scripts["description"]
    described = {program.name for program in description.programs()}
    assert described == set(description.project()["scripts"])


def test_an_incomplete_description_is_one_line(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    description = scripts["description"]
    (library,) = (ROOT / "oort").glob("_native*.so")
    project = description.project()
    project["dependencies"].append("frobnicate>=1.0")
    monkeypatch.setattr(description, "project", lambda: project)
    with pytest.raises(description.DescriptionError, match=r"\[python\.frobnicate\] is missing"):
        description.read("deb", library)


def test_the_changelog_in_both_forms(scripts: dict[str, ModuleType]) -> None:
    changelog = scripts["changelog"]
    assert changelog.debian(
        CHANGES, 86400, name="oortd", version="0.2.0~rc1", revision="1", maintainer=MAINTAINER
    ) == (
        "oortd (0.2.0~rc1-1) unstable; urgency=medium\n\n"
        "  * Faster, at 100% of something.\n  * Smaller.\n\n"
        " -- Somebody <somebody@example.net>  Fri, 02 Jan 1970 00:00:00 +0000\n\n"
        "oortd (0.1.0-1) unstable; urgency=medium\n\n  * First.\n\n"
        " -- Somebody <somebody@example.net>  Tue, 03 Feb 2026 00:00:00 +0000\n"
    )
    assert changelog.rpm(CHANGES, 86400, version="0.2.0", revision="1", maintainer=MAINTAINER) == (
        "* Fri Jan 02 1970 Somebody <somebody@example.net> - 0.2.0-1\n"
        "- Faster, at 100%% of something.\n- Smaller.\n\n"
        "* Tue Feb 03 2026 Somebody <somebody@example.net> - 0.1.0-1\n- First.\n"
    )


def test_the_projects_own_changelog_is_read(scripts: dict[str, ModuleType]) -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = next(scripts["changelog"].releases(text, 0))
    assert newest.version == scripts["description"].source_version()
