from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Conf(_message.Message):
    __slots__ = ["conf", "restartRequired"]
    CONF_FIELD_NUMBER: _ClassVar[int]
    RESTARTREQUIRED_FIELD_NUMBER: _ClassVar[int]
    conf: bytes
    restartRequired: bool
    def __init__(self, conf: _Optional[bytes] = ..., restartRequired: bool = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ["device", "path", "size", "used"]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    device: str
    path: str
    size: int
    used: int
    def __init__(self, device: _Optional[str] = ..., path: _Optional[str] = ..., size: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class EmptyMsg(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class HardwareProfile(_message.Message):
    __slots__ = ["cpus", "disks", "memfree", "memtotal"]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    MEMFREE_FIELD_NUMBER: _ClassVar[int]
    MEMTOTAL_FIELD_NUMBER: _ClassVar[int]
    cpus: int
    disks: _containers.RepeatedCompositeFieldContainer[Disk]
    memfree: int
    memtotal: int
    def __init__(self, memtotal: _Optional[int] = ..., memfree: _Optional[int] = ..., cpus: _Optional[int] = ..., disks: _Optional[_Iterable[_Union[Disk, _Mapping]]] = ...) -> None: ...

class ModifyMsg(_message.Message):
    __slots__ = ["id", "key", "value"]
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    id: int
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., id: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ["active", "addresses", "capacity", "conf", "id", "meta", "tiers"]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    active: bool
    addresses: _containers.RepeatedScalarFieldContainer[str]
    capacity: int
    conf: bytes
    id: int
    meta: str
    tiers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., active: bool = ..., capacity: _Optional[int] = ..., tiers: _Optional[_Iterable[str]] = ..., addresses: _Optional[_Iterable[str]] = ..., meta: _Optional[str] = ..., conf: _Optional[bytes] = ...) -> None: ...

class NodeConfig(_message.Message):
    __slots__ = ["localid", "ring"]
    LOCALID_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    localid: int
    ring: bytes
    def __init__(self, localid: _Optional[int] = ..., ring: _Optional[bytes] = ...) -> None: ...

class NodeSoftwareVersion(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class NodeUpgrade(_message.Message):
    __slots__ = ["id", "version"]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: int
    version: str
    def __init__(self, id: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class NodeUpgradeStatus(_message.Message):
    __slots__ = ["msg", "status"]
    MSG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    msg: str
    status: bool
    def __init__(self, status: bool = ..., msg: _Optional[str] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ["addrs", "hardware", "hostname", "tiers"]
    ADDRS_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    addrs: _containers.RepeatedScalarFieldContainer[str]
    hardware: HardwareProfile
    hostname: str
    tiers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hostname: _Optional[str] = ..., addrs: _Optional[_Iterable[str]] = ..., tiers: _Optional[_Iterable[str]] = ..., hardware: _Optional[_Union[HardwareProfile, _Mapping]] = ...) -> None: ...

class Ring(_message.Message):
    __slots__ = ["ring", "version"]
    RING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ring: bytes
    version: int
    def __init__(self, version: _Optional[int] = ..., ring: _Optional[bytes] = ...) -> None: ...

class RingConf(_message.Message):
    __slots__ = ["conf", "status"]
    CONF_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    conf: Conf
    status: RingStatus
    def __init__(self, status: _Optional[_Union[RingStatus, _Mapping]] = ..., conf: _Optional[_Union[Conf, _Mapping]] = ...) -> None: ...

class RingOpts(_message.Message):
    __slots__ = ["replicas"]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: int
    def __init__(self, replicas: _Optional[int] = ...) -> None: ...

class RingStatus(_message.Message):
    __slots__ = ["status", "version"]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    status: bool
    version: int
    def __init__(self, status: bool = ..., version: _Optional[int] = ...) -> None: ...

class SearchResult(_message.Message):
    __slots__ = ["nodes"]
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class SubscriberID(_message.Message):
    __slots__ = ["id"]
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...
