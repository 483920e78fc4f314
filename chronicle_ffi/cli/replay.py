# SPDX-License-Identifier: MIT
"""``chronicle replay``: records at the pace at which they came."""

from __future__ import annotations

import argparse
import math
import sys

from chronicle_ffi import MergedMessage, Queue
from chronicle_ffi.cli.options import Place, Subparsers, add_command, duration, place
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.tail import FORMATS
from chronicle_ffi.cli.text import plural

EXAMPLES = """\
  chronicle replay Q                                  as they came
  chronicle replay Q --speed 60 --gap 1s              an hour in a minute, and no pause longer than a second
  chronicle replay Q --from 2024-05-01T12:00 --to 2024-05-01T13:00 --into Q2 --stamps new --progress
  chronicle replay Q --into Q2 --resume               go on with a replay that was ended
  chronicle replay Q --speed inf -f                   all at once, and then what comes
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "replay",
        "records at the pace at which they came",
        "Print records, or append them to another queue, with the pauses that were between them.",
        EXAMPLES,
    )
    parser.add_argument("--speed", type=speed, default=1.0, metavar="N", help="2: twice as fast; inf: without waiting")
    parser.add_argument(
        "--from", dest="from_", type=place, default=Place(), metavar="SEQ|TIME", help="(default: oldest)"
    )
    parser.add_argument(
        "--to", type=place, metavar="SEQ|TIME", help="in front of what to end (default: the end as it is now)"
    )
    parser.add_argument("--gap", type=duration, metavar="TIME", help="no pause is longer than this")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--into", metavar="Q2", help="append to this queue instead of printing")
    parser.add_argument(
        "--stamps", choices=("original", "new"), default="original", help="with --into (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="with --into: Q2 has the first ones already")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="(default: %(default)s)")
    parser.add_argument("--progress", action="store_true", help="tell on stderr how far it is")
    parser.set_defaults(run=run)


def speed(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise argparse.ArgumentTypeError(f"not a number above 0: {text!r} (1, 0.5, 60, inf)")
    return found


def run(args: argparse.Namespace) -> int:
    if args.into and args.follow:
        raise UserError("--into ends with the range: leave out --follow")
    if args.resume and not args.into:
        raise UserError("--resume is for --into")
    if args.into == args.queue:
        raise UserError("a queue cannot be replayed into itself")
    begin = seq_of(args.queue, args.from_)
    end = None if args.to is None else seq_of(args.queue, args.to)
    with Queue.replay(args.queue, speed=args.speed, start=begin, stop=end, gap=args.gap) as replay:
        tell = progress if args.progress else None
        if args.into:
            count = replay.into(args.into, stamps=args.stamps, resume=args.resume, progress=tell)
            print(f"replayed {plural(count, 'record')}", file=sys.stderr)
            return OK
        render = FORMATS[args.format]
        out = sys.stdout.buffer
        for message in replay.then_live() if args.follow else replay:
            out.write(render(message.message if isinstance(message, MergedMessage) else message))
            if args.speed != math.inf or args.follow:
                out.flush()
            if tell and replay.count % 256 == 0:
                tell(replay.count, replay.total)
    return OK


def seq_of(queue: str, at: Place) -> int:
    """A place as a seq: of a time, the first record that is not older."""
    if at.seq is not None:
        return at.seq
    with Queue.open_subscriber(queue, start="earliest") as reader:
        if at.time_ns is not None:
            reader.seek_time(at.time_ns)
        return reader.position


def progress(count: int, total: int) -> None:
    share = 100 * count // total if total else 100
    print(f"chronicle: {count} of {plural(total, 'record')}, {share} %", file=sys.stderr)
