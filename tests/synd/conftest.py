"""Fixtures: a synd that the tests of a module share, and synds of their own for other tests."""

from __future__ import annotations

import pytest

from oort.syndicate.syndicate_pb2 import Conf, EmptyMsg, Node
from tests.synd.real_synd import RealSynd


@pytest.fixture(scope="module")
def shared_synd(tmp_path_factory):
    made = RealSynd(tmp_path_factory.mktemp("synd"), SHARED_RINGS).start()
    yield made
    made.end()


SHARED_RINGS = (
    "[oort]\nListenAddress = 127.0.0.1\nPort = 0\nNetFilter = 127.0.0.0/8, 10.1.0.0/16, fd00::/8\n"
    "TierFilter = 'server\\d+', 'zone-[a-c]'\nMoveWait = 0\nCapacity = 7\n"
    "[other]\nListenAddress = 127.0.0.1\nPort = 0\nNetFilter = 0.0.0.0/0\n"
)


@pytest.fixture
def synd(shared_synd):
    """The shared synd, without nodes and without a configuration."""
    for ring in ("oort", "other"):
        with shared_synd.calls(ring=ring) as calls:
            for node in calls.SearchNodes(Node()).nodes:
                calls.RemoveNode(Node(id=node.id))
            if calls.GetGlobalConfig(EmptyMsg()).conf.conf:
                calls.SetConf(Conf())
    return shared_synd


@pytest.fixture
def make_synd(tmp_path):
    made = []

    def make(*arguments, **more):
        made.append(RealSynd(tmp_path / f"synd{len(made)}", *arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.end()
