"""The limits of keys and values, and very many keys with one hash tag, through a real client."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import pytest
import redis

from tests.conftest import Oortd

StartOortd = Callable[..., Oortd]

KEY_CAP = 65536
VALUE_CAP = 512 * 1024 * 1024


def names_under_one_tag(first: int, count: int) -> list[bytes]:
    return [b"{one tag}%d" % number for number in range(first, first + count)]


def check_one_tag(daemon: Oortd, count: int, step: int = 1000) -> None:
    """Every key has its value, SCAN finds all keys, and the index is not larger than usual."""
    client = daemon.client()
    assert client.dbsize() == count
    for first in range(0, count, step):
        names = names_under_one_tag(first, step)
        assert client.mget(names) == [b"of " + name for name in names]
    found = 0
    seen = set()
    cursor = None
    while cursor != 0:
        cursor, names = client.scan(cursor or 0, count=10_000)
        found += len(names)
        seen.update(map(hash, names))
    assert len(seen) > count * 0.9999
    assert found < count * 1.01
    assert client.info("persistence")["oort_index_bytes"] < count * 24 + 4 * 1024 * 1024


def run_one_tag(daemon: Oortd, count: int) -> None:
    client = daemon.client()
    step = 1000
    for first in range(0, count, step):
        client.mset({name: b"of " + name for name in names_under_one_tag(first, step)})
    check_one_tag(daemon, count)
    daemon.kill()
    check_one_tag(daemon.start(), count)
    daemon.kill()
    (daemon.data_dir / "index").unlink()
    check_one_tag(daemon.start(), count)
    client = daemon.client()
    assert client.info("persistence")["oort_recovery"] == "rebuilt"
    for first in range(0, count, 2 * step):
        assert client.delete(*names_under_one_tag(first, step)) == step
    assert client.dbsize() == count // 2
    assert client.exists(*names_under_one_tag(0, 2 * step)) == step


def test_many_keys_under_one_hash_tag(oortd: Oortd) -> None:
    run_one_tag(oortd, 100_000)


@pytest.mark.soak
def test_ten_million_keys_under_one_hash_tag(oortd: Oortd) -> None:
    run_one_tag(oortd, 10_000_000)


def test_longest_keys(start_oortd: StartOortd) -> None:
    daemon = start_oortd(env={"OORT_VALUESTORECONFIG_SEGMENT_SIZE": "1 MiB"})
    client = daemon.client()
    # The keys differ in their last byte, in their first byte, or in length.
    same = os.urandom(KEY_CAP - 1)
    names = [same + bytes([n]) for n in range(50)] + [bytes([n]) + same for n in range(50)]
    names += [same, same[:-1], b""]
    for number, name in enumerate(names):
        assert client.set(name, number)
    assert client.mset({name: number for number, name in enumerate(names[:10])})
    for write in ("SET", "APPEND"):
        with pytest.raises(redis.ResponseError, match="key is longer than 65536 bytes"):
            client.execute_command(write, b"x" * (KEY_CAP + 1), "v")
    daemon.kill()
    client = daemon.start().client()
    assert [client.get(name) for name in names] == [b"%d" % n for n in range(len(names))]
    assert sorted(client.scan_iter()) == sorted(names)
    assert client.delete(*names[:50]) == 50
    assert [client.get(name) for name in names[49:51]] == [None, b"50"]


@pytest.mark.system
@pytest.mark.parametrize("store", ["valuestore", "mapstore"])
def test_longest_values(start_oortd: StartOortd, store: str) -> None:
    daemon = start_oortd("--store", store)
    client = daemon.client(socket_timeout=300)
    part = os.urandom(1024 * 1024)
    value = part * (VALUE_CAP // len(part) - 1) + part[::-1]
    digest = hashlib.sha256(value).digest()
    assert client.set("largest", value)
    for text in (value + b"x", b"x" * VALUE_CAP * 2):
        with pytest.raises((redis.ConnectionError, redis.ResponseError)):
            client.set("too large", text)
    del value, text
    with pytest.raises(redis.ResponseError, match="string exceeds maximum allowed size"):
        client.append("largest", "x")
    assert client.exists("too large") == 0
    if store == "valuestore":
        client.close()
        daemon.kill()
        client = daemon.start().client(socket_timeout=300)
    assert client.strlen("largest") == VALUE_CAP
    assert hashlib.sha256(client.get("largest")).digest() == digest
    assert client.set("other", "small", ex=100)
    assert client.delete("largest") == 1
    assert client.exists("largest") == 0
    assert client.get("other") == b"small"
