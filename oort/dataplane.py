"""The data plane from Python: worker threads, connections, and the queue of cold commands.

A typed face on the oort_dataplane calls of csrc/oort.h; what they promise stands there.  Unless a
method says otherwise it belongs to the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from oort._native import ffi, lib
from oort.errors import BootError
from oort.metrics import Histogram, Metric, Reading
from oort.metrics.reading import read

AUTHENTICATED: int = lib.OORT_CONN_AUTHENTICATED
NO_EVICT: int = lib.OORT_CONN_NO_EVICT
NO_TOUCH: int = lib.OORT_CONN_NO_TOUCH


@dataclass(frozen=True, slots=True)
class Limits:
    query_bytes: int
    output_bytes: int
    value_cap: int
    idle_seconds: int
    no_password: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One cold command; its connection waits for the reply."""

    connection: int
    argv: tuple[bytes, ...]
    command: int
    flags: int
    database: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to a connection, and what changes in it; None leaves a thing as it is."""

    data: bytes
    database: int | None = None
    protocol: int | None = None
    flags: int | None = None
    close: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """What the data plane knows of a connection, at one moment."""

    id: int
    fd: int
    worker: int
    flags: int
    database: int
    protocol: int
    created_ms: int
    active_ms: int
    query_bytes: int
    query_free: int
    output_bytes: int
    commands: int
    bytes_in: int
    bytes_out: int
    last_command: int


_CONNECTION_FIELDS = tuple(Connection.__dataclass_fields__)


def _limits(limits: Limits) -> Any:
    return ffi.new(
        "oort_limits *",
        {
            "query_bytes": limits.query_bytes,
            "output_bytes": limits.output_bytes,
            "value_cap": limits.value_cap,
            "idle_seconds": limits.idle_seconds,
            "no_password": limits.no_password,
        },
    )


class DataPlane:
    """Worker objects over one store.  threads = 0: one worker, driven by poll()."""

    def __init__(self, store: Any, threads: int, limits: Limits) -> None:
        self.threads = threads
        self.workers = max(1, threads)
        error = ffi.new("oort_error *")
        self._plane = lib.oort_dataplane_open(store, self.workers, _limits(limits), error)
        if self._plane == ffi.NULL:
            raise BootError(ffi.string(error.text).decode("utf-8", "replace"))
        self._running: list[threading.Thread] = []
        self._next_worker = 0
        self._request = ffi.new("oort_request *")
        self._closed_ids = ffi.new("uint64_t[]", 256)

    def start(self, failed: Callable[[str], None]) -> None:
        """Start the worker threads; failed is called, on its thread, by one that ends in error."""
        for worker in range(self.threads):
            thread = threading.Thread(
                target=self._run, args=(worker, failed), name=f"worker-{worker}", daemon=True
            )
            thread.start()
            self._running.append(thread)

    def _run(self, worker: int, failed: Callable[[str], None]) -> None:
        error = ffi.new("oort_error *")
        if lib.oort_worker_run(self._plane, worker, error) < 0:
            failed(ffi.string(error.text).decode("utf-8", "replace"))

    def rounds(self, worker: int) -> int:
        """How many rounds it has begun."""
        return int(lib.oort_worker_rounds(self._plane, worker))

    def thread(self, worker: int) -> int:
        """The kernel's id of its thread; 0: it has not begun."""
        return int(lib.oort_worker_thread(self._plane, worker))

    def nudge(self, worker: int) -> None:
        """Make it begin a round, even if it has nothing to do."""
        lib.oort_worker_nudge(self._plane, worker)

    def poll_fd(self) -> int:
        """Readable when poll() has something to do (threads = 0)."""
        return int(lib.oort_worker_fd(self._plane, 0))

    def poll(self) -> str:
        """One round of the only worker; an error text, or nothing."""
        error = ffi.new("oort_error *")
        if lib.oort_worker_poll(self._plane, 0, 0, error) < 0:
            return str(ffi.string(error.text).decode("utf-8", "replace"))
        return ""

    def stop(self) -> None:
        """Let every worker send what it can and end; nothing to do once closed."""
        if self._plane == ffi.NULL:
            return
        lib.oort_workers_stop(self._plane)
        if not self.threads:
            self.poll()
        for thread in self._running:
            thread.join()
        self._running.clear()

    def close(self) -> None:
        """Close every connection; stop() comes first.  Nothing to do the second time."""
        if self._plane != ffi.NULL:
            lib.oort_dataplane_close(self._plane)
            self._plane = ffi.NULL

    def set_limits(self, limits: Limits) -> None:
        lib.oort_dataplane_set_limits(self._plane, _limits(limits))

    def adopt(self, fd: int, flags: int) -> int:
        """Hand a descriptor over, to the workers in turn; its connection's id, or 0 (no memory)."""
        worker = self._next_worker
        self._next_worker = (worker + 1) % self.workers
        return int(lib.oort_connection_adopt(self._plane, worker, fd, flags))

    def kill(self, connection: int) -> bool:
        return bool(lib.oort_connection_kill(self._plane, connection))

    def connections(self) -> dict[int, Connection]:
        """Every connection by id, in order of id."""
        capacity = 64
        while True:
            out = ffi.new("oort_connection_info[]", capacity)
            count = int(lib.oort_connection_list(self._plane, out, capacity))
            if count <= capacity:
                break
            capacity = count + count // 8 + 16
        found = [
            Connection(*(int(getattr(out[i], name)) for name in _CONNECTION_FIELDS))
            for i in range(count)
        ]
        return {connection.id: connection for connection in sorted(found, key=lambda c: c.id)}

    def closed(self) -> Iterator[int]:
        """Ids of the connections closed since the last time."""
        while True:
            count = int(lib.oort_connection_closed(self._plane, self._closed_ids, 256))
            yield from (int(self._closed_ids[i]) for i in range(min(count, 256)))
            if count < 256:
                return

    def request_fd(self) -> int:
        """Readable while a cold command waits, or a connection was closed."""
        return int(lib.oort_request_fd(self._plane))

    def next_request(self) -> Request | None:
        request = self._request
        if not lib.oort_request_next(self._plane, request):
            return None
        argv = tuple(
            bytes(ffi.buffer(request.argv[i].data, request.argv[i].size))
            if request.argv[i].size
            else b""
            for i in range(request.argc)
        )
        return Request(
            request.connection,
            argv,
            request.command,
            request.flags,
            request.database,
            request.protocol,
        )

    def reply(self, connection: int, reply: Reply) -> None:
        """Answer a cold command; nothing happens when its connection has gone."""
        changes = 0
        out = ffi.new("oort_reply *")
        data = ffi.from_buffer(reply.data)
        out.connection = connection
        out.data = ffi.cast("uint8_t *", data)
        out.size = len(reply.data)
        if reply.database is not None:
            changes |= lib.OORT_CHANGE_DATABASE
            out.database = reply.database
        if reply.protocol is not None:
            changes |= lib.OORT_CHANGE_PROTOCOL
            out.protocol = reply.protocol
        if reply.flags is not None:
            changes |= lib.OORT_CHANGE_FLAGS
            out.flags = reply.flags
        if reply.close:
            changes |= lib.OORT_CHANGE_CLOSE
        out.changes = changes
        lib.oort_request_reply(self._plane, out)

    def stats(self) -> Reading:
        return read("plane", lib.oort_dataplane_get_metrics, self._plane)

    def command_stats(self) -> list[Reading]:
        """By position in the command table."""
        count = lib.oort_command_count()
        out = ffi.new("oort_command_stats[]", count)
        lib.oort_dataplane_get_command_stats(self._plane, out)
        size = ffi.sizeof("oort_command_stats") // ffi.sizeof("uint64_t")
        values = ffi.unpack(ffi.cast("uint64_t *", out), count * size)
        return [Reading("command", values[at : at + size]) for at in range(0, len(values), size)]

    def histogram(self, metric: Metric) -> Histogram:
        out = ffi.new("oort_histogram *")
        lib.oort_dataplane_get_histogram(self._plane, metric.place, out)
        return Histogram(out)

    def command_histogram(self, metric: Metric, command: int) -> Histogram:
        """command: position in the command table."""
        out = ffi.new("oort_histogram *")
        lib.oort_dataplane_get_command_histogram(self._plane, metric.place, command, out)
        return Histogram(out)

    def add_time(self, command: int, seconds: float) -> None:
        """Python has executed a command, by its position in the table, in so long."""
        lib.oort_dataplane_add_time(self._plane, command, max(0, round(seconds * 1e9)))

    def reset_stats(self) -> None:
        """CONFIG RESETSTAT."""
        lib.oort_dataplane_reset_metrics(self._plane)
