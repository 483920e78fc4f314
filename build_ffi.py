# SPDX-License-Identifier: MIT
"""Builds ``chronicle_ffi._chronicle``: the C library and its cffi glue in one extension.

The declarations are those of csrc/include/chronicle.h itself, between its two cdef markers, and where the fields of a
record lie is asked of the C compiler; nothing is written down twice. setup.py names ``ffibuilder``;
``python build_ffi.py`` prints the declarations, to look at.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
HEADER = "csrc/include/chronicle.h"
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc" / "src").glob("*/*.c"))
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("**/*.h"))

# What Python implements: called for each problem that a verification finds, each record in quarantine, and each job
# whose key is asked for.
CALLBACKS = (
    'extern "Python" int chronicle_on_problem(void *context, const chron_problem *problem);\n'
    'extern "Python" int chronicle_on_view(void *context, const chron_view *record);\n'
    'extern "Python" int64_t chronicle_on_key(void *context, const chron_view *record);\n'
)

# Of base/format.h, for arrays over whole records: the fields by name and type, in any order; "..." is for the rest.
LAYOUT = """
typedef struct { uint64_t seq; uint64_t timestamp_ns; uint16_t type_id; uint16_t flags; ...; } chron__record_header;
#define CHRON__ALIGN ...
"""


def declarations() -> str:
    """chronicle.h as cffi wants it: no attributes, and the C compiler fills in the constants."""
    text = (ROOT / HEADER).read_text(encoding="utf-8")
    part = re.search(r"/\* cdef: begin.*?\*/(.*)/\* cdef: end \*/", text, re.DOTALL)
    if part is None:
        raise RuntimeError(f"{HEADER} has no cdef markers")
    body = re.sub(r"/\*.*?\*/", "", part[1], flags=re.DOTALL).replace("CHRON_API ", "")
    body = re.sub(r"^#define (\w+).*$", r"#define \1 ...", body, flags=re.MULTILINE)
    codes = re.findall(r"^    X\((\w+), \d+,", text, re.MULTILINE)
    return body + "".join(f"#define CHRON_{code} ...\n" for code in codes) + CALLBACKS + LAYOUT


def builder() -> FFI:
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "chronicle_ffi._chronicle",
        '#include <chronicle.h>\n#include "base/format.h"',
        sources=SOURCES,
        depends=HEADERS,  # else a build in place overlooks a change of a header
        include_dirs=["csrc/include", "csrc/src"],
        libraries=["pthread"],
        # Behind whatever CFLAGS say, so that a debugging build of Python does not make a slow queue.
        extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", *os.environ.get("CHRONICLE_CFLAGS", "").split()],
        extra_link_args=os.environ.get("CHRONICLE_CFLAGS", "").split(),
    )
    return ffi


ffibuilder = builder()

if __name__ == "__main__":
    print(declarations())
