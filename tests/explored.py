# SPDX-License-Identifier: MIT
"""Counts what the stateful tests met, told at the end of a run of pytest (conftest.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

steps: Counter[str] = Counter()  # of each machine
states: set[tuple[Hashable, ...]] = set()  # different ones, as a machine describes itself: machine, then small values
deaths: Counter[str] = Counter()  # of helper processes, by the place they died at


def note(machine: object, *state: Hashable) -> None:
    name = type(machine).__name__
    steps[name] += 1
    states.add((name, *state))


def lines() -> list[str]:
    told = [
        f"{name}: {count} steps, {len([state for state in states if state[0] == name])} different states"
        for name, count in sorted(steps.items())
    ]
    if deaths:
        told.append(f"{sum(deaths.values())} processes died, at {len(deaths)} different places")
    return told
