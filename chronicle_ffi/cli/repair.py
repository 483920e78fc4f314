# SPDX-License-Identifier: MIT
"""``chronicle repair``: cut off what is damaged, keep a copy of it, and say what that was."""

from __future__ import annotations

import argparse
from pathlib import Path

from chronicle_ffi import Queue, Recovery
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import OK
from chronicle_ffi.cli.text import binary_size, plural

EXAMPLES = """\
  chronicle verify /var/tmp/q        what is damaged?
  chronicle repair /var/tmp/q        cut it off

The log ends before the first record that does not check out, even if records behind it are good: a copy of
all that is cut off is kept in Q/quarantine. A writer refuses to open such a queue until this has been done,
if what is damaged was on disk before. To read around the damage instead: chronicle tail --skip-damaged.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "repair",
        "cut off damaged records, and keep a copy",
        "Recover a queue whose writer refuses to open because records that were on disk are damaged.",
        EXAMPLES,
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    quarantine = Path(args.queue, "quarantine")
    before = names_in(quarantine)
    with Queue.open_publisher(args.queue, create=False, repair=True, keeper=False) as writer:
        recovery = writer.recovery
    for line in tell(recovery, [str(quarantine / name) for name in sorted(names_in(quarantine) - before)]):
        print(line)
    return OK


def names_in(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def tell(recovery: Recovery, copies: list[str]) -> list[str]:
    lines = [f"checked {plural(recovery.scanned_records, 'record')} ({binary_size(recovery.scanned_bytes)})"]
    if recovery.repaired_rolls:
        lines.append(f"completed {plural(recovery.repaired_rolls, 'roll')} that a crash had left half done")
    if recovery.cut_bytes or recovery.cut_segments:
        lines.append(
            f"cut off {binary_size(recovery.cut_bytes)} with {plural(recovery.cut_records, 'whole record')}"
            f" still recognisable, and {plural(recovery.cut_segments, 'later segment')}"
        )
        lines.append("kept in:" if recovery.quarantined else "NOT kept: there was no room for a copy")
        lines += [f"  {copy}" for copy in copies]
    else:
        lines.append("nothing had to be cut off")
    if recovery.repaired_headers:
        lines.append(f"made {plural(recovery.repaired_headers, 'segment header')} anew")
    if recovery.gaps:
        lines.append(
            f"accepted as lost: {plural(recovery.gap_records, 'record')} in {plural(recovery.gaps, 'gap')};"
            " what is whole behind stays"
        )
    if recovery.lost_records:
        lines.append(f"lost: {plural(recovery.lost_records, 'record')} that the last writer had appended")
    lines.append(f"the log goes on at seq {recovery.next_seq}")
    return lines
