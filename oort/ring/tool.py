"""oort-ring creates, changes, rebalances and shows rings.

Exit status: 0 on success, 1 on failure, 2 for an invalid command line.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import json
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from oort.clock import SYSTEM
from oort.errors import OortError, RingError, RingFormatError
from oort.flags import FlagParser
from oort.text_table import plain, table

from . import files
from .builder import MAX_ADDRESSES, MAX_CONF_BYTES, MAX_TIERS, Builder, Settings
from .report import Report, node_shares
from .ring import UNASSIGNED, Node, Ring

HELP = """\
oort-ring FILE [VERB] [NAME=VALUE ...]

  FILE.builder create [SETTING ...]       create a builder
  FILE.builder add [ATTRIBUTE ...]        add a node; prints its id
  FILE.builder set id=ID ATTRIBUTE ...    change a node (id~=REGEX: the nodes that match)
  FILE.builder node FILTER ... set ATTRIBUTE ...
                                          change the nodes that match
  FILE.builder set SETTING ...            change settings
  FILE.builder remove id=ID               remove a node; a rebalance assigns its replicas again
  FILE.builder ring                       rebalance; write the builder, and FILE.ring next to it
  FILE.builder pretend-elapsed MINUTES    pretend that all replicas moved that much earlier
  FILE info [--json]                      show settings and nodes, with wanted and held shares
  FILE node [FILTER ...]                  show the nodes that match
  FILE fullnode [FILTER ...]              show them in full, with their configurations
  FILE tier                               show the tiers, by level
  FILE partition NUMBER                   show the nodes of a partition
  FILE config                             print the configuration of the ring
  FILE.builder config VALUE               set the configuration, like `set config=VALUE`
  FILE copy OUT                           read the file and write it to OUT

SETTING    replicas (3), points-allowed (1: percent by which a node may miss its share),
           max-partition-bits (23), move-wait (60 minutes), id-bits (64), config
ATTRIBUTE  active (true), capacity (1), tier0 (the server) and up, address0 and up, meta, config
FILTER     id, active, capacity, tier, tierN, address, addressN, meta: NAME=VALUE, or NAME~=REGEX

config=FILE, config=@FILE or config-file=FILE reads the configuration from the file.  config=TEXT
sets the text itself if TEXT contains an equals sign, an opening bracket or a line end.  Ids are
decimal, or hexadecimal (16 digits, or with 0x in front).
"""

_SETTING_NAMES = {
    "points-allowed": "points_allowed",
    "points": "points_allowed",
    "max-partition-bits": "max_partition_bits",
    "partition-bits": "max_partition_bits",
    "move-wait": "move_wait",
    "id-bits": "id_bits",
}
_NUMBERED = re.compile(r"(tier|address)(\d{1,4})")
_Attributes = dict[str, str]


# Arguments


def _pairs(arguments: Sequence[str]) -> _Attributes:
    """The values by name; underscores in names become dashes."""
    result: _Attributes = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = name.replace("_", "-").lower()
        if not equals or not name:
            raise RingError(f"{argument!r} is not NAME=VALUE")
        if name in result:
            raise RingError(f"{name} is given twice")
        result[name] = value
    return result


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise RingError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise RingError(f"{name} must be true or false, not {value!r}")
    return value.lower() == "true"


def _configuration(name: str, value: str) -> bytes:
    is_text = name != "config-file" and not value.startswith("@") and re.search(r"[=\[\n]", value)
    if is_text or not value:
        return value.encode("utf-8", "surrogateescape")
    path = Path(value if name == "config-file" else value.removeprefix("@"))
    try:
        with path.open("rb") as file:
            return file.read(MAX_CONF_BYTES + 1)
    except OSError as error:
        raise RingError(f"cannot read {path}: {error.strerror}") from error


def _is_configuration(name: str) -> bool:
    return name in ("config", "conf", "config-file", "conf-file")


def _settings(pairs: _Attributes) -> tuple[dict[str, int], int | None, bytes | None]:
    """Changes to Settings, the number of replicas, and the configuration."""
    changes: dict[str, int] = {}
    replicas = conf = None
    for name, value in pairs.items():
        if name == "replicas":
            replicas = _whole(name, value)
        elif name in _SETTING_NAMES:
            changes[_SETTING_NAMES[name]] = _whole(name, value)
        elif _is_configuration(name):
            conf = _configuration(name.replace("conf-", "config-"), value)
        else:
            raise RingError(f"no such setting: {name}")
    return changes, replicas, conf


def _node_changes(pairs: _Attributes, node: Node) -> dict[str, Any]:
    """Changes to a node's fields; tiers and addresses that are not named stay."""
    changes: dict[str, Any] = {}
    lists = {"tier": list(node.tiers), "address": list(node.addresses)}
    for name, value in pairs.items():
        numbered = _NUMBERED.fullmatch(name)
        if numbered:
            values, number = lists[numbered[1]], int(numbered[2])
            if number >= (MAX_TIERS if numbered[1] == "tier" else MAX_ADDRESSES):
                raise RingError(f"the number in {name} is too large")
            values.extend([""] * (number + 1 - len(values)))
            values[number] = value
        elif name == "active":
            changes[name] = _truth(name, value)
        elif name == "capacity":
            changes[name] = _whole(name, value)
        elif name == "meta":
            changes[name] = value
        elif _is_configuration(name):
            changes["conf"] = _configuration(name.replace("conf-", "config-"), value)
        else:
            raise RingError(f"no such attribute of a node: {name}")
    for field, kind in (("tiers", "tier"), ("addresses", "address")):
        values = lists[kind]
        while values and not values[-1]:
            values.pop()
        if tuple(values) != getattr(node, field):
            changes[field] = tuple(values)
    return changes


def _matcher(argument: str) -> Callable[[Node], bool]:
    """A predicate for a FILTER; RingError if the filter is invalid."""
    name, equals, value = argument.partition("=")
    is_pattern = name.endswith("~")
    name = name.removesuffix("~").lower()
    if not equals or not name:
        raise RingError(f"{argument!r} is not NAME=VALUE")
    try:
        pattern = re.compile(value) if is_pattern else None
    except re.error as error:
        raise RingError(f"{argument!r} is not a regular expression: {error}") from error
    numbered = _NUMBERED.fullmatch(name)

    def texts(node: Node) -> Sequence[str]:
        if name == "id":
            return (str(node.id), f"{node.id:016x}", f"{node.id:#x}")
        if name == "active":
            return ("true" if node.active else "false",)
        if name == "capacity":
            return (str(node.capacity),)
        if name == "meta":
            return (node.meta,)
        every = node.tiers if name.startswith("tier") else node.addresses
        if numbered:
            return every[int(numbered[2]) : int(numbered[2]) + 1] or ("",)
        return every

    if not numbered and name not in ("id", "active", "capacity", "meta", "tier", "address"):
        raise RingError(f"no such attribute of a node: {name}")
    if pattern is not None:
        return lambda node: any(pattern.search(text) for text in texts(node))
    wanted = value.lower() if name == "id" else value
    return lambda node: wanted in texts(node)


def _select(nodes: Sequence[Node], filters: Sequence[str]) -> list[Node]:
    matchers = [_matcher(argument) for argument in filters]
    found = [node for node in nodes if all(matches(node) for matches in matchers)]
    if not found:
        raise RingError(f"no node matches {' '.join(filters)}" if filters else "there are no nodes")
    return found


# Output


def as_json(source: Ring | Builder) -> dict[str, Any]:
    """A dictionary for JSON.

    Ids and the version are decimal strings, because not every program reads 64-bit numbers.
    """
    ids: list[str | None] = [str(node.id) for node in source.nodes]
    ids.append(None)  # where UNASSIGNED points
    return {
        "version": str(source.version),
        "replicas": source.replica_count,
        "partition_bits": source.partition_bits,
        "conf_base64": base64.b64encode(source.conf).decode(),
        "nodes": [
            {
                "id": str(node.id),
                "active": node.active,
                "capacity": node.capacity,
                "tiers": list(node.tiers),
                "addresses": list(node.addresses),
                "meta": node.meta,
                "conf_base64": base64.b64encode(node.conf).decode(),
            }
            for node in source.nodes
        ],
        "table": [[ids[index] for index in row] for row in source.table],
    }


def _info(source: Ring | Builder) -> str:
    rows = [array("i", row) for row in source.table]
    partitions = 1 << source.partition_bits
    shares = {share.id: share for share in node_shares(source.nodes, rows, partitions)}
    active = [node for node in source.nodes if node.active]
    lines = [
        f"version             {source.version}",
        f"replicas            {source.replica_count}",
        f"partitions          {partitions} ({source.partition_bits} bits)",
        f"nodes               {len(active)} active, {len(source.nodes) - len(active)} inactive",
        f"capacity            {sum(node.capacity for node in active)}",
        f"configuration       {len(source.conf)} bytes",
    ]
    unassigned = sum(row.count(UNASSIGNED) for row in rows)
    if unassigned:
        lines.append(f"without a node      {unassigned} replicas")
    if isinstance(source, Builder):
        settings = source.settings
        lines += [
            f"points allowed      {settings.points_allowed} %",
            f"max partition bits  {settings.max_partition_bits}",
            f"move wait           {settings.move_wait} minutes",
        ]
    elif source.local_node is not None:
        lines.append(f"local node          {source.local_node.id}")
    if source.nodes:
        lines += ["", _nodes_table(source.nodes, shares, rows)]
    return "\n".join(lines)


def _nodes_table(nodes: Sequence[Node], shares: dict[int, Any], rows: list[array[int]]) -> str:
    """A table of nodes; shares are counted in replicas of partitions."""
    lines = []
    for index, node in enumerate(nodes):
        share = shares.get(node.id)
        held = sum(row.count(index) for row in rows) if share is None else share.held
        lines.append(
            (
                str(node.id),
                "yes" if node.active else "no",
                str(node.capacity),
                "-" if share is None else f"{share.by_capacity:.1f}",
                "-" if share is None else f"{share.reachable:.1f}",
                str(held),
                "-" if share is None else f"{share.deviation:+.2f} %",
                plain(",".join(node.tiers)),
                plain(",".join(node.addresses)),
                plain(node.meta),
            )
        )
    header = ("id", "active", "capacity", "wanted", "reachable", "held", "off", "tiers")
    right = ("id", "capacity", "wanted", "reachable", "held", "off")
    return table((*header, "addresses", "meta"), lines, right)


def _report(report: Report) -> str:
    lines = [f"version {report.version}, {1 << report.partition_bits} partitions"]
    if report.partition_bits > report.old_partition_bits:
        lines[0] += f" (split in place; there were {1 << report.old_partition_bits})"
    lines.append(
        f"replicas: {report.assigned} assigned, {report.reassigned} taken from inactive nodes, "
        f"{report.moved} moved"
    )
    lines.append(f"balance: the worst node is {report.worst:.2f} % off its reachable share")
    if report.unassigned:
        lines.append(f"{report.unassigned} replicas have no node because there are too few nodes")
    lines += [
        f"node {share.id}: its share by capacity is {share.by_capacity:.1f}; the closest that "
        f"distinct nodes and tiers allow is {share.reachable:.1f}"
        for share in report.unreachable
    ]
    if report.together or report.outside:
        lines.append(
            f"left to do: {report.together} partitions could be further apart in tiers, "
            f"{len(report.outside)} nodes are out of balance; "
            f"{report.waiting} partitions had to wait; rebalance again after the move wait"
        )
    return "\n".join(lines)


# Verbs


def _create(path: Path, arguments: Sequence[str]) -> None:
    changes, replicas, conf = _settings(_pairs(arguments))
    builder = Builder(3 if replicas is None else replicas, Settings(**changes))
    if conf is not None:
        builder.conf = conf
    if path.exists():
        raise RingError(f"{path} already exists")
    files.write(path, builder)


def _add(builder: Builder, arguments: Sequence[str]) -> None:
    pairs = _pairs(arguments)
    node_id = _node_id(pairs.pop("id")) if "id" in pairs else None
    node = builder.add(node_id=node_id, **({"capacity": 1} | _node_changes(pairs, Node(1))))
    print(node.id)


def _node_id(value: str) -> int:
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9a-fA-F]{16}", value):
        return int(value, 16)
    return _whole("id", value)


def _set(builder: Builder, arguments: Sequence[str]) -> None:
    filters = [a for a in arguments if a.partition("=")[0].removesuffix("~").lower() == "id"]
    if filters:
        _set_nodes(builder, filters, [a for a in arguments if a not in filters])
        return
    if not arguments:
        raise RingError("nothing to set: give NAME=VALUE, and id=ID for a node")
    pairs = _pairs(arguments)
    if any(name in ("active", "capacity", "meta") or _NUMBERED.fullmatch(name) for name in pairs):
        raise RingError("no node is named: add id=ID, or use: node FILTER ... set NAME=VALUE ...")
    changes, replicas, conf = _settings(pairs)
    builder.change_settings(**changes)
    if replicas is not None:
        builder.set_replicas(replicas)
    if conf is not None:
        builder.conf = conf


def _set_nodes(builder: Builder, filters: Sequence[str], arguments: Sequence[str]) -> None:
    if not filters:
        raise RingError("no nodes are named: give a filter before set")
    pairs = _pairs(arguments)
    if not pairs:
        raise RingError("nothing to set: give NAME=VALUE")
    for node in _select(builder.nodes, filters):
        builder.change(node.id, **_node_changes(pairs, node))


def _remove(builder: Builder, arguments: Sequence[str]) -> None:
    if not arguments:
        raise RingError("no node is named: give id=ID")
    found = _select(builder.nodes, arguments)
    if len(found) > 1:
        raise RingError(f"{len(found)} nodes match; remove them one at a time, by id")
    builder.remove(found[0].id)


def _ring(builder: Builder, path: Path) -> None:
    """Rebalance and write both files.

    An unchanged ring keeps its version, so that the ages of the last moves keep growing.
    """
    target = path.with_name(path.name.removesuffix(".builder") + ".ring")
    if path.suffix == ".ring":
        raise RingError(f"the ring would overwrite {path}: name the builder X.builder")
    written = _last_written(target, builder)
    before = builder.ring()
    report = builder.rebalance(int(SYSTEM.wall() * 1e9))
    if written is not None and _same(written, before) and _same(before, builder.ring()):
        print(f"version {written.version}: nothing to change")
        return
    files.write(path, builder)
    files.write(target, builder.ring())
    print(_report(report))


def _last_written(target: Path, builder: Builder) -> Ring | None:
    """The ring in the target file if it is from the builder's last rebalance."""
    try:
        ring = files.read_ring(target)
    except RingError:  # the file is missing, or invalid and about to be replaced
        return None
    return ring if ring.version == builder.version else None


def _same(ring: Ring, other: Ring) -> bool:
    return (ring.nodes, ring.conf, ring.tier_names, ring.table) == (
        other.nodes,
        other.conf,
        other.tier_names,
        other.table,
    )


def _partition(source: Ring | Builder, arguments: Sequence[str]) -> None:
    ring = source if isinstance(source, Ring) else source.ring()
    if len(arguments) != 1:
        raise RingError("partition needs one number")
    for node in ring.replicas(_whole("partition", arguments[0])):
        print(node.id, plain(",".join(node.tiers)), plain(",".join(node.addresses)))


def _node(source: Ring | Builder, path: Path, arguments: Sequence[str]) -> None:
    if "set" in arguments:
        at = list(arguments).index("set")
        builder = _builder(source, path)
        _set_nodes(builder, arguments[:at], arguments[at + 1 :])
        files.write(path, builder)
        return
    rows = [array("i", row) for row in source.table]
    shares = {s.id: s for s in node_shares(source.nodes, rows, 1 << source.partition_bits)}
    chosen = {node.id for node in _select(source.nodes, arguments)}
    lines = _nodes_table(source.nodes, shares, rows).splitlines()
    print(lines[0])
    for node, line in zip(source.nodes, lines[1:], strict=True):
        if node.id in chosen:
            print(line)


def _full_nodes(nodes: Sequence[Node]) -> str:
    """A paragraph for each node; the lines of its configuration are indented."""
    paragraphs = []
    for node in nodes:
        conf = node.conf.decode("utf-8", "surrogateescape")
        lines = [
            f"id             {node.id}",
            f"active         {'yes' if node.active else 'no'}",
            f"capacity       {node.capacity}",
            *(f"{f'tier{n}':<15}{plain(tier)}" for n, tier in enumerate(node.tiers)),
            *(f"{f'address{n}':<15}{plain(address)}" for n, address in enumerate(node.addresses)),
            f"meta           {plain(node.meta)}",
            f"configuration  {len(node.conf)} bytes",
            *(f"    {plain(line)}" for line in conf.splitlines()),
        ]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _tiers(source: Ring | Builder) -> str:
    lines = [
        (str(level), " ".join(plain(name) for name in sorted(names) if name))
        for level, names in enumerate(source.tier_names)
    ]
    return table(("level", "tiers"), lines, ("level",))


def _builder(source: Ring | Builder, path: Path) -> Builder:
    if isinstance(source, Builder):
        return source
    raise RingFormatError(f"{path} is a ring: only its builder can be changed")


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory, so that only one oort-ring at a time changes its files."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RingError(f"cannot open {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def run(options: argparse.Namespace) -> None:
    path, verb, arguments = Path(options.file), options.verb, list(options.arguments)
    reads = verb in ("info", "partition", "part", "copy", "fullnode", "fullnodes", "tier", "tiers")
    with contextlib.nullcontext() if reads else _alone(path.parent):
        _run(path, verb, arguments)


def _run(path: Path, verb: str, arguments: list[str]) -> None:
    if verb == "create":
        _create(path, arguments)
        return
    source = files.read(path)
    if verb == "info":
        wants_json = "--json" in arguments
        _allow_only(arguments, "--json")
        print(json.dumps(as_json(source)) if wants_json else _info(source))
    elif verb == "copy":
        if len(arguments) != 1:
            raise RingError("copy needs the name of the file to write")
        files.write(arguments[0], source)
    elif verb in ("node", "nodes"):
        _node(source, path, arguments)
    elif verb in ("fullnode", "fullnodes"):
        print(_full_nodes(_select(source.nodes, arguments)))
    elif verb in ("tier", "tiers"):
        _allow_only(arguments)
        print(_tiers(source))
    elif verb in ("partition", "part"):
        _partition(source, arguments)
    elif _is_configuration(verb) and not arguments:
        sys.stdout.buffer.write(source.conf)
    elif verb in _CHANGES:
        builder = _builder(source, path)
        _CHANGES[verb](builder, arguments)
        files.write(path, builder)
    elif verb == "ring":
        _allow_only(arguments)
        _ring(_builder(source, path), path)
    else:
        raise RingError(f"no such verb: {verb}; see oort-ring --help")


def _allow_only(arguments: Sequence[str], *known: str) -> None:
    for argument in arguments:
        if argument not in known:
            raise RingError(f"unknown argument {argument!r}; see oort-ring --help")


def _pretend_elapsed(builder: Builder, arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise RingError("pretend-elapsed needs one number of minutes")
    builder.pretend_elapsed(_whole("minutes", arguments[0]))


def _configure(name: str) -> Callable[[Builder, Sequence[str]], None]:
    def configure(builder: Builder, arguments: Sequence[str]) -> None:
        if len(arguments) != 1:
            raise RingError(f"{name} needs one value")
        builder.conf = _configuration(name, arguments[0])

    return configure


_CHANGES: dict[str, Callable[[Builder, Sequence[str]], None]] = {
    "add": _add,
    "set": _set,
    "remove": _remove,
    "pretend-elapsed": _pretend_elapsed,
    **dict.fromkeys(("config", "conf"), _configure("config")),
    **dict.fromkeys(("config-file", "conf-file"), _configure("config-file")),
}


def build_parser() -> argparse.ArgumentParser:
    parser = FlagParser(prog="oort-ring", add_help=False, allow_abbrev=False)
    parser.format_help = lambda: HELP  # type: ignore[method-assign]
    parser.add_argument("-h", "--help", action="help")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("verb", nargs="?", default="info", metavar="VERB")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="NAME=VALUE")
    return parser


def main(argv: list[str] | None = None) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    given = sys.argv[1:] if argv is None else argv
    if given in ([], ["help"]):
        print(HELP, end="", file=sys.stdout if given else sys.stderr)
        return 0 if given else 2
    try:
        run(build_parser().parse_args(given))
        sys.stdout.flush()
    except OortError as error:
        print(f"oort-ring: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
