"""A network of simulated machines: network namespaces on a bridge, each with its host name.

Each machine has an address in 10.77.0.0/24 and uses the DNS server at DNS.  To cut a machine off,
its cable is removed from the bridge.  As with a dead switch, no side is notified.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DOMAIN = "ring.test"
PREFIX = "10.77.0."
DNS = f"{PREFIX}2"


def run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60)


class Network:
    def __init__(self) -> None:
        self._name = f"oort{os.getpid()}"
        self._hub = f"{self._name}-hub"
        self._machines: list[Machine] = []
        run("ip", "netns", "add", self._hub)
        self._inside("ip", "link", "add", "bridge", "type", "bridge")
        self._inside("ip", "link", "set", "bridge", "up")

    def _inside(self, *words: str) -> None:
        run("ip", "netns", "exec", self._hub, *words)

    def machine(self, host_name: str, number: int) -> Machine:
        short = host_name.partition(".")[0]
        made = Machine(f"{self._name}-{short}", host_name, f"{PREFIX}{number}", f"port{number}")
        self._machines.append(made)
        run("ip", "netns", "add", made.namespace)
        # `ip netns exec` mounts the files in this directory over /etc.
        configuration = Path("/etc/netns") / made.namespace
        configuration.mkdir(parents=True, exist_ok=True)
        (configuration / "resolv.conf").write_text(f"search {DOMAIN}\nnameserver {DNS}\n")
        (configuration / "hosts").write_text("127.0.0.1 localhost\n")
        self._inside("ip", "link", "add", made.port, "type", "veth", "peer", "name", "eth0",
                     "netns", made.namespace)  # fmt: skip
        self.plug(made)
        self._inside("ip", "link", "set", made.port, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{made.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            run("ip", "-n", made.namespace, *words)
        return made

    def plug(self, machine: Machine) -> None:
        self._inside("ip", "link", "set", machine.port, "master", "bridge")

    def unplug(self, machine: Machine) -> None:
        self._inside("ip", "link", "set", machine.port, "nomaster")

    def end(self) -> None:
        for machine in self._machines:
            shutil.rmtree(Path("/etc/netns") / machine.namespace, ignore_errors=True)
            subprocess.run(["ip", "netns", "delete", machine.namespace], check=False)
        subprocess.run(["ip", "netns", "delete", self._hub], check=False)


class Machine:
    def __init__(self, namespace: str, host_name: str, address: str, port: str) -> None:
        self.namespace = namespace
        self.host_name = host_name
        self.address = address
        self.port = port  # of the bridge

    def words(self, *command: str) -> list[str]:
        """The command line that runs a command on this machine, with the command's process id."""
        script = 'hostname "$0" && exec "$@"'
        inside = ["unshare", "--uts", "sh", "-c", script, self.host_name, *command]
        return ["ip", "netns", "exec", self.namespace, *inside]

    def output(self, *command: str) -> str:
        done = subprocess.run(
            self.words(*command), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout
