# SPDX-License-Identifier: MIT
"""Medians over rounds, and what became of the goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bench.peers.race import Cell


@dataclass(frozen=True)
class Spread:
    """What several rounds gave: records a second, or nanoseconds."""

    median: float
    least: float
    most: float
    rounds: int


def spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))


def rate(cell: Cell) -> Spread | None:
    """Records a second."""
    values = [result["records"] / result["seconds"] for result in cell.results]
    return spread(values) if values else None


def percentile(cell: Cell, name: str) -> Spread | None:
    """Nanoseconds of a round trip."""
    values = [result["nanoseconds"][name] for result in cell.results]
    return spread(values) if values else None


@dataclass(frozen=True)
class Goal:
    """`ours` at one task, at least `factor` times the best peer in any of `theirs`."""

    title: str
    ours: str
    theirs: tuple[str, ...]
    factor: float


GOALS: Final = (
    Goal("append, one by one", "append_one", ("append_one",), 2),
    Goal("append_many", "append_batch", ("append_batch",), 4),
    Goal("append_array", "append_array", ("append_batch",), 20),
    Goal("payloads out", "read_batch", ("read_one", "read_batch"), 1.3),
    Goal("columns out", "read_columns", ("read_one", "read_batch"), 8),
    Goal("two processes", "pair_batch", ("pair_one", "pair_batch"), 5),
    Goal("group commit on disk", "sync_group", ("sync_group",), 3),
)


@dataclass(frozen=True)
class Verdict:
    """What became of a goal for one size of records. `packed`: the peer's batches were packed by its user."""

    goal: Goal
    size: int
    ours: float
    best: float
    peer: str
    task: str
    packed: bool

    @property
    def ratio(self) -> float:
        return self.ours / self.best

    @property
    def reached(self) -> bool:
        return self.ratio >= self.goal.factor


def judge(goal: Goal, size: int, cells: Iterable[Cell], us: str, packed: Callable[[Cell], bool]) -> list[Verdict]:
    """Against the best of all, and if that one's batches were packed by its user, also against the best other one."""
    mine: float | None = None
    rivals: list[tuple[float, Cell]] = []
    for cell in cells:
        found = rate(cell)
        if cell.size != size or found is None:
            continue
        if cell.contestant == us and cell.task == goal.ours:
            mine = found.median
        elif cell.contestant != us and cell.task in goal.theirs:
            rivals.append((found.median, cell))
    if mine is None or not rivals:
        return []
    rivals.sort(key=lambda rival: rival[0], reverse=True)
    chosen = rivals[:1]
    if packed(chosen[0][1]):
        chosen += [rival for rival in rivals if not packed(rival[1])][:1]
    return [Verdict(goal, size, mine, best, cell.contestant, cell.task, packed(cell)) for best, cell in chosen]
