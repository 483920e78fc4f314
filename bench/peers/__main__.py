# SPDX-License-Identifier: MIT
"""The race's command line: ``make bench-peers PEERS_FLAGS="--only mmapq,lmdb --quick"``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench.peers import machine, report
from bench.peers.contestants import CONTESTANTS, OURS
from bench.peers.interface import TASKS, Contestant, find
from bench.peers.race import ROOT, Cell, Race


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="race chronicle-ffi against its peers")
    parser.add_argument("--list", action="store_true", help="say who can take part, and in what, and stop")
    parser.add_argument("--only", type=names, metavar="NAME,...", help="these peers; chronicle always takes part")
    parser.add_argument("--tasks", type=names, metavar="TASK,...", help="these tasks (--list names them)")
    parser.add_argument("--sizes", type=names, default=["64", "1024"], metavar="BYTES,...", help="default: 64,1024")
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick 1")
    parser.add_argument("--seconds", type=float, help="what a run should take; default: 0.2, with --quick 0.05")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, records of 64 bytes only: who is where, roughly"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of one run; default: 30")
    parser.add_argument("--warm", type=float, default=6.0, metavar="GIB", help="memory to touch first; 0: none")
    parser.add_argument("--dir", type=Path, default=ROOT / "build" / "peers" / "data", help="where queues are made")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "report", help="where the report goes")
    given = parser.parse_args()
    for what, known in ((given.only, CONTESTANTS), (given.tasks, TASKS)):
        if unknown := set(what or ()) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if given.quick:
        given.sizes = given.sizes[:1]
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.seconds = given.seconds or (0.05 if given.quick else 0.2)
    return given


def gather(only: list[str] | None) -> tuple[dict[str, type[Contestant]], dict[str, str]]:
    """Who takes part, and who cannot, with the reason."""
    present: dict[str, type[Contestant]] = {}
    absent: dict[str, str] = {}
    for name, where in CONTESTANTS.items():
        if only and name not in (*only, OURS):
            continue
        found = find(where)
        if isinstance(found, str):
            absent[name] = found
        else:
            present[name] = found
    return present, absent


def show(present: dict[str, type[Contestant]], absent: dict[str, str]) -> None:
    for name, kind in present.items():
        print(f"{name}: {kind.version()}, {kind.promise}\n    {', '.join(kind.tasks)}")
    for name, why in absent.items():
        print(f"{name}: takes no part: {why}")


def main() -> None:
    given = parse()
    present, absent = gather(given.only)
    if given.list:
        show(present, absent)
        return
    begin = time.monotonic()
    for name, why in absent.items():
        print(f"{name} takes no part: {why}")
    memory = machine.warm(int(given.warm * 2**30))
    print(f"memory: {memory}", flush=True)
    given.dir.mkdir(parents=True, exist_ok=True)
    described = {**machine.describe(given.dir), "memory warmed": memory}
    cells = [
        Cell(name, task, int(size))
        for size in given.sizes
        for task in TASKS
        if not given.tasks or task in given.tasks
        for name, kind in present.items()
        if task in kind.tasks
    ]
    race = Race(CONTESTANTS, given.dir, rounds=given.rounds, seconds=given.seconds, timeout_seconds=given.timeout)
    try:
        race.run(cells)
    except KeyboardInterrupt:
        print("interrupted: the report holds what there is")
    took = time.monotonic() - begin
    run = {"rounds": str(given.rounds), "seconds of a run": f"{given.seconds:g}", "whole race": f"{took:.0f} s"}
    whole = report.Outcome(cells, present, absent, described, run)
    report.write(whole, given.out)
    print("\n" + report.goals(whole))
    print(f"{given.out}/peers.md, peers.json, peers.svg; {took:.0f} s")


if __name__ == "__main__":
    main()
