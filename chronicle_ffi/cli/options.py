# SPDX-License-Identifier: MIT
"""Arguments that several commands share, and the words they are written in."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

from chronicle_ffi import SEGMENT_SIZE, Queue, QueueWriter

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_command(
    subparsers: Subparsers, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Declare a command with its first argument, the queue."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("queue", metavar="Q", help="the queue's directory")
    return parser


def add_writer_options(parser: argparse.ArgumentParser) -> None:
    """What ``append`` and ``record`` both hand to Queue.open_publisher()."""
    parser.add_argument(
        "--segment-size",
        type=size,
        default=SEGMENT_SIZE,
        metavar="SIZE",
        help="size of each segment file if the queue is created now, e.g. 4M (default: %(default)s bytes)",
    )
    parser.add_argument(
        "--durability",
        choices=("none", "interval", "batch", "always"),
        default="none",
        help="when records are put on disk: when the system likes (none, the default: they survive the death "
        "of any process, not a loss of power), every 100 ms, every 1000 records, or one by one",
    )


def open_writer(args: argparse.Namespace) -> QueueWriter:
    return Queue.open_publisher(
        args.queue, segment_size=args.segment_size, durability=args.durability, shared=getattr(args, "shared", False)
    )


def size(text: str) -> int:
    """ "65536", "64K", "64KiB", "4M": bytes; units are powers of 1024."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"not a size: {text!r} (65536, 64K, 4M, 1G)")
    return int(match[1]) * SIZE_UNITS[match[2].upper()]


def duration(text: str) -> float:
    """ "90", "90s", "15m", "12h", "7d": seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r} (90s, 15m, 12h, 7d)")
    return float(match[1]) * DURATION_UNITS[match[2]]


def count(text: str) -> int:
    """A number of things: 0 or more."""
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"not a number of 0 or more: {text!r}")
    return int(text)


def type_id(text: str) -> int:
    """0 to 65534."""
    value = count(text)
    if value > 0xFFFE:
        raise argparse.ArgumentTypeError(f"type ids go from 0 to 65534, not {text}")
    return value


@dataclass(frozen=True)
class Place:
    """Somewhere in a log: a seq, a time, or (neither) its oldest record."""

    seq: int | None = None
    time_ns: int | None = None


def place(text: str) -> Place:
    """ "oldest", a seq, "@" and unix seconds, or an ISO 8601 time (local unless it names a zone)."""
    if text == "oldest":
        return Place()
    if re.fullmatch(r"[0-9]+", text):
        return Place(seq=int(text))
    if match := re.fullmatch(r"@([0-9]+)(?:\.([0-9]{1,9}))?", text):
        return Place(time_ns=int(match[1]) * 10**9 + nanoseconds(match[2]))
    # The fraction is cut out: datetime keeps microseconds, and before Python 3.11 wants 3 or 6 digits.
    if match := re.fullmatch(r"([0-9T: -]+?)(?:[.,]([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})?", text):
        try:
            when = datetime.fromisoformat(match[1] + (match[3] or "").replace("Z", "+00:00"))
            since_epoch = when.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
        except (ValueError, OverflowError):
            pass
        else:
            seconds = since_epoch.days * 86400 + since_epoch.seconds
            if seconds >= 0:
                return Place(time_ns=seconds * 10**9 + nanoseconds(match[2]))
    raise argparse.ArgumentTypeError(
        f"neither a seq nor a time since 1970: {text!r} (oldest, 4711, 2024-05-01T12:00:00Z, @1714564800)"
    )


def nanoseconds(fraction: str | None) -> int:
    """ "5" behind a decimal point: 500000000."""
    return int((fraction or "").ljust(9, "0"))
