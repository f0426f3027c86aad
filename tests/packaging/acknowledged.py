"""Writes without pause while a server restarts, then checks that no acknowledged write is missing.

    acknowledged.py PORT CLIENTS STOPFILE

Each client sets its own keys to increasing numbers.  If a connection breaks, the client connects
again and continues.  When STOPFILE exists, every key is read.  A key must have the last number that
was answered with OK, or a later number that was sent.  The program prints JSON with acknowledged,
reconnections and wrong (a list).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

KEYS = 50
NO_RETRY = Retry(NoBackoff(), 0)


@dataclass
class Client:
    number: int
    port: int
    acknowledged: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    count: int = 0
    reconnections: int = 0

    def run(self, stop: threading.Event) -> None:
        value = 0
        connection: redis.Redis | None = None
        while not stop.is_set():
            try:
                if connection is None:
                    connection = redis.Redis(port=self.port, socket_timeout=30, retry=NO_RETRY)
                    connection.ping()
                value += 1
                key = f"load:{self.number}:{value % KEYS}"
                self.sent[key] = value
                connection.set(key, value)
                self.acknowledged[key] = value
                self.count += 1
            except (redis.ConnectionError, redis.TimeoutError):
                # Without an answer the write may or may not have been made.
                self.reconnections += 1
                connection = None
                time.sleep(0.01)

    def wrong(self) -> list[str]:
        server = redis.Redis(port=self.port, socket_timeout=30)
        found = []
        for key, least in self.acknowledged.items():
            held = server.get(key)
            if held is None or not least <= int(held) <= self.sent[key]:  # type: ignore[arg-type]
                found.append(f"{key}: {held!r}, acknowledged {least}, sent {self.sent[key]}")
        return found


def main() -> int:
    port, number, stop_file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    stop = threading.Event()
    clients = [Client(n, port) for n in range(number)]
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    while not stop_file.exists():
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    told = {
        "acknowledged": sum(client.count for client in clients),
        "reconnections": sum(client.reconnections for client in clients),
        "wrong": [line for client in clients for line in client.wrong()],
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
