# SPDX-License-Identifier: MIT
"""Keeps runs of the Python benchmarks, and holds a new one against the last one kept of the same machine.

``python bench/compare.py --save JSON`` copies what ``pytest bench --benchmark-json`` wrote to bench/saved/;
``python bench/compare.py --bound 60 JSON`` compares: exit status 1 if a minimum is more than so many percent above the
one kept, 2 if there is nothing to compare with. Minima, because everything that disturbs makes a run slower.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

SAVED = Path(__file__).parent / "saved"


def machine_of(run: dict[str, Any]) -> tuple[object, ...]:
    """What has to be equal for two runs to be comparable."""
    info = run["machine_info"]
    cpu = info["cpu"]
    python = info["python_version"].rsplit(".", 1)[0]
    return cpu.get("brand_raw"), cpu.get("count"), info["system"], info["file_system"], info["crc32c"], python


def load(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def last_of_the_same_machine(run: dict[str, Any], saved: Path = SAVED) -> dict[str, Any] | None:
    """The newest one, but for this run itself."""
    runs = [load(path) for path in saved.glob("*.json")]
    like = [one for one in runs if machine_of(one) == machine_of(run) and one["datetime"] != run["datetime"]]
    return max(like, key=lambda one: str(one["datetime"]), default=None)


def compare(new: dict[str, Any], old: dict[str, Any], bound: float) -> tuple[str, list[str]]:
    """A table, and the names of what became slower than the bound allows."""
    before = {one["fullname"]: one["stats"]["min"] for one in old["benchmarks"]}
    slower = []
    lines = [f"{'':40} {'then, ms':>10} {'now, ms':>10} {'change':>8}"]
    for one in sorted(new["benchmarks"], key=lambda one: (str(one["group"]), str(one["name"]))):
        now, then = one["stats"]["min"], before.pop(one["fullname"], None)
        if then is None:
            lines.append(f"{one['name']:40} {'':>10} {now * 1e3:10.3f}      new")
            continue
        change = (now / then - 1) * 100
        mark = ""
        if change > bound:
            slower.append(one["name"])
            mark = f"  more than {bound:g} % slower"
        lines.append(f"{one['name']:40} {then * 1e3:10.3f} {now * 1e3:10.3f} {change:+7.0f}%{mark}")
    lines += [f"{name}: not measured any more" for name in before]
    return "\n".join(lines), slower


def commit_of(run: dict[str, Any]) -> str:
    return f"{str(run['commit_info'].get('id') or 'unknown')[:10]} of {run['datetime'][:19]}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep a run of the Python benchmarks, or compare it.")
    parser.add_argument("run", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--save", action="store_true", help="keep it in bench/saved/")
    parser.add_argument("--bound", type=float, default=60, help="percent that a minimum may be above the one kept")
    args = parser.parse_args()
    run = load(args.run)
    if args.save:
        SAVED.mkdir(exist_ok=True)
        name = SAVED / f"{run['datetime'][:19].replace(':', '')}-{str(run['commit_info'].get('id'))[:10]}.json"
        shutil.copy(args.run, name)
        print(f"kept as {name}")
        return 0
    old = last_of_the_same_machine(run)
    if old is None:
        print(f"no run of this machine is kept in {SAVED}: make bench-save keeps one", file=sys.stderr)
        return 2
    table, slower = compare(run, old, args.bound)
    print(f"commit {commit_of(run)} against {commit_of(old)}\n{table}")
    if slower:
        print(f"slower: {', '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
