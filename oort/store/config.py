"""What a store is opened with.  Zero means the store's own default (csrc/oort.h)."""

from __future__ import annotations

from dataclasses import dataclass

STORE_TYPES = ("valuestore", "mapstore")
FSYNC_POLICIES = ("no", "everysec", "always")  # by their oort_fsync number


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Sizes are bytes.  `background` off means no threads at all, for tests."""

    directory: str
    runtime_directory: str | None = None
    held_directory: int = 0  # a descriptor, 0: none; csrc/oort.h says what it proves
    segment_bytes: int = 0
    value_cap: int = 0
    free_bytes_low: int = 0
    compaction_bytes_per_second: int = 0
    compaction_dead_percent: int = 0
    tombstone_age_seconds: int = 0
    fsync: str = "everysec"
    background: bool = True
