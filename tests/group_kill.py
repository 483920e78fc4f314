# SPDX-License-Identifier: MIT
"""Kill the workers of a group at random moments, while the others go on: ``make group-kill``.

Eight workers share out a million jobs; one after the other is SIGKILLed, and another one takes its place. A worker
notes in a shared table what it does: a job is handed out, about to be acknowledged, acknowledged. At the end: none was
lost, none that had been acknowledged came again, each is done once, and deliveries were counted right.

``python -m tests.group_kill [--jobs N] [--kills N] [--workers N] [--seed N] [--dir DIR]``
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chronicle_ffi import Queue, StaleReceipt

STARTED, ACKING, ACKED, AGAIN = 0, 1, 2, 3  # columns of the table, a byte each for a job
SEGMENT = 1 << 20


def work(path: Path, seed: int, table: mmap.mmap, jobs: int, batch: int) -> None:
    """In a child, until it is killed, or all is done."""
    dice = random.Random(seed)
    with Queue.open_group(path, "work", max_deliveries=200, window=4096) as group:
        while taken := group.take_many(batch if dice.randrange(4) else 1, timeout=None):
            for job in taken:
                at = 4 * job.seq
                assert job.payload == b"%d" % job.seq
                if table[at + ACKED]:
                    table[at + AGAIN] = 1
                assert table[at + STARTED] <= job.delivery
                table[at + STARTED] = job.delivery
                if dice.randrange(50) == 0:
                    job.nack(0.001 * dice.randrange(3))
                    continue
                table[at + ACKING] += 1
                try:
                    job.ack()
                except StaleReceipt:
                    table[at + AGAIN] = 1  # without a lease nobody takes it away
                table[at + ACKED] += 1


def fork(*arguments: object) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)  # type: ignore[arg-type]
    except BaseException as failure:
        os.write(2, f"{failure!r}\n".encode())
    os._exit(1)


def reap(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("a worker ended before it was killed: see above")


def floor_of(path: Path) -> int:
    return Queue.groups(path)[0].floor if Queue.groups(path) else 0


def run(path: Path, jobs: int, kills: int, workers: int, seed: int) -> str:
    """What happened, in a line; raises SystemExit if a promise was broken."""
    dice = random.Random(seed)
    table = mmap.mmap(-1, 4 * jobs)
    began = time.monotonic()
    children: list[int] = []
    with Queue.open_publisher(path, segment_size=SEGMENT) as writer:
        for killed in range(kills + 1):  # jobs come as kills do, so that these meet all of the run
            appended = writer.next_seq
            writer.append_many([b"%d" % seq for seq in range(appended, jobs * (killed + 1) // (kills + 1))])
            if len(children) < workers:
                children += [fork(path, seed * 1000 + i, table, jobs, 8) for i in range(workers)]
            time.sleep(dice.random() * 0.01)
            place = dice.randrange(workers)
            reap(children[place])
            children[place] = fork(path, seed * 1_000_003 + killed, table, jobs, 8)
        while floor_of(path) < jobs:
            time.sleep(0.01)
    for child in children:
        reap(child)
    check(table, jobs)
    deliveries = sum(table[4 * seq + STARTED] for seq in range(jobs))
    seconds = time.monotonic() - began
    return f"{jobs} jobs, {workers} workers, {kills + 1} killed, {deliveries - jobs} deliveries more: {seconds:.1f} s"


def check(table: mmap.mmap, jobs: int) -> None:
    for seq in range(jobs):
        started, acking, acked, again = table[4 * seq : 4 * seq + 4]
        if again:
            raise SystemExit(f"job {seq} was acknowledged, and handed out again")
        if started == 0 or acking == 0:
            raise SystemExit(f"job {seq} counts as done, and nobody has acknowledged it")
        if acked > 1:
            raise SystemExit(f"job {seq} was acknowledged {acked} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    print(f"python -m tests.group_kill --jobs {args.jobs} --kills {args.kills} --seed {args.seed}", file=sys.stderr)
    directory = Path(tempfile.mkdtemp(dir=args.dir or "/var/tmp"))
    try:
        print(run(directory / "queue", args.jobs, args.kills, args.workers, args.seed))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
