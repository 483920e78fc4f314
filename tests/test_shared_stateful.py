# SPDX-License-Identifier: MIT
"""Hypothesis drives several writers that take turns, in one process, against a plain list."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chronicle_ffi import Queue, QueueReader, QueueWriter
from tests import decoder, explored

MORE = int(os.environ.get("CHRONICLE_STATEFUL_EXAMPLES", "0"))
WRITERS = 3

writers = st.integers(0, WRITERS - 1)
sizes = st.one_of(st.integers(0, 100), st.integers(0, 3000), st.integers(10_000, 30_000))  # the last ones soon roll


class Turns(RuleBasedStateMachine):
    """All records in the order of the calls. Each says who wrote it, and which of its own it is."""

    @initialize()
    def begin(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="chronicle-turns-")) / "queue"
        self.handles: dict[int, QueueWriter] = {}
        self.claims: dict[int, tuple[ExitStack, bytes]] = {}
        self.records: list[tuple[int, bytes]] = []
        self.counts = [0] * WRITERS
        self.durable = 0
        self.reader: QueueReader | None = None
        self.read = 0

    def writer(self, who: int) -> QueueWriter:
        if who not in self.handles:
            self.handles[who] = Queue.open_publisher(
                self.path, segment_size=1 << 16, shared=True, keeper=False, wait=10, turn_timeout=10
            )
            assert self.handles[who].recovery.clean
            assert self.handles[who].next_seq == len(self.records)
        return self.handles[who]

    def payload(self, who: int, size: int) -> bytes:
        self.counts[who] += 1
        return b"%d %d " % (who, self.counts[who] - 1) + bytes([who + 1]) * size

    @rule(who=writers, size=sizes)
    def append(self, who: int, size: int) -> None:
        if who not in self.claims:
            data = self.payload(who, size)
            assert self.writer(who).append(data, type_id=who) == len(self.records)
            self.records.append((who, data))

    @rule(who=writers, some=st.lists(st.integers(0, 2000), min_size=1, max_size=9), atomic=st.booleans())
    def append_many(self, who: int, some: list[int], atomic: bool) -> None:
        if who not in self.claims:
            batch = [self.payload(who, size) for size in some]
            first = len(self.records)
            done = self.writer(who).append_many(batch, type_id=who, atomic=atomic)
            assert done == (first, len(batch))
            self.records += [(who, data) for data in batch]

    @rule(who=writers, size=sizes)
    def claim(self, who: int, size: int) -> None:
        """It stays open while others append."""
        if who not in self.claims:
            data = self.payload(who, size)
            stack = ExitStack()
            stack.enter_context(self.writer(who).claim(len(data), type_id=who))[:] = data
            self.claims[who] = stack, data

    @precondition(lambda self: self.claims)
    @rule(who=writers)
    def publish(self, who: int) -> None:
        if who in self.claims:
            stack, data = self.claims.pop(who)
            stack.close()
            self.records.append((who, data))

    @rule(who=writers)
    def sync(self, who: int) -> None:
        if who not in self.claims:
            self.writer(who).sync()
            self.durable = len(self.records)

    @rule(who=writers)
    def close(self, who: int) -> None:
        if who in self.handles and who not in self.claims:
            self.handles.pop(who).close()

    @rule(most=st.integers(1, 20))
    def look(self, most: int) -> None:
        """One reader comes behind, and sees each record once."""
        if self.reader is None:
            if not self.path.exists():
                return
            self.reader = Queue.open_subscriber(self.path)
        for who, data in self.records[self.read : self.read + most]:
            message = self.reader.next()
            assert message is not None
            assert (message.seq, message.type_id, bytes(message.payload)) == (self.read, who, data)
            self.read += 1
        if self.read == len(self.records):
            assert self.reader.next() is None

    @invariant()
    def all_writers_say_the_same(self) -> None:
        """Where the log ends is known to a writer from its last turn; what is durable, to all of them at once."""
        for writer in getattr(self, "handles", {}).values():
            assert writer.next_seq <= len(self.records)
            assert (-1 if writer.durable_seq is None else writer.durable_seq) + 1 >= self.durable
        if hasattr(self, "records"):
            files = min(len(list(self.path.glob("*.seg"))), 4)
            explored.note(self, len(self.handles), len(self.claims), files, self.read == len(self.records))

    def teardown(self) -> None:
        if not hasattr(self, "path"):
            return
        for who in list(self.claims):
            self.publish(who)
        for writer in self.handles.values():
            writer.close()
        if self.path.exists():
            self.look(len(self.records) + 1)
            assert self.reader
            self.reader.close()
            assert [record.seq for record in decoder.open_queue(self.path).records] == list(range(len(self.records)))
            with Queue.open_publisher(self.path) as alone:
                assert alone.recovery.clean
                assert alone.next_seq == len(self.records)
        shutil.rmtree(self.path.parent)


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=MORE or 20, stateful_step_count=30)
