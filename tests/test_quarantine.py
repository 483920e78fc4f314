# SPDX-License-Identifier: MIT
"""What was set aside is told, counted, bounded, and can be read and brought back."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Message, Queue, QueueFull, Retention
from tests.damage import SEGMENT, crc32c, make, patch, restart, segment
from tests.test_repair_call import everything

DATA = 8192
JUNK = b"\xff" * 20_000


def crash(path: Path) -> None:
    """A loss of power leaves junk behind the last record; the next writer cuts it off."""
    used = Queue.segments(path)[-1].used_bytes
    assert used + len(JUNK) < SEGMENT
    patch(segment(path, -1), used, JUNK)
    restart(path)


def crash_and_open(
    path: Path, times: int = 1, retention: Retention | None = None, max_bytes: int | None = None
) -> None:
    for _ in range(times):
        crash(path)
        with (
            pytest.warns(c.RecoveryWarning),
            Queue.open_publisher(path, keeper=False, retention=retention, max_bytes=max_bytes) as writer,
        ):
            assert writer.recovery.quarantined


def empty(path: Path) -> None:
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"first")


def record(seq: int, payload: bytes, epoch: int, timestamp_ns: int = 0) -> bytes:
    """As it stands in a segment."""
    words = struct.pack("<QQHHI", seq, timestamp_ns, 7, 3, epoch) + payload
    commit = struct.pack("<I", len(payload) + 1)
    return (commit + struct.pack("<I", crc32c(commit + words)) + words).ljust((len(payload) + 63) // 32 * 32, b"\0")


def records_of(path: Path, name: str) -> list[Message]:
    found: list[Message] = []
    assert Queue.read_quarantine(path, name, found.append) == len(found)
    return found


# -------------------------------------------------------------------------------------------- what is told


def test_nothing_is_there(queue: Path) -> None:
    empty(queue)
    assert Queue.quarantine(queue) == []
    (queue / "quarantine").rmdir()
    assert Queue.quarantine(queue) == []
    assert (Queue.info(queue).quarantine_files, Queue.info(queue).quarantine_bytes) == (0, 0)


def test_it_is_listed_and_counted(queue: Path) -> None:
    payloads = make(queue)
    crash_and_open(queue)
    segment(queue, 1).write_bytes(segment(queue, 1).read_bytes()[:100])
    patch(queue / "queue.meta", 0, bytes(128))
    Queue.repair(queue)
    (queue / "quarantine" / "note of mine.txt").write_text("not the queue's")
    found = Queue.quarantine(queue)
    assert [(file.kind, file.name.rpartition(".")[2]) for file in found] == [
        ("cut", "cut"),
        ("segment", "seg"),
        ("file", "damaged"),
    ]
    cut, whole, meta = found
    last = int(segment(queue, -1).stem)
    assert (cut.base_seq, cut.seq, cut.records, cut.first_seq) == (last, len(payloads), 0, None)
    assert (whole.base_seq, whole.seq, whole.records) == (int(segment(queue, 0).stem) + 14, None, None)
    assert (meta.base_seq, meta.seq, meta.records) == (None, None, None)
    assert all(file.bytes >= os.stat(queue / "quarantine" / file.name).st_size // 4096 * 4096 for file in found)
    info = Queue.info(queue)
    assert (info.quarantine_files, info.quarantine_bytes) == (3, sum(file.bytes for file in found))
    notes = [note for note in Queue.verify(queue).notes if note.kind == "quarantine"]
    assert [note.file for note in notes] == [f"quarantine/{file.name}" for file in found]
    assert notes[0].text == f"quarantine/{cut.name}: cut from the segment that begins with seq {last}: no whole record"
    assert Queue.verify(queue).ok


def test_what_it_says_when_nothing_can_be_believed(queue: Path) -> None:
    make(queue)
    crash_and_open(queue)
    (file,) = Queue.quarantine(queue)
    for offset in (40, 130, 155):
        kept = (queue / "quarantine" / file.name).read_bytes()
        patch(queue / "quarantine" / file.name, offset, bytes([kept[offset] ^ 1]))
        assert Queue.quarantine(queue)[0].records is None
        patch(queue / "quarantine" / file.name, offset, kept[offset : offset + 1])
    assert Queue.quarantine(queue)[0].records == file.records == 0


# ------------------------------------------------------------------------------------------------ reading


def test_whole_records_of_a_cut_are_read(queue: Path) -> None:
    """A torn one, three whole ones, of which one holds what looks like another, and junk."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"kept")
        writer.sync()
        epoch = writer.recovery.epoch
    nested = record(4, b"inside", epoch)
    torn = bytes(512) + bytes(record(1, b"torn" * 300, epoch))[512:]
    behind = record(2, b"two", epoch, 22) + record(3, nested, epoch, 33) + record(4, b"four", epoch, 44)
    patch(segment(queue), Queue.segments(queue)[0].used_bytes, torn + behind + JUNK[:1000])
    restart(queue)
    with pytest.warns(c.RecoveryWarning), Queue.open_publisher(queue, keeper=False, torn="cut") as writer:
        assert writer.next_seq == 1
    (file,) = Queue.quarantine(queue)
    assert (file.seq, file.records, file.first_seq) == (1, 3, 2)
    found = records_of(queue, file.name)
    assert found == [
        Message(2, 22, 7, 3, b"two"),
        Message(3, 33, 7, 3, nested),
        Message(4, 44, 7, 3, b"four"),
    ]


def test_whole_records_of_a_segment_are_read(queue: Path) -> None:
    payloads = make(queue)
    base = int(segment(queue, 1).stem)
    end = int(segment(queue, 2).stem)
    patch(segment(queue, 1), DATA + 36, b"\xff")
    os.truncate(segment(queue, 1), SEGMENT + 4096)
    before = segment(queue, 1).read_bytes()
    (queue / "quarantine" / f"{base:020}-e9.0.seg").write_bytes(before)
    (queue / "quarantine" / f"{base:020}-e9.1.seg").write_bytes(before[: DATA + 30_000])
    first, second = Queue.quarantine(queue)
    found = records_of(queue, first.name)
    assert {message.seq: message.payload for message in found} == {s: payloads[s] for s in range(base + 1, end)}
    assert [m.seq for m in records_of(queue, second.name)] == [
        m.seq for m in found[: len(records_of(queue, second.name))]
    ]
    assert 0 < len(records_of(queue, second.name)) < len(found)


@pytest.mark.parametrize("size", [0, 100, 4096, 8200])
def test_what_is_hardly_there_has_no_records(queue: Path, size: int) -> None:
    make(queue)
    name = f"{0:020}-e9.0.seg"
    (queue / "quarantine" / name).write_bytes(segment(queue).read_bytes()[:size])
    assert records_of(queue, name) == []


def test_what_cannot_be_read(queue: Path) -> None:
    make(queue)
    crash_and_open(queue)
    (file,) = Queue.quarantine(queue)
    with pytest.raises(c.QueueNotFound, match="there is no quarantine/"):
        Queue.read_quarantine(queue, f"{7:020}-e9.0.seg", print)
    for name in ("queue.meta-e9.0.damaged", "../0.seg", ".seg", "x" * 200 + ".seg"):
        with pytest.raises(c.InvalidArgument):
            Queue.read_quarantine(queue, name, print)
    (queue / "quarantine" / "mine.seg").write_bytes(b"?")
    with pytest.raises(c.InvalidArgument, match="no segment"):
        Queue.read_quarantine(queue, "mine.seg", print)
    patch(queue / "quarantine" / file.name, 40, b"\xee")
    with pytest.raises(c.Corrupt):
        Queue.read_quarantine(queue, file.name, print)


def test_an_exception_of_the_callers_ends_the_reading(queue: Path) -> None:
    make(queue)
    name = f"{0:020}-e9.0.seg"
    (queue / "quarantine" / name).write_bytes(segment(queue).read_bytes())
    seen: list[int] = []

    def third(message: Message) -> None:
        seen.append(message.seq)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Queue.read_quarantine(queue, name, third)
    assert seen == [0, 1, 2]


# ----------------------------------------------------------------------------------------------- bounding


def test_it_does_not_grow_without_bound(queue: Path) -> None:
    """A service that dies again and again, with a limit on the queue, which nobody ever cleans."""
    limit = Retention(max_segments=8)
    empty(queue)
    crash_and_open(queue, 10, limit)
    info = Queue.info(queue)
    size = Queue.quarantine(queue)[-1].bytes
    assert info.quarantine_bytes <= 2 * SEGMENT + size
    assert info.quarantine_files < 8
    assert Queue.quarantine(queue)[-1].epoch == info.epoch


def test_without_limits_all_of_it_stays(queue: Path) -> None:
    empty(queue)
    crash_and_open(queue, 5)
    with Queue.open_publisher(queue, keeper=False) as writer:
        report = writer.cleanup()
    assert (report.quarantine_files, report.quarantine_deleted_files) == (5, 0)
    assert report.quarantine_bytes == Queue.info(queue).quarantine_bytes > 5 * len(JUNK)


def test_limits_of_its_own(queue: Path) -> None:
    empty(queue)
    crash_and_open(queue, 4)
    files = Queue.quarantine(queue)
    size = files[0].bytes
    (queue / "quarantine" / "note of mine.txt").write_text("not the queue's")
    limits = Retention(quarantine_max_bytes=2 * size + 1)
    before = everything(queue)
    plan = Queue.cleanup_plan(queue, limits)
    assert everything(queue) == before
    with Queue.open_publisher(queue, keeper=False, retention=limits) as writer:
        report = writer.cleanup()
    for told in (plan, report):
        assert (told.quarantine_files, told.quarantine_bytes) == (2, 2 * size)
        assert (told.quarantine_deleted_files, told.quarantine_deleted_bytes) == (2, 2 * size)
    assert Queue.quarantine(queue) == files[2:]
    assert (queue / "quarantine" / "note of mine.txt").exists()
    plan = Queue.cleanup_plan(queue, Retention(quarantine_max_bytes=1))
    assert (plan.quarantine_files, plan.quarantine_deleted_files) == (1, 1)  # the newest is never too much


def test_a_limit_of_age(queue: Path) -> None:
    empty(queue)
    crash_and_open(queue, 2)
    assert Queue.cleanup_plan(queue, Retention(quarantine_max_age=3600)).quarantine_deleted_files == 0
    os.utime(queue / "quarantine" / Queue.quarantine(queue)[0].name, (0, 0))  # when it was put there, is not that
    assert Queue.cleanup_plan(queue, Retention(quarantine_max_age=3600)).quarantine_deleted_files == 0
    with Queue.open_publisher(queue, keeper=False, retention=Retention(quarantine_max_age=0.001)) as writer:
        while writer.cleanup().quarantine_files:
            pass
    assert Queue.quarantine(queue) == []


def test_it_counts_as_use_of_the_disk(queue: Path) -> None:
    """Where a limit in bytes is for the whole queue."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        while writer.stats().rolls < 7:
            writer.append(bytes(10_000))
    assert Queue.cleanup_plan(queue, Retention(max_bytes=8 * SEGMENT)).deleted_segments == 0
    assert Queue.cleanup_plan(queue, Retention(max_segments=8)).deleted_segments == 0
    crash_and_open(queue)
    assert Queue.cleanup_plan(queue, Retention(max_bytes=8 * SEGMENT)).deleted_segments == 1
    assert Queue.cleanup_plan(queue, Retention(max_segments=8)).deleted_segments == 0
    with Queue.open_publisher(queue, keeper=False, retention=Retention(max_bytes=8 * SEGMENT)) as writer:
        assert writer.cleanup().deleted_segments == 1


def test_back_pressure_counts_it(queue: Path) -> None:
    empty(queue)
    crash_and_open(queue)
    for max_bytes, segments in ((5 * SEGMENT, 4), (3 * SEGMENT, 2), (2 * SEGMENT, 2)):
        with Queue.open_publisher(queue, keeper=False, max_bytes=max_bytes) as writer:
            with pytest.raises(QueueFull):
                for _ in range(100):
                    writer.append(bytes(10_000))
            assert len(Queue.segments(queue)) == segments
        with Queue.open_publisher(queue, keeper=False, retention=Retention(max_segments=1)) as writer:
            writer.cleanup()


def test_a_directory_in_it_is_nobodys_business(queue: Path) -> None:
    """A directory under a segment's name is moved there as it is; no limit deletes what is in it."""
    make(queue)
    name = segment(queue, 1).name
    segment(queue, 1).unlink()
    (queue / name).mkdir()
    (queue / name / "precious").write_text("mine")
    Queue.repair(queue)
    (file,) = Queue.quarantine(queue)
    assert (queue / "quarantine" / file.name / "precious").read_text() == "mine"
    with pytest.raises(c.ChronicleError):
        Queue.read_quarantine(queue, file.name, print)
