# SPDX-License-Identifier: MIT
"""Writes what the race gave to bench/report/: peers.md, peers.json and peers.svg."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.peers.contestants import OURS
from bench.peers.goals import GOALS, Spread, Verdict, judge, percentile, rate
from bench.peers.interface import GROUP, TASKS, Contestant, Task
from bench.peers.measure import PERCENTILES
from bench.peers.race import Cell
from bench.report import duration, table

mpl.use("svg")
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Outcome:
    """All that the report is made of. `absent` maps contestants that could not take part to the reason."""

    cells: list[Cell]
    contestants: dict[str, type[Contestant]]
    absent: dict[str, str]
    machine: dict[str, str]
    run: dict[str, str]

    def packed(self, cell: Cell) -> bool:
        return self.contestants[cell.contestant].packed and TASKS[cell.task].write == "append_batch"

    def sizes(self) -> list[int]:
        return sorted({cell.size for cell in self.cells})

    def verdicts(self) -> Iterator[Verdict]:
        for goal in GOALS:
            for size in self.sizes():
                yield from judge(goal, size, self.cells, OURS, self.packed)


def figure(value: float) -> str:
    """Records a second, in three digits."""
    for unit, size in ((" M/s", 1e6), (" k/s", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}/s"


def spread_cells(found: Spread | None, failure: str, show: Any) -> tuple[str, str]:
    """Median, and least to most."""
    if found is None:
        return failure, ""
    return f"**{show(found.median)}**", f"{show(found.least)} to {show(found.most)}"


def failure_of(cell: Cell) -> str:
    return cell.failures[-1] if cell.failures else "not run"


def rates(outcome: Outcome, task: Task) -> str:
    """A table of one task, the fastest first."""
    sizes = outcome.sizes()
    found: dict[str, list[Cell]] = {}
    for cell in outcome.cells:
        if cell.task == task.name:
            found.setdefault(cell.contestant, []).append(cell)

    def order(name: str) -> float:
        first = rate(found[name][0])
        return -first.median if first else 0.0

    head = ["", "promise", *(text for size in sizes for text in (f"{size} B", "min to max"))]
    rows = []
    for name in sorted(found, key=order):
        kind = outcome.contestants[name]
        promise = "on disk" if task.durable else kind.promise
        by_size = {cell.size: cell for cell in found[name]}
        columns = [spread_cells(rate(by_size[s]), failure_of(by_size[s]), figure) for s in sizes if s in by_size]
        mark = " (packed by the user)" if outcome.packed(found[name][0]) else ""
        rows.append([name + mark, promise, *(text for pair in columns for text in pair)])
    return table(head, rows)


def trips(outcome: Outcome, task: Task) -> str:
    """Percentiles, a row for each contestant and size."""
    rows = []
    for cell in sorted((c for c in outcome.cells if c.task == task.name), key=_median_trip):
        shown: list[str] = []
        for name in PERCENTILES:
            shown += spread_cells(percentile(cell, name), failure_of(cell), duration)
        rows.append([cell.contestant, cell.size, *shown])
    head = ["", "bytes", *(text for name in PERCENTILES for text in (name, "min to max"))]
    return table(head, rows)


def _median_trip(cell: Cell) -> tuple[int, float]:
    found = percentile(cell, "p50")
    return cell.size, found.median if found else float("inf")


def goals(outcome: Outcome) -> str:
    rows = []
    for verdict in outcome.verdicts():
        goal = verdict.goal
        best = f"{verdict.peer}, {TASKS[verdict.task].title}{' (packed by the user)' if verdict.packed else ''}"
        said = "reached" if verdict.reached else "**not reached**"
        ours, theirs = figure(verdict.ours), figure(verdict.best)
        rows.append((goal.title, verdict.size, ours, best, theirs, f"{verdict.ratio:.2f}x", f"{goal.factor:g}x", said))
    return table(["", "bytes", "ours", "best peer", "its rate", "ratio", "goal", ""], rows)


def contestants(outcome: Outcome) -> str:
    text = ""
    for name, kind in outcome.contestants.items():
        text += f"- **{name}**: {kind.version()}; {kind.promise}. {kind.settings}."
        text += f" On disk: {kind.durable_settings}.\n" if kind.durable_settings else "\n"
    text += "".join(f"- **{name}** took no part: {why}\n" for name, why in outcome.absent.items())
    return text


HOW = f"""
Every figure is the median over the rounds; *min to max* are the slowest and the fastest round. In a round each
contestant has its turn at each task, in a fresh process and a fresh directory. The number of records is chosen for
each, so that a run takes about as long. What is read is compared with what was written, byte for byte and in order:
outside of the time within one process, inside of it between two. Reading is what another process has just written,
from memory. One by one is a call for each record; a batch is the peer's own call for many, of 1000 records unless its
settings say otherwise; *packed by the user* means that it has none, and a list of records was sent as one message. A
promise "on disk" is kept by fsync before each record, or each group of {GROUP}, is acknowledged. Columns of ours
include a sum over eight bytes of each payload.
"""


def markdown(outcome: Outcome) -> str:
    text = "# The race\n\n"
    text += table(["", ""], [*outcome.machine.items(), *outcome.run.items()])
    text += HOW + "\n## Goals\n\n" + goals(outcome)
    text += "\n![rates by contestant](peers.svg)\n"
    for task in TASKS.values():
        if any(cell.task == task.name for cell in outcome.cells):
            text += f"\n## {task.title[0].upper()}{task.title[1:]}\n\n"
            text += trips(outcome, task) if task.kind == "trip" else rates(outcome, task)
    return text + "\n## Contestants\n\n" + contestants(outcome)


def plot(outcome: Outcome, path: Path) -> None:
    """Bars of the smallest records, a panel for each task."""
    size = outcome.sizes()[0]
    tasks = [task for task in TASKS.values() if task.kind != "trip"]
    panels = []
    for task in tasks:
        bars = [(c.contestant, s) for c in outcome.cells if c.task == task.name and c.size == size and (s := rate(c))]
        if bars:
            panels.append((task, sorted(bars, key=lambda bar: bar[1].median)))
    if not panels:
        return
    heights = [len(bars) + 1 for _, bars in panels]
    drawing, axes = plt.subplots(len(panels), 1, figsize=(9, 0.26 * sum(heights)), height_ratios=heights, squeeze=False)
    for axis, (task, bars) in zip(axes[:, 0], panels, strict=True):
        medians = [found.median for _, found in bars]
        spans = [[m - f.least for m, (_, f) in zip(medians, bars, strict=True)], [f.most - f.median for _, f in bars]]
        colours = ["tab:orange" if name == OURS else "tab:blue" for name, _ in bars]
        axis.barh([name for name, _ in bars], medians, xerr=spans, color=colours, error_kw={"elinewidth": 0.8})
        axis.set_xscale("log")
        axis.set_xlim(1e2, 1e8)
        axis.set_title(f"{task.title}, {size} B, records a second", fontsize="small", loc="left")
        axis.tick_params(labelsize="small")
        axis.grid(axis="x", alpha=0.3)
    drawing.tight_layout()
    drawing.savefig(path)
    plt.close(drawing)


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "machine": outcome.machine,
        "run": outcome.run,
        "contestants": {
            name: {"version": k.version(), "settings": k.settings, "promise": k.promise, "durable": k.durable_settings}
            for name, k in outcome.contestants.items()
        },
        "absent": outcome.absent,
        "cells": [asdict(cell) for cell in outcome.cells],
        "goals": [{**asdict(v), "ratio": v.ratio, "reached": v.reached} for v in outcome.verdicts()],
    }


def write(outcome: Outcome, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    plot(outcome, directory / "peers.svg")
    (directory / "peers.json").write_text(json.dumps(as_json(outcome), indent=1) + "\n")
    (directory / "peers.md").write_text(markdown(outcome))
