# SPDX-License-Identifier: MIT
"""``chronicle mirror`` and ``chronicle restore``: a queue to a stream of NATS JetStream, held against it, and back."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chronicle_ffi.cli.options import Subparsers, add_command, count, size
from chronicle_ffi.cli.status import DAMAGED, OK, UserError, complain
from chronicle_ffi.cli.text import plural

if TYPE_CHECKING:
    from chronicle_ffi.mirror import Access, Mirror

TELL_SECONDS: Final = 10.0  # how often the same trouble is told

EXAMPLES = """\
  chronicle mirror Q nats://h1,h2,h3/PRICES --replicas 3     for ever: what is durable, exactly once, in order
  chronicle mirror Q nats://localhost/PRICES --once          what there is now
  chronicle mirror Q tls://h1/PRICES --ca ca.pem --nkey mirror.nk --stats 10
  chronicle mirror Q nats://localhost/PRICES --verify        is the stream what the queue is?

Only durable records are sent: with durability "none" (the default of a writer) those are the ones before a sync().
Ctrl-C and SIGTERM wait for what is under way. The queue's writer never waits for a mirror; retention does, as for
every reader (it reads as "mirror-STREAM").

Exit status: 1 the stream is not this queue's, or a difference was found; else as of every command.
"""

RESTORE_EXAMPLES = """\
  chronicle restore nats://h1,h2,h3/PRICES Q                 every record, with its seq, time, type and flags
  chronicle restore nats://h1/PRICES Q --from 5000000

Q appears when all of it is on disk. It has a uuid of its own: mirror it to a stream of its own.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "mirror",
        "send a queue to a NATS JetStream",
        "Send what is durable in a queue to a stream, and go on where the stream ends, whatever died in between.",
        EXAMPLES,
    )
    add_stream(parser)
    parser.add_argument("--subject", metavar="T", help="that the stream takes (default: chronicle.STREAM)")
    parser.add_argument("--reader", metavar="NAME", help="to read the queue as (default: mirror-STREAM)")
    parser.add_argument(
        "--unframed", action="store_true", help="one message a record, for consumers that know no frames"
    )
    parser.add_argument(
        "--replicas", type=count, default=1, metavar="N", help="of a stream that is made now: 1, 3 or 5"
    )
    parser.add_argument("--no-create", action="store_true", help="the stream has to be there")
    parser.add_argument(
        "--skip-gap", action="store_true", help="go on where the queue lacks what the stream needs next"
    )
    parser.add_argument("--once", action="store_true", help="end when all that is durable now is in the stream")
    parser.add_argument("--stats", type=float, metavar="SECS", help="a line on stderr so often: records, rate, lag")
    parser.add_argument("--verify", action="store_true", help="send nothing: compare, byte by byte")
    parser.add_argument("--from", dest="from_", type=count, metavar="SEQ", help="with --verify: the first record")
    parser.add_argument("--to", type=count, metavar="SEQ", help="with --verify: behind the last record")
    parser.set_defaults(run=run)

    parser = subparsers.add_parser(
        "restore",
        help="make a queue of what a mirror has sent",
        description="Make a new queue of a stream that a mirror has filled.",
        epilog=f"examples:\n{RESTORE_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_stream(parser)
    parser.add_argument("queue", metavar="Q", help="the new queue's directory: nothing may be there")
    parser.add_argument(
        "--from", dest="from_", type=count, metavar="SEQ", help="the first record (default: the oldest)"
    )
    parser.add_argument("--segment-size", type=size, metavar="SIZE", help="of the new queue (default: 64M)")
    parser.set_defaults(run=run_restore)


def add_stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", help="nats://host[:port][,host...]/STREAM, or tls://, which insists on TLS"
    )
    parser.add_argument("--stream", metavar="NAME", help="instead of in the URL")
    parser.add_argument("--user", metavar="NAME", help="with --password-file")
    parser.add_argument("--password-file", metavar="FILE", help="its first line; a password in a URL is seen by all")
    parser.add_argument("--creds", metavar="FILE", help="a .creds file")
    parser.add_argument("--nkey", metavar="FILE", help="a file with the seed of an nkey")
    parser.add_argument("--ca", metavar="FILE", help="certificates to believe; insists on TLS")
    parser.add_argument("--cert", metavar="FILE", help="a client's certificate")
    parser.add_argument("--key", metavar="FILE", help="its private key")


def package() -> Any:
    """chronicle_ffi.mirror, which is an extra."""
    try:
        from chronicle_ffi import mirror
    except ImportError as missing:
        raise UserError(missing) from None
    return mirror


def access_of(args: argparse.Namespace) -> Access:
    password = Path(args.password_file).read_text(encoding="utf-8").split("\n")[0] if args.password_file else None
    found: Access = package().Access(
        user=args.user, password=password, credentials=args.creds, nkey=args.nkey, ca=args.ca, certificate=args.cert,
        key=args.key,
    )  # fmt: skip
    return found


def run(args: argparse.Namespace) -> int:
    mirror = package()
    try:
        if args.verify:
            return verify(mirror, args)
        asyncio.run(send(mirror, args))
    except mirror.StreamMismatch as difference:
        complain(difference)
        return DAMAGED
    return OK


async def send(mirror: Any, args: argparse.Namespace) -> None:
    last: tuple[str, float] = ("", 0.0)

    def tell(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if text != last[0] or now - last[1] > TELL_SECONDS:
            complain(text)
            last = (text, now)

    sender: Mirror = mirror.Mirror(
        args.queue, args.url, stream=args.stream, subject=args.subject, reader=args.reader, framed=not args.unframed,
        replicas=args.replicas, create=not args.no_create, on_gap="skip" if args.skip_gap else "error",
        access=access_of(args), told=tell,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sender.stop)
    teller = asyncio.create_task(tell_stats(sender, args.stats)) if args.stats else None
    try:
        await sender.run(once=args.once)
    finally:
        if teller is not None:
            teller.cancel()
    if args.once:
        print(f"{plural(sender.stats().records, 'record')} sent, the stream goes up to {sender.stats().next_seq - 1}")


async def tell_stats(sender: Mirror, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        stats = sender.stats()
        state = "" if stats.connected else f"  waiting: {stats.last_error}"
        print(
            f"chronicle mirror: up to seq {stats.next_seq - 1}  {stats.rate:,.0f} records/s  {stats.lag} behind{state}",
            file=sys.stderr,
        )


def verify(mirror: Any, args: argparse.Namespace) -> int:
    report = asyncio.run(
        mirror.verify(args.queue, args.url, stream=args.stream, start=args.from_, stop=args.to, access=access_of(args))
    )
    for difference in report.differences:
        print(difference)
    print(
        f"{plural(report.compared, 'record')} compared, {report.unchecked} more are not in the queue any more; "
        f"{report.behind} are not in the stream yet: {'ok' if report.ok else 'not the same'}"
    )
    return OK if report.ok else DAMAGED


def run_restore(args: argparse.Namespace) -> int:
    work = package().restore(
        args.url, args.queue, stream=args.stream, start=args.from_, segment_size=args.segment_size,
        access=access_of(args),
    )  # fmt: skip
    print(f"{plural(asyncio.run(work), 'record')} restored")
    return OK
