# SPDX-License-Identifier: MIT
"""``chronicle verify``: read everything, check everything, say where damage is."""

from __future__ import annotations

import argparse
import json

from chronicle_ffi import Problem, Queue, VerifyReport
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import DAMAGED, OK, may_lose_reader
from chronicle_ffi.cli.text import binary_size, plural

EXAMPLES = """\
  chronicle verify /var/tmp/q
  chronicle verify /var/tmp/q --json | jq '.problems[].text'
  chronicle repair /var/tmp/q --dry-run              what could be done about it?

Only reads: the queue may be in use. Exit status 0 if all is well, 1 if anything is damaged. Notes tell what is no
problem: records that a repair has accepted as lost, files that are not the queue's.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "verify",
        "check every byte of a queue",
        "Read everything in a queue and check it: every checksum, every link between files.",
        EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    report = Queue.verify(args.queue)
    with may_lose_reader():
        if args.json:
            print(json.dumps(as_object(report), indent=2))
        else:
            print("\n".join([*map(problem_line, report.problems), *map(note_line, report.notes), summary(report)]))
    return OK if report.ok else DAMAGED


def problem_line(problem: Problem) -> str:
    """file, offset, kind, the seqs concerned, what is wrong."""
    where = f"{problem.file}, byte {problem.offset}: {problem.kind}"
    if problem.seq is not None:
        where += f", seq {problem.seq}"
        if problem.seq_end is not None and problem.seq_end - 1 > problem.seq:
            where += f" to {problem.seq_end - 1}"
    return f"{where}: {problem.text}"


def note_line(note: Problem) -> str:
    return f"note: {note.text}"


def summary(report: VerifyReport) -> str:
    read = (
        f"{plural(report.records, 'record')} ({binary_size(report.payload_bytes)} of payload) in "
        f"{plural(report.segments, 'segment')}, {plural(report.readers, 'reader')}"
    )
    if report.gaps:
        read += f", {plural(report.gap_records, 'record')} accepted as lost"
    return f"{read}: {'all is well' if report.ok else plural(len(report.problems), 'problem')}"


def as_object(report: VerifyReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "records": report.records,
        "payload_bytes": report.payload_bytes,
        "segments": report.segments,
        "readers": report.readers,
        "oldest_seq": report.oldest_seq,
        "next_seq": report.next_seq,
        "gaps": report.gaps,
        "gap_records": report.gap_records,
        "problems": [found_object(problem) for problem in report.problems],
        "notes": [found_object(note) for note in report.notes],
    }


def found_object(found: Problem) -> dict[str, object]:
    return {
        "kind": found.kind,
        "file": found.file,
        "offset": found.offset,
        "seq": found.seq,
        "seq_end": found.seq_end,
        "text": found.text,
    }
