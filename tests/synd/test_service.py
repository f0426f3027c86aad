"""Tests of the service Syndicate of a real synd: changes, queries, registrations, and refusals."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from oort.ring import files
from oort.synd.calls import RINGS_AT_ONCE
from oort.synd.subscribers import STALLED_SECONDS
from oort.syndicate.syndicate_pb2 import (
    Conf,
    EmptyMsg,
    HardwareProfile,
    ModifyMsg,
    Node,
    RegisterRequest,
    RingOpts,
    SubscriberID,
)
from tests.synd.real_synd import refused

NOTHING = EmptyMsg()
REGISTRATIONS = 2000


@pytest.fixture
def calls(synd):
    with synd.calls() as calls:
        yield calls


@pytest.fixture(scope="module")
def node_identity(shared_synd):
    return shared_synd.member("node", "node.example.com")


def host(name, *addresses, tiers=(), **more):
    return RegisterRequest(hostname=name, addrs=addresses, tiers=tiers, **more)


def only(calls, **what):
    (node,) = calls.SearchNodes(Node(**what)).nodes
    return node


# ---- changes ---------------------------------------------------------------------


def test_every_change_makes_a_version_for_all_callers(synd, calls):
    def changed(call, request):
        before = calls.GetVersion(NOTHING).version
        status = call(request)
        assert status.status
        assert status.version > before
        assert calls.GetVersion(NOTHING).version == status.version
        ring = calls.GetRing(NOTHING)
        assert ring.version == status.version
        return files.decode_ring(ring.ring)

    def at(ring):
        return ring.node(7)

    ring = changed(
        calls.AddNode,
        Node(id=7, active=True, capacity=5, tiers=["a"], addresses=["h:1"], meta="m", conf=b"c"),
    )
    assert (at(ring).capacity, at(ring).tiers, at(ring).addresses) == (5, ("a",), ("h:1",))
    assert (at(ring).meta, at(ring).conf, at(ring).active) == ("m", b"c", True)
    assert not at(changed(calls.SetActive, Node(id=7))).active
    assert at(changed(calls.SetActive, Node(id=7, active=True))).active
    assert at(changed(calls.SetCapacity, Node(id=7, capacity=9))).capacity == 9
    ring = changed(calls.ReplaceAddresses, Node(id=7, addresses=["x:1", "y:2"]))
    assert at(ring).addresses == ("x:1", "y:2")
    assert at(changed(calls.ReplaceTiers, Node(id=7, tiers=["s", "z"]))).tiers == ("s", "z")
    for key, value, field, is_now in (
        ("meta", "new", "meta", "new"),
        ("conf", "text", "conf", b"text"),
        ("capacity", "11", "capacity", 11),
        ("active", "false", "active", False),
        ("tier1", "zz", "tiers", ("s", "zz")),
        ("tier1", "", "tiers", ("s",)),
        ("address2", "z:3", "addresses", ("x:1", "y:2", "z:3")),
    ):
        ring = changed(calls.ModNode, ModifyMsg(id=7, key=key, value=value))
        assert getattr(at(ring), field) == is_now
    assert changed(calls.SetReplicas, RingOpts(replicas=2)).replica_count == 2
    assert changed(calls.SetConf, Conf(conf=b"all")).conf == b"all"
    assert at(changed(calls.RemoveNode, Node(id=7))) is None
    changed(calls.SetReplicas, RingOpts(replicas=3))


def test_a_change_of_nothing_makes_no_version(calls):
    calls.AddNode(Node(id=7, active=True, capacity=5, addresses=["127.0.0.1:8001"], meta="m"))
    version = calls.GetVersion(NOTHING).version
    for call, request in (
        (calls.SetActive, Node(id=7, active=True)),
        (calls.SetCapacity, Node(id=7, capacity=5)),
        (calls.ReplaceAddresses, Node(id=7, addresses=["127.0.0.1:8001"])),
        (calls.ModNode, ModifyMsg(id=7, key="meta", value="m")),
        (calls.SetReplicas, RingOpts(replicas=3)),
    ):
        assert call(request).version == version


def test_a_configuration_says_whether_it_needs_a_restart(synd, calls):
    def held():
        conf = calls.GetGlobalConfig(NOTHING).conf
        return conf.conf, conf.restartRequired

    calls.SetConf(Conf(conf=b"a = 1", restartRequired=True))
    assert held() == (b"a = 1", True)
    calls.SetConf(Conf(conf=b"a = 2"))
    assert held() == (b"a = 2", False)
    calls.SetConf(Conf(conf=b"a = 2", restartRequired=True))
    assert held() == (b"a = 2", True)
    synd.kill()
    synd.start()
    with synd.calls() as again:
        assert again.GetGlobalConfig(NOTHING).conf.restartRequired


def test_searches_are_exact(calls):
    calls.AddNode(Node(id=1, active=True, tiers=["s1", "z"], addresses=["a:1"], meta="web.1"))
    calls.AddNode(
        Node(id=2, active=True, tiers=["s2", "z"], addresses=["b:1", "c:1"], meta="web11")
    )

    def found(**what):
        return [node.id for node in calls.SearchNodes(Node(**what)).nodes]

    assert found() == [1, 2]
    assert found(id=2) == [2]
    assert found(meta="web.1") == [1]
    assert found(meta="web.*") == []
    assert found(tiers=["z"]) == [1, 2]
    assert found(tiers=["z", "s2"]) == [2]
    assert found(addresses=["c:1"]) == [2]
    assert found(meta="web.1", addresses=["c:1"]) == []


def test_by_syndicate_client(synd, calls, capsys, tmp_path):
    def said(*arguments):
        assert synd.tool("--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)

    said("add", "capacity=3", "tier0=server1", "address0=127.0.0.1:8001", "meta=web1")
    (tmp_path / "conf").write_bytes(b"LogLevel = info\n")
    said("set", f"config={tmp_path / 'conf'}", "restart=true")
    said("set", "web1", f"config={tmp_path / 'conf'}")
    said("capacity", "web1", "4")
    said("active", "web1", "false")
    said("addresses", "web1", "127.0.0.1:8002")
    said("tiers", "web1", "server2", "zone-a")
    (node,) = said("search", "meta=web1")
    assert (node["capacity"], node["active"]) == (4, False)
    assert (node["addresses"], node["tiers"]) == (["127.0.0.1:8002"], ["server2", "zone-a"])
    assert said("config") == {
        **said("version"),
        "restart_required": True,
        "conf": "LogLevel = info\n",
    }
    assert said("config", "web1")["conf"] == "LogLevel = info\n"
    assert said("watch", "--count", "1")["nodes"] == 1
    said("ring", str(tmp_path / "ring"))
    assert len(files.decode_ring((tmp_path / "ring").read_bytes()).nodes) == 1
    said("rm", "web1")
    assert synd.tool("rm", "web1") == 1


def test_rings_are_independent(synd, calls):
    with synd.calls(ring="other") as other:
        other.RegisterNode(host("only-there", "10.9.9.9/8"))
        version = other.GetVersion(NOTHING).version
        calls.AddNode(Node(id=5, active=True, capacity=1))
        assert [node.meta for node in other.SearchNodes(Node()).nodes] == ["only-there"]
        assert other.GetVersion(NOTHING).version == version
        assert [node.id for node in calls.SearchNodes(Node()).nodes] == [5]


# ---- registrations ---------------------------------------------------------------


def test_a_host_gets_its_id_back(synd, calls, node_identity):
    request = host("web1", "10.1.0.5/16", "10.1.0.6/16", "192.168.3.4/24", "127.0.0.1/8", "::1/128",
                   "fe80::1%eth0/64", "fd00::5/64", tiers=["server1", "zone-a"])  # fmt: skip
    with synd.calls(node_identity) as as_node:
        first = as_node.RegisterNode(request)
        node = only(calls, id=first.localid)
        assert node.active
        assert node.capacity == 7
        assert (node.meta, list(node.tiers)) == ("web1", ["server1", "zone-a"])
        assert list(node.addresses) == [
            "10.1.0.5:8001", "10.1.0.6:8001", "127.0.0.1:8001", "[fd00::5]:8001",
        ]  # fmt: skip
        ring = files.decode_ring(first.ring)
        assert ring.node(first.localid).meta == "web1"

        again = as_node.RegisterNode(request)
        assert again == first

        moved = as_node.RegisterNode(host("web1", "10.1.0.6/16", "10.1.0.7/16", tiers=["server2"]))
        assert moved.localid == first.localid
        node = only(calls, id=first.localid)
        assert list(node.addresses) == ["10.1.0.6:8001", "10.1.0.7:8001"]
        assert list(node.tiers) == ["server2"]

        calls.SetCapacity(Node(id=first.localid, capacity=99))
        calls.SetActive(Node(id=first.localid, active=False))
        as_node.RegisterNode(request)
        node = only(calls, id=first.localid)
        assert (node.capacity, node.active) == (99, False)  # set by the operator


def test_names_are_compared_exactly_and_are_not_patterns(calls):
    first = calls.RegisterNode(host("web.1", "10.1.0.5/16"))
    for name, address in (("web11", "10.1.0.6/16"), ("web.1.example.com", "10.1.0.7/16"),
                          ("WEB.1", "10.1.0.8/16"), ("web.1", "10.1.0.9/16")):  # fmt: skip
        assert calls.RegisterNode(host(name, address)).localid != first.localid
    assert len(calls.SearchNodes(Node()).nodes) == 5
    for name in (
        "web.*",
        "web.1|",
        ".*",
        "(a+)+$",
        "a b",
        "",
        "a\n",
        "web.1\0",
        "a" * 254,
        "é",
        "-a",
    ):
        error = refused(calls.RegisterNode, host(name, "10.1.0.5/16"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "host name" in error.details()
    assert len(calls.SearchNodes(Node()).nodes) == 5


def test_hosts_may_share_an_address_and_are_called_at_their_own(calls):
    """The bridge of every machine has the same address, for example."""
    first = calls.RegisterNode(host("web1", "10.1.255.1/16", "10.1.0.5/16"))
    requests = [host("web2", "10.1.255.1/16", "10.1.0.6/16"), host("web.1", "10.1.255.1/16")]
    others = [calls.RegisterNode(request) for request in requests]
    assert len({first.localid, *(other.localid for other in others)}) == 3
    assert list(only(calls, id=others[0].localid).addresses) == ["10.1.0.6:8001", "10.1.255.1:8001"]
    version = calls.GetVersion(NOTHING).version
    for request, other in zip(requests, others, strict=True):
        assert calls.RegisterNode(request).localid == other.localid
    assert calls.GetVersion(NOTHING).version == version


@pytest.mark.parametrize(
    ("addresses", "tiers", "code"),
    [
        ([], [], "PERMISSION_DENIED"),
        (["10.2.0.1/16"], [], "PERMISSION_DENIED"),
        (["169.254.1.1/16", "fe80::1/64"], [], "PERMISSION_DENIED"),
        (["10.1.0.1/33"], [], "INVALID_ARGUMENT"),
        (["10.1.0.1/x"], [], "INVALID_ARGUMENT"),
        (["10.1.0.256/16"], [], "INVALID_ARGUMENT"),
        (["localhost"], [], "INVALID_ARGUMENT"),
        ([f"10.1.1.{n}/16" for n in range(65)], [], "INVALID_ARGUMENT"),
        (["10.1.0.1/16"], ["server"], "PERMISSION_DENIED"),
        (["10.1.0.1/16"], ["server1", "zone-d"], "PERMISSION_DENIED"),
        (["10.1.0.1/16"], ["xserver1x"], "PERMISSION_DENIED"),
        (["10.1.0.1/16"], ["server1\n"], "PERMISSION_DENIED"),
        (["10.1.0.1/16"], ["server" + "1" * 300], "PERMISSION_DENIED"),
        (["10.1.0.1/16"], ["server1"] * 65, "INVALID_ARGUMENT"),
        (["10.1.0.1/16"] * 30000, [], "INVALID_ARGUMENT"),
    ],
)
def test_filters(calls, addresses, tiers, code):
    version = calls.GetVersion(NOTHING).version
    error = refused(calls.RegisterNode, host("web1", *addresses, tiers=tiers))
    assert error.code().name == code, error.details()
    assert calls.GetVersion(NOTHING).version == version


def test_loopback_is_used_only_if_the_filter_names_it(synd, calls):
    assert calls.RegisterNode(host("here", "127.0.0.1/8")).localid
    with synd.calls(ring="other") as other:  # its filter is 0.0.0.0/0
        error = refused(other.RegisterNode, host("here", "127.0.0.1/8", "::1/128"))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert other.RegisterNode(host("here", "127.0.0.1/8", "10.0.0.1/8")).localid
        assert list(only(other, meta="here").addresses) == ["10.0.0.1:8001"]


def test_capacity_comes_from_the_hardware(synd):
    gib = 1024**3
    disks = [{"device": "/dev/sda", "path": "/", "size": 100 * gib},
             {"device": "/dev/sda", "path": "/home", "size": 100 * gib},
             {"device": "/dev/sdb", "path": "/data", "size": 50 * gib}]  # fmt: skip
    with synd.calls(ring="other") as other:
        for name, address, hardware, capacity in (
            ("disks", "10.0.0.1/8", HardwareProfile(memtotal=64 * gib, disks=disks), 150),
            ("memory", "10.0.0.2/8", HardwareProfile(memtotal=64 * gib), 64),
            ("none", "10.0.0.3/8", HardwareProfile(), 1),
            ("huge", "10.0.0.4/8", HardwareProfile(memtotal=2**64 - 1), 2**34 - 1),
        ):
            other.RegisterNode(host(name, address, hardware=hardware))
            assert only(other, meta=name).capacity == min(capacity, 2**32 - 1)


@pytest.mark.system  # because it is slow
def test_thousands_register_at_once(make_synd):
    """Known hosts and queries are answered meanwhile; a kill afterwards loses no node."""
    synd = make_synd().start()
    node_identity = synd.member("node", "node.example.com")

    def request(number):
        return host(f"host{number}", f"10.1.{number >> 8}.{number & 255}/16")

    with synd.calls() as calls:
        known = calls.RegisterNode(host("known", "10.1.255.1/16")).localid
    over = threading.Event()
    questions = []

    def ask():
        with synd.calls(node_identity) as own:
            while not over.is_set():
                questions.append(own.RegisterNode(host("known", "10.1.255.1/16")).localid)
                own.GetVersion(NOTHING)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with synd.calls(node_identity) as own:
            register = own.channel.unary_unary(
                "/proto.Syndicate/RegisterNode",
                request_serializer=RegisterRequest.SerializeToString,
                response_deserializer=len,  # the rings are large at that point
            )
            futures = [register.future(request(n), timeout=120) for n in range(REGISTRATIONS)]
            assert all(one.result() > 100 for one in futures)
    finally:
        over.set()
        asking.join()
    assert questions
    assert set(questions) == {known}
    synd.kill()
    synd.start()
    with synd.calls() as calls:
        names = [node.meta for node in calls.SearchNodes(Node()).nodes]
    assert sorted(names) == sorted(["known", *(f"host{n}" for n in range(REGISTRATIONS))])


# ---- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_message", "code"),
    [
        ("RemoveNode", Node(id=99), "NOT_FOUND"),
        ("SetActive", Node(id=99), "NOT_FOUND"),
        ("SetCapacity", Node(id=99), "NOT_FOUND"),
        ("ReplaceTiers", Node(id=99), "NOT_FOUND"),
        ("ReplaceAddresses", Node(id=99), "NOT_FOUND"),
        ("ModNode", ModifyMsg(id=99, key="meta", value="x"), "NOT_FOUND"),
        ("GetNodeConfig", Node(id=99), "NOT_FOUND"),
        ("GetNodeSoftwareVersion", Node(id=99), "NOT_FOUND"),
        ("AddNode", Node(id=1), "ALREADY_EXISTS"),
        ("AddNode", Node(id=2, tiers=["t"] * 65), "INVALID_ARGUMENT"),
        ("AddNode", Node(id=2, addresses=["a"] * 65), "INVALID_ARGUMENT"),
        ("AddNode", Node(id=2, meta="m" * (1 << 21)), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="id", value="2"), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="active", value="perhaps"), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="capacity", value="-1"), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="capacity", value="4294967296"), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="tier64", value="x"), "INVALID_ARGUMENT"),
        ("ModNode", ModifyMsg(id=1, key="tier.*", value="x"), "INVALID_ARGUMENT"),
        ("SetReplicas", RingOpts(replicas=0), "INVALID_ARGUMENT"),
        ("SetReplicas", RingOpts(replicas=-1), "INVALID_ARGUMENT"),
        ("SetReplicas", RingOpts(replicas=128), "INVALID_ARGUMENT"),
        ("SetConf", Conf(conf=b"x" * ((16 << 20) + 1)), "INVALID_ARGUMENT"),
        ("SetConf", Conf(conf=b"x" * (18 << 20)), "RESOURCE_EXHAUSTED"),
        ("GetNodeSoftwareVersion", Node(id=1), "UNAVAILABLE"),
    ],
)
def test_an_invalid_change_changes_nothing(calls, method, request_message, code):
    calls.AddNode(Node(id=1, active=True, capacity=1))
    before = calls.GetRing(NOTHING)
    error = refused(getattr(calls, method), request_message)
    assert error.code().name == code, error.details()
    assert error.details()
    assert "\n" not in error.details()
    assert calls.GetRing(NOTHING) == before


def test_a_bad_change_does_not_stop_the_others(calls):
    calls.AddNode(Node(id=1, active=True, capacity=1))
    requests = [Node(id=n % 40, active=True, capacity=1, tiers=["t"] * (70 * (n % 3 == 0)))
                for n in range(2, 400)]  # fmt: skip
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(lambda r: _code(calls.AddNode, r), requests))
    assert set(made) == {"OK", "ALREADY_EXISTS", "INVALID_ARGUMENT"}
    # Each id exists once, however many calls asked for it; 0 asks for a random id.
    wanted = {r.id for r in requests if not r.tiers} - {0, 1}
    ids = [node.id for node in calls.SearchNodes(Node()).nodes]
    assert wanted <= set(ids)
    assert len(ids) == 1 + made.count("OK")


def _code(call, request):
    try:
        call(request)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"\x08", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff"]
)
@pytest.mark.parametrize("method", ["AddNode", "RegisterNode", "SetConf", "GetRingStream"])
def test_garbage_instead_of_a_message(calls, method, garbage):
    kind = "unary_stream" if method == "GetRingStream" else "unary_unary"
    call = getattr(calls.channel, kind)(f"/proto.Syndicate/{method}")
    error = refused(lambda: list(_replies(call(garbage, timeout=60))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert calls.GetVersion(NOTHING).status


def _replies(answer):
    return [answer] if isinstance(answer, bytes) else answer


def test_unknown_methods(calls):
    error = refused(calls.channel.unary_unary("/proto.Syndicate/Nothing"), b"", timeout=60)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_gzip_bomb_is_not_decompressed(synd, calls):
    def memory():
        with open(f"/proc/{synd.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

    before = memory()
    bomb = Conf(conf=bytes(200 << 20))
    error = refused(calls.SetConf, bomb, compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert memory() - before < 64 << 10  # KiB
    assert calls.GetGlobalConfig(NOTHING).conf.conf == b""


def test_a_node_may_not_change_the_ring(synd, calls, node_identity):
    calls.AddNode(Node(id=1, active=True, capacity=1))
    with synd.calls(node_identity) as own:
        for call, request in (
            (own.AddNode, Node(id=2)),
            (own.RemoveNode, Node(id=1)),
            (own.ModNode, ModifyMsg(id=1, key="meta", value="x")),
            (own.SetConf, Conf(conf=b"x")),
            (own.SetReplicas, RingOpts(replicas=1)),
            (own.SetActive, Node(id=1)),
            (own.SetCapacity, Node(id=1)),
            (own.ReplaceAddresses, Node(id=1)),
            (own.ReplaceTiers, Node(id=1)),
            (own.GetNodeSoftwareVersion, Node(id=1)),
        ):
            assert refused(call, request).code() is grpc.StatusCode.PERMISSION_DENIED
        for call in (own.GetVersion, own.GetRing, own.GetGlobalConfig):
            assert call(NOTHING)
        assert own.GetNodeConfig(Node(id=1)).status.status
        assert next(iter(own.GetRingStream(SubscriberID(id="n")))).version


# ---- subscribers -------------------------------------------------------------------


def test_all_subscribers_get_the_newest_ring(synd, calls):
    """There are more subscribers than a pool would have threads, and one never reads."""
    with synd.calls() as others:
        streams = [others.GetRingStream(SubscriberID(id=str(n)), timeout=120) for n in range(300)]
        silent = calls.GetRingStream(SubscriberID(id="silent"), timeout=120)
        for stream in streams:
            next(stream)
        for n in range(1, 4):
            version = calls.AddNode(Node(id=n, active=True, capacity=1)).version
        for stream in streams:
            versions = []
            while not versions or versions[-1] < version:
                versions.append(next(stream).version)
            assert versions == sorted(set(versions))
        for stream in [*streams, silent]:
            stream.cancel()
    assert calls.GetVersion(NOTHING).version == version


def test_stalled_subscribers_do_not_delay_others(synd, calls):
    """Subscribers in an unreachable network stall; the ring is larger than any buffer."""
    calls.SetConf(Conf(conf=os.urandom(1 << 20)))
    small_window = {"http2.bdp_probe": 0, "http2.lookahead_bytes": 65536}
    with synd.calls(**small_window) as others:
        stalled = [
            others.GetRingStream(SubscriberID(id=str(n)), timeout=120) for n in range(RINGS_AT_ONCE)
        ]
        for stream in stalled:
            stream.initial_metadata()  # synd is sending now
        assert calls.GetRing(NOTHING, timeout=STALLED_SECONDS / 2).version
        assert calls.RegisterNode(host("a", "10.1.1.1/8"), timeout=STALLED_SECONDS / 2).localid
        for stream in stalled:
            stream.cancel()
    calls.SetConf(Conf())
