"""The compiled part of the package; everything else is in pyproject.toml.

setuptools compiles the sources of one extension one after another.  `build_ext` here compiles as
many of them at the same time as there are processors for this process.  It prints the compiler's
messages, but not the command lines, so that an error in C is easy to find.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command import build_ext as setuptools_build_ext


class build_ext(setuptools_build_ext.build_ext):  # noqa: N801  setuptools names commands like this
    def build_extension(self, ext: Extension) -> None:
        logging.getLogger().setLevel(logging.WARNING)
        compile_in_sequence = self.compiler.compile

        def compile_in_parallel(sources: list[str], **options: Any) -> list[str]:
            def compile_one(source: str) -> list[str]:
                return compile_in_sequence([source], **options)

            # Objects keep the order of the sources, so that two builds link the same bytes.
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                return [name for names in pool.map(compile_one, sources) for name in names]

        self.compiler.compile = compile_in_parallel
        super().build_extension(ext)


setup(
    cffi_modules=["oort/native_build.py:ffibuilder"],
    cmdclass={"build_ext": build_ext},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
