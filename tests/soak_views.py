# SPDX-License-Identifier: MIT
"""Views against retention: ``make soak-views``, or ``CHRONICLE_SOAK_SECS=30 python -m tests.soak_views [--seed N]``.

A writer whose retention keeps a few segments, and reuses the files of those that nobody has a view of; and a reader in
a process of its own that keeps what it reads in every shape there is (batches, slices, memoryviews, arrays of numpy,
record batches of Arrow), long after the segments are
gone. Two threads of it take turns in checking every byte of something kept, and in dropping it. Looked at all the time:
as many segments are mapped as something is kept of, and no more; descriptors and memory stay flat.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronicle_ffi import Batch, Queue, Retention
from tests.kill import fork

SEGMENT = 1 << 20
SEGMENTS_MAX = 2  # files that retention leaves
KEPT_MAX = 200
OLD_SHARE = 0.05
OLD_MAX = 20
BLOCK = 300  # records of one length come in blocks, so that arrays of them are possible
ROW_BYTES = 48
MEMORY_GROWTH_MAX = 48 << 20
DESCRIPTORS_MAX = 30
NOISE = random.Random(1).randbytes(1 << 14)


def payload(seq: int) -> bytes:
    at = seq * 7919 % 8000
    size = ROW_BYTES if seq // BLOCK % 2 else seq * 104729 % 2500
    return NOISE[at : at + size]


def write(path: Path, seed: int, stop: Path) -> None:
    dice = random.Random(seed)
    limits = Retention(max_segments=SEGMENTS_MAX)
    with Queue.open_publisher(path, segment_size=SEGMENT, retention=limits, reuse=True) as writer:
        while not stop.exists():
            seq = writer.next_seq
            writer.append_many([payload(seq + i) for i in range(dice.randrange(1, 100))], atomic=dice.random() < 0.3)
            time.sleep(dice.random() * 0.004)
        stats = writer.stats()
        print(f"{stats.reused_segments} of {stats.deleted_segments} deleted segments were used again")


# ------------------------------------------------------------------------------------------ what is kept


@dataclass
class Kept:
    """Something made of the records from `first` on, and how to have its payloads again."""

    segment: tuple[int, int]  #: how many segments, and gaps, the reader had met
    first: int
    count: int
    payloads: Callable[[], list[bytes]]

    def check(self) -> int:
        wanted = [payload(self.first + i) for i in range(self.count)]
        if self.payloads() != wanted:
            raise SystemExit(f"records {self.first} to {self.first + self.count - 1} have changed")
        return self.count


def of_views(batch: Batch) -> Callable[[], list[bytes]]:
    views = batch.views()
    return lambda: list(map(bytes, views))


def of_numpy(batch: Batch) -> Callable[[], list[bytes]]:
    rows = batch.to_numpy(header=True)["payload"]
    return lambda: [row.tobytes() for row in rows]


def of_arrow(batch: Batch) -> Callable[[], list[bytes]]:
    column = batch.to_arrow()["payload"]
    return lambda: [value.as_py() for value in column]


def shapes() -> dict[str, Callable[[Batch], Callable[[], list[bytes]]]]:
    """What this installation can keep a batch as."""
    found: dict[str, Callable[[Batch], Callable[[], list[bytes]]]] = {
        "batch": lambda batch: batch.payloads,
        "views": of_views,
    }
    for name, make in (("numpy", of_numpy), ("pyarrow", of_arrow)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            found[name] = make
    return found


# --------------------------------------------------------------------------------------------- the reader


class Reader:
    def __init__(self, path: Path, seed: int, stop: Path) -> None:
        self.path, self.stop = path, stop
        self.dice = random.Random(seed)
        self.shapes = shapes()
        self.kept: list[Kept] = []
        self.old: deque[Kept] = deque()  # so long that their segments are deleted meanwhile
        self.lock = threading.Lock()
        self.made = dict.fromkeys(self.shapes, 0)
        self.checked = self.gaps = self.outlived_max = self.first_memory = 0
        self.failed: list[BaseException] = []

    def keep(self, batch: Batch, segment: tuple[int, int]) -> None:
        begin = self.dice.randrange(len(batch))
        part = batch[begin : begin + self.dice.randrange(1, 200)]
        same = min(part.length) == max(part.length)
        shape = self.dice.choice([name for name in self.shapes if name != "numpy" or same])
        made = Kept(segment, part.seq[0], len(part), self.shapes[shape](part))
        self.made[shape] += 1
        with self.lock:
            (self.old if self.dice.random() < OLD_SHARE else self.kept).append(made)
            gone = self.old.popleft() if len(self.old) > OLD_MAX else None
        if gone is not None:
            self.checked += gone.check()

    def drop_one(self, dice: random.Random) -> None:
        with self.lock:
            one = self.kept.pop(dice.randrange(len(self.kept))) if self.kept else None
        if one is not None:
            self.checked += one.check()
            if dice.random() < 0.5 and not self.stop.exists():
                with self.lock:
                    self.kept.append(one)

    def drop_in_a_thread(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            while not self.stop.exists():
                self.drop_one(dice)
                time.sleep(0.001)
        except BaseException as failure:
            self.failed.append(failure)

    def look(self) -> None:
        """Mappings, descriptors, memory, of this process."""
        with self.lock:
            kept = len({one.segment for one in (*self.kept, *self.old)})
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{self.path}/" in line]
        segments = [line for line in lines if ".seg" in line or "spare.tmp" in line]  # given up, and not reused
        self.outlived_max = max(self.outlived_max, sum("(deleted)" in line for line in segments))
        descriptors = len(os.listdir("/proc/self/fd"))
        status = Path("/proc/self/status").read_text()
        anonymous = int(status.split("RssAnon:")[1].split()[0]) << 10
        self.first_memory = self.first_memory or anonymous
        # One more for the reader's own, one for its batch, one for each thread that has something in its hands.
        if len(segments) > kept + 4 or descriptors > DESCRIPTORS_MAX:
            raise SystemExit(f"{len(segments)} segments mapped, {kept} in use, {descriptors} descriptors")
        if anonymous - self.first_memory > MEMORY_GROWTH_MAX:
            raise SystemExit(f"memory has grown from {self.first_memory} to {anonymous}")

    def run(self) -> str:
        thread = threading.Thread(target=self.drop_in_a_thread, args=[self.dice.random()])
        thread.start()
        try:
            with Queue.open_subscriber(self.path, on_gap="oldest") as reader:
                while not self.stop.exists() and not self.failed:
                    batch = reader.read_batch(self.dice.randrange(1, 2000))
                    if not len(batch):
                        time.sleep(0.002)
                        continue
                    stats = reader.stats()
                    self.keep(batch, (stats.rolls, stats.gaps))
                    while len(self.kept) > KEPT_MAX:
                        self.drop_one(self.dice)
                    if self.dice.random() < 0.05:
                        self.look()
                self.gaps = reader.stats().gaps
        finally:
            self.stop.touch()
            thread.join()
        for failure in self.failed:
            raise failure
        while self.kept:  # the reader is closed, the writer gone
            self.drop_one(self.dice)
        while self.old:
            self.checked += self.old.popleft().check()
        del batch
        gc.collect()
        left = [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{self.path}/" in line]
        if left:
            raise SystemExit(f"still mapped: {left}")
        if self.outlived_max == 0 or not all(self.made.values()):
            raise SystemExit(f"too short to tell anything: {self.outlived_max} files outlived, kept {self.made}")
        kinds = ", ".join(f"{count} as {name}" for name, count in self.made.items())
        return (
            f"{self.checked} records checked in what was kept ({kinds}), up to {self.outlived_max} deleted files "
            f"mapped, {self.gaps} gaps: nothing changed, nothing left behind"
        )


def read(path: Path, seed: int, stop: Path, out: Path) -> None:
    while not path.joinpath("queue.meta").exists():
        time.sleep(0.01)
    out.write_text(Reader(path, seed, stop).run())


def main_of(work: Callable[..., None], *arguments: Any) -> None:
    work(*arguments)
    os._exit(0)


def soak(directory: Path, seconds: float, seed: int) -> str:
    """Run it in `directory`; what it came to, or SystemExit."""
    path, stop, out = directory / "queue", directory / "stop", directory / "out"
    Queue.open_publisher(path, segment_size=SEGMENT, keeper=False).close()
    running = {
        "writer": fork(main_of, write, path, seed, stop),
        "reader": fork(main_of, read, path, seed + 1, stop, out),
    }
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and not stop.exists():
            time.sleep(0.1)
        stop.touch()
        for name in list(running):
            status = os.waitpid(running.pop(name), 0)[1]
            if status:
                raise SystemExit(f"the {name} ended with status {status}: see above")
    finally:
        for pid in running.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    report = Queue.verify(path)
    if not report.ok:
        raise SystemExit(f"the queue is damaged: {report.problems}")
    return f"{report.next_seq} records written, {out.read_text()}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep views of segments that retention deletes.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    seed = parser.parse_args().seed
    seconds = float(os.environ.get("CHRONICLE_SOAK_SECS", "60"))
    print(f"replay: CHRONICLE_SOAK_SECS={seconds:g} python -m tests.soak_views --seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="chronicle-soak-"))
    try:
        print(soak(directory, seconds, seed))
    except SystemExit:
        print(f"the queue is kept: {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
