# SPDX-License-Identifier: MIT
"""The list of mutants fits the code: each can be made, and the tests named for it are there (``make mutants``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_can_be_made(mutant: Mutant) -> None:
    assert mutant.old in (ROOT / "csrc" / "src" / mutant.file).read_text()
    assert mutant.old != mutant.new
    for test in mutant.tests:
        source = test if test.endswith(".py") else f"tests/c/{Path(test).name}.c"
        assert (ROOT / source).exists()


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
