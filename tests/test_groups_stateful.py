# SPDX-License-Identifier: MIT
"""Hypothesis drives several workers of a group, and processes that die with jobs in hand, against a dictionary."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chronicle_ffi import Group, GroupFull, Job, Queue, StaleReceipt

MORE = int(os.environ.get("CHRONICLE_STATEFUL_EXAMPLES", "0"))
WORKERS = 3
MOST = 3  # deliveries
WINDOW = 64


class Workers(RuleBasedStateMachine):
    """What is known of each job: how often it was handed out, who has it, and whether it is done."""

    @initialize()
    def begin(self) -> None:
        self.path = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)) / "queue"
        self.writer = Queue.open_publisher(self.path, segment_size=1 << 16, keeper=False)
        self.groups: dict[int, Group] = {}
        self.deliveries: list[int] = []
        self.held: dict[int, tuple[int, Job]] = {}
        self.stale: list[tuple[int, Job]] = []
        self.done: set[int] = set()
        self.dead: set[int] = set()

    def group(self, worker: int) -> Group:
        if worker not in self.groups:
            self.groups[worker] = Queue.open_group(self.path, "w", max_deliveries=MOST, window=WINDOW)
        return self.groups[worker]

    @rule(count=st.integers(1, 40))
    def append(self, count: int) -> None:
        self.writer.append_many([bytes(900)] * count)
        self.deliveries += [0] * count

    def free(self) -> list[int]:
        """What may be handed out, the oldest first; those that were handed out too often go to the dead queue."""
        settled = self.done | self.dead | self.held.keys()
        floor = min((seq for seq in range(len(self.deliveries)) if seq not in self.done | self.dead), default=0)
        return [seq for seq in range(floor, min(floor + WINDOW, len(self.deliveries))) if seq not in settled]

    def bury(self) -> None:
        """The front ones that have been handed out too often are dead letters once somebody takes."""
        while (free := self.free()) and self.deliveries[free[0]] >= MOST:
            self.dead.add(free[0])

    @rule(worker=st.integers(0, WORKERS - 1), count=st.integers(1, 5))
    def take(self, worker: int, count: int) -> None:
        group = self.group(worker)
        try:
            jobs = group.take_many(count, timeout=0)
        except GroupFull:
            jobs = []
        self.bury()
        free = self.free()
        assert [job.seq for job in jobs] == free[: len(jobs)]
        assert bool(jobs) == bool(free)
        for job in jobs:
            self.deliveries[job.seq] += 1
            assert job.delivery == self.deliveries[job.seq]
            assert job.delivery == 1 or len(jobs) == 1
            self.held[job.seq] = worker, job

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["ack", "ack", "nack", "reject", "release"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        worker, job = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if how == "release":
            self.group((worker + 1) % WORKERS).release(job.seq)
        else:
            getattr(job, how)()
        if how == "ack":
            self.done.add(job.seq)
        elif how == "reject":
            self.dead.add(job.seq)
        self.stale.append((worker, job))

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), how=st.sampled_from(["ack", "nack", "extend", "reject"]))
    def settle_again(self, data: st.DataObject, how: str) -> None:
        _, job = data.draw(st.sampled_from(self.stale))
        with pytest.raises(StaleReceipt):
            getattr(job, how)()

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.groups)))
        group = self.groups.pop(worker)
        group.close()
        self.held = {seq: held for seq, held in self.held.items() if held[0] != worker}
        self.stale = [(owner, job) for owner, job in self.stale if owner != worker]

    @rule(acks=st.integers(0, 2), count=st.integers(1, 3))
    def die(self, acks: int, count: int) -> None:
        """A process takes some, acknowledges the first of them, and is killed."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with Queue.open_group(self.path, "w", max_deliveries=MOST, window=WINDOW) as group:
                try:
                    jobs = group.take_many(count)
                except GroupFull:
                    jobs = []
                for job in jobs[:acks]:
                    job.ack()
                os.write(writing, bytes(job.seq % 256 for job in jobs))
                os.kill(os.getpid(), signal.SIGKILL)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            taken = told.read()
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        self.bury()
        free = self.free()[: len(taken)]
        assert bytes(seq % 256 for seq in free) == taken
        for seq in free:
            self.deliveries[seq] += 1
        self.done |= set(free[:acks])
        time.sleep(0.06)  # within 100 ms, the guide says: then the next look sees it

    @invariant()
    def nothing_is_lost(self) -> None:
        if not getattr(self, "groups", None):
            return
        (info,) = Queue.groups(self.path)
        undone = [seq for seq in range(len(self.deliveries)) if seq not in self.done | self.dead]
        assert info.floor <= (undone[0] if undone else len(self.deliveries))

    def teardown(self) -> None:
        if not hasattr(self, "path"):
            return
        for group in self.groups.values():
            group.close()
        self.writer.close()
        letters = [letter.seq for letter in Queue.dead_letters(self.path)]
        assert sorted(letters) == sorted(self.dead)
        shutil.rmtree(self.path.parent)


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=MORE or 6, stateful_step_count=30)
