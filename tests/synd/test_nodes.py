"""Tests of synd and its nodes: rings are pushed to CmdCtrl, and unreachable nodes delay nothing.

The nodes are real CmdCtrl servers under the syndicate's authority, each at an address of its own.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack

import grpc
import pytest

from oort.cmdctrl.node import Outcome
from oort.cmdctrl.service import ControlServer
from oort.syndicate.syndicate_pb2 import EmptyMsg, Node, NodeUpgrade, RegisterRequest
from oort.tls import certificates, channels
from tests.conftest import until
from tests.synd.real_synd import refused
from tests.synd.state.etcd_server import free_ports

NOTHING = EmptyMsg()


class RingHolder:
    """A node that takes rings and answers with its software version."""

    def __init__(self, synd, address, port):
        self.versions = []
        self.address = address
        self.where = f"{address}:{port}"
        self.identity = synd.member("node", f"node-{address}", address)
        self.server = None

    def start(self):
        credentials = channels.server_credentials(self.identity)
        self.server = ControlServer(self, self.where, credentials, mutual=True)
        self.server.start()
        return self

    def stop(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    def ring_update(self, version, ring):
        assert ring[:2] == b"\x1f\x8b"
        self.versions.append(version)
        return max(self.versions)

    def software_version(self):
        return f"version of {self.address}"

    def self_upgrade(self, version):
        return Outcome(False, f"not to {version}")

    def holds(self, version):
        return bool(self.versions) and max(self.versions) >= version


@pytest.fixture(scope="module")
def port():
    return free_ports(1)[0]


@pytest.fixture
def running(make_synd, port):
    ring = (
        "[oort]\nListenAddress = 127.0.0.1\nPort = 0\nNetFilter = 127.0.0.0/8\n"
        f"CmdCtrlPort = {port}\nMoveWait = 0\n"
    )
    return make_synd(ring).start()


@pytest.fixture
def holder(running, port):
    with ExitStack() as undo:

        def make(number):
            made = RingHolder(running, f"127.0.7.{number}", port)
            undo.callback(made.stop)
            return made

        yield make


@pytest.fixture
def black_hole(port):
    """An address that accepts connections and never sends anything."""
    with socket.create_server(("127.0.8.1", port), backlog=64):
        yield "127.0.8.1"


@pytest.fixture
def full_backlog(port):
    """An address whose packets are dropped, so that no connection is established."""
    with ExitStack() as undo:
        listening = undo.enter_context(socket.create_server(("127.0.8.2", port), backlog=0))
        for _ in range(4):
            one = undo.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield "127.0.8.2"


def add(calls, address, node_id=0):
    node = Node(id=node_id, active=True, capacity=10, addresses=[f"{address}:8001"], meta=address)
    return calls.AddNode(node).version


def test_every_node_gets_every_ring(running, holder):
    first, second, late = (holder(n) for n in (1, 2, 3))
    first.start()
    second.start()
    with running.calls() as calls:
        add(calls, first.address)
        version = add(calls, second.address)
        until(lambda: first.holds(version) and second.holds(version))
        # A node that is not running yet delays nothing, and gets the ring when it starts.
        version = add(calls, late.address)
        until(lambda: first.holds(version) and second.holds(version))
        assert not late.versions
        until(lambda: "did not take the ring" in running.log())
        late.start()
        until(lambda: late.holds(version))
        until(lambda: "has the ring again" in running.log())
        # A node that stops and starts again.
        second.stop()
        version = add(calls, "127.0.7.99")
        until(lambda: first.holds(version) and late.holds(version))
        assert not second.holds(version)
        second.start()
        until(lambda: second.holds(version))


def test_a_registering_node_gets_the_ring_at_once(running, holder):
    node = holder(1)
    with running.calls() as calls:
        request = RegisterRequest(hostname="late", addrs=[f"{node.address}/8"])
        calls.RegisterNode(request)
        until(lambda: "did not take the ring" in running.log())
        node.start()
        calls.RegisterNode(request)
        until(lambda: node.holds(calls.GetVersion(NOTHING).version))


def test_a_node_that_listens_a_moment_later_causes_no_warning(running, holder, port):
    """A node that has just registered does that."""
    node = holder(1)
    with running.calls() as calls:
        with socket.create_server((node.address, port)) as listening:
            listening.settimeout(60)
            calls.RegisterNode(RegisterRequest(hostname="slow", addrs=[f"{node.address}/8"]))
            listening.accept()[0].close()  # the first try
        node.start()
        until(lambda: node.holds(calls.GetVersion(NOTHING).version))
    assert "the ring again" not in running.log()
    assert "did not take the ring" not in running.log()


def test_a_restarted_synd_pushes_its_ring(running, holder):
    node = holder(1)
    with running.calls() as calls:
        version = add(calls, node.address)
    running.kill()
    node.start()
    running.start()
    until(lambda: node.holds(version))


def test_unreachable_nodes_delay_nothing(running, holder, black_hole, full_backlog):
    node = holder(1)
    node.start()
    with running.calls() as calls:
        add(calls, black_hole, 1)
        add(calls, full_backlog, 2)
        for number in range(50):
            add(calls, f"127.0.9.{number}")
        version = add(calls, node.address, 3)
        until(lambda: node.holds(version))
        answered = threading.Event()

        def ask():
            for node_id in (1, 2):
                for call, request in (
                    (calls.GetNodeSoftwareVersion, Node(id=node_id)),
                    (calls.NodeUpgradeSoftwareVersion, NodeUpgrade(id=node_id, version="1")),
                ):
                    error = refused(call, request)
                    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                    assert f"node {node_id} " in error.details()
            answered.set()

        asking = threading.Thread(target=ask)
        asking.start()
        # Other calls are answered meanwhile.
        for capacity in range(1, 20):
            calls.SetCapacity(Node(id=3, capacity=capacity))
            assert calls.GetVersion(NOTHING).status
        asking.join()
        assert answered.is_set()
        assert calls.GetNodeSoftwareVersion(Node(id=3)).version == f"version of {node.address}"
        reply = calls.NodeUpgradeSoftwareVersion(NodeUpgrade(id=3, version="2.0"))
        assert (reply.status, reply.msg) == (False, "not to 2.0")


def test_a_node_of_another_authority_gets_no_ring(running, holder):
    node = holder(1)
    other = certificates.CertificateAuthority.create("another")
    node.identity = other.issue("node", "n", [node.address])
    node.start()
    with running.calls() as calls:
        add(calls, node.address, 1)
        until(lambda: "did not take the ring" in running.log())
        assert refused(calls.GetNodeSoftwareVersion, Node(id=1)).code().name == "UNAVAILABLE"
    assert not node.versions
