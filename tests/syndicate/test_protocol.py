"""Tests of the public protocol: names and numbers never change, and the stubs are up to date."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from oort.syndicate import authority_pb2, syndicate_pb2

ROOT = Path(__file__).parent.parent.parent

MESSAGES = """
EmptyMsg{}
RingStatus{bool status=1, int64 version=2}
RingOpts{int32 replicas=1}
Node{uint64 id=1, bool active=2, uint32 capacity=3, repeated string tiers=4, repeated string
 addresses=5, string meta=6, bytes conf=7}
ModifyMsg{string key=1, string value=2, uint64 id=3}
RingConf{RingStatus status=1, Conf conf=2}
Conf{bytes conf=1, bool restartRequired=2}
SubscriberID{string id=1}
RegisterRequest{string hostname=1, repeated string addrs=2, repeated string tiers=3,
 HardwareProfile hardware=4}
HardwareProfile{uint64 memtotal=1, uint64 memfree=2, int64 cpus=3, repeated Disk disks=4}
Disk{string device=1, string path=2, uint64 size=3, uint64 used=4}
NodeConfig{uint64 localid=1, bytes ring=2}
Ring{int64 version=1, bytes ring=2}
SearchResult{repeated Node nodes=1}
NodeSoftwareVersion{string version=1}
NodeUpgrade{uint64 id=1, string version=2}
NodeUpgradeStatus{bool status=1, string msg=2}
"""

METHODS = """
AddNode(Node) RingStatus
RemoveNode(Node) RingStatus
ModNode(ModifyMsg) RingStatus
SetConf(Conf) RingStatus
SetReplicas(RingOpts) RingStatus
SetActive(Node) RingStatus
SetCapacity(Node) RingStatus
ReplaceAddresses(Node) RingStatus
ReplaceTiers(Node) RingStatus
GetVersion(EmptyMsg) RingStatus
GetGlobalConfig(EmptyMsg) RingConf
GetNodeConfig(Node) RingConf
SearchNodes(Node) SearchResult
GetRing(EmptyMsg) Ring
GetRingStream(SubscriberID) Ring
RegisterNode(RegisterRequest) NodeConfig
GetNodeSoftwareVersion(Node) NodeSoftwareVersion
NodeUpgradeSoftwareVersion(NodeUpgrade) NodeUpgradeStatus
"""

TYPES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in ("bool", "bytes", "int32", "int64", "string", "uint32", "uint64")
}


def described(field):
    kind = field.message_type.name if field.message_type else TYPES[field.type]
    # A repeated field has no default of its own, so its value is an empty list.
    repeated = "repeated " if isinstance(field.default_value, list) else ""
    return f"{repeated}{kind} {field.name}={field.number}"


def test_the_public_names_and_numbers_stay():
    descriptor = syndicate_pb2.DESCRIPTOR
    assert descriptor.package == "proto"
    found = [
        f"{name}{{{', '.join(described(field) for field in message.fields)}}}"
        for name, message in descriptor.message_types_by_name.items()
    ]
    assert sorted(found) == sorted(MESSAGES.replace("\n ", " ").split("\n")[1:-1])
    methods = [
        f"{method.name}({method.input_type.name}) {method.output_type.name}"
        for method in descriptor.services_by_name["Syndicate"].methods
    ]
    assert sorted(methods) == sorted(METHODS.split("\n")[1:-1])


def test_a_message_on_the_wire():
    node = syndicate_pb2.Node(
        id=1, active=True, capacity=300, tiers=["a", "b"], addresses=["c"], meta="d", conf=b"e"
    )
    assert node.SerializeToString() == bytes.fromhex(
        "0801 1001 18ac02 220161 220162 2a0163 320164 3a0165"
    )


def test_the_authority_is_a_service_of_its_own():
    descriptor = authority_pb2.DESCRIPTOR
    assert descriptor.package == "oort"
    assert [method.name for method in descriptor.services_by_name["Authority"].methods] == [
        "Sign",
        "CreateToken",
    ]


@pytest.mark.system
def test_the_stubs_are_up_to_date(tmp_path):
    subprocess.run(["make", "-s", "stubs", f"STUBS={tmp_path}"], cwd=ROOT, check=True, timeout=600)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    kept = sorted(
        path.relative_to(ROOT) for path in (ROOT / "oort").rglob("*_pb2*") if path.suffix != ".pyc"
    )
    assert made == kept
    for path in made:
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), path
