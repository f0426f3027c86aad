from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EmptyMsg(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class HealthCheckMsg(_message.Message):
    __slots__ = ["msg", "status", "ts"]
    MSG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    msg: str
    status: bool
    ts: int
    def __init__(self, status: bool = ..., msg: _Optional[str] = ..., ts: _Optional[int] = ...) -> None: ...

class Ring(_message.Message):
    __slots__ = ["ring", "version"]
    RING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ring: bytes
    version: int
    def __init__(self, version: _Optional[int] = ..., ring: _Optional[bytes] = ...) -> None: ...

class RingUpdateResult(_message.Message):
    __slots__ = ["newversion"]
    NEWVERSION_FIELD_NUMBER: _ClassVar[int]
    newversion: int
    def __init__(self, newversion: _Optional[int] = ...) -> None: ...

class SelfUpgradeMsg(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class SoftwareVersionMsg(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class StatsMsg(_message.Message):
    __slots__ = ["statsjson"]
    STATSJSON_FIELD_NUMBER: _ClassVar[int]
    statsjson: bytes
    def __init__(self, statsjson: _Optional[bytes] = ...) -> None: ...

class StatusMsg(_message.Message):
    __slots__ = ["msg", "status"]
    MSG_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    msg: str
    status: bool
    def __init__(self, status: bool = ..., msg: _Optional[str] = ...) -> None: ...
