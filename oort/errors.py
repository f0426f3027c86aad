"""The one error tree of oort: every error a caller may want to tell apart has a class here.

The text of an error is one line for the operator: the place, the cause, the cure.
"""

from __future__ import annotations


class OortError(Exception):
    """Base of every error of this package."""


class ConfigError(OortError):
    """A setting is wrong: the text names the source, the section and the key."""


class BootError(OortError):
    """The daemon cannot start; the text says why and what to do."""


class LoadError(OortError):
    """oort-bench cannot start a load: a contradiction, or a server that cannot be reached."""


class StoreError(OortError):
    """A store did not do what it was asked; `status` is the oort_status of csrc/oort.h.

    The text is the C library's, which names place, cause and cure where it knows them; `cure` is
    what helps against the cause in general.
    """

    cure = "restart oort; if it comes again, it is a fault in oort"

    def __init__(self, text: str = "", *, status: int = 0, sys_errno: int = 0) -> None:
        super().__init__(text or f"{type(self).__doc__} Cure: {self.cure}")
        self.status = status
        self.sys_errno = sys_errno


class StoreMemoryError(StoreError):
    """An allocation failed."""

    cure = "give the process more memory, or use smaller values"


class StoreIOError(StoreError):
    """The kernel reported an I/O error."""

    cure = "look into the kernel's log for the device, then restart"


class StoreFullError(StoreError):
    """Free disk space is below the watermark: reads go on, writes do not."""

    cure = "free disk space: writes are accepted again by themselves"


class StoreTooBigError(StoreError):
    """A key, a value or a batch is over its cap."""

    cure = "split it, or raise ValueCap"


class StoreLockedError(StoreError):
    """Another process has the data directory open."""

    cure = "stop the other oortd, or use another data directory"


class StoreFormatError(StoreError):
    """The data directory was written by a newer version, or is not oort's."""

    cure = "use the oort that wrote it, or another data directory"


class StoreDamagedError(StoreError):
    """A checksum does not match: this record cannot be served; the others can."""

    cure = "write the key again, or restore it from a replica or a backup"


class StoreFailedError(StoreError):
    """An earlier I/O error was final: the store accepts no more writes."""

    cure = "look into the kernel's log for the device, then restart"


class StoreArgumentError(StoreError):
    """The caller broke the contract in csrc/oort.h."""

    cure = "this is a fault in the calling program"


class RingError(OortError):
    """A ring or a builder cannot do what it was asked; the text says why."""


class RingFormatError(RingError):
    """Not a ring or builder file, or a damaged one."""


class StateError(OortError):
    """What a syndicate keeps cannot be read or written; the text says where, why and what to do."""


class StateConflict(StateError):  # noqa: N818 - it is what happened, not a fault
    """The stored version is not the expected one: somebody else made a change first."""


class StateLockedError(StateError):
    """Another synd uses the same directory."""


class StateNotLeaderError(StateError):
    """Only the leader can make this change, and it is another synd, or nobody yet."""


class StateUnavailableError(StateError):
    """Nothing answered in time; a change may or may not have been made."""


class RegistrationError(OortError):
    """A host cannot become a node of the ring; the text says why.

    `denied`: the filters say no.
    """

    def __init__(self, text: str, *, denied: bool = False) -> None:
        super().__init__(text)
        self.denied = denied


class CacheError(OortError):
    """The cached configuration does not count, or cannot be written; the text says why."""


class DiscoveryError(OortError):
    """No syndicate was found, or none that answers; the text says where it was looked for."""


class RequestError(OortError):
    """A caller may not do what it asks for, or asks for what cannot be; `code` is gRPC's name."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class ServeError(OortError):
    """synd cannot serve; the text says why and what to do."""


class TLSError(OortError):
    """A key, a certificate, a token or a connection's trust is not as it must be."""


class CallError(OortError):
    """A call over gRPC failed; `code` is the name of gRPC's status."""

    def __init__(self, text: str, *, code: str = "UNKNOWN", unreachable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.unreachable = unreachable


class ControlError(OortError):
    """A node did not do what CmdCtrl asked, and not because of its state; `code` is gRPC's name."""

    def __init__(self, text: str, *, code: str) -> None:
        super().__init__(text)
        self.code = code


class SyndicateToolError(OortError):
    """syndicate-client cannot do what it was asked."""
