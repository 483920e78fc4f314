# SPDX-License-Identifier: MIT
"""Checks the rules of ARCHITECTURE.md that a compiler does not: who may include and import what, and sizes."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "csrc" / "src"
LINES_MAX = 600
TABLES = {"mutations.py"}  # as long as they need to be
FUNCTION_LINES_MAX = 75

# A layer may include its own and those below it.
LAYERS = [
    ["chronicle.h", "endian.h", "atomics.h", "format.h", "step.h"],
    ["crc32c.h", "crc32c_hw.h", "crc32c_impl.h", "crc32c_shift.h", "error.h", "platform.h"],
    ["header.h", "slots.h", "record.h"],
    ["queue.h", "doorbell.h", "listen.h"],
    ["segment.h", "position.h"],
    ["quarantine.h", "recovery.h", "retention.h", "verify.h"],
    ["writer.h", "reader.h"],
]
SYSTEM_IFDEF = re.compile(r"#\s*(?:if|elif|ifdef|ifndef)\b.*__(?:linux__|APPLE__|FreeBSD__|NetBSD__|OpenBSD__)")
PLATFORM_FILES = {"platform_linux.c", "platform_other.c", "platform_posix.c", "guard.c", "crc32c_arm.c", "platform.h"}


def includes(path: Path) -> list[str]:
    return [Path(name).name for name in re.findall(r'^#include "(.+?)"', path.read_text(), re.MULTILINE)]


def layer_of(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise SystemExit(f"layers: {name} has no layer: add it to .ci/layers.py and ARCHITECTURE.md")


def long_functions(path: Path) -> list[str]:
    """By the braces in column 0."""
    found = []
    begin = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line == "{":
            begin = number
        elif line == "}" and begin:
            if number - begin - 1 > FUNCTION_LINES_MAX:
                found.append(f"{path.name}:{begin}: a function of {number - begin - 1} lines")
            begin = 0
    return found


def problems() -> list[str]:
    found = []
    for path in sorted(SOURCE.glob("*.[ch]")):
        text = path.read_text()
        if path.suffix == ".h":
            found += [
                f"{path.name} includes {name}, which is in a layer above"
                for name in includes(path)
                if layer_of(name) > layer_of(path.name)
            ]
        else:
            found += long_functions(path)
        if "<stdatomic.h>" in text and "#include <stdatomic.h>" in text and path.name != "atomics.h":
            found.append(f"{path.name} includes <stdatomic.h>: atomics.h is the place for that")
        if SYSTEM_IFDEF.search(text) and path.name not in PLATFORM_FILES:
            found.append(f"{path.name} asks for the operating system: that is for the platform layer")
    for path in sorted((ROOT / "chronicle_ffi").rglob("*.py")):
        if "chronicle_ffi._chronicle" in path.read_text() and path.name != "_binding.py":
            found.append(f"{path.name} imports the extension: _binding.py is the place for that")
    found += long_functions(ROOT / "chronicle_ffi" / "_fast.c")
    for path in [*SOURCE.glob("*"), *ROOT.glob("chronicle_ffi/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        if path.is_file() and path.name not in TABLES and (lines := len(path.read_text().splitlines())) > LINES_MAX:
            found.append(f"{path.relative_to(ROOT)} has {lines} lines; {LINES_MAX} are enough")
    return found


if __name__ == "__main__":
    found = problems()
    print("\n".join(found) if found else "layers: ok")
    sys.exit(bool(found))
