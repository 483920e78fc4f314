# SPDX-License-Identifier: MIT
"""The demo's processes: one writer, and readers. Each is one function, run in a fresh interpreter."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from chronicle_ffi import Queue, QueueReader
from chronicle_ffi.cli.demo.source import FILE, LINE, Tally

PATIENCE_SECONDS = 20.0  # without any progress: something is wrong
RECORDS_PAST_COMMIT = 100  # that the reader which is killed has seen, and not committed


class DemoFailure(Exception):
    """Something differs, or does not move on; the text says where."""


@dataclass(frozen=True)
class Plan:
    """What all processes of one run know."""

    tree: Path
    sources: list[str]
    records: int  # in the whole journal
    directory: Path

    @property
    def queue(self) -> Path:
        return self.directory / "queue"

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint.json"


@dataclass(frozen=True)
class Written:
    """What the writer did."""

    records: int
    payload_bytes: int
    rolls: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """What a reader saw."""

    tally: Tally  # of the whole journal, predecessors' part included
    resumed_from: int  # seq at which this process began
    seconds: float  # that this process took


def write_journal(plan: Plan) -> Written:
    """Append every file: its path, then its lines."""
    started = time.perf_counter()
    with Queue.open_publisher(plan.queue, create=False) as writer:
        for source in plan.sources:
            with open(plan.tree / source, "rb") as file:
                lines = file.readlines()
            writer.append(os.fsencode(source), type_id=FILE)
            for line in lines:  # one by one, as a program that has its records one by one would
                writer.append(line, LINE)
        stats = writer.stats()
    return Written(stats.records, stats.payload_bytes, stats.rolls, time.perf_counter() - started)


def read_journal(plan: Plan, name: str) -> Seen:
    """Follow the journal to its end."""
    with Queue.open_subscriber(plan.queue, name) as reader:
        return Follower(plan, reader).follow()


def read_and_check_journal(plan: Plan, name: str) -> Seen:
    """The same, comparing each line with the file it came from."""
    with Queue.open_subscriber(plan.queue, name) as reader:
        return CheckingFollower(plan, reader).follow()


def read_journal_in_lives(plan: Plan, name: str, die_in_file: int | None) -> Seen:
    """The same, with checkpoints: whoever takes over, after a SIGKILL, arrives at the same digest.

    With `die_in_file`, the process kills itself with SIGKILL in the middle of that file (0 is the first).
    """
    with Queue.open_subscriber(plan.queue, name) as reader:
        return CheckpointingFollower(plan, reader, die_in_file).follow()


class Follower:
    """Folds the journal into a tally, file by file, and commits whenever a new file has begun."""

    def __init__(self, plan: Plan, reader: QueueReader) -> None:
        self.plan = plan
        self.reader = reader
        self.tally = Tally()
        self.path: bytes | None = None  # of the file that is being read; its lines so far are in `lines`
        self.lines: list[bytes] = []

    def follow(self) -> Seen:
        resumed_from = self.reader.position
        started = time.perf_counter()
        while self.reader.position < self.plan.records:
            if not self.reader.wait(PATIENCE_SECONDS):
                raise DemoFailure(
                    f"no record for {PATIENCE_SECONDS:.0f} s; waiting for seq {self.reader.position}"
                    f" of {self.plan.records}"
                )
            for message in self.reader:
                if message.type_id == LINE:
                    self.lines.append(message.payload)
                else:
                    self.begin_file(message.seq, message.payload)
        self.end_file()
        self.reader.commit()
        return Seen(self.tally, resumed_from, time.perf_counter() - started)

    def begin_file(self, seq: int, path: bytes) -> None:
        self.end_file()
        if seq != self.tally.records:
            raise DemoFailure(f"{path!r} begins at seq {seq}, after {self.tally.records} records")
        self.path = path
        self.commit()

    def end_file(self) -> None:
        if self.path is not None:
            self.tally.add(self.path, b"".join(self.lines), len(self.lines))
            self.lines.clear()

    def commit(self) -> None:
        self.reader.commit()


class CheckingFollower(Follower):
    """Compares each line with the file that it came from."""

    def end_file(self) -> None:
        if self.path is not None:
            with open(self.plan.tree / os.fsdecode(self.path), "rb") as file:
                expected = file.readlines()
            if self.lines != expected:
                self.tell_difference(self.path, expected)
        super().end_file()

    def tell_difference(self, path: bytes, expected: list[bytes]) -> None:
        pairs = zip(self.lines, expected)  # noqa: B905 (one may be longer: then they differ behind its end)
        same = next((i for i, (seen, wanted) in enumerate(pairs) if seen != wanted), None)
        index = min(len(self.lines), len(expected)) if same is None else same
        raise DemoFailure(
            f"seq {self.tally.records + 1 + index}: line {index + 1} of {os.fsdecode(path)} differs:"
            f" read {self.lines[index : index + 1]}, the file has {expected[index : index + 1]}"
        )


class CheckpointingFollower(Follower):
    """Keeps its tally in a file, so that a successor can go on from the committed position.

    The file is replaced before the position is committed, and a SIGKILL may fall in between; therefore it
    holds the checkpoints of the last two commits, and the committed position tells which of them counts.
    """

    def __init__(self, plan: Plan, reader: QueueReader, die_in_file: int | None) -> None:
        super().__init__(plan, reader)
        self.die_in_file = die_in_file
        self.previous: dict[str, object] | None = None
        if reader.committed is not None:
            self.restore(reader.committed)

    def restore(self, committed: int) -> None:
        checkpoints = json.loads(self.plan.checkpoint.read_text())
        found = [entry for entry in checkpoints if entry["position"] == committed]
        if not found:
            raise DemoFailure(f"no checkpoint belongs to the committed position {committed}: {checkpoints}")
        self.previous = found[0]
        self.path = os.fsencode(found[0]["path"])
        self.tally = Tally(**found[0]["tally"])

    def commit(self) -> None:
        assert self.path is not None
        current: dict[str, object] = {
            "position": self.reader.position,
            "path": os.fsdecode(self.path),
            "tally": asdict(self.tally),
        }
        fresh = self.plan.checkpoint.with_suffix(".tmp")
        fresh.write_text(json.dumps([entry for entry in (self.previous, current) if entry is not None]))
        fresh.replace(self.plan.checkpoint)
        self.reader.commit()
        self.previous = current
        if self.tally.files == self.die_in_file:
            for _ in islice(self.reader, RECORDS_PAST_COMMIT):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
