# SPDX-License-Identifier: MIT
"""The list of mutants fits the code: each can be made, and the tests named for it are there (``make mutants``)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutants import rows
from tests.mutations import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def csrc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(ROOT / "csrc", tmp_path_factory.mktemp("mutants") / "csrc")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_can_be_made(mutant: Mutant, csrc: Path) -> None:
    file = csrc / "src" / mutant.file
    text = file.read_text()
    assert mutant.old in text
    assert mutant.old != mutant.new
    file.write_text(text.replace(mutant.old, mutant.new))
    compiled = [file] if file.suffix == ".c" else [csrc / "src" / name for name in ("write/append.c", "read/next.c")]
    command = ["cc", "-fsyntax-only", "-std=c11", "-DCHRON_TESTING", f"-I{csrc}/include", f"-I{csrc}/src"]
    done = subprocess.run([*command, *compiled], capture_output=True, text=True)
    file.write_text(text)
    assert done.returncode == 0, done.stderr
    for test in mutant.tests:
        source = test if test.endswith(".py") else f"tests/c/{Path(test).name}.c"
        if test == "sim/sim":
            source = "tests/sim/main.c"
        assert (ROOT / source).exists()


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_the_table_says_of_each_which_test_noticed_it() -> None:
    table = rows()
    assert list(table) == [mutant.name for mutant in MUTANTS]
    for mutant in MUTANTS:
        file, test = table[mutant.name]
        assert file == mutant.file
        assert test.partition(" (")[0] in mutant.tests, f"{mutant.name}: {test}"
