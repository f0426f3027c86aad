"""Reading the configuration again while the process runs.

All layers are read as at the start, so the environment and the flags still override the file.  An
error in any layer changes nothing.

reload   gives the settings that CONFIG SET can change the values of the layers.  A log line says
         which other settings differ and need a restart.
follow   does the same with another configuration of the ring.
again    returns the configuration for a new store and a new data plane.  It has the new value of
         every setting but those of the process itself (PROCESS).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oort.cmdctrl.node import Outcome
from oort.commands.config import CHANGEABLE
from oort.commands.context import Context
from oort.config.settings import (
    SETTINGS,
    Configuration,
    Layer,
    Setting,
    format_value,
    resolve,
)
from oort.errors import OortError
from oort.journal import log
from oort.membership.configuration import RingConfiguration

# Settings of parts that the process opens only once, such as listening sockets and the control
# interface.
PROCESS = frozenset({"listen_address", "tiers", "config_cache", "join_token_file"})
_PROCESS_SECTIONS = frozenset({"CmdCtrlConfig"})


@dataclass(frozen=True)
class _Change:
    setting: Setting
    before: Any
    value: Any

    def shown(self, value: object) -> str:
        hidden = self.setting.field == "require_pass" and value
        return "(hidden)" if hidden else format_value(self.setting, value)


class Reload:
    """Every method belongs to the main loop."""

    def __init__(
        self, context: Context, own_layers: Callable[[], list[Layer]], ring: RingConfiguration
    ) -> None:
        self._context = context
        self._own_layers = own_layers
        self._ring = ring

    def follow(self, ring: RingConfiguration, cause: str) -> None:
        self._ring = ring
        self.reload(cause)

    def reload(self, cause: str) -> Outcome:
        """Read the layers and apply the changes that the running process can apply.

        cause: the event that caused the reload, for the log.  An error is logged and returned.
        """
        try:
            wanted, changes = self._read(cause)
            done = [change for change in changes if change.setting.field in CHANGEABLE]
            if done:
                self._context.change_settings(
                    {change.setting.field: change.value for change in done}, wanted.sources
                )
        except OortError as error:
            log.error("%s: %s; nothing was changed", cause, error)
            return Outcome(False, f"{error}; nothing was changed")
        left = [change for change in changes if change not in done]
        return Outcome(True, self._report(cause, done, left))

    def again(self, cause: str) -> tuple[Configuration, str]:
        """The configuration for a new store and a new data plane, and a text about its changes.

        Raises OortError if a layer is invalid.
        """
        wanted, changes = self._read(cause)
        left = [
            change
            for change in changes
            if change.setting.field in PROCESS or change.setting.section in _PROCESS_SECTIONS
        ]
        kept = {change.setting.field: change.before for change in left}
        message = self._report(cause, [change for change in changes if change not in left], left)
        before = self._context.configuration.sources
        sources = {**wanted.sources, **{field: before[field] for field in kept}}
        return (
            dataclasses.replace(
                wanted, settings=dataclasses.replace(wanted.settings, **kept), sources=sources
            ),
            message,
        )

    def _read(self, cause: str) -> tuple[Configuration, list[_Change]]:
        """The configuration of the present layers, and its differences from the one in use.

        Raises OortError if a layer is invalid.
        """
        room = self._context.process.client_room
        wanted = resolve([*self._ring.layers(), *self._own_layers()])
        if wanted.settings.max_clients > room:
            log.warning(
                "%s: MaxClients is %d instead of %d: the limit on open files allows no more",
                cause,
                room,
                wanted.settings.max_clients,
            )
            wanted = wanted.with_setting("max_clients", room, "limit on open files")
        in_use = self._context.settings
        changes = [
            _Change(setting, before, value)
            for setting in SETTINGS
            for before, value in [
                (getattr(in_use, setting.field), getattr(wanted.settings, setting.field))
            ]
            if before != value
        ]
        return wanted, changes

    def _report(self, cause: str, done: list[_Change], left: list[_Change]) -> str:
        """Log the changes and return them as a text.  left: changes that need a restart."""
        self._context.needs_restart = tuple(change.setting.place for change in left)
        for change in done:
            value, was = change.shown(change.value), change.shown(change.before)
            log.info("%s: %s = %s (was %s)", cause, change.setting.place, value, was)
        for change in left:
            value, was = change.shown(change.value), change.shown(change.before)
            place = change.setting.place
            log.warning("%s: %s = %s needs a restart: still %s", cause, place, value, was)
        if not done and not left:
            log.info("%s: the configuration was read again; nothing changed", cause)
            return "nothing changed"
        words = []
        if done:
            words.append("changed: " + ", ".join(change.setting.place for change in done))
        if left:
            names = ", ".join(change.setting.place for change in left)
            words.append(f"needs a restart: {names}")
        return "; ".join(words)
