"""Python's record of each connected client: its addresses and its names."""

from __future__ import annotations

from dataclasses import dataclass

from oort.commands.table import COMMANDS
from oort.dataplane import NO_EVICT, NO_TOUCH, Connection


@dataclass(slots=True)
class Client:
    id: int
    address: str
    local_address: str
    created: float  # seconds since 1970
    name: bytes = b""
    library: bytes = b""
    library_version: bytes = b""


def valid_name(name: bytes) -> bool:
    """Whether a name obeys Redis's rule: printable ASCII without spaces."""
    return all(33 <= byte <= 126 for byte in name)


def last_command(connection: Connection) -> str:
    """The name of the connection's last command; NULL: the connection has executed none."""
    if connection.last_command < 0:
        return "NULL"
    return COMMANDS[connection.last_command].name


def describe(client: Client, connection: Connection, now: float) -> bytes:
    """The client's line in CLIENT LIST and CLIENT INFO, with a line feed at the end.

    now: seconds since 1970.  The fields are those of Redis 7.0 (redis.io/commands/client-list),
    followed by the two fields that Redis 7.2 added.  A field without a counterpart in oort is 0.
    """
    flags = ("e" if connection.flags & NO_EVICT else "") + (
        "T" if connection.flags & NO_TOUCH else ""
    )
    fields: tuple[tuple[str, object], ...] = (
        ("id", client.id),
        ("addr", client.address),
        ("laddr", client.local_address),
        ("fd", connection.fd),
        ("name", client.name.decode()),
        ("age", max(0, int(now - client.created))),
        ("idle", max(0, int(now - connection.active_ms / 1000))),
        ("flags", flags or "N"),
        ("db", connection.database),
        ("sub", 0),
        ("psub", 0),
        ("ssub", 0),
        ("multi", -1),
        ("qbuf", connection.query_bytes),
        ("qbuf-free", connection.query_free),
        ("argv-mem", 0),
        ("multi-mem", 0),
        ("rbs", 0),
        ("rbp", 0),
        ("obl", connection.output_bytes),
        ("oll", 0),
        ("omem", connection.output_bytes),
        ("tot-mem", connection.query_bytes + connection.query_free + connection.output_bytes),
        ("events", "rw" if connection.output_bytes else "r"),
        ("cmd", last_command(connection)),
        ("user", "default"),
        ("redir", -1),
        ("resp", connection.protocol),
        ("lib-name", client.library.decode()),
        ("lib-ver", client.library_version.decode()),
    )
    return " ".join(f"{name}={value}" for name, value in fields).encode() + b"\n"
