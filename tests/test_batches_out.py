# SPDX-License-Identifier: MIT
"""Batches of records over mapped segments: columns, slices, what keeps them alive, and scans. Without numpy."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Batch, Message, Queue, QueueReader, Retention
from chronicle_ffi._fast import Columns, Segment
from tests import decoder
from tests.children import in_child

SEGMENT = 1 << 16
COUNT = 500
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
START_NS = 1893456000 * 10**9


def message(seq: int) -> Message:
    """One second apart, 0 to 1300 bytes, every third one empty."""
    payload = b"" if seq % 3 == 0 else b"%d:" % seq + bytes([seq % 256]) * (seq * 977 % 1300)
    return Message(seq, START_NS + seq * 10**9, seq % 7, seq % 256, payload)


MESSAGES = [message(seq) for seq in range(COUNT)]


def fill(path: Path, count: int = COUNT) -> None:
    """In several segments."""
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for seq, stamp, type_id, flags, payload in MESSAGES[:count]:
            assert writer.append(payload, type_id, timestamp_ns=stamp, flags=flags) == seq


def batches(reader: QueueReader, size: int = 65536) -> list[Batch]:
    found = []
    while len(batch := reader.read_batch(size)):
        found.append(batch)
    return found


def mappings(path: Path) -> int:
    """How many segments of the queue this process has mapped."""
    return sum(f"{path}/" in line and ".seg" in line for line in Path("/proc/self/maps").read_text().splitlines())


# ------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("size", [1, 7, 65536, 65537, 1 << 40])
def test_batches_hold_what_was_written(queue: Path, size: int) -> None:
    fill(queue)
    bases = [segment.base_seq for segment in Queue.segments(queue)]
    assert len(bases) > 3
    with Queue.open_subscriber(queue) as reader:
        found = batches(reader, size)
        assert reader.position == COUNT
        assert reader.stats().records == COUNT
        assert reader.stats().payload_bytes == sum(len(one.payload) for one in MESSAGES)
    assert [one for batch in found for one in batch] == MESSAGES
    assert max(map(len, found)) <= size
    if size >= COUNT:
        assert [batch.seq[0] for batch in found] == bases  # each one segment, and that as a whole
    for batch in found:
        assert len(batch.segment) == SEGMENT
        assert batch.payloads() == [one.payload for one in batch] == list(map(bytes, batch.views()))
        for i, one in enumerate(batch):
            at = batch.offset[i]
            assert batch.segment[at : at + batch.length[i]] == one.payload


def test_a_batch_of_nothing(queue: Path) -> None:
    fill(queue, 0)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
        assert (len(batch), list(batch), batch.payloads(), batch.views()) == (0, [], [], [])
        assert len(batch[:]) == len(batch[::-1]) == 0
        assert repr(batch) == "<Batch of 0 records>"
        batch.check()
        with pytest.raises(IndexError):
            batch[0]
        with Queue.open_publisher(queue) as writer:
            writer.append(b"now")
        assert reader.read_batch().payloads() == [b"now"]


@pytest.mark.parametrize(("size", "error"), [(0, c.InvalidArgument), (-1, c.InvalidArgument), (1.5, TypeError)])
def test_sizes_that_are_refused(queue: Path, size: Any, error: type[Exception]) -> None:
    fill(queue, 1)
    with Queue.open_subscriber(queue) as reader:
        with pytest.raises(error):
            reader.read_batch(size)
        assert reader.position == 0


def test_a_small_batch_has_small_columns(queue: Path) -> None:
    fill(queue, 3)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch(1_000_000)
    columns = (batch.seq, batch.timestamp_ns, batch.offset, batch.length, batch.type_id, batch.flags)
    assert all(column.obj is batch.seq.obj for column in columns)
    assert len(memoryview(batch.seq.obj)) == 3 * (8 + 8 + 8 + 4 + 2 + 1)


def test_columns_that_are_kept_are_nobody_elses(queue: Path) -> None:
    """The memory of a batch goes to the next one of its size, but not while a view of a view of it is left."""
    with Queue.open_publisher(queue) as writer:
        writer.append_array(bytes(12_000), row_bytes=1)
    seen = []
    with Queue.open_subscriber(queue) as reader:
        while len(batch := reader.read_batch(3000)):
            seen.append(batch[1:].seq[10:])  # nothing else is kept of it
    assert [list(view[:3]) for view in seen] == [[i + 11, i + 12, i + 13] for i in range(0, 12_000, 3000)]
    gone = seen.pop(0)
    kept = list(seen[0])
    del gone, batch
    with Queue.open_subscriber(queue, start=6000) as reader:
        others = [reader.read_batch(3000) for _ in range(2)]
    assert list(seen[0]) == kept
    assert [other.seq[0] for other in others] == [6000, 9000]


def test_a_peek_wants_new_columns(queue: Path) -> None:
    fill(queue, 3)
    with Queue.open_subscriber(queue) as reader:
        columns = Columns()
        assert reader._peek(Segment(), columns, 2) == (2, 2)
        wrong: Any
        for wrong in (columns, Segment(), b""):
            with pytest.raises(TypeError):
                reader._peek(Segment(), wrong, 2)


def test_durable_only(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer, Queue.open_subscriber(queue, durable_only=True) as reader:
        writer.append_many([b"a", b"b"])
        assert len(reader.read_batch()) == 0
        writer.sync()
        writer.append(b"c")
        assert reader.read_batch().payloads() == [b"a", b"b"]
        assert len(reader.read_batch()) == 0


def damage(path: Path, seq: int) -> None:
    """Change one byte of a record's payload."""
    with Queue.open_subscriber(path, start=seq) as reader:
        batch = reader.read_batch(1)
    base = max(segment.base_seq for segment in Queue.segments(path) if segment.base_seq <= seq)
    with (path / f"{base:020}.seg").open("r+b") as file:
        file.seek(batch.offset[0])
        byte = file.read(1)
        file.seek(batch.offset[0])
        file.write(bytes([byte[0] ^ 1]))


def test_a_damaged_record_in_the_middle(queue: Path) -> None:
    fill(queue, 60)
    damage(queue, 20)
    with Queue.open_subscriber(queue) as reader:
        assert list(reader.read_batch()) == MESSAGES[:20]
        for _ in range(2):
            with pytest.raises(c.Corrupt) as caught:
                reader.read_batch()
            assert caught.value.seq == reader.position == 20
        assert reader.skip_damaged() == 1
        assert list(reader.read_batch()) == MESSAGES[21:60]
        assert reader.stats().skipped == 1


def forge(path: Path, seq: int, at_byte: int, value: int) -> None:
    """Change a word in the header of a record of 8 bytes, in the first segment, and make its CRC right again."""
    with Queue.open_subscriber(path, start=seq) as reader:
        at = reader.read_batch(1).offset[0] - 32
    with min(path.glob("*.seg")).open("r+b") as file:
        file.seek(at)
        record = bytearray(file.read(40))
        struct.pack_into("<I", record, at_byte, value)
        record[4:8] = struct.pack("<I", decoder.crc(bytes(record[:4] + record[8:])))
        file.seek(at)
        file.write(record)


def test_records_that_do_not_follow_end_a_batch(queue: Path) -> None:
    """They are whole, CRC and all, but of another place, or of an earlier writer."""
    for at, value in ((8, 4), (28, 1)):  # seq 4 instead of 5; epoch 1 instead of 3
        path = queue.with_name(f"queue{at}")
        for _ in range(3):
            with Queue.open_publisher(path, keeper=False) as writer:
                if writer.recovery.epoch == 3:
                    writer.append_many([b"12345678"] * 10)
        forge(path, 5, at, value)
        with Queue.open_subscriber(path) as reader:
            assert list(reader.read_batch().seq) == [0, 1, 2, 3, 4]
            with pytest.raises(c.Corrupt) as caught:
                reader.read_batch()
            assert caught.value.seq == 5


def test_batches_go_on_over_several_writers(queue: Path) -> None:
    for i in range(3):
        with Queue.open_publisher(queue, keeper=False) as writer:
            writer.append_many([b"%d" % i] * 4)
    with Queue.open_subscriber(queue) as reader:
        found = batches(reader)
        assert [batch.payloads() for batch in found] == [[b"0"] * 4, [b"1"] * 4, [b"2"] * 4]


def test_a_file_that_is_truncated_in_the_middle_of_a_batch(queue: Path) -> None:
    def look() -> None:
        fill(queue, 60)
        with Queue.open_subscriber(queue) as reader:
            reader.next()
            os.truncate(next(queue.glob("*.seg")), 16384)
            with pytest.raises(c.StorageError, match="went away"):
                reader.read_batch()
            assert reader.position == 1

    in_child(look)


# ------------------------------------------------------------------------------------ as a sequence


def test_slices_are_those_of_a_list(queue: Path) -> None:
    fill(queue, 30)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
    wanted = MESSAGES[:30]
    ends = [None, 0, 1, 5, 29, 30, 31, -1, -7, -30, -31]
    for start in ends:
        for stop in ends:
            for step in (None, 1, 2, 7, -1, -3, 100):
                part = batch[start:stop:step]
                expected = wanted[start:stop:step]
                assert list(part) == expected
                assert part.payloads() == [one.payload for one in expected]
                assert part[1:][::-1].payloads() == [one.payload for one in expected[1:][::-1]]
    for i in range(-30, 30):
        assert batch[i] == wanted[i]
    for i in (30, -31, 1 << 70):
        with pytest.raises(IndexError):
            batch[i]
    with pytest.raises(TypeError):
        batch["x"]  # type: ignore[call-overload]
    assert list(reversed(batch)) == wanted[::-1]
    assert wanted[7] in batch
    assert batch.index(wanted[7]) == 7
    assert batch.count(wanted[7]) == 1


def test_nothing_of_it_can_be_written_to(queue: Path) -> None:
    fill(queue, 10)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
    for part in (batch, batch[2:], batch[::2]):
        columns = (part.seq, part.timestamp_ns, part.offset, part.length, part.type_id, part.flags)
        for view in (*columns, part.segment, *part.views()):
            assert view.readonly


def test_a_batch_is_not_pickled(queue: Path) -> None:
    fill(queue, 1)
    with Queue.open_subscriber(queue) as reader:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(reader.read_batch())


def test_a_scan_is_not_pickled(queue: Path) -> None:
    """Nor copied: what one of two closed would go on in the other."""
    Queue.open_publisher(queue).close()
    with Queue.scan(queue) as scan:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                way(scan)


@pytest.mark.parametrize("payloads_only", [False, True])
def test_a_loop_that_threads_share_by_mistake(queue: Path, payloads_only: bool) -> None:
    """They meet ConcurrentUse, or not; each record is handed out once, and afterwards the reader is as good as new."""
    count = 100_000
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append_many(b"%d" % i for i in range(count))
    reader = Queue.open_subscriber(queue)
    found: list[list[int]] = []
    errors: list[BaseException] = []

    def read() -> None:
        mine: list[int] = []
        found.append(mine)
        while len(errors) < 1000:
            try:
                if payloads_only:
                    mine.extend(map(int, reader.payloads()))
                else:
                    mine.extend(one.seq for one in reader)
                return
            except c.ConcurrentUse as error:
                errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    errors.clear()
    read()
    assert not errors
    assert sorted(seq for mine in found for seq in mine) == list(range(count))
    assert reader.position == count
    reader.close()


# -------------------------------------------------------------------------------- how long it lives


def test_batches_outlive_everything(queue: Path) -> None:
    fill(queue)
    reader = Queue.open_subscriber(queue, "me")
    found = batches(reader)
    views = [view for batch in found for view in batch.views()]
    kept = mappings(queue)
    reader.commit()
    with Queue.open_publisher(queue) as writer:
        assert writer.cleanup().deleted_segments == len(found) - 1
    reader.close()
    del reader
    gc.collect()
    shutil.rmtree(queue)
    assert [one for batch in found for one in batch] == MESSAGES
    del found
    gc.collect()
    assert list(map(bytes, views)) == [one.payload for one in MESSAGES]
    assert mappings(queue) == kept > 3
    last = views[-1]
    del views
    gc.collect()
    assert mappings(queue) == 1
    assert last == MESSAGES[-1].payload
    del last
    gc.collect()
    assert mappings(queue) == 0


@pytest.mark.parametrize("close_first", [False, True])
def test_in_a_forked_child(queue: Path, close_first: bool) -> None:
    fill(queue)
    reader = Queue.open_subscriber(queue)
    found = batches(reader)

    def look() -> None:
        if close_first:
            reader.close()
        assert [one for batch in found for one in batch] == MESSAGES
        if not close_first:
            with pytest.raises(c.ForkedHandle):
                reader.read_batch()
            reader.close()
        rest = found.pop()
        found.clear()
        gc.collect()
        assert mappings(queue) == 1
        assert rest[-1] == MESSAGES[-1]

    in_child(look)
    assert [one for batch in found for one in batch] == MESSAGES
    reader.close()


def test_a_file_that_is_truncated_under_views(queue: Path) -> None:
    def look() -> None:
        fill(queue, 10)
        with Queue.open_subscriber(queue) as reader:
            batch = reader.read_batch()
        part = batch[3:]
        views = part.views()
        assert views[1] == MESSAGES[4].payload
        os.truncate(next(queue.glob("*.seg")), 0)
        assert not any(views[1])
        calls: list[Callable[[], object]] = [part.check, part.payloads, lambda: part[0], lambda: list(batch)]
        for call in calls:
            with pytest.raises(c.StorageError, match="went away"):
                call()

    in_child(look)


def test_many_threads_with_one_batch(queue: Path) -> None:
    fill(queue)
    wrong: list[object] = []
    with Queue.open_subscriber(queue) as reader:
        found = batches(reader, 50)

        def look(which: int) -> None:
            for i in range(len(found) * 3):
                batch = found[(i + which) % len(found)]
                first = batch.seq[0]
                if list(batch[:: which + 1]) != MESSAGES[first : first + len(batch) : which + 1]:
                    wrong.append(batch)

        threads = [threading.Thread(target=look, args=[i]) for i in range(4)]
        for thread in threads:
            thread.start()
        reader.seek(0)
        again = batches(reader, 50)
    for thread in threads:
        thread.join()
    assert not wrong
    assert [one for batch in again for one in batch] == MESSAGES


def test_views_against_retention() -> None:
    """A few seconds of what ``make soak-views`` does for long, without what this process has loaded."""
    command = [sys.executable, "-W", "error", "-m", "tests.soak_views", "--seed", "1"]
    environment = os.environ | {"CHRONICLE_SOAK_SECS": "4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing changed, nothing left behind" in done.stdout


# --------------------------------------------------------------------------------------------- scans


def scanned(scan: c.Scan) -> list[Message]:
    return [one for batch in scan for one in batch]


RANGES: list[tuple[dict[str, Any], slice]] = [
    ({}, slice(None)),
    ({"start": 0}, slice(None)),
    ({"start": 17, "stop": 333}, slice(17, 333)),
    ({"start": 17, "stop": 17}, slice(0, 0)),
    ({"start": 17, "stop": 3}, slice(0, 0)),
    ({"start": 17, "stop": 1 << 60}, slice(17, None)),
    ({"start": COUNT}, slice(0, 0)),
    ({"stop": 0}, slice(0, 0)),
    ({"start": START + timedelta(seconds=17), "stop": START + timedelta(seconds=333)}, slice(17, 333)),
    ({"start": START + timedelta(seconds=16.5)}, slice(17, None)),
    ({"stop": START - timedelta(days=1)}, slice(0, 0)),
    ({"start": START + timedelta(days=1)}, slice(0, 0)),
    ({"stop": START + timedelta(days=1)}, slice(None)),
]


@pytest.mark.parametrize(("where", "wanted"), RANGES)
def test_ranges(queue: Path, where: dict[str, Any], wanted: slice) -> None:
    fill(queue)
    scan = Queue.scan(queue, batch_records=40, **where)
    for _ in range(2):  # it can be repeated
        assert scanned(scan) == MESSAGES[wanted]
    assert mappings(queue) == 0


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ({"start": COUNT + 1}, c.SeqOutOfRange),
        ({"start": -1}, c.InvalidArgument),
        ({"start": "first"}, c.InvalidArgument),
        ({"stop": -1}, c.InvalidArgument),
        ({"stop": "end"}, TypeError),
        ({"batch_records": 0}, c.InvalidArgument),
        ({"batch_records": -5}, c.InvalidArgument),
        ({"batch_records": 1.5}, TypeError),
    ],
)
def test_ranges_that_are_refused(queue: Path, where: dict[str, Any], error: type[Exception]) -> None:
    fill(queue, 10)
    with pytest.raises(error):
        Queue.scan(queue, **where)
    assert mappings(queue) == 0


def test_a_scan_of_no_queue(queue: Path) -> None:
    with pytest.raises(c.QueueNotFound):
        Queue.scan(queue)


def test_the_end_is_settled_when_the_scan_is_made(queue: Path) -> None:
    fill(queue, 10)
    scan = Queue.scan(queue)
    with Queue.open_publisher(queue) as writer:
        writer.append(b"later")
    assert scanned(scan) == MESSAGES[:10]


def test_a_scan_that_is_left_half_way(queue: Path) -> None:
    fill(queue)
    scan = Queue.scan(queue)
    batch = next(iter(scan))
    gc.collect()
    assert mappings(queue) == 1  # the batch's
    assert list(batch) == MESSAGES[: len(batch)]
    with scan:
        under_way = iter(scan)
        next(under_way)
    with pytest.raises(c.ClosedHandle):
        next(under_way)
    assert scanned(scan) == MESSAGES
    assert repr(scan) == f"<Scan of [0, {COUNT})>"


def test_a_scan_meets_damage(queue: Path) -> None:
    fill(queue, 60)
    damage(queue, 20)
    found = []
    with pytest.raises(c.Corrupt) as caught:
        for batch in Queue.scan(queue):
            found += list(batch)
    assert caught.value.seq == 20
    assert found == MESSAGES[:20]
    del batch, caught  # whose frames know the batch, too
    gc.collect()
    assert mappings(queue) == 0


def test_retention_overtakes_a_scan(queue: Path) -> None:
    fill(queue)
    scan = Queue.scan(queue)
    under_way = iter(scan)
    batch = next(under_way)
    with Queue.open_publisher(queue, retention=Retention(max_segments=1), keeper=False) as writer:
        assert writer.cleanup().deleted_segments > 2
    assert list(batch) == MESSAGES[: len(batch)]
    with pytest.raises(c.SegmentGone):
        list(under_way)
    with pytest.raises(c.SegmentGone):
        scanned(scan)
