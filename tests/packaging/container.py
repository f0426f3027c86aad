"""A container with a minimal Debian root and its own systemd, which is discarded afterwards.

`make_root` debootstraps the root once.  It downloads the packages that an installation of oortd
needs, because a container has no network except its own loopback.  A `Container` boots the root in
about a second.  Changes in it are in memory only (systemd-nspawn's --volatile=overlay).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

BASE = ("systemd-sysv", "dbus", "python3-minimal", "openssl")
# The path of the repository and the packages in a container.
SHARED = "/srv/oort"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 120.0


def make_root(directory: Path, wanted: Iterable[str]) -> Path:
    """A root with BASE installed and `wanted` downloaded; created again if either changes."""
    names = sorted(wanted)
    sources = next(
        path
        for path in (
            Path("/etc/apt/sources.list.d/debian.sources"),
            Path("/etc/apt/sources.list"),
        )
        if path.exists()
    )
    root = directory / "root"
    download = "apt-get install -qq --download-only --no-install-recommends"
    words = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"]
    words += [f"--include={','.join(BASE)}", "--dpkgopt=force-unsafe-io", "--skip=cleanup/apt"]
    words += [f'--customize-hook=chroot "$1" {download} {" ".join(names)}']
    # The root must not have this machine's name, or the file that forbids services to start.
    words += ['--customize-hook=rm -f "$1/etc/hostname" "$1/usr/sbin/policy-rc.d"']
    words += ["bookworm", str(root), str(sources)]
    key = hashlib.sha256(repr((words, sources.read_text())).encode()).hexdigest()[:16]
    mark = directory / f"made-{key}"
    if mark.exists():
        return root
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=1200)
    mark.touch()
    return root


class Container:
    """A booted root, as a context manager."""

    def __init__(self, root: Path, shared: Path, log: Path) -> None:
        words = ["systemd-nspawn", "--quiet", "--boot", f"--directory={root}"]
        words += ["--volatile=overlay", "--register=no", "--keep-unit", "--private-network"]
        words += ["--console=read-only", "--link-journal=no", f"--bind-ro={shared}:{SHARED}"]
        words += ["--hostname=machine", f"--machine=oort-test-{time.monotonic_ns()}"]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.leader = 0

    def __enter__(self) -> Container:
        try:
            self._wait_for_boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _wait_for_boot(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, self.log.read_text("utf-8", "replace")
            if not self.leader:
                self.leader = self._find_leader()
            if self.leader:
                state = self.run("systemctl", "is-system-running", check=False)
                if state.strip() in ("running", "degraded"):
                    return
            time.sleep(0.05)

    def _find_leader(self) -> int:
        """The process id of its process 1 on this machine; 0 if there is none yet."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(FileNotFoundError):
            for child in map(int, children.read_text().split()):
                # Until the process is systemd, it may still see this machine's root.
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
        return 0

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _enter(self, *namespaces: str) -> list[str]:
        return ["nsenter", "--target", str(self.leader), *namespaces, "--"]

    def run(
        self, *words: str, check: bool = True, stdin: str | None = None, timeout: float = 300
    ) -> str:
        """Run a command in the container; returns its stdout and stderr."""
        inside = self._enter("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
        environment = ["env", "-i", f"PATH={PATH}", "LC_ALL=C.UTF-8", "HOME=/root"]
        environment += ["DEBIAN_FRONTEND=noninteractive"]
        done = subprocess.run(
            [*inside, *environment, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}: {done.stdout}"
        return done.stdout

    def shell(self, text: str, check: bool = True) -> str:
        return self.run("sh", "-ec", text, check=check)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path, stdin=text)

    def succeeds(self, *words: str) -> bool:
        return self.run(
            "sh", "-c", '"$@" >/dev/null 2>&1 && echo yes || echo no', "sh", *words
        ) == ("yes\n")

    def in_network(self, *words: str) -> list[str]:
        """A command line that runs one of this machine's programs in the container's network."""
        return [*self._enter("-n"), *words]

    # ---- operations of many tests -------------------------------------------

    def redis(self, *words: str) -> str:
        """redis-cli against the container's oortd."""
        done = subprocess.run(
            self.in_network("redis-cli", "-p", "6139", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.strip()

    def unit(self, name: str, prop: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", prop, name).strip()

    def seen_from_here(self, pid: str) -> int:
        """The process id on this machine of a process of the container."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found = re.search(r"^NSpid:\t(\d+)\t.*\b(\d+)$", status.read_text(), re.MULTILINE)
                if found and found[2] == pid and self._is_inside(int(found[1])):
                    return int(found[1])
        raise AssertionError(f"no process {pid} in the container")

    def _is_inside(self, pid: int) -> bool:
        namespaces = (Path(f"/proc/{one}/ns/pid").readlink() for one in (pid, self.leader))
        return len(set(namespaces)) == 1

    def journal(self, unit: str = "oortd.service") -> str:
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a shell command in the container succeeds."""
        deadline = time.monotonic() + seconds
        while not self.succeeds("sh", "-c", condition):
            assert time.monotonic() < deadline, f"{condition}: not after {seconds} s\n" + self.run(
                "systemctl", "status", "oortd.service", check=False
            )
            time.sleep(0.1)

    def use_repository(self) -> None:
        """Add the repository to apt, as the README says; the container has no other source."""
        self.write(
            "/etc/apt/sources.list.d/oort.list",
            f"deb [signed-by={SHARED}/repository/apt/oort.asc] file:{SHARED}/repository/apt"
            " stable main\n",
        )
        only = ["-o", "Dir::Etc::sourcelist=sources.list.d/oort.list"]
        only += ["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]
        self.run("apt-get", "update", "-q", *only)

    def install(self, package: str = "oortd") -> str:
        return self.run("apt-get", "install", "-qy", "--no-install-recommends", package)
