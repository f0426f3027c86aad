"""A draft of the next ring: a builder, with an index of its nodes by id and by address.

All changes of nodes go through the draft.  The index keeps thousands of changes in one batch fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from oort.errors import RequestError
from oort.ring.builder import Builder
from oort.ring.ring import Node

Result = TypeVar("Result")
_PORT = re.compile(r":[0-9]{1,5}\Z")


class Unchanged(Generic[Result]):
    """The result of a change that did not change the draft."""

    def __init__(self, result: Result) -> None:
        self.result = result


class Index:
    """Nodes by id and by the host of each address; ports are ignored."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._by_id: dict[int, Node] = {}
        self._by_host: dict[str, dict[int, None]] = {}
        for node in nodes:
            self.put(node)

    def put(self, node: Node) -> None:
        self.drop(node.id)
        self._by_id[node.id] = node
        for address in node.addresses:
            self._by_host.setdefault(host_of(address), {})[node.id] = None

    def drop(self, node_id: int) -> None:
        node = self._by_id.pop(node_id, None)
        if node is not None:
            for address in node.addresses:
                self._by_host.get(host_of(address), {}).pop(node_id, None)

    def find(self, node_id: int) -> Node | None:
        return self._by_id.get(node_id)

    def node(self, node_id: int) -> Node:
        node = self._by_id.get(node_id)
        if node is None:
            raise RequestError(f"there is no node {node_id} in the ring", "NOT_FOUND")
        return node

    def sharing(self, addresses: Iterable[str]) -> list[Node]:
        """The nodes that have one of these addresses, with any port."""
        found = {
            node_id: None
            for address in addresses
            for node_id in self._by_host.get(host_of(address), ())
        }
        return [self._by_id[node_id] for node_id in found]


class Draft:
    """A builder whose nodes are changed through this class.

    `builder` may be used directly for everything except nodes.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._index = Index(builder.nodes)

    def node(self, node_id: int) -> Node:
        """The node with this id; RequestError if there is none."""
        return self._index.node(node_id)

    def sharing(self, addresses: Iterable[str]) -> list[Node]:
        return self._index.sharing(addresses)

    def add(self, node_id: int | None = None, **fields: Any) -> Node:
        if node_id is not None and self._index.find(node_id) is not None:
            raise RequestError(f"node {node_id} already exists", "ALREADY_EXISTS")
        node = self.builder.add(node_id=node_id, **fields)
        self._index.put(node)
        return node

    def change(self, node_id: int, **fields: Any) -> Node:
        self.node(node_id)
        node = self.builder.change(node_id, **fields)
        self._index.put(node)
        return node

    def remove(self, node_id: int) -> None:
        self.node(node_id)
        self.builder.remove(node_id)
        self._index.drop(node_id)


def host_of(address: str) -> str:
    """The host in host:port, [host]:port or an address without a port."""
    if address.count(":") > 1 and not address.startswith("["):
        return address  # IPv6 without a port
    return _PORT.sub("", address).strip("[]")
