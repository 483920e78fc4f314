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

# A header may include from its own folder, and from those before it in this list. write/ and read/ are side by side.
FOLDERS = ["base", "crc32c", "platform", "format", "queue", "write", "read"]
APART = {"write", "read"}
SYSTEM_IFDEF = re.compile(r"#\s*(?:if|elif|ifdef|ifndef)\b.*__(?:linux__|APPLE__|FreeBSD__|NetBSD__|OpenBSD__)")
PLATFORM_FILES = {"platform/linux.c", "platform/other.c", "platform/posix.c", "platform/guard.c", "crc32c/arm.c"}


def includes(path: Path) -> list[str]:
    """The folders that it includes from."""
    return [Path(name).parent.name for name in re.findall(r'^#include "(\w+/.+?)"', path.read_text(), re.MULTILINE)]


def may_include(folder: str, other: str) -> bool:
    if folder == other:
        return True
    return FOLDERS.index(other) < FOLDERS.index(folder) and not {folder, other} <= APART


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
    for path in sorted(SOURCE.glob("*/*.[ch]")):
        text = path.read_text()
        name = path.relative_to(SOURCE).as_posix()
        if path.suffix == ".h":
            found += [
                f"{name} includes from {other}/, which is not below it"
                for other in includes(path)
                if not may_include(path.parent.name, other)
            ]
        else:
            found += long_functions(path)
        if "#include <stdatomic.h>" in text and name != "base/atomics.h":
            found.append(f"{name} includes <stdatomic.h>: atomics.h is the place for that")
        if SYSTEM_IFDEF.search(text) and name not in PLATFORM_FILES:
            found.append(f"{name} asks for the operating system: that is for the platform layer")
    for path in sorted((ROOT / "chronicle_ffi").rglob("*.py")):
        if "chronicle_ffi._chronicle" in path.read_text() and path.name != "_binding.py":
            found.append(f"{path.name} imports the extension: _binding.py is the place for that")
    found += long_functions(ROOT / "chronicle_ffi" / "_fast.c")
    for path in [*SOURCE.glob("*/*"), *ROOT.glob("chronicle_ffi/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        if path.is_file() and path.name not in TABLES and (lines := len(path.read_text().splitlines())) > LINES_MAX:
            found.append(f"{path.relative_to(ROOT)} has {lines} lines; {LINES_MAX} are enough")
    return found


if __name__ == "__main__":
    found = problems()
    print("\n".join(found) if found else "layers: ok")
    sys.exit(bool(found))
