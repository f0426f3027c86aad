"""The staged root: every file of the package at its place, made from the source tree.

    stage(build, version) -> Path of build/root

`build` is created again.  The staged root has the compiled package in /usr/lib/oort, a program for
each entry point in /usr/bin, the unchanged files of packaging/root/, man pages, completions,
documents and changelogs.  Modes are 0644, and 0755 for programs and directories.  Every file has
the build's epoch as its time.  The content depends neither on the place nor on the time of the
build.

This module runs with the Python of the build's virtual environment (packaging/packages.mk), which
has setuptools and cffi.  The distribution's own Python compiles the extension, so that the
extension contains no search path of another Python.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import changelog
import completion
import manual
from description import (
    ROOT,
    DescriptionError,
    Package,
    Program,
    programs,
    settings,
    source_epoch,
    source_version,
)

LIBRARY = "usr/lib/oort"
EXTENSION = f"{LIBRARY}/oort/_native.abi3.so"
# No paths of the machine that compiles; the hardening flags of Debian's policy.
CFLAGS = (
    "-g0 -ffile-prefix-map={root}=. -ffile-prefix-map={build}=. -fstack-protector-strong"
    " -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
)
LDFLAGS = "-Wl,-z,relro -Wl,-z,now"
_NOT_FOR_COMPILERS = ("CFLAGS", "CPPFLAGS", "LDFLAGS", "PYTHONPATH")
# Files of the wheel that only a build or an installer needs.
_LEFT_OUT = re.compile(r"oort/native_build\.py$|.*\.pyi$|.*\.dist-info/(?!METADATA$)")

# -I: neither the working directory, nor PYTHONPATH, nor a home directory can shadow our modules.
# -B: a program that root runs leaves no files that belong to no package.
_PROGRAM = """\
#!/usr/bin/python3 -IB
import sys

sys.path.insert(0, "/{library}")
try:
    from {module} import {function}

    sys.exit({function}())
except ModuleNotFoundError as error:
    if (error.name or "oort").partition(".")[0] == "oort":
        raise
    print(f"{name}: no Python module {{error.name}}: install it, or {package}", file=sys.stderr)
    sys.exit(78)  # EX_CONFIG: systemd does not try again
"""


def stage(build: Path, version: str = "") -> Path:
    root = build / "root"
    shutil.rmtree(build, ignore_errors=True)
    root.mkdir(parents=True)
    epoch = source_epoch()
    _compile(build, epoch)
    _unpack(build, root)
    for program in programs():
        _program(root, program)
    shutil.copytree(ROOT / "packaging" / "root", root, dirs_exist_ok=True)
    _documentation(root, epoch, version)
    _check(root)
    _settle(root, epoch)
    return root


def _compile(build: Path, epoch: int) -> None:
    """Make a wheel in build/wheel, from a clean build in build/compiled."""
    compiled = build / "compiled"
    compiled.mkdir()
    names = {"root": ROOT, "build": build.resolve()}
    environment = {
        **{k: v for k, v in os.environ.items() if k not in _NOT_FOR_COMPILERS},
        "OORT_CFLAGS": CFLAGS.format(**names),
        "OORT_LDFLAGS": LDFLAGS,
        "SOURCE_DATE_EPOCH": str(epoch),
        "LC_ALL": "C.UTF-8",
    }
    steps = ["egg_info", "--egg-base", str(compiled)]
    steps += ["build", "--build-base", str(compiled)]
    steps += ["bdist_wheel", "--bdist-dir", str(compiled / "wheel")]
    steps += ["--dist-dir", str(build / "wheel")]
    command = [sys.executable, "setup.py", "-q", *steps]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        # setuptools prints long warnings about good builds too.
        sys.stderr.buffer.write(done.stdout)
        raise DescriptionError(f"setup.py failed with {done.returncode}; its output is above")


def _unpack(build: Path, root: Path) -> None:
    (wheel,) = (build / "wheel").glob("*.whl")
    if "-abi3-" not in wheel.name:
        raise DescriptionError(f"{wheel.name}: must be abi3, to work with every Python version")
    library = root / LIBRARY
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not _LEFT_OUT.match(name):
                archive.extract(name, library)
    if not (root / EXTENSION).exists():
        raise DescriptionError(f"{wheel.name}: must contain {EXTENSION}")
    subprocess.run(
        ["strip", "--strip-unneeded", "--remove-section=.comment", str(root / EXTENSION)],
        check=True,
    )


def _program(root: Path, program: Program) -> None:
    path = root / "usr/bin" / program.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        _PROGRAM.format(
            library=LIBRARY,
            module=program.module,
            function=program.function,
            name=program.name,
            package=settings()["package"]["name"],
        )
    )


def _documentation(root: Path, epoch: int, version: str) -> None:
    about = settings()["package"]
    name, revision, maintainer = about["name"], about["revision"], about["maintainer"]
    version = version or source_version()
    documents = root / "usr/share/doc" / name
    documents.mkdir(parents=True, exist_ok=True)
    for document in about["documents"]:
        source = ROOT / "docs" / document
        if source.exists():
            shutil.copy(source, documents / document)
    shutil.copy(ROOT / "debian" / "copyright", documents / "copyright")
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    _zip(documents / "changelog.gz", text)
    _zip(
        documents / "changelog.Debian.gz",
        changelog.debian(
            text, epoch, name=name, version=version, revision=revision, maintainer=maintainer
        ),
    )
    licence = root / "usr/share/licenses" / name / "LICENSE"
    licence.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "LICENSE", licence)
    overrides = root / "usr/share/lintian/overrides" / name
    overrides.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "debian" / "oortd.lintian-overrides", overrides)
    for program in programs():
        usage = manual.usage(program, root / LIBRARY)
        page = root / f"usr/share/man/man{program.section}/{program.name}.{program.section}.gz"
        page.parent.mkdir(parents=True, exist_ok=True)
        _zip(page, manual.page(usage, version=version, epoch=epoch))
        words = root / "usr/share/bash-completion/completions" / program.name
        words.parent.mkdir(parents=True, exist_ok=True)
        words.write_text(completion.script(usage))


def _zip(path: Path, text: str) -> None:
    """gzip -9n."""
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _check(root: Path) -> None:
    """Refuse files and content that must never be in a package."""
    places = {str(ROOT).encode(), str(Path.home()).encode() + b"/"} - {b"/root/"}
    for path in sorted(root.rglob("*")):
        if path.suffix in (".pyc", ".key", ".pem", ".crt") or path.name == "__pycache__":
            raise DescriptionError(f"{path.relative_to(root)}: this must not be in a package")
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if b"PRIVATE KEY-----" in content and b"-----BEGIN" in content and path.suffix != ".py":
            raise DescriptionError(f"{path.relative_to(root)}: contains a private key")
        for place in places:
            if place in content:
                raise DescriptionError(
                    f"{path.relative_to(root)}: contains the path {place.decode()}"
                )


def _settle(root: Path, epoch: int) -> None:
    """Set modes and times, so that they depend neither on the builder nor on the time."""
    special = settings()["package"]["modes"]
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            program = path.is_dir() or path.parent == root / "usr/bin"
            usual = 0o755 if program else 0o644
            path.chmod(special.get(f"/{path.relative_to(root)}", usual))
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    root.chmod(0o755)
    os.utime(root, (epoch, epoch))


def included(root: Path, package: Package) -> list[Path]:
    """The staged paths of a format's package, sorted: files, links, its own directories."""
    chosen = []
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if name in package.excluded:
            continue
        own = any(name == top or name.startswith(f"{top}/") for top in package.directories)
        if path.is_symlink() or not path.is_dir() or own:
            chosen.append(path)
    return chosen
