"""SIGHUP: read the configuration again, and let the process follow where it can.

All layers are read as at the start, so that the environment and flags still win over the file.
What CONFIG SET can change follows, and goes back to what the layers say; anything else needs a
restart, which is said.  An error in any layer changes nothing at all.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from oort.config import SETTINGS, Setting, format_value
from oort.daemon.config_commands import CHANGEABLE
from oort.daemon.journal import log
from oort.errors import OortError

if TYPE_CHECKING:
    from oort.daemon.daemon import Daemon


def _shown(setting: Setting, value: object) -> str:
    hidden = setting.field == "require_pass" and value
    return "(hidden)" if hidden else format_value(setting, value)


def reload(daemon: Daemon) -> None:
    try:
        wanted = daemon.read_configuration()
    except OortError as error:
        log.error("SIGHUP: %s; nothing was changed", error)
        return
    settings = wanted.settings
    if settings.max_clients > daemon.client_room:
        log.warning(
            "SIGHUP: MaxClients is %d instead of %d: the limit on open files allows no more",
            daemon.client_room,
            settings.max_clients,
        )
        settings = dataclasses.replace(settings, max_clients=daemon.client_room)
    changes = {}
    for setting in SETTINGS:
        before, value = getattr(daemon.settings, setting.field), getattr(settings, setting.field)
        if before == value:
            continue
        shown, was = _shown(setting, value), _shown(setting, before)
        if setting.field in CHANGEABLE:
            changes[setting.field] = value
            log.info("SIGHUP: %s = %s (was %s)", setting.place, shown, was)
        else:
            log.warning("SIGHUP: %s = %s needs a restart: still %s", setting.place, shown, was)
    if not changes:
        log.info("SIGHUP: configuration read again, nothing changed")
        return
    try:
        daemon.change_settings(changes, wanted.sources)
    except OortError as error:
        log.error("SIGHUP: %s", error)
