"""A small syndicate and small nodes for tests of callers: gRPC, mutual TLS and a ring in memory.

The syndicate answers errors with gRPC's codes, makes rings with oort.ring, and signs with a real
authority.
"""

# ruff: noqa: N802 - the methods have the names of the protocol

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from concurrent import futures

import grpc

from oort.cmdctrl import cmdctrl_pb2, cmdctrl_pb2_grpc
from oort.errors import OortError, RingError
from oort.ring import files
from oort.ring.builder import Builder
from oort.syndicate import authority_pb2, authority_pb2_grpc, syndicate_pb2, syndicate_pb2_grpc
from oort.syndicate.syndicate_pb2 import RingStatus
from oort.tls import certificates, channels, tokens


def change(method):
    """Allow only operators, and make a new ring afterwards."""

    @functools.wraps(method)
    def changed(self, request, context):
        self.allow(context, "operator")
        with self.changed:
            try:
                method(self, request)
                self.builder.rebalance(time.time_ns())
            except RingError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            self.changed.notify_all()
            return RingStatus(status=True, version=self.ring.version)

    return changed


class SmallSyndicate(syndicate_pb2_grpc.SyndicateServicer, authority_pb2_grpc.AuthorityServicer):
    def __init__(self, authority):
        self.authority = authority
        self.builder = Builder(replicas=2)
        self.builder.change_settings(move_wait=0)
        self.builder.rebalance(time.time_ns())
        self.changed = threading.Condition()
        self.closed = False
        self.restart_required = False
        self.tokens = {}
        self.numbers = itertools.count(1)

    @property
    def ring(self):
        return self.builder.ring()

    def allow(self, context, *roles):
        caller = channels.peer_role(context)
        if caller is None or caller[0] not in roles:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{caller} may not")
        return caller

    def known(self, request, context):
        found = [node for node in self.builder.nodes if node.id == request.id]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no node {request.id}")
        return found[0]

    @change
    def AddNode(self, node):
        self.builder.add(
            node_id=node.id or None,
            active=node.active,
            capacity=node.capacity,
            tiers=node.tiers,
            addresses=node.addresses,
            meta=node.meta,
            conf=node.conf,
        )

    @change
    def RemoveNode(self, node):
        self.builder.remove(node.id)

    @change
    def ModNode(self, message):
        value = {
            "active": lambda text: text == "true",
            "capacity": int,
            "conf": str.encode,
            "meta": str,
        }[message.key](message.value)
        self.builder.change(message.id, **{message.key: value})

    @change
    def SetConf(self, conf):
        self.builder.conf = conf.conf
        self.restart_required = conf.restartRequired

    @change
    def SetReplicas(self, options):
        self.builder.set_replicas(options.replicas)

    @change
    def SetActive(self, node):
        self.builder.set_active(node.id, node.active)

    @change
    def SetCapacity(self, node):
        self.builder.change(node.id, capacity=node.capacity)

    @change
    def ReplaceAddresses(self, node):
        self.builder.change(node.id, addresses=node.addresses)

    @change
    def ReplaceTiers(self, node):
        self.builder.change(node.id, tiers=node.tiers)

    def GetVersion(self, request, context):
        return RingStatus(status=True, version=self.ring.version)

    def GetGlobalConfig(self, request, context):
        conf = syndicate_pb2.Conf(conf=self.builder.conf, restartRequired=self.restart_required)
        return syndicate_pb2.RingConf(status=self.GetVersion(None, None), conf=conf)

    def GetNodeConfig(self, request, context):
        conf = syndicate_pb2.Conf(conf=self.known(request, context).conf)
        return syndicate_pb2.RingConf(status=self.GetVersion(None, None), conf=conf)

    def SearchNodes(self, request, context):
        return syndicate_pb2.SearchResult(
            nodes=[
                syndicate_pb2.Node(
                    id=node.id,
                    active=node.active,
                    capacity=node.capacity,
                    tiers=node.tiers,
                    addresses=node.addresses,
                    meta=node.meta,
                    conf=node.conf,
                )
                for node in self.builder.nodes
                if request.id in (0, node.id)
                and request.meta in ("", node.meta)
                and set(request.tiers) <= set(node.tiers)
                and set(request.addresses) <= set(node.addresses)
            ]
        )

    def GetRing(self, request, context):
        return syndicate_pb2.Ring(version=self.ring.version, ring=files.encode(self.ring))

    def GetRingStream(self, request, context):
        told = None
        while not self.closed and context.is_active():
            ring = self.GetRing(None, None)
            if ring.version != told:
                told = ring.version
                yield ring
            with self.changed:
                self.changed.wait(0.1)

    def GetNodeSoftwareVersion(self, request, context):
        node = self.known(request, context)
        return syndicate_pb2.NodeSoftwareVersion(version=f"{node.meta}'s")

    def NodeUpgradeSoftwareVersion(self, request, context):
        node = self.known(request, context)
        self.allow(context, "operator")
        if node.meta == "old":
            return syndicate_pb2.NodeUpgradeStatus(status=False, msg="too old")
        return syndicate_pb2.NodeUpgradeStatus(status=True, msg=f"on to {request.version}")

    def CreateToken(self, request, context):
        self.allow(context, "operator")
        token_id = str(next(self.numbers))
        self.tokens[token_id] = request.uses
        try:
            token = tokens.make_token(self.authority, request.role, token_id, request.valid_seconds)
        except OortError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return authority_pb2.TokenReply(token=token)

    def Sign(self, request, context):
        role, token_id = tokens.granted(self.allow(context, "join")[1])
        if not self.tokens.get(token_id):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token has been used")
        self.tokens[token_id] -= 1
        certificate = self.authority.sign(request.request, role, f"token-{token_id}")
        return authority_pb2.SignReply(
            certificate=certificate, authority=self.authority.certificate
        )


class SmallNode(cmdctrl_pb2_grpc.CmdCtrlServicer):
    """The CmdCtrl of a node, which records the commands."""

    def __init__(self, name):
        self.name = name
        self.commands = []

    def done(self, request, context, command):
        caller = channels.peer_role(context)
        if caller is None or caller[0] != "operator":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{caller} may not")
        self.commands.append(command)
        return cmdctrl_pb2.StatusMsg(status=True, msg=f"{self.name}: {command}")

    def Reload(self, request, context):
        return self.done(request, context, "reload")

    def Restart(self, request, context):
        return self.done(request, context, "restart")

    def Start(self, request, context):
        return self.done(request, context, "start")

    def Stop(self, request, context):
        return self.done(request, context, "stop")

    def Exit(self, request, context):
        return self.done(request, context, "exit")

    def Stats(self, request, context):
        return cmdctrl_pb2.StatsMsg(statsjson=json.dumps({"node": self.name}).encode())

    def HealthCheck(self, request, context):
        good = "stop" not in self.commands
        return cmdctrl_pb2.HealthCheckMsg(status=good, msg="well" if good else "stopped", ts=7)

    def SoftwareVersion(self, request, context):
        return cmdctrl_pb2.SoftwareVersionMsg(version=f"{self.name}'s own")

    def SelfUpgrade(self, request, context):
        return cmdctrl_pb2.StatusMsg(status=False, msg=f"not to {request.version}")


def serve_node(authority, name, host, port=0, certified=None):
    """Start a node; returns the server, its service and its port."""
    service = SmallNode(name)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    cmdctrl_pb2_grpc.add_CmdCtrlServicer_to_server(service, server)
    identity = authority.issue("node", name, [name, certified or host])
    port = server.add_secure_port(f"{host}:{port}", channels.server_credentials(identity))
    server.start()
    return server, service, port


def serve(names=("127.0.0.1",)):
    """Start a syndicate; returns the server, its service and its port.

    Stop it with server.stop().
    """
    authority = certificates.CertificateAuthority.create("a test")
    service = SmallSyndicate(authority)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    syndicate_pb2_grpc.add_SyndicateServicer_to_server(service, server)
    authority_pb2_grpc.add_AuthorityServicer_to_server(service, server)
    identity = authority.issue("syndicate", "synd", names)
    port = server.add_secure_port("127.0.0.1:0", channels.server_credentials(identity))
    server.start()
    return server, service, port
