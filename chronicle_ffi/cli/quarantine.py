# SPDX-License-Identifier: MIT
"""``chronicle quarantine``: what recovery and repairs have set aside; its records, shown or brought back."""

from __future__ import annotations

import argparse
import sys

from chronicle_ffi import InvalidArgument, Message, QuarantineFile, Queue
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import OK
from chronicle_ffi.cli.tail import FORMATS
from chronicle_ffi.cli.text import binary_size, number, plural, table, utc

EXAMPLES = """\
  chronicle quarantine /var/tmp/q                       what is there?
  chronicle quarantine /var/tmp/q show                  the whole records in all of it
  chronicle quarantine /var/tmp/q show --format json 00000000000000004711-8192-e3.0.cut
  chronicle quarantine /var/tmp/q restore /var/tmp/r    append them to another queue, made if it is not there

Records were set aside because what is in front of them is missing, or because they are: some may also be in the log,
or in several files. Restored, they keep their time, type and flags, and get new seqs. To delete what is there:
chronicle cleanup --quarantine-max-bytes, --quarantine-max-age.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "quarantine",
        "what recovery and repairs have set aside",
        "List what recovery and repairs have set aside; show its records, or bring them back.",
        EXAMPLES,
    )
    parser.set_defaults(run=list_files)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    actions.add_parser("list", help="what is there (the default)").set_defaults(run=list_files)
    show = actions.add_parser("show", help="print the whole records")
    show.add_argument("--format", choices=tuple(FORMATS), default="text", help="(default: %(default)s)")
    show.set_defaults(run=show_records)
    restore = actions.add_parser("restore", help="append the whole records to another queue")
    restore.add_argument("to", metavar="TO", help="the directory of the queue to append to")
    restore.set_defaults(run=restore_records)
    for action in (show, restore):
        action.add_argument("names", nargs="*", metavar="NAME", help="only these files")


def list_files(args: argparse.Namespace) -> int:
    files = Queue.quarantine(args.queue)
    if not files:
        print("nothing is in quarantine")
        return OK
    rows = [
        (file.name, binary_size(file.bytes), utc(file.kept_ns), records_of(file), number(file.epoch)) for file in files
    ]
    print("\n".join(table("<><>>", ("file", "size", "set aside", "whole records", "epoch"), rows)))
    return OK


def records_of(file: QuarantineFile) -> str:
    """A whole segment is not read just to be listed."""
    if file.records is None:
        return "?" if file.kind != "file" else "-"
    return number(file.records) if file.first_seq is None else f"{number(file.records)}, from seq {file.first_seq}"


def chosen(args: argparse.Namespace) -> list[str]:
    """By the records that they begin with, as they were appended."""
    files = Queue.quarantine(args.queue)
    unknown = set(args.names) - {file.name for file in files}
    if unknown:
        raise InvalidArgument(f"not in quarantine of {args.queue}: {', '.join(sorted(unknown))}")
    files.sort(key=lambda file: (file.base_seq or 0, file.offset, file.epoch))
    return [file.name for file in files if file.kind != "file" and (not args.names or file.name in args.names)]


def show_records(args: argparse.Namespace) -> int:
    render = FORMATS[args.format]

    def show(message: Message) -> None:
        sys.stdout.buffer.write(render(message))

    for name in chosen(args):
        count = Queue.read_quarantine(args.queue, name, show)
        sys.stdout.flush()
        print(f"{name}: {plural(count, 'whole record')}", file=sys.stderr)
    return OK


def restore_records(args: argparse.Namespace) -> int:
    names = chosen(args)
    size = Queue.info(args.queue).segment_size  # what fits there, fits here
    with Queue.open_publisher(args.to, segment_size=size) as writer:

        def append(message: Message) -> None:
            writer.append(message.payload, message.type_id, timestamp_ns=message.timestamp_ns, flags=message.flags)

        first = writer.next_seq
        for name in names:
            count = Queue.read_quarantine(args.queue, name, append)
            print(f"{name}: {plural(count, 'whole record')}", file=sys.stderr)
        print(f"appended {plural(writer.next_seq - first, 'record')} to {args.to}", file=sys.stderr)
    return OK
