# SPDX-License-Identifier: MIT
"""Only what pyproject.toml cannot say: one extension is built by cffi, the other is C for CPython."""

import os
import sysconfig

from setuptools import Extension, setup

STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded builds have no stable ABI

fast = Extension(
    "chronicle_ffi._fast",
    sources=[f"chronicle_ffi/{name}.c" for name in ("_fast", "_claim", "_columns", "_owners", "_taker", "_fetch")],
    depends=["chronicle_ffi/_fast.h", "chronicle_ffi/_taker.h", "csrc/include/chronicle.h"],
    include_dirs=["csrc/include"],
    define_macros=[("Py_LIMITED_API", "0x030A0000")] if STABLE else [],
    py_limited_api=STABLE,
    # Behind whatever CFLAGS say, as in build_ffi.py.
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", *os.environ.get("CHRONICLE_CFLAGS", "").split()],
    extra_link_args=os.environ.get("CHRONICLE_CFLAGS", "").split(),
)

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    ext_modules=[fast],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE else {},
)
