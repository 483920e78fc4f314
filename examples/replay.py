# SPDX-License-Identifier: MIT
"""Replay what capture.py captured, at the pace at which it came, or ``--speed`` times as fast.

python replay.py /tmp/feed --speed 60 --after 2023-11-14T22:13:25+00:00
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TextIO

from chronicle_ffi import Queue


def replay(
    queue: str,
    out: TextIO,
    speed: float = 1.0,
    after: datetime | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Each record is due when as much time has gone by since the first one as did then, divided by the speed.

    Due times count from the beginning, so that delays do not add up. Returns how many there were.
    """
    count = 0
    first_ns = 0
    begin = clock()
    with Queue.open_subscriber(queue, start=after or "earliest") as reader:
        for message in reader:
            if count == 0:
                first_ns = message.timestamp_ns
            due = begin + (message.timestamp_ns - first_ns) / 1e9 / speed
            if (early := due - clock()) > 0:
                sleep(early)
            print(message.time.isoformat(), message.payload.decode(), file=out)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay a capture.")
    parser.add_argument("queue")
    parser.add_argument("--speed", type=float, default=1.0, help="2: twice as fast; inf: without waiting (default: 1)")
    parser.add_argument("--after", type=datetime.fromisoformat, help="begin with the first record not older than this")
    args = parser.parse_args()
    if not args.speed > 0 or math.isnan(args.speed):
        parser.error("--speed is a number above 0")
    count = replay(args.queue, sys.stdout, args.speed, args.after)
    print(f"replayed {count} records", file=sys.stderr)


if __name__ == "__main__":
    main()
