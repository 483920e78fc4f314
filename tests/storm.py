# SPDX-License-Identifier: MIT
"""Signal handlers that raise, anywhere: ``make storm``, or ``python -m tests.storm [--interrupts N] [--seed N]``.

A timer fires some microseconds after each call of the public interface has begun, and its handler raises, as Ctrl-C
does. There is one thread. Afterwards nothing may be left behind: no lock, claim, handle, descriptor or thread; no
position behind a message that the loop did not get; no call that meets ConcurrentUse; no record that was not appended
whole.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chronicle_ffi import Queue, QueueReader, QueueWriter, SegmentGone

DELAY_MAX_SECONDS = 60e-6  # from the beginning of a call to the signal; most calls take less
ROUND = 150  # calls of a writer and a reader, before both are opened anew
RECORDS_MAX = 4000  # read at most, of one round


class Interrupt(BaseException):
    """What the handler raises."""


class Storm:
    """The timer; and the calls, each with a check of what it has left behind."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.dice = random.Random(seed)
        self.interrupts = 0
        self.armed = False
        self.writer: QueueWriter
        self.reader: QueueReader
        self.handled = 0  # the seq behind the last message that a loop got
        self.last = b""  # payload that a loop over payloads got

    def raise_now(self, *_: Any) -> None:
        if self.armed:
            self.armed = False
            raise Interrupt

    def hit(self, call: Callable[[], Any]) -> bool:
        """Call it, with a signal meanwhile. Whether the signal came."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, self.dice.uniform(1e-6, DELAY_MAX_SECONDS))
            call()
            self.armed = False
        except Interrupt:
            self.interrupts += 1
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False

    # ------------------------------------------------------------------------------------ reading

    def iterate(self) -> None:
        left = self.dice.randrange(1, 600)
        for message in self.reader:
            self.handled = message.seq + 1
            left -= 1
            if left == 0:
                break

    def payloads(self) -> None:
        for data in self.reader.payloads():
            self.last = data

    def follow(self) -> None:
        for message in self.reader.follow(timeout=0.0):
            self.handled = message.seq + 1

    def next(self) -> None:
        if (message := self.reader.next()) is not None:
            self.handled = message.seq + 1

    def batch(self) -> None:
        batch = self.reader.read_batch(100)
        if len(batch):
            self.handled = batch.seq[-1] + 1

    def commit_upto(self) -> None:
        self.reader.commit(upto=max(self.handled, self.reader.committed or 0))

    def moves(self) -> None:
        reader, dice = self.reader, self.dice
        dice.choice(
            (
                lambda: reader.seek(dice.randrange(self.writer.next_seq + 1)),
                lambda: reader.seek_time(dice.randrange(1 << 62)),
                reader.seek_earliest,
                reader.seek_latest,
                reader.previous,
            )
        )()

    def looks(self) -> None:
        reader = self.reader
        self.dice.choice(
            (reader.stats, reader.writer_alive, lambda: reader.lag, lambda: reader.committed, lambda: reader.wait(0.0))
        )()

    def read(self) -> None:
        """One call, and what it has left."""
        exact = (self.iterate, self.payloads, self.follow, self.looks, self.reader.commit, self.commit_upto)
        call = self.dice.choice((*exact, self.next, self.batch, self.moves, lambda: self.reader.commit(sync=True)))
        before = self.reader.position
        self.last = b""
        came = self.hit(call)
        if self.last:
            self.handled = int(self.last) + 1
        position = self.reader.position
        if call == self.moves or (came and call in (self.next, self.batch)):
            if call != self.moves:  # lost on the way to who called: what commit(upto=...) is for
                assert position >= max(before, self.handled)
            self.handled = position
        else:
            assert position == self.handled, (call, before, position, self.handled)
        self.reader.commit()
        assert self.reader.committed == position, call
        message = self.reader.next()
        assert message is None or (message.seq, int(message.payload[:20])) == (position, position), call
        self.handled = position + (message is not None)

    # ----------------------------------------------------------------------------------- writing

    def claim(self) -> None:
        data = b"%020d" % self.writer.next_seq
        with self.writer.claim(20) as view:
            view[:] = data

    def write(self) -> None:
        """One call, and whether the log is whole."""
        writer = self.writer
        first = writer.next_seq
        many = [b"%020d" % seq for seq in range(first, first + 40)]
        joined = b"".join(many)
        calls: tuple[tuple[Callable[[], Any], int], ...] = (
            (lambda: writer.append(many[0]), 1),
            (lambda: writer.append(memoryview(many[0])), 1),
            (lambda: writer.append_many(many), 40),
            (lambda: writer.append_many(many, atomic=True), 40),
            (lambda: writer.append_array(joined, row_bytes=20), 40),
            (lambda: writer.append_buffer(joined, range(0, 801, 20)), 40),
            (self.claim, 1),
            (writer.sync, 0),
            (writer.stats, 0),
            (writer.cleanup, 0),
        )
        call, count = self.dice.choice(calls)
        came = self.hit(call)
        grown = writer.next_seq - first
        assert 0 <= grown <= count if came else grown == count, (grown, count)
        at = writer.next_seq
        assert writer.append(b"%020d" % at) == at  # no claim is open

    # ----------------------------------------------------------------------------------- opening

    def open_writer(self) -> QueueWriter:
        return Queue.open_publisher(self.path, segment_size=1 << 16, durability="none", keeper=self.dice.random() < 0.5)

    def open_reader(self) -> QueueReader:
        return Queue.open_subscriber(self.path, "me", on_gap="oldest")

    def opened_and_closed(self) -> None:
        """With a signal in opening, using or closing; then it can be opened again, at once."""

        def write() -> None:
            with self.open_writer() as writer:
                writer.stats()

        def read() -> None:
            with self.open_reader() as reader:
                reader.stats()

        for call in (write, read, lambda: Queue.info(self.path), lambda: Queue.verify(self.path)):
            span = DELAY_MAX_SECONDS
            try:
                globals()["DELAY_MAX_SECONDS"] = 1e-3
                self.hit(call)
            finally:
                globals()["DELAY_MAX_SECONDS"] = span

    def round(self) -> None:
        self.opened_and_closed()
        self.writer = self.open_writer()
        self.reader = self.open_reader()
        with self.writer, self.reader:
            self.handled = self.reader.position
            for _ in range(ROUND):
                with suppress(SegmentGone):
                    self.dice.choice((self.read, self.write))()
            position = self.reader.position
            self.reader.commit()
        with self.open_reader() as again:
            assert again.position == position


def left_open() -> tuple[int, int]:
    """How many descriptors and threads there are."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def run(path: Path, interrupts: int, seed: int, kind: type[Storm] = Storm) -> Storm:
    """Until so many have come. AssertionError, or what a call raised, if one has left something behind."""
    storm = kind(path, seed)
    before = signal.signal(signal.SIGALRM, storm.raise_now)
    try:
        storm.open_writer().close()
        storm.open_reader().close()
        at_first = left_open()
        while storm.interrupts < interrupts:
            storm.round()
            assert left_open() == at_first
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    report = Queue.verify(path)
    assert report.ok, report.problems
    return storm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interrupts", type=int, default=int(os.environ.get("CHRONICLE_STORM", "1000000")))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"replay: python -m tests.storm --interrupts {options.interrupts} --seed {options.seed}", flush=True)
    done = 0
    while done < options.interrupts:  # a new queue now and then: one that is never cleaned up gets long
        with tempfile.TemporaryDirectory() as directory:
            done += run(Path(directory, "q"), min(10_000, options.interrupts - done), options.seed + done).interrupts
            print(f"{done} interrupts", flush=True)


if __name__ == "__main__":
    main()
