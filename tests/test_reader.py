# SPDX-License-Identifier: MIT
"""QueueReader: reading, waiting, committing, seeking, gaps."""

from __future__ import annotations

import gc
import pickle
import shutil
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, _reader

SEGMENT = 1 << 16
COUNT = 500  # records of `filled`: some ten segments


@pytest.fixture
def filled(queue: Path) -> Path:
    """COUNT records of 1000 bytes, beginning with their seq, stamped 1000, 1010, 1020, ..."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(COUNT):
            writer.append(b"%d " % i + b"x" * 1000, timestamp_ns=1000 + 10 * i)
    return queue


def seqs(reader: c.QueueReader) -> list[int]:
    return [message.seq for message in reader]


def test_iteration_ends_and_goes_on(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
        assert list(reader) == []
        writer.append(b"a")
        assert [m.payload for m in reader] == [b"a"]
        writer.append(b"b")
        assert [m.payload for m in reader] == [b"b"]
        assert reader.position == 2
        assert reader.lag == 0


def test_message_is_a_value(filled: Path) -> None:
    with Queue.open_subscriber(filled) as reader:
        message = reader.next()
    assert message is not None
    assert message.time == datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=1)
    assert pickle.loads(pickle.dumps(message)) == message


def test_payloads_of_all_sizes(queue: Path) -> None:
    sizes = [0, 1, 31, 32, 33, 4095, 4096, 4097, 100_000, 3, 1 << 20]
    with Queue.open_publisher(queue, segment_size=1 << 22) as writer:
        for size in sizes:
            writer.append(bytes([size % 251]) * size)
    with Queue.open_subscriber(queue) as reader:
        assert [message.payload for message in reader] == [bytes([size % 251]) * size for size in sizes]


def test_commit_and_resume(filled: Path) -> None:
    with Queue.open_subscriber(filled, "me") as reader:
        assert (reader.name, reader.committed, reader.position) == ("me", None, 0)
        for _ in range(100):
            reader.next()
        reader.commit()
        reader.next()
        assert (reader.committed, reader.position) == (100, 101)
    (info,) = Queue.readers(filled)
    assert (info.name, info.position, info.lag, info.alive, info.damaged) == ("me", 100, COUNT - 100, False, False)
    assert abs(info.updated_ns - time.time_ns()) < 60 * 10**9
    with Queue.open_subscriber(filled, "me") as reader:
        assert Queue.readers(filled)[0].alive
        message = reader.next()
        assert message is not None
        assert message.seq == 100
        reader.commit(sync=True)
    with Queue.open_subscriber(filled, "me", start="earliest") as reader:
        assert reader.position == 0
        assert reader.committed == 101


def test_a_position_in_another_segment_and_at_the_end(filled: Path) -> None:
    for position in (1, 55, 56, 57, 250, COUNT):
        with Queue.open_subscriber(filled, "me", start=position) as reader:
            reader.commit()
        with Queue.open_subscriber(filled, "me") as reader:
            assert seqs(reader) == list(range(position, COUNT))


def test_commit_without_a_name(filled: Path) -> None:
    with Queue.open_subscriber(filled) as reader:
        with pytest.raises(c.ReadOnly) as caught:
            reader.commit()
        assert isinstance(caught.value, PermissionError)
        assert reader.committed is None


def test_start(filled: Path) -> None:
    for start, position in [
        ("resume", 0),
        ("earliest", 0),
        ("latest", COUNT),
        (77, 77),
        (COUNT, COUNT),
        (datetime(1970, 1, 1, tzinfo=timezone.utc), 0),
        (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=2), 100),
        (datetime(2020, 1, 1, tzinfo=timezone.utc), COUNT),
    ]:
        with Queue.open_subscriber(filled, start=start) as reader:  # type: ignore[call-overload]
            assert reader.position == position
    with pytest.raises(c.SeqOutOfRange) as caught:
        Queue.open_subscriber(filled, start=COUNT + 1)
    assert caught.value.next_seq == COUNT
    assert isinstance(caught.value, IndexError)


def test_seek(filled: Path) -> None:
    with Queue.open_subscriber(filled) as reader:
        for seq in (COUNT - 1, 0, 250, 57, 56, 55, COUNT):
            reader.seek(seq)
            assert reader.position == seq
            message = reader.next()
            assert (message is None) if seq == COUNT else (message is not None and message.seq == seq)
        with pytest.raises(c.SeqOutOfRange):
            reader.seek(COUNT + 1)
        assert reader.position == COUNT  # a move that fails does not move
        for wrong in (-1, 1 << 63, 1 << 64):
            with pytest.raises(c.InvalidArgument):
                reader.seek(wrong)
        reader.seek_earliest()
        assert reader.position == 0
        reader.seek_latest()
        assert reader.position == COUNT


def test_seek_time(filled: Path) -> None:
    with Queue.open_subscriber(filled) as reader:
        for ns, seq in [
            (0, 0),
            (1000, 0),
            (1001, 1),
            (1010, 1),
            (3505, 251),
            (5990, 499),
            (5991, COUNT),
            (2**63, COUNT),
        ]:
            reader.seek_time(ns)
            assert reader.position == seq, ns
        with pytest.raises(c.InvalidArgument):
            reader.seek_time(-1)


def test_seek_time_when_the_clock_goes_back(queue: Path) -> None:
    stamps = [100, 50, 200, 150, 300, 10]
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for stamp in stamps:
            writer.append(b"x" * 30_000, timestamp_ns=stamp)
    with Queue.open_subscriber(queue) as reader:
        for wanted in range(0, 320, 10):
            reader.seek_time(wanted)
            expected = next((i for i, stamp in enumerate(stamps) if stamp >= wanted), len(stamps))
            assert reader.position == expected, wanted


def test_previous_walks_back_to_the_beginning(filled: Path) -> None:
    with Queue.open_subscriber(filled, start="latest") as reader:
        back = []
        while (message := reader.previous()) is not None:
            back.append(message.seq)
            assert message.payload.startswith(b"%d " % message.seq)
        assert back == list(range(COUNT - 1, -1, -1))
        assert seqs(reader) == list(range(COUNT))


def test_previous_of_a_reader_of_durable_records(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"a", b"b"])
        writer.sync()
        with Queue.open_subscriber(queue, start="latest", durable_only=True) as reader:
            message = reader.previous()
            assert message is not None
            assert message.payload == b"b"
        writer.append(b"c")
        with Queue.open_subscriber(queue, start="latest", durable_only=True) as reader:
            assert reader.position == 2  # the third is not on disk yet
            message = reader.previous()
            assert message is not None
            assert message.payload == b"b"
            writer.sync()
            reader.seek_latest()
            message = reader.previous()
            assert message is not None
            assert message.payload == b"c"


def test_follow_ends_after_its_timeout_and_sees_what_comes(queue: Path) -> None:
    with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue) as reader:
        writer.append(b"0")

        def later() -> None:
            for i in range(1, 6):
                time.sleep(0.02)
                writer.append(b"%d" % i)

        thread = threading.Thread(target=later)
        thread.start()
        seen = []
        for message in reader.follow(timeout=10):
            seen.append(message.payload)
            if len(seen) == 6:
                break
        thread.join()
        assert seen == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert list(reader.follow(timeout=0.01)) == []
        assert list(reader.follow(timeout=0)) == []


@pytest.mark.parametrize("wait", ["hybrid", "spin", "sleep"])
def test_wait(queue: Path, wait: str) -> None:
    with Queue.open_publisher(queue) as writer, Queue.open_subscriber(queue, waiting=wait) as reader:  # type: ignore[call-overload]
        started = time.monotonic()
        assert not reader.wait(0)
        assert not reader.wait(0.15)
        assert time.monotonic() - started >= 0.15
        timer = threading.Timer(0.05, writer.append, [b"x"])
        timer.start()
        assert reader.wait(30)
        assert reader.wait(0)
        timer.join()
        with pytest.raises(ValueError):
            reader.wait(float("nan"))


def test_writer_alive(queue: Path) -> None:
    with Queue.open_publisher(queue), Queue.open_subscriber(queue) as reader:
        assert reader.writer_alive()
    with Queue.open_subscriber(queue) as reader:
        assert not reader.writer_alive()


def delete_first_segments(path: Path, count: int) -> int:
    """As retention does it; returns the oldest seq that is left."""
    names = sorted(path.glob("*.seg"))
    for name in names[:count]:
        name.unlink()
    return int(names[count].stem)


def test_gap_at_open(filled: Path) -> None:
    with Queue.open_subscriber(filled, "me", start=10) as reader:
        reader.commit()
    oldest = delete_first_segments(filled, 2)
    with pytest.raises(c.SegmentGone) as caught:
        Queue.open_subscriber(filled, "me")
    assert caught.value.oldest == oldest
    assert caught.value.seq == 10
    assert isinstance(caught.value, LookupError)
    with Queue.open_subscriber(filled, "me", on_gap="oldest") as reader:
        assert reader.position == oldest
        assert (reader.stats().gaps, reader.stats().skipped) == (1, oldest - 10)
    with Queue.open_subscriber(filled, "me", on_gap="latest") as reader:
        assert reader.position == COUNT


def test_gap_while_reading(filled: Path) -> None:
    error = Queue.open_subscriber(filled)
    oldest_reader = Queue.open_subscriber(filled, on_gap="oldest")
    for reader in (error, oldest_reader):
        for _ in range(10):
            reader.next()
    oldest = delete_first_segments(filled, 3)
    # What is mapped stays readable; behind it is the gap.
    with pytest.raises(c.SegmentGone) as caught:
        list(error)
    assert caught.value.oldest == oldest
    position = error.position
    with pytest.raises(c.SegmentGone):
        error.next()
    assert error.position == position
    error.seek(caught.value.oldest or 0)
    assert seqs(error) == list(range(oldest, COUNT))
    assert seqs(oldest_reader) == [*range(10, position), *range(oldest, COUNT)]
    assert oldest_reader.stats().skipped == oldest - position
    with pytest.raises(c.SegmentGone):
        error.seek(0)
    error.close()
    oldest_reader.close()


def test_a_segment_missing_in_the_middle(filled: Path) -> None:
    names = sorted(filled.glob("*.seg"))
    names[3].unlink()
    with Queue.open_subscriber(filled) as reader, pytest.raises((c.SegmentGone, c.Corrupt)):
        list(reader)
    report = Queue.verify(filled)
    assert [problem.kind for problem in report.problems] == ["chain"]
    assert report.problems[0].seq == int(names[3].stem)
    assert report.problems[0].seq_end == int(names[4].stem)


def test_registered_readers_are_listed_and_removed(filled: Path) -> None:
    with Queue.open_subscriber(filled, "b"), Queue.open_subscriber(filled, "a"):
        assert [reader.name for reader in Queue.readers(filled)] == ["a", "b"]
        with pytest.raises(c.ReaderAlreadyActive):
            Queue.remove_reader(filled, "a")
        with pytest.raises(c.ReaderAlreadyActive) as caught:
            Queue.open_subscriber(filled, "a")
        assert isinstance(caught.value, BlockingIOError)
    Queue.remove_reader(filled, "a")
    with pytest.raises(c.QueueNotFound):
        Queue.remove_reader(filled, "a")
    assert [reader.name for reader in Queue.readers(filled)] == ["b"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "ä", "a b", "a\n"])
def test_bad_names(filled: Path, name: str) -> None:
    with pytest.raises(c.InvalidArgument, match="name"):
        Queue.open_subscriber(filled, name)
    with pytest.raises(c.InvalidArgument):
        Queue.remove_reader(filled, name)
    assert list((filled / "readers").iterdir()) == []


def test_name_with_nul(filled: Path) -> None:
    with pytest.raises(ValueError):
        Queue.open_subscriber(filled, "a\0b")


def test_a_reader_that_could_not_be_opened_is_not_registered(filled: Path) -> None:
    with pytest.raises(c.SeqOutOfRange):
        Queue.open_subscriber(filled, "late", start=COUNT + 1)
    assert Queue.readers(filled) == []  # else it would hold every segment for ever
    with Queue.open_subscriber(filled, "late", start=7) as reader:
        reader.commit()
    with pytest.raises(c.SeqOutOfRange):
        Queue.open_subscriber(filled, "late", start=COUNT + 1)
    assert [(reader.name, reader.position) for reader in Queue.readers(filled)] == [("late", 7)]


def test_a_file_whose_name_is_no_readers_registers_nobody(filled: Path) -> None:
    with Queue.open_subscriber(filled, "me") as reader:
        reader.commit()
    for name in ("me (copy).pos", "m\u00e9.pos", ".pos", "x" * 65 + ".pos", "me.pos.bak"):
        shutil.copy(filled / "readers" / "me.pos", filled / "readers" / name)
    assert [reader.name for reader in Queue.readers(filled)] == ["me"]  # nobody could remove the others
    assert len(Queue.verify(filled).notes) == 5


def test_longest_name(filled: Path) -> None:
    with Queue.open_subscriber(filled, "x" * 64) as reader:
        reader.commit()
    assert Queue.readers(filled)[0].name == "x" * 64


def test_closed_reader(filled: Path) -> None:
    reader = Queue.open_subscriber(filled, "me")
    reader.close()
    reader.close()
    assert reader.closed
    for call in (
        reader.next,
        reader.previous,
        reader.commit,
        lambda: list(reader),
        lambda: reader.wait(0),
        lambda: reader.seek(0),
        lambda: reader.seek_time(0),
        reader.seek_earliest,
        reader.seek_latest,
        reader.skip_damaged,
        reader.stats,
        reader.writer_alive,
        lambda: reader.position,
        lambda: reader.committed,
        lambda: reader.lag,
    ):
        with pytest.raises(c.ClosedHandle):
            call()


def test_forgotten_reader_warns(filled: Path) -> None:
    reader = Queue.open_subscriber(filled, "me")
    with pytest.warns(ResourceWarning, match="QueueReader"):
        del reader
        gc.collect()
    Queue.open_subscriber(filled, "me").close()


def test_a_reader_cannot_be_pickled(filled: Path) -> None:
    with Queue.open_subscriber(filled) as reader, pytest.raises(TypeError, match="open the queue"):
        pickle.dumps(reader)


def test_concurrent_use_of_a_reader(filled: Path) -> None:
    with Queue.open_subscriber(filled, start="latest") as reader:
        thread = threading.Thread(target=reader.wait, args=(1.0,))
        thread.start()
        refused = 0
        while thread.is_alive():
            try:
                reader.next()
            except c.ConcurrentUse:
                refused += 1
            time.sleep(0.01)
        thread.join()
        assert refused
        assert reader.next() is None


def test_crc32c_is_what_the_library_computes() -> None:
    google_crc32c = pytest.importorskip("google_crc32c")
    from chronicle_ffi._chronicle import lib

    for size in [0, 1, 7, 8, 32, 63, 64, 255, 256, 1023, 1024, 4096, 100_001]:
        data = bytes((i * 7 + size) % 256 for i in range(size))
        assert lib.chron_crc32c(0, data, size) == google_crc32c.value(data)


@pytest.mark.parametrize("by_new", [False, True])
def test_messages_made_in_c_are_like_others(queue: Path, monkeypatch: pytest.MonkeyPatch, by_new: bool) -> None:
    """By either way of making them: which one is used depends on the version of Python."""
    monkeypatch.setattr(_reader, "BY_NEW", by_new)
    largest = (1 << 64) - 2
    with Queue.open_publisher(queue) as writer:
        for i in range(1000):
            writer.append(b"%d" % i, i % 300, largest - i, i % 256)
    with Queue.open_subscriber(queue) as reader:
        found = list(reader)
    others = [c.Message(i, largest - i, i % 300, i % 256, b"%d" % i) for i in range(1000)]
    assert found == others
    assert [hash(message) for message in found] == [hash(message) for message in others]
    assert {type(message) for message in found} == {c.Message}
    assert found[7]._replace(seq=0) == (0, *found[7][1:])
    assert sys.getrefcount(found[77].payload) == sys.getrefcount(others[77].payload)


def test_a_step_back_counts_once(filled: Path) -> None:
    with Queue.open_subscriber(filled, start=COUNT // 2) as reader:
        assert reader.next() is not None
        before = reader.stats().records
        message = reader.previous()
        assert message is not None
        assert message.seq == reader.position == COUNT // 2
        assert reader.stats().records == before + 1
        assert reader.next() == message


def test_a_seek_that_fails_does_not_move(filled: Path) -> None:
    """Neither to what is gone nor to what is not there yet; the reader goes on in the segment it was in."""
    with Queue.open_subscriber(filled, "me", start=COUNT - 5) as reader:
        reader.commit()
        with Queue.open_publisher(filled) as writer:
            assert writer.cleanup().oldest_seq > 0
        for wrong, error in ((0, c.SegmentGone), (COUNT + 1, c.SeqOutOfRange)):
            with pytest.raises(error):
                reader.seek(wrong)
            assert reader.position == COUNT - 5
        message = reader.next()
        assert message is not None
        assert message.seq == COUNT - 5
