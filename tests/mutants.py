# SPDX-License-Identifier: MIT
"""Break the C code on purpose, one small change at a time, and show that the tests notice each.

``make mutants``, or ``python -m tests.mutants [NAME ...]`` for those whose name contains one of the words. Each mutant
of tests/mutations.py is built in a copy of the tree; then the tests named for it run until one fails. First of all
each of these tests has to pass on an unchanged copy. CHRONICLE_MUTANTS_JOBS tries several at the same time. What was
seen goes into the table of docs/mutants.md; what was not tried keeps its row. Status 1 if a mutant survived.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutations import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
DIRECTORIES = ("csrc", "tests", "chronicle_ffi", "examples", "docs")
FILES = ("build_ffi.py", "setup.py", "Makefile", "pyproject.toml", "README.md")
SECONDS = 900  # for one test; a hang is a failure as well
TABLE = ROOT / "docs" / "mutants.md"
HEAD = """\
<!-- SPDX-License-Identifier: MIT -->
# Mutants

Each is one change to the C code; the last column says which test noticed it, and by which invariant if it was one.
`make mutants` tries them and writes this table; [TESTING.md](TESTING.md) says more.

| mutation | file | noticed by |
|---|---|---|
"""


def copy_to(tree: Path) -> None:
    """What the tests need, and what make has compiled already: times are kept, so that it compiles what changes."""
    for name in DIRECTORIES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in FILES:
        shutil.copy2(ROOT / name, tree / name)
    for compiled in ("build/test", "build/tsan", "build/sim"):
        for folder in (ROOT / "csrc" / "src").iterdir():
            if (ROOT / compiled / folder.name).is_dir():
                shutil.copytree(ROOT / compiled / folder.name, tree / compiled / folder.name)


def apply(mutant: Mutant, tree: Path) -> None:
    file = tree / "csrc" / "src" / mutant.file
    text = file.read_text()
    if mutant.old not in text:
        raise SystemExit(f"{mutant.name}: {mutant.file} has no {mutant.old!r} any more")
    file.write_text(text.replace(mutant.old, mutant.new))


def run(command: list[str | Path], tree: Path) -> bool:
    """True: it succeeded."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")} | {
        "PYTHONPATH": str(tree),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / "hypothesis"),
        "CHRON_BELL_ROUNDS": "8000000",  # a missing fence shows once in some hundred thousand
    }
    with (tree / "output").open("wb") as output:
        try:
            done = subprocess.run(command, cwd=tree, env=environment, stdout=output, stderr=output, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def passes(test: str, tree: Path) -> bool:
    """Build what it needs, and run it."""
    if not test.endswith(".py"):
        program = f"build/{test}" if "/" in test else f"build/test/{test}"
        if not run(["make", "-j2", program], tree):
            raise SystemExit(f"{program} cannot be built")
        return run([tree / program], tree)
    if not list((tree / "chronicle_ffi").glob("*.so")) and not run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--build-temp", "build/ext"], tree
    ):
        raise SystemExit("the extension cannot be built")
    return run([sys.executable, "-m", "pytest", "-x", "-q", test], tree)


def check_the_tests(mutants: list[Mutant]) -> None:
    """A test that fails anyway notices nothing."""
    with tempfile.TemporaryDirectory(prefix="chronicle-mutant-") as directory:
        copy_to(Path(directory))
        for test in sorted({test for mutant in mutants for test in mutant.tests}):
            if not passes(test, Path(directory)):
                output = (Path(directory) / "output").read_text(errors="replace")
                raise SystemExit(f"{output[-3000:]}\n{test} fails without any mutation")
    print("all tests that are needed pass without a mutation", flush=True)


def try_out(mutant: Mutant) -> str | None:
    """The test that noticed it, and the invariant, if it was one that did."""
    with tempfile.TemporaryDirectory(prefix="chronicle-mutant-") as directory:
        tree = Path(directory)
        copy_to(tree)
        apply(mutant, tree)
        for test in mutant.tests:
            if not passes(test, tree):
                held = re.search(
                    r"(\w+/\w+\.[ch]):\d+: this should hold", (tree / "output").read_text(errors="replace")
                )
                return f"{test} (invariant in {held[1]})" if held else test
        return None


def rows() -> dict[str, tuple[str, str]]:
    """The table as it is: file and test, by the name of the mutant."""
    return {
        name: (file, test)
        for name, file, test in re.findall(r"^\| (.+) \| (\w+/.+) \| (.+) \|$", TABLE.read_text(), re.M)
    }


def write(found: dict[str, str]) -> None:
    """The table, with what was found now."""
    tests = {name: test for name, (_, test) in rows().items()} | found
    lines = [f"| {mutant.name} | {mutant.file} | {tests.get(mutant.name, 'never tried')} |\n" for mutant in MUTANTS]
    TABLE.write_text(HEAD + "".join(lines))


def main(names: list[str]) -> int:
    mutants = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    check_the_tests(mutants)
    survivors = 0
    with ThreadPoolExecutor(int(os.environ.get("CHRONICLE_MUTANTS_JOBS", "1"))) as pool:
        for mutant, caught in zip(mutants, pool.map(try_out, mutants), strict=True):
            survivors += caught is None
            write({mutant.name: caught or "NOT NOTICED"})
            print(f"{mutant.name}: {caught or 'NOT NOTICED'}", flush=True)
    print(f"{survivors} of {len(mutants)} survived" if survivors else f"{len(mutants)} mutants, all noticed")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
