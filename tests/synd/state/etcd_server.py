"""Real etcd servers, and a relay that can withhold answers, for tests of the state in etcd."""

from __future__ import annotations

import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from oort.errors import StateUnavailableError
from oort.synd.state.etcd_client import EtcdClient

from .snapshots import eventually


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class EtcdServer:
    """A member of a cluster of `members` (client port, peer port) with its data on tmpfs."""

    def __init__(
        self, directory: Path, members: Sequence[tuple[int, int]], which: int, *flags: str
    ) -> None:
        self.directory = directory
        self.data = tempfile.mkdtemp(prefix="oort-test-etcd-", dir="/dev/shm")
        self.port, peer_port = members[which]
        self.endpoint = f"127.0.0.1:{self.port}"
        tls = any(flag.startswith("--cert-file") for flag in flags)
        client = f"{'https' if tls else 'http'}://{self.endpoint}"
        peer = f"http://127.0.0.1:{peer_port}"
        cluster = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, (_, port) in enumerate(members))
        self.command = [
            *("etcd", "--name", f"m{which}", "--data-dir", self.data),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
            *("--initial-cluster-token", f"oort-{members[0][1]}", *flags),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> EtcdServer:
        with (self.directory / f"etcd-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


class EtcdCluster:
    """A cluster of running members; a context manager ends it."""

    def __init__(self, directory: Path, size: int, *flags: str) -> None:
        ports = free_ports(2 * size)
        members = list(zip(ports[::2], ports[1::2], strict=True))
        self.members = [EtcdServer(directory, members, n, *flags) for n in range(size)]
        self.endpoints = [member.endpoint for member in self.members]

    def __enter__(self) -> EtcdCluster:
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()

    def wait(self) -> EtcdCluster:
        """Wait until every running member answers; only for clusters without TLS."""
        for member in self.members:
            client = EtcdClient([member.endpoint])
            eventually(lambda client=client: answers(client), f"{member.endpoint} answers")  # type: ignore[misc]
            client.close()
        return self


def answers(client: EtcdClient) -> bool:
    try:
        client.range(b"/", timeout=1)
    except StateUnavailableError:
        return False
    return True


class Relay:
    """Forwards connections to an endpoint; with `mute` it forwards requests but no answers."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.mute = False
        self.kept_back = 0  # withheld bytes of answers
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._pass, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            muted = False
            while not self._closed.is_set():
                if muted and not self.mute:
                    return  # the connection is unusable because bytes are missing
                for source in select.select([client, server], [], [], 0.05)[0]:
                    try:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        if source is client:
                            server.sendall(data)
                        elif self.mute:
                            muted = True
                            self.kept_back += len(data)
                        else:
                            client.sendall(data)
                    except ConnectionError:
                        return

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()
