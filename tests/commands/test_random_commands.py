"""oortd and the distribution's redis-server reply to random commands with the same bytes.

Necessary differences are excluded: times to live are compared roughly, no key expires so soon that
it could expire between the two requests, and DBSIZE is not used while Redis may still have expired
keys.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.conftest import Oortd, RawClient

pytestmark = pytest.mark.system

COMMANDS = 20_000
SLOWNESS_MS = 60_000  # the allowed difference between two times to live of one key

KEYS = [b"k1", b"k2", b"k3", b"", b"k\0x", b"k\r\n"]
NUMBERS = [
    *(b"0", b"-1", b"100000", b"-5", b"-3", b"4294967296", b"2147483648", b"9223372036854775807"),
    *(b"-9223372036854775808", b"9223372036854775808", b"9223372036854775", b"9223372036854776"),
    *(b"-9223372036854775", b"-9223372036854776", b"9223372036854774807", b"9223372036854775707"),
    *(b"abc", b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1.5", b"0x10", b"1e3", b"1\x002"),
]
SMALL = [b"1", b"3", b"10"]
FLOATS = [
    *(b"1.5", b"-1.5", b"1e5", b"inf", b"-inf", b"nan", b"0.1", b"1e400", b"5.0e3", b" 1.5"),
    *(b"1.5 ", b"0x1p3", b"1e-10", b"3.0", b"1e308", b"1e17", b"-0.0", b"infinity", b".5", b"5."),
]
VALUES = [b"v", b"", b"10", b"3.14", b"abc def", b"\0\1\2", b"x" * 100, b" 10", b"1e5", *NUMBERS]
NAMES = [b"get", b"SET", b"incr", b"TTL", b"getex", b"strlen", b"setrange", b"mset", b"nosuch"]
TIMES = [b"EX", b"px", b"EXAT", b"PXAT"]


class Draw:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        now = int(time.time())
        self.times = [*NUMBERS, b"%d" % (now + 1000), b"%d" % (now * 1000 + 10**6), b"%d" % now]

    def one(self, items: list[bytes]) -> bytes:
        return self.random.choice(items)

    def some(self, items: list[bytes], most: int) -> list[bytes]:
        return self.random.choices(items, k=self.random.randint(0, most))

    def maybe(self, *choices: list[bytes]) -> list[bytes]:
        return self.random.choice(choices)

    def set_options(self) -> list[bytes]:
        words: list[bytes] = []
        for word in self.some([*TIMES, b"NX", b"xx", b"GET", b"KEEPTTL", b"PERSIST", b"foo"], 3):
            words += [word, self.one(self.times)] if word in TIMES else [word]
        return words

    def pairs(self) -> list[bytes]:
        words = [word for _ in range(self.random.randint(0, 3)) for word in self.key_and_value()]
        return words + self.maybe([], [], [b"odd"])

    def key_and_value(self) -> list[bytes]:
        return [self.one(KEYS), self.one(VALUES)]

    def command(self) -> list[bytes]:
        key, number, time_ = self.one(KEYS), self.one(NUMBERS + SMALL), self.one(self.times)
        one = self.one
        return self.maybe(
            [b"SET", *self.key_and_value()],
            [b"SET", *self.key_and_value(), *self.set_options()],
            [b"SET", *self.key_and_value(), b"EX", b"1000"],
            [b"GET", key],
            [one([b"DEL", b"UNLINK", b"EXISTS", b"TOUCH", b"MGET"]), *self.some(KEYS, 4)],
            [one([b"MSET", b"MSETNX"]), *self.pairs()],
            [one([b"SETNX", b"GETSET", b"APPEND"]), *self.key_and_value()],
            [one([b"SETEX", b"PSETEX"]), key, time_, one(VALUES)],
            [one([b"GETDEL", b"STRLEN", b"INCR", b"DECR", b"PERSIST", b"TYPE"]), key],
            [b"GETEX", key, *self.maybe([], [b"PERSIST"], [one(TIMES), time_], [b"EX"], [b"NX"])],
            [b"GETEX", key, *self.maybe([b"EX", b"9", b"PX", b"9"], [b"PERSIST", b"EX", b"9"])],
            [one([b"INCRBY", b"DECRBY"]), key, number],
            [b"INCRBYFLOAT", key, one(FLOATS + NUMBERS)],
            [one([b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"]), key],
            [
                *(one([b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"]), key, time_),
                *self.some([b"NX", b"XX", b"gt", b"LT", b"foo\r\n"], 2),
            ],
            [b"GETRANGE", key, number, one(NUMBERS + SMALL)],
            [b"SETRANGE", key, one([*SMALL, b"-1", b"4294967296", b"x", b""]), one(VALUES)],
            [one([b"PING", b"ECHO"]), *self.some(VALUES, 2)],
            [one([b"HELLO", b"SELECT"]), one([b"4", b"", b"abc", b"99", *NUMBERS])],
            [one(NAMES), *self.some(KEYS, 5)],
        )


def same(words: list[bytes], ours: bytes, theirs: bytes) -> bool:
    remaining = words[0] in (b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME")
    if remaining and ours[:1] == theirs[:1] == b":":
        a, b = int(ours[1:]), int(theirs[1:])
        return (a < 0) == (b < 0) and abs(a - b) <= SLOWNESS_MS
    return ours == theirs


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_random_commands(shared_oortd: Oortd, redis_server: tuple[str, int], protocol: str) -> None:
    seed = time.time_ns()
    draw = Draw(seed)
    with shared_oortd.connect() as ours, RawClient(redis_server) as theirs:
        for raw in (ours, theirs):
            raw.call("HELLO", protocol)
            raw.call("FLUSHALL")
        history: list[str] = []
        for _ in range(COMMANDS):
            words = draw.command()
            got, wanted = ours.call(*words), theirs.call(*words)
            history = [*history[-30:], f"{words}\n  oortd: {got!r}\n  redis: {wanted!r}"]
            assert same(words, got, wanted), f"seed {seed}:\n" + "\n".join(history)
        for key in KEYS:
            assert ours.call("GET", key) == theirs.call("GET", key), f"seed {seed}: {key!r}"
