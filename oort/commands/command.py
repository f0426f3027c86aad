"""COMMAND: the command table, as clients ask for it.

Facts come from the table (csrc/commands/commands.def).  What it does not have is here: key access
flags and the tips for clients that talk to several nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from oort._native import lib
from oort.commands import reply, table
from oort.commands.arguments import ARGUMENTS, Argument
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.glob import compile_glob
from oort.commands.table import Command
from oort.dataplane import Request

HANDLERS = Handlers()

HELP = (
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all commands.",
    "COUNT",
    "    Return the total number of commands in this server.",
    "LIST",
    "    Return a list of all commands in this server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple commands.",
    "    If no command names are given, details for all commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full command.",
    "HELP",
    "    Prints this help.",
)

# In the order Redis lists them.
_FLAGS: tuple[tuple[int, str], ...] = tuple(
    (getattr(lib, f"OORT_CMD_{name.upper()}"), name)
    for name in (
        "write",
        "readonly",
        "denyoom",
        "admin",
        "noscript",
        "blocking",
        "loading",
        "stale",
        "fast",
        "no_auth",
        "no_async_loading",
        "no_multi",
        "allow_busy",
    )
)

_READ = ("RO", "access")
_UPDATE = ("RW", "update")
_CHANGE = ("RW", "access", "update")
_KEY_FLAGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("get", "mget", "ttl", "pttl", "expiretime", "pexpiretime", "getrange"), _READ),
    **dict.fromkeys(("exists", "strlen", "type", "touch", "memory|usage"), ("RO",)),
    **dict.fromkeys(("expire", "pexpire", "expireat", "pexpireat", "persist", "setrange"), _UPDATE),
    **dict.fromkeys(
        ("getset", "getex", "incr", "decr", "incrby", "decrby", "incrbyfloat"), _CHANGE
    ),
    **dict.fromkeys(("del", "unlink"), ("RM", "delete")),
    **dict.fromkeys(("mset", "setex", "psetex"), ("OW", "update")),
    **dict.fromkeys(("msetnx", "setnx"), ("OW", "insert")),
    "set": ("RW", "access", "update", "variable_flags"),
    "getdel": ("RW", "access", "delete"),
    "append": ("RW", "insert"),
}
_KEY_NOTES = {
    "set": "RW and ACCESS due to the optional `GET` argument",
    "getex": "RW and UPDATE because it changes the TTL",
}
_ALL_SUCCEEDED = ("request_policy:all_shards", "response_policy:all_succeeded")
_ADDED = ("request_policy:multi_shard", "response_policy:agg_sum")
_VARIES = ("nondeterministic_output",)
_UNORDERED = ("nondeterministic_output_order",)
_TIPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("del", "unlink", "exists", "touch"), _ADDED),
    **dict.fromkeys(("ping", "flushall", "flushdb"), _ALL_SUCCEEDED),
    **dict.fromkeys(("ttl", "pttl", "time", "lastsave", "client|info", "client|list"), _VARIES),
    **dict.fromkeys(("command", "command|info", "command|docs", "command|list"), _UNORDERED),
    "mget": ("request_policy:multi_shard",),
    "mset": ("request_policy:multi_shard", "response_policy:all_succeeded"),
    "msetnx": ("request_policy:multi_shard", "response_policy:agg_min"),
    "config|set": ("request_policy:all_nodes", "response_policy:all_succeeded"),
    "info": (*_VARIES, "request_policy:all_shards", "response_policy:special"),
    "dbsize": ("request_policy:all_shards", "response_policy:agg_sum"),
    "scan": (*_VARIES, "request_policy:special"),
    "keys": ("request_policy:all_shards", *_UNORDERED),
    "randomkey": ("request_policy:all_shards", *_VARIES),
}


def _named(items: Sequence[tuple[str, bytes]], protocol: int) -> bytes:
    return reply.pairs([(reply.bulk(name), value) for name, value in items], protocol)


def _simple_set(items: Sequence[str], protocol: int) -> bytes:
    return reply.as_set([reply.simple(item) for item in items], protocol)


def _key_specs(command: Command, protocol: int) -> bytes:
    if not command.first_key:
        return reply.as_set([], protocol)
    last = command.last_key - command.first_key if command.last_key > 0 else command.last_key
    begin = _named([("index", reply.integer(command.first_key))], protocol)
    spread = [
        ("lastkey", reply.integer(last)),
        ("keystep", reply.integer(command.key_step)),
        ("limit", reply.integer(0)),
    ]
    note = _KEY_NOTES.get(command.name)
    spec = [
        *([("notes", reply.bulk(note))] if note else []),
        ("flags", _simple_set(_KEY_FLAGS.get(command.name, ()), protocol)),
        ("begin_search", _named([("type", reply.bulk("index")), ("spec", begin)], protocol)),
        (
            "find_keys",
            _named([("type", reply.bulk("range")), ("spec", _named(spread, protocol))], protocol),
        ),
    ]
    return reply.as_set([_named(spec, protocol)], protocol)


def _details(command: Command, protocol: int) -> bytes:
    below = table.SUBCOMMANDS.get(command.name, {}).values()
    return reply.array(
        [
            reply.bulk(command.name),
            reply.integer(command.arity),
            _simple_set([name for bit, name in _FLAGS if command.flags & bit], protocol),
            reply.integer(command.first_key),
            reply.integer(command.last_key),
            reply.integer(command.key_step),
            _simple_set(command.categories, protocol),
            reply.as_set([reply.bulk(tip) for tip in _TIPS.get(command.name, ())], protocol),
            _key_specs(command, protocol),
            reply.array([_details(one, protocol) for one in below])
            if below
            else reply.as_set([], protocol),
        ]
    )


def _argument(argument: Argument, protocol: int) -> bytes:
    facts = [("name", reply.bulk(argument.name)), ("type", reply.bulk(argument.type))]
    if argument.type == "key":
        facts.append(("key_spec_index", reply.integer(0)))
    if argument.word:
        facts.append(("token", reply.bulk(argument.word)))
    if argument.since:
        facts.append(("since", reply.bulk(argument.since)))
    if argument.deprecated_since:
        facts.append(("deprecated_since", reply.bulk(argument.deprecated_since)))
    if argument.flags:
        facts.append(("flags", _simple_set(argument.flags, protocol)))
    if argument.of:
        facts.append(("arguments", _arguments(argument.of, protocol)))
    return _named(facts, protocol)


def _arguments(arguments: Sequence[Argument], protocol: int) -> bytes:
    return reply.array([_argument(one, protocol) for one in arguments])


def _documentation(command: Command, protocol: int) -> bytes:
    facts = [
        ("summary", reply.bulk(command.summary)),
        ("since", reply.bulk(command.since)),
        ("group", reply.bulk(command.group)),
    ]
    if command.complexity:
        facts.append(("complexity", reply.bulk(command.complexity)))
    arguments = ARGUMENTS.get(command.name)
    if arguments:
        facts.append(("arguments", _arguments(arguments, protocol)))
    below = table.SUBCOMMANDS.get(command.name, {}).values()
    if below:
        docs = [(one.name, _documentation(one, protocol)) for one in below]
        facts.append(("subcommands", _named(docs, protocol)))
    return _named(facts, protocol)


def _everything(protocol: int) -> bytes:
    return reply.array([_details(command, protocol) for command in table.TOP_LEVEL])


@HANDLERS.handles("command")
def command_all(context: Context, request: Request) -> bytes:
    return _everything(request.protocol)


@HANDLERS.handles("command|info")
def command_info(context: Context, request: Request) -> bytes:
    if len(request.argv) == 2:
        return _everything(request.protocol)
    found = map(table.find, request.argv[2:])
    return reply.array(
        [
            _details(command, request.protocol) if command else reply.null(request.protocol)
            for command in found
        ]
    )


@HANDLERS.handles("command|docs")
def command_docs(context: Context, request: Request) -> bytes:
    asked = [table.find(name) for name in request.argv[2:]] or table.TOP_LEVEL
    docs = [(one.name, _documentation(one, request.protocol)) for one in asked if one]
    return _named(docs, request.protocol)


@HANDLERS.handles("command|count")
def command_count(context: Context, request: Request) -> bytes:
    return reply.integer(len(table.TOP_LEVEL))


@HANDLERS.handles("command|list")
def command_list(context: Context, request: Request) -> bytes:
    argv = request.argv
    if len(argv) == 2:
        return reply.bulks([command.name for command in table.TOP_LEVEL])
    if len(argv) != 5 or argv[2].lower() != b"filterby":
        return reply.SYNTAX_ERROR
    kind, wanted = argv[3].lower(), argv[4]
    if kind == b"module":
        return reply.array([])
    if kind == b"aclcat":
        category = "@" + wanted.decode("ascii", "replace").lower()
        return reply.bulks([one.name for one in table.COMMANDS if category in one.categories])
    if kind == b"pattern":
        match = compile_glob(wanted, fold=True)
        return reply.bulks([one.name for one in table.COMMANDS if match(one.name.encode())])
    return reply.SYNTAX_ERROR


@HANDLERS.handles("command|getkeys")
def command_getkeys(context: Context, request: Request) -> bytes:
    words = request.argv[2:]
    command = table.find(words[0])
    if command is not None and command.name in table.SUBCOMMANDS:
        below = table.SUBCOMMANDS[command.name]
        command = below.get(words[1].decode("ascii", "replace").lower())
    if command is None:
        return b"-ERR Invalid command specified\r\n"
    if not command.first_key:
        return b"-ERR The command has no key arguments\r\n"
    if not command.takes(len(words)):
        return b"-ERR Invalid number of arguments specified for command\r\n"
    last = command.last_key if command.last_key > 0 else len(words) + command.last_key
    return reply.bulks(list(words[command.first_key : last + 1 : command.key_step]))


@HANDLERS.handles("command|help")
def command_help(context: Context, request: Request) -> bytes:
    return reply.simples(HELP)
