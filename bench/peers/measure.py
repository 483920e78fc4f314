# SPDX-License-Identifier: MIT
"""How each kind of work is measured, in a process that does nothing else.

What is not the contestant's work stays outside of the time: making records, opening, comparing what was read. Between
two processes, where the reader cannot stop the clock, the comparison is part of every contestant's time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TypedDict

from bench.peers.interface import CREW, GROUP, Contestant, Reader, Task, Writer
from bench.peers.records import RING, Check, Ring, WrongContent

FORK: Final = multiprocessing.get_context("fork")
SETTLE_SECONDS: Final = 0.05  # for connections to be made before two processes start
COLUMNS: Final = 16384  # records of one read_batch of ours: its default
ONE_CHUNK: Final = 1000  # records read one by one between two looks at the clock
WARM_TRIPS: Final = 50
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Result(TypedDict, total=False):
    """What one run gives."""

    records: int
    seconds: float
    nanoseconds: dict[str, float]  # of a round trip: its percentiles


def ring_for(contestant: Contestant) -> Ring:
    """Records, and numpy in memory where it is needed: importing it is nobody's work."""
    ring = Ring(contestant.size)
    if contestant.task.arrays:
        ring.rows()
    return ring


def feed(writer: Writer, ring: Ring, method: str, count: int, chunk: int) -> None:
    """Append records 0 to `count`."""
    if method == "append_array":
        rows = ring.rows()
        for begin in range(0, count, chunk):
            writer.append_array(rows[: min(chunk, count - begin)])
        return
    append: Callable[[list[bytes]], None] = getattr(writer, method)
    for begin in range(0, count, chunk):
        append(ring.take(begin, min(chunk, count - begin)))


def chunk_of(contestant: Contestant, method: str) -> int:
    """How many records one call of a method gets."""
    if method in ("append_one", "read_one"):
        return ONE_CHUNK
    if method == "append_array":
        return RING
    if method == "read_columns":
        return COLUMNS
    return GROUP if contestant.task.durable else contestant.batch


def take(reader: Reader, check: Check, method: str, count: int, chunk: int) -> float:
    """Read the next `count` records and compare them; returns the seconds that reading took."""
    read: Callable[[int], Any] = getattr(reader, method)
    compare = check.rows if method == "read_columns" else check
    spent = 0
    end = check.seen + count
    while check.seen < end:
        want = min(chunk, end - check.seen)
        begin = time.perf_counter_ns()
        got = read(want)
        spent += time.perf_counter_ns() - begin
        if len(got) > want:
            raise WrongContent(f"{len(got)} records instead of at most {want}")
        compare(got)
    return spent / 1e9


def measure_append(contestant: Contestant, task: Task, count: int) -> Result:
    ring = ring_for(contestant)
    chunk = chunk_of(contestant, task.write)
    contestant.start(["log"])
    writer = contestant.writer("log")
    begin = time.perf_counter()
    feed(writer, ring, task.write, count, chunk)
    seconds = time.perf_counter() - begin
    writer.close()
    reader = contestant.checker("log")
    take(reader, Check(ring), task.read, count, contestant.batch)
    reader.close()
    return {"records": count, "seconds": seconds}


def _fill(contestant: Contestant, ring: Ring, method: str, count: int) -> None:
    writer = contestant.writer("log")
    feed(writer, ring, method, count, contestant.batch)
    writer.close()


def measure_read(contestant: Contestant, task: Task, count: int) -> Result:
    """Another process has written; the pages are in memory, but nothing of them is mapped here."""
    ring = ring_for(contestant)
    contestant.start(["log"])
    child = FORK.Process(target=_fill, args=(contestant, ring, task.write, count))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError("filling failed")
    reader = contestant.reader("log")
    seconds = take(reader, Check(ring), task.read, count, chunk_of(contestant, task.read))
    reader.close()
    return {"records": count, "seconds": seconds}


def _consume(contestant: Contestant, ring: Ring, task: Task, count: int, signal: Connection) -> None:
    signal.recv()  # the writer is open
    reader = contestant.reader("log")
    signal.send(None)
    check = Check(ring)
    take(reader, check, task.read, count, chunk_of(contestant, task.read))
    signal.send(time.monotonic_ns())
    signal.recv()  # the writer needs the reader no more
    reader.close()


def measure_pair(contestant: Contestant, task: Task, count: int) -> Result:
    """From the first append in this process to the last record compared in the other."""
    ring = ring_for(contestant)
    contestant.start(["log"])
    mine, theirs = FORK.Pipe()
    child = FORK.Process(target=_consume, args=(contestant, ring, task, count, theirs))
    child.start()
    theirs.close()  # so that the death of the other process ends the waiting for it
    writer = contestant.writer("log")
    mine.send(None)
    mine.recv()
    time.sleep(SETTLE_SECONDS)
    begin = time.monotonic_ns()
    feed(writer, ring, task.write, count, chunk_of(contestant, task.write))
    end = mine.recv()
    mine.send(None)
    writer.close()
    child.join()
    return {"records": count, "seconds": (end - begin) / 1e9}


def _echo(contestant: Contestant, count: int, signal: Connection) -> None:
    signal.recv()
    reader = contestant.reader("there")
    writer = contestant.writer("back")
    signal.send(None)
    for _ in range(count):
        writer.append_one(reader.read_one(1))
    signal.recv()
    writer.close()
    reader.close()


def measure_trip(contestant: Contestant, task: Task, count: int) -> Result:
    """One record there and one back, one after the other."""
    ring = Ring(contestant.size)
    contestant.start(["there", "back"])
    trips = WARM_TRIPS + count
    mine, theirs = FORK.Pipe()
    child = FORK.Process(target=_echo, args=(contestant, trips, theirs))
    child.start()
    theirs.close()
    writer = contestant.writer("there")
    mine.send(None)
    mine.recv()
    reader = contestant.reader("back")
    time.sleep(SETTLE_SECONDS)
    check = Check(ring)
    took = []
    for i in range(trips):
        sent = ring.take(i, 1)
        begin = time.perf_counter_ns()
        writer.append_one(sent)
        got = reader.read_one(1)
        took.append(time.perf_counter_ns() - begin)
        check(got)
    mine.send(None)
    child.join()
    reader.close()
    writer.close()
    took = took[WARM_TRIPS:]
    seconds = sum(took) / 1e9
    took.sort()
    percentiles = {name: float(took[min(int(count * part), count - 1)]) for name, part in PERCENTILES.items()}
    return {"records": count, "seconds": seconds, "nanoseconds": percentiles}


def _crew(work: Callable[[Connection], None]) -> tuple[float, list[bytes]]:
    """Have CREW processes do it at once: seconds from the word to go to the end of the last, and what they gave.

    Each says when it is ready, waits for the word, and sends the time of its end and its result.
    """
    crew = []
    for _ in range(CREW):
        mine, theirs = FORK.Pipe()
        child = FORK.Process(target=work, args=(theirs,))
        child.start()
        theirs.close()
        crew.append((mine, child))
    for mine, _ in crew:
        mine.recv()
    time.sleep(SETTLE_SECONDS)
    begin = time.monotonic_ns()
    for mine, _ in crew:
        mine.send(None)
    told = [mine.recv() for mine, _ in crew]
    for _, child in crew:
        child.join()
    return (max(end for end, _ in told) - begin) / 1e9, [payload for _, given in told for payload in given]


def _same(got: list[bytes], expected: list[bytes]) -> None:
    """Each as often, in whatever order."""
    if Counter(got) != Counter(expected):
        raise WrongContent(
            f"{len(got)} records, {len(set(got))} of them different, are not the {len(expected)} appended"
        )


def _records(ring: Ring, count: int) -> list[bytes]:
    return [ring.payloads[i % RING] for i in range(count)]


def measure_share(contestant: Contestant, task: Task, count: int) -> Result:
    """Jobs that another process has written; each has to come to one worker, once."""
    ring = ring_for(contestant)
    contestant.start(["log"])
    child = FORK.Process(target=_fill, args=(contestant, ring, task.write, count))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError("filling failed")

    def work(signal: Connection) -> None:
        reader = contestant.reader("log")
        signal.send(None)
        signal.recv()
        got = reader.work()
        signal.send((time.monotonic_ns(), got))
        reader.close()

    seconds, got = _crew(work)
    _same(got, _records(ring, count))
    return {"records": count, "seconds": seconds}


def measure_writers(contestant: Contestant, task: Task, count: int) -> Result:
    """Each appends its part, of the same records."""
    ring = ring_for(contestant)
    contestant.start(["log"])
    part = max(count // CREW, 1)

    def work(signal: Connection) -> None:
        writer = contestant.writer("log")
        signal.send(None)
        signal.recv()
        feed(writer, ring, task.write, part, ONE_CHUNK)
        signal.send((time.monotonic_ns(), []))
        writer.close()

    seconds, _ = _crew(work)
    reader = contestant.checker("log")
    got: list[bytes] = []
    while len(got) < part * CREW:
        got += reader.read_batch(part * CREW - len(got))
    reader.close()
    _same(got, _records(ring, part) * CREW)
    return {"records": part * CREW, "seconds": seconds}


MEASURES: Final[dict[str, Callable[[Contestant, Task, int], Result]]] = {
    "append": measure_append,
    "read": measure_read,
    "pair": measure_pair,
    "trip": measure_trip,
    "share": measure_share,
    "writers": measure_writers,
}


def measure(made: type[Contestant], task: Task, size: int, count: int) -> Result:
    """One run in the current directory, which is empty."""
    contestant = made(size, task)
    try:
        return MEASURES[task.kind](contestant, task, count)
    finally:
        contestant.stop()
