"""Packages made by fpm: its command line, from the description of the package.

    command(package, root, output, changelog) -> list[str]

The command line describes the whole package.  fpm adds nothing by itself: no default configuration
files, no dependencies that it finds, no vendor.  `shown` formats the command line for a shell.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from description import ROOT, Package
from stage import included

_SLOTS = {
    "before_install": "--before-install",
    "after_install": "--after-install",
    "before_remove": "--before-remove",
    "after_remove": "--after-remove",
}


def command(package: Package, root: Path, output: Path, changelog: Path) -> list[str]:
    """changelog: a file with the changelog in the package's format; fpm puts it in the package."""
    words = ["fpm", "-s", "dir", "-t", package.format, "-C", str(root), "-p", str(output)]
    words += ["--force", "--name", package.name, "--version", package.version]
    words += ["--iteration", package.revision, "--architecture", package.architecture]
    words += ["--maintainer", package.maintainer, "--vendor", "", "--license", package.license]
    words += ["--url", package.homepage]
    words += ["--category", package.section, "--no-auto-depends"]
    words += ["--description", f"{package.summary}\n{package.description}"]
    words += ["--source-date-epoch-default", str(package.epoch)]
    for relation in package.depends:
        words += ["--depends", relation.text(package.format)]
    for path in package.configuration:
        words += ["--config-files", path]
    for slot, path in package.scripts.items():
        words += [_SLOTS[slot], str(ROOT / path)]
    for path in package.excluded:
        words += ["--exclude", path.lstrip("/")]
    words += _deb(package, root, changelog) if package.format == "deb" else _rpm(package, changelog)
    # Each top directory is an input, because fpm would pack "./" with the mode of our directory.
    tops = {path.relative_to(root).parts[0] for path in included(root, package)}
    return [*words, *sorted(tops)]


def _deb(package: Package, root: Path, changelog: Path) -> list[str]:
    words = ["--deb-no-default-config-files", "--deb-user", "root", "--deb-group", "root"]
    words += ["--deb-priority", package.priority, "--deb-compression", package.compression]
    words += ["--deb-changelog", str(changelog)]
    words += ["--deb-upstream-changelog", str(ROOT / "CHANGELOG.md")]
    words += ["--deb-installed-size", str(installed_kilobytes(package, root))]
    for name in package.suggests:
        words += ["--deb-suggests", name]
    return words


def _rpm(package: Package, changelog: Path) -> list[str]:
    words = ["--rpm-os", "linux", "--rpm-user", "root", "--rpm-group", "root"]
    words += ["--rpm-summary", package.summary, "--rpm-changelog", str(changelog)]
    words += ["--rpm-digest", "sha256", "--rpm-compression", package.compression]
    for directory in package.directories:
        words += ["--directories", directory]
    for name in package.suggests:
        words += ["--rpm-tag", f"Suggests: {name}"]
    # rpmbuild must not change the files, and must not use the clock or the machine's name.
    for definition in (
        "__os_install_post %{nil}",
        "_build_id_links none",
        "debug_package %{nil}",
        "_buildhost localhost",
        "use_source_date_epoch_as_buildtime 1",
        "clamp_mtime_to_source_date_epoch 1",
    ):
        words += ["--rpm-rpmbuild-define", definition]
    return words


def installed_kilobytes(package: Package, root: Path) -> int:
    """Debian's Installed-Size: files in whole KiB, and one KiB for everything else."""
    total = 0
    for path in included(root, package):
        plain = path.is_file() and not path.is_symlink()
        total += -(-path.stat().st_size // 1024) if plain else 1
    return total


def environment(package: Package) -> dict[str, str]:
    return {**os.environ, "SOURCE_DATE_EPOCH": str(package.epoch), "LC_ALL": "C.UTF-8"}


def shown(words: list[str]) -> str:
    """The command line with one option on each line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)
