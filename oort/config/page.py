"""Generates docs/configuration.md from the settings: `python -m oort.config.page` writes it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from oort.config.settings import RING_ENVIRONMENT, SETTINGS, Setting, wanted

WIDTH = 118
_INTRODUCTION = """\
# Configuration

Made from `oort/config/settings.py` by `python -m oort.config.page`; change it there.

A later layer wins over an earlier layer:

1. defaults
2. the configuration of the ring, from its syndicate or its file
3. the configuration of this node in the ring
4. the file given with `--config`
5. the environment (for the service: `/etc/default/oortd`)
6. flags

The lists of settings below give the name of a setting, its variable in the environment, the values
that it takes, and its default.

`CONFIG SET` changes the running process only. SIGHUP makes oortd read all layers again. A ring with
another configuration has the same effect. Settings that `CONFIG SET` can change then take effect.
Changed settings that need a restart are logged and listed in `oort_needs_restart` of INFO.
`oortd --print-config` shows every setting and its layer.

Files and rings hold INI text: `Name = value`, sections in brackets, comments with `#`. A value may
be quoted, as in TOML. A value that contains a comma or a `#` must be quoted. Sizes take units:
`64 MiB`, `1gb`. A value out of its range is an error that names the layer, the section and the
key. An unknown name is an error too. In a ring's configuration an unknown name is only a warning,
because a newer syndicate must not stop older nodes.

In a ring's configuration `[ValueStoreConfig]` may also hold `Path`, `ValueCap` and `Workers`.
`Path` means `DataDir`. The other two mean the settings of these names outside any section. A ring
cannot set some settings, because the node needs them before it has a ring.

## The boot sequence

1. With `--standalone`, or with `OORTD_SKIP_SRV=true` and no ring file, the node serves alone. The
   ring has one node, and there is no configuration except the node's own.
2. With `OORTD_SKIP_SRV=true` and `OORT_RING_FILE` the node takes the ring and the configuration
   from that file. `OORT_LOCALID` says which node of the ring it is, unless the file says so.
3. Otherwise the node asks the syndicate at `OORT_SYNDICATE_OVERRIDE`. Without that variable it asks
   the hosts in the SRV records of `_syndicate._tcp.DOMAIN`, by priority and weight (RFC 2782),
   until one of them answers. DOMAIN is the domain of the local host name. If the host name is not
   fully qualified, the resolver completes it. A node without a certificate joins
   ([joining.md](joining.md)). The node registers and gets its id, its ring, and the configuration
   in the ring.
4. If no syndicate answers, the node uses the cached configuration, `ConfigCache`, if it is not
   older than 48 hours. The node says so, serves, and keeps asking. Without a cached configuration
   oortd exits with code 1 and one line that says what it tried. systemd then starts it again.
5. The node opens the store, serves clients, says READY=1, and writes the cache.

The cache replaces the configurations of the ring and the node. It is never merged with them. A
setting that was removed from the ring's configuration is therefore gone with the next answer of a
syndicate.

The following variables control the boot sequence. They can only be set in the environment:

"""


def _wrapped(text: str, first: str) -> list[str]:
    """Lines of WIDTH characters; the first begins with `first`, the others with two spaces."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _item(setting: Setting) -> list[str]:
    default = f"`{setting.default}`" if setting.default else "empty"
    own = " A ring cannot set this." if setting.own else ""
    facts = f"`{setting.name}`, `{setting.environment}`: {wanted(setting)}; default: {default}"
    return ["", *_wrapped(facts, "- "), "", *_wrapped(setting.doc + own, "  ")]


def documentation() -> str:
    """The whole page as Markdown."""
    lines = _INTRODUCTION.splitlines()
    for name, about in RING_ENVIRONMENT.items():
        lines += _wrapped(f"`{name}`: {about}", "- ")
    section: str | None = None
    for setting in SETTINGS:
        if setting.section != section:
            section = setting.section
            lines += ["", f"## `[{section}]`" if section else "## Outside any section"]
        lines += _item(setting)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[2].joinpath("docs", "configuration.md").write_text(documentation())
