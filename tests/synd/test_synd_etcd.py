"""Tests of several synds on a real etcd: one leads, all answer, and the leader may die any time."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack

import grpc
import pytest

from oort.syndicate.authority_pb2 import SignRequest, TokenRequest
from oort.syndicate.syndicate_pb2 import Conf, EmptyMsg, Node, RegisterRequest, SubscriberID
from oort.tls import certificates, tokens
from tests.conftest import until
from tests.synd.real_synd import refused
from tests.synd.state.etcd_server import EtcdCluster

pytestmark = pytest.mark.system

NOTHING = EmptyMsg()
SYNDS = 3
KILLS = 4
PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


@pytest.fixture
def etcd(tmp_path):
    with EtcdCluster(tmp_path, 1) as cluster:
        yield cluster.wait().members[0]


@pytest.fixture
def synds(make_synd, etcd):
    made = [make_synd(shared=f"State = etcd://{etcd.endpoint}\n") for _ in range(SYNDS)]
    for synd in made:
        synd.start()
    # All synds have the same authority, but only the first wrote the files that tests read.
    assert len({synd.ca.read_bytes() for synd in made}) == 1
    leader(made)
    return made


def leads(synd):
    said = [line for line in synd.log().splitlines() if line.endswith("leading")]
    return synd.process.poll() is None and bool(said) and said[-1].endswith("oort: leading")


def leader(synds):
    until(lambda: sum(map(leads, synds)) == 1)
    return next(synd for synd in synds if leads(synd))


def retried(call, request):
    """Repeat a call until it is answered; ALREADY_EXISTS means that an earlier answer was lost."""
    while True:
        try:
            return call(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return None
            if error.code().name not in PASSING:
                raise
            time.sleep(0.05)


def test_every_synd_takes_every_call(synds):
    with ExitStack() as undo:
        calls = [undo.enter_context(synd.calls()) for synd in synds]
        streams = [one.GetRingStream(SubscriberID(id="test")) for one in calls]
        for number, one in enumerate(calls, 1):
            version = retried(one.AddNode, Node(id=number, active=True, capacity=1)).version
            for other in calls:
                until(lambda it=other, least=version: it.GetVersion(NOTHING).version >= least)
                assert len(other.SearchNodes(Node()).nodes) == number
        for stream in streams:
            while next(stream).version < version:
                pass
        for number, one in enumerate(calls):
            conf, restart = b"%d" % number, number % 2 == 0
            one.SetConf(Conf(conf=conf, restartRequired=restart))
            wanted = Conf(conf=conf, restartRequired=restart)
            for other in calls:
                until(lambda it=other, conf=wanted: it.GetGlobalConfig(NOTHING).conf == conf)
        error = refused(calls[0].RemoveNode, Node(id=99))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert refused(calls[1].RemoveNode, Node(id=99)).code() is grpc.StatusCode.NOT_FOUND
        assert refused(calls[2].RemoveNode, Node(id=99)).code() is grpc.StatusCode.NOT_FOUND
        host = RegisterRequest(hostname="a", addrs=["127.0.0.1/8"])
        assert len({one.RegisterNode(host).localid for one in calls}) == 1
        # A token of one synd is used at another, and counted by all.
        made = tokens.read_token(calls[0].CreateToken(TokenRequest(role="node", uses=2)).token)
        identity = made.identity(synds[0].ca.read_bytes())
        outcomes = []
        for synd in synds:
            with synd.calls(identity) as own:
                try:
                    own.Sign(
                        SignRequest(
                            request=certificates.certificate_request(certificates.make_key(), ["a"])
                        )
                    )
                    outcomes.append("signed")
                except grpc.RpcError as error:
                    outcomes.append(error.code().name)
        assert outcomes == ["signed", "signed", "PERMISSION_DENIED"]


def test_leaders_killed_under_a_load_of_changes(synds):
    """No acknowledged change is lost or made twice, and known hosts are always answered."""
    over = threading.Event()
    acknowledged: list[set[str]] = [set() for _ in synds]
    failures: list[BaseException] = []
    host = RegisterRequest(hostname="known", addrs=["127.0.0.1/8"])
    with synds[0].calls() as calls:
        known = retried(calls.RegisterNode, host).localid

    def write(number):
        try:
            count = 0
            while not over.is_set():
                count += 1
                # The calls go to the synds in turn; lost answers are tried at another synd.
                synd = synds[(number + count) % SYNDS]
                if synd.process.poll() is not None:
                    continue
                name = f"w{number}-{count}"
                address = f"127.{number + 1}.{count >> 8}.{count & 255}/8"
                with synd.calls() as calls:
                    try:
                        if count % 2:
                            calls.AddNode(
                                Node(id=(number + 1) * 10**6 + count, active=True, meta=name),
                                timeout=10,
                            )
                        else:
                            calls.RegisterNode(
                                RegisterRequest(hostname=name, addrs=[address]), timeout=10
                            )
                        acknowledged[number].add(name)
                    except grpc.RpcError as error:
                        if error.code().name not in PASSING:
                            raise
                        time.sleep(0.05)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(SYNDS)]
    for writer in writers:
        writer.start()
    source = random.Random(3)
    try:
        for _ in range(KILLS):
            time.sleep(source.uniform(0.5, 2))
            killed = leader(synds)
            killed.kill()
            for synd in synds:
                if synd is not killed:
                    with synd.calls() as calls:  # no synd leads for some seconds
                        assert calls.RegisterNode(host).localid == known
                        assert calls.GetRing(NOTHING).version
            leader(synds)
            killed.start()
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert not failures, failures
    leader(synds)
    with synds[0].calls() as calls:
        version = retried(calls.SetCapacity, Node(id=known, capacity=3)).version
    for synd in synds:
        with synd.calls() as calls:
            until(lambda calls=calls: calls.GetVersion(NOTHING).version == version)
            names = [node.meta for node in calls.SearchNodes(Node()).nodes]
        assert len(names) == len(set(names))
        assert set().union(*acknowledged) <= set(names)
    assert all(acknowledged)


def test_etcd_is_unavailable_for_a_while(synds, etcd):
    with synds[0].calls() as calls:
        retried(calls.AddNode, Node(id=1, active=True))
        etcd.kill()
        assert refused(calls.AddNode, Node(id=2)).code() is grpc.StatusCode.UNAVAILABLE
        assert len(files_of(calls)) == 1
        etcd.start()
        retried(calls.AddNode, Node(id=3, active=True))
        until(lambda: 3 in files_of(calls))  # its watch may take a moment to resume


def files_of(calls):
    return [node.id for node in calls.SearchNodes(Node()).nodes]
