# SPDX-License-Identifier: MIT
"""QueueWriter: appends of all kinds, claims, durability, back-pressure, cleanup."""

from __future__ import annotations

import array
import enum
import gc
import pickle
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, Retention

SEGMENT = 1 << 16


def payloads(path: Path) -> list[bytes]:
    with Queue.open_subscriber(path) as reader:
        return [message.payload for message in reader]


def test_numbers_of_an_enum_take_the_short_way(queue: Path) -> None:
    class Kind(enum.IntEnum):
        BID = 7

    with Queue.open_publisher(queue) as writer:
        writer.append(b"prepares pages")
        assert writer._try_append(b"x", Kind.BID, None, Kind.BID) == 1
    with Queue.open_subscriber(queue, start=1) as reader:
        message = reader.next()
        assert message is not None
        assert (message.type_id, message.flags) == (7, 7)


def test_append_returns_dense_seqs_and_keeps_everything(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        assert writer.append(b"one", 7, timestamp_ns=123, flags=255) == 0
        assert writer.append(b"") == 1
        assert writer.next_seq == 2
    with Queue.open_subscriber(queue) as reader:
        assert reader.next() == (0, 123, 7, 255, b"one")
        second = reader.next()
        assert second is not None
        assert (second.seq, second.type_id, second.flags, second.payload) == (1, 0, 0, b"")
        assert abs(second.timestamp_ns - time.time_ns()) < 60 * 10**9
        assert reader.next() is None


@pytest.mark.parametrize(
    "data", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xabcx")[1:4], array.array("B", b"abc")]
)
def test_append_takes_any_contiguous_buffer(queue: Path, data: object) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append(data)  # type: ignore[arg-type]
        writer.append_many([data])  # type: ignore[list-item]
        writer.append_many([data], atomic=True)  # type: ignore[list-item]
    assert payloads(queue) == [b"abc"] * 3


def test_a_buffer_of_larger_items_counts_in_bytes(queue: Path) -> None:
    numbers = array.array("I", [1, 2, 3])
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append(numbers)
        writer.append_many([numbers, numbers])
        writer.append_many([numbers], atomic=True)
    assert payloads(queue) == [numbers.tobytes()] * 4


@pytest.mark.parametrize("wrong", ["text", 7, None, memoryview(b"abcdef")[::2]])
def test_what_is_no_contiguous_buffer_is_refused(queue: Path, wrong: object) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        for call in (writer.append, lambda x: writer.append_many([x], atomic=True)):
            with pytest.raises((TypeError, BufferError, ValueError)):
                call(wrong)  # type: ignore[arg-type]
        assert writer.next_seq == 0


def test_str_is_refused_and_told_what_to_do(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises(TypeError, match="encode"):
            writer.append("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="encode"):
            writer.append_many([b"good", "text"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="encode"):
            writer.append_many(["text"], atomic=True)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"type_id": 0xFFFF}, c.InvalidArgument),
        ({"type_id": 0x10000}, c.InvalidArgument),
        ({"type_id": -1}, c.InvalidArgument),
        ({"flags": 256}, c.InvalidArgument),
        ({"timestamp_ns": -1}, c.InvalidArgument),
        ({"timestamp_ns": 1 << 64}, c.InvalidArgument),
    ],
)
def test_ranges_of_arguments(queue: Path, arguments: dict[str, Any], error: type[Exception]) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises(error):
            writer.append(b"x", **arguments)
        with pytest.raises(error):
            writer.append_many([b"x"], **arguments)
        assert writer.next_seq == 0


def test_append_many_returns_first_and_count(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        assert writer.append_many([]) == (0, 0)
        assert writer.append_many((str(i).encode() for i in range(20_000)), 3, timestamp_ns=5) == (0, 20_000)
        assert writer.append_many([b"x" * 50_000] * 100) == (20_000, 100)
        assert writer.stats().rolls > 100
    with Queue.open_subscriber(queue) as reader:
        for i in range(20_000):
            assert reader.next() == (i, 5, 3, 0, str(i).encode())
        assert [message.payload for message in reader] == [b"x" * 50_000] * 100


def test_append_many_keeps_what_came_before_a_failure(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        with pytest.raises(c.PayloadTooLarge):
            writer.append_many([b"a", b"b", b"x" * SEGMENT, b"never"])
        assert writer.next_seq == 2

        def breaks() -> object:
            yield b"c"
            raise RuntimeError("source")

        with pytest.raises(RuntimeError, match="source"):
            writer.append_many(breaks())  # type: ignore[arg-type]
    assert payloads(queue)[:2] == [b"a", b"b"]


def test_batch_is_all_or_nothing(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        assert writer.append_many([b"a", b"b", b""], 4, timestamp_ns=9, flags=1, atomic=True) == (0, 3)
        assert writer.append_many([], atomic=True) == (3, 0)
        with pytest.raises(c.PayloadTooLarge):
            writer.append_many([b"x" * 30_000] * 3, atomic=True)
        assert writer.next_seq == 3
        # Does not fit the rest of this segment: goes to the next one as a whole.
        writer.append_many([b"x" * 20_000] * 2, atomic=True)
        writer.append_many([b"y" * 20_000] * 2, atomic=True)
    assert len(Queue.segments(queue)) == 2
    assert payloads(queue) == [b"a", b"b", b"", *[b"x" * 20_000] * 2, *[b"y" * 20_000] * 2]


def test_largest_payload_fits_and_one_more_byte_does_not(queue: Path) -> None:
    largest = SEGMENT - 8192 - 64
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        assert writer.append(b"x" * largest) == 0
        with pytest.raises(c.PayloadTooLarge) as caught:
            writer.append(b"x" * (largest + 1))
        assert isinstance(caught.value, ValueError)
        assert writer.append(b"x" * largest) == 1
    assert [len(payload) for payload in payloads(queue)] == [largest] * 2
    assert Queue.verify(queue).ok


def test_timestamps_may_go_back(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        for stamp in (5, 3, 9, 0, (1 << 64) - 2):
            writer.append(b"", timestamp_ns=stamp)
    with Queue.open_subscriber(queue) as reader:
        assert [message.timestamp_ns for message in reader] == [5, 3, 9, 0, (1 << 64) - 2]


def test_counter_clock(queue: Path) -> None:
    with Queue.open_publisher(queue, clock="counter", keeper=False) as writer:
        began = time.time_ns()
        while time.time_ns() < began + 30_000_000:  # so long that the counter takes over
            before = time.time_ns()
            writer.append(b"x")
            with Queue.open_subscriber(queue) as reader:
                reader.seek_latest()
                message = reader.previous()
            assert message is not None
            assert before - 5000 <= message.timestamp_ns <= time.time_ns() + 5000


def test_coarse_clock(queue: Path) -> None:
    with Queue.open_publisher(queue, clock="coarse", keeper=False) as writer:
        writer.append(b"")
    with Queue.open_subscriber(queue) as reader:
        message = reader.next()
        assert message is not None
        assert abs(message.time.timestamp() - time.time()) < 60


# ----------------------------------------------------------------------------------------- durability


def test_sync_moves_durable_seq(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        assert writer.durable_seq == -1
        writer.append_many([b"x" * 1000] * 200)
        assert writer.durable_seq == -1
        writer.sync()
        assert writer.durable_seq == 199
        assert Queue.info(queue).durable_seq == 199
        assert writer.stats().syncs == 1


def test_durability_always_and_batch(queue: Path) -> None:
    with Queue.open_publisher(queue, durability="always") as writer:
        for i in range(3):
            assert writer.append(b"x") == writer.durable_seq == i
    with Queue.open_publisher(queue, durability="batch", durability_n=10) as writer:
        before = writer.durable_seq
        for _ in range(9):
            writer.append(b"x")
        assert writer.durable_seq == before
        writer.append(b"x")
        assert writer.durable_seq == writer.next_seq - 1
        writer.append(b"the last one")
    assert Queue.info(queue).durable_seq == 13  # close() syncs


def test_durability_interval_syncs_in_the_background(queue: Path) -> None:
    with Queue.open_publisher(queue, durability="interval", durability_n=5) as writer:
        writer.append(b"x")
        give_up = time.monotonic() + 30
        while writer.durable_seq < 0:
            assert time.monotonic() < give_up
            time.sleep(0.01)


def test_durable_only_reader_sees_what_is_durable(queue: Path) -> None:
    with (
        Queue.open_publisher(queue) as writer,
        Queue.open_subscriber(queue, durable_only=True, start="earliest") as reader,
    ):
        writer.append(b"a")
        assert reader.next() is None
        assert not reader.wait(0)
        writer.sync()
        writer.append(b"b")
        assert reader.wait(10)
        assert [message.payload for message in reader] == [b"a"]
        with pytest.raises(c.SeqOutOfRange, match="no durable record 2 yet: the next one will be 1"):
            reader.seek(2)


def test_interval_needs_the_keeper(queue: Path) -> None:
    with pytest.raises(c.InvalidArgument, match="keeper"):
        Queue.open_publisher(queue, durability="interval", keeper=False)


# ---------------------------------------------------------------------------- retention, back-pressure


def fill(writer: c.QueueWriter, segments: int) -> None:
    """Append until there are so many more segments."""
    goal = writer.stats().rolls + segments
    while writer.stats().rolls < goal:
        writer.append(b"x" * 1000)


def test_cleanup_deletes_what_all_readers_have_passed(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        fast = Queue.open_subscriber(queue, "fast")
        slow = Queue.open_subscriber(queue, "slow")
        fill(writer, 5)
        for _ in fast:
            pass
        fast.commit()
        report = writer.cleanup()
        assert (report.deleted_segments, report.readers) == (0, 2)
        assert {fate.reader for fate in report.segments[:-1]} == {"slow"}
        assert "slow" in report.segments[0].reason
        second = Queue.segments(queue)[2].base_seq
        slow.seek(second - 1)  # one record of the second segment is still to come
        slow.commit()
        assert Queue.cleanup_plan(queue).deleted_segments == 1
        slow.seek(second)
        slow.commit()
        assert Queue.cleanup_plan(queue).deleted_segments == 2
        report = writer.cleanup()
        assert (report.deleted_segments, report.oldest_seq) == (2, second)
        assert report.deleted_bytes == 2 * SEGMENT
        assert [fate.deleted for fate in report.segments] == [True, True, False, False, False, False]
        assert Queue.info(queue).oldest_seq == second
        assert len(list(queue.glob("*.seg"))) == 4
        message = slow.next()
        assert message is not None
        assert message.seq == second
        fast.close()
        slow.close()


def test_cleanup_that_explains_nothing_deletes_the_same(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 300)
        with Queue.open_subscriber(queue, "r", start=120) as reader:
            reader.commit()
        assert Queue.cleanup_plan(queue).deleted_segments == 2
        done = writer.cleanup(explain=False)
        assert (done.deleted_segments, done.segments, done.readers) == (2, [], 1)
        assert [info.base_seq for info in Queue.segments(queue)][0] == done.oldest_seq
        assert writer.cleanup().deleted_segments == 0


def test_cleanup_without_readers_deletes_nothing(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        fill(writer, 3)
        report = writer.cleanup()
        assert report.deleted_segments == 0
        assert "no reader" in report.segments[0].reason


def test_a_reader_that_never_committed_holds_everything(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer, Queue.open_subscriber(queue, "new") as reader:
        fill(writer, 3)
        for _ in reader:
            pass
        assert writer.cleanup().deleted_segments == 0


def test_limits_delete_in_spite_of_readers(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        Queue.open_subscriber(queue, "behind").close()
        fill(writer, 9)
    plan = Queue.cleanup_plan(queue, Retention(max_segments=4))
    assert (plan.deleted_segments, plan.readers_behind) == (6, 1)
    assert Queue.cleanup_plan(queue, Retention(max_bytes=3 * SEGMENT)).deleted_segments == 7
    assert Queue.cleanup_plan(queue, Retention(max_age=timedelta(hours=1))).deleted_segments == 0
    time.sleep(0.005)
    assert Queue.cleanup_plan(queue, Retention(max_age=0.001)).deleted_segments == 9
    assert Queue.cleanup_plan(queue, Retention(max_reader_lag=1)).deleted_segments == 9
    assert Queue.cleanup_plan(queue, Retention(reader_ttl=0.001)).readers_ignored == 1
    assert Queue.cleanup_plan(queue, Retention(reader_ttl=3600)).deleted_segments == 0
    assert Queue.cleanup_plan(queue).deleted_segments == 0
    assert len(Queue.segments(queue)) == 10  # a plan deletes nothing


def test_automatic_retention(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, retention=Retention(max_segments=3)) as writer:
        fill(writer, 20)
        give_up = time.monotonic() + 30
        while len(Queue.segments(queue)) > 4 or writer.stats().deleted_segments == 0:  # counted when all is on disk
            assert time.monotonic() < give_up
            time.sleep(0.01)


def test_automatic_retention_without_the_keeper(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, retention=Retention(max_segments=3)) as writer:
        fill(writer, 20)
        assert len(Queue.segments(queue)) <= 4


def test_backpressure_fails_at_once_and_loses_nothing(queue: Path) -> None:
    with (
        Queue.open_publisher(queue, segment_size=SEGMENT, max_segments=3, keeper=False) as writer,
        Queue.open_subscriber(queue, "slow") as reader,
    ):
        with pytest.raises(c.QueueFull) as caught:
            for _ in range(10_000):
                writer.append(b"x" * 1000)
        assert isinstance(caught.value, BlockingIOError)
        appended = writer.next_seq
        with pytest.raises(c.QueueFull):
            writer.append_many([b"x" * 1000] * 10_000)
        with pytest.raises(c.QueueFull):
            writer.append_many([b"x" * 1000] * 40, atomic=True)
        appended = writer.next_seq
        assert len(Queue.segments(queue)) == 3
        assert sum(1 for _ in reader) == appended
        reader.commit()
        writer.cleanup()
        assert writer.append(b"there is room again") == appended
        assert writer.stats().full_waits > 0


def test_backpressure_waits_for_a_reader(queue: Path) -> None:
    with Queue.open_publisher(
        queue, segment_size=SEGMENT, max_segments=3, backpressure=30.0, retention=Retention()
    ) as writer:
        reader = Queue.open_subscriber(queue, "slow")
        seen = 0

        def consume() -> None:
            nonlocal seen
            for message in reader.follow(timeout=20):
                seen += 1
                if seen % 50 == 0:
                    reader.commit()
                if message.payload == b"end":
                    return

        thread = threading.Thread(target=consume)
        thread.start()
        writer.append_many([b"x" * 1000] * 1000)
        for _ in range(1000):
            writer.append(b"x" * 1000)
        writer.append(b"end")
        thread.join()
        assert seen == 2001
        reader.close()


def test_backpressure_gives_up_after_its_time(queue: Path) -> None:
    with (
        Queue.open_publisher(queue, segment_size=SEGMENT, max_bytes=2 * SEGMENT, backpressure=0.05) as writer,
        Queue.open_subscriber(queue, "slow"),
        pytest.raises(c.QueueFull),
    ):
        writer.append_many([b"x" * 1000] * 10_000)


# ------------------------------------------------------------------------------------------- the handle


def test_closed_writer(queue: Path) -> None:
    writer = Queue.open_publisher(queue)
    writer.close()
    writer.close()
    assert writer.closed
    assert "closed" in repr(writer)
    for call in (
        lambda: writer.append(b"x"),
        lambda: writer.append_many([b"x"]),
        lambda: writer.append_many([b"x"], atomic=True),
        lambda: writer.claim(1).__enter__(),
        writer.sync,
        writer.cleanup,
        writer.stats,
        lambda: writer.next_seq,
        lambda: writer.durable_seq,
        lambda: writer.recovery,
    ):
        with pytest.raises(c.ClosedHandle) as caught:
            call()
        assert isinstance(caught.value, ValueError)


def test_forgotten_writer_warns_and_is_closed(queue: Path) -> None:
    writer = Queue.open_publisher(queue)
    with pytest.warns(ResourceWarning, match="QueueWriter"):
        del writer
        gc.collect()
    Queue.open_publisher(queue).close()


def test_a_writer_cannot_be_pickled(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer, pytest.raises(TypeError, match="open the queue"):
        pickle.dumps(writer)


def test_two_threads_at_once_are_refused_not_corrupted(queue: Path) -> None:
    refused = 0
    stop = threading.Event()
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        appended = [0, 0]

        def work(me: int) -> None:
            nonlocal refused
            while not stop.is_set():
                try:
                    writer.append_many([b"%d" % me] * 1000)
                    appended[me] += 1000
                except c.ConcurrentUse:
                    refused += 1

        threads = [threading.Thread(target=work, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        give_up = time.monotonic() + 30
        while refused < 10 and time.monotonic() < give_up:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        total = writer.next_seq
    assert refused >= 10
    report = Queue.verify(queue)
    assert report.ok
    assert report.records == total >= sum(appended)


def test_close_beside_another_thread_is_safe(queue: Path) -> None:
    for _ in range(20):
        writer = Queue.open_publisher(queue)

        def work(writer: c.QueueWriter = writer) -> None:
            try:
                while True:
                    writer.append_many([b"x"] * 100)
            except (c.ClosedHandle, c.ConcurrentUse):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        while not writer.closed:
            try:
                writer.close()
            except c.ConcurrentUse:
                time.sleep(0.0001)
        thread.join()
    assert Queue.verify(queue).ok


def test_the_epoch_rises_with_each_opening(queue: Path) -> None:
    """Also where no record of the life before tells of it."""
    for epoch in (1, 2, 3):
        with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
            assert writer.recovery.epoch == epoch


# ------------------------------------------------------------------------- append in C, and its other half


def test_plain_appends_do_not_pass_through_python(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast half (_fast.c) is in use, for every way to pass the arguments."""
    with Queue.open_publisher(queue) as writer:
        writer.append(b"the first one has pages prepared")

        def refuse(*_: object, **__: object) -> int:
            raise AssertionError("a plain append took the slow way")

        monkeypatch.setattr(c.QueueWriter, "_append", refuse)
        writer.append(b"")
        writer.append(b"x", 1)
        writer.append(b"x", 1, 2)
        writer.append(b"x", 1, 2, 3)
        writer.append(b"x", 1, flags=3, timestamp_ns=2)
        writer.append(b"x", flags=3, type_id=1, timestamp_ns=None)
    with Queue.open_subscriber(queue) as reader:
        found = [(message.type_id, message.flags, message.payload) for message in reader]
    assert found[1:] == [(0, 0, b""), (1, 0, b"x"), (1, 0, b"x"), (1, 3, b"x"), (1, 3, b"x"), (1, 3, b"x")]


@pytest.mark.parametrize(
    ("positional", "named", "error"),
    [
        ((), {}, TypeError),
        (("text",), {}, TypeError),
        ((b"x", 0, 0, 0, 0), {}, TypeError),
        ((b"x", 1), {"type_id": 1}, TypeError),
        ((b"x",), {"data": b"x"}, TypeError),
        ((b"x",), {"kind": 1}, TypeError),
        ((b"x", None), {}, TypeError),
        ((b"x", 1.0), {}, TypeError),
        ((b"x", 0, "now"), {}, TypeError),
        ((b"x", 0, None, None), {}, TypeError),
        ((b"x", 0xFFFF), {}, c.InvalidArgument),
        ((b"x", 1 << 70), {}, c.InvalidArgument),
        ((b"x", 0, -1), {}, c.InvalidArgument),
        ((bytes(SEGMENT),), {}, c.PayloadTooLarge),
    ],
)
def test_wrong_appends(queue: Path, positional: Any, named: Any, error: type[Exception]) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        writer.append(b"the first one has pages prepared")
        with pytest.raises(error):
            writer.append(*positional, **named)
        assert writer.next_seq == 1


def test_append_by_name_and_of_other_buffers(queue: Path) -> None:
    class Payload(bytes):
        pass

    with Queue.open_publisher(queue) as writer:
        assert writer.append(data=b"0", type_id=True) == 0
        for data in (bytearray(b"1"), memoryview(b"1"), Payload(b"1"), array.array("B", b"1")):
            writer.append(data, 1, 1)
    with Queue.open_subscriber(queue) as reader:
        assert [message[2:] for message in reader] == [(1, 0, b"0"), *[(1, 0, b"1")] * 4]


def test_an_append_kept_beyond_its_writer_says_closed(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer:
        append = writer.append
        append(b"x")
    with pytest.raises(c.ClosedHandle):
        append(b"x")
    del writer
    gc.collect()
    with pytest.raises(c.ClosedHandle):
        append(b"x")
