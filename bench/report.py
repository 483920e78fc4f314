# SPDX-License-Identifier: MIT
"""Turns what was measured into a page with plots in bench/report/: ``python bench/report.py JSON [NAME]``.

Reads the JSON of the native benchmark and, for native.md, that of pytest-benchmark beside it (python.json) if there is
one. Curves go into files of their own as well, NAME-CURVE.hgrm, as HdrHistogram writes percentiles and its plotters
read them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
OUT = ROOT / "bench" / "report"
SHOWN = ("50", "90", "99", "99.9", "99.99", "100")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def duration(ns: float) -> str:
    """Three digits, and the unit that fits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def machine_lines(machine: dict[str, Any]) -> str:
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{when}, commit {commit()}. {machine['processor']}, {machine['processors']} processors, "
        f"Linux {machine['kernel']}, CRC-32C {machine['crc32c']}; others took "
        f"{machine['taken_by_others_percent']:.1f} % of a processor when it began.\n"
    )


def write_hgrm(name: str, curve: dict[str, Any]) -> None:
    """Percentiles in microseconds, in the text format of HdrHistogram."""
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for percent, ns in curve["percentiles_ns"].items():
        part = float(percent) / 100
        count = round(part * curve["count"])
        lines.append(f"{ns / 1000:12.3f} {part:2.12f} {count:10d}" + (f" {1 / (1 - part):14.2f}" if part < 1 else ""))
    what = re.sub(r"\W+", "-", f"{curve['name']} {curve['where']} {curve['rate']}").strip("-")
    (OUT / f"{name}-{what}.hgrm").write_text("\n".join(lines) + "\n")


def plot_latency(curves: list[dict[str, Any]], name: str) -> None:
    """Percentiles on a scale where each nine takes the same room, as HdrHistogram draws them."""
    figure, axes = plt.subplots(figsize=(9, 5))
    for curve in curves:
        points = [(1 / (1 - float(p) / 100), max(ns, 1)) for p, ns in curve["percentiles_ns"].items() if float(p) < 100]
        label = f"{curve['name']} ({curve['where'] + ', ' if curve['where'] else ''}{curve['rate']:,}/s)"
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="ns since the record was due")
    axes.set_xticks([1, 10, 100, 1000, 10000, 100000], ["0", "90", "99", "99.9", "99.99", "99.999"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    figure.savefig(OUT / f"{name}-curves.svg", bbox_inches="tight")
    plt.close(figure)


def plot_throughput(rows: list[dict[str, Any]]) -> None:
    """Records a second by payload size; the raw loop is the limit."""
    figure, axes = plt.subplots(figsize=(9, 5))
    by_name = defaultdict(list)
    for row in rows:
        if row["section"] in ("append", "read") and row["where"] == "disk":
            by_name[row["section"], row["name"]].append((row["bytes"], 1e3 / row["median"]))
    for (section, name), points in by_name.items():
        style = "--" if "raw" in name else "-"
        axes.plot(*zip(*sorted(points), strict=True), style, marker=".", label=f"{section}: {name}")
    axes.set(xscale="log", yscale="log", xlabel="payload, bytes", ylabel="million records a second")
    axes.set_xticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1 Ki", "4 Ki"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    figure.savefig(OUT / "throughput.svg", bbox_inches="tight")
    plt.close(figure)


def row_cells(row: dict[str, Any]) -> tuple[object, ...]:
    where = " ".join(filter(None, (row["where"], row["distance"])))
    ratio = f"{row['ratio_median']:.2f}x" if "ratio_median" in row else ""
    goal = ""
    if "reached" in row:
        goal = f"<= {row['goal_ratio_at_most']:.1f}x" if "goal_ratio_at_most" in row else f">= {row['goal_at_least']:g}"
        goal += " reached" if row["reached"] else " **not reached**"
    spread = f"{row['min']:.1f} to {row['max']:.1f}"
    return row["name"], where, row["bytes"] or "", f"{row['median']:.1f} {row['unit']}", spread, ratio, goal


def sections(results: list[dict[str, Any]], name: str) -> str:
    text = ""
    for section in dict.fromkeys(entry["section"] for entry in results):
        entries = [entry for entry in results if entry["section"] == section]
        rows = [entry for entry in entries if "median" in entry]
        curves = [entry for entry in entries if "percentiles_ns" in entry]
        text += f"\n## {section}\n\n"
        if rows:
            head = ("", "where", "bytes", "median", "min to max", "of raw", "goal")
            text += table(head, map(row_cells, rows))
        if curves:
            named_head = ("", "where", "due/s", *(f"{p}%" if p != "100" else "max" for p in SHOWN))
            cells = ([duration(c["percentiles_ns"][p]) for p in SHOWN] for c in curves)
            named = ((c["name"], c["where"], f"{c['rate']:,}") for c in curves)
            text += table(named_head, ((*n, *v) for n, v in zip(named, cells, strict=True)))
            text += f"\n![latency]({name}-curves.svg)\n"
        if section == "append":
            text += "\n![throughput](throughput.svg)\n"
        text += "".join(f"\n{entry['note']}\n" for entry in entries if "note" in entry)
    return text


def python(path: Path) -> str:
    found = sorted(json.loads(path.read_text())["benchmarks"], key=lambda b: (b["group"], b["stats"]["median"]))
    rows = [(b["group"], b["name"], f"{b['extra_info']['records_per_second']:,}") for b in found]
    return "\n## Python\n\n" + table(("group", "test", "records a second, median"), rows)


def main() -> None:
    source = Path(sys.argv[1])
    name = sys.argv[2] if len(sys.argv) > 2 else "native"
    measured = json.loads(source.read_text())
    OUT.mkdir(exist_ok=True)
    results = measured["results"]
    if curves := [entry for entry in results if "percentiles_ns" in entry]:
        plot_latency(curves, name)
        for curve in curves:
            write_hgrm(name, curve)
    if rows := [entry for entry in results if "median" in entry]:
        plot_throughput(rows)
    what = "make bench" if name == "native" else f"make bench-{name}"
    text = f"# What {what} measured\n\n" + machine_lines(measured["machine"]) + sections(results, name)
    beside = source.with_name("python.json")
    if name == "native" and beside.exists():
        text += python(beside)
    (OUT / f"{name}.md").write_text(text)
    print(f"{(OUT / f'{name}.md').relative_to(ROOT)}, with plots and *.hgrm beside it")


if __name__ == "__main__":
    main()
