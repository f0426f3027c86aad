"""docs/configuration.md, made from the settings: `python -m oort.config_page` writes it."""

from __future__ import annotations

from pathlib import Path

from oort.config import SETTINGS, wanted


def documentation() -> str:
    """docs/configuration.md, whole."""
    lines = [
        "# Configuration",
        "",
        "Made from `oort/config.py` by `python -m oort.config_page`; change it there.",
        "",
        "A later layer wins over an earlier one: defaults, the file given with `--config`,",
        "the environment, flags. `CONFIG SET` changes the running process only; SIGHUP reads all",
        "layers again, and what `CONFIG SET` can change follows them.",
        "`oortd --print-config` shows every setting and the layer it came from.",
        "",
        "The file is INI: `Name = value`, sections in brackets, comments with `#`. A value may be",
        "quoted; one with a comma or a `#` in it must be. Sizes take units: `64 MiB`, `1gb`. An",
        "unknown name, or a value out of its range, is an error.",
        "",
        "`OORTD_SKIP_SRV=true` in the environment means the same as `--standalone`.",
    ]
    section: str | None = None
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            lines += ["", f"## `[{section}]`" if section else "## Outside any section", ""]
            lines += [
                "| setting | environment | takes | default | |",
                "| --- | --- | --- | --- | --- |",
            ]
        default = f"`{setting.default}`" if setting.default else "empty"
        lines.append(
            f"| `{setting.name}` | `{setting.environment}` | {wanted(setting)} | {default}"
            f" | {setting.doc} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).parent.parent.joinpath("docs", "configuration.md").write_text(documentation())
