# SPDX-License-Identifier: MIT
"""One rule for arguments, whichever call takes them, and for what a failure is."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, QueueReader, QueueWriter, Retention
from tests.interop import need

NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
NOON_NS = 1_714_564_800_000_000_000
LAST_NS = (1 << 64) - 2  # in the year 2554; one more says "now"


class Both:
    """A writer, and a reader of the same queue."""

    def __init__(self, path: Path, writer: QueueWriter, reader: QueueReader) -> None:
        self.path = path
        self.writer = writer
        self.reader = reader

    def claim(self, size: Any = 1, **options: Any) -> int:
        with self.writer.claim(size, **options):
            return self.writer.next_seq


@pytest.fixture
def both(queue: Path) -> Iterator[Both]:
    with Queue.open_publisher(queue, segment_size=1 << 16) as writer:
        writer.append_many([b"x"] * 20, timestamp_ns=NOON_NS)
        with Queue.open_subscriber(queue, "me") as reader:
            yield Both(queue, writer, reader)


class Seven:
    """A number as those of numpy are one: by __index__ alone."""

    def __index__(self) -> int:
        return 7


# Each takes a whole number, in one argument: its name, and the call.
NUMBERS: dict[str, Callable[[Both, Any], object]] = {
    "append type_id": lambda b, n: b.writer.append(b"x", n),
    "append flags": lambda b, n: b.writer.append(b"x", flags=n),
    "append timestamp_ns": lambda b, n: b.writer.append(b"x", timestamp_ns=n),
    "append_many type_id": lambda b, n: b.writer.append_many([b"x"], n),
    "append_many flags": lambda b, n: b.writer.append_many([b"x"], flags=n),
    "append_many timestamp_ns": lambda b, n: b.writer.append_many([b"x"], timestamp_ns=n),
    "append_many type_id each": lambda b, n: b.writer.append_many([b"x"], [n]),
    "append_many timestamp_ns each": lambda b, n: b.writer.append_many([b"x"], timestamp_ns=[n]),
    "append_array row_bytes": lambda b, n: b.writer.append_array(bytes(14), row_bytes=n),
    "append_array type_id": lambda b, n: b.writer.append_array(bytes(14), n, row_bytes=7),
    "claim size": lambda b, n: b.claim(n),
    "claim type_id": lambda b, n: b.claim(type_id=n),
    "claim timestamp_ns": lambda b, n: b.claim(timestamp_ns=n),
    "claim flags": lambda b, n: b.claim(flags=n),
    "wait_durable seq": lambda b, n: asyncio.run(b.writer.wait_durable(n)),
    "seek seq": lambda b, n: b.reader.seek(n),
    "seek_time when": lambda b, n: b.reader.seek_time(n),
    "read_batch max_records": lambda b, n: b.reader.read_batch(n),
    "open_subscriber start": lambda b, n: Queue.open_subscriber(b.path, start=n).close(),
    "scan start": lambda b, n: Queue.scan(b.path, start=n),
    "scan stop": lambda b, n: Queue.scan(b.path, stop=n),
    "scan batch_records": lambda b, n: Queue.scan(b.path, batch_records=n),
    "Retention max_segments": lambda b, n: Queue.cleanup_plan(b.path, Retention(max_segments=n)),
    "Retention max_bytes": lambda b, n: Queue.cleanup_plan(b.path, Retention(max_bytes=n)),
    "Retention max_reader_lag": lambda b, n: Queue.cleanup_plan(b.path, Retention(max_reader_lag=n)),
}


@pytest.mark.parametrize("call", NUMBERS)
def test_whole_numbers(both: Both, call: str) -> None:
    NUMBERS[call](both, 7)
    NUMBERS[call](both, Seven())
    argument = call.split()[1]
    before = both.writer.next_seq
    for odd in (7.0, Decimal(7), Fraction(7)):
        with pytest.raises(c.WrongType, match=argument) as caught:
            NUMBERS[call](both, odd)
        assert isinstance(caught.value, TypeError)
    for wrong in ("7", -1, 1 << 64, -(1 << 70)):
        with pytest.raises(c.InvalidArgument, match=argument):
            NUMBERS[call](both, wrong)
    assert both.writer.next_seq == before


@pytest.mark.parametrize("call", NUMBERS)
def test_numbers_of_numpy(both: Both, call: str) -> None:
    np = need("numpy")
    for right in (np.uint64(7), np.int32(7), np.uint8(7)):
        NUMBERS[call](both, right)
    for wrong in (np.float32(7), np.float64(7.5), np.timedelta64(7, "ns")):
        with pytest.raises(c.InvalidArgument, match=call.split()[1]):
            NUMBERS[call](both, wrong)


# Each takes a time, and says which seq or time came of it.
TIMES: dict[str, Callable[[Both, Any], object]] = {
    "append timestamp_ns": lambda b, t: stamp(b, b.writer.append(b"x", timestamp_ns=t)),
    "append bytearray timestamp_ns": lambda b, t: stamp(b, b.writer.append(bytearray(b"x"), timestamp_ns=t)),
    "append_many timestamp_ns": lambda b, t: stamp(b, b.writer.append_many([b"x"], timestamp_ns=t)[0]),
    "append_many timestamp_ns each": lambda b, t: stamp(b, b.writer.append_many([b"x"] * 2, timestamp_ns=[t, t])[0]),
    "append_array timestamp_ns": lambda b, t: stamp(b, b.writer.append_array(b"x", row_bytes=1, timestamp_ns=t)[0]),
    "claim timestamp_ns": lambda b, t: stamp(b, b.claim(timestamp_ns=t)),
    "seek_time when": lambda b, t: b.reader.seek_time(t),
}
PLACES: dict[str, Callable[[Both, Any], object]] = {
    "open_subscriber start": lambda b, t: Queue.open_subscriber(b.path, start=t).close(),
    "scan start": lambda b, t: Queue.scan(b.path, start=t),
    "scan stop": lambda b, t: Queue.scan(b.path, stop=t),
}


WHEN: dict[str, Callable[[Both, Any], object]] = {**TIMES, **PLACES}


def stamp(both: Both, seq: int) -> int:
    both.reader.seek(seq)
    message = both.reader.next()
    assert message is not None
    return message.timestamp_ns


@pytest.mark.parametrize("call", WHEN)
def test_times(both: Both, call: str) -> None:
    argument = call.replace(" each", "").split()[-1]
    use = WHEN[call]
    naive = NOON.astimezone().replace(tzinfo=None)
    for right in (NOON, naive, NOON.astimezone(timezone(timedelta(hours=5)))):
        assert use(both, right) in (NOON_NS, None) or call in PLACES
    first = datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert use(both, first) in (0, None) or call in PLACES
    before = both.writer.next_seq
    for wrong in (
        first - timedelta(microseconds=1),
        datetime(2555, 1, 1, tzinfo=timezone.utc),
        datetime.min,
        datetime.max,
    ):
        with pytest.raises(c.InvalidArgument, match=f"{argument} is .*1970-01-01 to 2554"):
            use(both, wrong)
    for odd in (date(2024, 5, 1), "2024-05-01", timedelta(1)):
        with pytest.raises(c.InvalidArgument, match=argument):
            use(both, odd)
    assert both.writer.next_seq == before


@pytest.mark.parametrize("call", WHEN)
@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns", "30m"])
def test_times_of_numpy(both: Both, call: str, unit: str) -> None:
    np = need("numpy")
    argument = call.replace(" each", "").split()[-1]
    use = WHEN[call]
    noon = np.datetime64("2024-05-01T12:00").astype(f"M8[{unit}]")
    assert use(both, noon) in (NOON_NS, None) or call in PLACES
    for wrong in (np.datetime64("NaT", unit), np.datetime64(-1, unit)):
        with pytest.raises(c.InvalidArgument, match=f"{argument} is .*1970-01-01 to 2554"):
            use(both, wrong)


def test_columns_of_times(both: Both) -> None:
    """Of any unit, and beyond 2262, where numpy's own conversion to nanoseconds gives another year."""
    np = need("numpy")
    late = int((datetime(2500, 1, 1, tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
    for unit in ("Y", "M", "D", "h", "s", "ms", "us"):
        seq, _ = both.writer.append_many([b"x"], timestamp_ns=np.array(["2500-01-01"], f"M8[{unit}]"))
        assert stamp(both, seq) == late * 10**9
    seq, _ = both.writer.append_many([b"x"] * 2, timestamp_ns=np.array([3, (1 << 63) - 1], "M8[ns]"))
    assert (stamp(both, seq), stamp(both, seq + 1)) == (3, (1 << 63) - 1)
    for wrong in ("2555-01-01", "1969-12-31", "NaT", "9999-01-01"):
        with pytest.raises(c.InvalidArgument, match="timestamp_ns is .*1970-01-01 to 2554"):
            both.writer.append_many([b"x"] * 2, timestamp_ns=np.array(["2024-01-01", wrong], "M8[D]"))
    with pytest.raises(c.InvalidArgument, match="unit ps"):
        both.writer.append_many([b"x"], timestamp_ns=np.array([3], "M8[ps]"))


def test_times_of_pandas_keep_their_nanoseconds(both: Both) -> None:
    pd = need("pandas")
    assert stamp(both, both.writer.append(b"x", timestamp_ns=pd.Timestamp(NOON_NS + 123, tz="UTC"))) == NOON_NS + 123


def test_the_first_and_the_last_time(both: Both) -> None:
    for ns in (0, LAST_NS):
        assert stamp(both, both.writer.append(b"x", timestamp_ns=ns)) == ns
        assert stamp(both, both.writer.append(bytearray(b"x"), timestamp_ns=ns)) == ns
    for data in (b"x", bytearray(b"x")):
        with pytest.raises(c.InvalidArgument, match="timestamp_ns"):
            both.writer.append(data, timestamp_ns=LAST_NS + 1)


def test_what_arrow_cannot_say_is_an_error(both: Both) -> None:
    pa = need("pyarrow")
    both.writer.append(b"x", timestamp_ns=(1 << 63) - 1)
    table = pa.RecordBatchReader.from_batches(*arrow(both.path)).read_all()
    assert table["timestamp"].cast(pa.int64())[-1].as_py() == (1 << 63) - 1
    both.writer.append(b"x", timestamp_ns=1 << 63)
    with pytest.raises(c.InvalidArgument, match="2262"):
        arrow(both.path)
    for batch in Queue.scan(both.path):
        assert batch.timestamp_ns[-1] == 1 << 63


def arrow(path: Path) -> tuple[Any, list[Any]]:
    batches = [batch.to_arrow() for batch in Queue.scan(path)]
    return batches[0].schema, batches


DURATIONS: dict[str, Callable[[Both, Any], object]] = {
    "wait timeout": lambda b, s: b.reader.wait(s),
    "wait_async timeout": lambda b, s: asyncio.run(b.reader.wait_async(s)),
    "next_async timeout": lambda b, s: asyncio.run(b.reader.next_async(s)),
    "follow timeout": lambda b, s: list(b.reader.follow(s)),
    "open_subscriber wait": lambda b, s: Queue.open_subscriber(b.path, wait=s).close(),
}


@pytest.mark.parametrize("call", DURATIONS)
def test_durations(both: Both, call: str) -> None:
    both.reader.seek_latest()
    for right in (0, 0.001, Decimal("0.001"), Fraction(1, 1000), timedelta(milliseconds=1), -1, -0.5, timedelta(-1)):
        assert not DURATIONS[call](both, right)
    argument = call.split()[1]
    with pytest.raises(c.InvalidArgument, match=f"{argument} is nan"):
        DURATIONS[call](both, float("nan"))
    for wrong in ("1", b"1", [1], 1j):
        with pytest.raises(c.WrongType, match=argument):
            DURATIONS[call](both, wrong)


def test_durations_of_numpy(both: Both) -> None:
    np = need("numpy")
    both.reader.seek_latest()
    assert both.reader.wait(np.float32(0.001)) is False
    with pytest.raises(c.WrongType, match="timeout"):
        both.reader.wait(np.timedelta64(1, "ns"))


# --------------------------------------------------------------------------------------- names, paths


def test_names(both: Both) -> None:
    """None of these is taken for another name, as the part in front of a NUL once was."""
    for wrong in ("me\0x", "me\0", "\0"):
        for use in (Queue.remove_reader, Queue.open_subscriber):
            with pytest.raises(c.InvalidArgument, match="NUL"):
                use(both.path, wrong)
    for odd in (b"me", 7, ["me"]):
        for use in (Queue.remove_reader, Queue.open_subscriber):
            with pytest.raises(c.WrongType, match="name"):
                use(both.path, odd)  # type: ignore[arg-type, call-overload]
    assert [reader.name for reader in Queue.readers(both.path)] == ["me"]


def test_paths(both: Both) -> None:
    encoded: Any = os.fsencode(both.path)
    for right in (str(both.path), encoded, both.path):
        with Queue.open_subscriber(right) as reader:
            assert reader.path == str(both.path)
        assert Queue.info(right).next_seq == 20
    calls: list[Callable[[Any], object]] = [
        Queue.open_subscriber,
        Queue.open_publisher,
        Queue.info,
        Queue.verify,
        Queue.scan,
    ]
    for use in calls:
        with pytest.raises(c.InvalidArgument, match="NUL"):
            use(f"{both.path}\0x")
        for wrong in (7, None, 1.5):
            with pytest.raises(c.WrongType, match="path"):
                use(wrong)


def test_no_references_to_objects_are_stored(both: Both) -> None:
    np = need("numpy")
    objects = np.array([1, "a"], dtype=object)
    for call in (both.writer.append, both.writer.append_array, lambda rows: both.writer.append_many([rows])):
        with pytest.raises(c.InvalidArgument, match="references"):
            call(objects)
    assert both.writer.next_seq == 20


@pytest.mark.parametrize("wrong", [5, None, 1.5, object()])
def test_a_payload_that_is_none(both: Both, wrong: Any) -> None:
    for call in (both.writer.append, lambda data: both.writer.append_many([data])):
        with pytest.raises(c.WrongType, match="a payload is bytes or another buffer"):
            call(wrong)


def test_released_and_scattered_payloads(both: Both) -> None:
    released = memoryview(b"abc")
    released.release()
    for wrong in (released, memoryview(b"abcdef")[::2]):
        for call in (both.writer.append, lambda data: both.writer.append_many([data])):
            with pytest.raises(c.InvalidArgument, match="payload"):
                call(wrong)


# --------------------------------------------------------------------------------------------- errors


def test_errno_is_set(both: Both, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Queue.open_subscriber(tmp_path / "nowhere")
    assert (missing.value.errno, missing.value.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    with pytest.raises(BlockingIOError) as active:
        Queue.open_publisher(both.path)
    assert active.value.errno == errno.EAGAIN
    with pytest.raises(PermissionError) as unnamed, Queue.open_subscriber(both.path) as anyone:
        anyone.commit()
    assert unnamed.value.errno == errno.EPERM
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as system:
        Queue.open_publisher(tmp_path / "file" / "q")
    assert system.value.errno == errno.ENOTDIR


def test_a_missing_parent_is_told(tmp_path: Path) -> None:
    with pytest.raises(c.QueueNotFound, match="directory that it would lie in"):
        Queue.open_publisher(tmp_path / "no" / "q")


def test_waiting_for_the_disk_takes_too_long(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever catches the library's failures catches this, too."""

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(QueueWriter, "_until", never)
    seq = both.writer.append(b"x")
    with pytest.raises(c.TimedOut) as caught:
        asyncio.run(both.writer.wait_durable(timeout=0))
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.seq, caught.value.errno) == (seq, errno.ETIMEDOUT)


def test_a_busy_handle_advises_what_can_be_done(queue: Path) -> None:
    """A writer cannot be opened a second time, whatever the number of threads."""

    def fill() -> None:
        while True:
            with suppress(c.ConcurrentUse):
                writer.append(bytes(10_000))

    with Queue.open_publisher(queue, segment_size=1 << 16, max_segments=2, backpressure=0.3, keeper=False) as writer:
        with ThreadPoolExecutor(1) as pool:
            filling = pool.submit(fill)
            with pytest.raises(c.ConcurrentUse, match="a queue has one, so take a lock around it"):
                while not filling.done():
                    writer.sync()
            assert isinstance(filling.exception(), c.QueueFull)
        with Queue.open_subscriber(queue, start="latest") as reader, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(reader.wait, 0.3)
            with pytest.raises(c.ConcurrentUse, match="give each thread its own handle"):
                while not waiting.done():
                    reader.wait(0)
