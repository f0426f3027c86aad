"""Tests of the state in a real etcd: dying leaders, dying members, and lost answers."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oort.errors import StateConflict, StateError, StateNotLeaderError, StateUnavailableError
from oort.synd.state import etcd_pb2
from oort.synd.state.etcd import CHUNK_BYTES, EtcdState
from oort.synd.state.etcd_client import EtcdClient, prefix_end
from oort.synd.state.state import Snapshot
from oort.tls.certificates import CertificateAuthority
from oort.tls.channels import channel_credentials
from oort.tls.files import save_identity

from .etcd_server import EtcdCluster, Relay, answers, free_ports
from .snapshots import conf_of, eventually, random_conf, snapshot

pytestmark = pytest.mark.system

Opener = Callable[..., EtcdState]
PREFIX = b"/oort/one/"
ROUNDS = 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, 1) as one:
        yield one.wait()


@pytest.fixture
def cluster_of_three(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, 3) as three:
        yield three.wait()


@pytest.fixture
def opener() -> Iterator[Opener]:
    opened: list[EtcdState] = []

    def open_state(endpoints: list[str], name: str = "here:1", **options: Any) -> EtcdState:
        state = EtcdState(endpoints, "one", name, **{"lease_seconds": 2, **options})
        opened.append(state)
        return state

    yield open_state
    for state in opened:
        state.close()


def leads(state: EtcdState) -> EtcdState:
    eventually(lambda: state.leading, "it leads")
    return state


def keys(cluster: EtcdCluster, prefix: bytes) -> list[Any]:
    client = EtcdClient(cluster.endpoints)
    try:
        return list(client.range(prefix, prefix_end(prefix)).kvs)
    finally:
        client.close()


def change(cluster: EtcdCluster, request: etcd_pb2.TxnRequest) -> bool:
    client = EtcdClient(cluster.endpoints)
    try:
        return client.txn(request)[0].succeeded
    finally:
        client.close()


def delete(cluster: EtcdCluster, key: bytes) -> None:
    request = etcd_pb2.DeleteRangeRequest(key=key)
    operation = etcd_pb2.RequestOp(request_delete_range=request)
    change(cluster, etcd_pb2.TxnRequest(success=[operation]))


def create(cluster: EtcdCluster, key: bytes, value: bytes) -> bool:
    operation = etcd_pb2.RequestOp(request_put=etcd_pb2.PutRequest(key=key, value=value))
    new = etcd_pb2.Compare(target=etcd_pb2.Compare.CREATE, key=key, create_revision=0)
    return change(cluster, etcd_pb2.TxnRequest(compare=[new], success=[operation]))


# ---- several synds --------------------------------------------------------------


def test_one_leads_and_the_others_follow(cluster: EtcdCluster, opener: Opener) -> None:
    first = leads(opener(cluster.endpoints, "first:1"))
    second = opener(cluster.endpoints, "second:2")
    seen: list[int] = []
    told: list[bool] = []
    second.watch(lambda snapshot: seen.append(snapshot.version))
    second.on_lead(told.append)
    eventually(lambda: second.leader == "first:1", "the other one is known")
    for version in range(1, 6):
        first.write(version - 1, snapshot(version))
        assert second.read() == snapshot(version)
    eventually(lambda: seen[-1:] == [5], "changes are announced")
    with pytest.raises(StateNotLeaderError, match="first:1 leads"):
        second.write(5, snapshot(6))
    with pytest.raises(StateNotLeaderError, match="first:1 leads"):
        second.put("fact", b"1")
    assert second.keep("once", b"second") == b"second"
    assert first.keep("once", b"first") == b"second"
    first.close()  # gives up the lead
    eventually(lambda: told == [False, True], "the second leads")
    assert second.leader == "second:2"
    second.write(5, snapshot(6))
    eventually(lambda: seen[-1] == 6, "its own changes are announced")
    assert seen == sorted(set(seen))


def seize(cluster: EtcdCluster) -> None:
    """Make another synd the leader."""
    while True:
        delete(cluster, PREFIX + b"current/leader")
        if create(cluster, PREFIX + b"current/leader", b"other:1"):
            return


def test_a_deposed_leader_can_change_nothing(cluster: EtcdCluster, opener: Opener) -> None:
    """Even a leader that does not know that it was deposed is refused by etcd."""
    changes: list[Callable[[EtcdState], object]] = [
        lambda state: state.write(1, snapshot(2)),
        lambda state: state.write(1, snapshot(2, random_conf(3_000_000))),
        lambda state: state.put("fact", b""),
    ]
    first = leads(opener(cluster.endpoints))
    first.write(0, snapshot(1))
    first.close()
    relay = Relay(cluster.endpoints[0])
    for too_late in changes:
        old = leads(opener([relay.endpoint, *cluster.endpoints], lease_seconds=20, timeout=2))
        relay.mute = True
        seize(cluster)
        assert old.leading  # it does not know yet
        with pytest.raises(StateNotLeaderError, match="other:1 leads"):
            too_late(old)
        relay.mute = False
        eventually(lambda old=old: not old.leading, "it knows by now")  # type: ignore[misc]
        assert old.read() == snapshot(1)
        assert old.take("fact") is None
        assert len(keys(cluster, PREFIX + b"chunks/")) == 1
        old.close()
        delete(cluster, PREFIX + b"current/leader")
    relay.close()


def test_a_deposed_leader_tries_again(cluster: EtcdCluster, opener: Opener) -> None:
    state = leads(opener(cluster.endpoints))
    told: list[bool] = []
    state.on_lead(told.append)
    eventually(lambda: told == [True], "it is told")
    seize(cluster)
    eventually(lambda: state.leader == "other:1" and not told[-1], "it is told that it is over")
    delete(cluster, PREFIX + b"current/leader")
    eventually(lambda: told[-1], "it leads again")
    state.write(0, snapshot(1))


def test_rings_larger_than_a_request(cluster: EtcdCluster, opener: Opener) -> None:
    state = leads(opener(cluster.endpoints))
    follower = opener(cluster.endpoints)
    seen: list[Snapshot] = []
    follower.watch(seen.append)
    for version, size in enumerate((3_000_000, 10, 1_200_000, CHUNK_BYTES // 2)):
        new = snapshot(version + 1, random_conf(size))
        state.write(version, new)
        assert follower.read() == new
        eventually(lambda new=new: seen[-1:] == [new], "it is announced")  # type: ignore[misc]
        total = len(new.builder) + len(new.ring)
        assert len(keys(cluster, PREFIX + b"chunks/")) == -(-total // CHUNK_BYTES)
    state.close()
    assert opener(cluster.endpoints).read() == new


def test_only_one_caller_creates_a_fact(cluster: EtcdCluster, opener: Opener) -> None:
    states = [opener(cluster.endpoints, f"host:{n}") for n in range(4)]
    for name in ("a", "b", "c"):
        found = {state.keep(name, b"%d" % n) for n, state in enumerate(states)}
        assert len(found) == 1


def test_damage_is_reported(cluster: EtcdCluster, opener: Opener) -> None:
    state = leads(opener(cluster.endpoints))
    state.write(0, snapshot(1, random_conf(3_000_000)))
    delete(cluster, keys(cluster, PREFIX + b"chunks/")[1].key)
    assert state.read().version == 1  # the version is cached
    state.close()
    with pytest.raises(StateError, match="/oort/one/current/ring in etcd is damaged: chunk 1"):
        opener(cluster.endpoints)


# ---- etcd's members and the network ----------------------------------------------


def test_a_lost_answer_is_resolved(cluster: EtcdCluster, opener: Opener) -> None:
    changes: list[Callable[[EtcdState], object]] = [
        lambda state: state.write(1, snapshot(2, b"lost")),
        lambda state: state.write(2, snapshot(3, random_conf(3_000_000))),
        lambda state: state.keep("kept", b"lost"),
        lambda state: state.put("stored", b"lost"),
    ]
    relay = Relay(cluster.endpoints[0])
    endpoints = [relay.endpoint, *cluster.endpoints]
    first = leads(opener(cluster.endpoints))
    first.write(0, snapshot(1))
    first.close()
    for lost in changes:
        state = leads(opener(endpoints, "relayed:1", lease_seconds=20, timeout=2))
        relay.kept_back = 0
        relay.mute = True
        lost(state)
        assert (
            relay.kept_back > 0
        )  # the change was made through the relay, and then confirmed at another endpoint
        relay.mute = False
        state.close()
    state = leads(opener(cluster.endpoints))
    assert state.read() == snapshot(3, random_conf(3_000_000))
    assert state.take("kept") == b"lost"
    assert state.take("stored") == b"lost"
    (ring,) = keys(cluster, PREFIX + b"current/ring")
    assert ring.version == 3  # three changes, none of them made twice
    relay.close()


def test_a_change_in_doubt_is_reported_and_atomic(cluster: EtcdCluster, opener: Opener) -> None:
    relay = Relay(cluster.endpoints[0])
    state = leads(opener([relay.endpoint], lease_seconds=20, timeout=1))
    state.write(0, snapshot(1))
    relay.mute = True
    with pytest.raises(StateUnavailableError, match=relay.endpoint):
        state.write(1, snapshot(2))
    with pytest.raises(StateUnavailableError):
        state.read()
    relay.mute = False

    def answered() -> bool:
        try:
            return state.read() == snapshot(2)
        except StateUnavailableError:
            return False

    eventually(answered, "what was in doubt is found to be there")
    with pytest.raises(StateConflict, match="at version 2, not at 1"):
        state.write(1, snapshot(2))
    state.write(2, snapshot(3))
    relay.close()


def test_a_leader_cut_off_is_replaced(cluster: EtcdCluster, opener: Opener) -> None:
    relay = Relay(cluster.endpoints[0])
    old = leads(opener([relay.endpoint], "old:1", timeout=1))
    new = opener(cluster.endpoints, "new:2")
    told: list[bool] = []
    seen: list[int] = []
    old.on_lead(told.append)
    old.watch(lambda snapshot: seen.append(snapshot.version))
    old.write(0, snapshot(1))
    relay.mute = True
    leads(new).write(1, snapshot(2))
    eventually(lambda: told == [True, False], "it knows that its time is over")
    relay.mute = False
    eventually(lambda: seen[-1] == 2, "it follows")
    eventually(lambda: old.leader == "new:2", "it knows who leads")
    with pytest.raises(StateNotLeaderError):
        old.write(2, snapshot(3))
    relay.close()


def test_a_member_dies(cluster_of_three: EtcdCluster, opener: Opener) -> None:
    """Each of the three members in turn is killed or paused, including the member in use."""
    state = leads(opener(cluster_of_three.endpoints, lease_seconds=10, timeout=10))
    follower = opener(cluster_of_three.endpoints[::-1], lease_seconds=10, timeout=10)
    seen: list[int] = []
    follower.watch(lambda snapshot: seen.append(snapshot.version))
    version = 0

    def more() -> None:
        nonlocal version
        for _ in range(5):
            eventually(lambda: state.leading or follower.leading, "one leads")
            leader = state if state.leading else follower
            leader.write(version, snapshot(version + 1))
            version += 1
        assert state.read() == follower.read() == snapshot(version)
        eventually(lambda: seen[-1] == version, "changes are announced")

    more()
    for member in cluster_of_three.members:
        member.kill()
        more()
        member.start()
        cluster_of_three.wait()  # without two of the members nothing works
        more()
    for member in cluster_of_three.members:
        member.pause()
        more()
        member.resume()
        cluster_of_three.wait()
        more()


def test_etcd_restarts(cluster: EtcdCluster, opener: Opener) -> None:
    state = leads(opener(cluster.endpoints, timeout=1))
    state.write(0, snapshot(1))
    cluster.members[0].kill()
    with pytest.raises(StateUnavailableError, match=cluster.endpoints[0]):
        state.read()
    with pytest.raises(StateUnavailableError, match=cluster.endpoints[0]):
        opener(cluster.endpoints, timeout=0.5)
    eventually(lambda: not state.leading, "its lease is over")
    cluster.members[0].start()
    cluster.wait()
    assert leads(state).read() == snapshot(1)
    state.write(1, snapshot(2))


def test_invalid_endpoints(opener: Opener) -> None:
    for wrong in ("host", "host:0", "host:65536", "http://host:1", "::1:2379", "[::g]:1", "a b:1"):
        with pytest.raises(StateError, match="is not an etcd endpoint"):
            opener([wrong])
    with pytest.raises(StateError, match="no etcd endpoint"):
        opener([])
    port = free_ports(1)[0]
    with pytest.raises(StateUnavailableError, match=f"127.0.0.1:{port}"):
        opener([f"127.0.0.1:{port}"], timeout=0.3)


def test_tls_on_both_sides(tmp_path: Path, opener: Opener) -> None:
    authority = CertificateAuthority.create("test")
    server = authority.issue("syndicate", "etcd", ["127.0.0.1"])
    client = authority.issue("syndicate", "synd")
    save_identity(server, tmp_path / "crt", tmp_path / "key", tmp_path / "ca")
    flags = [f"--cert-file={tmp_path}/crt", f"--key-file={tmp_path}/key"]
    flags += ["--client-cert-auth", f"--trusted-ca-file={tmp_path}/ca"]
    with EtcdCluster(tmp_path, 1, *flags) as cluster:
        credentials = channel_credentials(authority.certificate, client)
        known = EtcdClient(cluster.endpoints, credentials)
        eventually(lambda: answers(known), "etcd answers")
        known.close()
        state = leads(opener(cluster.endpoints, credentials=credentials))
        state.write(0, snapshot(1))
        assert state.read() == snapshot(1)
        stranger = CertificateAuthority.create("stranger")
        for wrong in (
            None,
            channel_credentials(authority.certificate),
            channel_credentials(stranger.certificate, client),
            channel_credentials(authority.certificate, stranger.issue("syndicate", "synd")),
        ):
            with pytest.raises(StateUnavailableError, match="no answer from etcd"):
                opener(cluster.endpoints, credentials=wrong, timeout=0.5)


# ---- leaders that die ------------------------------------------------------------


class Incrementer:
    """A process of incrementer.py, and its output."""

    def __init__(self, name: str, endpoints: list[str], directory: Path) -> None:
        self.log = directory / f"{name}.{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.synd.state.incrementer", name, *endpoints],
                cwd=Path(__file__).parents[3],
                stdout=log,
            )

    def said(self) -> list[tuple[str, int]]:
        """The complete lines; the last line may be cut off."""
        lines = self.log.read_text().split("\n")[:-1]
        return [(what, int(version)) for what, version in (line.split() for line in lines)]

    def newest(self) -> int:
        return max((version for what, version in self.said() if what == "done"), default=0)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def outcomes(said: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The outcome of each try; `doubt` if the process died before it knew."""
    for (what, version), (after, of) in itertools.pairwise([*said, ("try", 0)]):
        if what == "try":
            yield ("doubt", version) if after == "try" else (after, of)


def history(cluster: EtcdCluster) -> list[int]:
    """Every version that ever existed, in order."""
    client = EtcdClient(cluster.endpoints)
    key = PREFIX.replace(b"one", b"sum") + b"current/ring"
    last = client.range(key).kvs[0].mod_revision
    versions: list[int] = []
    with client.watch(key, b"", 1) as responses:
        for response in responses:
            for event in response.events:
                versions.append(json.loads(event.kv.value)["version"])
                if event.kv.mod_revision == last:
                    client.close()
                    return versions
    raise AssertionError("the watch has ended")


def test_the_leader_dies_again_and_again(
    cluster_of_three: EtcdCluster, tmp_path: Path, opener: Opener
) -> None:
    """No acknowledged change is lost, made twice or left half done.

    Leaders are killed, or stopped for longer than their lease and continued.  Members of etcd are
    killed too.
    """
    cluster = cluster_of_three
    chance = random.Random(7)
    names = [f"synd{n}:1" for n in range(3)]
    running = {name: Incrementer(name, cluster.endpoints, tmp_path) for name in names}
    everyone = list(running.values())

    def newest() -> int:
        return max(one.newest() for one in everyone)

    try:
        for turn in range(ROUNDS):
            before = newest()
            eventually(lambda before=before: newest() >= before + 5, "versions are made")  # type: ignore[misc]
            time.sleep(chance.random() * 0.05)  # a random moment of a change
            leader = max(running, key=lambda name: running[name].newest())
            process = running[leader].process
            if turn % 4 == 3:
                process.send_signal(signal.SIGSTOP)
                stopped = newest()
                eventually(lambda stopped=stopped: newest() > stopped + 5, "another leads")  # type: ignore[misc]
                process.send_signal(signal.SIGCONT)
            else:
                running[leader].end()
                running[leader] = Incrementer(leader, cluster.endpoints, tmp_path)
                everyone.append(running[leader])
            if turn % 5 == 4:
                member = chance.choice(cluster.members)
                member.kill()
                member.start()
    finally:
        for one in everyone:
            one.end()

    tries = [outcome for one in everyone for outcome in outcomes(one.said())]
    done = Counter(version for what, version in tries if what == "done")
    doubt = {version for what, version in tries if what == "doubt"}
    state = EtcdState(cluster.endpoints, "sum", "reader:1")
    last = state.read()
    state.close()
    assert history(cluster) == list(range(1, last.version + 1))
    assert int(conf_of(last)) == last.version
    assert set(done.values()) == {1}
    assert set(done) <= set(range(1, last.version + 1))
    assert set(range(1, last.version + 1)) <= set(done) | doubt
    assert len(keys(cluster, b"/oort/sum/chunks/")) == 1
