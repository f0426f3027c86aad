"""docs/configuration.md, made from the settings: `python -m oort.config.page` writes it."""

from __future__ import annotations

from pathlib import Path

from oort.config.settings import RING_ENVIRONMENT, SETTINGS, wanted

_INTRODUCTION = """\
# Configuration

Made from `oort/config/settings.py` by `python -m oort.config.page`; change it there.

A later layer wins over an earlier one:

1. defaults
2. the configuration of the ring, from its syndicate or its file
3. the configuration of this node in the ring
4. the file given with `--config`
5. the environment (for the service: `/etc/default/oortd`)
6. flags

`CONFIG SET` changes the running process only. SIGHUP reads all layers again, and so does a ring
that brings another configuration: what `CONFIG SET` can change follows; what needs a restart is
logged and stands in `oort_needs_restart` of INFO. `oortd --print-config` shows every setting
and the layer it came from.

Files and rings hold INI: `Name = value`, sections in brackets, comments with `#`. A value may
be quoted, as in TOML; one with a comma or a `#` in it must be. Sizes take units: `64 MiB`,
`1gb`. A value out of its range is an error that names the layer, the section and the key. An
unknown name is an error too, but in what comes from a ring only a warning: a newer syndicate
must not stop older nodes. `[ValueStoreConfig]` of a ring may hold `Path`, `ValueCap` and
`Workers` too, which mean `DataDir` and the settings of those names outside any section. Some
settings are the node's own and no ring's: it needs them before it has one.

## The boot sequence

1. Alone (`--standalone`, or `OORTD_SKIP_SRV=true` without a ring file): a ring of one, and no
   configuration but the node's own.
2. `OORTD_SKIP_SRV=true` with `OORT_RING_FILE`: that ring and its configuration. `OORT_LOCALID`
   says which of its nodes this is, unless the file does.
3. Otherwise the syndicate at `OORT_SYNDICATE_OVERRIDE`, or those that the SRV records of
   `_syndicate._tcp.DOMAIN` name, by priority and weight (RFC 2782) until one answers. DOMAIN is
   that of the local host name; where that is not fully qualified, of what the resolver makes of
   it. A node without a certificate joins ([joining.md](joining.md)). It registers, and gets its
   id, its ring, and with it its configuration.
4. If none answers: the cached configuration, `ConfigCache`, if it is not older than 48 hours.
   The node says so, serves, and keeps asking. Without it oortd exits with code 1 and one line
   that says what was tried; systemd tries again.
5. The store is opened, clients are served, READY=1, and the cache is written.

The cache stands in for the ring's and the node's configuration and is never mixed with them:
what has been taken out of a ring's configuration is gone with the next answer of a syndicate.

What decides about this is in the environment only:

| variable | |
| --- | --- |
"""


def documentation() -> str:
    """docs/configuration.md, whole."""
    lines = _INTRODUCTION.splitlines()
    lines += [f"| `{name}` | {about} |" for name, about in RING_ENVIRONMENT.items()]
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
        own = " The node's own." if setting.own else ""
        lines.append(
            f"| `{setting.name}` | `{setting.environment}` | {wanted(setting)} | {default}"
            f" | {setting.doc}{own} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[2].joinpath("docs", "configuration.md").write_text(documentation())
