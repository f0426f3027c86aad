"""Commands about the connection itself: HELLO, AUTH, SELECT, QUIT, RESET and CLIENT.

Replies and errors are those of Redis 7.0 (redis.io/commands).
"""

from __future__ import annotations

import hashlib
import hmac

from oort.commands import reply
from oort.commands.clients import Client, describe, valid_name
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.reply import OK
from oort.dataplane import AUTHENTICATED, NO_EVICT, NO_TOUCH, Connection, Reply, Request

HANDLERS = Handlers()

DATABASES = 16
REDIS_VERSION = "7.0.15"  # the version that oort imitates; clients choose features by it


_WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
_NO_PASSWORD_SET = (
    b"-ERR AUTH <password> called without any password configured for the default user."
    b" Are you sure your configuration is correct?\r\n"
)
_HELLO_UNAUTHENTICATED = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO"
    b" AUTH <user> <pass> option can be used to authenticate the client and select the"
    b" RESP protocol version at the same time\r\n"
)
_NOT_AN_INT = b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
_BAD_NAME = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
_CLIENT_TYPES = {
    b"normal": True,
    b"master": False,
    b"replica": False,
    b"slave": False,
    b"pubsub": False,
}


def authenticates(context: Context, user: bytes, password: bytes) -> bool:
    """Whether user and password are right.

    The time that the check takes does not depend on the password.
    """
    wanted = context.settings.require_pass.encode()
    # Compare digests, because the time to compare texts depends on their lengths.
    digests = hashlib.sha256(wanted).digest(), hashlib.sha256(password).digest()
    matches = hmac.compare_digest(*digests) or not wanted
    return matches and user == b"default"


@HANDLERS.handles("hello")
def hello(context: Context, request: Request) -> Reply:
    argv, protocol, flags = request.argv, request.protocol, request.flags
    client = context.clients[request.connection]
    if len(argv) > 1:
        version = reply.parse_integer(argv[1])
        if version is None:
            return Reply(b"-ERR Protocol version is not an integer or out of range\r\n")
        if version not in (2, 3):
            return Reply(b"-NOPROTO unsupported protocol version\r\n")
        protocol = version
    position = 2
    while position < len(argv):
        option, rest = argv[position].upper(), len(argv) - position - 1
        if option == b"AUTH" and rest >= 2:
            if not authenticates(context, argv[position + 1], argv[position + 2]):
                return Reply(_WRONG_PASSWORD, flags=flags)
            flags |= AUTHENTICATED
            position += 3
        elif option == b"SETNAME" and rest:
            if not valid_name(argv[position + 1]):
                return Reply(_BAD_NAME, flags=flags)
            client.name = argv[position + 1]
            position += 2
        else:
            word = argv[position].partition(b"\0")[0]
            return Reply(reply.error(b"ERR Syntax error in HELLO option '%b'" % word), flags=flags)
    if not flags & AUTHENTICATED and context.settings.require_pass:
        return Reply(_HELLO_UNAUTHENTICATED)
    facts = (
        ("server", reply.bulk("redis")),
        ("version", reply.bulk(REDIS_VERSION)),
        ("proto", reply.integer(protocol)),
        ("id", reply.integer(request.connection)),
        ("mode", reply.bulk("standalone")),
        ("role", reply.bulk("master")),
        ("modules", reply.array([])),
    )
    data = reply.pairs([(reply.bulk(name), value) for name, value in facts], protocol)
    return Reply(data, protocol=protocol, flags=flags)


@HANDLERS.handles("auth")
def auth(context: Context, request: Request) -> Reply:
    argv = request.argv
    if len(argv) > 3:
        return Reply(reply.SYNTAX_ERROR)
    if len(argv) == 2 and not context.settings.require_pass:
        return Reply(_NO_PASSWORD_SET)
    user, password = (b"default", argv[1]) if len(argv) == 2 else argv[1:]
    if not authenticates(context, user, password):
        return Reply(_WRONG_PASSWORD)
    return Reply(OK, flags=request.flags | AUTHENTICATED)


@HANDLERS.handles("select")
def select(context: Context, request: Request) -> Reply:
    index = reply.parse_integer(request.argv[1])
    if index is None:
        return Reply(reply.NOT_AN_INTEGER)
    if not -(2**31) <= index < 2**31:
        return Reply(_NOT_AN_INT)
    if not 0 <= index < DATABASES:
        return Reply(b"-ERR DB index is out of range\r\n")
    return Reply(OK, database=index)


@HANDLERS.handles("quit")
def quit_connection(context: Context, request: Request) -> Reply:
    return Reply(OK, close=True)


@HANDLERS.handles("reset")
def reset(context: Context, request: Request) -> Reply:
    context.clients[request.connection].name = b""
    flags = request.flags & ~(AUTHENTICATED | NO_EVICT | NO_TOUCH)
    if not context.settings.require_pass:
        flags |= AUTHENTICATED
    return Reply(b"+RESET\r\n", database=0, protocol=2, flags=flags)


@HANDLERS.handles("client|id")
def client_id(context: Context, request: Request) -> bytes:
    return reply.integer(request.connection)


@HANDLERS.handles("client|setname")
def client_setname(context: Context, request: Request) -> bytes:
    if not valid_name(request.argv[2]):
        return _BAD_NAME
    context.clients[request.connection].name = request.argv[2]
    return OK


@HANDLERS.handles("client|getname")
def client_getname(context: Context, request: Request) -> bytes:
    name = context.clients[request.connection].name
    return reply.bulk(name) if name else reply.null(request.protocol)


@HANDLERS.handles("client|setinfo")
def client_setinfo(context: Context, request: Request) -> bytes:
    option, value = request.argv[2].lower(), request.argv[3]
    client = context.clients[request.connection]
    if option not in (b"lib-name", b"lib-ver"):
        word = request.argv[2].partition(b"\0")[0]
        return reply.error(b"ERR Unrecognized option '%b'" % word)
    if not valid_name(value):
        return reply.error(
            b"ERR %b cannot contain spaces, newlines or special characters." % option
        )
    if option == b"lib-name":
        client.library = value
    else:
        client.library_version = value
    return OK


@HANDLERS.handles("client|info")
def client_info(context: Context, request: Request) -> bytes:
    connection = context.plane.connections().get(request.connection)
    if connection is None:
        return reply.null(request.protocol)  # the connection was closed meanwhile
    text = describe(context.clients[request.connection], connection, context.clock.wall())
    return reply.verbatim(text, request.protocol)


def _known(context: Context) -> list[tuple[Client, Connection]]:
    """Every client that both Python and the data plane know, in order of id."""
    connections = context.plane.connections()
    return [
        (context.clients[identifier], connection)
        for identifier, connection in connections.items()
        if identifier in context.clients
    ]


@HANDLERS.handles("client|list")
def client_list(context: Context, request: Request) -> bytes:
    argv = request.argv
    wanted: set[int] | None = None
    if len(argv) == 4 and argv[2].lower() == b"type":
        if argv[3].lower() not in _CLIENT_TYPES:
            return _unknown_type(argv[3])
        if not _CLIENT_TYPES[argv[3].lower()]:
            wanted = set()
    elif len(argv) > 3 and argv[2].lower() == b"id":
        wanted = set()
        for word in argv[3:]:
            identifier = reply.parse_integer(word)
            if identifier is None:
                return b"-ERR Invalid client ID\r\n"
            wanted.add(identifier)
    elif len(argv) != 2:
        return reply.SYNTAX_ERROR
    now = context.clock.wall()
    lines = [
        describe(client, connection, now)
        for client, connection in _known(context)
        if wanted is None or client.id in wanted
    ]
    return reply.verbatim(b"".join(lines), request.protocol)


def _unknown_type(word: bytes) -> bytes:
    return reply.error(b"ERR Unknown client type '%b'" % word.partition(b"\0")[0])


@HANDLERS.handles("client|kill")
def client_kill(context: Context, request: Request) -> bytes | Reply:
    argv = request.argv
    if len(argv) == 3:
        return _kill_address(context, request, argv[2])
    filters: dict[str, object] = {}
    skip_self = True
    if len(argv) % 2:
        return reply.SYNTAX_ERROR
    for option, value in zip(argv[2::2], argv[3::2], strict=True):
        word = option.lower()
        if word == b"id":
            identifier = reply.parse_integer(value)
            if identifier is None or identifier < 1:
                return b"-ERR client-id should be greater than 0\r\n"
            filters["id"] = identifier
        elif word == b"maxage":
            age = reply.parse_integer(value)
            if age is None:
                return b"-ERR maxage is not an integer or out of range\r\n"
            if age < 1:
                return b"-ERR maxage should be greater than 0\r\n"
            filters["maxage"] = age
        elif word == b"type":
            if value.lower() not in _CLIENT_TYPES:
                return _unknown_type(value)
            filters["type"] = _CLIENT_TYPES[value.lower()]
        elif word == b"addr":
            filters["address"] = value.decode("utf-8", "replace")
        elif word == b"laddr":
            filters["local_address"] = value.decode("utf-8", "replace")
        elif word == b"user":
            if value != b"default":
                return reply.error(b"ERR No such user '%b'" % value.partition(b"\0")[0])
        elif word == b"skipme":
            if value.lower() not in (b"yes", b"no"):
                return reply.SYNTAX_ERROR
            skip_self = value.lower() == b"yes"
        else:
            return reply.SYNTAX_ERROR
    return _kill_matching(context, request, filters, skip_self)


def _kill_address(context: Context, request: Request, address: bytes) -> bytes | Reply:
    for client in context.clients.values():
        if client.address.encode() == address:
            if client.id == request.connection:
                return Reply(OK, close=True)
            if context.plane.kill(client.id):
                return OK
    return b"-ERR No such client\r\n"


def _kill_matching(
    context: Context, request: Request, filters: dict[str, object], skip_self: bool
) -> bytes | Reply:
    killed, close_self = 0, False
    now = context.clock.wall()
    for client in list(context.clients.values()):
        if (
            filters.get("id", client.id) != client.id
            or filters.get("address", client.address) != client.address
            or filters.get("local_address", client.local_address) != client.local_address
            or not filters.get("type", True)
            or now - client.created < float(str(filters.get("maxage", -1)))
        ):
            continue
        if client.id == request.connection:
            if not skip_self:
                close_self = True
                killed += 1
        elif context.plane.kill(client.id):
            killed += 1
    return Reply(reply.integer(killed), close=close_self)


def _switch(request: Request, flag: int) -> bytes | Reply:
    word = request.argv[2].lower()
    if word == b"on":
        return Reply(OK, flags=request.flags | flag)
    if word == b"off":
        return Reply(OK, flags=request.flags & ~flag)
    return reply.SYNTAX_ERROR


@HANDLERS.handles("client|no-evict")
def client_no_evict(context: Context, request: Request) -> bytes | Reply:
    return _switch(request, NO_EVICT)


@HANDLERS.handles("client|no-touch")
def client_no_touch(context: Context, request: Request) -> bytes | Reply:
    return _switch(request, NO_TOUCH)
