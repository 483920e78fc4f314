# SPDX-License-Identifier: MIT
"""Only what pyproject.toml cannot say: the extension is built by cffi."""

from setuptools import setup

setup(cffi_modules=["build_ffi.py:ffibuilder"])
