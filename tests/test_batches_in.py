# SPDX-License-Identifier: MIT
"""Many records with one call: append_many, append_array, append_buffer; what is refused, and what stays if one fails.

Without numpy and pyarrow: with those, tests/test_numpy.py and tests/test_arrow.py.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Message, Queue, QueueWriter

SEGMENT = 1 << 16


@pytest.fixture
def writer(queue: Path) -> Iterator[QueueWriter]:
    """On small segments; at the end everything has to verify."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        yield writer
    report = Queue.verify(queue)
    assert report.ok, report.problems


def stored(writer: QueueWriter) -> list[Message]:
    with Queue.open_subscriber(writer.path) as reader:
        return list(reader)


def payloads(writer: QueueWriter) -> list[bytes]:
    return [message.payload for message in stored(writer)]


# --------------------------------------------------------------------------------------- append_many


def test_many_of_all_kinds_of_buffers(writer: QueueWriter) -> None:
    table = memoryview(b"abcdef").cast("B", (2, 3))
    given: list[Any] = [b"", b"bytes", bytearray(b"array"), memoryview(b"xviewx")[1:5], array("I", [1, 2]), table, b""]
    assert writer.append_many(given, 3, timestamp_ns=9, flags=4) == (0, 7)
    wanted = [b"", b"bytes", b"array", b"view", array("I", [1, 2]).tobytes(), b"abcdef", b""]
    assert stored(writer) == [Message(i, 9, 3, 4, payload) for i, payload in enumerate(wanted)]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("given", [[], (), iter(()), {}, b""])
def test_many_of_none(writer: QueueWriter, given: Any, atomic: bool) -> None:
    writer.append(b"x")
    assert writer.append_many(given, atomic=atomic) == (1, 0)
    assert writer.next_seq == 1


def test_many_with_columns(writer: QueueWriter) -> None:
    given = [b"%d" % i for i in range(5000)]
    stamps = array("Q", range(7, 5007))
    types = [i % 0xFFFF for i in range(5000)]
    flags = bytes(i % 256 for i in range(5000))
    for atomic in (False, True):
        some = slice(None, 300 if atomic else None)
        count = len(given[some])
        first = writer.next_seq
        made = writer.append_many(
            iter(given[some]), types[some], timestamp_ns=stamps[some], flags=flags[some], atomic=atomic
        )
        assert made == (first, count)
        rows = zip(range(first, first + count), stamps, types, flags, given, strict=False)
        assert stored(writer)[first:] == list(map(Message._make, rows))


def test_the_clock_is_read_for_what_has_no_time(writer: QueueWriter) -> None:
    now = writer.append(b"") or stored(writer)[0].timestamp_ns
    no_time = 0xFFFF_FFFF_FFFF_FFFF
    writer.append_many([b"", b"", b""], timestamp_ns=[5, no_time, 6])
    writer.append_many([b"", b""])
    stamps = [message.timestamp_ns for message in stored(writer)[1:]]
    assert (stamps[0], stamps[2]) == (5, 6)
    assert now <= stamps[1] <= stamps[3] == stamps[4]


class Broken(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 100, 4096, 5000])
@pytest.mark.parametrize("wrong", ["raises", "text", 7, None, memoryview(b"abcd")[::2]])
def test_what_came_before_a_failure_stays(writer: QueueWriter, at: int, wrong: object) -> None:
    def source() -> Iterator[Any]:
        for i in range(at):
            yield b"%d" % i
        if wrong == "raises":
            raise Broken
        yield wrong
        yield b"after"

    with pytest.raises(Broken if wrong == "raises" else (TypeError, ValueError)):
        writer.append_many(source())
    assert writer.next_seq == at
    assert payloads(writer) == [b"%d" % i for i in range(at)]


@pytest.mark.parametrize("how", [{"atomic": True}, {"type_id": [1] * 6000}])
def test_what_is_consumed_first_leaves_nothing_if_it_fails(writer: QueueWriter, how: dict[str, Any]) -> None:
    def source() -> Iterator[bytes]:
        yield from [b"x"] * 5000
        raise Broken

    with pytest.raises(Broken):
        writer.append_many(source(), **how)
    assert writer.next_seq == 0


@pytest.mark.parametrize(("size", "ahead_max"), [(0, 4096), (100, 4096), (40_000, 32), (57_000, 32)])
def test_an_iterable_is_not_taken_far_ahead(writer: QueueWriter, size: int, ahead_max: int) -> None:
    ahead = []

    def source() -> Iterator[bytes]:
        for i in range(10_000 if size < 1000 else 100):
            ahead.append(i - writer.next_seq)
            yield bytes(size)

    assert writer.append_many(source())[1] == len(ahead)
    assert max(ahead) <= ahead_max


def test_a_record_too_large_in_the_middle(writer: QueueWriter) -> None:
    given = [b"a", b"b", bytes(SEGMENT), b"c"]
    with pytest.raises(c.PayloadTooLarge):
        writer.append_many(given)
    assert writer.next_seq == 2
    with pytest.raises(c.PayloadTooLarge):
        writer.append_many(given, atomic=True)
    with pytest.raises(c.PayloadTooLarge):
        writer.append_buffer(b"".join(given), [0, 1, 2, 2 + SEGMENT, 3 + SEGMENT])
    assert writer.next_seq == 4
    with pytest.raises(c.PayloadTooLarge):
        writer.append_array(memoryview(bytes(2 * SEGMENT)), row_bytes=SEGMENT)
    assert writer.append(b"d") == 4
    assert payloads(writer) == [b"a", b"b", b"a", b"b", b"d"]


def test_a_batch_that_is_larger_than_a_segment(writer: QueueWriter) -> None:
    given = [bytes([i]) * 1000 for i in range(100)]
    with pytest.raises(c.PayloadTooLarge):
        writer.append_many(given, atomic=True)
    assert writer.next_seq == 0
    assert writer.append_many(given) == (0, 100)
    assert payloads(writer) == given


def test_a_reserved_type_in_the_middle(writer: QueueWriter) -> None:
    with pytest.raises(c.InvalidArgument):
        writer.append_many([b"a", b"b", b"c"], [1, 0xFFFF, 1])
    assert writer.next_seq == 1
    with pytest.raises(c.InvalidArgument):
        writer.append_many([b"a", b"b", b"c"], [1, 0xFFFF, 1], atomic=True)
    assert writer.next_seq == 1


def test_closed(queue: Path) -> None:
    writer = Queue.open_publisher(queue, keeper=False)
    writer.close()
    given = iter([b"x"])
    for atomic in (False, True):
        with pytest.raises(c.ClosedHandle):
            writer.append_many(given, atomic=atomic)
        with pytest.raises(c.ClosedHandle):
            writer.append_array(array("d", [1.0]), atomic=atomic)
    assert next(given) == b"x"


# ------------------------------------------------------------------------------------------- columns

U64: Any = ctypes.c_uint64
THREE_U64: Any = ctypes.c_uint64 * 3

REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"timestamp_ns": array("d", [1, 2, 3])}, c.InvalidArgument),  # would be read as other numbers
    ({"timestamp_ns": array("I", [1, 2, 3])}, c.InvalidArgument),
    ({"timestamp_ns": (U64.__ctype_be__ * 3)(1, 2, 3)}, c.InvalidArgument),
    ({"timestamp_ns": bytes(24)}, c.InvalidArgument),
    ({"timestamp_ns": array("q", [1, -1, 3])}, c.InvalidArgument),
    ({"timestamp_ns": array("Q", [1, 2])}, c.InvalidArgument),
    ({"timestamp_ns": array("Q", [1, 2, 3, 4])}, c.InvalidArgument),
    ({"timestamp_ns": memoryview(array("Q", range(3))).cast("B").cast("Q", (3, 1))}, c.InvalidArgument),
    ({"timestamp_ns": [1, 2, -3]}, c.InvalidArgument),
    ({"timestamp_ns": 1.5}, TypeError),
    ({"timestamp_ns": "123"}, TypeError),
    ({"type_id": array("h", [1, 2, 3])}, c.InvalidArgument),
    ({"type_id": array("Q", [1, 2, 3])}, c.InvalidArgument),
    ({"type_id": [1, 2, 0x10000]}, c.InvalidArgument),
    ({"type_id": [1, 2]}, c.InvalidArgument),
    ({"type_id": None}, TypeError),
    ({"type_id": [1, 2, "3"]}, TypeError),
    ({"flags": array("b", [1, 2, 3])}, c.InvalidArgument),
    ({"flags": b"12"}, c.InvalidArgument),
    ({"flags": [1, 2, 256]}, c.InvalidArgument),
]


@pytest.mark.parametrize(("columns", "error"), REFUSED)
@pytest.mark.parametrize("atomic", [False, True])
def test_columns_that_are_refused(
    writer: QueueWriter, columns: dict[str, Any], error: type[Exception], atomic: bool
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: writer.append_many([b"a", b"b", b"c"], atomic=atomic, **columns),
        lambda: writer.append_buffer(b"abc", [0, 1, 2, 3], atomic=atomic, **columns),
        lambda: writer.append_array(array("d", [1, 2, 3]), atomic=atomic, **columns),
    ]
    for call in calls:
        with pytest.raises(error):
            call()
    assert writer.next_seq == 0


def unaligned(values: array[int]) -> Any:
    held = memoryview(bytearray(b"x" + values.tobytes()))[1:]
    typecode: Any = values.typecode
    return held.cast(typecode)


@pytest.mark.parametrize(
    "stamps",
    [
        [3, 1, 2],
        (3, 1, 2),
        array("Q", [3, 1, 2]),
        array("q", [3, 1, 2]),
        memoryview(array("Q", [0, 3, 1, 2, 0]))[1:4],
        THREE_U64(3, 1, 2),
        unaligned(array("Q", [3, 1, 2])),
        memoryview(array("Q", [3, 0, 1, 0, 2]))[::2],
    ],
)
def test_columns_that_are_taken(writer: QueueWriter, stamps: Any) -> None:
    writer.append_many([b"a", b"b", b"c"], array("H", [5, 6, 7]), timestamp_ns=stamps, flags=b"\1\2\3")
    writer.append_many([b"a", b"b", b"c"], range(5, 8), timestamp_ns=stamps, flags=bytearray(b"\1\2\3"), atomic=True)
    wanted = [(3, 5, 1, b"a"), (1, 6, 2, b"b"), (2, 7, 3, b"c")]
    assert [message[1:] for message in stored(writer)] == wanted * 2


# -------------------------------------------------------------------------- append_array, append_buffer


@pytest.mark.parametrize("atomic", [False, True])
def test_rows(writer: QueueWriter, atomic: bool) -> None:
    table = memoryview(b"abcdefghijkl").cast("B", (4, 3))
    assert writer.append_array(table, 1, atomic=atomic) == (0, 4)
    assert writer.append_array(b"abcdef", row_bytes=2, atomic=atomic) == (4, 3)
    assert writer.append_array(array("H", [1, 2]), atomic=atomic) == (7, 2)  # each element a record
    assert writer.append_array(array("H", [1, 2]), row_bytes=4, atomic=atomic) == (9, 1)
    assert writer.append_array(memoryview(bytes(8)).cast("B", (1, 2, 4)), atomic=atomic) == (10, 1)
    assert writer.append_array(b"", row_bytes=4, atomic=atomic) == (11, 0)
    assert writer.append_array(array("d"), atomic=atomic) == (11, 0)
    one, two = (array("H", [i]).tobytes() for i in (1, 2))
    wanted = [b"abc", b"def", b"ghi", b"jkl", b"ab", b"cd", b"ef", one, two, one + two, bytes(8)]
    assert payloads(writer) == wanted


@pytest.mark.parametrize(
    ("rows", "row_bytes", "error"),
    [
        (b"abcdef", None, c.InvalidArgument),  # how long is a record?
        (b"abcdef", 4, c.InvalidArgument),
        (b"abcdef", 0, c.InvalidArgument),
        (b"abcdef", -2, c.InvalidArgument),
        (b"abcdef", 1.5, TypeError),
        (b"", 1 << 40, c.PayloadTooLarge),
        (U64(1), None, c.InvalidArgument),
        (memoryview(array("H", range(8)))[::2], None, c.InvalidArgument),
        ("text", 2, TypeError),
        ([b"a", b"b"], None, TypeError),
    ],
)
def test_rows_that_are_refused(writer: QueueWriter, rows: Any, row_bytes: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        writer.append_array(rows, row_bytes=row_bytes)
    assert writer.next_seq == 0


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", ["I", "i", "Q", "q"])
def test_buffers(writer: QueueWriter, kind: str, atomic: bool) -> None:
    data = bytearray(b"xxabbccc")
    assert writer.append_buffer(data, array(kind, [2, 3, 5, 5, 8]), atomic=atomic) == (0, 4)
    assert writer.append_buffer(memoryview(data), unaligned(array(kind, [0, 8])), atomic=atomic) == (4, 1)
    assert writer.append_buffer(data, array(kind, [8]), atomic=atomic) == (5, 0)
    assert writer.append_buffer(b"", array(kind, [0, 0]), atomic=atomic) == (5, 1)
    data.append(0)  # nothing holds it any more
    assert payloads(writer) == [b"a", b"bb", b"", b"ccc", b"xxabbccc", b""]


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        (array("Q"), c.InvalidArgument),
        (array("Q", [0, 2, 1]), c.InvalidArgument),
        (array("Q", [0, 2, 4]), c.InvalidArgument),
        (array("q", [-1, 2, 3]), c.InvalidArgument),
        (array("i", [0, -1]), c.InvalidArgument),
        (array("Q", [0, 1 << 63]), c.InvalidArgument),
        (array("d", [0, 1]), c.InvalidArgument),
        (array("H", [0, 1]), c.InvalidArgument),
        (memoryview(array("Q", [0, 9, 4, 9]))[::2], c.InvalidArgument),
        (b"\0\1", c.InvalidArgument),
        (5, TypeError),
    ],
)
@pytest.mark.parametrize("atomic", [False, True])
def test_offsets_that_are_refused(writer: QueueWriter, offsets: Any, error: type[Exception], atomic: bool) -> None:
    with pytest.raises(error):
        writer.append_buffer(b"abc", offsets, atomic=atomic)
    assert writer.next_seq == 0


def test_an_array_that_another_thread_changes(writer: QueueWriter) -> None:
    """C reads without the GIL. Whatever it sees, nothing is read out of bounds, and the log stays whole."""
    count = 500
    right = array("Q", range(0, 8 * (count + 1), 8))
    offsets = array("Q", right)
    data = bytes(range(256)) * (8 * count // 256 + 1)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for value in (0, 8 * count, 1 << 62):
                offsets[count // 2] = value
            offsets[:] = right

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for i in range(100):
            first = writer.next_seq
            try:
                writer.append_buffer(data, offsets, timestamp_ns=i, atomic=i % 2 == 0)
            except (c.InvalidArgument, c.PayloadTooLarge):
                assert i % 2 or writer.next_seq == first
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.append(memoryview(bytes(2 * SEGMENT))),
        lambda writer: writer.append_many([b"x"], memoryview(array("H", [0xFFFF]))),
        lambda writer: writer.append_many([b"x"], timestamp_ns=memoryview(array("Q", [1, 2]))),
        lambda writer: writer.append_array(memoryview(bytes(2 * SEGMENT)), row_bytes=2 * SEGMENT),
        lambda writer: writer.append_buffer(memoryview(b"abc"), memoryview(array("Q", [0, 9]))),
    ],
)
def test_buffers_are_given_back_when_a_call_fails(writer: QueueWriter, call: Callable[[QueueWriter], Any]) -> None:
    """With CPython 3.11 the collector crashed on a cycle of an exception, its frames, and a view that was lent."""
    for _ in range(20):
        with pytest.raises(ValueError) as caught:
            call(writer)
        caught.value.args = (caught.value,)
        del caught
        gc.collect()


# -------------------------------------------------------------------------------------- back-pressure


def fill_calls(writer: QueueWriter, given: list[bytes]) -> list[Callable[[], tuple[int, int]]]:
    joined = b"".join(given)
    size = len(given[0])
    return [
        lambda: writer.append_many(given),
        lambda: writer.append_many(iter(given), [1] * len(given)),
        lambda: writer.append_array(joined, row_bytes=size),
        lambda: writer.append_buffer(joined, range(0, len(joined) + 1, size)),
    ]


@pytest.mark.parametrize("which", range(4))
def test_full_in_the_middle(queue: Path, which: int) -> None:
    given = [b"%06d" % i + bytes(994) for i in range(300)]
    with Queue.open_publisher(queue, segment_size=SEGMENT, max_segments=2, keeper=False) as writer:
        with Queue.open_subscriber(queue, "slow") as reader:
            with pytest.raises(c.QueueFull):
                fill_calls(writer, given)[which]()
            done = writer.next_seq
            assert 60 < done < 300
            read = [message.payload for message in reader]
            assert read == given[:done]
            reader.commit()
            rest = given[done : done + 60]
            assert fill_calls(writer, rest)[which]() == (done, 60)
            assert list(reader.payloads()) == rest


@pytest.mark.parametrize("which", range(4))
def test_full_in_the_middle_waits_for_a_reader(queue: Path, which: int) -> None:
    given = [b"%06d" % i + bytes(994) for i in range(600)]
    read: list[bytes] = []
    with Queue.open_publisher(queue, segment_size=SEGMENT, max_segments=2, backpressure=60.0, keeper=False) as writer:
        reader = Queue.open_subscriber(queue, "slow")

        def consume() -> None:
            with reader:
                for message in reader.follow(timeout=60.0):
                    read.append(message.payload)
                    if len(read) % 20 == 0 or len(read) == len(given):
                        reader.commit()
                    if len(read) == len(given):
                        return

        thread = threading.Thread(target=consume)
        thread.start()
        assert fill_calls(writer, given)[which]() == (0, 600)
        thread.join()
        assert writer.stats().full_waits > 0
    assert read == given


def test_a_whole_batch_waits_as_a_whole(queue: Path) -> None:
    given = [bytes([i]) * 1000 for i in range(50)]
    with Queue.open_publisher(queue, segment_size=SEGMENT, max_segments=2, keeper=False) as writer:
        with Queue.open_subscriber(queue, "slow") as reader:
            for first in (0, 50):
                assert writer.append_many(given, atomic=True) == (first, 50)
            with pytest.raises(c.QueueFull):
                writer.append_many(given, atomic=True)
            assert writer.next_seq == 100
            assert list(reader.payloads()) == given * 2
            reader.commit()
            assert writer.append_many(given, atomic=True) == (100, 50)
            assert list(reader.payloads()) == given
