"""An open store: open it, ask it, close it.  Keys are reached through its sessions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

from oort._native import ffi, lib
from oort.errors import StoreArgumentError
from oort.metrics import Histogram, Metric, Reading
from oort.metrics.reading import read
from oort.store.check import reported, store_error
from oort.store.config import FSYNC_POLICIES, STORE_TYPES, StoreConfig
from oort.store.session import Session

# By their oort_event_kind number in csrc/oort.h.
EVENT_KINDS = ("other", "damage", "full", "room", "failed", "recovery")
# By their oort_open_stage number.
OPEN_STAGES = ("files", "replay", "rebuild", "count")


class Event(NamedTuple):
    """Something for the operator to know; `level` is a syslog priority, `kind` one of EVENT_KINDS,
    `segment` the sequence number of the segment it is about, 0: it is about none."""

    level: int
    text: str
    kind: str
    segment: int


class Progress(NamedTuple):
    """How far an open has come; `stage` is one of OPEN_STAGES, `segments` how many it looks
    through in all (while it counts: parts of the index)."""

    stage: str
    segments: int
    done: int
    records: int


class Opening:
    """Give it to open_store, and ask it from another thread meanwhile."""

    def __init__(self) -> None:
        self.native: Any = ffi.new("oort_open_progress *")

    def progress(self) -> Progress:
        native = self.native
        return Progress(OPEN_STAGES[native.stage], native.segments, native.done, native.records)


def _fsync_number(policy: str) -> int:
    try:
        return FSYNC_POLICIES.index(policy)
    except ValueError:
        raise StoreArgumentError(
            f"fsync is {policy!r}, not one of {', '.join(FSYNC_POLICIES)}"
        ) from None


def on_tmpfs(directory: str) -> bool:
    """Whether a runtime directory may be here: what it holds must die with the machine."""
    return bool(lib.oort_is_tmpfs(directory.encode()))


def open_store(store_type: str, config: StoreConfig, opening: Opening | None = None) -> Store:
    """Open a store of one of STORE_TYPES; opening: shows meanwhile how far it is."""
    if store_type not in STORE_TYPES:
        raise StoreArgumentError(
            f"store type is {store_type!r}, not one of {', '.join(STORE_TYPES)}"
        )
    opener = lib.oort_valuestore_open if store_type == "valuestore" else lib.oort_mapstore_open
    directory = ffi.new("char[]", config.directory.encode())
    runtime = (
        ffi.NULL
        if config.runtime_directory is None
        else ffi.new("char[]", config.runtime_directory.encode())
    )
    native = ffi.new(
        "oort_store_config *",
        {
            "directory": directory,
            "runtime_directory": runtime,
            "held_directory": config.held_directory,
            "segment_bytes": config.segment_bytes,
            "value_cap": config.value_cap,
            "free_bytes_low": config.free_bytes_low,
            "compaction_bytes_per_second": config.compaction_bytes_per_second,
            "compaction_dead_percent": config.compaction_dead_percent,
            "tombstone_age_seconds": config.tombstone_age_seconds,
            "fsync": _fsync_number(config.fsync),
            "background": config.background,
            "progress": ffi.NULL if opening is None else opening.native,
        },
    )
    error = ffi.new("oort_error *")
    handle = opener(native, error)
    if handle == ffi.NULL:
        raise reported(error)
    return Store(handle)


class Store:
    """Thread safe but for close(), which must come after every session's."""

    def __init__(self, handle: Any) -> None:
        self._handle: Any = handle

    @property
    def handle(self) -> Any:
        """The oort_store pointer, for other parts of the C library."""
        if self._handle is None:
            raise StoreArgumentError("the store is closed")
        return self._handle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._handle is None

    def close(self) -> None:
        """Sync and close; a second call does nothing.  An error means the last sync failed."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        error = ffi.new("oort_error *")
        if lib.oort_store_close(handle, error) < 0:
            raise reported(error)

    def session(self) -> Session:
        error = ffi.new("oort_error *")
        session = lib.oort_session_open(self.handle, error)
        if session == ffi.NULL:
            raise reported(error)
        return Session(self.handle, session)

    def stats(self) -> Reading:
        return read("store", lib.oort_store_get_metrics, self.handle)

    def histogram(self, metric: Metric) -> Histogram:
        out = ffi.new("oort_histogram *")
        lib.oort_store_get_histogram(self.handle, metric.place, out)
        return Histogram(out)

    def reset_stats(self) -> None:
        """CONFIG RESETSTAT."""
        lib.oort_store_reset_metrics(self.handle)

    def set_fsync(self, policy: str) -> None:
        status = lib.oort_store_set_fsync(self.handle, _fsync_number(policy))
        if status < 0:
            raise store_error(status, f"fsync cannot be set to {policy}")

    def sync(self) -> None:
        """Make everything acknowledged durable; blocks."""
        error = ffi.new("oort_error *")
        if lib.oort_store_sync(self.handle, error) < 0:
            raise reported(error)

    def compact(self, dead_percent: int) -> None:
        """Compact whatever has more dead bytes than so many percent; blocks."""
        error = ffi.new("oort_error *")
        if lib.oort_store_compact(self.handle, dead_percent, error) < 0:
            raise reported(error)

    def event_fd(self) -> int:
        """Readable while an event waits."""
        return int(lib.oort_store_event_fd(self.handle))

    def next_event(self) -> Event | None:
        native = ffi.new("oort_event *")
        if lib.oort_store_next_event(self.handle, native) == 0:
            return None
        text = ffi.string(native.text).decode("utf-8", "replace")
        return Event(native.level, text, EVENT_KINDS[native.kind], native.segment)
