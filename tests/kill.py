# SPDX-License-Identifier: MIT
"""Kill writers at random moments, thousands of times, with readers attached: ``make kill``.

Each round starts a writer that appends, batches, claims, syncs, cleans up and rolls small segments, and SIGKILLs it
some milliseconds later. A live reader and one that is killed and restarted as well check every record. At the end:
no acknowledged record lost, no gap, nothing twice but behind the last commit, and the queue verifies.

``python -m tests.kill [--kills N] [--seed N] [--dir DIR]``
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chronicle_ffi import Queue, QueueReader
from tests import decoder

SEGMENT = 1 << 16


def payload(seq: int) -> bytes:
    return b"%d:" % seq + bytes([seq % 251]) * (seq * 7919 % 2000)


def write(path: Path, seed: int, acknowledged: int) -> None:
    """In the child, until it is killed; tells each acknowledged seq through a pipe."""
    dice = random.Random(seed)
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=bool(seed % 2)) as writer:
        while True:
            seq = writer.next_seq
            what = dice.randrange(40)
            if what < 20:
                writer.append(payload(seq), timestamp_ns=seq)
            elif what < 30:
                count = dice.randrange(1, 9)
                writer.append_many([payload(seq + i) for i in range(count)], timestamp_ns=seq, atomic=True)
            elif what < 36:
                data = payload(seq)
                with writer.claim(len(data), timestamp_ns=seq) as buffer:
                    buffer[:] = data
            elif what < 38:
                writer.append_many([payload(seq + i) for i in range(30)])
            elif what < 39:
                writer.cleanup()
            elif dice.randrange(5) == 0:
                writer.sync()
            os.write(acknowledged, writer.next_seq.to_bytes(8, "little"))


def follow(path: Path, name: str, seed: int) -> None:
    """In a child that will be killed too: reads, checks, commits now and then."""
    dice = random.Random(seed)
    with Queue.open_subscriber(path, name) as reader:
        for message in reader.follow():
            assert message.payload == payload(message.seq)
            if dice.randrange(50) == 0:
                reader.commit()


def fork(work: object, *arguments: object) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)  # type: ignore[operator]
    except BaseException as failure:
        os.write(2, f"{failure!r}\n".encode())
    os._exit(1)


def reap(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("a child ended before it was killed: see above")


class Check:
    """The live reader: it sees every record once, in order."""

    def __init__(self, reader: QueueReader) -> None:
        self.reader = reader
        self.expected = 0

    def drain(self, acknowledged: int) -> None:
        for message in self.reader:
            if message.seq != self.expected or message.payload != payload(message.seq):
                raise SystemExit(f"seq {message.seq} came, {self.expected} was expected")
            self.expected += 1
        if self.expected < acknowledged:
            raise SystemExit(f"seq {acknowledged - 1} was acknowledged, the log ends before {self.expected}")
        self.reader.commit()


def check_content(path: Path, end: int) -> None:
    """The decoder written from the document alone says the same of what is left."""
    decoded = decoder.open_queue(path)
    if decoded.next_seq != end or any(record.payload != payload(record.seq) for record in decoded.records):
        raise SystemExit(f"the other decoder finds an end at {decoded.next_seq}, or other payloads")


def last_acknowledged(pipe: int) -> int:
    """What the writer wrote before it died; whole numbers only."""
    os.set_blocking(pipe, False)
    data = b""
    try:
        while chunk := os.read(pipe, 1 << 16):
            data += chunk
    except BlockingIOError:
        pass
    whole = len(data) // 8 * 8
    return int.from_bytes(data[whole - 8 : whole], "little") if whole else 0


def kill_writers(path: Path, kills: int, seed: int) -> str:
    dice = random.Random(seed)
    Queue.open_publisher(path, segment_size=SEGMENT, keeper=False).close()
    began = told = time.monotonic()
    with Queue.open_subscriber(path, "live") as reader:
        check = Check(reader)
        follower = fork(follow, path, "killed", seed)
        for round_ in range(kills):
            reading, writing = os.pipe()
            writer = fork(write, path, seed * 1_000_003 + round_, writing)
            os.close(writing)
            time.sleep(dice.random() ** 2 * 0.03)
            reap(writer)
            check.drain(last_acknowledged(reading))
            os.close(reading)
            if dice.randrange(10) == 0:
                reap(follower)
                follower = fork(follow, path, "killed", seed + round_)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f"{round_ + 1} kills, {check.expected} records", flush=True)
        reap(follower)
        with Queue.open_publisher(path, keeper=False) as last:
            if last.next_seq != check.expected:
                raise SystemExit(f"the next writer goes on at {last.next_seq}, the reader at {check.expected}")
    report = Queue.verify(path)
    if not report.ok:
        raise SystemExit(f"verify: {report.problems}")
    check_content(path, check.expected)
    return f"{kills} kills, {check.expected} records, {time.monotonic() - began:.0f} s: nothing lost, no gap"


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill writers at random moments.")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    print(f"replay: {sys.executable} -m tests.kill --kills {args.kills} --seed {args.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="chronicle-kill-", dir=args.dir))
    try:
        print(kill_writers(directory / "queue", args.kills, args.seed))
    except SystemExit:
        print(f"the queue is kept: {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
