"""Kills synd at any moment under a load of changes: every acknowledged change exists once."""

from __future__ import annotations

import random
import threading
import time

import grpc
import pytest

from oort.ring import files
from oort.syndicate.syndicate_pb2 import EmptyMsg, Node, RegisterRequest
from tests.synd.real_synd import RealSynd

pytestmark = pytest.mark.system  # because it is slow

KILLS = 6
WRITERS = 4


class Writer(threading.Thread):
    """Adds nodes and registers hosts, each once, and records the acknowledged changes."""

    def __init__(self, number: int, synd: RealSynd) -> None:
        super().__init__()
        self.number = number
        self.synd = synd
        self.over = threading.Event()
        self.acknowledged: dict[str, tuple[int, int]] = {}  # id and version, by name
        self.wrong: list[grpc.RpcError] = []

    def run(self) -> None:
        with self.synd.calls() as calls:
            count = 0
            while not self.over.is_set():
                count += 1
                name = f"w{self.number}-{count}"
                try:
                    if count % 2:
                        node_id = self.number * 1_000_000 + count
                        node = Node(id=node_id, active=True, capacity=1, meta=name)
                        version = calls.AddNode(node, timeout=20).version
                    else:
                        address = f"127.{self.number + 1}.{count >> 8}.{count & 255}/8"
                        reply = calls.RegisterNode(
                            RegisterRequest(hostname=name, addrs=[address]), timeout=20
                        )
                        node_id, version = reply.localid, files.decode_ring(reply.ring).version
                    self.acknowledged[name] = node_id, version
                except grpc.RpcError as error:
                    if error.code().name not in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"):
                        self.wrong.append(error)
                    time.sleep(0.02)


def test_killed_at_any_moment(make_synd):
    synd = make_synd().start()
    writers = [Writer(number, synd) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    source = random.Random(5)
    try:
        for _ in range(KILLS):
            time.sleep(source.uniform(0.2, 1.2))
            synd.kill()
            synd.start()
    finally:
        for writer in writers:
            writer.over.set()
        for writer in writers:
            writer.join()
    assert not any(writer.wrong for writer in writers)
    synd.kill()
    synd.start()
    with synd.calls() as calls:
        nodes = calls.SearchNodes(Node()).nodes
        newest = calls.GetVersion(EmptyMsg()).version
    ids = {node.meta: node.id for node in nodes}
    assert len(ids) == len(nodes)  # no node exists twice
    for writer in writers:
        assert writer.acknowledged
        for name, (node_id, version) in writer.acknowledged.items():
            assert ids[name] == node_id
            assert version <= newest
