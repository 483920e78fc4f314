# SPDX-License-Identifier: MIT
"""One writer and several readers at full speed: every reader sees every record once, in order, unaltered.

The content of a record follows from its seq, so nobody has to keep it. The heavy ones are for ``make stress``:
CHRONICLE_STRESS_MESSAGES (five million unless set) for each of the seeds in CHRONICLE_STRESS_SEEDS ("1 2 3").
"""

from __future__ import annotations

import multiprocessing
import os
import queue as standard_queue
import random
import threading
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue, QueueReader, QueueWriter
from tests import decoder

SEGMENT = 1 << 16
HEAVY_SEGMENT = 1 << 18
READERS = 3
PATIENCE_SECONDS = 60.0
MESSAGES = 150_000
HEAVY_MESSAGES = int(os.environ.get("CHRONICLE_STRESS_MESSAGES", "5000000"))
SEEDS = [int(seed) for seed in os.environ.get("CHRONICLE_STRESS_SEEDS", "1 2 3").split()]
STAY = 25_000  # records, after which a reader leaves and comes back as another handle
LARGE = 57_000  # bytes: nearly a whole segment
ATOMIC_MAX = 50_000  # bytes of a batch that has to fit one segment
NOISE = random.Random(42).randbytes(1 << 17)


def payload(seq: int) -> bytes:
    """Empty to nearly a segment; mostly short, one in eight up to 6000 bytes, one in a few thousand up to LARGE."""
    mixed = seq * 2654435761 & 0xFFFFFFFF
    size = mixed % 40 if mixed & 0x700 else mixed % 6000
    if mixed & 0xFFF0 == 0:
        size = mixed % LARGE
    at = mixed % (len(NOISE) - LARGE)
    return NOISE[at : at + size]


def timestamp(seq: int) -> int:
    return 10**18 + seq * 7


def type_id(seq: int) -> int:
    return seq % 1000


def write(path: Path, messages: int, seed: int) -> int:
    """Single records, batches and claims, with a cleanup now and then. Returns the number of rolls."""
    dice = random.Random(seed)
    with Queue.open_publisher(path) as writer:
        while (seq := writer.next_seq) < messages:
            seqs = range(seq, min(seq + dice.randrange(1, 200), messages))
            what = dice.randrange(4)
            if what == 0:
                for i in seqs:
                    assert writer.append(payload(i), type_id(i), timestamp_ns=timestamp(i)) == i
            elif what == 1:
                for i in seqs:
                    data = payload(i)
                    with writer.claim(len(data), type_id(i), timestamp_ns=timestamp(i)) as buffer:
                        buffer[:] = data
            else:
                write_batch(writer, seqs, what == 2)
            if dice.randrange(20) == 0:
                clean_up(path, writer)
        return writer.stats().rolls


def write_batch(writer: QueueWriter, seqs: range, atomic: bool) -> None:
    many = [payload(i) for i in seqs]
    atomic = atomic and sum(map(len, many)) + 64 * len(many) < ATOMIC_MAX
    stamps = array("Q", map(timestamp, seqs))
    types = array("H", map(type_id, seqs))
    assert writer.append_many(many, types, timestamp_ns=stamps, atomic=atomic) == (seqs[0], len(many))


def clean_up(path: Path, writer: QueueWriter) -> None:
    """Afterwards the files behind the slowest reader are gone, and no others."""
    before = min(info.position for info in Queue.readers(path))
    report = writer.cleanup()
    bases = sorted(int(file.stem) for file in path.glob("*.seg"))
    assert bases[0] == report.oldest_seq
    assert bases[0] <= min(info.position for info in Queue.readers(path))
    assert not any(behind <= before for _, behind in pairwise(bases)), f"{bases} are left, all readers are at {before}"


def read(path: Path, messages: int, name: str) -> int:
    """Returns how many records were seen; fails at the first one that is not what it must be."""
    seen = 0
    while seen < messages:
        with Queue.open_subscriber(path, name) as reader:
            assert reader.position == seen
            seen = read_for_a_while(reader, path, seen, min(messages, seen + STAY))
            reader.commit()
            assert seen < messages or reader.next() is None
    return seen


def read_for_a_while(reader: QueueReader, path: Path, seen: int, until: int) -> int:
    name = reader.name
    while seen < until:
        if not reader.wait(PATIENCE_SECONDS):
            pytest.fail(
                f"{name} stands at seq {reader.position} and wants to come to {until}, but nothing came for "
                f"{PATIENCE_SECONDS:g} s: {Queue.info(path)}"
            )
        for message in reader:
            assert message.seq == seen, f"{name}: seq {message.seq} came after {seen - 1}"
            assert message.payload == payload(seen), f"{name}: seq {seen} has another payload"
            assert (message.timestamp_ns, message.type_id) == (timestamp(seen), type_id(seen))
            seen += 1
            if seen % 1000 == 0:
                reader.commit()
            if seen == until:
                break
    return seen


def report(work: Callable[..., Any], results: Any, *arguments: object) -> None:
    """In a process or thread of its own: a result, or what went wrong."""
    try:
        results.put((arguments[-1], work(*arguments)))
    except BaseException as failure:
        results.put((arguments[-1], repr(failure)))


def collect(path: Path, results: Any, workers: dict[object, Any]) -> dict[object, object]:
    """All results; a worker that ends without one, or hangs, fails the test with where everybody stands."""
    outcome: dict[object, object] = {}
    moved, last = time.monotonic(), ""
    while len(outcome) < len(workers):
        try:
            key, value = results.get(timeout=1)
            outcome[key] = value
        except standard_queue.Empty:
            where = (
                f"{Queue.info(path).next_seq} records, {[(i.name, i.position, i.alive) for i in Queue.readers(path)]}"
            )
            gone = [key for key, worker in workers.items() if key not in outcome and not worker.is_alive()]
            if gone and results.empty():
                pytest.fail(f"{gone} ended without a result: {where}")
            if where != last:
                moved, last = time.monotonic(), where
            if time.monotonic() - moved > 2 * PATIENCE_SECONDS:
                pytest.fail(f"nothing moves: {where}")
    return outcome


def run(path: Path, start: Callable[..., Any], results: Any, messages: int, seed: int, segment: int) -> None:
    Queue.open_publisher(path, segment_size=segment).close()
    names = [f"reader-{i}" for i in range(READERS)]
    for name in names:  # registered before the writer begins, so that retention waits for them
        Queue.open_subscriber(path, name).close()
    jobs: list[tuple[Any, object]] = [(read, name) for name in names]
    jobs.append((write, seed))
    workers = {key: start(target=report, args=(work, results, path, messages, key), daemon=True) for work, key in jobs}
    for worker in workers.values():
        worker.start()
    outcome = collect(path, results, workers)
    for worker in workers.values():
        worker.join()
    rolls = outcome.pop(seed)
    assert outcome == dict.fromkeys(names, messages)
    assert isinstance(rolls, int), rolls
    assert rolls > messages / 1000
    check_afterwards(path, messages)


def check_afterwards(path: Path, messages: int) -> None:
    """The other decoder agrees; what all readers have passed can go, and nothing else is wrong."""
    verified = Queue.verify(path)
    assert verified.ok, verified.problems
    decoded = decoder.open_queue(path)
    assert decoded.next_seq == messages
    with Queue.open_subscriber(path) as reader:
        assert [tuple(m) for m in reader] == [
            (r.seq, r.timestamp_ns, r.type_id, r.flags, r.payload) for r in decoded.records
        ]
    with Queue.open_publisher(path, keeper=False) as writer:
        writer.cleanup()
    (last,) = Queue.segments(path)
    assert last.next_seq == messages
    assert [file.stem for file in path.glob("*.seg")] == [f"{last.base_seq:020}"]


def with_processes(path: Path, messages: int, seed: int, segment: int = SEGMENT) -> None:
    context = multiprocessing.get_context("spawn")
    run(path, context.Process, context.Queue(), messages, seed, segment)


def with_threads(path: Path, messages: int, seed: int, segment: int = SEGMENT) -> None:
    run(path, threading.Thread, standard_queue.Queue(), messages, seed, segment)


@pytest.mark.parametrize("how", [with_processes, with_threads])
def test_stress(queue: Path, how: Callable[[Path, int, int], None]) -> None:
    how(queue, MESSAGES, 1)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", SEEDS)
def test_heavy_stress(queue: Path, seed: int) -> None:
    started = time.monotonic()
    with_processes(queue, HEAVY_MESSAGES, seed, HEAVY_SEGMENT)
    print(f"\n{HEAVY_MESSAGES} records, {READERS} readers, seed {seed}: {time.monotonic() - started:.1f} s")


# -------------------------------------------------------------------------- the tests would say what is wrong


def test_a_stalled_reader_says_where_it_stands(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_stress.PATIENCE_SECONDS", 0.2)
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    write(queue, 100, 1)
    with pytest.raises(pytest.fail.Exception, match=r"me stands at seq 100 and wants to come to 150, .*next_seq=100"):
        read(queue, 150, "me")


def die(path: Path, messages: int, name: str) -> None:
    with Queue.open_subscriber(path, name) as reader:
        for message in reader.follow():
            reader.commit()
            if message.seq == messages:
                os._exit(3)


def test_a_reader_that_dies_is_noticed(queue: Path) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    Queue.open_subscriber(queue, "me").close()
    write(queue, 100, 1)
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    worker = context.Process(target=report, args=(die, results, queue, 70, "me"), daemon=True)
    worker.start()
    with pytest.raises(
        pytest.fail.Exception, match=r"\['me'\] ended without a result: 100 records, \[\('me', 71, False\)"
    ):
        collect(queue, results, {"me": worker})
    worker.join()
