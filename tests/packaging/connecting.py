"""Opens a new connection for every command, without pause, and counts the outcomes.

    connecting.py PORT STOPFILE

The program prints `go` after the first answers, and JSON at the end with served, refused and broken
(connections that were established and ended without an answer).
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def main() -> int:
    port, stop = int(sys.argv[1]), Path(sys.argv[2])
    told = {"served": 0, "refused": 0, "broken": 0}
    while not stop.exists():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(b"PING\r\n")
                told["served" if connection.recv(100) == b"+PONG\r\n" else "broken"] += 1
        except ConnectionRefusedError:
            told["refused"] += 1
        except OSError:
            told["broken"] += 1
        if told["served"] == 100:
            print("go", flush=True)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
