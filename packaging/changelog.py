"""CHANGELOG.md in the forms of Debian and RPM.

CHANGELOG.md has headings `## VERSION (DATE)` or `## VERSION (unreleased)`, the newest first.  Under
each heading is a list of items that begin with `- `.  An unreleased version gets the build's time.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from description import DescriptionError


@dataclass(frozen=True)
class Release:
    version: str
    date: datetime
    items: tuple[str, ...]


def releases(text: str, epoch: int) -> Iterator[Release]:
    """Every release of a CHANGELOG.md, newest first; epoch: the date of an unreleased version."""
    heading = re.compile(r"^## (\S+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
    parts = heading.split(text)[1:]
    if not parts:
        raise DescriptionError("CHANGELOG.md: there is no heading ## VERSION (DATE)")
    for version, date, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        when = (
            datetime.fromtimestamp(epoch, UTC)
            if date == "unreleased"
            else datetime.fromisoformat(date).replace(tzinfo=UTC)
        )
        items = re.findall(r"^- (.*(?:\n  .*)*)", body, re.MULTILINE)
        if not items:
            raise DescriptionError(f"CHANGELOG.md: {version} has no items")
        yield Release(version, when, tuple(" ".join(item.split()) for item in items))


def debian(
    text: str, epoch: int, *, name: str, version: str, revision: str, maintainer: str
) -> str:
    """debian/changelog; `version` is the version of the package of the newest release."""
    entries = []
    for index, release in enumerate(releases(text, epoch)):
        number = release.version if index else version
        items = "\n".join(
            textwrap.fill(item, 76, initial_indent="  * ", subsequent_indent="    ")
            for item in release.items
        )
        entries.append(
            f"{name} ({number}-{revision}) unstable; urgency=medium\n\n{items}\n\n"
            f" -- {maintainer}  {format_datetime(release.date)}\n"
        )
    return "\n".join(entries)


def rpm(text: str, epoch: int, *, version: str, revision: str, maintainer: str) -> str:
    """The %changelog of a spec file.  % is doubled because rpm expands macros there."""
    entries = []
    for index, release in enumerate(releases(text, epoch)):
        number = release.version if index else version
        items = "\n".join(
            textwrap.fill(item, 76, initial_indent="- ", subsequent_indent="  ")
            for item in release.items
        )
        entries.append(
            f"* {release.date:%a %b %d %Y} {maintainer} - {number}-{revision}\n{items}\n"
        )
    return "\n".join(entries).replace("%", "%%")
