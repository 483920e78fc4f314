# SPDX-License-Identifier: MIT
"""``chronicle tail``: print records, wait for more, resume where a named reader stopped."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from chronicle_ffi import Corrupt, Message, Queue, QueueReader, SegmentGone
from chronicle_ffi.cli import archive
from chronicle_ffi.cli.options import Subparsers, add_command, count, place, type_id
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.text import hex_dump, plural, utc

if TYPE_CHECKING:
    from chronicle_ffi.archive import ArchivedReader

Reader: TypeAlias = "QueueReader | ArchivedReader"

DEFAULT_COUNT = 10
LOOK_SECONDS = 0.25  # how often a follower that waits at damage looks
SETTLE_EVERY = 1000  # records, while there is a backlog

EXAMPLES = """\
  chronicle tail Q                              the last 10 records
  chronicle tail Q -f                           ... and what comes from now on
  chronicle tail Q --from oldest                everything
  chronicle tail Q --from 4711 -n 1 --format hex
  chronicle tail Q --from 2024-05-01T12:00 --format json | jq .seq
  chronicle tail Q -f --reader audit            as the reader "audit": resume, and commit what was printed
  chronicle tail Q --archive s3://bucket/q --from oldest      and what is only in its archive; Q may be "-"

Formats: text is the payload, ended by a newline unless it has one; json is one object a line, with the
payload under "text" if it is UTF-8 and else under "base64"; hex is a dump under a line of description.

With --reader, a record counts as consumed when it has been written to stdout: one that was printed just
before a crash may be printed again. Times without a zone are local.
"""


def as_text(message: Message) -> bytes:
    return message.payload if message.payload.endswith(b"\n") else message.payload + b"\n"


def as_json(message: Message) -> bytes:
    """One line; "text" and "base64" both give back the exact bytes of the payload."""
    fields: dict[str, int | str] = {
        "seq": message.seq,
        "time": utc(message.timestamp_ns),
        "timestamp_ns": message.timestamp_ns,
        "type_id": message.type_id,
        "flags": message.flags,
    }
    try:
        fields["text"] = message.payload.decode()
    except UnicodeDecodeError:
        fields["base64"] = base64.b64encode(message.payload).decode()
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def as_hex(message: Message) -> bytes:
    description = (
        f"seq {message.seq}  {utc(message.timestamp_ns)}  type {message.type_id}  flags {message.flags}"
        f"  {plural(len(message.payload), 'byte')}\n"
    )
    return (description + hex_dump(message.payload)).encode()


FORMATS: dict[str, Callable[[Message], bytes]] = {"text": as_text, "json": as_json, "hex": as_hex}


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "tail",
        "print records, and wait for more",
        "Print records: the last ten, or from a given place on, or from where a named reader stopped.",
        EXAMPLES,
    )
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, until Ctrl-C")
    parser.add_argument(
        "-n",
        "--count",
        type=count,
        metavar="N",
        help=f"the last N records (default: {DEFAULT_COUNT}); with --from or --reader: not more than N",
    )
    parser.add_argument(
        "--from",
        dest="from_",
        type=place,
        metavar="SEQ|TIME",
        help='start there: a seq, an ISO 8601 time, @unix-seconds, or "oldest"',
    )
    parser.add_argument("--reader", metavar="NAME", help="resume at the position committed under this name, and commit")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="(default: %(default)s)")
    parser.add_argument("--type", type=type_id, metavar="N", help="only records with this type_id")
    parser.add_argument(
        "--skip-damaged",
        action="store_true",
        help="report records that are damaged, or gone, on stderr and go on behind them",
    )
    parser.add_argument("--archive", metavar="URL", help="go on there for what the queue has not any more")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    on_gap: Literal["error", "oldest"] = "oldest" if args.skip_damaged else "error"
    try:
        with open_reader(args, on_gap) as reader:
            tell_skipped(reader.stats().skipped)
            if args.from_ is not None and args.from_.time_ns is not None:
                reader.seek_time(args.from_.time_ns)
            limit = args.count
            if args.from_ is None and args.reader is None:
                step_back(reader, DEFAULT_COUNT if limit is None else limit, args.type)
                limit = None
            print_records(reader, args, limit)
    except SegmentGone as gone:
        raise UserError(f"{gone}; here: --from {gone.oldest}, or --skip-damaged") from None
    return OK


def open_reader(args: argparse.Namespace, on_gap: Literal["error", "oldest"]) -> Reader:
    start = start_of(args)
    if args.archive is None:
        return Queue.open_subscriber(args.queue, args.reader, start=start, on_gap=on_gap)
    archive.load()
    return Queue.open_subscriber(archive.queue_of(args), args.reader, start=start, on_gap=on_gap, archive=args.archive)


def tell_skipped(skipped: int) -> None:
    if skipped:
        told = "what retention deleted, or a repair accepted as lost"
        print(f"chronicle: skipped {plural(skipped, 'record')}: {told}", file=sys.stderr)


def start_of(args: argparse.Namespace) -> Literal["resume", "earliest", "latest"] | int:
    """Where to open the reader: at the end for "the last N", at the beginning for a time."""
    if args.from_ is not None:
        return "earliest" if args.from_.seq is None else int(args.from_.seq)
    return "latest" if args.reader is None else "resume"


def step_back(reader: Reader, count: int, type_id: int | None) -> None:
    """Move back over `count` records (of one type, if given), or to the oldest there is."""
    if type_id is not None:
        while count and (message := reader.previous()):
            count -= message.type_id == type_id
        return
    try:
        reader.seek(max(0, reader.position - count))
    except SegmentGone as gone:
        reader.seek(gone.oldest or 0)


def pass_damage(reader: Reader, damage: Corrupt, follow: bool) -> bool:
    """Report it, and go on behind it. False: nothing follows it, and nobody knows what was there."""
    told = f"chronicle: {damage}"
    while True:
        try:
            skipped = reader.skip_damaged()
        except Corrupt:  # what a crash has left, perhaps: the next writer decides
            if told:
                print(f"{told}: nothing follows it yet", file=sys.stderr)
            told = ""
            if not follow:
                return False
            time.sleep(LOOK_SECONDS)
            continue
        if skipped:
            print(f"{told or 'chronicle: then'}: skipped {plural(skipped, 'record')}", file=sys.stderr)
        return True


def print_records(reader: Reader, args: argparse.Namespace, limit: int | None) -> None:
    """From where the reader stands to what is now the end or, with --follow, for ever."""
    render = FORMATS[args.format]
    out = sys.stdout.buffer
    end = sys.maxsize if args.follow else reader.position + reader.lag
    left = sys.maxsize if limit is None else limit

    def settle() -> None:
        """Nothing is committed before it has been written."""
        out.flush()
        if args.reader is not None:
            reader.commit()

    unsettled = 0
    while left and reader.position < end:
        if unsettled == SETTLE_EVERY:
            settle()
            unsettled = 0
        expected = reader.position
        try:
            message = reader.next()
        except Corrupt as damage:
            settle()
            if not args.skip_damaged:
                raise
            if not pass_damage(reader, damage, args.follow):
                break
            continue
        if message is None:
            settle()
            if not args.follow:
                break
            reader.wait(None)
            continue
        unsettled += 1
        tell_skipped(message.seq - expected)
        if args.type is None or message.type_id == args.type:
            out.write(render(message))
            left -= 1
    settle()
