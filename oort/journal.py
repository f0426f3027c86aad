"""Log lines for the operator, on stderr: plain for a terminal, with priorities for journald.

Under systemd every line begins with its syslog priority (`<6>`) and nothing else: the journal
adds the time.  Otherwise a line has the time and the level in words.  A message is one line: line
ends within it become spaces.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

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

log = logging.getLogger("oortd")
_loggers = [log]


class _Formatter(logging.Formatter):
    def __init__(self, priorities: bool) -> None:
        super().__init__(None if priorities else "%(asctime)s %(levelname)s %(message)s")
        self.priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\r", " ").replace("\n", " ")
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}" if self.priorities else text


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
    """Send the log to stderr: that of the loggers `names`, oortd's by default."""
    logging.addLevelName(NOTICE, "NOTICE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(under_systemd(environment)))
    _loggers[:] = [logging.getLogger(name) for name in names] or [log]
    for one in _loggers:
        one.handlers[:] = [handler]
        one.propagate = False
        one.setLevel(logging.INFO)


def set_level(name: str) -> None:
    for one in _loggers:
        one.setLevel(LEVELS[name])


def log_priority(priority: int, text: str) -> None:
    """Log a message whose importance is a syslog priority (the store's events)."""
    for level, value in sorted(_PRIORITIES.items()):
        if value <= priority:
            log.log(level, "%s", text)
            return
    log.critical("%s", text)
