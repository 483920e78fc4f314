# SPDX-License-Identifier: MIT
"""The Python API's speed, beside what the standard library offers for the same job.

``make bench``, or ``pytest bench``. Each round works on a fresh queue, opened before and closed after what is timed;
payloads and timestamps are the same in every run; content is checked inside. The rows of one group do the same work,
RECORDS records a round; "OPS" counts rounds.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from chronicle_ffi import Merge, Queue, QueueReader, QueueWriter

RECORDS = 20_000
ROUNDS = 7
SIZES = (64, 256, 1024)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """A path that nothing lies at, another one at each call."""
    count = 0

    def path() -> Path:
        nonlocal count
        count += 1
        return tmp_path / str(count)

    return path


def payload(size: int, i: int) -> bytes:
    return i.to_bytes(8, "little") * (size // 8)


def payloads(size: int) -> list[bytes]:
    return [payload(size, i) for i in range(RECORDS)]


def timed(
    benchmark: BenchmarkFixture,
    group: str,
    setup: Callable[[], Any],
    work: Callable[[Any], object],
    teardown: Callable[[Any], object],
) -> None:
    """`setup` makes what `work` gets, anew for each round; only `work` is timed."""
    benchmark.group = group
    run: Any = benchmark.pedantic
    run(work, setup=lambda: ((setup(),), {}), teardown=teardown, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["records"] = RECORDS
        benchmark.extra_info["records_per_second"] = round(RECORDS / benchmark.stats.stats.median)


def close(handle: Any) -> None:
    handle.close()


# ------------------------------------------------------------------------------------------- append


def timed_append(
    benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int, work: Callable[[QueueWriter], object]
) -> None:
    """Checks, of each round, that the queue ends behind the last record and that some of them are what was appended."""
    paths: list[Path] = []

    def setup() -> QueueWriter:
        paths.append(fresh())
        return Queue.open_publisher(paths[-1])

    def work_and_look(writer: QueueWriter) -> None:
        work(writer)
        assert writer.next_seq == RECORDS

    def teardown(writer: QueueWriter) -> None:
        writer.close()
        with Queue.open_subscriber(paths[-1]) as reader:
            assert all(found == payload(size, i) for i, found in enumerate(reader.payloads()))
            assert reader.position == RECORDS
        shutil.rmtree(paths[-1])

    timed(benchmark, f"append/{size}b", setup, work_and_look, teardown)


@pytest.mark.parametrize("size", SIZES)
def test_append(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    data = payloads(size)

    def work(writer: QueueWriter) -> None:
        append = writer.append
        for i, item in enumerate(data):
            append(item, 1, timestamp_ns=i)

    timed_append(benchmark, fresh, size, work)


@pytest.mark.parametrize("size", SIZES)
def test_append_many(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    data = payloads(size)
    timed_append(benchmark, fresh, size, lambda writer: writer.append_many(data, 1, timestamp_ns=0))


@pytest.mark.parametrize("size", SIZES)
def test_append_array(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    rows = b"".join(payloads(size))
    stamps = array("Q", range(RECORDS))
    timed_append(
        benchmark, fresh, size, lambda writer: writer.append_array(rows, 1, row_bytes=size, timestamp_ns=stamps)
    )


@pytest.mark.parametrize("size", SIZES)
def test_append_buffer(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    """As Arrow has them: one buffer, and offsets."""
    packed = b"".join(payloads(size))
    offsets = array("q", range(0, (RECORDS + 1) * size, size))
    timed_append(benchmark, fresh, size, lambda writer: writer.append_buffer(packed, offsets, 1, timestamp_ns=0))


@pytest.mark.parametrize("size", SIZES)
def test_claim(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    data = payloads(size)

    def work(writer: QueueWriter) -> None:
        for i, item in enumerate(data):
            with writer.claim(size, 1, timestamp_ns=i) as buffer:
                buffer[:] = item

    timed_append(benchmark, fresh, size, work)


def test_append_sqlite(benchmark: BenchmarkFixture, fresh: Callable[[], Path]) -> None:
    """One transaction for all: what SQLite does fastest; not durable, as the queue's default."""
    data = payloads(64)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(fresh())
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, ts INTEGER, type INTEGER, payload BLOB)")
        return connection

    def work(connection: sqlite3.Connection) -> None:
        with connection:
            connection.executemany(
                "INSERT INTO log (ts, type, payload) VALUES (?, 1, ?)", ((i, item) for i, item in enumerate(data))
            )
        assert connection.execute("SELECT max(seq) FROM log").fetchone() == (RECORDS,)

    timed(benchmark, "append/64b", connect, work, close)


# --------------------------------------------------------------------------------------------- read


@pytest.fixture(params=SIZES)
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    size: int = request.param
    with Queue.open_publisher(tmp_path / "filled") as writer:
        writer.append_array(b"".join(payloads(size)), row_bytes=size, timestamp_ns=array("Q", range(RECORDS)))
    return size, tmp_path / "filled"


def timed_read(benchmark: BenchmarkFixture, filled: tuple[int, Path], work: Callable[[QueueReader], object]) -> None:
    size, path = filled

    def work_and_look(reader: QueueReader) -> None:
        work(reader)
        assert reader.position == RECORDS

    timed(benchmark, f"read/{size}b", lambda: Queue.open_subscriber(path), work_and_look, close)


def test_next(benchmark: BenchmarkFixture, filled: tuple[int, Path]) -> None:
    """One call of next() for each."""
    expected = payloads(filled[0])

    def work(reader: QueueReader) -> None:
        take = reader.next
        for i, data in enumerate(expected):
            message = take()
            assert message is not None
            assert message.seq == i
            assert message.payload == data

    timed_read(benchmark, filled, work)


def test_iterate(benchmark: BenchmarkFixture, filled: tuple[int, Path]) -> None:
    expected = payloads(filled[0])

    def work(reader: QueueReader) -> None:
        for message, data in zip(reader, expected, strict=True):
            assert message.payload == data

    timed_read(benchmark, filled, work)


def test_payloads(benchmark: BenchmarkFixture, filled: tuple[int, Path]) -> None:
    expected = payloads(filled[0])
    timed_read(benchmark, filled, lambda reader: check(list(reader.payloads()) == expected))


def test_columns(benchmark: BenchmarkFixture, filled: tuple[int, Path]) -> None:
    """Batches with their columns, CRCs checked, without an object per record."""
    size = filled[0]

    def work(reader: QueueReader) -> None:
        seen = 0
        while batch := reader.read_batch():
            assert batch.seq[0] == seen == batch.timestamp_ns[0]
            assert batch.length[0] == size
            begin = batch.offset[-1]
            seen += len(batch)
            assert batch.segment[begin : begin + size] == payload(size, seen - 1)

    timed_read(benchmark, filled, work)


SOURCES = 8


@pytest.fixture
def eight(tmp_path: Path) -> list[Path]:
    """RECORDS records of 64 bytes in eight queues; neighbours by timestamp never lie in the same one."""
    paths = [tmp_path / str(i) for i in range(SOURCES)]
    for i, path in enumerate(paths):
        with Queue.open_publisher(path, keeper=False) as writer:
            for at in range(i, RECORDS, SOURCES):
                writer.append(payload(64, at), 1, timestamp_ns=at)
    return paths


def test_columns_of_eight_each_alone(benchmark: BenchmarkFixture, eight: list[Path]) -> None:
    def work(readers: list[QueueReader]) -> None:
        seen = 0
        for reader in readers:
            while batch := reader.read_batch():
                seen += len(batch)
        assert seen == RECORDS

    timed(
        benchmark,
        "merge/64b",
        lambda: [Queue.open_subscriber(path) for path in eight],
        work,
        lambda readers: [reader.close() for reader in readers],
    )


def test_columns_of_eight_merged(benchmark: BenchmarkFixture, eight: list[Path]) -> None:
    def work(merge: Merge) -> None:
        seen = 0
        while batch := merge.read_batch():
            assert batch.timestamp_ns[0] == seen
            seen += len(batch)
            assert batch.data[-64:] == payload(64, seen - 1)
        assert seen == RECORDS

    timed(benchmark, "merge/64b", lambda: Queue.merge(eight), work, close)


def check(fact: bool) -> None:
    assert fact


# -------------------------------------------------------------------------------- between processes


def consume(path: Path, done: Any) -> None:
    data = payloads(64)
    with Queue.open_subscriber(path, waiting="hybrid") as reader:
        done.send(None)
        seen = 0
        for message in reader.follow():
            assert message.payload == data[seen]
            seen += 1
            if seen == RECORDS:
                break
    done.send(seen)


def consume_queue(source: Any, done: Any) -> None:
    data = payloads(64)
    done.send(None)
    for item in data:
        assert source.get() == item
    done.send(RECORDS)


def between(benchmark: BenchmarkFixture, start: Callable[[Any], tuple[Any, Any]], send: Callable[[Any], None]) -> None:
    """`start(done)` gives (what opens the target, process); the time is from the first record to the last one read."""
    context = multiprocessing.get_context("fork")

    def setup() -> tuple[Any, Any, Any]:
        mine, theirs = context.Pipe()
        open_target, process = start(theirs)
        process.start()
        mine.recv()
        return open_target(), process, mine

    def work(prepared: tuple[Any, Any, Any]) -> None:
        target, _, mine = prepared
        send(target)
        assert mine.recv() == RECORDS

    def teardown(prepared: tuple[Any, Any, Any]) -> None:
        target, process, _ = prepared
        target.close()
        process.join()

    timed(benchmark, "two processes/64b", setup, work, teardown)


def test_two_processes(benchmark: BenchmarkFixture, fresh: Callable[[], Path]) -> None:
    data = payloads(64)
    context = multiprocessing.get_context("fork")

    def start(done: Any) -> tuple[Any, Any]:
        path = fresh()
        Queue.open_publisher(path, keeper=False).close()
        return lambda: Queue.open_publisher(path), context.Process(target=consume, args=(path, done))

    def send(writer: Any) -> None:
        for item in data:
            writer.append(item)

    between(benchmark, start, send)


def test_two_processes_multiprocessing_queue(benchmark: BenchmarkFixture) -> None:
    data = payloads(64)
    context = multiprocessing.get_context("fork")

    def start(done: Any) -> tuple[Any, Any]:
        target: Any = context.Queue()
        return lambda: target, context.Process(target=consume_queue, args=(target, done))

    def send(target: Any) -> None:
        for item in data:
            target.put(item)

    between(benchmark, start, send)


def test_write_to_a_pipe(benchmark: BenchmarkFixture) -> None:
    """The floor: bytes that nobody keeps, one system call each."""
    data = payloads(64)

    def work(ends: tuple[int, int]) -> None:
        reading, writing = ends
        for item in data:
            os.write(writing, item)
            assert os.read(reading, 64) == item

    def teardown(ends: tuple[int, int]) -> None:
        for end in ends:
            os.close(end)

    timed(benchmark, "append/64b", os.pipe, work, teardown)
