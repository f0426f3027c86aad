"""Every command that Python executes, by its name in the command table."""

from __future__ import annotations

from oort.commands import command, config, connection, info, keyspace, server
from oort.commands.dispatch import Handlers

ALL = Handlers(
    command.HANDLERS
    | config.HANDLERS
    | connection.HANDLERS
    | info.HANDLERS
    | keyspace.HANDLERS
    | server.HANDLERS
)
