# SPDX-License-Identifier: MIT
"""Readers that retention laps: a stateful test with limits that delete in spite of the readers.

The model is the list of all records; the library says where the log begins now, and may only do so as the limits
allow. A reader in front of that either still reads what it has mapped, unaltered, or does what its on_gap says.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import chronicle_ffi as c
from chronicle_ffi import Queue, QueueReader, QueueWriter, Retention
from tests import explored

SEGMENT = 1 << 16
POLICIES = ("error", "oldest", "latest")  # each is the name of a reader as well
limits = st.one_of(
    st.integers(1, 4).map(lambda n: Retention(max_segments=n)),
    st.integers(1, 4).map(lambda n: Retention(max_bytes=n * SEGMENT)),
    st.integers(1, 40).map(lambda n: Retention(max_reader_lag=n)),
)


class Lapped(RuleBasedStateMachine):
    """A writer whose limits change from life to life, and a reader for each on_gap."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="chronicle-lapped-")) / "queue"
        self.records: list[bytes] = []
        self.oldest = 0
        self.readers: dict[str, QueueReader] = {}
        self.positions = dict.fromkeys(POLICIES, 0)
        self.committed: dict[str, int] = {}
        self.skipped = dict.fromkeys(POLICIES, 0)  # by the handle that is open

    @initialize(retention=limits)
    def create(self, retention: Retention) -> None:
        self.retention = retention
        self.writer: QueueWriter = Queue.open_publisher(
            self.path, segment_size=SEGMENT, retention=retention, keeper=False
        )
        for name in POLICIES:
            self.open_reader(name)
            self.commit(name)

    def teardown(self) -> None:
        if self.records or self.readers:
            for reader in self.readers.values():
                reader.close()
            self.writer.close()
            report = Queue.verify(self.path)
            assert report.ok, report.problems
        shutil.rmtree(self.path.parent)

    # ------------------------------------------------------------------------------------ the writer

    @rule(size=st.integers(0, 57_000), count=st.integers(1, 6))
    def append(self, size: int, count: int) -> None:
        for _ in range(count):
            self.records.append(bytes([len(self.records) % 251]) * size)
            assert self.writer.append(self.records[-1]) == len(self.records) - 1
        self.look()  # each roll cleans up

    @rule()
    def cleanup(self) -> None:
        report = self.writer.cleanup()
        self.look()
        assert report.oldest_seq == self.oldest
        held = [self.committed[name] for name in POLICIES]
        assert report.readers_behind in (0, sum(seq < self.oldest for seq in held))
        segments = Queue.segments(self.path)
        if self.retention.max_segments:
            assert len(segments) <= self.retention.max_segments
        if self.retention.max_bytes:
            assert len(segments) == 1 or len(segments) * SEGMENT <= self.retention.max_bytes
        if self.retention.max_reader_lag and len(segments) > 1:  # somebody who counts is in the oldest one
            near = [seq for seq in held if len(self.records) - seq <= self.retention.max_reader_lag]
            assert near
            assert min(near) < segments[1].base_seq

    def look(self) -> None:
        oldest = Queue.info(self.path).oldest_seq
        assert self.oldest <= oldest <= len(self.records)
        self.oldest = oldest

    @rule(retention=limits)
    def another_life(self, retention: Retention) -> None:
        self.writer.close()
        self.retention = retention
        self.writer = Queue.open_publisher(self.path, retention=retention, keeper=False)
        assert self.writer.recovery.clean
        assert self.writer.next_seq == len(self.records)

    # ----------------------------------------------------------------------------------- the readers

    names = st.sampled_from(POLICIES)

    def jumped(self, name: str) -> int:
        """Where a reader that met a gap goes on, which it also counts."""
        target = self.oldest if name == "oldest" else len(self.records)
        self.skipped[name] += target - self.positions[name]
        self.positions[name] = target
        return target

    @rule(name=names, count=st.integers(1, 30))
    def read(self, name: str, count: int) -> None:
        for _ in range(count):
            if not self.read_one(name):
                return

    def read_one(self, name: str) -> bool:
        at = self.positions[name]
        try:
            message = self.readers[name].next()
        except c.SegmentGone as gone:
            assert name == "error"
            assert at < self.oldest == gone.oldest
            self.readers[name].seek(gone.oldest)
            self.positions[name] = gone.oldest
            return False
        if message is None or message.seq != at:  # at the end, or over a gap
            assert at == len(self.records) or (at < self.oldest and name != "error")
            at = self.jumped(name) if at < self.oldest else at
        if at == len(self.records):
            assert message is None
            return False
        assert message is not None
        assert (message.seq, message.payload) == (at, self.records[at])
        self.positions[name] += 1
        return True

    @rule(name=names)
    def previous(self, name: str) -> None:
        at = self.positions[name]
        if at < self.oldest:
            return  # it may have some of it mapped
        message = self.readers[name].previous()
        if at > self.oldest:
            assert message is not None
            assert (message.seq, message.payload) == (at - 1, self.records[at - 1])
            self.positions[name] = at - 1
        elif message is not None:  # still mapped
            assert (message.seq, message.payload) == (at - 1, self.records[at - 1])
            self.readers[name].seek_earliest()
            self.positions[name] = self.oldest

    @rule(name=names, where=st.integers(0, 10_000))
    def seek(self, name: str, where: int) -> None:
        seq = where % (len(self.records) + 1)
        reader = self.readers[name]
        if seq >= self.oldest:
            reader.seek(seq)
            self.positions[name] = seq
        elif name == "error":
            with pytest.raises(c.SegmentGone) as caught:
                reader.seek(seq)
            assert caught.value.oldest == self.oldest
            assert reader.position == self.positions[name]
        else:
            reader.seek(seq)
            self.positions[name] = seq
            assert reader.position == self.jumped(name)

    @rule(name=names)
    def commit(self, name: str) -> None:
        self.readers[name].commit()
        self.committed[name] = self.positions[name]

    def open_reader(self, name: str, start: Any = "resume") -> None:
        self.readers[name] = Queue.open_subscriber(self.path, name, start=start, on_gap=name)  # type: ignore[call-overload]
        self.skipped[name] = 0

    @rule(name=names)
    def another_reader(self, name: str) -> None:
        """Resumes where the one before committed, or as on_gap says."""
        self.readers[name].close()
        self.positions[name] = self.committed[name]
        if self.committed[name] >= self.oldest:
            self.open_reader(name)
        elif name == "error":
            with pytest.raises(c.SegmentGone) as caught:
                self.open_reader(name)
            assert caught.value.oldest == self.oldest
            self.open_reader(name, "earliest")
            self.positions[name] = self.oldest
        else:
            self.open_reader(name)
            self.jumped(name)

    @invariant()
    def nobody_is_lost(self) -> None:
        for name, reader in self.readers.items():
            assert reader.position == self.positions[name]
            assert reader.stats().skipped == self.skipped[name]

    @invariant()
    def explored(self) -> None:
        places = tuple(self.place(at) for at in self.positions.values())
        explored.note(self, len(list(self.path.glob("*.seg"))), self.oldest > 0, places)

    def place(self, seq: int) -> str:
        """Where a reader stands, in words."""
        if seq <= self.oldest:
            return "oldest" if seq == self.oldest else "lapped"
        return "end" if seq == len(self.records) else "between"


TestLapped = Lapped.TestCase
