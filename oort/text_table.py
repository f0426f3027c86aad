"""Text tables for the output of command-line tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(
    header: Sequence[str], lines: Sequence[Sequence[str]], right: Collection[str] = ()
) -> str:
    """A table with a header; columns whose heading is in `right` are aligned to the right."""
    every = [header, *lines]
    widths = [max(len(line[column]) for line in every) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ).rstrip()
        for line in every
    )


def plain(text: str) -> str:
    """The text on one line, with control characters escaped; "-" if it is empty."""
    if text.isprintable():
        return text or "-"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
