# SPDX-License-Identifier: MIT
"""``chronicle repair``: what is damaged, what can be done about it, and, once the user agrees, that."""

from __future__ import annotations

import argparse
import sys

from chronicle_ffi import AccessDenied, Corrupt, Interrupted, Problem, Queue, Recovery, RepairReport
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import BEYOND_REPAIR, LOST, NOT_DONE, OK, REPAIRED, UserError, complain
from chronicle_ffi.cli.text import binary_size, plural

EXAMPLES = """\
  chronicle repair /var/tmp/q --dry-run     what would be done? Read permission suffices
  chronicle repair /var/tmp/q               the same, and then a question
  chronicle repair /var/tmp/q --yes         the same without a question

All whole records stay. Those that cannot be had are given up for good: their seqs are not given away again, and
readers meet them as what retention deleted. Restore them from a backup first, if there is one. What can be known
from elsewhere is made anew: queue.meta, headers, seals, the index. What is set aside is kept: see chronicle quarantine.

Exit status: 0 nothing is wrong; 3 all was put right, and nothing is lost; 4 the same, but records were given up,
or cut off; 5 nothing was done, for nobody said yes; 6 this cannot be repaired. With --dry-run, 3 and 4 say what
would be. 2 and 130 as for all commands.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "repair",
        "put a damaged queue in order",
        "Put a queue in order that no writer opens: say what is damaged and what can be done, ask, and do it.",
        EXAMPLES,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-n", "--dry-run", action="store_true", help="change nothing, only tell")
    how.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    before = set() if args.dry_run else kept_names(args.queue)
    try:
        report = Queue.repair(
            args.queue, dry_run=args.dry_run, approve=None if args.dry_run else lambda found: approve(found, args.yes)
        )
    except Interrupted as error:
        complain(error)
        return NOT_DONE
    except Corrupt as error:
        complain(error)
        return BEYOND_REPAIR
    except AccessDenied as error:
        if args.dry_run:
            raise
        raise UserError(f"{error}; --dry-run shows what would be done, and needs no more than to read") from None
    if args.dry_run:
        print_found(report.found)
    print("\n".join(summary(report)))
    for name in sorted(kept_names(args.queue) - before) if not args.dry_run else []:
        print(f"kept: {args.queue}/quarantine/{name}")
    if not report.found:
        return OK
    return LOST if is_loss(report.recovery) else REPAIRED


def kept_names(path: str) -> set[str]:
    try:
        return {file.name for file in Queue.quarantine(path)}
    except Corrupt:  # the repair says what is the matter
        return set()


def approve(found: list[Problem], yes: bool) -> bool:
    if not found:
        return True
    print_found(found)
    sys.stdout.flush()  # what cannot be told is not done
    if yes:
        return True
    print("Nothing was changed yet. Is this to be done? [y/N] ", end="", flush=True)
    try:
        answer = sys.stdin.readline().strip().lower()
    except OSError:  # it is closed, or cannot be read
        answer = ""
    print()
    return answer in ("y", "yes")


def print_found(found: list[Problem]) -> None:
    for problem in found:
        print(f"{problem.file}: {problem.text}")


def is_loss(recovery: Recovery) -> bool:
    return bool(recovery.gap_records or recovery.cut_bytes or recovery.cut_segments or recovery.lost_records)


def summary(report: RepairReport) -> list[str]:
    recovery = report.recovery
    would = "would be " if report.dry_run else ""
    lines = [f"checked {plural(recovery.scanned_records, 'record')} ({binary_size(recovery.scanned_bytes)})"]
    if not report.found:
        return [*lines, "nothing is wrong"]
    if recovery.gap_records:
        lines.append(
            f"{would}given up: {plural(recovery.gap_records, 'record')} in {plural(recovery.gaps, 'gap')};"
            " what is whole behind stays"
        )
    if recovery.cut_bytes or recovery.cut_segments:
        lines.append(
            f"{would}set aside: {binary_size(recovery.cut_bytes)}, {plural(recovery.cut_records, 'whole record')},"
            f" {plural(recovery.cut_segments, 'segment file')}"
        )
    if not is_loss(recovery):
        lines.append("nothing is lost")
    return [*lines, f"the log goes on at seq {recovery.next_seq}"]
