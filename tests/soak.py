# SPDX-License-Identifier: MIT
"""Run for long: ``make soak``, or ``CHRONICLE_SOAK_SECS=30 python -m tests.soak [--seed N] [--dir DIR]``.

A writer with retention, and three named readers, each a process of its own, pausing now and then; any of them is
killed with SIGKILL at random and started again. Every reader checks content and order, that it resumes where it
committed, and that it sees nothing twice but what lies behind that. Looked at all the time: the queue verifies, disk
use is bounded, descriptors and mappings of the queue do not add up, memory stays flat, and everybody moves. At the end
all stop, catch up, have come to the same end, and have seen equally many records.
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
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

from chronicle_ffi import Queue, QueueFull, Retention
from tests.kill import fork, reap
from tests.test_stress import payload, timestamp, type_id, write_batch

SEGMENT = 1 << 18
MAX_SEGMENTS = 40  # of back-pressure: the bound on disk use
READERS = ("a", "b", "c")
PATIENCE_SECONDS = 60.0
MEMORY_GROWTH_MAX = 16 << 20
DESCRIPTORS_MAX = 30 + 64  # of sealed segments that wait for a sync (write/backlog.h)
MAPPINGS_MAX = 12


class Shared:
    """What a reader tells of all its lives, in memory that outlives it: three numbers."""

    SEEN, COMMITTING, COMMITTED = range(3)  # how many records it saw, each once; before, and after a commit

    def __init__(self) -> None:
        self.memory = memoryview(mmap(-1, 4096)).cast("Q")

    def __getitem__(self, which: int) -> int:
        return self.memory[which]

    def __setitem__(self, which: int, value: int) -> None:
        self.memory[which] = value


def write(path: Path, seed: int, stop: Path) -> None:
    dice = random.Random(seed)
    with Queue.open_publisher(
        path, segment_size=SEGMENT, max_segments=MAX_SEGMENTS, backpressure=PATIENCE_SECONDS, retention=Retention()
    ) as writer:
        while not stop.exists():
            seq = writer.next_seq
            what = dice.randrange(4)
            try:
                if what < 2:
                    write_batch(writer, range(seq, seq + dice.randrange(1, 200)), what == 0)
                elif what == 2:
                    data = payload(seq)
                    with writer.claim(len(data), type_id(seq), timestamp_ns=timestamp(seq)) as buffer:
                        buffer[:] = data
                else:
                    writer.append(payload(seq), type_id(seq), timestamp_ns=timestamp(seq))
            except QueueFull:
                raise SystemExit(f"no reader made room for {PATIENCE_SECONDS} s at seq {seq}") from None
            if dice.randrange(60) == 0:
                time.sleep(dice.random() * 0.05)
            if dice.randrange(200) == 0:
                writer.sync()


def read(path: Path, name: str, shared: Shared, seed: int, stop: Path) -> None:
    """Until the writer has stopped and everything is read."""
    dice = random.Random(seed)
    with Queue.open_subscriber(path, name) as reader:

        def commit() -> None:
            shared[Shared.COMMITTING] = reader.position
            reader.commit()
            shared[Shared.COMMITTED] = reader.position

        expected = reader.position
        known = (shared[Shared.COMMITTING], shared[Shared.COMMITTED])
        assert expected in known, f"{name} resumes at {expected}, it had committed {known}"
        while True:
            for message in reader.follow(timeout=0.2):
                seq = message.seq
                assert seq == expected, f"{name}: {seq} came after {expected - 1}"
                assert message.payload == payload(seq), f"{name}: the payload of {seq} is altered"
                assert (message.timestamp_ns, message.type_id) == (timestamp(seq), type_id(seq)), f"{name}: {seq}"
                expected += 1
                assert seq <= shared[Shared.SEEN], f"{name}: {seq} came, {shared[Shared.SEEN]} never did"
                shared[Shared.SEEN] += seq == shared[Shared.SEEN]  # the others came before its last death
                if dice.randrange(300) == 0:
                    commit()
                if dice.randrange(5000) == 0:
                    time.sleep(dice.random() * 0.1)
            commit()
            if stop.exists() and not reader.writer_alive() and reader.lag == 0:
                return


@dataclass
class Process:
    """One that is watched, and killed now and then."""

    name: str
    pid: int
    started: float
    first_memory: int = 0
    running: bool = True
    most: list[int] = field(default_factory=lambda: [0, 0, 0])  # descriptors, mappings, growth of memory

    def look(self, path: Path) -> None:
        """Its descriptors, mappings and memory, once it has run for a while."""
        if time.monotonic() - self.started < 2:
            return
        try:
            descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
            maps = sum(str(path) in line for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines())
            anonymous = next(
                int(line.split()[1]) << 10
                for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
                if line.startswith("RssAnon")
            )
        except (FileNotFoundError, ProcessLookupError, StopIteration):
            return
        self.first_memory = self.first_memory or anonymous
        self.most = [*map(max, self.most, (descriptors, maps, anonymous - self.first_memory))]
        if self.most[0] > DESCRIPTORS_MAX or self.most[1] > MAPPINGS_MAX or self.most[2] > MEMORY_GROWTH_MAX:
            raise SystemExit(
                f"{self.name}: {descriptors} descriptors, {maps} mappings, memory {self.first_memory} -> {anonymous}"
            )


class Soak:
    def __init__(self, directory: Path, seed: int) -> None:
        self.path = directory / "queue"
        self.stop = directory / "stop"
        self.dice = random.Random(seed)
        self.processes: dict[str, Process] = {}
        self.shared = {name: Shared() for name in READERS}
        self.kills = 0
        self.most = [0, 0, 0]
        self.places: dict[str, tuple[int, float]] = {}  # where the log's end and each reader were seen first, and when

    def start(self, name: str) -> None:
        seed = self.dice.randrange(1 << 30)
        pid = (
            fork(self.main_of, write, self.path, seed, self.stop)
            if name == "writer"
            else fork(self.main_of, read, self.path, name, self.shared[name], seed, self.stop)
        )
        self.processes[name] = Process(name, pid, time.monotonic())

    @staticmethod
    def main_of(work: object, *arguments: object) -> None:
        work(*arguments)  # type: ignore[operator]
        os._exit(0)

    def check(self) -> None:
        for process in self.processes.values():
            if os.waitpid(process.pid, os.WNOHANG)[0]:
                process.running = False
                raise SystemExit(f"{process.name} ended by itself: see above")
            process.look(self.path)
            self.most = [*map(max, self.most, process.most)]
        segments = len(list(self.path.glob("*.seg")))
        if segments > MAX_SEGMENTS + 1:
            raise SystemExit(f"{segments} segments, {MAX_SEGMENTS} are allowed")
        end = Queue.info(self.path).next_seq
        self.check_place("the end of the log", end, False)
        for info in Queue.readers(self.path):
            self.check_place(f"reader {info.name}", info.position, info.lag == 0)

    def check_place(self, who: str, seq: int, content: bool) -> None:
        """Everybody moves, unless there is nothing to do."""
        now = time.monotonic()
        place, since = self.places.get(who, (-1, now))
        if content or place != seq:
            self.places[who] = (seq, now)
        elif now - since > 2 * PATIENCE_SECONDS:
            raise SystemExit(f"{who} stands at {seq} for {now - since:.0f} s; {Queue.readers(self.path)}")

    def verify(self) -> None:
        """Beside everybody at work; a dead writer may have left an append cut off."""
        problems = [problem for problem in Queue.verify(self.path).problems if problem.kind != "tail"]
        if problems:
            raise SystemExit(f"verify: {problems}")

    def run(self, seconds: float) -> str:
        Queue.open_publisher(self.path, segment_size=SEGMENT, keeper=False).close()
        for name in READERS:
            Queue.open_subscriber(self.path, name).close()
        for name in ("writer", *READERS):
            self.start(name)
        began = told = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(self.dice.random() * 0.5)
            self.check()
            if self.dice.randrange(4) == 0:
                name = self.dice.choice([*self.processes])
                reap(self.processes[name].pid)
                self.kills += 1
                self.start(name)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self.verify()
                end = Queue.info(self.path).next_seq
                lags = {info.name: info.lag for info in Queue.readers(self.path)}
                print(f"{told - began:5.0f} s, {end} records, {self.kills} kills, lags {lags}", flush=True)
        return self.finish()

    def finish(self) -> str:
        self.stop.touch()
        for process in self.processes.values():
            _, status = os.waitpid(process.pid, 0)
            process.running = False
            if status:
                raise SystemExit(f"{process.name} ended with {status}: see above")
        end = Queue.info(self.path).next_seq
        positions = {info.name: info.position for info in Queue.readers(self.path)}
        counts = {name: shared[Shared.SEEN] for name, shared in self.shared.items()}
        report = Queue.verify(self.path)
        if set(positions.values()) != {end} or set(counts.values()) != {end} or not report.ok:
            raise SystemExit(f"the log ends at {end}; readers {positions}, which saw {counts}; {report.problems}")
        return (
            f"{end} records, {self.kills} kills: every reader saw each of them, unaltered; at most {self.most[0]} "
            f"descriptors, {self.most[1]} mappings, {self.most[2] >> 10} KiB more memory"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Run writer and readers for long, and kill them now and then.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    seconds = float(os.environ.get("CHRONICLE_SOAK_SECS", "60"))
    print(f"replay: CHRONICLE_SOAK_SECS={seconds:g} {sys.executable} -m tests.soak --seed {args.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="chronicle-soak-", dir=args.dir))
    try:
        soak = Soak(directory, args.seed)
        try:
            print(soak.run(seconds))
        finally:
            for process in soak.processes.values():
                if process.running:
                    os.kill(process.pid, signal.SIGKILL)
    except SystemExit:
        print(f"the queue is kept: {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
