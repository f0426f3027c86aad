"""Repositories of built packages: `repository.py --packages DIR --out DIR [--key ID]`.

    OUT/apt      suite `stable`, component `main`: Packages and Release of apt-ftparchive
    OUT/yum      repodata of createrepo_c

With a key (gpg's id or address of a key) apt's Release, yum's repomd.xml and the rpm files are
signed, and the public key is beside them as oort.asc.  The folders are created again and hold
exactly the packages in `packages`.

Exit status: 0 on success, 1 on failure, 2 for an invalid command line.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

from description import DescriptionError, settings, source_epoch

SUITE, COMPONENT = "stable", "main"


def _run(*words: str | Path, cwd: Path | None = None) -> bytes:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source_epoch()), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.PIPE, check=True)
    return done.stdout


def _gpg(key: str, *words: str | Path) -> None:
    _run("gpg", "--batch", "--yes", "--local-user", key, *words)


def apt(packages: Path, out: Path, key: str) -> None:
    name = settings()["package"]["name"]
    pool = out / "pool" / COMPONENT / name[0] / name
    shutil.rmtree(out, ignore_errors=True)
    pool.mkdir(parents=True)
    found = sorted(packages.glob("*.deb"))
    architectures = sorted({path.stem.rpartition("_")[2] for path in found})
    for path in found:
        shutil.copy2(path, pool)
    suite = out / "dists" / SUITE
    for architecture in architectures:
        index = suite / COMPONENT / f"binary-{architecture}"
        index.mkdir(parents=True)
        listed = _run("apt-ftparchive", "--arch", architecture, "packages", "pool", cwd=out)
        (index / "Packages").write_bytes(listed)
        (index / "Packages.gz").write_bytes(gzip.compress(listed, 9, mtime=0))
    about = {
        "Origin": "oort",
        "Label": "oort",
        "Suite": SUITE,
        "Codename": SUITE,
        "Architectures": " ".join(architectures),
        "Components": COMPONENT,
    }
    release_options = [
        f"-oAPT::FTPArchive::Release::{field}={value}" for field, value in about.items()
    ]
    release = suite / "Release"
    release.write_bytes(_run("apt-ftparchive", *release_options, "release", suite))
    if key:
        _gpg(key, "--clearsign", "--output", suite / "InRelease", release)
        _gpg(key, "--armor", "--detach-sign", "--output", suite / "Release.gpg", release)


def yum(packages: Path, out: Path, key: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(packages.glob("*.rpm")):
        copied = shutil.copy2(path, out)
        if key:
            gpg = shutil.which("gpg") or "gpg"
            settings = ["--define", f"_gpg_name {key}", "--define", f"__gpg {gpg}"]
            _run("rpmsign", *settings, "--addsign", copied)
    epoch = str(source_epoch())
    settings = ["--quiet", "--no-database", "--revision", epoch, "--set-timestamp-to-revision"]
    _run("createrepo_c", *settings, out)
    if key:
        metadata = out / "repodata" / "repomd.xml"
        _gpg(key, "--armor", "--detach-sign", "--output", f"{metadata}.asc", metadata)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="repository.py", allow_abbrev=False)
    parser.add_argument("--packages", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--key", default="", help="sign with this gpg key")
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()
    try:
        if not any(options.packages.glob("*.deb")) or not any(options.packages.glob("*.rpm")):
            raise DescriptionError(
                f"{options.packages}: there are no packages: run make deb rpm first"
            )
        apt(options.packages.resolve(), out / "apt", options.key)
        yum(options.packages.resolve(), out / "yum", options.key)
        if options.key:
            exported = _run("gpg", "--batch", "--armor", "--export", options.key)
            for folder in ("apt", "yum"):
                (out / folder / "oort.asc").write_bytes(exported)
    except DescriptionError as error:
        print(f"repository.py: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"repository.py: {error.cmd[0]} failed with {error.returncode}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"repository.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
