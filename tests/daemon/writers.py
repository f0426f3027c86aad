"""Clients that write without pause, and check the server's state after a kill.

A `Mirror` holds the keys of one client after the acknowledged commands.  A `Writer` is a thread
with a redis-py connection.  It sends batches of random commands on its own keys and compares every
reply with its mirror.  When the server dies, the writer keeps the commands without replies in
order.  The server must then have the state of the mirror after some number of the first of these
commands.

Expiries are absolute.  They are far away, and so far apart (STEP_MS) that a slow check can still
distinguish them, or they are short (keys with `volatile` in their name).  After a short expiry the
key must be gone.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Iterator

import redis
from redis.connection import Connection

from tests.conftest import Oortd

Command = tuple[bytes, ...]

KEYS = 120
VOLATILE_KEYS = 12
LONGEST_APPENDED = 20_000
STEP_MS = 10_000_000
FAR_MS = (int(time.time()) + 10_000_000) * 1000


class Mirror:
    """The keys of one client: value and absolute expiry in ms (0: never)."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.keys: dict[bytes, tuple[bytes, int]] = {}

    def apply(self, command: Command) -> object:
        """Execute a command.  Returns the right reply."""
        name, *words = command
        if name == b"FLUSHDB":
            self.keys.clear()
            return b"OK"
        if name in (b"MSET", b"MSETNX"):
            if name == b"MSETNX" and any(key in self.keys for key in words[::2]):
                return 0
            for key, value in zip(words[::2], words[1::2], strict=True):
                self.keys[key] = (value, 0)
            return b"OK" if name == b"MSET" else 1
        if name == b"DEL":
            return sum(self.keys.pop(key, None) is not None for key in words)
        key = words[0]
        value, expiry = self.keys.get(key, (None, 0))
        if name == b"GET":
            return value
        if name == b"SET":
            options = words[2:]
            self.keys[key] = (words[1], int(options[1]) if options else 0)
            return b"OK"
        if name == b"PEXPIREAT":
            if value is not None:
                self.keys[key] = (value, int(words[1]))
            return int(value is not None)
        if name == b"PERSIST":
            if value is not None:
                self.keys[key] = (value, 0)
            return int(expiry != 0)
        if name == b"APPEND":
            self.keys[key] = ((value or b"") + words[1], expiry)
            return len(self.keys[key][0])
        assert name == b"INCR"
        self.keys[key] = (b"%d" % (int(value or b"0") + 1), expiry)
        return int(self.keys[key][0])

    def differs(self, found: dict[bytes, tuple[bytes, int]], now_ms: int) -> str:
        """The difference to a server with the keys `found`; empty: there is none."""
        for key in found.keys() | self.keys.keys():
            value, expiry = self.keys.get(key, (None, 0))
            have, have_expiry = found.get(key, (None, 0))
            if have == value and expiry_step(have_expiry) == expiry_step(expiry):
                continue
            if have is None and 0 < expiry <= now_ms:
                continue
            return (
                f"{key!r} is {shorten(have)} until {have_expiry},"
                f" must be {shorten(value)} until {expiry}"
            )
        return ""


def expiry_step(expiry_ms: int) -> int:
    return round((expiry_ms - FAR_MS) / STEP_MS) if expiry_ms > FAR_MS - STEP_MS // 2 else -1


def shorten(value: bytes | None) -> str:
    if value is None:
        return "missing"
    return repr(value) if len(value) < 60 else f"{len(value)} bytes {value[:30]!r}..."


class Writer:
    """A client: a thread while the server runs, and a mirror that survives the server."""

    def __init__(
        self,
        number: int,
        seed: int,
        *,
        database: int,
        large: int,
        volatile: bool = True,
    ) -> None:
        self.random = random.Random(f"{seed}/{number}")
        self.database = database
        self.large = large
        self.volatile = volatile
        self.mirror = Mirror(b"{tag}%d:" % number if number % 2 else b"%d:" % number)
        self.alone = database != 0  # the writer may flush its database
        self.unanswered: list[Command] = []
        self.answered = 0
        self.failure = ""
        self._thread: threading.Thread | None = None

    def start(self, daemon: Oortd) -> None:
        connection = Connection(daemon.host, daemon.port, db=self.database, socket_timeout=120)
        self._thread = threading.Thread(target=self._run, args=(connection,))
        self._thread.start()

    def join(self) -> None:
        """Wait until the server's death has ended the thread."""
        assert self._thread is not None
        self._thread.join()
        assert not self.failure, self.failure

    def _run(self, connection: Connection) -> None:
        try:
            connection.connect()
            while True:
                count = self.random.choice((1, 1, 1, 5, 40))
                self.unanswered = list(self._commands(count))
                connection.send_packed_command(connection.pack_commands(self.unanswered))
                while self.unanswered:
                    self._take(connection.read_response())
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            pass  # the server was killed
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            connection.disconnect()

    def _take(self, reply: object) -> None:
        command = self.unanswered[0]
        due = self.mirror.apply(command)
        if b":volatile:" not in command[1 if len(command) > 1 else 0] and reply != due:
            raise AssertionError(f"{command!r} was answered {reply!r}, not {due!r}"[:400])
        del self.unanswered[0]
        self.answered += 1

    def _value(self, large: int = 0) -> bytes:
        kind = self.random.random()
        if large and kind < 0.003:
            return self.random.randbytes(large)
        return self.random.randbytes(self.random.randrange(2000 if kind < 0.1 else 200))

    def _commands(self, count: int) -> Iterator[Command]:
        draw = self.random
        for _ in range(count):
            key = b"%s%d" % (self.mirror.prefix, draw.randrange(KEYS))
            counter = b"%scounter:%d" % (self.mirror.prefix, draw.randrange(5))
            kind = draw.randrange(100)
            if kind < 30:
                yield b"SET", key, self._value(self.large)
            elif kind < 35:
                yield b"SET", key, self._value(), b"PXAT", self._far()
            elif kind < 45:
                yield b"DEL", key, b"%s%d" % (self.mirror.prefix, draw.randrange(KEYS))
            elif kind < 60:
                yield b"INCR", counter
            elif kind < 70:
                if len(self.mirror.keys.get(key, (b"", 0))[0]) < LONGEST_APPENDED:
                    yield b"APPEND", key, self._value()
                else:
                    yield b"SET", key, b"short again"
            elif kind < 80:
                name = b"MSET" if kind < 78 else b"MSETNX"
                names = draw.sample(range(KEYS), draw.randrange(1, 12))
                pairs = ((b"%s%d" % (self.mirror.prefix, n), self._value()) for n in names)
                yield name, *(word for pair in pairs for word in pair)
            elif kind < 87:
                yield b"PEXPIREAT", key, self._far()
            elif kind < 90:
                yield b"PERSIST", key
            elif kind < 93:
                yield b"GET", key
            elif (kind < 99 or not self.alone or draw.random() < 0.7) and self.volatile:
                name = b"%s:volatile:%d" % (self.mirror.prefix, draw.randrange(VOLATILE_KEYS))
                soon = b"%d" % (time.time_ns() // 1_000_000 + draw.randrange(1, 300))
                yield (b"SET", name, self._value(), *((b"PXAT", soon) if kind % 2 else ()))
            elif self.alone:
                yield (b"FLUSHDB",)

    def _far(self) -> bytes:
        return b"%d" % (FAR_MS + self.random.randrange(1, 1000) * STEP_MS)

    def check(self, daemon: Oortd) -> None:
        """The server has the acknowledged writes, and maybe the first of the others."""
        found, now_ms = self._held(daemon)
        mirror = copy.copy(self.mirror)
        mirror.keys = dict(self.mirror.keys)
        first = difference = mirror.differs(found, now_ms)
        for command in self.unanswered:
            if not difference:
                break
            mirror.apply(command)
            difference = mirror.differs(found, now_ms)
        assert not difference, (
            f"{first}; no first part of the {len(self.unanswered)} unanswered commands"
            f" explains it: {[c[:2] for c in self.unanswered]}"
        )
        # Expired keys do not come back.
        mirror.keys = {
            key: held
            for key, held in mirror.keys.items()
            if key in found or not 0 < held[1] <= now_ms
        }
        self.mirror = mirror
        self.unanswered = []

    def _held(self, daemon: Oortd) -> tuple[dict[bytes, tuple[bytes, int]], int]:
        """Keys with value and expiry, and the server's clock (ms)."""
        client = daemon.client(db=self.database)
        names = [
            name
            for name in set(client.scan_iter(count=1000))
            if self.alone or name.startswith(self.mirror.prefix)
        ]
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
            pipeline.pttl(name)
        pipeline.time()
        *replies, (seconds, microseconds) = pipeline.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        client.close()
        held = {
            name: (value, now_ms + ttl if ttl >= 0 else 0)
            for name, value, ttl in zip(names, replies[::2], replies[1::2], strict=True)
            if value is not None
        }
        return held, now_ms
