"""A session: one thread's handle on a store, with every operation on keys.

Every call locks its keys and reads records from disk that are not in memory, so a call may block.
The data plane does not use this module.  Times are milliseconds since the Unix epoch; an expiry of
0 means "never".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from oort._native import ffi, lib
from oort.errors import StoreArgumentError
from oort.store.check import store_error

_KEY_CAP: int = lib.OORT_KEY_CAP
_SCAN_BYTES = 65536
_T = TypeVar("_T")


class Entry(NamedTuple):
    """A value with its expiry (ms since the Unix epoch), its stamp and its size in the store."""

    value: bytes
    expiry_ms: int
    stamp: int
    stored_bytes: int


class Session:
    """Not thread safe: only one thread at a time may use a session.

    Methods raise StoreArgumentError for a closed session or an unknown database, and the StoreError
    of the cause if the store cannot do the operation.
    """

    def __init__(self, store: Any, handle: Any) -> None:
        self._store = store
        self._handle: Any = handle
        self.clock_us = 0
        """The time that every call uses, in microseconds since the Unix epoch; 0: the real time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the session; a second call does nothing."""
        if self._handle is not None:
            lib.oort_session_close(self._handle)
            self._handle = None

    # ---- one key -----------------------------------------------------------

    def entry(self, database: int, key: bytes) -> Entry | None:
        """The value with its expiry, stamp and size in the store, or None."""

        def read(keys: Any) -> tuple[int, Entry | None]:
            found = ffi.new("oort_value *")
            status = lib.oort_read(self._handle, keys, found)
            if status != lib.OORT_OK:
                return status, None
            value = bytes(ffi.buffer(found.data, found.size)) if found.size else b""
            return status, Entry(value, found.expiry_ms, found.stamp, found.stored_bytes)

        return self._locked(database, [key], read)[1]

    def get(self, database: int, key: bytes) -> bytes | None:
        entry = self.entry(database, key)
        return None if entry is None else entry.value

    def stored_bytes(self, database: int, key: bytes) -> int | None:
        """The bytes that the key uses in the store with its index entry; None if it is missing."""

        def read(keys: Any) -> tuple[int, int]:
            found = ffi.new("oort_value *")
            return lib.oort_read(self._handle, keys, found), found.stored_bytes

        status, size = self._locked(database, [key], read)
        return size if status == lib.OORT_OK else None

    def set(self, database: int, key: bytes, value: bytes, expiry_ms: int = 0) -> None:
        """Write a value; an expiry in the past removes the key."""
        data = ffi.from_buffer("uint8_t[]", value)
        part = ffi.new("oort_bytes *", {"data": data, "size": len(value)})
        self._locked(
            database,
            [key],
            lambda keys: (lib.oort_write(self._handle, keys, part, 1, expiry_ms), None),
        )

    def delete(self, database: int, key: bytes) -> bool:
        """Delete a key; returns whether the key existed."""
        status, _ = self._locked(
            database, [key], lambda keys: (lib.oort_remove(self._handle, keys), None)
        )
        return bool(status == lib.OORT_OK)

    def expire(self, database: int, key: bytes, expiry_ms: int) -> bool:
        """Change the expiry of a key; returns whether the key existed."""
        status, _ = self._locked(
            database,
            [key],
            lambda keys: (lib.oort_set_expiry(self._handle, keys, expiry_ms), None),
        )
        return bool(status == lib.OORT_OK)

    def set_many(self, database: int, values: Mapping[bytes, bytes], expiry_ms: int = 0) -> None:
        """Write several keys as one atomic batch, for readers and for recovery."""
        parts = ffi.new("oort_bytes[]", len(values))
        buffers = [ffi.from_buffer("uint8_t[]", value) for value in values.values()]
        for part, data in zip(parts, buffers, strict=True):
            part.data, part.size = data, len(data)
        total = sum(len(key) + len(value) for key, value in values.items())

        def write(keys: Any) -> tuple[int, None]:
            status = lib.oort_batch_begin(self._handle, len(values), total)
            for position in range(len(values)):
                if status != lib.OORT_OK:
                    break
                status = lib.oort_write(
                    self._handle, keys + position, parts + position, 1, expiry_ms
                )
            if status == lib.OORT_OK:
                status = lib.oort_batch_commit(self._handle)
            if status != lib.OORT_OK:
                lib.oort_batch_abort(self._handle)
            return status, None

        self._locked(database, list(values), write)

    # ---- whole databases ---------------------------------------------------

    def scan(self, database: int, position: int, want: int) -> tuple[int, list[bytes]]:
        """Visit at least `want` keys, beginning at a position (0 at first).

        Returns the next position (0 at the end) and the live keys found, possibly none.
        """
        scan = ffi.new("oort_scan *", {"position": position, "want": want})
        capacity = _SCAN_BYTES
        while True:
            buffer = ffi.new("uint8_t[]", capacity)
            scan.buffer, scan.capacity = buffer, capacity
            self._set_clock()
            status = lib.oort_store_scan(self._handle, database, scan)
            if status != lib.OORT_ERR_TOO_BIG:
                break
            capacity = max(2 * capacity, scan.capacity_needed)
            scan.position, scan.want = position, want
        self._check(status)
        return scan.position, list(_scanned(bytes(ffi.buffer(buffer, scan.used))))

    def keys(self, database: int) -> Iterator[bytes]:
        """Every key, in ring order; keys that are written meanwhile may be missed."""
        position = 0
        while True:
            position, found = self.scan(database, position, 1000)
            yield from found
            if position == 0:
                return

    def random_key(self, database: int) -> bytes | None:
        buffer = ffi.new("uint8_t[]", _KEY_CAP)
        size = ffi.new("uint32_t *")
        self._set_clock()
        status = lib.oort_store_random_key(self._handle, database, buffer, size)
        self._check(status)
        return bytes(ffi.buffer(buffer, size[0])) if status == lib.OORT_OK else None

    def flush(self, database: int | None = None) -> None:
        """Delete every key of a database, or of all databases."""
        self._set_clock()
        self._check(lib.oort_store_flush(self._handle, -1 if database is None else database))

    # ---- calls into the library --------------------------------------------

    def _set_clock(self) -> None:
        if self._handle is None:
            raise StoreArgumentError("the session is closed")
        lib.oort_session_set_clock(self._handle, self.clock_us)

    def _check(self, status: int) -> None:
        if status < 0:
            text = ffi.string(lib.oort_session_error(self._handle)).decode("utf-8", "replace")
            raise store_error(status, text)

    def _locked(
        self, database: int, names: list[bytes], call: Callable[[Any], tuple[int, _T]]
    ) -> tuple[int, _T]:
        """Make a call with the keys locked, and repeat it after each record fetched for it."""
        self._set_clock()
        if not 0 <= database < lib.OORT_DATABASES:
            raise StoreArgumentError(f"there is no database {database}")
        keys = ffi.new("oort_key[]", max(1, len(names)))
        buffers = [ffi.from_buffer("uint8_t[]", name) for name in names]
        for position, buffer in enumerate(buffers):
            lib.oort_key_init(keys + position, buffer, len(buffer), database)
        while True:
            self._check(lib.oort_lock(self._handle, keys, len(names)))
            try:
                status, result = call(keys)
            finally:
                lib.oort_unlock(self._handle)
            if status != lib.OORT_COLD:
                break
            fetched = lib.oort_fetch(self._store, lib.oort_session_cold(self._handle))
            if fetched < 0:
                raise store_error(fetched, "the value cannot be read from disk")
        self._check(status)
        return status, result


def _scanned(buffer: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(buffer):
        (size,) = struct.unpack_from("=I", buffer, at)
        yield buffer[at + 4 : at + 4 + size]
        at += 4 + size
