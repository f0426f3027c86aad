"""Tests of the stores' Python interface: every store against a dict, and each error class."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oort.errors import (
    OortError,
    StoreArgumentError,
    StoreError,
    StoreLockedError,
    StoreTooBigError,
)
from oort.metrics import STORE
from oort.store import STORE_TYPES, Session, Store, StoreConfig, open_store

NOW_MS = 1_700_000_000_000


@pytest.fixture(params=STORE_TYPES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    config = StoreConfig(directory=str(tmp_path), segment_bytes=2**20, background=False)
    with open_store(request.param, config) as opened:
        yield opened


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with store.session() as opened:
        opened.clock_us = NOW_MS * 1000
        yield opened


def test_values_are_any_bytes(session: Session) -> None:
    every_byte = bytes(range(256))
    for key, value in ((b"", b""), (every_byte, every_byte * 100), (b"large", b"x" * 3_000_000)):
        assert session.get(0, key) is None
        session.set(0, key, value)
        assert session.get(0, key) == value
        size = session.stored_bytes(0, key)
        assert size is not None
        assert size >= len(key) + len(value)
    assert session.stored_bytes(0, b"none") is None
    assert session.delete(0, b"large")
    assert not session.delete(0, b"large")
    assert session.get(0, b"large") is None


def test_expiry_follows_the_session_clock(session: Session) -> None:
    session.set(0, b"k", b"v", NOW_MS + 1000)
    entry = session.entry(0, b"k")
    assert entry is not None
    assert (entry.value, entry.expiry_ms) == (b"v", NOW_MS + 1000)
    assert session.expire(0, b"k", NOW_MS + 3000)
    session.clock_us = (NOW_MS + 2000) * 1000
    assert session.get(0, b"k") == b"v"
    session.clock_us = (NOW_MS + 3001) * 1000
    assert session.get(0, b"k") is None
    assert not session.expire(0, b"k", 0)


def test_the_real_clock_is_the_default(session: Session) -> None:
    session.clock_us = 0
    session.set(0, b"past", b"v", NOW_MS)
    session.set(0, b"future", b"v", 4_000_000_000_000)
    assert session.get(0, b"past") is None
    assert session.get(0, b"future") == b"v"


def test_batches_databases_and_flush(store: Store, session: Session) -> None:
    values = {b"%d" % number: b"value %d" % number for number in range(300)}
    session.set_many(3, values)
    session.set(4, b"1", b"elsewhere")
    assert {key: session.get(3, key) for key in values} == values
    assert store.stats().each(STORE["keys"])[3:5] == [300, 1]
    session.flush(3)
    assert store.stats().each(STORE["keys"])[3:5] == [0, 1]
    assert session.get(4, b"1") == b"elsewhere"
    session.flush()
    assert sum(store.stats().each(STORE["keys"])) == 0
    session.set_many(0, {})
    assert sum(store.stats().each(STORE["keys"])) == 0


def test_scan_and_random_key(session: Session) -> None:
    assert session.random_key(0) is None
    assert session.scan(0, 0, 10) == (0, [])
    names = {b"{t}%d" % number for number in range(500)} | {b"%d" % number for number in range(500)}
    names |= {b"x" * 65536, b""}
    for name in names:
        session.set(0, name, b"v")
    assert sorted(session.keys(0)) == sorted(names)
    position, found = session.scan(0, 0, 10)
    assert 0 < position < 2**48
    assert 10 <= len(found) < len(names)
    assert {session.random_key(0) for _ in range(50)} <= names


def test_errors_name_their_cause(store: Store, tmp_path: Path) -> None:
    with store.session() as session:
        with pytest.raises(StoreTooBigError, match="65536"):
            session.set(0, b"x" * 65537, b"v")
        with pytest.raises(StoreArgumentError, match="no database 16"):
            session.get(16, b"k")
    with pytest.raises(StoreArgumentError, match="the session is closed"):
        session.get(0, b"k")
    with pytest.raises(StoreArgumentError, match="fsync is 'sometimes'"):
        store.set_fsync("sometimes")
    with pytest.raises(StoreArgumentError, match="store type is 'paper'"):
        open_store("paper", StoreConfig(directory=str(tmp_path)))
    with pytest.raises(StoreError, match=r"ValueCap|value"):
        open_store("mapstore", StoreConfig(directory=str(tmp_path), value_cap=2**40))
    assert issubclass(StoreError, OortError)


def test_policy_sync_events_and_a_second_close(store: Store) -> None:
    with store.session() as session:
        session.set(0, b"k", b"v")
    for policy in ("always", "no", "everysec"):
        store.set_fsync(policy)
    store.sync()
    store.compact(50)
    # The descriptor is readable exactly while an event waits.
    readable, _, _ = select.select([store.event_fd()], [], [], 0)
    assert bool(readable) == (store.next_event() is not None)
    store.close()
    store.close()
    with pytest.raises(StoreArgumentError, match="the store is closed"):
        store.stats()


def test_the_value_store_keeps_and_locks_its_directory(tmp_path: Path) -> None:
    config = StoreConfig(directory=str(tmp_path), segment_bytes=2**20, background=False)
    values = {b"%d" % number: b"v" * number for number in range(200)}
    with open_store("valuestore", config) as store:
        with store.session() as session:
            session.set_many(2, values)
        with pytest.raises(StoreLockedError):
            open_store("valuestore", config)
    with open_store("valuestore", config) as store, store.session() as session:
        assert {key: session.get(2, key) for key in values} == values
        assert store.stats().each(STORE["keys"])[2] == len(values)


KEYS = st.sampled_from([b"", b"a", b"b", b"{t}1", b"{t}2", b"{t}3", b"\x00\r\n\xff", b"k" * 300])
VALUES = st.binary(max_size=64) | st.integers(0, 70_000).map(lambda size: b"v" * size)
DATABASES = st.integers(0, 1)
DELAYS_MS = st.sampled_from(
    [0, -5, 15, 45, 1005]
)  # the clock moves by tens, so no expiry is exactly now


class StoreMachine(RuleBasedStateMachine):
    """After any calls in any order the store has the contents of the model, which is a dict."""

    store_type: str
    directory: str

    @initialize()
    def begin(self) -> None:
        self.now_ms = NOW_MS
        self.store = open_store(
            self.store_type,
            StoreConfig(directory=self.directory, segment_bytes=2**20, background=False),
        )
        self.session = self.store.session()
        self.session.clock_us = self.now_ms * 1000
        self.session.flush()
        self.model: dict[tuple[int, bytes], tuple[bytes, int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.session.close()
            self.store.close()

    def expiry(self, delay_ms: int) -> int:
        return self.now_ms + delay_ms if delay_ms else 0

    def put(self, database: int, key: bytes, value: bytes, delay_ms: int) -> None:
        if delay_ms < 0:
            self.model.pop((database, key), None)
        else:
            self.model[database, key] = (value, self.expiry(delay_ms))

    @rule(database=DATABASES, key=KEYS, value=VALUES, delay_ms=DELAYS_MS)
    def set(self, database: int, key: bytes, value: bytes, delay_ms: int) -> None:
        self.session.set(database, key, value, self.expiry(delay_ms))
        self.put(database, key, value, delay_ms)

    @rule(database=DATABASES, values=st.dictionaries(KEYS, VALUES), delay_ms=DELAYS_MS)
    def set_many(self, database: int, values: dict[bytes, bytes], delay_ms: int) -> None:
        self.session.set_many(database, values, self.expiry(delay_ms))
        for key, value in values.items():
            self.put(database, key, value, delay_ms)

    @rule(database=DATABASES, key=KEYS)
    def delete(self, database: int, key: bytes) -> None:
        found = self.model.pop((database, key), None) is not None
        assert self.session.delete(database, key) == found

    @rule(database=DATABASES, key=KEYS, delay_ms=DELAYS_MS)
    def expire(self, database: int, key: bytes, delay_ms: int) -> None:
        found = self.model.get((database, key))
        assert self.session.expire(database, key, self.expiry(delay_ms)) == (found is not None)
        if found is not None:
            self.put(database, key, found[0], delay_ms)

    @rule(step_ms=st.sampled_from([10, 30, 1000]))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.session.clock_us = self.now_ms * 1000
        self.model = {
            key: (value, expiry_ms)
            for key, (value, expiry_ms) in self.model.items()
            if expiry_ms == 0 or expiry_ms > self.now_ms
        }

    @rule(database=DATABASES)
    def flush(self, database: int) -> None:
        self.session.flush(database)
        self.model = {key: kept for key, kept in self.model.items() if key[0] != database}

    @rule()
    def compact(self) -> None:
        self.store.compact(0)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "model"):
            return
        for database in (0, 1):
            keys = sorted(key for at, key in self.model if at == database)
            assert sorted(self.session.keys(database)) == keys
            for key in keys:
                entry = self.session.entry(database, key)
                assert entry is not None
                assert (entry.value, entry.expiry_ms) == self.model[database, key]


@pytest.mark.parametrize("store_type", STORE_TYPES)
def test_any_calls_have_the_same_effect_as_on_a_dict(store_type: str, tmp_path: Path) -> None:
    case: Any = type("Machine", (StoreMachine,), {})
    case.store_type, case.directory = store_type, str(tmp_path)
    case.TestCase.settings = settings(
        max_examples=30,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case.TestCase().runTest()
