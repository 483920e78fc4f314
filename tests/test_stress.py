# SPDX-License-Identifier: MIT
"""One writer and several readers at full speed: every reader sees every record once, in order, unaltered.

The content of a record follows from its seq, so nobody has to keep it. Environment variables make more of it:
CHRONICLE_STRESS_MESSAGES (records; "make stress" takes five million) and CHRONICLE_STRESS_SEED.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import Queue

SEGMENT = 1 << 20
READERS = 3
PATIENCE_SECONDS = 20.0
DEFAULT_MESSAGES = 60_000
MESSAGES = int(os.environ.get("CHRONICLE_STRESS_MESSAGES", DEFAULT_MESSAGES))
SEED = int(os.environ.get("CHRONICLE_STRESS_SEED", "1"))
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
                call = writer.append_batch if what == 2 else writer.append_many
                assert call([payload(i) for i in range(seq, seq + count)], timestamp_ns=0) == (seq, count)
            seq += count
            if dice.randrange(50) == 0:
                writer.cleanup()


def read(path: Path, messages: int, name: str) -> int:
    """Returns how many records were seen; fails at the first one that is not what it must be."""
    seen = 0
    with Queue.open_subscriber(path, name) as reader:
        while seen < messages:
            if not reader.wait(PATIENCE_SECONDS):
                pytest.fail(f"{name} stands at seq {reader.position} of {messages}: nothing came for a while")
            for message in reader:
                assert message.seq == seen, f"{name}: seq {message.seq} came after {seen - 1}"
                assert message.payload == payload(seen), f"{name}: seq {seen} has another payload"
                assert message.timestamp_ns in (0, timestamp(seen))
                seen += 1
                if seen % 1000 == 0:
                    reader.commit()
        reader.commit()
        assert reader.next() is None
        assert reader.stats().records == messages
    return seen


def report(work: Callable[..., Any], results: Any, *arguments: object) -> None:
    """In a process or thread of its own: a result, or what went wrong."""
    try:
        results.put((arguments[-1], work(*arguments)))
    except BaseException as failure:
        results.put((arguments[-1], repr(failure)))


def run(path: Path, start: Callable[..., Any], results: Any) -> None:
    Queue.open_publisher(path, segment_size=SEGMENT).close()
    names = [f"reader-{i}" for i in range(READERS)]
    for name in names:  # registered before the writer begins, so that retention waits for them
        Queue.open_subscriber(path, name).close()
    workers = [start(target=report, args=(read, results, path, MESSAGES, name)) for name in names]
    workers.append(start(target=report, args=(write, results, path, MESSAGES, SEED)))
    for worker in workers:
        worker.start()
    outcome: dict[object, object] = dict(results.get(timeout=PATIENCE_SECONDS + MESSAGES / 1000) for _ in workers)
    for worker in workers:
        worker.join()
    expected: dict[object, object] = {SEED: None}
    expected.update((name, MESSAGES) for name in names)
    assert outcome == expected
    check_afterwards(path)


def check_afterwards(path: Path) -> None:
    """What all readers have passed can go, and nothing else is wrong."""
    verified = Queue.verify(path)
    assert verified.ok, verified.problems
    with Queue.open_publisher(path, keeper=False) as writer:
        writer.cleanup()
    last = Queue.segments(path)
    assert len(last) == 1
    assert last[0].next_seq == MESSAGES
    assert [file.stem for file in path.glob("*.seg")] == [f"{last[0].base_seq:020}"]


def test_stress_with_processes(queue: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    run(queue, context.Process, context.Queue())
    print(f"{MESSAGES} records, {READERS} readers, seed {SEED}: {time.monotonic() - started:.1f} s")


def test_stress_with_threads(queue: Path) -> None:
    import queue as standard

    run(queue, threading.Thread, standard.Queue())
