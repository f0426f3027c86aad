"""The configuration of a store.  Zero means the store's own default (csrc/oort.h)."""

from __future__ import annotations

from dataclasses import dataclass

STORE_TYPES = ("valuestore", "mapstore")
FSYNC_POLICIES = ("no", "everysec", "always")  # indexed by oort_fsync


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Sizes are in bytes.  `background=False` starts no threads; it is for tests."""

    directory: str
    runtime_directory: str | None = None
    held_directory: int = 0  # a descriptor, or 0 for none; see csrc/oort.h
    segment_bytes: int = 0
    value_cap: int = 0
    free_bytes_low: int = 0
    compaction_bytes_per_second: int = 0
    compaction_dead_percent: int = 0
    tombstone_age_seconds: int = 0
    fsync: str = "everysec"
    background: bool = True
