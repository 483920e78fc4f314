# SPDX-License-Identifier: MIT
"""Hypothesis drives a writer and readers against a plain list.

The model is the list of all records ever appended; what retention deleted is its front, up to `oldest`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from array import array
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import chronicle_ffi as c
from chronicle_ffi import Batch, Message, Queue, QueueReader, QueueWriter, RecoveryWarning
from tests import decoder, explored
from tests.damage import restart

SEGMENT = 1 << 16
NAMES = ("a", "b")
BATCHES_KEPT = 20

sizes = st.one_of(st.integers(0, 100), st.integers(0, 3000), st.integers(20_000, 57_000))
stamps = st.integers(0, 50)


class Reader:
    """What the model knows of one named reader."""

    def __init__(self) -> None:
        self.handle: QueueReader | None = None
        self.position = 0
        self.committed: int | None = None
        self.loops: dict[str, Iterator[Any]] = {}  # begun, and not at their end; other calls come in between
        self.counted = 0  # records, by its statistics


class Log(RuleBasedStateMachine):
    """A queue in small segments, its writer, two named readers."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="chronicle-stateful-"))
        self.path = self.directory / "queue"
        self.records: list[tuple[int, int, int, bytes]] = []  # timestamp, type, flags, payload
        self.oldest = 0
        self.writer: QueueWriter | None = None
        self.readers = {name: Reader() for name in NAMES}
        self.kept: list[Batch] = []
        self.looks = True

    @initialize(looks=st.booleans())
    def create(self, looks: bool) -> None:
        """With `looks` readers are asked for their position after each step, by which they lose what they hid of it."""
        self.looks = looks
        self.open_writer()

    def teardown(self) -> None:
        for batch in self.kept:  # whatever has happened to the queue since
            assert list(batch) == self.messages(batch.seq[0], len(batch))
        self.kept.clear()
        for name in NAMES:
            self.look(name)
        for reader in self.readers.values():
            if reader.handle is not None:
                reader.handle.close()
        if self.writer is not None:
            self.writer.close()
        report = Queue.verify(self.path)
        assert report.ok, report.problems
        decoded = decoder.open_queue(self.path)
        assert (decoded.oldest_seq, decoded.next_seq) == (self.oldest, len(self.records))
        assert [(r.timestamp_ns, r.type_id, r.flags, r.payload) for r in decoded.records] == self.records[self.oldest :]
        shutil.rmtree(self.directory)

    # ------------------------------------------------------------------------------------ the writer

    def payload(self, size: int) -> bytes:
        head = b"%d:" % len(self.records)
        return (head + bytes([len(self.records) % 251]) * size)[:size]

    def note(self, seq: int, stamp: int, type_id: int, flags: int, payload: bytes) -> None:
        assert seq == len(self.records)
        self.records.append((stamp, type_id, flags, payload))

    @precondition(lambda self: self.writer is not None)
    @rule(size=sizes, stamp=stamps, type_id=st.integers(0, 0xFFFE), flags=st.integers(0, 255))
    def append(self, size: int, stamp: int, type_id: int, flags: int) -> None:
        assert self.writer
        payload = self.payload(size)
        self.note(self.writer.append(payload, type_id, timestamp_ns=stamp, flags=flags), stamp, type_id, flags, payload)

    @precondition(lambda self: self.writer is not None)
    @rule(batch=st.lists(st.integers(0, 9000), max_size=6), stamp=stamps, atomic=st.booleans())
    def append_several(self, batch: list[int], stamp: int, atomic: bool) -> None:
        assert self.writer
        payloads = [bytes([i]) * size for i, size in enumerate(batch)]
        first, count = self.writer.append_many(payloads, 5, timestamp_ns=stamp, atomic=atomic)
        assert (first, count) == (len(self.records), len(batch))
        for payload in payloads:
            self.note(len(self.records), stamp, 5, 0, payload)

    @precondition(lambda self: self.writer is not None)
    @rule(lengths=st.lists(st.integers(0, 9000), max_size=6), stamp=stamps, atomic=st.booleans())
    def append_packed(self, lengths: list[int], stamp: int, atomic: bool) -> None:
        assert self.writer
        offsets = array("I", accumulate(lengths, initial=0))
        data = bytes(i % 249 for i in range(sum(lengths)))
        columns = [(stamp + i, i, 255 - i) for i in range(len(lengths))]
        times, types, flags = (array(code, (one[i] for one in columns)) for i, code in enumerate("qHB"))
        first, count = self.writer.append_buffer(data, offsets, types, timestamp_ns=times, flags=flags, atomic=atomic)
        assert (first, count) == (len(self.records), len(lengths))
        for i, (at, size) in enumerate(zip(offsets, lengths, strict=False)):
            self.note(first + i, *columns[i], data[at : at + size])

    @precondition(lambda self: self.writer is not None)
    @rule(count=st.integers(0, 40), size=st.integers(1, 1200), stamp=stamps, atomic=st.booleans())
    def append_rows(self, count: int, size: int, stamp: int, atomic: bool) -> None:
        assert self.writer
        rows = [bytes([i]) * size for i in range(count)]
        made = self.writer.append_array(b"".join(rows), 8, row_bytes=size, timestamp_ns=stamp, atomic=atomic)
        assert made == (len(self.records), count)
        for row in rows:
            self.note(len(self.records), stamp, 8, 0, row)

    @precondition(lambda self: self.writer is not None)
    @rule(size=sizes, stamp=stamps, publish=st.booleans())
    def claim(self, size: int, stamp: int, publish: bool) -> None:
        assert self.writer
        payload = self.payload(size)
        try:
            with self.writer.claim(size, 6, timestamp_ns=stamp) as buffer:
                buffer[:] = payload
                if not publish:
                    raise KeyError
        except KeyError:
            return
        self.note(len(self.records), stamp, 6, 0, payload)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def too_large(self) -> None:
        assert self.writer
        with pytest.raises(c.PayloadTooLarge):
            self.writer.append(bytes(SEGMENT))

    @precondition(lambda self: self.writer is not None)
    @rule()
    def sync(self) -> None:
        assert self.writer
        self.writer.sync()
        assert self.writer.durable_seq == len(self.records) - 1

    @precondition(lambda self: self.writer is not None)
    @rule()
    def cleanup(self) -> None:
        assert self.writer
        report = self.writer.cleanup()
        held = [0 if reader.committed is None else reader.committed for reader in self.registered()]
        assert report.readers == len(held)
        assert self.oldest <= report.oldest_seq <= max(self.oldest, min(held, default=0))
        # All that could go has gone: the first segment that is left is active, or somebody is in it or before it.
        bases = [segment.base_seq for segment in Queue.segments(self.path)]
        assert len(bases) == 1 or not held or min(held) < bases[1]
        self.oldest = report.oldest_seq

    def registered(self) -> list[Reader]:
        return [self.readers[info.name] for info in Queue.readers(self.path)]

    @precondition(lambda self: self.writer is not None)
    @rule()
    def second_writer(self) -> None:
        with pytest.raises(c.WriterAlreadyActive):
            Queue.open_publisher(self.path)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def close_writer(self) -> None:
        assert self.writer
        self.writer.close()
        self.writer = None

    @precondition(lambda self: self.writer is None)
    @rule(keeper=st.booleans())
    def open_writer(self, keeper: bool = False) -> None:
        self.writer = Queue.open_publisher(self.path, segment_size=SEGMENT, keeper=keeper)
        assert self.writer.next_seq == len(self.records)
        assert self.writer.recovery.cut_bytes == 0

    @precondition(lambda self: self.writer is not None)
    @rule(extra=st.integers(0, 3))
    def killed_writer(self, extra: int) -> None:
        """The writer's process dies: a forked one appends and ends without closing anything."""
        assert self.writer
        self.writer.close()
        child = os.fork()
        if child == 0:
            try:
                heir = Queue.open_publisher(self.path, keeper=False)
                for i in range(extra):
                    heir.append(b"heir", i, timestamp_ns=i)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        for i in range(extra):
            self.note(len(self.records), i, i, 0, b"heir")
        self.writer = Queue.open_publisher(self.path, keeper=False)
        assert not self.writer.recovery.clean
        assert self.writer.next_seq == len(self.records)

    @precondition(lambda self: self.writer is not None)
    @rule(garbage=st.binary(min_size=1, max_size=100).filter(any), gap=st.sampled_from([0, 32, 4096]))
    def torn_tail(self, garbage: bytes, gap: int) -> None:
        """As after a loss of power: something stands behind the end of the log."""
        assert self.writer
        self.writer.close()
        last = Queue.segments(self.path)[-1]
        room = last.bytes - last.used_bytes - gap
        if room >= len(garbage) + 64:
            with sorted(self.path.glob("*.seg"))[-1].open("r+b") as file:
                file.seek(last.used_bytes + gap)
                file.write(garbage)
        restart(self.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecoveryWarning)
            self.writer = Queue.open_publisher(self.path, keeper=False)
        assert self.writer.next_seq == len(self.records)
        assert (self.writer.recovery.cut_bytes > 0) == (room >= len(garbage) + 64)
        assert self.writer.recovery.lost_records == 0

    # ----------------------------------------------------------------------------------- the readers

    names = st.sampled_from(NAMES)

    @rule(name=names, start=st.sampled_from(["resume", "earliest", "latest"]))
    def open_reader(self, name: str, start: Any) -> None:
        reader = self.readers[name]
        if reader.handle is not None:
            with pytest.raises(c.ReaderAlreadyActive):
                Queue.open_subscriber(self.path, name)
            return
        committed = reader.committed
        reader.handle = Queue.open_subscriber(self.path, name, start=start)
        reader.position = {
            "resume": self.oldest if committed is None else committed,
            "earliest": self.oldest,
            "latest": len(self.records),
        }[start]
        assert reader.handle.committed == committed

    @rule(name=names)
    def close_reader(self, name: str) -> None:
        reader = self.readers[name]
        if reader.handle is not None:
            reader.handle.close()
            reader.handle = None
            reader.loops.clear()
            reader.counted = 0

    def messages(self, begin: int, count: int) -> list[Message]:
        return [Message(seq, *self.records[seq]) for seq in range(begin, begin + count)]

    @rule(name=names, count=st.integers(1, 40), kind=st.sampled_from(["messages", "payloads"]))
    def loop(self, name: str, count: int, kind: str) -> None:
        """A loop that was begun earlier goes on from wherever the reader is now."""
        reader = self.readers[name]
        if reader.handle is None:
            return
        if kind not in reader.loops:
            reader.loops[kind] = iter(reader.handle) if kind == "messages" else reader.handle.payloads()
        for _ in range(count):
            if reader.position < self.oldest:
                return
            found = next(reader.loops[kind], None)
            if reader.position == len(self.records):
                assert found is None
                del reader.loops[kind]
                return
            (wanted,) = self.messages(reader.position, 1)
            assert found == (wanted if kind == "messages" else wanted.payload)
            reader.position += 1
            reader.counted += 1

    @rule(name=names, size=st.one_of(st.integers(1, 40), st.just(65536)))
    def read_batch(self, name: str, size: int) -> None:
        reader = self.readers[name]
        if reader.handle is None or reader.position < self.oldest:
            return
        batch = reader.handle.read_batch(size)
        assert (len(batch) > 0) == (reader.position < len(self.records))
        assert len(batch) <= size
        assert list(batch) == self.messages(reader.position, len(batch))
        reader.position += len(batch)
        reader.counted += len(batch)
        if len(batch) and len(self.kept) < BATCHES_KEPT:
            self.kept.append(batch)

    @rule(name=names)
    def look(self, name: str) -> None:
        reader = self.readers[name]
        if reader.handle is not None and reader.position >= self.oldest:
            assert reader.handle.position == reader.position
            assert reader.handle.lag == len(self.records) - reader.position
            assert reader.handle.stats().records == reader.counted

    @rule(name=names, count=st.integers(1, 40))
    def read(self, name: str, count: int) -> None:
        reader = self.readers[name]
        if reader.handle is None:
            return
        for _ in range(count):
            if reader.position < self.oldest:
                return  # it may still read what it has mapped, or not
            message = reader.handle.next()
            if reader.position == len(self.records):
                assert message is None
                return
            assert message == (reader.position, *self.records[reader.position])
            reader.position += 1
            reader.counted += 1

    @rule(name=names)
    def previous(self, name: str) -> None:
        reader = self.readers[name]
        if reader.handle is None or reader.position < self.oldest:
            return
        message = reader.handle.previous()
        if message is None:
            assert reader.position == self.oldest
        else:  # perhaps one that was deleted, but is still mapped
            reader.position -= 1
            assert message == (reader.position, *self.records[reader.position])
        reader.counted = reader.handle.stats().records  # more than once: it reads the record, and steps back again

    @rule(name=names, sync=st.booleans())
    def commit(self, name: str, sync: bool) -> None:
        reader = self.readers[name]
        if reader.handle is None or reader.position < self.oldest:
            return
        reader.handle.commit(sync=sync)
        reader.committed = reader.position

    @rule(name=names, where=st.integers(0, 10_000))
    def seek(self, name: str, where: int) -> None:
        reader = self.readers[name]
        if reader.handle is None:
            return
        seq = where % (len(self.records) + 3)
        if seq < self.oldest:
            with pytest.raises(c.SegmentGone) as caught:
                reader.handle.seek(seq)
            assert caught.value.oldest == self.oldest
        elif seq > len(self.records):
            with pytest.raises(c.SeqOutOfRange):
                reader.handle.seek(seq)
        else:
            reader.handle.seek(seq)
            reader.position = seq

    @rule(name=names, stamp=stamps)
    def seek_time(self, name: str, stamp: int) -> None:
        reader = self.readers[name]
        if reader.handle is None:
            return
        reader.handle.seek_time(stamp)
        later = (seq for seq in range(self.oldest, len(self.records)) if self.records[seq][0] >= stamp)
        reader.position = next(later, len(self.records))
        assert reader.handle.position == reader.position

    @invariant()
    def positions_agree(self) -> None:
        if self.looks:
            for name in NAMES:
                self.look(name)

    @invariant()
    def info_agrees(self) -> None:
        if self.writer is not None:
            info = Queue.info(self.path)
            assert (info.oldest_seq, info.next_seq) == (self.oldest, len(self.records))

    @invariant()
    def explored(self) -> None:
        """What kind of state this is: how the log lies in segments, and where the readers are."""
        bases = [int(file.stem) for file in self.path.glob("*.seg")]
        readers = self.readers.values()
        places = tuple((r.handle is not None, self.place(r.position), self.place(r.committed)) for r in readers)
        explored.note(self, self.writer is not None, min(len(bases), 4), self.oldest > 0, places)

    def place(self, seq: int | None) -> str:
        """Where a reader stands, in words."""
        if seq is None or seq < self.oldest:
            return "nowhere" if seq is None else "before"
        return "end" if seq == len(self.records) else "oldest" if seq == self.oldest else "between"


TestLog = Log.TestCase
