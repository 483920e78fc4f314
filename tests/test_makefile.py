# SPDX-License-Identifier: MIT
"""What a changed header rebuilds, and who counts on which target."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from build_ffi import HEADERS, SOURCES, builder

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = [*WORKFLOWS, ROOT / ".ci" / "run"]
DOCUMENTS = [path for folder in (ROOT, ROOT / "docs", ROOT / "bench") for path in sorted(folder.glob("*.md"))]


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


def targets() -> set[str]:
    """Those that "make help" lists, and so all that are not files."""
    return {name for line in run("make", "help").splitlines() for name in line[:16].split()}


@pytest.mark.parametrize("path", SCRIPTS + DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_that_are_named_exist(path: Path) -> None:
    """``make X`` as a command: at the start of a line, in documents of an indented one, or in backticks."""
    start = r"^ *(?:- )?" if path in SCRIPTS else r"^ {4}(?:\$ )?"
    named = re.findall(rf"(?:{start}|`)(?:\w+=\S* )*make ([a-z][a-z-]*)", path.read_text(), re.MULTILINE)
    assert set(named) <= targets()


def test_workflows_run_what_ci_runs_and_what_takes_long() -> None:
    ci, nightly = (path.read_text() for path in WORKFLOWS)
    assert "- run: .ci/run\n" in ci
    long = "asan tsan valgrind fuzz power stress kill soak soak-views fuzz-stateful mutants portability".split()
    assert set(re.findall(r"- make ([a-z-]+)", nightly)) == set(long)
