"""COMMAND and its subcommands: the command table for clients.

The replies have the shape that redis.io/commands/command describes.
"""

from __future__ import annotations

from collections.abc import Sequence

from oort._native import lib
from oort.commands import reply, table
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.glob import compile_glob
from oort.commands.table import Argument, Command
from oort.dataplane import Request

HANDLERS = Handlers()

# In Redis's order.
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
    spec = [
        *([("notes", reply.bulk(command.key_note))] if command.key_note else []),
        ("flags", _simple_set(command.access, protocol)),
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
            _simple_set([f"@{name}" for name in command.categories], protocol),
            reply.as_set([reply.bulk(tip) for tip in command.tips], protocol),
            _key_specs(command, protocol),
            reply.array([_details(subcommand, protocol) for subcommand in below])
            if below
            else reply.as_set([], protocol),
        ]
    )


def _argument(argument: Argument, protocol: int) -> bytes:
    facts = [("name", reply.bulk(argument.name)), ("type", reply.bulk(argument.type))]
    if argument.type == "key":
        facts.append(("key_spec_index", reply.integer(0)))
    if argument.token:
        facts.append(("token", reply.bulk(argument.token)))
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
    return reply.array([_argument(argument, protocol) for argument in arguments])


def _documentation(command: Command, protocol: int) -> bytes:
    facts = [
        ("summary", reply.bulk(command.summary)),
        ("since", reply.bulk(command.since)),
        ("group", reply.bulk(command.group)),
    ]
    if command.complexity:
        facts.append(("complexity", reply.bulk(command.complexity)))
    if command.arguments:
        facts.append(("arguments", _arguments(command.arguments, protocol)))
    below = table.SUBCOMMANDS.get(command.name, {}).values()
    if below:
        docs = [(subcommand.name, _documentation(subcommand, protocol)) for subcommand in below]
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
    docs = [
        (command.name, _documentation(command, request.protocol)) for command in asked if command
    ]
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
        category = wanted.decode("ascii", "replace").lower()
        return reply.bulks(
            [command.name for command in table.COMMANDS if category in command.categories]
        )
    if kind == b"pattern":
        match = compile_glob(wanted, fold=True)
        return reply.bulks(
            [command.name for command in table.COMMANDS if match(command.name.encode())]
        )
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


@HANDLERS.handles("client|help", "command|help", "config|help", "memory|help")
def help_text(context: Context, request: Request) -> bytes:
    container = table.BY_NAME[table.COMMANDS[request.command].container]
    return reply.simples(table.help_of(container))
