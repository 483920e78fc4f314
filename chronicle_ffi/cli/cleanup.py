# SPDX-License-Identifier: MIT
"""``chronicle cleanup``: delete segments that nobody needs, and say why each other one is kept."""

from __future__ import annotations

import argparse

from chronicle_ffi import CleanupReport, Queue, Retention, SegmentFate, WriterAlreadyActive
from chronicle_ffi.cli.options import Subparsers, add_command, count, duration, size
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.text import binary_size, number, plural, table

EXAMPLES = """\
  chronicle cleanup /var/tmp/q --dry-run              what could go, and who holds the rest?
  chronicle cleanup /var/tmp/q                        delete what every reader has committed past
  chronicle cleanup /var/tmp/q --max-age 30d --max-bytes 10G

Only sealed segments are deleted, oldest first, and without limits only those that every registered reader
has committed past (with no registered reader: none). A limit deletes in spite of the readers.
While a writer has the queue open, deleting is the writer's business: only --dry-run works then.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "cleanup",
        "delete segments that nobody needs",
        "Delete segments that nobody needs any more, and say why each other one is kept.",
        EXAMPLES,
    )
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, only tell")
    limits = parser.add_argument_group("limits (off unless given)")
    limits.add_argument("--max-bytes", type=size, metavar="SIZE", help="keep at most this much in segments")
    limits.add_argument("--max-segments", type=count, metavar="N", help="keep at most N segments")
    limits.add_argument("--max-age", type=duration, metavar="TIME", help="delete what was sealed before, e.g. 30d")
    limits.add_argument(
        "--reader-ttl", type=duration, metavar="TIME", help="ignore readers gone and silent for so long"
    )
    limits.add_argument("--max-reader-lag", type=count, metavar="N", help="ignore readers more than N records behind")
    limits.add_argument(
        "--quarantine-max-bytes",
        type=size,
        metavar="SIZE",
        help="keep at most this much of what was set aside (default: a quarter of the limits above, if there are any)",
    )
    limits.add_argument(
        "--quarantine-max-age", type=duration, metavar="TIME", help="delete what was set aside before, e.g. 30d"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    retention = Retention(
        max_bytes=args.max_bytes,
        max_segments=args.max_segments,
        max_age=args.max_age,
        reader_ttl=args.reader_ttl,
        max_reader_lag=args.max_reader_lag,
        quarantine_max_bytes=args.quarantine_max_bytes,
        quarantine_max_age=args.quarantine_max_age,
    )
    report = Queue.cleanup_plan(args.queue, retention) if args.dry_run else clean(args.queue, retention)
    print("\n".join([*segment_lines(report.segments, args.dry_run), *summary(report, args.dry_run)]))
    return OK


def clean(path: str, retention: Retention) -> CleanupReport:
    try:
        with Queue.open_publisher(path, create=False, keeper=False, retention=retention) as writer:
            return writer.cleanup()
    except WriterAlreadyActive as error:
        raise UserError(
            f"{path}: process {error.pid or '(unknown)'} has the queue open for writing, and a writer"
            " does its own cleanup (retention=... in Queue.open_publisher(), or QueueWriter.cleanup());"
            " use --dry-run to see what could be deleted"
        ) from None


def segment_lines(fates: list[SegmentFate], dry_run: bool) -> list[str]:
    deleted = "would delete" if dry_run else "deleted"
    rows = [
        (
            str(fate.base_seq),
            number(fate.next_seq - fate.base_seq),
            binary_size(fate.bytes),
            f"{deleted if fate.deleted else 'kept'}: {fate.reason}",
        )
        for fate in fates
    ]
    return table("<>><", ("segment", "records", "size", "fate"), rows)


def summary(report: CleanupReport, dry_run: bool) -> list[str]:
    deleted = "would delete" if dry_run else "deleted"
    lines = [
        f"{deleted} {plural(report.deleted_segments, 'segment')} ({binary_size(report.deleted_bytes)});"
        f" the oldest record is seq {report.oldest_seq}"
    ]
    if report.readers_ignored:
        lines.append(f"ignored because of a limit: {plural(report.readers_ignored, 'reader')}")
    if report.readers_behind:
        lines.append(f"left behind, and missing records now: {plural(report.readers_behind, 'reader')}")
    if report.quarantine_files or report.quarantine_deleted_files:
        lines.append(
            f"quarantine: {deleted} {plural(report.quarantine_deleted_files, 'file')}"
            f" ({binary_size(report.quarantine_deleted_bytes)}), {plural(report.quarantine_files, 'file')}"
            f" ({binary_size(report.quarantine_bytes)}) left"
        )
    return lines
