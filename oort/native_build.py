"""How oort._native is compiled: the C library of csrc/ behind cffi in API mode, as abi3.

setup.py names `ffibuilder`.  The declarations are the text of the public headers, csrc/oort.h and
csrc/load.h, between their two cffi marks, so there is no second list to keep.  Paths are relative
to the project's root, where setuptools runs.  OORT_CFLAGS adds compiler flags: our own builds set
-Werror, which a user's newer compiler must not have to pass.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from cffi import FFI

# In the order in which they are read: load.h uses the types of oort.h.
HEADERS = ("oort.h", "load.h")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"]

GENERATED = "csrc/build/generated"  # as csrc/Makefile has it


def declarations(path: Path) -> str:
    """What stands between the marks; an error when a mark is missing or comes twice."""
    header = path.read_text(encoding="utf-8")
    before, begin, rest = header.partition("/* cffi: begin */")
    inside, end, after = rest.partition("/* cffi: end */")
    if not begin or not end or "/* cffi:" in before + inside + after:
        raise ValueError(f"{path}: there must be one 'cffi: begin' and one 'cffi: end' after it")
    return inside


def sources(csrc: Path) -> list[Path]:
    """The library's own files, without the tests and fuzzers beside it."""
    return [path for path in csrc.glob("*/*.c") if path.parent.name not in ("tests", "fuzz")]


def generate() -> None:
    """The C sources that are made from the command table, into GENERATED."""
    subprocess.run([sys.executable, "csrc/commands/generate.py", GENERATED], check=True)


def build() -> FFI:
    csrc = Path("csrc")
    generate()
    ffi = FFI()
    for name in HEADERS:
        ffi.cdef(declarations(csrc / name))
    ffi.set_source(
        "oort._native",
        "".join(f'#include "{name}"\n' for name in HEADERS),
        sources=sorted(str(path) for path in sources(csrc)),
        depends=sorted(
            str(path)
            for pattern in ("*.h", "*/*.h", "*/*.def", "build/generated/*/*")
            for path in csrc.glob(pattern)
        ),
        include_dirs=["csrc", GENERATED],
        extra_compile_args=FLAGS + shlex.split(os.environ.get("OORT_CFLAGS", "")),
        extra_link_args=shlex.split(os.environ.get("OORT_LDFLAGS", "")),
        libraries=["pthread", "m"],
        py_limited_api=True,
    )
    return ffi


ffibuilder = build()
