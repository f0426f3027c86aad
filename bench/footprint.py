"""The cost of keys: memory, index bytes, and the time until a restarted server answers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from measure import preload
from servers import BrokenError, Fleet, Server


def index_bytes(server: Server) -> int | None:
    """Allocated bytes of oortd's index files; None for other servers."""
    if server.kind != "oort":
        return None
    files = [path for path in (server.directory / "data").rglob("*index*") if path.is_file()]
    return sum(path.stat().st_size for path in files) if files else None


def data_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _wait_loaded(server: Server) -> None:
    """Wait until the server answers a command about data; PING is not enough."""
    while True:
        try:
            server.call("DBSIZE")
            return
        except BrokenError as error:
            if "LOADING" not in str(error):
                raise
        time.sleep(0.002)


def _restart(server: Server, how: signal.Signals) -> float:
    server.stop(how)
    began = time.monotonic()
    server.start()
    _wait_loaded(server)
    return time.monotonic() - began


def footprint(
    fleet: Fleet, name: str, keys: int, say: Callable[[str], None]
) -> dict[str, float | None]:
    """Load a number of keys of 100 bytes into a new server, then restart it both ways."""
    keys -= keys % 8
    server = fleet.add(name)
    try:
        say(f"{keys:,} keys: {name} empty")
        server.start()
        empty_rss, empty_anon = server.memory("VmRSS"), server.memory("RssAnon")
        empty_start = _restart(server, signal.SIGTERM)

        # The index is measured at several sizes, because an index that grows by doubling looks good
        # or bad at a single size.
        per_key = []
        for step in range(1, 9):
            say(f"{keys:,} keys: {name} loading {step} of 8")
            preload(server, keys // 8, prefix=f"ke{step}:")
            found = index_bytes(server)
            if found is not None:
                per_key.append(found / (keys // 8 * step))
        rss, anon = server.memory("VmRSS"), server.memory("RssAnon")
        size = server.call("DBSIZE")
        if size != keys:
            raise BrokenError(f"{name} has {size!r} keys after {keys} were written")
        say(f"{keys:,} keys: {name} restarting")
        clean = _restart(server, signal.SIGTERM)
        killed = _restart(server, signal.SIGKILL)
        if server.call("DBSIZE") != keys:
            raise BrokenError(f"{name} lost keys in a restart")
        return {
            "keys": keys,
            "rss_bytes_per_key": (rss - empty_rss) / keys,
            "rss_anon_growth_mib": (anon - empty_anon) / 2**20,
            "index_bytes_per_key": sum(per_key) / len(per_key) if per_key else None,
            "disk_bytes_per_key": data_bytes(server.directory / "data") / keys,
            "empty_start_s": empty_start,
            "clean_restart_s": clean,
            "killed_restart_s": killed,
            "clean_restart_s_per_million": max(0.0, clean - empty_start) * 1e6 / keys,
            "killed_restart_s_per_million": max(0.0, killed - empty_start) * 1e6 / keys,
        }
    finally:
        fleet.remove(server)
