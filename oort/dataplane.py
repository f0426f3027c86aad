"""The data plane from Python: worker threads, connections, and the queue of requests.

This is a typed interface to the oort_dataplane calls of csrc/oort.h, which has their contracts.  A
method belongs to the main thread unless its docstring says otherwise.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from oort._native import ffi, lib
from oort.errors import BootError
from oort.metrics import Histogram, Metric, Reading
from oort.metrics.reading import read

AUTHENTICATED: int = lib.OORT_CONN_AUTHENTICATED
NO_EVICT: int = lib.OORT_CONN_NO_EVICT
NO_TOUCH: int = lib.OORT_CONN_NO_TOUCH


class PlaneSettings:
    """A value for every field of oort_plane_settings in csrc/oort.h, by name."""

    _NAMES = frozenset(name for name, _ in ffi.typeof("oort_plane_settings").fields)

    def __init__(self, **values: int) -> None:
        if values.keys() != self._NAMES:
            wrong = ", ".join(sorted(values.keys() ^ self._NAMES))
            raise TypeError(f"not exactly the fields of oort_plane_settings: {wrong}")
        self.values = values


@dataclass(frozen=True, slots=True)
class Request:
    """A command that Python executes.  Its connection waits for the reply."""

    connection: int  # its id
    argv: tuple[bytes, ...]
    command: int  # position in the command table
    flags: int  # oort_connection_flag
    database: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes for a connection, and changes of its state; None: no change."""

    data: bytes
    database: int | None = None
    protocol: int | None = None
    flags: int | None = None
    close: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """The data plane's facts about a connection at one moment.

    Times are in milliseconds since 1970.
    """

    id: int
    fd: int
    worker: int
    flags: int
    database: int
    protocol: int
    created_ms: int
    active_ms: int  # the last time that the connection was active
    query_bytes: int
    query_free: int
    output_bytes: int
    commands: int
    bytes_in: int
    bytes_out: int
    last_command: int


_CONNECTION_FIELDS = tuple(Connection.__dataclass_fields__)


def _reply(connection: int, reply: Reply, *, wait: int = 0) -> tuple[Any, Any]:
    """An oort_reply, and its bytes, which must live as long as the oort_reply."""
    changes = 0
    data = ffi.from_buffer("uint8_t[]", reply.data)
    out = ffi.new("oort_reply *")
    out.connection = connection
    out.data = data
    out.size = len(reply.data)
    out.wait = wait
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
    return out, data


class DataPlane:
    """The workers of one store.  threads = 0: there is one worker, which poll() drives."""

    def __init__(self, store: Any, threads: int, settings: PlaneSettings) -> None:
        """store: an oort_store *.  Raises BootError."""
        self.threads = threads
        self.workers = max(1, threads)
        error = ffi.new("oort_error *")
        config = ffi.new(
            "oort_plane_config *", {"workers": self.workers, "settings": settings.values}
        )
        self._plane = lib.oort_dataplane_open(store, config, error)
        if self._plane == ffi.NULL:
            raise BootError(ffi.string(error.text).decode("utf-8", "replace"))
        self._running: list[threading.Thread] = []
        self._next_worker = 0
        self._request = ffi.new("oort_request *")
        self._closed_ids = ffi.new("uint64_t[]", 256)
        self._waits = itertools.count(1)

    def start(self, failed: Callable[[str], None]) -> None:
        """Start the worker threads.  A worker that fails calls failed(reason) on its own thread."""
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
        """The number of rounds that the worker has begun."""
        return int(lib.oort_worker_rounds(self._plane, worker))

    def thread(self, worker: int) -> int:
        """The kernel's id of the worker's thread; 0: the thread has not started."""
        return int(lib.oort_worker_thread(self._plane, worker))

    def nudge(self, worker: int) -> None:
        """Make the worker begin a round, even an idle worker."""
        lib.oort_worker_nudge(self._plane, worker)

    def poll_fd(self) -> int:
        """A descriptor that is readable when poll() has work to do (threads = 0)."""
        return int(lib.oort_worker_fd(self._plane, 0))

    def poll(self) -> str:
        """Run one round of the only worker.  Returns the text of an error, or ""."""
        error = ffi.new("oort_error *")
        if lib.oort_worker_poll(self._plane, 0, 0, error) < 0:
            return str(ffi.string(error.text).decode("utf-8", "replace"))
        return ""

    def stop(self) -> None:
        """End the workers after they have sent the replies that they can send without waiting.

        Does nothing if the plane is closed.
        """
        if self._plane == ffi.NULL:
            return
        lib.oort_workers_stop(self._plane)
        if not self.threads:
            self.poll()
        for thread in self._running:
            thread.join()
        self._running.clear()

    def close(self) -> None:
        """Close every connection; stop() comes first.  Does nothing the second time."""
        if self._plane != ffi.NULL:
            lib.oort_dataplane_close(self._plane)
            self._plane = ffi.NULL

    def configure(self, settings: PlaneSettings) -> None:
        """Change the settings.  Each worker applies them at the beginning of its next round.

        Raises MemoryError.
        """
        values = ffi.new("oort_plane_settings *", settings.values)
        if lib.oort_dataplane_configure(self._plane, values) < 0:
            raise MemoryError("no memory for the data plane's settings")

    def adopt(self, fd: int, flags: int) -> int:
        """Hand a descriptor to a worker; workers take turns.  The plane owns the descriptor then.

        Returns the id of the connection, or 0 if there is not enough memory.
        """
        worker = self._next_worker
        self._next_worker = (worker + 1) % self.workers
        return int(lib.oort_connection_adopt(self._plane, worker, fd, flags))

    def kill(self, connection: int) -> bool:
        """Close a connection.  False: there is no such connection."""
        return bool(lib.oort_connection_kill(self._plane, connection))

    def connections(self) -> dict[int, Connection]:
        """All connections by id, in order of id."""
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
        """The ids of the connections that were closed since the last call."""
        while True:
            count = int(lib.oort_connection_closed(self._plane, self._closed_ids, 256))
            yield from (int(self._closed_ids[i]) for i in range(min(count, 256)))
            if count < 256:
                return

    def request_fd(self) -> int:
        """A descriptor that is readable while a request waits, or after a connection was closed."""
        return int(lib.oort_request_fd(self._plane))

    def next_request(self) -> Request | None:
        """The next waiting request; None: no request waits."""
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
        """Reply to a request.  Does nothing if its connection was closed."""
        out, _data = _reply(connection, reply)
        lib.oort_request_reply(self._plane, out)

    def reply_later(self, connection: int, reply: Reply, seconds: float | None) -> int:
        """Reply to a request after this time (None: never), unless wake() replies before.

        Returns the number of the wait.
        """
        wait = next(self._waits)
        out, _data = _reply(connection, reply, wait=wait)
        out.changes |= lib.OORT_CHANGE_WAIT
        out.wait_ms = -1 if seconds is None else math.ceil(seconds * 1000)
        lib.oort_request_reply(self._plane, out)
        return wait

    def wake(self, connection: int, wait: int, reply: Reply) -> bool:
        """Reply to a connection that waits.  False: the wait has ended already.  Thread safe.

        Raises MemoryError.
        """
        out, _data = _reply(connection, reply, wait=wait)
        status = lib.oort_connection_wake(self._plane, out)
        if status == lib.OORT_ERR_NOMEM:
            raise MemoryError("no memory for a reply")
        return bool(status == lib.OORT_OK)

    def send(self, connections: Iterable[int], data: bytes) -> int:
        """Send a message, which is not a reply, to these connections.  Thread safe.

        data: complete RESP values.  Returns how many of the connections exist.  Raises MemoryError.
        """
        ids = ffi.new("uint64_t[]", list(connections))
        message = lib.oort_message_new(self._plane, ffi.from_buffer("uint8_t[]", data), len(data))
        if message == ffi.NULL:
            raise MemoryError("no memory for a message")
        sent = int(lib.oort_connection_send(self._plane, ids, len(ids), message))
        lib.oort_message_release(message)
        if sent < 0:
            raise MemoryError("no memory to send a message")
        return sent

    def stats(self) -> Reading:
        """The values of the data plane's metrics."""
        return read("plane", lib.oort_dataplane_get_metrics, self._plane)

    def command_stats(self) -> list[Reading]:
        """The values of each command's metrics, by position in the command table."""
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
        """Count the time of a command that Python has executed.

        command: position in the command table.
        """
        lib.oort_dataplane_add_time(self._plane, command, max(0, round(seconds * 1e9)))

    def reset_stats(self) -> None:
        """Reset the metrics that CONFIG RESETSTAT resets."""
        lib.oort_dataplane_reset_metrics(self._plane)
