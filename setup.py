"""The compiled part of the package; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["oort/native_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
