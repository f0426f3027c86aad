"""A syndicate for the tests of nodes in a ring, and nodes that can join it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.membership.syndicate import RingNode, Synd


@pytest.fixture(scope="module")
def synd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synd]:
    """A synd for all tests of this folder.  Each test adds its own nodes and removes them."""
    made = Synd(tmp_path_factory.mktemp("synd"))
    yield made.start()
    made.end()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., RingNode]]:
    """make(env): a node that has not been started."""
    made: list[RingNode] = []

    def one(env: dict[str, str] | None = None, *flags: str) -> RingNode:
        made.append(RingNode(tmp_path / f"node{len(made)}", *flags, env=env))
        return made[-1]

    yield one
    for node in made:
        node.end()


@pytest.fixture
def node(synd: Synd, make: Callable[..., RingNode]) -> Iterator[RingNode]:
    """A node that can join.  Afterwards the ring is empty again."""
    if synd.process is None or synd.process.poll() is not None:
        synd.start()
    yield make(
        {
            "OORT_SYNDICATE_OVERRIDE": synd.server,
            "OORT_SYNDICATE_FINGERPRINT": synd.fingerprint,
            "OORT_JOIN_TOKEN": synd.token(),
        }
    )
    if synd.process.poll() is not None:
        synd.start()
    synd.set_config("")
    left = synd.nodes()
    if left:
        synd.client("rm", *(one["id"] for one in left))
