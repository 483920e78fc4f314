# SPDX-License-Identifier: MIT
"""Run for long: ``make soak``, or ``CHRONICLE_SOAK_SECS=30 python -m tests.soak [--seed N] [--dir DIR]``.

A writer with retention, and three named readers, each a process of its own, pausing now and then; any of them is
killed with SIGKILL at random and started again. Every reader checks content and order, and that it resumes at its
committed position. Looked at all the time: disk use is bounded, descriptors and mappings of the queue do not add up,
memory stays flat. At the end all stop, catch up, and have come to the same end, and the queue verifies.
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
from dataclasses import dataclass
from pathlib import Path

from chronicle_ffi import Queue, QueueFull, Retention
from tests.kill import fork, payload, reap

SEGMENT = 1 << 18
MAX_SEGMENTS = 40  # of back-pressure: the bound on disk use
READERS = ("a", "b", "c")
PATIENCE_SECONDS = 30.0
MEMORY_GROWTH_MAX = 48 << 20


def write(path: Path, seed: int, stop: Path) -> None:
    dice = random.Random(seed)
    with Queue.open_publisher(
        path, segment_size=SEGMENT, max_segments=MAX_SEGMENTS, backpressure=PATIENCE_SECONDS, retention=Retention()
    ) as writer:
        while not stop.exists():
            seq = writer.next_seq
            count = dice.randrange(1, 200)
            try:
                if dice.randrange(3):
                    writer.append_many([payload(seq + i) for i in range(count)])
                else:
                    writer.append_many([payload(seq + i) for i in range(count // 10 + 1)], atomic=True)
            except QueueFull:
                raise SystemExit(f"no reader made room for {PATIENCE_SECONDS} s at seq {seq}") from None
            if dice.randrange(30) == 0:
                time.sleep(dice.random() * 0.05)
            if dice.randrange(200) == 0:
                writer.sync()


def read(path: Path, name: str, seed: int, stop: Path) -> None:
    """Until the writer has stopped and everything is read."""
    dice = random.Random(seed)
    committed = {info.name: info.position for info in Queue.readers(path)}[name]
    with Queue.open_subscriber(path, name) as reader:
        assert reader.position == committed, f"{name} resumes at {reader.position}, not at {committed}"
        expected = committed
        while True:
            for message in reader.follow(timeout=0.2):
                assert message.seq == expected, f"{name}: {message.seq} came after {expected - 1}"
                assert message.payload == payload(message.seq), f"{name}: seq {message.seq} is altered"
                expected += 1
                if dice.randrange(300) == 0:
                    reader.commit()
                if dice.randrange(5000) == 0:
                    time.sleep(dice.random() * 0.1)
            reader.commit()
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
        if descriptors > 30 or maps > 12 or anonymous - self.first_memory > MEMORY_GROWTH_MAX:
            raise SystemExit(
                f"{self.name}: {descriptors} descriptors, {maps} mappings, memory {self.first_memory} -> {anonymous}"
            )


class Soak:
    def __init__(self, directory: Path, seed: int) -> None:
        self.path = directory / "queue"
        self.stop = directory / "stop"
        self.dice = random.Random(seed)
        self.processes: dict[str, Process] = {}
        self.kills = 0

    def start(self, name: str) -> None:
        seed = self.dice.randrange(1 << 30)
        pid = (
            fork(self.main_of, write, self.path, seed, self.stop)
            if name == "writer"
            else fork(self.main_of, read, self.path, name, seed, self.stop)
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
        segments = len(list(self.path.glob("*.seg")))
        if segments > MAX_SEGMENTS + 1:
            raise SystemExit(f"{segments} segments, {MAX_SEGMENTS} are allowed")

    def run(self, seconds: float) -> str:
        Queue.open_publisher(self.path, segment_size=SEGMENT, keeper=False).close()
        for name in READERS:
            Queue.open_subscriber(self.path, name).close()
        for name in ("writer", *READERS):
            self.start(name)
        began = told = moved = time.monotonic()
        end = 0
        while time.monotonic() - began < seconds:
            time.sleep(self.dice.random() * 0.5)
            self.check()
            now = Queue.info(self.path).next_seq
            if now != end:
                end, moved = now, time.monotonic()
            if time.monotonic() - moved > PATIENCE_SECONDS:
                raise SystemExit(f"the log stands at seq {end}; readers: {Queue.readers(self.path)}")
            if self.dice.randrange(4) == 0:
                name = self.dice.choice([*self.processes])
                reap(self.processes[name].pid)
                self.kills += 1
                self.start(name)
            if time.monotonic() - told > 5:
                told = time.monotonic()
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
        report = Queue.verify(self.path)
        if set(positions.values()) != {end} or not report.ok:
            raise SystemExit(f"the log ends at {end}; readers {positions}; {report.problems}")
        return f"{end} records, {self.kills} kills: all readers at the end, nothing altered, all bounds kept"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run writer and readers for long, and kill them now and then.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    seconds = float(os.environ.get("CHRONICLE_SOAK_SECS", "60"))
    print(f"replay: CHRONICLE_SOAK_SECS={seconds:g} python -m tests.soak --seed {args.seed}", flush=True)
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
