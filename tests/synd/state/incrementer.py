"""A program that makes one version of the ring after another while it leads.

Arguments: its name, then etcd's endpoints.  It prints a line `try V` before it writes version V,
and then `done V`, `doubt V` (the version may or may not exist) or `not V`.
"""

from __future__ import annotations

import sys
import time

from oort.errors import StateConflict, StateNotLeaderError, StateUnavailableError
from oort.synd.state.etcd import EtcdState

from .snapshots import conf_of, snapshot


def say(what: str, version: int) -> None:
    sys.stdout.write(f"{what} {version}\n")
    sys.stdout.flush()


def main() -> None:
    name, *endpoints = sys.argv[1:]
    state = EtcdState(endpoints, "sum", name, lease_seconds=2, timeout=3)
    while True:
        if not state.leading:
            time.sleep(0.01)
            continue
        try:
            now = state.read()
        except StateUnavailableError:
            continue
        version = now.version + 1
        total = int(conf_of(now)) + 1 if now.version else 1
        say("try", version)
        time.sleep(0.005)  # the process may be stopped here, after which its data is stale
        try:
            state.write(now.version, snapshot(version, b"%d" % total))
        except (StateConflict, StateNotLeaderError):
            say("not", version)
        except StateUnavailableError:
            say("doubt", version)
        else:
            say("done", version)


if __name__ == "__main__":
    main()
