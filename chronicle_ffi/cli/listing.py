# SPDX-License-Identifier: MIT
"""``chronicle list``: the queues below a directory."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

from chronicle_ffi import ChronicleError, Queue
from chronicle_ffi.cli.options import Subparsers, duration
from chronicle_ffi.cli.status import DAMAGED, OK, complain
from chronicle_ffi.cli.text import binary_size, number, table

EXAMPLES = """\
  chronicle list /var/lib/feeds
  chronicle list . --pattern 'ticks-*' --over 5s
  chronicle list . --json | jq 'select(.worst_lag > 1000)'

Rate is what is appended in a second, counted over half a second, or what --over says. The lag is that of the registered
reader that is furthest behind. A queue that cannot be looked at is told of on stderr, and the exit status is 1.
"""


@dataclass
class Row:
    """What is told of a queue."""

    path: str
    records: int
    rate: float  #: records a second
    bytes: int
    writer_pid: int | None
    writer: bool
    readers: int
    worst_lag: int
    worst_reader: str | None


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "list",
        help="the queues below a directory",
        description="Print the queues below a directory: records, rate, size, writer, readers and the worst lag.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="ROOT", nargs="?", default=".", help="the directory (default: this one)")
    parser.add_argument(
        "--pattern", default="*", metavar="GLOB", help="which names; with a slash: which paths below ROOT"
    )
    parser.add_argument(
        "--over", type=duration, default=0.5, metavar="TIME", help="count the rate over this time; 0: no rate"
    )
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    rows, status = rows_of([found.path for found in Queue.discover(args.root, args.pattern, watch=False)], args.over)
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row), ensure_ascii=False))
    elif rows:
        print("\n".join(table("<>>>>><", HEADER, map(cells, rows))))
    return status


HEADER = ("queue", "records", "per second", "size", "writer", "readers", "worst lag")


def cells(row: Row) -> tuple[str, ...]:
    writer = (f"pid {row.writer_pid}" if row.writer_pid else "yes") if row.writer else "none"
    lag = f"{number(row.worst_lag)} ({row.worst_reader})" if row.worst_reader is not None else "-"
    return row.path, number(row.records), number(round(row.rate)), binary_size(row.bytes), writer, str(row.readers), lag


def rows_of(paths: list[str], over: float) -> tuple[list[Row], int]:
    """Those that can be looked at, and the exit status."""
    before: dict[str, tuple[int, float]] = {}
    status = OK
    if over:
        for path in paths:
            try:
                before[path] = Queue.info(path).next_seq, time.monotonic()
            except ChronicleError:
                continue  # told of below
        time.sleep(over if before else 0)
    rows = []
    for path in paths:
        try:
            rows.append(row_of(path, before.get(path)))
        except ChronicleError as error:
            complain(f"{path}: {error}")
            status = DAMAGED
    return rows, status


def row_of(path: str, before: tuple[int, float] | None) -> Row:
    info = Queue.info(path)
    now = time.monotonic()
    readers = Queue.readers(path)
    worst = max(readers, key=lambda one: one.lag, default=None)
    return Row(
        path=path,
        records=info.next_seq - info.oldest_seq,
        rate=(info.next_seq - before[0]) / (now - before[1]) if before else 0.0,
        bytes=info.bytes,
        writer_pid=info.writer_pid,
        writer=info.writer_alive,
        readers=len(readers),
        worst_lag=worst.lag if worst else 0,
        worst_reader=worst.name if worst else None,
    )
