"""The part of the process that handlers may use.

The process has one Context, which belongs to the main loop.  CmdCtrl's Restart replaces its store,
session and data plane.  CmdCtrl's Stop replaces its data plane.  A job runs on the helper thread
and may use only `store` and `session`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from oort.clock import Clock
from oort.commands.clients import Client
from oort.commands.figures import Figures
from oort.config.settings import Configuration, Settings
from oort.dataplane import DataPlane, PlaneSettings
from oort.journal import set_level
from oort.store import Session, Store


@dataclass(frozen=True, slots=True)
class Process:
    """Facts that never change while the process runs."""

    version: str
    run_id: str
    started: float  # seconds since 1970
    config_file: str | None
    addresses: tuple[str, ...]  # that clients connect to, host:port
    client_room: int  # the number of clients that the limit on open files allows
    supervised: bool  # by systemd


@dataclass(slots=True)
class Context:
    process: Process
    clock: Clock
    configuration: Configuration
    store: Store
    session: Session  # the helper thread's
    plane: DataPlane
    figures: Figures
    ring_facts: Callable[[], list[tuple[str, object]]]  # the fields of INFO's section "ring"
    clients: dict[int, Client] = field(default_factory=dict)  # by the id of the connection
    needs_restart: tuple[str, ...] = ()  # settings that differ from their layers until a restart
    saving: bool = False  # a BGSAVE is running

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    def forget(self, closed: Iterable[int]) -> None:
        """Remove the clients of these closed connections."""
        for identifier in closed:
            self.clients.pop(identifier, None)

    def change_settings(
        self, changes: Mapping[str, Any], sources: Mapping[str, str] | None = None
    ) -> tuple[str, str] | None:
        """Apply all of these checked values, by the names of their settings' fields.

        sources: the source of each value; None: CONFIG SET.  Returns None, or the parameter that
        cannot have its value and the reason.  In that case nothing is changed.
        """
        room = self.process.client_room
        if changes.get("max_clients", 0) > room:
            return (
                "maxclients",
                "The operating system is not able to handle the specified number of clients, try"
                f" with {room}",
            )
        for name, value in changes.items():
            source = sources[name] if sources else "CONFIG SET"
            self.configuration = self.configuration.with_setting(name, value, source)
        if "fsync" in changes:
            self.store.set_fsync(changes["fsync"])
        if "log_level" in changes:
            set_level(changes["log_level"])
        self.plane.configure(plane_settings(self.settings))
        return None

    def reset_figures(self) -> None:
        self.plane.reset_stats()
        self.store.reset_stats()
        self.figures.reset(self.plane.stats())


def plane_settings(settings: Settings) -> PlaneSettings:
    return PlaneSettings(
        query_bytes=settings.query_buffer_limit,
        output_bytes=settings.output_buffer_limit,
        value_cap=settings.value_cap,
        idle_seconds=settings.idle_timeout,
        no_password=not settings.require_pass,
    )
