# SPDX-License-Identifier: MIT
"""``chronicle append``: lines from stdin or a file, each one record."""

from __future__ import annotations

import argparse
import os
import stat
import sys

from chronicle_ffi import PayloadTooLarge, Queue, QueueWriter
from chronicle_ffi.cli.options import Subparsers, add_command, add_writer_options, open_writer, type_id
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.text import LineSplitter, plural

CHUNK_BYTES = 1 << 20

EXAMPLES = """\
  journalctl -f | chronicle append /var/tmp/q
  chronicle append /var/tmp/q --file notes.txt --type 7
  chronicle append /var/tmp/q --segment-size 1M --durability always < orders.csv

Lines are stored without their newline, as soon as they arrive. The queue is created if it is not there.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "append",
        "append lines from stdin or a file",
        "Append each line of stdin, or of a file, as one record.",
        EXAMPLES,
    )
    parser.add_argument("--file", metavar="FILE", help="read this file instead of stdin")
    parser.add_argument("--type", type=type_id, default=0, metavar="N", help="type_id of the records (default: 0)")
    add_writer_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    source = sys.stdin.fileno() if args.file is None else os.open(args.file, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            raise UserError(f"{args.file or 'stdin'} is a directory: there are no lines in it")
        with open_writer(args) as writer:
            first = writer.next_seq
            try:
                copy_lines(source, writer, args.type, limit=Queue.info(args.queue).segment_size)
            except PayloadTooLarge as error:
                raise UserError(f"line {writer.next_seq - first + 1} of the input: {error}") from None
            finally:
                summarise(first, writer.next_seq)
    finally:
        if args.file is not None:
            os.close(source)
    return OK


def copy_lines(source: int, writer: QueueWriter, type_id: int, limit: int) -> None:
    """Append what comes from a file descriptor until it ends; waits for more, but holds no line back."""
    splitter = LineSplitter(limit)
    while chunk := os.read(source, CHUNK_BYTES):
        append_lines(writer, splitter.feed(chunk), type_id)
    append_lines(writer, splitter.finish(), type_id)


def append_lines(writer: QueueWriter, lines: list[bytes], type_id: int) -> None:
    writer.append_many((line.removesuffix(b"\n") for line in lines), type_id=type_id)


def summarise(first: int, end: int) -> None:
    where = f", seq {first} to {end - 1}" if end > first else ""
    print(f"appended {plural(end - first, 'record')}{where}", file=sys.stderr)
