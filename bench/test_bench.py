# SPDX-License-Identifier: MIT
"""The Python API's speed, beside what the standard library offers for the same job.

``make bench``, or ``pytest bench``. Each round works on a fresh queue; payloads and timestamps are the same in every
run; content is checked inside what is timed. The rows of one group do the same work; "OPS" counts rounds of RECORDS.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from chronicle_ffi import Queue

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


def timed(benchmark: BenchmarkFixture, group: str, setup: Callable[[], Any], work: Callable[..., object]) -> None:
    benchmark.group = f"{group} ({RECORDS:,} records)"
    run: Any = benchmark.pedantic
    run(work, setup=lambda: ((setup(),), {}), rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["records_per_second"] = round(RECORDS / benchmark.stats.stats.median)


# ------------------------------------------------------------------------------------------- append


@pytest.mark.parametrize("size", SIZES)
def test_append(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    data = payloads(size)

    def work(writer: Any) -> None:
        append = writer.append
        for i, item in enumerate(data):
            append(item, 1, timestamp_ns=i)
        assert writer.next_seq == RECORDS
        writer.close()

    timed(benchmark, f"append/{size}b", lambda: Queue.open_publisher(fresh()), work)


@pytest.mark.parametrize("size", SIZES)
def test_append_many(benchmark: BenchmarkFixture, fresh: Callable[[], Path], size: int) -> None:
    data = payloads(size)

    def work(writer: Any) -> None:
        assert writer.append_many(data, 1, timestamp_ns=0) == (0, RECORDS)
        writer.close()

    timed(benchmark, f"append/{size}b", lambda: Queue.open_publisher(fresh()), work)


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
        connection.close()

    timed(benchmark, "append/64b", connect, work)


# --------------------------------------------------------------------------------------------- read


@pytest.fixture(params=SIZES)
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    size: int = request.param
    with Queue.open_publisher(tmp_path / "filled") as writer:
        writer.append_many(payloads(size))
    return size, tmp_path / "filled"


def test_next(benchmark: BenchmarkFixture, filled: tuple[int, Path]) -> None:
    size, path = filled

    def work(reader: Any) -> None:
        total = 0
        for message in reader:
            total += message.seq
            assert len(message.payload) == size
        assert total == RECORDS * (RECORDS - 1) // 2
        reader.close()

    timed(benchmark, f"read/{size}b", lambda: Queue.open_subscriber(path), work)


# -------------------------------------------------------------------------------- between processes


def consume(path: Path, done: Any) -> None:
    with Queue.open_subscriber(path, wait="hybrid") as reader:
        done.send(None)
        seen = 0
        for message in reader.follow():
            assert message.seq == seen
            seen += 1
            if seen == RECORDS:
                break
    done.send(seen)


def consume_queue(source: Any, done: Any) -> None:
    done.send(None)
    for _ in range(RECORDS):
        source.get()
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
        target, process, mine = prepared
        send(target)
        assert mine.recv() == RECORDS
        process.join()

    timed(benchmark, "two processes/64b", setup, work)


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
        writer.close()

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
        target.close()
        target.join_thread()

    between(benchmark, start, send)


def test_write_to_a_pipe(benchmark: BenchmarkFixture) -> None:
    """The floor: bytes that nobody keeps, one system call each."""
    data = payloads(64)

    def setup() -> tuple[int, int]:
        return os.pipe()

    def work(ends: tuple[int, int]) -> None:
        reading, writing = ends
        for item in data:
            os.write(writing, item)
            os.read(reading, 64)
        os.close(reading)
        os.close(writing)

    timed(benchmark, "append/64b", setup, work)
