"""The store's messages to the operator, as log lines."""

from __future__ import annotations

from oort.journal import DAMAGED, DISK_FULL, DISK_ROOM, STORE_FAILED, entry, level_of, log
from oort.store import Event

_MESSAGE_IDS = {
    "damage": DAMAGED,
    "full": DISK_FULL,
    "room": DISK_ROOM,
    "failed": STORE_FAILED,
}


def log_store_event(event: Event) -> None:
    """Log an event.  The entry in the journal has the kind and the segment of the event."""
    fields: dict[str, object] = {"kind": event.kind}
    if event.segment:
        fields["segment"] = f"{event.segment:016x}"
    kind = entry(_MESSAGE_IDS.get(event.kind, ""), **fields)
    log.log(level_of(event.level), "%s", event.text, extra=kind)
