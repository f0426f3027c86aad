"""The stores from Python: a typed interface to oort_store_* and oort_session_* of csrc/oort.h.

with open_store("valuestore", StoreConfig(directory="/var/lib/oort")) as store:
    with store.session() as session:
        session.set(0, b"key", b"value")
"""

from oort.store.check import client_error
from oort.store.config import STORE_TYPES, StoreConfig
from oort.store.session import Entry, Session
from oort.store.store import (
    Event,
    Opening,
    Progress,
    Store,
    on_tmpfs,
    open_store,
)

__all__ = [
    "STORE_TYPES",
    "Entry",
    "Event",
    "Opening",
    "Progress",
    "Session",
    "Store",
    "StoreConfig",
    "client_error",
    "on_tmpfs",
    "open_store",
]
