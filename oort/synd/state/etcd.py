"""A syndicate's state in etcd, for several synds with one leader that survive a machine.

Keys, below a prefix (/oort):

    <service>/current/leader   the address of the leader; attached to its lease
    <service>/current/ring     the current version: its number, sizes, checksum and id
    <service>/chunks/<id>/<n>  builder and ring of that version, concatenated and cut in chunks,
                               because etcd accepts requests of at most 1.5 MiB
    <service>/facts/<name>     facts of `keep` and `put`; names are %-encoded

The chunks of a new version are written under a new id.  One transaction writes the last chunk,
switches to the new version, and removes every other chunk.  It takes effect only if the stored
version is the expected version and the leader has not changed.  Neither a deposed leader nor a
delayed transaction can therefore change anything.  If the answer to a transaction is lost, it is
tried again.  The id shows whether the first try had taken effect.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from oort.errors import StateConflict, StateError, StateUnavailableError

from . import etcd_pb2 as messages
from .election import Election
from .etcd_client import EtcdClient, prefix_end
from .state import Announcer, Snapshot, check_fact, check_service, check_snapshot, encode_name

LEASE_SECONDS = 5
CHUNK_BYTES = 1 << 20
_FORMAT = 1
_PAUSE_SECONDS = 0.5  # before a broken watch is started again
_LOG = logging.getLogger("synd.etcd")


@dataclass(frozen=True)
class _Pointer:
    """The value of current/ring."""

    version: int
    id: str
    builder_bytes: int
    ring_bytes: int
    sha256: str

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Pointer:
        digest = hashlib.sha256(snapshot.builder + snapshot.ring).hexdigest()
        return cls(
            snapshot.version,
            secrets.token_hex(16),
            len(snapshot.builder),
            len(snapshot.ring),
            digest,
        )

    @classmethod
    def read(cls, data: bytes) -> _Pointer:
        found = json.loads(data)
        if found["format"] != _FORMAT:
            raise ValueError("a newer version of synd wrote it")
        return cls(
            int(found["version"]),
            str(found["id"]),
            int(found["builder_bytes"]),
            int(found["ring_bytes"]),
            str(found["sha256"]),
        )

    def write(self) -> bytes:
        return json.dumps({"format": _FORMAT, **self.__dict__}).encode()

    @property
    def chunks(self) -> int:
        return max(1, -(-(self.builder_bytes + self.ring_bytes) // CHUNK_BYTES))


class EtcdState:
    """The state of one service in etcd; see State for the contract of each method.

    `endpoints` are the host:port of etcd's members; connections use TLS if there are
    `credentials`.  `advertise` (host:port) is the value of `leader` for the other synds while this
    synd leads.  `lease_seconds` is the time that a dead leader keeps the key; etcd's minimum is 2.
    `timeout` is the time in seconds that a call waits for etcd.  Syndicates that share an etcd and
    a service name need different prefixes.

    The constructor raises StateUnavailableError if none of the endpoints answers.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        service: str,
        advertise: str,
        credentials: grpc.ChannelCredentials | None = None,
        lease_seconds: int = LEASE_SECONDS,
        timeout: float = 5.0,
        prefix: str = "/oort",
    ) -> None:
        base = f"{prefix}/{check_service(service)}/".encode()
        self._current = base + b"current/"
        self._leader_key = self._current + b"leader"
        self._ring_key = self._current + b"ring"
        self._chunks = base + b"chunks/"
        self._facts = base + b"facts/"
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._remembering = threading.Lock()
        self._cached = (0, Snapshot())  # the mod_revision of current/ring, and its snapshot
        self._closed = threading.Event()
        self._client = EtcdClient(endpoints, credentials, timeout)
        self._announcer = Announcer(service)
        self._election = Election(
            self._client,
            self._leader_key,
            advertise,
            lease_seconds,
            changed=self._announcer.leading,
            look=self._look,
        )
        try:
            revision = self._look()
        except BaseException:
            self._client.close()
            self._announcer.close()
            raise
        self._watcher = threading.Thread(
            target=self._watch, args=(revision,), name=f"{service}-watch", daemon=True
        )
        self._watcher.start()
        self._election.start()

    # ---- State --------------------------------------------------------------

    def read(self) -> Snapshot:
        self._announcer.check()
        return self._read()[1]

    def write(self, expected: int, new: Snapshot) -> None:
        check_snapshot(new)
        if new.version <= expected:
            raise ValueError(f"version {new.version} is not newer than {expected}")
        with self._writing:
            self._announcer.check()
            guard = self._election.guard()
            revision, snapshot = self._cached
            if snapshot.version != expected:
                revision, snapshot = self._read()
            if snapshot.version != expected:
                raise StateConflict(f"the ring is at version {snapshot.version}, not at {expected}")
            self._remember(self._replace(guard, revision, new), new)
        self._announcer.snapshot(new)

    def keep(self, name: str, data: bytes) -> bytes:
        self._announcer.check()
        key = self._facts + encode_name(name).encode()
        answer, _ = self._client.txn(
            messages.TxnRequest(
                compare=[_unchanged(key, 0)],
                success=[_put(key, check_fact(data))],
                failure=[_get(key)],
            )
        )
        return data if answer.succeeded else answer.responses[0].response_range.kvs[0].value

    def put(self, name: str, data: bytes) -> None:
        key = self._facts + encode_name(name).encode()
        check_fact(data)
        with self._writing:
            self._announcer.check()
            guard = self._election.guard()
            while True:
                found = self._client.range(key).kvs
                answer, first = self._client.txn(
                    messages.TxnRequest(
                        compare=[guard, _unchanged(key, found[0].mod_revision if found else 0)],
                        success=[_put(key, data)],
                        failure=[_get(self._leader_key), _get(key)],
                    )
                )
                if answer.succeeded:
                    return
                leads = self._leads(guard, answer)
                found = answer.responses[1].response_range.kvs
                if not first and found and found[0].value == data:
                    return  # an earlier try has stored it
                if not leads:
                    raise self._deposed(first, f"{name} may have been stored")
                # An earlier try took effect late, between the two calls.

    def take(self, name: str) -> bytes | None:
        self._announcer.check()
        found = self._client.range(self._facts + encode_name(name).encode()).kvs
        return found[0].value if found else None

    @property
    def leading(self) -> bool:
        return self._election.leading

    @property
    def leader(self) -> str | None:
        return self._election.leader

    def watch(self, changed: Callable[[Snapshot], None]) -> None:
        self._announcer.watch(changed)

    def on_lead(self, changed: Callable[[bool], None]) -> None:
        self._announcer.on_lead(changed)

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._election.close()
            self._client.close()
            self._watcher.join()
            self._announcer.close()

    # ---- reading ------------------------------------------------------------

    def _read(self) -> tuple[int, Snapshot]:
        """The revision at which current/ring was changed, and the newest version."""
        while True:
            kvs = self._client.range(self._ring_key).kvs
            if not kvs:
                return 0, Snapshot()
            revision = kvs[0].mod_revision
            with self._reading:  # one thread fetches, the others wait for its result
                cached = self._cached
                if revision == cached[0]:
                    return cached
                snapshot = self._fetch(kvs[0])
                if snapshot is not None:
                    self._remember(revision, snapshot)
                    return revision, snapshot

    def _remember(self, revision: int, snapshot: Snapshot) -> None:
        with self._remembering:
            if revision > self._cached[0]:
                self._cached = revision, snapshot

    def _fetch(self, kv: messages.KeyValue) -> Snapshot | None:
        """The snapshot of a value of current/ring; None if it was replaced meanwhile."""
        pointer = self._pointer(kv)
        parts = []
        for number in range(pointer.chunks):
            kvs = self._client.range(self._chunk(pointer, number)).kvs
            if not kvs:
                if self._client.range(self._ring_key).kvs[:1] == [kv]:
                    raise self._damaged(f"chunk {number} of {pointer.chunks} is missing")
                return None
            parts.append(kvs[0].value)
        payload = b"".join(parts)
        builder, ring = payload[: pointer.builder_bytes], payload[pointer.builder_bytes :]
        if len(ring) != pointer.ring_bytes or hashlib.sha256(payload).hexdigest() != pointer.sha256:
            raise self._damaged("its chunks do not match its checksum")
        return Snapshot(pointer.version, builder, ring)

    def _pointer(self, kv: messages.KeyValue) -> _Pointer:
        try:
            return _Pointer.read(kv.value)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(repr(error)) from error

    def _damaged(self, why: str) -> StateError:
        return StateError(
            f"{self._ring_key.decode()} in etcd is damaged: {why}; restore etcd from a snapshot"
        )

    def _chunk(self, pointer: _Pointer, number: int) -> bytes:
        return self._chunks + f"{pointer.id}/{number:06}".encode()

    # ---- writing ------------------------------------------------------------

    def _replace(self, guard: messages.Compare, revision: int, new: Snapshot) -> int:
        """Switch from the version at that revision to a new version.

        Returns the revision of the switch.
        """
        pointer = _Pointer.of(new)
        payload = new.builder + new.ring
        chunks = [
            _put(
                self._chunk(pointer, number),
                payload[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES],
            )
            for number in range(pointer.chunks)
        ]
        for chunk in chunks[:-1]:
            answer, _ = self._client.txn(
                messages.TxnRequest(
                    compare=[guard], success=[chunk], failure=[_get(self._leader_key)]
                )
            )
            if not answer.succeeded:
                self._leads(guard, answer)
                raise self._election.not_leading()
        own = self._chunks + pointer.id.encode() + b"/"
        answer, first = self._client.txn(
            messages.TxnRequest(
                compare=[guard, _unchanged(self._ring_key, revision)],
                success=[
                    chunks[-1],
                    _put(self._ring_key, pointer.write()),
                    _delete(self._chunks, own),
                    _delete(prefix_end(own), prefix_end(self._chunks)),
                ],
                failure=[_get(self._leader_key), _get(self._ring_key)],
            )
        )
        if answer.succeeded:
            return answer.header.revision
        return self._why_not(guard, revision, pointer, answer, first)

    def _why_not(
        self,
        guard: messages.Compare,
        revision: int,
        pointer: _Pointer,
        answer: messages.TxnResponse,
        first: bool,
    ) -> int:
        """The revision of the switch if an earlier try made it; otherwise raises the reason."""
        leads = self._leads(guard, answer)
        found = answer.responses[1].response_range.kvs
        stored = self._pointer(found[0]) if found else None
        if stored is not None and stored.id == pointer.id:
            return found[0].mod_revision
        if (found[0].mod_revision if found else 0) == revision:
            # The switch was not made and never will be, because the guard no longer holds.
            raise self._deposed(True, "")
        if leads or first:
            raise StateConflict(
                f"the ring is at version {stored.version if stored else 0}: another synd changed it"
            )
        raise self._deposed(first, f"version {pointer.version} may have been stored")

    def _leads(self, guard: messages.Compare, answer: messages.TxnResponse) -> bool:
        """Whether the leader of `guard` was the leader when etcd answered; informs the election."""
        found = answer.responses[0].response_range.kvs
        self._election.observe(answer.header.revision, found[0] if found else None)
        return bool(found) and found[0].create_revision == guard.create_revision

    def _deposed(self, sure: bool, doubt: str) -> StateError:
        if sure:
            return self._election.not_leading()
        return StateUnavailableError(
            f"{doubt} for a while: the answer was lost, and another synd leads now"
        )

    # ---- changes by other synds ---------------------------------------------

    def _look(self) -> int:
        """Read the present leader and version, and announce them; returns etcd's revision."""
        answer = self._client.range(self._current, prefix_end(self._current))
        leaders = [kv for kv in answer.kvs if kv.key == self._leader_key]
        self._election.observe(answer.header.revision, leaders[0] if leaders else None)
        self._announcer.snapshot(self._read()[1])
        return answer.header.revision

    def _watch(self, revision: int) -> None:
        """The watcher's thread; `revision` is etcd's revision at the last look."""
        known: int | None = revision
        trouble = False
        while not self._closed.is_set():
            try:
                known = self._look() if known is None else known
                with self._client.watch(
                    self._current, prefix_end(self._current), known + 1
                ) as responses:
                    for response in responses:
                        if trouble:
                            _LOG.info("etcd answers again")
                            trouble = False
                        self._learn(response)
            except StateError as error:
                if not trouble and not self._closed.is_set():
                    _LOG.warning("cannot watch the changes of other synds: %s", error)
                    trouble = True
                self._closed.wait(_PAUSE_SECONDS)
            known = None

    def _learn(self, response: messages.WatchResponse) -> None:
        for event in response.events:
            if event.kv.key == self._leader_key:
                exists = event.type == messages.Event.PUT
                self._election.observe(event.kv.mod_revision, event.kv if exists else None)
        if any(event.kv.key == self._ring_key for event in response.events):
            self._announcer.snapshot(self._read()[1])


def _unchanged(key: bytes, revision: int) -> messages.Compare:
    """The condition that the key was last changed at that revision; 0: that it does not exist."""
    return messages.Compare(
        result=messages.Compare.EQUAL,
        target=messages.Compare.MOD,
        key=key,
        mod_revision=revision,
    )


def _put(key: bytes, value: bytes) -> messages.RequestOp:
    return messages.RequestOp(request_put=messages.PutRequest(key=key, value=value))


def _get(key: bytes) -> messages.RequestOp:
    return messages.RequestOp(request_range=messages.RangeRequest(key=key))


def _delete(key: bytes, range_end: bytes) -> messages.RequestOp:
    return messages.RequestOp(
        request_delete_range=messages.DeleteRangeRequest(key=key, range_end=range_end)
    )
