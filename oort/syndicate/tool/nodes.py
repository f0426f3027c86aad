"""syndicate-client's commands to one node or to all nodes.

Commands go to each node's CmdCtrl.  The commands `software-version` and `upgrade` go through synd,
except with --direct.  A node that fails or does not answer does not stop the commands to the
others.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from oort.cmdctrl import cmdctrl_pb2 as commands
from oort.cmdctrl.cmdctrl_pb2_grpc import CmdCtrlStub
from oort.errors import CallError, SyndicateToolError, TLSError
from oort.syndicate import connection
from oort.syndicate import syndicate_pb2 as messages
from oort.syndicate.connection import Syndicate
from oort.text_table import plain, table
from oort.tls import certificates
from oort.tls.files import is_there, read

AT_A_TIME = 32


@dataclass(frozen=True)
class Answer:
    good: bool
    text: str
    unreachable: bool = False
    data: dict[str, Any] = field(default_factory=dict)  # further values for JSON


Ask = Callable[[messages.Node], Answer]


def answers(nodes: Sequence[messages.Node], ask: Ask) -> list[Answer]:
    """Ask all nodes, AT_A_TIME at once; the answers are in the order of the nodes."""

    def safely(node: messages.Node) -> Answer:
        try:
            return ask(node)
        except CallError as error:
            return Answer(False, str(error), unreachable=error.unreachable)
        except (SyndicateToolError, TLSError) as error:
            return Answer(False, str(error))

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(safely, nodes))


def target_of(node: messages.Node, port: int) -> str:
    """The address of a node's CmdCtrl: the host of its first address, with the CmdCtrl port."""
    if not node.addresses:
        raise SyndicateToolError(f"node {node.id} has no address")
    host, _ = connection.parse_address(node.addresses[0], f"node {node.id}")
    return connection.address(host, port)


class Nodes:
    """Calls the CmdCtrl of nodes, with the same identity as the syndicate."""

    def __init__(self, syndicate: Syndicate) -> None:
        settings = syndicate.settings
        self._roots = b""
        if settings.use_tls:
            if is_there(settings.ca_file):
                self._roots = read(settings.ca_file)
            elif settings.fingerprint and not certificates.names_of(syndicate.roots):
                self._roots = syndicate.roots
            else:
                raise TLSError(
                    f"{settings.ca_file} does not exist: nodes are verified by the authority's "
                    "certificate, not by the server's: give --ca FILE"
                )
        self._identity = syndicate.identity
        # Nodes are verified by the authority and by name, not by the fingerprint.
        self._settings = dataclasses.replace(settings, fingerprint="")

    def call(self, node: messages.Node, method: str, request: Message | None = None) -> Any:
        """The reply to a command; most commands have no arguments.  Raises CallError."""
        target = target_of(node, self._settings.cmdctrl_port)
        with connection.channel(target, self._settings, self._roots, self._identity) as channel:
            try:
                return getattr(CmdCtrlStub(channel), method)(
                    request or commands.EmptyMsg(), timeout=self._settings.timeout
                )
            except grpc.RpcError as error:
                raise connection.call_error(target, error) from error

    def command(self, method: str) -> Ask:
        """A command without arguments: Reload, Restart, Start, Stop or Exit."""

        def ask(node: messages.Node) -> Answer:
            reply: commands.StatusMsg = self.call(node, method)
            return Answer(reply.status, reply.msg)

        return ask

    def health(self, node: messages.Node) -> Answer:
        reply: commands.HealthCheckMsg = self.call(node, "HealthCheck")
        return Answer(reply.status, reply.msg, data={"time": reply.ts})

    def stats(self, node: messages.Node) -> Answer:
        reply: commands.StatsMsg = self.call(node, "Stats")
        try:
            stats = json.loads(reply.statsjson)
        except ValueError as error:
            raise SyndicateToolError(f"node {node.id} sent statistics that are not JSON") from error
        return Answer(True, json.dumps(stats, indent=2), data={"stats": stats})

    def software_version(self, node: messages.Node) -> Answer:
        reply: commands.SoftwareVersionMsg = self.call(node, "SoftwareVersion")
        return Answer(True, reply.version, data={"version": reply.version})

    def upgrade(self, version: str) -> Ask:
        def ask(node: messages.Node) -> Answer:
            request = commands.SelfUpgradeMsg(version=version)
            reply: commands.StatusMsg = self.call(node, "SelfUpgrade", request)
            return Answer(reply.status, reply.msg)

        return ask


def software_version(syndicate: Syndicate) -> Ask:
    def ask(node: messages.Node) -> Answer:
        reply: messages.NodeSoftwareVersion = syndicate.call(
            syndicate.rings.GetNodeSoftwareVersion, messages.Node(id=node.id)
        )
        return Answer(True, reply.version, data={"version": reply.version})

    return ask


def upgrade(syndicate: Syndicate, version: str) -> Ask:
    def ask(node: messages.Node) -> Answer:
        reply: messages.NodeUpgradeStatus = syndicate.call(
            syndicate.rings.NodeUpgradeSoftwareVersion,
            messages.NodeUpgrade(id=node.id, version=version),
        )
        return Answer(reply.status, reply.msg)

    return ask


METHODS = {
    "reload": "Reload",
    "restart": "Restart",
    "start": "Start",
    "stop": "Stop",
    "exit": "Exit",
}


def asking(syndicate: Syndicate, options: argparse.Namespace) -> Ask:
    """The function that asks a node what the verb of the command line says."""
    if options.verb == "software-version" and not options.direct:
        return software_version(syndicate)
    if options.verb == "upgrade" and not options.direct:
        return upgrade(syndicate, options.version)
    nodes = Nodes(syndicate)
    if options.verb == "software-version":
        return nodes.software_version
    if options.verb == "upgrade":
        return nodes.upgrade(options.version)
    if options.verb == "health":
        return nodes.health
    if options.verb == "stats":
        return nodes.stats
    return nodes.command(METHODS[options.verb])


def report(
    options: argparse.Namespace, nodes: Sequence[messages.Node], found: Sequence[Answer]
) -> None:
    """Print the answers; if any is not good, raise CallError or SyndicateToolError.

    CallError means that all nodes that failed were unreachable.
    """
    each = sorted(zip(nodes, found, strict=True), key=lambda pair: (pair[0].meta, pair[0].id))
    if options.json:
        print(
            json.dumps(
                [
                    {
                        "id": str(node.id),
                        "meta": node.meta,
                        "ok": answer.good,
                        "unreachable": answer.unreachable,
                        # In JSON the statistics are in the data.
                        "message": "" if "stats" in answer.data else answer.text,
                        **answer.data,
                    }
                    for node, answer in each
                ]
            )
        )
    elif options.verb == "stats":
        for node, answer in each:
            print(f"{node.id} {plain(node.meta)}\n{answer.text}")
    else:
        lines = [
            (str(node.id), plain(node.meta), _word(answer), plain(answer.text))
            for node, answer in each
        ]
        print(table(("id", "node", "result", "message"), lines, ("id",)), flush=True)
    bad = [answer for answer in found if not answer.good]
    if not bad:
        return
    text = f"{options.verb}: {len(bad)} of {len(found)} nodes failed"
    if all(answer.unreachable for answer in bad):
        raise CallError(text, unreachable=True)
    raise SyndicateToolError(text)


def _word(answer: Answer) -> str:
    if answer.good:
        return "ok"
    return "unreachable" if answer.unreachable else "failed"
