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
  chronicle verify /var/tmp/q || chronicle repair /var/tmp/q

Only reads: the queue may be in use. Exit status 0 if all is well, 1 if anything is damaged.
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
            print("\n".join([*map(problem_line, report.problems), summary(report)]))
    return OK if report.ok else DAMAGED


def problem_line(problem: Problem) -> str:
    """file, offset, kind, the seqs concerned, what is wrong."""
    where = f"{problem.file}, byte {problem.offset}: {problem.kind}"
    if problem.seq is not None:
        where += f", seq {problem.seq}"
        if problem.seq_end is not None and problem.seq_end - 1 > problem.seq:
            where += f" to {problem.seq_end - 1}"
    return f"{where}: {problem.text}"


def summary(report: VerifyReport) -> str:
    read = (
        f"{plural(report.records, 'record')} ({binary_size(report.payload_bytes)} of payload) in "
        f"{plural(report.segments, 'segment')}, {plural(report.readers, 'reader')}"
    )
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
        "problems": [
            {
                "kind": problem.kind,
                "file": problem.file,
                "offset": problem.offset,
                "seq": problem.seq,
                "seq_end": problem.seq_end,
                "text": problem.text,
            }
            for problem in report.problems
        ],
    }
