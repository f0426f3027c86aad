"""CONFIG: oort's settings under Redis's parameter names.

A parameter either shows a setting or has a fixed value that is true of this server.  CONFIG SET
changes a setting if the running process can apply the change.  CONFIG SET also succeeds if it sets
a fixed parameter to the value that the parameter has already, because some clients insist on
`appendonly yes` or `save ""`.  Parameters without a meaning in oort are not listed.  CONFIG SET
changes all of its pairs or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oort.commands import reply
from oort.commands.connection import DATABASES
from oort.commands.context import Context
from oort.commands.dispatch import Handlers
from oort.commands.glob import compile_glob
from oort.commands.reply import OK
from oort.config.settings import Settings, parse_size, split_address
from oort.dataplane import Request

HANDLERS = Handlers()


INT_MAX = 2**31 - 1
MIB = 1024 * 1024


class _RefusedError(Exception):
    """The value is invalid.  The text is the last part of Redis's error message."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """parse None: the parameter is fixed.  CONFIG SET refuses any other value with `why`."""

    name: str
    show: Callable[[Settings], str]
    field: str = ""
    parse: Callable[[bytes], Any] | None = None
    why: str = "can't set immutable config"


def _number(low: int, high: int) -> Callable[[bytes], int]:
    def parse(text: bytes) -> int:
        value = reply.parse_integer(text)
        if value is None:
            raise _RefusedError("argument couldn't be parsed into an integer")
        return _within(value, low, high)

    return parse


def _memory(low: int, high: int) -> Callable[[bytes], int]:
    def parse(text: bytes) -> int:
        try:
            return _within(parse_size(text.decode()), low, high)
        except ValueError as error:
            raise _RefusedError("argument must be a memory value") from error

    return parse


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise _RefusedError(f"argument must be between {low} and {high} inclusive")
    return value


def _choice(choices: dict[str, str]) -> Callable[[bytes], str]:
    def parse(text: bytes) -> str:
        found = choices.get(text.decode("ascii", "replace").lower())
        if found is None:
            raise _RefusedError(f"argument(s) must be one of the following: {', '.join(choices)}")
        return found

    return parse


def _yes_no(text: bytes) -> bool:
    if text.lower() not in (b"yes", b"no"):
        raise _RefusedError("argument must be 'yes' or 'no'")
    return text.lower() == b"yes"


def _password(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise _RefusedError("the password must be UTF-8 text") from error


_LEVELS = {"debug": "debug", "verbose": "info", "notice": "notice", "warning": "warning"}
_LEVEL_NAMES = {
    "debug": "debug",
    "info": "verbose",
    "notice": "notice",
    "warning": "warning",
    "error": "warning",
}
_CLASSES = {"normal": 0, "slave": 1, "replica": 1, "pubsub": 2}


def _output_limit(text: bytes) -> int | None:
    """The hard limit of class normal in bytes; None: the text sets only other classes."""
    words = text.decode("utf-8", "replace").split()
    if len(words) % 4:
        raise _RefusedError("Wrong number of arguments in buffer limit configuration.")
    found = None
    for name, hard, soft, seconds in zip(*(words[i::4] for i in range(4)), strict=True):
        if name.lower() not in _CLASSES:
            raise _RefusedError("Invalid client class specified in buffer limit configuration.")
        try:
            sizes = parse_size(hard), parse_size(soft), parse_size(seconds)
        except ValueError as error:
            raise _RefusedError(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration."
            ) from error
        if name.lower() == "normal":
            if sizes[1:] != (0, 0):
                raise _RefusedError("oortd has a hard limit only: soft and soft_seconds must be 0")
            if sizes[0] < MIB:
                raise _RefusedError("oortd always has a hard limit: it must be at least 1mb")
            found = sizes[0]
    return found


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _fixed(name: str, value: str, why: str = "can't set immutable config") -> Parameter:
    return Parameter(name, lambda settings: value, why=why)


_STORE_DECIDES = "oortd keeps all data in its log and never forks: this parameter cannot be changed"
_NO_EVICTION = "oortd keeps its data on disk and evicts no keys: this parameter cannot be changed"

PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("maxclients", lambda s: str(s.max_clients), "max_clients", _number(1, 1_000_000)),
        Parameter("timeout", lambda s: str(s.idle_timeout), "idle_timeout", _number(0, INT_MAX)),
        Parameter(
            "tcp-keepalive", lambda s: str(s.tcp_keepalive), "tcp_keepalive", _number(0, 32767)
        ),
        Parameter("requirepass", lambda s: s.require_pass, "require_pass", _password),
        Parameter("protected-mode", lambda s: _yes(s.protected_mode), "protected_mode", _yes_no),
        Parameter(
            "appendfsync",
            lambda s: s.fsync,
            "fsync",
            _choice({"everysec": "everysec", "always": "always", "no": "no"}),
        ),
        Parameter(
            "client-query-buffer-limit",
            lambda s: str(s.query_buffer_limit),
            "query_buffer_limit",
            _memory(MIB, 2**63 - 1),
        ),
        Parameter(
            "client-output-buffer-limit",
            lambda s: f"normal {s.output_buffer_limit} 0 0 slave 0 0 0 pubsub 0 0 0",
            "output_buffer_limit",
            _output_limit,
        ),
        Parameter(
            "proto-max-bulk-len", lambda s: str(s.value_cap), "value_cap", _memory(MIB, 512 * MIB)
        ),
        Parameter("loglevel", lambda s: _LEVEL_NAMES[s.log_level], "log_level", _choice(_LEVELS)),
        Parameter("port", lambda s: str(split_address(s.listen_address[0])[1])),
        Parameter(
            "bind", lambda s: " ".join(split_address(address)[0] for address in s.listen_address)
        ),
        Parameter("dir", lambda s: s.data_dir, why="can't set protected config"),
        Parameter("io-threads", lambda s: str(max(1, s.workers))),
        Parameter("appendonly", lambda s: _yes(s.store_type == "valuestore"), why=_STORE_DECIDES),
        _fixed("databases", str(DATABASES)),
        _fixed("save", "", _STORE_DECIDES),
        _fixed("maxmemory", "0", _NO_EVICTION),
        _fixed("maxmemory-policy", "noeviction", _NO_EVICTION),
        _fixed("maxmemory-clients", "0", _NO_EVICTION),
        _fixed("cluster-enabled", "no"),
        _fixed("daemonize", "no"),
        _fixed("supervised", "auto"),
        _fixed("unixsocket", ""),
        _fixed("replicaof", ""),
        _fixed("tls-port", "0"),
        _fixed("logfile", ""),
        _fixed("notify-keyspace-events", "", "oortd has no keyspace events"),
        _fixed("stop-writes-on-bgsave-error", "yes", _STORE_DECIDES),
    )
}


# Settings that the running process can change.
CHANGEABLE = frozenset(
    parameter.field for parameter in PARAMETERS.values() if parameter.parse is not None
)


def _parameter(name: bytes) -> Parameter | None:
    return PARAMETERS.get(name.decode("ascii", "replace").lower())


@HANDLERS.handles("config|get")
def config_get(context: Context, request: Request) -> bytes:
    # As in Redis, the reply repeats a name without wildcards exactly as the client wrote it.
    found: dict[str, tuple[bytes, bytes]] = {}
    for pattern in request.argv[2:]:
        exact = None if any(c in pattern for c in b"[*?") else _parameter(pattern)
        if exact is not None:
            shown = reply.bulk(exact.show(context.settings))
            found.setdefault(exact.name, (reply.bulk(pattern), shown))
            continue
        match = compile_glob(pattern, fold=True)
        for name, parameter in PARAMETERS.items():
            if name not in found and match(name.encode()):
                found[name] = reply.bulk(name), reply.bulk(parameter.show(context.settings))
    return reply.pairs(list(found.values()), request.protocol)


def _failed(name: bytes, why: str) -> bytes:
    return reply.error(
        b"ERR CONFIG SET failed (possibly related to argument '%b') - %b"
        % (name.partition(b"\0")[0], why.encode())
    )


@HANDLERS.handles("config|set")
def config_set(context: Context, request: Request) -> bytes:
    argv = request.argv
    if len(argv) % 2:
        return reply.SYNTAX_ERROR
    pairs = list(zip(argv[2::2], argv[3::2], strict=True))
    for name, _ in pairs:
        if _parameter(name) is None:
            return reply.error(
                b"ERR Unknown option or number of arguments for CONFIG SET - '%b'"
                % name.partition(b"\0")[0]
            )
    changes: dict[str, Any] = {}
    seen: set[str] = set()
    for name, text in pairs:
        parameter = _parameter(name)
        assert parameter is not None
        if parameter.name in seen:
            return _failed(name, "duplicate parameter")
        seen.add(parameter.name)
        if parameter.parse is None:
            if text.decode("utf-8", "replace").lower() != parameter.show(context.settings).lower():
                return _failed(name, parameter.why)
            continue
        try:
            value = parameter.parse(text)
        except _RefusedError as refused:
            return _failed(name, str(refused))
        if value is not None:
            changes[parameter.field] = value
    problem = context.change_settings(changes)
    if problem is not None:
        return _failed(problem[0].encode(), problem[1])
    return OK


@HANDLERS.handles("config|resetstat")
def config_resetstat(context: Context, request: Request) -> bytes:
    context.reset_figures()
    return OK


@HANDLERS.handles("config|rewrite")
def config_rewrite(context: Context, request: Request) -> bytes:
    if context.process.config_file is None:
        return b"-ERR The server is running without a config file\r\n"
    return b"-ERR Rewriting config file: oortd never writes its configuration file\r\n"
