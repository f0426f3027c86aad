"""Maps each oort_status to the exception class for its cause."""

from __future__ import annotations

from typing import Any

from oort._native import ffi, lib
from oort.errors import (
    StoreArgumentError,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFormatError,
    StoreFullError,
    StoreIOError,
    StoreLockedError,
    StoreMemoryError,
    StoreTooBigError,
)

_CAUSES: dict[int, type[StoreError]] = {
    lib.OORT_ERR_NOMEM: StoreMemoryError,
    lib.OORT_ERR_IO: StoreIOError,
    lib.OORT_ERR_FULL: StoreFullError,
    lib.OORT_ERR_TOO_BIG: StoreTooBigError,
    lib.OORT_ERR_LOCKED: StoreLockedError,
    lib.OORT_ERR_FORMAT: StoreFormatError,
    lib.OORT_ERR_DAMAGED: StoreDamagedError,
    lib.OORT_ERR_FAILED: StoreFailedError,
    lib.OORT_ERR_ARGUMENT: StoreArgumentError,
}


_ERROR_BYTES = 1024


def store_error(status: int, text: str, sys_errno: int = 0) -> StoreError:
    """The exception for a status; an empty text means the default text of its class."""
    return _CAUSES.get(status, StoreError)(text, status=status, sys_errno=sys_errno)


def reported(error: Any) -> StoreError:
    """The exception for an oort_error that a call has filled in."""
    text = ffi.string(error.text).decode("utf-8", "replace")
    return store_error(error.code, text, error.sys_errno)


def client_error(failure: StoreError) -> str:
    """What a client is told of a failed store call: the error's code and its text."""
    out = ffi.new("char[]", _ERROR_BYTES)
    detail = str(failure).encode()
    lib.oort_status_error(failure.status, detail, out, _ERROR_BYTES)
    return str(ffi.string(out).decode("utf-8", "replace"))
