# SPDX-License-Identifier: MIT
"""The machine of test_stateful.py, with writers that die between any two stores or system calls.

tests/c/die_at_step.c is a writer, built with CHRON_TESTING, that kills itself at the n-th step from an operation on:
opening (recovery included), append, batch, claim, abort, sync, cleanup, roll, close. Then the log must end behind what
was acknowledged, with the operation under way in it as a whole or not at all; readers that were attached go on, and
the next writer takes over exactly there, or dies as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from chronicle_ffi import Queue
from tests import explored
from tests.test_stateful import SEGMENT, Log, sizes

ROOT = Path(__file__).parent.parent
STEPS_MAX = 60  # an opening takes about so many

one_size = sizes.map(str)
operation = st.one_of(
    one_size.map("append:".__add__),
    one_size.map("claim:".__add__),
    one_size.map("abort:".__add__),
    st.lists(st.integers(0, 9000).map(str), min_size=1, max_size=6).map(lambda many: "batch:" + ",".join(many)),
    st.sampled_from(["sync", "cleanup"]),
)
lives = st.tuples(st.lists(operation, max_size=8), st.integers(0, 8), st.integers(1, 9) | st.integers(1, STEPS_MAX))


@cache
def program() -> Path:
    """The dying writer, built if that is not done yet."""
    path = ROOT / "build" / "test" / "die_at_step"
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--quiet", str(path.relative_to(ROOT))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def sizes_of(word: str) -> list[int]:
    """Payloads that an operation appends."""
    kind, _, rest = word.partition(":")
    return [int(size) for size in rest.split(",")] if kind in ("append", "batch", "claim") else []


class DyingLog(Log):
    """Log, and a writer that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.crashed = False

    def teardown(self) -> None:
        if self.writer is None:  # what the last death left is still to be recovered
            self.open_writer()
        super().teardown()

    def note_died(self, words: list[str]) -> None:
        """Records as die_at_step.c makes them."""
        for size in (size for word in words for size in sizes_of(word)):
            seq = len(self.records)
            pattern = bytes((seq * 31 + i) & 0xFF for i in range(256))
            self.note(seq, seq % 50, 9, 3, (pattern * (size // 256 + 1))[:size])

    @rule(several=st.lists(lives, min_size=1, max_size=3), close=st.booleans())
    def dying_writers(self, several: list[tuple[list[str], int, int]], close: bool) -> None:
        """One after the other: each recovers what the one before left, or dies trying."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        for words, dies_in, step in several:
            self.dying_writer(words, dies_in, step, close)

    def dying_writer(self, words: list[str], dies_in: int, step: int, close: bool) -> None:
        before = len(self.records)
        dies_in %= len(words) + 1 + close
        words_said = [*words, "close"] if close else words
        command = [str(program()), str(self.path), str(dies_in), str(step), *words_said]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        said = done.stdout.split("\n")[:-1]
        acknowledged = [int(line) for line in said if line.isdigit()]
        explored.deaths[next((line for line in said if not line.isdigit()), "at rest")] += done.returncode != 0
        performed = words[: max(len(acknowledged) - 1, 0)]
        self.note_died(performed)
        assert not acknowledged or acknowledged[-1] == len(self.records)
        # The log ends there, or behind all that was under way.
        under_way = words[len(acknowledged) - 1 : len(acknowledged)] if acknowledged else []
        end = Queue.info(self.path).next_seq
        if end != len(self.records):
            self.note_died(under_way)
            assert end == len(self.records), f"{len(self.records)} records were expected, or those before {under_way}"
        self.crashed = done.returncode != 0
        self.note_deleted([*performed, *under_way])
        self.check_from(before)

    def note_deleted(self, words: list[str]) -> None:
        """A cleanup deletes what every reader has passed; one that died has deleted some of it, oldest first."""
        oldest = Queue.info(self.path).oldest_seq
        held = [0 if reader.committed is None else reader.committed for reader in self.registered()]
        assert oldest == self.oldest or "cleanup" in words
        assert self.oldest <= oldest <= max(self.oldest, min(held, default=0))
        self.oldest = oldest

    def check_from(self, seq: int) -> None:
        """What a reader sees before anybody has recovered the queue."""
        with Queue.open_subscriber(self.path, start=max(seq, self.oldest)) as reader:
            seen = [(m.timestamp_ns, m.type_id, m.flags, m.payload) for m in reader]
        assert seen == self.records[max(seq, self.oldest) :]

    @precondition(lambda self: self.writer is None)
    @rule(keeper=st.booleans())
    def open_writer(self, keeper: bool = False) -> None:
        saved = len(list(self.path.glob("quarantine/*")))
        self.writer = Queue.open_publisher(self.path, segment_size=SEGMENT, keeper=keeper)
        found = self.writer.recovery
        assert self.writer.next_seq == len(self.records)
        assert found.lost_records == 0
        assert found.cut_bytes == 0 or self.crashed
        assert len(list(self.path.glob("quarantine/*"))) - saved == found.quarantined
        self.crashed = False


TestDyingLog = DyingLog.TestCase


def test_the_writer_dies_where_it_is_told_to(queue: Path) -> None:
    """Not somewhere else, and not never: otherwise the machine above would test nothing."""
    words = ["append:10", "batch:5,6", "claim:7", "append:57000", "append:57000", "sync", "close"]
    expected = {
        (1, 1): "record: placed",
        (1, 2): "record: published",
        (2, 2): "batch: record placed",
        (3, 1): "claim: filled",
        (3, 2): "claim: placed",
        (7, 1): "state: identity stored",
    }
    for (operation_, step), place in expected.items():
        path = queue / f"{operation_}-{step}"
        queue.mkdir(exist_ok=True)
        done = subprocess.run(
            [program(), path, str(operation_), str(step), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert done.stdout.split("\n")[operation_] == place
    places = set()
    for step in range(1, STEPS_MAX):
        path = queue / f"roll-{step}"
        done = subprocess.run([program(), path, "5", str(step), *words], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        places.add(done.stdout.split("\n")[5])
    assert {
        "roll: header written",
        "call: rename",
        "roll: renamed",
        "roll: END written",
        "seal: fields written",
    } <= places
