"""Reading the configuration again while the process runs.

All layers are read as at the start, so that the environment and flags still win over the file.  An
error in any layer changes nothing at all.

reload   what CONFIG SET can change follows, and goes back to what the layers say; anything else
         needs a restart, which is said
again    the configuration for a store and a data plane that are opened anew: everything but what
         belongs to the process itself (PROCESS)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oort.cmdctrl.node import Outcome
from oort.commands.config import CHANGEABLE
from oort.config.settings import SETTINGS, Configuration, Setting, format_value
from oort.errors import OortError
from oort.journal import log

if TYPE_CHECKING:
    from oort.daemon.daemon import Daemon

# Settings of what is opened once for the whole process: listening sockets, the control interface.
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


def _read(daemon: Daemon, cause: str) -> tuple[Configuration, list[_Change]]:
    """The layers as they are now, and how they differ from what is in force.  Raises OortError."""
    wanted = daemon.read_configuration()
    if wanted.settings.max_clients > daemon.client_room:
        log.warning(
            "%s: MaxClients is %d instead of %d: the limit on open files allows no more",
            cause,
            daemon.client_room,
            wanted.settings.max_clients,
        )
        wanted = wanted.with_setting("max_clients", daemon.client_room, "limit on open files")
    changes = [
        _Change(setting, before, value)
        for setting in SETTINGS
        for before, value in [
            (getattr(daemon.settings, setting.field), getattr(wanted.settings, setting.field))
        ]
        if before != value
    ]
    return wanted, changes


def _told(daemon: Daemon, cause: str, done: list[_Change], left: list[_Change]) -> str:
    daemon.needs_restart = tuple(change.setting.place for change in left)
    for change in done:
        value, was = change.shown(change.value), change.shown(change.before)
        log.info("%s: %s = %s (was %s)", cause, change.setting.place, value, was)
    for change in left:
        value, was = change.shown(change.value), change.shown(change.before)
        place = change.setting.place
        log.warning("%s: %s = %s needs a restart: still %s", cause, place, value, was)
    if not done and not left:
        log.info("%s: configuration read again, nothing changed", cause)
        return "nothing changed"
    words = []
    if done:
        words.append("changed: " + ", ".join(change.setting.place for change in done))
    if left:
        names = ", ".join(change.setting.place for change in left)
        words.append(f"needs a restart: {names}")
    return "; ".join(words)


def reload(daemon: Daemon, cause: str) -> Outcome:
    """Follow what can be followed; cause: who asked, for the log."""
    try:
        wanted, changes = _read(daemon, cause)
        done = [change for change in changes if change.setting.field in CHANGEABLE]
        if done:
            daemon.change_settings(
                {change.setting.field: change.value for change in done}, wanted.sources
            )
    except OortError as error:
        log.error("%s: %s; nothing was changed", cause, error)
        return Outcome(False, f"{error}; nothing was changed")
    return Outcome(
        True, _told(daemon, cause, done, [change for change in changes if change not in done])
    )


def again(daemon: Daemon, cause: str) -> tuple[Configuration, str]:
    """The configuration to open store and data plane anew with, and what is new in it.

    Raises OortError when a layer is wrong.
    """
    wanted, changes = _read(daemon, cause)
    left = [
        change
        for change in changes
        if change.setting.field in PROCESS or change.setting.section in _PROCESS_SECTIONS
    ]
    kept = {change.setting.field: change.before for change in left}
    message = _told(daemon, cause, [change for change in changes if change not in left], left)
    sources = {**wanted.sources, **{field: daemon.configuration.sources[field] for field in kept}}
    return (
        dataclasses.replace(
            wanted, settings=dataclasses.replace(wanted.settings, **kept), sources=sources
        ),
        message,
    )
