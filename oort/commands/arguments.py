"""The arguments of every command, as COMMAND DOCS tells them: clients show them as hints.

Names, types and versions are those of Redis 7.0 (tests compare them); of newer commands those of
their first version.  The one-line syntax of the same arguments is in the command table
(csrc/commands/commands.def).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; of: what a block consists of, or the alternatives of a oneof."""

    name: str
    type: str  # key, string, integer, double, pattern, unix-time, pure-token, oneof or block
    word: str = ""  # what stands before it, or is all of it
    optional: bool = False
    multiple: bool = False
    since: str = ""
    deprecated_since: str = ""
    of: tuple[Argument, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(name for name in ("optional", "multiple") if getattr(self, name))


_KEY = Argument("key", "key")
_KEYS = Argument("key", "key", multiple=True)
_VALUE = Argument("value", "string")
_CONDITION = Argument(
    "condition",
    "oneof",
    optional=True,
    since="7.0.0",
    of=(
        Argument("nx", "pure-token", word="NX"),
        Argument("xx", "pure-token", word="XX"),
        Argument("gt", "pure-token", word="GT"),
        Argument("lt", "pure-token", word="LT"),
    ),
)

ARGUMENTS: dict[str, tuple[Argument, ...]] = {
    "get": (_KEY,),
    "set": (
        _KEY,
        _VALUE,
        Argument(
            "condition",
            "oneof",
            optional=True,
            since="2.6.12",
            of=(
                Argument("nx", "pure-token", word="NX"),
                Argument("xx", "pure-token", word="XX"),
            ),
        ),
        Argument("get", "pure-token", word="GET", optional=True, since="6.2.0"),
        Argument(
            "expiration",
            "oneof",
            optional=True,
            of=(
                Argument("seconds", "integer", word="EX", since="2.6.12"),
                Argument("milliseconds", "integer", word="PX", since="2.6.12"),
                Argument("unix-time-seconds", "unix-time", word="EXAT", since="6.2.0"),
                Argument("unix-time-milliseconds", "unix-time", word="PXAT", since="6.2.0"),
                Argument("keepttl", "pure-token", word="KEEPTTL", since="6.0.0"),
            ),
        ),
    ),
    "del": (_KEYS,),
    "unlink": (_KEYS,),
    "exists": (_KEYS,),
    "mget": (_KEYS,),
    "mset": (
        Argument(
            "key_value",
            "block",
            multiple=True,
            of=(
                _KEY,
                _VALUE,
            ),
        ),
    ),
    "msetnx": (
        Argument(
            "key_value",
            "block",
            multiple=True,
            of=(
                _KEY,
                _VALUE,
            ),
        ),
    ),
    "setnx": (
        _KEY,
        _VALUE,
    ),
    "setex": (
        _KEY,
        Argument("seconds", "integer"),
        _VALUE,
    ),
    "psetex": (
        _KEY,
        Argument("milliseconds", "integer"),
        _VALUE,
    ),
    "getset": (
        _KEY,
        _VALUE,
    ),
    "getdel": (_KEY,),
    "getex": (
        _KEY,
        Argument(
            "expiration",
            "oneof",
            optional=True,
            of=(
                Argument("seconds", "integer", word="EX"),
                Argument("milliseconds", "integer", word="PX"),
                Argument("unix-time-seconds", "unix-time", word="EXAT"),
                Argument("unix-time-milliseconds", "unix-time", word="PXAT"),
                Argument("persist", "pure-token", word="PERSIST"),
            ),
        ),
    ),
    "strlen": (_KEY,),
    "append": (
        _KEY,
        _VALUE,
    ),
    "incr": (_KEY,),
    "decr": (_KEY,),
    "incrby": (
        _KEY,
        Argument("increment", "integer"),
    ),
    "decrby": (
        _KEY,
        Argument("decrement", "integer"),
    ),
    "ping": (Argument("message", "string", optional=True),),
    "echo": (Argument("message", "string"),),
    "ttl": (_KEY,),
    "pttl": (_KEY,),
    "expire": (
        _KEY,
        Argument("seconds", "integer"),
        _CONDITION,
    ),
    "pexpire": (
        _KEY,
        Argument("milliseconds", "integer"),
        _CONDITION,
    ),
    "expireat": (
        _KEY,
        Argument("unix-time-seconds", "unix-time"),
        _CONDITION,
    ),
    "pexpireat": (
        _KEY,
        Argument("unix-time-milliseconds", "unix-time"),
        _CONDITION,
    ),
    "persist": (_KEY,),
    "type": (_KEY,),
    "expiretime": (_KEY,),
    "pexpiretime": (_KEY,),
    "touch": (_KEYS,),
    "incrbyfloat": (
        _KEY,
        Argument("increment", "double"),
    ),
    "getrange": (
        _KEY,
        Argument("start", "integer"),
        Argument("end", "integer"),
    ),
    "setrange": (
        _KEY,
        Argument("offset", "integer"),
        _VALUE,
    ),
    "hello": (
        Argument(
            "arguments",
            "block",
            optional=True,
            of=(
                Argument("protover", "integer"),
                Argument(
                    "username_password",
                    "block",
                    word="AUTH",
                    optional=True,
                    of=(
                        Argument("username", "string"),
                        Argument("password", "string"),
                    ),
                ),
                Argument("clientname", "string", word="SETNAME", optional=True),
            ),
        ),
    ),
    "auth": (
        Argument("username", "string", optional=True, since="6.0.0"),
        Argument("password", "string"),
    ),
    "select": (Argument("index", "integer"),),
    "client|setname": (Argument("connection-name", "string"),),
    "client|list": (
        Argument(
            "normal_master_replica_pubsub",
            "oneof",
            word="TYPE",
            optional=True,
            since="5.0.0",
            of=(
                Argument("normal", "pure-token", word="NORMAL"),
                Argument("master", "pure-token", word="MASTER"),
                Argument("replica", "pure-token", word="REPLICA"),
                Argument("pubsub", "pure-token", word="PUBSUB"),
            ),
        ),
        Argument(
            "id",
            "block",
            word="ID",
            optional=True,
            since="6.2.0",
            of=(Argument("client-id", "integer", multiple=True),),
        ),
    ),
    "client|kill": (
        Argument(
            "filter",
            "oneof",
            of=(
                Argument("ip:port", "string", deprecated_since="2.8.12"),
                Argument(
                    "new-format",
                    "oneof",
                    multiple=True,
                    of=(
                        Argument("client-id", "integer", word="ID", optional=True, since="2.8.12"),
                        Argument(
                            "normal_master_slave_pubsub",
                            "oneof",
                            word="TYPE",
                            optional=True,
                            since="2.8.12",
                            of=(
                                Argument("normal", "pure-token", word="NORMAL"),
                                Argument("master", "pure-token", word="MASTER", since="3.2.0"),
                                Argument("slave", "pure-token", word="SLAVE"),
                                Argument("replica", "pure-token", word="REPLICA", since="5.0.0"),
                                Argument("pubsub", "pure-token", word="PUBSUB"),
                            ),
                        ),
                        Argument("username", "string", word="USER", optional=True),
                        Argument("ip:port", "string", word="ADDR", optional=True),
                        Argument("ip:port", "string", word="LADDR", optional=True, since="6.2.0"),
                        Argument("yes/no", "string", word="SKIPME", optional=True),
                    ),
                ),
            ),
        ),
    ),
    "client|no-evict": (
        Argument(
            "enabled",
            "oneof",
            of=(
                Argument("on", "pure-token", word="ON"),
                Argument("off", "pure-token", word="OFF"),
            ),
        ),
    ),
    "command|info": (Argument("command-name", "string", optional=True, multiple=True),),
    "command|docs": (Argument("command-name", "string", optional=True, multiple=True),),
    "command|list": (
        Argument(
            "filterby",
            "oneof",
            word="FILTERBY",
            optional=True,
            of=(
                Argument("module-name", "string", word="MODULE"),
                Argument("category", "string", word="ACLCAT"),
                Argument("pattern", "pattern", word="PATTERN"),
            ),
        ),
    ),
    "config|get": (
        Argument("parameter", "block", multiple=True, of=(Argument("parameter", "string"),)),
    ),
    "config|set": (
        Argument(
            "parameter_value",
            "block",
            multiple=True,
            of=(
                Argument("parameter", "string"),
                _VALUE,
            ),
        ),
    ),
    "info": (Argument("section", "string", optional=True, multiple=True),),
    "scan": (
        Argument("cursor", "integer"),
        Argument("pattern", "pattern", word="MATCH", optional=True),
        Argument("count", "integer", word="COUNT", optional=True),
        Argument("type", "string", word="TYPE", optional=True, since="6.0.0"),
    ),
    "keys": (Argument("pattern", "pattern"),),
    "flushall": (
        Argument(
            "async",
            "oneof",
            optional=True,
            of=(
                Argument("async", "pure-token", word="ASYNC", since="4.0.0"),
                Argument("sync", "pure-token", word="SYNC", since="6.2.0"),
            ),
        ),
    ),
    "flushdb": (
        Argument(
            "async",
            "oneof",
            optional=True,
            of=(
                Argument("async", "pure-token", word="ASYNC", since="4.0.0"),
                Argument("sync", "pure-token", word="SYNC", since="6.2.0"),
            ),
        ),
    ),
    "shutdown": (
        Argument(
            "nosave_save",
            "oneof",
            optional=True,
            of=(
                Argument("nosave", "pure-token", word="NOSAVE"),
                Argument("save", "pure-token", word="SAVE"),
            ),
        ),
        Argument("now", "pure-token", word="NOW", optional=True, since="7.0.0"),
        Argument("force", "pure-token", word="FORCE", optional=True, since="7.0.0"),
        Argument("abort", "pure-token", word="ABORT", optional=True, since="7.0.0"),
    ),
    "bgsave": (Argument("schedule", "pure-token", word="SCHEDULE", optional=True, since="3.2.2"),),
    "memory|usage": (
        _KEY,
        Argument("count", "integer", word="SAMPLES", optional=True),
    ),
    "client|setinfo": (
        Argument(
            "attr",
            "oneof",
            of=(
                Argument("libname", "string", word="LIB-NAME"),
                Argument("libver", "string", word="LIB-VER"),
            ),
        ),
    ),
    "client|no-touch": (
        Argument(
            "enabled",
            "oneof",
            of=(
                Argument("on", "pure-token", word="ON"),
                Argument("off", "pure-token", word="OFF"),
            ),
        ),
    ),
}
