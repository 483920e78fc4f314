# SPDX-License-Identifier: MIT
"""``chronicle merge``: many queues as one, printed or written to another queue."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from chronicle_ffi import Merge, MergedMessage, Queue, QueueWriter
from chronicle_ffi.cli.options import Subparsers, duration
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.tail import FORMATS
from chronicle_ffi.cli.text import plural

SETTLE_EVERY = 10_000  # records
TELL_SECONDS = 0.5

EXAMPLES = """\
  chronicle merge A B C                             what is there, by time
  chronicle merge A B -f --reader audit             resume, commit what was printed, and wait for more
  chronicle merge A B --lateness 1s --into ALL --progress

The order is that of the timestamps; those that go back in their queue by up to --lateness are sorted in, the others
come late. With --reader the position of all queues together is stored, in readers/ of the first one or in --home. A
record counts as consumed when it has been written.
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "merge",
        help="many queues as one, ordered by time",
        description="Print the records of many queues in one order, or append them to another queue.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("queues", metavar="Q", nargs="+", help="the queues' directories")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, until Ctrl-C")
    parser.add_argument("--reader", metavar="NAME", help="resume at the position committed under this name, and commit")
    parser.add_argument("--home", metavar="DIR", help="where that position is stored (default: in the first queue)")
    parser.add_argument("--order", choices=("timestamp", "append"), default="timestamp", help="(default: %(default)s)")
    parser.add_argument("--lateness", type=duration, default=0.005, metavar="TIME", help="(default: 5ms)")
    parser.add_argument(
        "--idle", type=duration, default=0.1, metavar="TIME", help="with -f: how long a silent queue is waited for"
    )
    parser.add_argument(
        "--into", metavar="Q2", help="append to this queue, with the original timestamps, instead of printing"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="(default: %(default)s)")
    parser.add_argument("--progress", action="store_true", help="tell on stderr how far it is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.into and args.into in args.queues:
        raise UserError(f"{args.into} cannot be merged into itself")
    if args.home and not args.reader:
        raise UserError("--home says where the position of --reader is stored: give both")
    with ExitStack() as open_:
        merge = open_.enter_context(
            Queue.merge(
                args.queues,
                args.reader,
                order=args.order,
                live=args.follow,
                lateness=args.lateness,
                idle=args.idle,
                home=args.home,
            )
        )
        target = open_.enter_context(Queue.open_publisher(args.into)) if args.into else None
        pump(merge, target, args)
    return OK


def pump(merge: Merge, target: QueueWriter | None, args: argparse.Namespace) -> None:
    """From the merge to stdout, or to the target."""
    render = FORMATS[args.format]
    out = sys.stdout.buffer
    count = unsettled = 0
    told = time.monotonic()

    def settle() -> None:
        """Nothing is committed before it has been written."""
        out.flush()
        if args.reader is not None:
            merge.commit()

    for message in records(merge, args.follow):
        if message is None or unsettled == SETTLE_EVERY:
            settle()
            unsettled = 0
        if message is not None:
            if target is None:
                out.write(render(message.message))
            else:
                target.append(message.payload, message.type_id, message.timestamp_ns, message.flags)
            count += 1
            unsettled += 1
        if args.progress and time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"chronicle: {plural(count, 'record')} of {total(merge)}", file=sys.stderr)
    settle()
    if args.progress or merge.late:
        print(f"chronicle: {plural(count, 'record')}, {merge.late} late", file=sys.stderr)


def records(merge: Merge, follow: bool) -> Iterator[MergedMessage | None]:
    """None: there is nothing at the moment."""
    while True:
        yield from merge
        if not follow or merge.ended:
            return
        yield None
        merge.wait()


def total(merge: Merge) -> str:
    ends = [one.stop for one in merge.sources]
    if None in ends:
        return f"{len(ends)} queues"
    left = sum((one.stop or 0) - one.position for one in merge.sources)
    return f"{sum(one.records for one in merge.sources) + max(left, 0)}"
