# SPDX-License-Identifier: MIT
"""What a changed header rebuilds."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from build_ffi import HEADERS, SOURCES, builder

ROOT = Path(__file__).parent.parent


def run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def including() -> dict[str, set[str]]:
    """For each header the sources that the compiler reads it for; and the library is built."""
    run("make", "lib")
    found = defaultdict(set)
    rules = run(os.environ.get("CC", "cc"), "-MM", "-Icsrc/include", "-Icsrc/src", *SOURCES).replace("\\\n", "")
    for rule in rules.splitlines():
        source, *headers = rule.split()[1:]
        for header in headers:
            found[os.path.normpath(header)].add(source)
    return found


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_rebuilds_what_includes_it_and_no_more(header: str, including: dict[str, set[str]]) -> None:
    said = run("make", "--dry-run", "V=1", f"--what-if={header}", "lib")
    assert set(re.findall(r" -c (csrc/\S+\.c) ", said)) == including[header]


def test_a_header_rebuilds_the_extension(tmp_path: Path) -> None:
    """setuptools has to know as well as make: it passes over what looks finished to it."""
    assert set(HEADERS) <= set(builder().distutils_extension(str(tmp_path)).depends)
