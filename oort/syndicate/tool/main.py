"""syndicate-client: show and change a syndicate's rings, and send commands to its nodes.

Exit status: 0 on success; 1 if a call was refused or failed; 2 for an invalid command line; 3 if
the syndicate or a node could not be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from oort.clock import SYSTEM, utc
from oort.errors import CallError, OortError, SyndicateToolError, TLSError
from oort.flags import FlagParser
from oort.ring import files
from oort.syndicate import connection
from oort.syndicate import syndicate_pb2 as messages
from oort.syndicate.authority_pb2 import TokenReply, TokenRequest
from oort.syndicate.connection import Syndicate
from oort.text_table import plain, table
from oort.tls import certificates, tokens
from oort.tls.files import is_there, read, save_identity

from . import nodes as tool_nodes
from . import settings as tool_settings

MAX_CONF_BYTES = 16 * 1024**2
_ATTRIBUTE = re.compile(r"(tier|address)([0-9]{1,4})")


# Arguments


def node_id(text: str) -> int | None:
    """An id in decimal or hexadecimal (16 digits, or with 0x); None if the text is neither."""
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}|[0-9A-Fa-f]{16}", text):
        return int(text, 16)
    if re.fullmatch(r"[0-9]{1,20}", text) and int(text) < 1 << 64:
        return int(text)
    return None


def find_node(syndicate: Syndicate, text: str) -> messages.Node:
    """The node with this id or exact host name (meta); SyndicateToolError unless there is one."""
    wanted = node_id(text)
    every = all_nodes(syndicate)
    by_id = [node for node in every if node.id == wanted]
    found = by_id or [node for node in every if node.meta == text]
    if not found:
        raise SyndicateToolError(f"there is no node {text!r}")
    if len(found) > 1:
        raise SyndicateToolError(f"{len(found)} nodes are called {text!r}: use the id of a node")
    return found[0]


def all_nodes(syndicate: Syndicate) -> list[messages.Node]:
    reply: messages.SearchResult = syndicate.call(syndicate.rings.SearchNodes, messages.Node())
    return list(reply.nodes)


def pairs(arguments: Sequence[str], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of NAME=VALUE arguments; SyndicateToolError for names not in `allowed`.

    `tier` also allows tierN, and `address` also allows addressN.
    """
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = name.lower()
        numbered = _ATTRIBUTE.fullmatch(name)
        if not equals or (numbered[1] if numbered else name) not in allowed:
            raise SyndicateToolError(
                f"{argument!r}: expected NAME=VALUE, with a name among {', '.join(allowed)}"
            )
        result.append((name, value))
    return result


def number(name: str, text: str, bits: int) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) >= 1 << bits:
        raise SyndicateToolError(f"{name} must be a whole number below 2**{bits}, not {text!r}")
    return int(text)


def truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise SyndicateToolError(f"{name} must be true or false, not {text!r}")
    return text.lower() == "true"


def content(path: str) -> bytes:
    """The content of a file, or of standard input for `-`."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_CONF_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_CONF_BYTES + 1)
    except OSError as error:
        raise SyndicateToolError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_CONF_BYTES:
        raise SyndicateToolError(f"{path} is larger than {MAX_CONF_BYTES} bytes")
    return data


def node_of(arguments: Sequence[str], node: messages.Node) -> messages.Node:
    """`node` with the attributes, or search criteria, of the arguments."""
    lists: dict[str, list[str]] = {"tier": [], "address": []}
    for name, value in pairs(
        arguments, ("id", "active", "capacity", "tier", "address", "meta", "config")
    ):
        numbered = _ATTRIBUTE.fullmatch(name)
        if numbered:
            values, at = lists[numbered[1]], int(numbered[2])
            values.extend([""] * (at + 1 - len(values)))
            values[at] = value
        elif name in lists:
            lists[name].append(value)
        elif name == "id":
            wanted = node_id(value)
            if wanted is None:
                raise SyndicateToolError(
                    f"{value!r} is not an id: expected a number, or 0x and hexadecimal digits"
                )
            node.id = wanted
        elif name == "active":
            node.active = truth(name, value)
        elif name == "capacity":
            node.capacity = number(name, value, 32)
        elif name == "meta":
            node.meta = value
        else:
            node.conf = content(value)
    node.tiers.extend(lists["tier"])
    node.addresses.extend(lists["address"])
    return node


# Output


def as_json(node: messages.Node) -> dict[str, Any]:
    """A node for JSON; ids are strings, because not every program reads 64-bit numbers."""
    return {
        "id": str(node.id),
        "active": node.active,
        "capacity": node.capacity,
        "tiers": list(node.tiers),
        "addresses": list(node.addresses),
        "meta": node.meta,
        "conf": node.conf.decode("utf-8", "replace"),
    }


def emit(options: argparse.Namespace, data: object, text: str) -> None:
    print(json.dumps(data) if options.json else text, flush=True)


def changed(options: argparse.Namespace, status: messages.RingStatus) -> None:
    """Print the outcome of a change."""
    if not status.status:
        raise SyndicateToolError(f"refused; the version is {status.version}")
    emit(options, {"version": str(status.version)}, f"version {status.version}")


# Verbs: queries


def version(syndicate: Syndicate, options: argparse.Namespace) -> None:
    reply: messages.RingStatus = syndicate.call(syndicate.rings.GetVersion, messages.EmptyMsg())
    emit(options, {"version": str(reply.version)}, str(reply.version))


def config(syndicate: Syndicate, options: argparse.Namespace) -> None:
    rings = syndicate.rings
    reply: messages.RingConf
    if options.node is None:
        reply = syndicate.call(rings.GetGlobalConfig, messages.EmptyMsg())
    else:
        reply = syndicate.call(
            rings.GetNodeConfig, messages.Node(id=find_node(syndicate, options.node).id)
        )
    text = reply.conf.conf.decode("utf-8", "replace")
    data = {
        "version": str(reply.status.version),
        "restart_required": reply.conf.restartRequired,
        "conf": text,
    }
    emit(options, data, text.removesuffix("\n"))


def search(syndicate: Syndicate, options: argparse.Namespace) -> None:
    pairs(options.filter, ("id", "meta", "tier", "address"))
    reply: messages.SearchResult = syndicate.call(
        syndicate.rings.SearchNodes, node_of(options.filter, messages.Node())
    )
    nodes = sorted(reply.nodes, key=lambda node: (node.meta, node.id))
    lines = [
        (
            str(node.id),
            "yes" if node.active else "no",
            str(node.capacity),
            plain(",".join(node.tiers)),
            plain(",".join(node.addresses)),
            plain(node.meta),
        )
        for node in nodes
    ]
    header = ("id", "active", "capacity", "tiers", "addresses", "meta")
    text = table(header, lines, ("id", "capacity")) if lines else "no such node"
    emit(options, [as_json(node) for node in nodes], text)


def ring(syndicate: Syndicate, options: argparse.Namespace) -> None:
    reply: messages.Ring = syndicate.call(syndicate.rings.GetRing, messages.EmptyMsg())
    files.write(options.file, files.decode_ring(reply.ring))
    emit(
        options,
        {"version": str(reply.version), "file": str(options.file)},
        f"version {reply.version} is in {options.file}",
    )


def watch(syndicate: Syndicate, options: argparse.Namespace) -> None:
    """Print a line for every new ring, `count` lines or until interrupted."""
    subscriber = messages.SubscriberID(id=f"syndicate-client:{socket.gethostname()}:{os.getpid()}")
    left = options.count
    reply: messages.Ring
    for reply in syndicate.stream(syndicate.rings.GetRingStream, subscriber):
        decoded = files.decode_ring(reply.ring)
        active = sum(node.active for node in decoded.nodes)
        now = utc(SYSTEM.wall()).astimezone()
        data = {
            "time": now.isoformat(timespec="seconds"),
            "version": str(reply.version),
            "nodes": len(decoded.nodes),
            "active": active,
            "replicas": decoded.replica_count,
            "partitions": decoded.partitions,
        }
        emit(
            options,
            data,
            f"{now:%Y-%m-%d %H:%M:%S}  version {reply.version}: {len(decoded.nodes)} nodes "
            f"({active} active), {decoded.replica_count} replicas, {decoded.partitions} partitions",
        )
        if left is not None:
            left -= 1
            if left <= 0:
                return
    raise CallError(f"{syndicate.settings.server}: the stream of rings ended", unreachable=True)


# Verbs: changes


def add(syndicate: Syndicate, options: argparse.Namespace) -> None:
    node = node_of(options.attribute, messages.Node(active=True))
    changed(options, syndicate.call(syndicate.rings.AddNode, node))


def remove(syndicate: Syndicate, options: argparse.Namespace) -> None:
    for name in options.node:
        node = messages.Node(id=find_node(syndicate, name).id)
        changed(options, syndicate.call(syndicate.rings.RemoveNode, node))


def set_values(syndicate: Syndicate, options: argparse.Namespace) -> None:
    """Set the configuration of the ring or, if a node comes first, attributes of that node."""
    rings = syndicate.rings
    if "=" in options.value[0]:
        chosen = dict(pairs(options.value, ("config", "restart")))
        if "config" not in chosen:
            raise SyndicateToolError("expected config=FILE")
        conf = messages.Conf(
            conf=content(chosen["config"]),
            restartRequired=truth("restart", chosen.get("restart", "false")),
        )
        changed(options, syndicate.call(rings.SetConf, conf))
        return
    known = ("active", "capacity", "meta", "config", "tier", "address")
    changes = pairs(options.value[1:], known)
    if not changes:
        raise SyndicateToolError("expected NODE NAME=VALUE")
    node = find_node(syndicate, options.value[0])
    for name, value in changes:
        if name == "config":
            try:
                name, value = "conf", content(value).decode()
            except UnicodeDecodeError as error:
                raise SyndicateToolError(f"{value} is not UTF-8 text") from error
        change = messages.ModifyMsg(id=node.id, key=name, value=value)
        changed(options, syndicate.call(rings.ModNode, change))


def capacity(syndicate: Syndicate, options: argparse.Namespace) -> None:
    node = messages.Node(id=find_node(syndicate, options.node).id)
    node.capacity = number("the capacity", options.capacity, 32)
    changed(options, syndicate.call(syndicate.rings.SetCapacity, node))


def active(syndicate: Syndicate, options: argparse.Namespace) -> None:
    node = messages.Node(id=find_node(syndicate, options.node).id)
    node.active = truth("active", options.active)
    changed(options, syndicate.call(syndicate.rings.SetActive, node))


def replicas(syndicate: Syndicate, options: argparse.Namespace) -> None:
    count = number("the number of replicas", options.count, 31)
    changed(options, syndicate.call(syndicate.rings.SetReplicas, messages.RingOpts(replicas=count)))


def addresses(syndicate: Syndicate, options: argparse.Namespace) -> None:
    node = messages.Node(id=find_node(syndicate, options.node).id, addresses=options.address)
    changed(options, syndicate.call(syndicate.rings.ReplaceAddresses, node))


def tiers(syndicate: Syndicate, options: argparse.Namespace) -> None:
    node = messages.Node(id=find_node(syndicate, options.node).id, tiers=options.tier)
    changed(options, syndicate.call(syndicate.rings.ReplaceTiers, node))


# Verbs: commands to nodes


def command(syndicate: Syndicate, options: argparse.Namespace) -> None:
    if options.node == "all":
        chosen = all_nodes(syndicate)
        if not chosen:
            raise SyndicateToolError("there are no nodes")
    else:
        chosen = [find_node(syndicate, options.node)]
    found = tool_nodes.answers(chosen, tool_nodes.asking(syndicate, options))
    tool_nodes.report(options, chosen, found)


# Verbs: trust


def token(syndicate: Syndicate, options: argparse.Namespace) -> None:
    reply: TokenReply = syndicate.call(
        syndicate.authority.CreateToken,
        TokenRequest(role=options.role, uses=options.uses, valid_seconds=options.seconds),
    )
    created = tokens.read_token(reply.token)
    data = {
        "token": reply.token,
        "id": created.id,
        "role": created.role,
        "uses": options.uses,
        "expires": created.expires.isoformat(),
        "authority": created.authority,
    }
    emit(options, data, reply.token)
    if not options.json:
        print(
            f"For {options.uses} {created.role}{'s' if options.uses > 1 else ''}, "
            f"until {created.expires:%Y-%m-%d %H:%M:%S} UTC. Keep the token secret.",
            file=sys.stderr,
        )


def join(settings: connection.Settings, options: argparse.Namespace) -> None:
    """Get an operator's certificate with a token; the key never leaves this machine."""
    if not settings.use_tls:
        raise SyndicateToolError("joining needs TLS")
    text = options.join_token
    if text == "-":
        text = content(text).decode("ascii", "replace")
    received = tokens.read_token(text)
    ca_file: Path | None = settings.ca_file
    if is_there(settings.ca_file):
        roots = read(settings.ca_file)
        try:
            certificates.pick(roots, received.authority)
        except TLSError as error:
            raise TLSError(
                f"{ca_file} is of another authority: move it away, or give another file with --ca"
            ) from error
        ca_file = None  # the file is kept, because it may have other certificates too
    identity = connection.join(
        settings, received, trust_token=options.ca is None and options.fingerprint is None
    )
    save_identity(identity, settings.cert_file, settings.key_file, ca_file)
    role = certificates.role_of(identity.certificate)
    expires = certificates.expiry(identity.certificate)
    name = "" if role is None else f"{role[0]} {role[1]}, "
    emit(
        options,
        {"certificate": str(settings.cert_file), "expires": expires.isoformat()},
        f"{settings.cert_file}: {name}valid until {expires:%Y-%m-%d %H:%M} UTC",
    )


# The command line


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


_Verb = Callable[[Syndicate, argparse.Namespace], None]


def build_parser() -> argparse.ArgumentParser:
    common = FlagParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--config", type=Path, metavar="FILE",
                        help=f"default: {tool_settings.CONFIG_FILE}, section [client]")  # fmt: skip
    common.add_argument("--server", metavar="HOST:PORT",
                        help="default: $OORT_SYNDICATE_OVERRIDE, then Server")  # fmt: skip
    common.add_argument("--ca", metavar="FILE",
                        help="certificates to verify the syndicate and nodes")  # fmt: skip
    common.add_argument("--cert", metavar="FILE", help="your certificate")
    common.add_argument("--key", metavar="FILE", help="the private key of your certificate")
    common.add_argument("--fingerprint", metavar="SHA256",
                        help="SHA-256 of the server's certificate or its authority's")  # fmt: skip
    common.add_argument("--timeout", type=_seconds, metavar="SECONDS",
                        help="time limit of a call")  # fmt: skip
    common.add_argument("--cmdctrl-port", type=_count, metavar="PORT",
                        help="the CmdCtrl port of nodes")  # fmt: skip
    common.add_argument("--no-tls", action="store_true", help="connect without TLS")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = FlagParser(
        prog="syndicate-client",
        parents=[common],
        allow_abbrev=False,
        description=(__doc__ or "").partition("\n")[0].partition(": ")[2].capitalize(),
        epilog="A NODE is an id (decimal, or hexadecimal), or a host name.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: _Verb | None, text: str) -> argparse.ArgumentParser:
        result = verbs.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        result.set_defaults(run=run)
        return result

    verb("version", version, "print the version of the ring")
    added = verb("config", config, "print the configuration of the ring or of a node")
    added.add_argument("node", nargs="?", metavar="NODE")
    added = verb("search", search, "list all nodes, or the nodes that match every filter")
    added.add_argument("filter", nargs="*", metavar="id=|meta=|tier=|address=")
    added = verb("ring", ring, "write the ring to a file")
    added.add_argument("file", type=Path, metavar="FILE")
    added = verb("watch", watch, "print a line for every new ring")
    added.add_argument("--count", type=_count, metavar="N", help="end after N rings")

    added = verb("add", add, "add a node: id, active, capacity, tier0.., address0.., meta, config")
    added.add_argument("attribute", nargs="+", metavar="NAME=VALUE")
    added = verb("rm", remove, "remove nodes")
    added.add_argument("node", nargs="+", metavar="NODE")
    added = verb("set", set_values, "set config=FILE [restart=true], or NODE NAME=VALUE ...")
    added.add_argument("value", nargs="+", metavar="[NODE] NAME=VALUE")
    added = verb("capacity", capacity, "set a node's capacity")
    added.add_argument("node", metavar="NODE")
    added.add_argument("capacity", metavar="CAPACITY")
    added = verb("active", active, "set whether a node holds data")
    added.add_argument("node", metavar="NODE")
    added.add_argument("active", metavar="true|false")
    added = verb("replicas", replicas, "set the number of replicas")
    added.add_argument("count", metavar="COUNT")
    added = verb("addresses", addresses, "replace a node's addresses")
    added.add_argument("node", metavar="NODE")
    added.add_argument("address", nargs="+", metavar="ADDRESS")
    added = verb("tiers", tiers, "replace a node's tiers")
    added.add_argument("node", metavar="NODE")
    added.add_argument("tier", nargs="+", metavar="TIER")

    for name, text in (
        ("health", "show whether nodes serve clients"),
        ("stats", "print the statistics of nodes"),
        ("reload", "make nodes read their configuration again"),
        ("restart", "make nodes stop and start serving"),
        ("start", "make nodes serve clients"),
        ("stop", "make nodes stop serving clients until start"),
        ("exit", "end the processes of nodes"),
        ("software-version", "print the software versions of nodes, asked through the syndicate"),
        ("upgrade", "make nodes upgrade their software"),
    ):
        added = verb(name, command, text)
        added.add_argument("node", metavar="NODE|all")
        if name == "upgrade":
            added.add_argument("version", metavar="VERSION")
        if name in ("software-version", "upgrade"):
            added.add_argument("--direct", action="store_true", default=False,
                               help="ask the node itself, not the syndicate")  # fmt: skip

    added = verb("token", token, "create a join token")
    added.add_argument("--role", choices=("node", "operator"), default="node",
                       help="the role that the token gives (default: node)")  # fmt: skip
    added.add_argument("--uses", type=_count, default=1, metavar="N",
                       help="how often the token can be used (default: 1)")  # fmt: skip
    added.add_argument("--seconds", type=_count, default=3600, metavar="N",
                       help="how long the token is valid (default: 3600)")  # fmt: skip
    added = verb("join", None, "get an operator's certificate with a join token")
    added.add_argument("join_token", metavar="TOKEN", help="a join token; - is standard input")
    return parser


_DEFAULTS = {
    "config": None,
    "server": None,
    "ca": None,
    "cert": None,
    "key": None,
    "fingerprint": None,
    "timeout": None,
    "cmdctrl_port": None,
    "no_tls": False,
    "json": False,
}


def main(argv: list[str] | None = None) -> int:
    # Options may come before or after the verb, so the parser has no defaults that overwrite them.
    options = argparse.Namespace(**{**_DEFAULTS, **vars(build_parser().parse_args(argv))})
    try:
        settings = tool_settings.settings_of(options)
        if options.verb == "join":
            join(settings, options)
        else:
            with Syndicate(settings) as syndicate:
                options.run(syndicate, options)
    except CallError as error:
        print(f"syndicate-client: {error}", file=sys.stderr)
        return 3 if error.unreachable else 1
    except OortError as error:
        print(f"syndicate-client: {error}", file=sys.stderr)
        return 1
    except UnicodeEncodeError as error:
        print(f"syndicate-client: {error.object!r} is not UTF-8 text", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
