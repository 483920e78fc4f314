# SPDX-License-Identifier: MIT
"""A user's program, for mypy --strict alone ("make lint"), never run: what the package says about its types."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from chronicle_ffi import (
    SEGMENT_SIZE,
    Batch,
    ChronicleError,
    CleanupReport,
    Event,
    Message,
    Problem,
    Queue,
    QueueInfo,
    QueueReader,
    QueueWriter,
    ReaderInfo,
    ReaderStats,
    Recovery,
    Retention,
    Scan,
    SegmentFate,
    SegmentGone,
    SegmentInfo,
    SeqOutOfRange,
    VerifyReport,
    WriterStats,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type


def opening() -> None:
    assert_type(SEGMENT_SIZE, int)
    assert_type(Queue.open_publisher("q"), QueueWriter)
    keep = Retention(max_age=timedelta(days=1), reader_ttl=3600.0)
    assert_type(Queue.open_publisher(Path("q"), durability="batch", backpressure=1.5, retention=keep), QueueWriter)
    assert_type(Queue.open_subscriber("q"), QueueReader)
    assert_type(Queue.open_subscriber(Path("q"), "me", start=datetime.now(), on_gap="oldest"), QueueReader)
    assert_type(Queue.scan(Path("q"), start=5, stop=datetime.now()), Scan)
    Queue.open_publisher("q", durability="often")  # type: ignore[arg-type]
    Queue.open_subscriber("q", start="middle")  # type: ignore[call-overload]
    Queue.open_publisher(b"q")  # type: ignore[arg-type]
    with Queue.open_publisher("q") as writer, Queue.open_subscriber("q") as reader, Queue.scan("q") as scan:
        assert_type(writer, QueueWriter)
        assert_type(reader, QueueReader)
        assert_type(scan, Scan)


def writing(writer: QueueWriter) -> None:
    assert_type(writer.append(b"bytes"), int)
    writer.append(bytearray(4), 7, timestamp_ns=1, flags=2)
    writer.append(array("d", [1.0]))
    writer.append("text")  # type: ignore[arg-type]
    assert_type(writer.append_many([b"one", memoryview(b"two")], type_id=array("H", [1, 2])), tuple[int, int])
    assert_type(writer.append_many(iter([b"one"]), atomic=True), tuple[int, int])
    assert_type(writer.append_array(memoryview(b"aabb"), row_bytes=2), tuple[int, int])
    assert_type(writer.append_buffer(b"aabb", array("Q", [0, 2, 4])), tuple[int, int])
    with writer.claim(16) as buffer:
        assert_type(buffer, memoryview)
    assert_type(writer.cleanup(), CleanupReport)
    assert_type(writer.cleanup().segments, list[SegmentFate])
    assert_type(writer.recovery, Recovery)
    assert_type(writer.stats(), WriterStats)
    assert_type(writer.durable_seq, int)


def reading(reader: QueueReader) -> None:
    assert_type(reader.next(), Message | None)
    for message in reader:
        assert_type(message, Message)
        assert_type(message.payload, bytes)
        assert_type(message.time, datetime)
    assert_type(reader.payloads(), Iterator[bytes])
    assert_type(reader.follow(), Iterator[Message])
    assert_type(reader.follow(1.0, events=False), Iterator[Message])
    assert_type(reader.follow(heartbeat=1), Iterator[Message | Event])
    assert_type(reader.follow(timeout=None, events=True), Iterator[Message | Event])
    for item in reader.follow(events=True):
        if isinstance(item, Event):
            assert_type(item.kind, str)
        else:
            assert_type(item, Message)
    assert_type(reader.wait(0.5), bool)
    assert_type(reader.committed, int | None)
    assert_type(reader.name, str | None)
    assert_type(reader.lag, int)
    assert_type(reader.stats(), ReaderStats)
    reader.seek_time(datetime.now())
    reader.seek_time(5)


async def on_a_loop(reader: QueueReader, writer: QueueWriter) -> None:
    async for message in reader:
        assert_type(message, Message)
    assert_type(await reader.next_async(), Message | None)
    assert_type(await reader.next_async(timeout=0.5), Message | None)
    assert_type(await reader.wait_async(0.5), bool)
    await writer.wait_durable()
    await writer.wait_durable(writer.append(b"x"), timeout=1)


def columns(reader: QueueReader, scan: Scan) -> None:
    batch = reader.read_batch(1000)
    assert_type(batch, Batch)
    assert_type(batch[0], Message)
    assert_type(batch[1:], Batch)
    assert_type(batch.seq, memoryview)
    assert_type(batch.payloads(), list[bytes])
    assert_type(batch.views(), list[memoryview])
    for message in batch:
        assert_type(message, Message)
    for part in scan:
        assert_type(part, Batch)


def looking() -> None:
    assert_type(Queue.info("q"), QueueInfo)
    assert_type(Queue.segments("q"), list[SegmentInfo])
    assert_type(Queue.readers("q"), list[ReaderInfo])
    assert_type(Queue.verify("q"), VerifyReport)
    assert_type(Queue.verify("q").problems, list[Problem])
    assert_type(Queue.cleanup_plan("q", Retention(max_segments=3)), CleanupReport)
    try:
        Queue.info("q")
    except SegmentGone as problem:
        assert_type(problem.oldest, int | None)
    except SeqOutOfRange as problem:
        assert_type(problem.next_seq, int | None)
    except ChronicleError as problem:
        assert_type(problem.code, int)
