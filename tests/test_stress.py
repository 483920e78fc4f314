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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue, QueueReader

SEGMENT = 1 << 20
READERS = 3
PATIENCE_SECONDS = 20.0
MESSAGES = 60_000
HEAVY_MESSAGES = int(os.environ.get("CHRONICLE_STRESS_MESSAGES", "5000000"))
SEEDS = [int(seed) for seed in os.environ.get("CHRONICLE_STRESS_SEEDS", "1 2 3").split()]
STAY = 250_000  # records, after which a reader leaves and comes back as another handle
NOISE = random.Random(42).randbytes(1 << 16)


def payload(seq: int) -> bytes:
    """0 to some thousand bytes, mostly short."""
    mixed = seq * 2654435761 & 0xFFFFFFFF
    size = mixed % 40 if mixed & 0x700 else mixed % 6000
    at = mixed % (len(NOISE) - 6000)
    return NOISE[at : at + size]


def timestamp(seq: int) -> int:
    return 10**18 + seq * 7


def write(path: Path, messages: int, seed: int) -> None:
    """Single records, batches and claims, with a cleanup now and then."""
    dice = random.Random(seed)
    with Queue.open_publisher(path) as writer:
        seq = 0
        while seq < messages:
            what = dice.randrange(4)
            count = min(dice.randrange(1, 200), messages - seq)
            if what == 0:
                for i in range(seq, seq + count):
                    assert writer.append(payload(i), i % 1000, timestamp_ns=timestamp(i)) == i
            elif what == 1:
                for i in range(seq, seq + count):
                    data = payload(i)
                    with writer.claim(len(data), i % 1000, timestamp_ns=timestamp(i)) as buffer:
                        buffer[:] = data
            else:  # of one type and time
                many = [payload(i) for i in range(seq, seq + count)]
                assert writer.append_many(many, timestamp_ns=0, atomic=what == 2) == (seq, count)
            seq += count
            if dice.randrange(50) == 0:
                writer.cleanup()


def read(path: Path, messages: int, name: str) -> int:
    """Returns how many records were seen; fails at the first one that is not what it must be."""
    seen = 0
    while seen < messages:
        with Queue.open_subscriber(path, name) as reader:
            assert reader.position == seen
            seen = read_for_a_while(reader, seen, min(messages, seen + STAY))
            reader.commit()
            assert seen < messages or reader.next() is None
    return seen


def read_for_a_while(reader: QueueReader, seen: int, until: int) -> int:
    name = reader.name
    while seen < until:
        if not reader.wait(PATIENCE_SECONDS):
            pytest.fail(f"{name} stands at seq {reader.position} of {until}: nothing came for a while")
        for message in reader:
            assert message.seq == seen, f"{name}: seq {message.seq} came after {seen - 1}"
            assert message.payload == payload(seen), f"{name}: seq {seen} has another payload"
            assert message.timestamp_ns in (0, timestamp(seen))
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


def run(path: Path, start: Callable[..., Any], results: Any, messages: int, seed: int) -> None:
    Queue.open_publisher(path, segment_size=SEGMENT).close()
    names = [f"reader-{i}" for i in range(READERS)]
    for name in names:  # registered before the writer begins, so that retention waits for them
        Queue.open_subscriber(path, name).close()
    workers = [start(target=report, args=(read, results, path, messages, name)) for name in names]
    workers.append(start(target=report, args=(write, results, path, messages, seed)))
    for worker in workers:
        worker.start()
    outcome: dict[object, object] = dict(results.get(timeout=PATIENCE_SECONDS + messages / 1000) for _ in workers)
    for worker in workers:
        worker.join()
    expected: dict[object, object] = {seed: None}
    expected.update((name, messages) for name in names)
    assert outcome == expected
    check_afterwards(path, messages)


def check_afterwards(path: Path, messages: int) -> None:
    """What all readers have passed can go, and nothing else is wrong."""
    verified = Queue.verify(path)
    assert verified.ok, verified.problems
    with Queue.open_publisher(path, keeper=False) as writer:
        writer.cleanup()
    (last,) = Queue.segments(path)
    assert last.next_seq == messages
    assert [file.stem for file in path.glob("*.seg")] == [f"{last.base_seq:020}"]


def with_processes(path: Path, messages: int, seed: int) -> None:
    context = multiprocessing.get_context("spawn")
    run(path, context.Process, context.Queue(), messages, seed)


def with_threads(path: Path, messages: int, seed: int) -> None:
    run(path, threading.Thread, standard_queue.Queue(), messages, seed)


@pytest.mark.parametrize("how", [with_processes, with_threads])
def test_stress(queue: Path, how: Callable[[Path, int, int], None]) -> None:
    how(queue, MESSAGES, 1)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", SEEDS)
def test_heavy_stress(queue: Path, seed: int) -> None:
    started = time.monotonic()
    with_processes(queue, HEAVY_MESSAGES, seed)
    print(f"\n{HEAVY_MESSAGES} records, {READERS} readers, seed {seed}: {time.monotonic() - started:.1f} s")
