# SPDX-License-Identifier: MIT
"""``chronicle append``: lines from stdin or a file, each one record."""

from __future__ import annotations

import argparse
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from chronicle_ffi import PayloadTooLarge, Queue, QueueWriter
from chronicle_ffi.cli.options import Subparsers, add_command, add_writer_options, open_writer, type_id
from chronicle_ffi.cli.status import OK, USAGE, UserError
from chronicle_ffi.cli.text import LineSplitter, plural

CHUNK_BYTES = 1 << 20

EXAMPLES = """\
  journalctl -f | chronicle append /var/tmp/q
  chronicle append /var/tmp/q --file notes.txt --type 7
  chronicle append /var/tmp/q --segment-size 1M --durability always < orders.csv

Lines are stored without their newline, as soon as they arrive. The queue is created if it is not there.
A line that does not fit a segment is left out, and reported; the others are stored, and the exit status is 2.
SIGINT, SIGTERM and SIGHUP end it as the end of the input does, with 128 and the number of the signal.
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
    parser.add_argument("--shared", action="store_true", help="take turns with other writers that say so, too")
    add_writer_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    source = sys.stdin.fileno() if args.file is None else os.open(args.file, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            raise UserError(f"{args.file or 'stdin'} is a directory: there are no lines in it")
        with ended_by_signals() as ended, open_writer(args) as writer:
            first = writer.next_seq
            lines = Lines(writer, args.type)
            try:
                copy_lines(source, lines, ended, limit=Queue.info(args.queue).segment_size)
            finally:
                summarise(first, writer, shared=args.shared)
    finally:
        if args.file is not None:
            os.close(source)
    if ended.by is not None:
        return 128 + ended.by
    return USAGE if lines.refused else OK


class Lines:
    """Lines on their way into the queue."""

    def __init__(self, writer: QueueWriter, type_id: int) -> None:
        self._writer = writer
        self._type_id = type_id
        self._number = 0  # of lines that ended
        self._within_refused = False  # what comes next belongs to a line that was refused
        self.refused = 0

    def append(self, lines: list[bytes]) -> None:
        while lines:
            if self._within_refused:
                self._within_refused = not lines[0].endswith(b"\n")
                self._number += not self._within_refused
                lines = lines[1:]
                continue
            before = self._writer.stats().records
            try:
                self._writer.append_many((line.removesuffix(b"\n") for line in lines), type_id=self._type_id)
                self._number += len(lines)
                return
            except PayloadTooLarge as error:
                done = self._writer.stats().records - before  # those before it
                self._number += done
                self._refuse(error)
                lines = lines[done:]

    def _refuse(self, error: PayloadTooLarge) -> None:
        self.refused += 1
        self._within_refused = True
        print(f"chronicle: line {self._number + 1} of the input is left out: {error}", file=sys.stderr)


class Ended:
    """Which signal has come, and a descriptor that can be read from then on."""

    def __init__(self) -> None:
        self.by: int | None = None
        self.read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __call__(self, number: int, _frame: object) -> None:
        self.by = number
        os.write(self._write, b"x")

    def close(self) -> None:
        os.close(self.read)
        os.close(self._write)


@contextmanager
def ended_by_signals() -> Iterator[Ended]:
    """Signals are noted: what was read is appended, and the queue closed. One that is ignored (nohup) stays so."""
    ended = Ended()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ended) for number in taken}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ended.close()


def copy_lines(source: int, lines: Lines, ended: Ended, limit: int) -> None:
    """Append what comes from a file descriptor until it ends; waits for more, but holds no line back."""
    splitter = LineSplitter(limit)
    while ended.read not in select.select([source, ended.read], [], [])[0]:
        try:
            chunk = os.read(source, CHUNK_BYTES)
        except OSError as error:
            raise UserError(f"cannot read the input: {error.strerror}") from None
        if not chunk:
            break
        lines.append(splitter.feed(chunk))
    lines.append(splitter.finish())


def summarise(first: int, writer: QueueWriter, *, shared: bool) -> None:
    count = writer.stats().records
    where = f", seq {first} to {first + count - 1}" if count and not shared else ""  # else others' are between them
    print(f"appended {plural(count, 'record')}{where}", file=sys.stderr)
