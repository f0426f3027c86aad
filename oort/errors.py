"""The error classes of oort: a class for every error that callers handle differently.

The text of an error is one line for the operator: the place, the cause and the cure.
"""

from __future__ import annotations


class OortError(Exception):
    """The base of every error of this package."""


class ConfigError(OortError):
    """A setting is invalid; the text names the source, the section and the key."""


class BootError(OortError):
    """The daemon cannot start; the text says why and what to do."""


class LoadError(OortError):
    """oort-bench cannot start: its settings are invalid, or the server cannot be reached."""


class StoreError(OortError):
    """A store operation failed; `status` is the oort_status of csrc/oort.h.

    The text comes from the C library, which names place, cause and cure where it knows them.
    `cure` is a general cure for this class of errors.
    """

    cure = "restart oort; if the error comes back, report it as a bug"

    def __init__(self, text: str = "", *, status: int = 0, sys_errno: int = 0) -> None:
        super().__init__(text or f"{type(self).__doc__} Cure: {self.cure}")
        self.status = status
        self.sys_errno = sys_errno


class StoreMemoryError(StoreError):
    """An allocation failed."""

    cure = "give the process more memory, or use smaller values"


class StoreIOError(StoreError):
    """The kernel reported an I/O error."""

    cure = "look for errors of the device in the kernel's log, then restart"


class StoreFullError(StoreError):
    """Free disk space is below the watermark: writes are refused, reads still work."""

    cure = "free disk space; writes are then accepted again without a restart"


class StoreTooBigError(StoreError):
    """A key, a value or a batch is larger than its limit."""

    cure = "split the value or the batch, or raise ValueCap"


class StoreLockedError(StoreError):
    """Another process has the data directory open."""

    cure = "stop the other oortd, or use another data directory"


class StoreFormatError(StoreError):
    """The data directory was written by a newer version, or is not oort's."""

    cure = "use the version of oort that wrote the directory, or another data directory"


class StoreDamagedError(StoreError):
    """A checksum does not match: this record cannot be served, other records can."""

    cure = "write the key again, or restore it from a replica or a backup"


class StoreFailedError(StoreError):
    """An earlier I/O error was final: the store accepts no more writes."""

    cure = "look for errors of the device in the kernel's log, then restart"


class StoreArgumentError(StoreError):
    """The caller broke the contract in csrc/oort.h."""

    cure = "correct the calling program"


class RingError(OortError):
    """An operation on a ring or a builder is not possible; the text says why."""


class RingFormatError(RingError):
    """The data is not a ring or a builder, or it is damaged."""


class StateError(OortError):
    """A syndicate's state cannot be read or written; the text names place, cause and cure."""


class StateConflict(StateError):  # noqa: N818 - a normal event, not a fault
    """The stored version is not the expected version, because another synd made a change first."""


class StateLockedError(StateError):
    """Another synd uses the same directory."""


class StateNotLeaderError(StateError):
    """Only the leader can make this change, and this synd is not the leader."""


class StateUnavailableError(StateError):
    """There was no answer in time; a change may or may not have been made."""


class RegistrationError(OortError):
    """A host cannot become a node of the ring; the text says why.

    `denied` means that the filters refuse the host.
    """

    def __init__(self, text: str, *, denied: bool = False) -> None:
        super().__init__(text)
        self.denied = denied


class CacheError(OortError):
    """The cached configuration cannot be used or written; the text says why."""


class DiscoveryError(OortError):
    """No syndicate was found, or none answers; the text says where the node looked."""


class RequestError(OortError):
    """A request is not allowed or not valid; `code` is the name of the gRPC status."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class ServeError(OortError):
    """synd cannot serve; the text says why and what to do."""


class TLSError(OortError):
    """A key, a certificate or a token is invalid, or a peer cannot be verified."""


class CallError(OortError):
    """A gRPC call failed; `code` is the name of the gRPC status.

    `unreachable` means that there was no connection to the server.
    """

    def __init__(self, text: str, *, code: str = "UNKNOWN", unreachable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.unreachable = unreachable


class ControlError(OortError):
    """A node cannot make a CmdCtrl call; `code` is the name of the gRPC status."""

    def __init__(self, text: str, *, code: str) -> None:
        super().__init__(text)
        self.code = code


class SyndicateToolError(OortError):
    """A command of syndicate-client failed."""
