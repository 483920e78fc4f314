# SPDX-License-Identifier: MIT
"""Whatever is written by any call that appends is read back by every way of reading, and by the independent decoder."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from array import array
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from chronicle_ffi import Message, Queue, QueueReader, QueueWriter
from tests import decoder

pa: Any
try:
    pa = importlib.import_module("pyarrow")
except ImportError:  # then without Arrow; tests/test_arrow.py says so
    pa = None

SEGMENT = 1 << 16


class Given(NamedTuple):
    timestamp_ns: int
    type_id: int
    flags: int
    payload: bytes


def large(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


stamps = st.integers(0, (1 << 63) - 1)
types = st.integers(0, 0xFFFE)
flags = st.integers(0, 255)
payloads = st.one_of(st.binary(max_size=50), st.integers(0, 500).map(large), st.integers(3000, 9000).map(large))
records = st.lists(st.builds(Given, stamps, types, flags, payloads), max_size=30)
rows = st.integers(0, 70).flatmap(
    lambda size: st.lists(st.builds(Given, stamps, types, flags, st.binary(min_size=size, max_size=size)), max_size=60)
)


def columns(some: list[Given]) -> dict[str, Any]:
    return {
        "type_id": array("H", (one.type_id for one in some)),
        "timestamp_ns": array("q", (one.timestamp_ns for one in some)),
        "flags": bytes(one.flags for one in some),
    }


def one_by_one(writer: QueueWriter, some: list[Given]) -> None:
    for one in some:
        writer.append(one.payload, one.type_id, timestamp_ns=one.timestamp_ns, flags=one.flags)


def claims(writer: QueueWriter, some: list[Given]) -> None:
    for one in some:
        with writer.claim(len(one.payload), one.type_id, timestamp_ns=one.timestamp_ns, flags=one.flags) as buffer:
            buffer[:] = one.payload


def many(writer: QueueWriter, some: list[Given], **how: bool) -> None:
    assert writer.append_many((one.payload for one in some), **columns(some), **how)[1] == len(some)


def buffer(writer: QueueWriter, some: list[Given], **how: bool) -> None:
    offsets = array("I", accumulate((len(one.payload) for one in some), initial=3))
    data = b"xxx" + b"".join(one.payload for one in some) + b"xxx"
    assert writer.append_buffer(data, offsets, **columns(some), **how)[1] == len(some)


def arrow(writer: QueueWriter, some: list[Given], **how: bool) -> None:
    values = pa.array([one.payload for one in some], pa.binary())
    halves = pa.chunked_array([values[: len(some) // 2], values[len(some) // 2 :]])
    assert writer.append_arrow(halves, **columns(some), **how)[1] == len(some)


def one_array(writer: QueueWriter, some: list[Given], **how: bool) -> None:
    size = len(some[0].payload) if some else 0
    table = memoryview(b"".join(one.payload for one in some))
    if size:
        assert writer.append_array(table, row_bytes=size, **columns(some), **how)[1] == len(some)
    else:
        many(writer, some, **how)


def parts(call: Callable[..., None], **how: bool) -> Callable[[QueueWriter, list[Given]], None]:
    """A call for each few records: a whole batch has to fit a segment."""

    def write(writer: QueueWriter, some: list[Given]) -> None:
        while some:
            count = 1
            while count < len(some) and sum(len(one.payload) + 64 for one in some[: count + 1]) < SEGMENT - 10_000:
                count += 1
            call(writer, some[:count], **how)
            some = some[count:]

    return write


WRITERS: dict[str, Callable[[QueueWriter, list[Given]], None]] = {
    "append": one_by_one,
    "claim": claims,
    "append_many": many,
    "append_many, atomic": parts(many, atomic=True),
    "append_buffer": buffer,
    "append_buffer, atomic": parts(buffer, atomic=True),
}
ROW_WRITERS: dict[str, Callable[[QueueWriter, list[Given]], None]] = {
    "append_array": one_array,
    "append_array, atomic": parts(one_array, atomic=True),
}
if pa is not None:
    WRITERS["append_arrow"] = arrow
    WRITERS["append_arrow, atomic"] = parts(arrow, atomic=True)


def by_next(reader: QueueReader) -> list[Message]:
    found = []
    while (message := reader.next()) is not None:
        found.append(message)
    return found


def check(path: Path, wanted: list[Message]) -> None:
    """By every way there is."""
    with Queue.open_subscriber(path) as reader:
        assert by_next(reader) == wanted
        back = []
        while (message := reader.previous()) is not None:
            back.append(message)
        assert back == wanted[::-1]
        assert list(reader) == wanted
        reader.seek(0)
        assert list(reader.payloads()) == [one.payload for one in wanted]
        for size in (1, 3, 1000):
            reader.seek(0)
            found: list[Message] = []
            while len(batch := reader.read_batch(size)):
                assert batch.payloads() == list(map(bytes, batch.views()))
                found += list(batch)
            assert found == wanted
    assert [one for batch in Queue.scan(path, batch_records=7) for one in batch] == wanted
    decoded = decoder.open_queue(path)
    assert [
        Message(one.seq, one.timestamp_ns, one.type_id, one.flags, one.payload) for one in decoded.records
    ] == wanted
    assert Queue.verify(path).ok
    if pa is not None:
        for packed in (False, True):
            table = Queue.scan(path).to_arrow(packed=packed).read_all()
            table.validate(full=True)
            columns = [table["seq"], table["timestamp"].cast(pa.int64()), *table.columns[2:]]
            assert [Message(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)] == wanted


def write_and_check(call: Callable[[QueueWriter, list[Given]], None], some: list[Given]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="chronicle-roundtrip-"))
    try:
        with Queue.open_publisher(directory / "queue", segment_size=SEGMENT, keeper=False) as writer:
            call(writer, some)
        check(directory / "queue", [Message(seq, *one) for seq, one in enumerate(some)])
    finally:
        shutil.rmtree(directory)


@given(how=st.sampled_from(list(WRITERS)), some=records)
def test_any_records(how: str, some: list[Given]) -> None:
    write_and_check(WRITERS[how], some)


@given(how=st.sampled_from([*WRITERS, *ROW_WRITERS]), some=rows)
def test_records_of_one_length(how: str, some: list[Given]) -> None:
    write_and_check((WRITERS | ROW_WRITERS)[how], some)
