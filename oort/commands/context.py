"""What a handler knows of the process that serves its client.

There is one Context for the life of the process, and it belongs to the main loop.  A Restart puts
another store, session and data plane into it, and Stop another data plane.  A job, which runs on
the helper thread, uses `store` and `session` only.
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
    """What stays the same for the life of the process."""

    version: str
    run_id: str
    started: float  # seconds since 1970
    config_file: str | None
    addresses: tuple[str, ...]  # where clients connect, host:port
    client_room: int  # clients for which there are descriptors
    supervised: bool


@dataclass(slots=True)
class Context:
    process: Process
    clock: Clock
    configuration: Configuration
    store: Store
    session: Session  # the helper thread's
    plane: DataPlane
    figures: Figures
    ring_facts: Callable[[], list[tuple[str, object]]]  # INFO's section about the ring
    clients: dict[int, Client] = field(default_factory=dict)  # by the id of the connection
    needs_restart: tuple[str, ...] = ()  # settings that are not as the layers have them
    saving: bool = False  # a BGSAVE is under way

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    def forget(self, closed: Iterable[int]) -> None:
        """These connections have gone."""
        for identifier in closed:
            self.clients.pop(identifier, None)

    def change_settings(
        self, changes: Mapping[str, Any], sources: Mapping[str, str] | None = None
    ) -> tuple[str, str] | None:
        """Apply checked values, all of them; or the parameter and the reason why not, and none.

        sources: where each value comes from; without it, from CONFIG SET.
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
