# SPDX-License-Identifier: MIT
"""Capture lines with the times at which they arrived, and replay them at that pace, or faster.

    python capture.py /tmp/feed --from feed.txt.xz     # lines "<unix time>: <text>"; without --from: made up
    python replay.py /tmp/feed --speed 60

A record is a line without its time, which becomes the record's timestamp, to the nanosecond.
"""

import argparse
import lzma
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from chronicle_ffi import Queue


def nanoseconds(text: str) -> int:
    """ "1626993367.875267", without the detour over a float, which would round it."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def made_up(count: int) -> Iterator[str]:
    """A feed in bursts, as captures are."""
    chance = random.Random(7)
    now = 1_700_000_000 * 10**9
    for number in range(count):
        now += chance.choice((20_000, 150_000, 400_000_000))
        yield f'{now // 10**9}.{now % 10**9:09}: {{"n": {number}, "price": {chance.gauss(1.08, 0.001):.5f}}}\n'


def lines_of(file: Path) -> Iterator[str]:
    opener = lzma.open if file.suffix == ".xz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        yield from lines


def capture(queue: str, lines: Iterable[str]) -> int:
    """Append each line at its time; a real capture would append each as it arrives, and let the clock be read."""
    with Queue.open_publisher(queue) as writer:
        for line in lines:
            stamp, _, text = line.partition(": ")
            writer.append(text.rstrip("\n").encode(), timestamp_ns=nanoseconds(stamp))
        return writer.next_seq


def main() -> None:
    parser = argparse.ArgumentParser(description="Capture lines with their times.")
    parser.add_argument("queue")
    parser.add_argument("--from", dest="file", type=Path, help="a file of lines, plain or .xz")
    parser.add_argument("--count", type=int, default=200, help="how many to make up without a file")
    args = parser.parse_args()
    lines = lines_of(args.file) if args.file else made_up(args.count)
    print(f"captured; the queue has {capture(args.queue, lines)} records")


if __name__ == "__main__":
    main()
