"""syndicate-client: look at and change a syndicate's rings, and command its nodes.

Exit status: 0; 1 when it was refused or failed; 2 for a wrong command line; 3 when the syndicate,
or a node, could not be reached.
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
    """Decimal, or hexadecimal (16 digits, or 0x); None if it is neither."""
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}|[0-9A-Fa-f]{16}", text):
        return int(text, 16)
    if re.fullmatch(r"[0-9]{1,20}", text) and int(text) < 1 << 64:
        return int(text)
    return None


def find_node(syndicate: Syndicate, text: str) -> messages.Node:
    """By id, or by the exact host name (meta)."""
    wanted = node_id(text)
    every = all_nodes(syndicate)
    by_id = [node for node in every if node.id == wanted]
    found = by_id or [node for node in every if node.meta == text]
    if not found:
        raise SyndicateToolError(f"there is no node {text!r}")
    if len(found) > 1:
        raise SyndicateToolError(f"{len(found)} nodes are called {text!r}: name one by its id")
    return found[0]


def all_nodes(syndicate: Syndicate) -> list[messages.Node]:
    reply: messages.SearchResult = syndicate.call(syndicate.rings.SearchNodes, messages.Node())
    return list(reply.nodes)


def pairs(arguments: Sequence[str], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """NAME=VALUE, with names among `allowed`; tierN and addressN come with tier and address."""
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
    """A file's; `-` is standard input."""
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
    """`node` with the attributes (or what to search for) filled in."""
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
                raise SyndicateToolError(f"{value!r} is no id: expected a number, or 0x and digits")
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
    """Ids are decimal strings: not every program reads 64-bit numbers."""
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
    """What every change answers."""
    if not status.status:
        raise SyndicateToolError(f"refused; the version is {status.version}")
    emit(options, {"version": str(status.version)}, f"version {status.version}")


# Verbs: questions


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
    what = files.decode_ring(reply.ring)
    files.write(options.file, what)
    emit(
        options,
        {"version": str(reply.version), "file": str(options.file)},
        f"version {reply.version} is in {options.file}",
    )


def watch(syndicate: Syndicate, options: argparse.Namespace) -> None:
    """Every ring as it is made, until interrupted, or `count` of them."""
    subscriber = messages.SubscriberID(id=f"syndicate-client:{socket.gethostname()}:{os.getpid()}")
    left = options.count
    reply: messages.Ring
    for reply in syndicate.stream(syndicate.rings.GetRingStream, subscriber):
        what = files.decode_ring(reply.ring)
        active = sum(node.active for node in what.nodes)
        now = utc(SYSTEM.wall()).astimezone()
        data = {
            "time": now.isoformat(timespec="seconds"),
            "version": str(reply.version),
            "nodes": len(what.nodes),
            "active": active,
            "replicas": what.replica_count,
            "partitions": what.partitions,
        }
        emit(
            options,
            data,
            f"{now:%Y-%m-%d %H:%M:%S}  version {reply.version}: {len(what.nodes)} nodes "
            f"({active} active), {what.replica_count} replicas, {what.partitions} partitions",
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
    """The configuration of the ring; with a node first, that node's attributes."""
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
    made = tokens.read_token(reply.token)
    data = {
        "token": reply.token,
        "id": made.id,
        "role": made.role,
        "uses": options.uses,
        "expires": made.expires.isoformat(),
        "authority": made.authority,
    }
    emit(options, data, reply.token)
    if not options.json:
        print(
            f"For {options.uses} {made.role}{'s' if options.uses > 1 else ''}, "
            f"until {made.expires:%Y-%m-%d %H:%M:%S} UTC. Keep it secret.",
            file=sys.stderr,
        )


def join(settings: connection.Settings, options: argparse.Namespace) -> None:
    """An operator's certificate for a token; the key never leaves this machine."""
    if not settings.use_tls:
        raise SyndicateToolError("joining takes TLS")
    text = options.join_token
    if text == "-":
        text = content(text).decode("ascii", "replace")
    made = tokens.read_token(text)
    ca_file: Path | None = settings.ca_file
    if is_there(settings.ca_file):
        roots = read(settings.ca_file)
        try:
            certificates.pick(roots, made.authority)
        except TLSError as error:
            raise TLSError(
                f"{ca_file} is of another authority: move it away, or name another file with --ca"
            ) from error
        ca_file = None  # there may be others in it
    identity = connection.join(
        settings, made, trust_token=options.ca is None and options.fingerprint is None
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
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
    common.add_argument("--ca", metavar="FILE", help="certificates to verify by")
    common.add_argument("--cert", metavar="FILE", help="our certificate")
    common.add_argument("--key", metavar="FILE", help="our private key")
    common.add_argument("--fingerprint", metavar="SHA256",
                        help="of the server's certificate or its authority's")  # fmt: skip
    common.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="of a call")
    common.add_argument("--cmdctrl-port", type=_count, metavar="PORT", help="of nodes")
    common.add_argument("--no-tls", action="store_true", help="for a syndicate without TLS")
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
        made = verbs.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        made.set_defaults(run=run)
        return made

    verb("version", version, "the ring's version")
    made = verb("config", config, "the ring's configuration, or a node's")
    made.add_argument("node", nargs="?", metavar="NODE")
    made = verb("search", search, "nodes: all, or those that match every filter")
    made.add_argument("filter", nargs="*", metavar="id=|meta=|tier=|address=")
    made = verb("ring", ring, "write the ring to a file")
    made.add_argument("file", type=Path, metavar="FILE")
    made = verb("watch", watch, "every ring as it is made")
    made.add_argument("--count", type=_count, metavar="N", help="end after so many")

    made = verb("add", add, "a new node: id, active, capacity, tier0.., address0.., meta, config")
    made.add_argument("attribute", nargs="+", metavar="NAME=VALUE")
    made = verb("rm", remove, "remove nodes")
    made.add_argument("node", nargs="+", metavar="NODE")
    made = verb("set", set_values, "config=FILE [restart=true], or NODE NAME=VALUE ...")
    made.add_argument("value", nargs="+", metavar="[NODE] NAME=VALUE")
    made = verb("capacity", capacity, "set a node's capacity")
    made.add_argument("node", metavar="NODE")
    made.add_argument("capacity", metavar="CAPACITY")
    made = verb("active", active, "set whether a node holds data")
    made.add_argument("node", metavar="NODE")
    made.add_argument("active", metavar="true|false")
    made = verb("replicas", replicas, "set the number of replicas")
    made.add_argument("count", metavar="COUNT")
    made = verb("addresses", addresses, "replace a node's addresses")
    made.add_argument("node", metavar="NODE")
    made.add_argument("address", nargs="+", metavar="ADDRESS")
    made = verb("tiers", tiers, "replace a node's tiers")
    made.add_argument("node", metavar="NODE")
    made.add_argument("tier", nargs="+", metavar="TIER")

    for name, text in (
        ("health", "ask a node, or all, how it is"),
        ("stats", "a node's statistics"),
        ("reload", "let a node read its configuration again"),
        ("restart", "let a node stop and start serving"),
        ("start", "let a node serve"),
        ("stop", "let a node stop serving; it can be started"),
        ("exit", "end a node's process"),
        ("software-version", "the version of a node's software, as the syndicate knows it"),
        ("upgrade", "let a node upgrade its software"),
    ):
        made = verb(name, command, text)
        made.add_argument("node", metavar="NODE|all")
        if name == "upgrade":
            made.add_argument("version", metavar="VERSION")
        if name in ("software-version", "upgrade"):
            made.add_argument("--direct", action="store_true", default=False,
                              help="ask the node itself, not the syndicate")  # fmt: skip

    made = verb("token", token, "a join token")
    made.add_argument("--role", choices=("node", "operator"), default="node")
    made.add_argument("--uses", type=_count, default=1, metavar="N")
    made.add_argument("--seconds", type=_count, default=3600, metavar="N")
    made = verb("join", None, "get an operator's certificate with a join token")
    made.add_argument("join_token", metavar="TOKEN", help="- is standard input")
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
    # An option may stand before or after the verb; a default must not overwrite it.
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
