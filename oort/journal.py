"""Log lines for the operator, on stderr or as structured entries of systemd's journal.

If stderr is the journal, entries go to its native socket (systemd.io/JOURNAL_NATIVE_PROTOCOL) with
the message and its priority.  `entry` adds a MESSAGE_ID, by which `journalctl -x` finds an
explanation (packaging/root/usr/lib/systemd/catalog), and fields whose names begin with OORT_.  If
the socket does not exist, every line on stderr begins with its syslog priority (`<6>`).  On any
other stderr a line has the time and the level in words.  A message is one line: line ends in it
become spaces.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

NOTICE = 25
_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    NOTICE: 5,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# The MESSAGE_ID of each kind of entry.  These are public and never change.
STARTED = "eb7a08a7718843efae3a75d7958493f6"
STOPPING = "71f9a8963c2d464ab1b8f6b37d9fa24a"
STOPPED = "624515c514084bf484ba6912dd8577c1"
CANNOT_START = "b1d88f9dbd9240d1bf6867e71ffa0855"
STALLED = "927d4f7be6b94584958fef9cb44a4815"
RING_CHANGED = "c9c22be1d6f84ba49398d93d948ec012"
DAMAGED = "4b7a41a6bdf54614a9d6c6e739f5955c"
DISK_FULL = "9ad99c8497324ddcacece6a0911b83be"
DISK_ROOM = "5a7bf5bb957744959a58c28e26993583"
STORE_FAILED = "744c1c4623ae473aa92ee28fe8496e58"

_NATIVE_SOCKET = Path("/run/systemd/journal/socket")

log = logging.getLogger("oortd")
_loggers = [log]


def entry(message_id: str, **fields: object) -> dict[str, object]:
    """The `extra` of a log call: the MESSAGE_ID and the fields of a journal entry.

    `segment` becomes the field OORT_SEGMENT.
    """
    return {"message_id": message_id, "fields": fields}


class JournalHandler(logging.Handler):
    """Sends entries to the journal's native socket, or to `fallback` if that fails."""

    def __init__(self, path: Path, fallback: logging.Handler) -> None:
        super().__init__()
        self._path = str(path)
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.setFormatter(_OneLine())

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {
            "MESSAGE": self.format(record),
            "PRIORITY": _PRIORITIES.get(record.levelno, 6),
            # The program's name, without the parts of the program below it.
            "SYSLOG_IDENTIFIER": record.name.partition(".")[0],
        }
        message_id = getattr(record, "message_id", "")
        if message_id:
            fields["MESSAGE_ID"] = message_id
        for name, value in getattr(record, "fields", {}).items():
            fields[f"OORT_{name.upper()}"] = value
        # In this form of the protocol every value must be one line.
        lines = [f"{name}={_one_line(str(value))}\n" for name, value in fields.items()]
        try:
            self._socket.sendto("".join(lines).encode("utf-8", "replace"), self._path)
        except OSError:  # the journal is restarting, or the entry is too long for it
            self._fallback.handle(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record))


class _Formatter(logging.Formatter):
    def __init__(self, priorities: bool) -> None:
        super().__init__(None if priorities else "%(asctime)s %(levelname)s %(message)s")
        self.priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        text = _one_line(super().format(record))
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}" if self.priorities else text


def level_of(priority: int) -> int:
    """The level of a syslog priority."""
    return next(
        (level for level, value in sorted(_PRIORITIES.items()) if value <= priority),
        logging.CRITICAL,
    )


def under_systemd(environment: Mapping[str, str]) -> bool:
    """Whether stderr is the journal: $JOURNAL_STREAM names its device and inode."""
    stream = environment.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def start(environment: Mapping[str, str], *names: str) -> None:
    """Send the log of the loggers `names` (default: oortd) to stderr or to the journal."""
    logging.addLevelName(NOTICE, "NOTICE")
    journal = under_systemd(environment)
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(journal))
    # If stderr is not a socket, it is not the journal, whatever the environment says.
    if journal and stat.S_ISSOCK(os.fstat(sys.stderr.fileno()).st_mode) and _NATIVE_SOCKET.exists():
        handler = JournalHandler(_NATIVE_SOCKET, handler)
    _loggers[:] = [logging.getLogger(name) for name in names] or [log]
    for logger in _loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)


def set_level(name: str) -> None:
    for logger in _loggers:
        logger.setLevel(LEVELS[name])
