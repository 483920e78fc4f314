# SPDX-License-Identifier: MIT
"""``chronicle export``: records as Parquet, a folder for each day."""

from __future__ import annotations

import argparse

from chronicle_ffi.cli.archive import add_store_options, load, progress_bar, queue_of
from chronicle_ffi.cli.options import Subparsers, add_command, count
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.text import binary_size, plural

EXAMPLES = """\
  chronicle export Q /data/ticks
  duckdb -c "from '/data/ticks/*/*.parquet' where timestamp >= '2024-05-01 12:00' limit 10"
  chronicle export Q s3://bucket/ticks --archive s3://bucket/q
  chronicle export - /data/ticks --archive s3://bucket/q     without the queue

Run again, it adds what came since; it may be killed at any moment. Needs pip install 'chronicle-ffi[archive]'.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "export",
        "write records as Parquet files",
        "Write records as Parquet files, a folder for each day (UTC): seq, timestamp, type_id, flags, payload.",
        EXAMPLES,
    )
    parser.add_argument("destination", metavar="DEST", help="a directory, or s3://bucket/prefix")
    parser.add_argument("--archive", metavar="URL", help="go on there for what the queue has not any more")
    parser.add_argument("--from", dest="from_", type=count, metavar="SEQ", help="where the first run begins")
    parser.add_argument("--to", type=count, metavar="SEQ", help="only records below")
    add_store_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    module = load()
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError("tables need pyarrow: pip install 'chronicle-ffi[archive]'") from None
    with progress_bar() as progress:
        report = module.export(
            queue_of(args),
            args.destination,
            archive=args.archive,
            start="earliest" if args.from_ is None else args.from_,
            stop=args.to,
            options=dict(args.options),
            progress=progress,
        )
    print(
        f"exported {plural(report.records, 'record')} to {plural(len(report.files), 'file')}"
        f" ({binary_size(report.bytes)}); the next run begins at {report.next_seq}"
    )
    return OK
