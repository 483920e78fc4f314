# SPDX-License-Identifier: MIT
"""Turns what ``make bench`` measured into bench/report/native.md with two plots: ``python bench/report.py JSON``.

Reads the JSON of the native benchmark and, if there is one beside it (python.json), that of pytest-benchmark.
"""

from __future__ import annotations

import json
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
        f"Linux {machine['kernel']}, CRC-32C {machine['crc32c']}.\n"
    )


def plot_latency(curves: list[dict[str, Any]]) -> None:
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
    figure.savefig(OUT / "latency.svg", bbox_inches="tight")
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


def native(results: list[dict[str, Any]]) -> str:
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
            text += "\n![latency](latency.svg)\n"
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
    measured = json.loads(source.read_text())
    OUT.mkdir(exist_ok=True)
    results = measured["results"]
    if curves := [entry for entry in results if "percentiles_ns" in entry]:
        plot_latency(curves)
    plot_throughput([entry for entry in results if "median" in entry])
    text = "# What make bench measured\n\n" + machine_lines(measured["machine"]) + native(results)
    beside = source.with_name("python.json")
    if beside.exists():
        text += python(beside)
    (OUT / "native.md").write_text(text)
    print(f"{(OUT / 'native.md').relative_to(ROOT)}, latency.svg, throughput.svg")


if __name__ == "__main__":
    main()
