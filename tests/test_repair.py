# SPDX-License-Identifier: MIT
"""What readers and the next writer make of damage: skipped, cut off and kept, refused, never passed over."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.damage import SEGMENT, crc32c, make, patch, patch_header, read_all, restart, segment


def test_skip_damaged(queue: Path) -> None:
    payloads = make(queue)
    names = sorted(queue.glob("*.seg"))
    patch(names[0], 8192 + 4, b"\xff")  # seq 0
    patch(names[1], 8192 + 40, b"\xff" * 8)  # the first record of the second segment
    broken = [0, int(names[1].stem)]
    seen = []
    with Queue.open_subscriber(queue) as reader:
        assert reader.skip_damaged() == 1
        while True:
            try:
                message = reader.next()
            except c.Corrupt as damage:
                assert damage.seq == reader.position
                assert damage.file == names[1].name
                assert damage.offset == 8192
                assert reader.skip_damaged() == 1
                continue
            if message is None:
                break
            assert message.payload == payloads[message.seq]
            seen.append(message.seq)
        assert reader.skip_damaged() == 0
        assert reader.stats().skipped == 2
    assert seen == [seq for seq in range(len(payloads)) if seq not in broken]
    problems = Queue.verify(queue).problems
    assert [(problem.kind, problem.seq, problem.seq_end) for problem in problems] == [
        ("record", seq, seq + 1) for seq in broken
    ]


def test_durable_damage_refuses_the_writer_until_repair(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for _ in range(10):
            writer.append(b"x")
        writer.sync()
    patch(segment(queue), 8192 + 3 * 64 + 32, b"y")
    before = {file: file.read_bytes() for file in queue.rglob("*.seg")}
    with pytest.raises(c.Corrupt, match="repair") as caught:
        Queue.open_publisher(queue)
    assert caught.value.seq == 3
    assert {file: file.read_bytes() for file in queue.rglob("*.seg")} == before
    with pytest.warns(c.RecoveryWarning, match="1 records in 1 gaps"):
        writer = Queue.open_publisher(queue, repair=True, keeper=False)
    with writer:
        assert writer.append(b"x") == 10  # what is whole stays, and no seq is given away again
        assert (writer.recovery.gaps, writer.recovery.gap_records, writer.recovery.cut_bytes) == (1, 1, 0)
    assert Queue.verify(queue).ok
    with Queue.open_publisher(queue, keeper=False) as writer:  # it lasts
        assert writer.recovery.loss() is None
    with Queue.open_subscriber(queue, on_gap="oldest") as reader:
        assert [message.seq for message in reader] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
        assert (reader.stats().gaps, reader.stats().skipped) == (1, 1)
    with Queue.open_subscriber(queue, start=3) as reader:
        with pytest.raises(c.SegmentGone, match="repair has accepted") as gone:
            reader.next()
        assert gone.value.oldest == 4
        assert reader.skip_damaged() == 1
        assert reader.next().seq == 4  # type: ignore[union-attr]


def test_torn_tail_is_cut_and_kept(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for _ in range(4):
            writer.append(b"good")
    torn = struct.pack("<IIQQHHI", 1001, 0xBAD, 4, 0, 0, 0, 1) + b"torn"  # the sectors behind were not written
    patch(segment(queue), 8192 + 4 * 64, torn)
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["tail"]
    with Queue.open_subscriber(queue) as reader:
        with pytest.raises(c.Corrupt):
            list(reader)
        assert reader.position == 4
    with pytest.raises(c.Corrupt, match="Nothing was changed"):  # this boot has seen no loss of power
        Queue.open_publisher(queue, keeper=False)
    restart(queue)
    with pytest.warns(c.RecoveryWarning, match="quarantine"):
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:
        assert writer.next_seq == 4
        assert writer.recovery.cut_bytes >= len(torn)
        writer.append(b"good")
    (kept,) = (queue / "quarantine").iterdir()
    assert kept.read_bytes()[4096:].startswith(torn)
    assert read_all(queue) == [b"good"] * 5
    assert Queue.verify(queue).ok


def test_a_whole_record_in_the_wrong_place(queue: Path) -> None:
    """Its CRC is right, but it is not the record that must come next."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(6):
            writer.append(b"record %d" % i)
    other = segment(queue).read_bytes()[8192 + 4 * 64 : 8192 + 5 * 64]
    patch(segment(queue), 8192 + 2 * 64, other)
    with Queue.open_subscriber(queue) as reader:
        assert [message.seq for _, message in zip(range(2), reader, strict=False)] == [0, 1]
        with pytest.raises(c.Corrupt, match="another seq"):
            reader.next()
        assert reader.skip_damaged() == 1
        assert [message.payload for message in reader] == [b"record 3", b"record 4", b"record 5"]
    assert [(problem.kind, problem.seq) for problem in Queue.verify(queue).problems] == [("record", 2)]


def test_a_commit_that_was_cut_off_leaves_the_one_before(queue: Path) -> None:
    make(queue)
    with Queue.open_subscriber(queue, "twice", start=3) as reader:
        for _ in range(5):
            reader.commit()
            reader.next()
    file = queue / "readers" / "twice.pos"
    slots = {struct.unpack("<Q", file.read_bytes()[at : at + 8])[0]: at for at in (512, 1024)}
    assert sorted(slots) == [5, 6]  # generation 1 said "no position yet"
    patch(file, slots[6] + 8, b"\xff")
    with Queue.open_subscriber(queue, "twice") as reader:
        assert reader.position == 6  # that of the fourth commit; the fifth was at 7


def test_a_hole_before_a_later_segment(queue: Path) -> None:
    """As a loss of power may leave it: the end of the first segment is missing, the second one is there."""
    make(queue, segments=2)
    second = Queue.segments(queue)[1]
    patch(queue / "queue.meta", 512, bytes(64))  # nothing durable, no clean close: the slot of the creation is left
    patch(queue / "queue.meta", 1024, bytes(64))
    with segment(queue).open("r+b") as file:
        file.seek(128)
        file.write(bytes(64))
    data = segment(queue).read_bytes()
    at, seqs = 8192, 0
    while seqs < 5:
        at += (32 + struct.unpack_from("<I", data, at)[0] - 1 + 31) // 32 * 32
        seqs += 1
    patch(segment(queue), at, bytes(SEGMENT - at))
    with Queue.open_subscriber(queue) as reader:
        assert [message.seq for _, message in zip(range(5), reader, strict=False)] == [0, 1, 2, 3, 4]
        for _ in range(3):
            with pytest.raises(c.Corrupt, match="a later segment"):
                reader.next()
        assert reader.skip_damaged() == second.base_seq - 5
        message = reader.next()
        assert message is not None
        assert message.seq == second.base_seq


def test_an_end_of_an_earlier_epoch_is_no_end(queue: Path) -> None:
    make(queue, segments=2)
    end = Queue.segments(queue)[0].used_bytes
    header = bytearray(segment(queue).read_bytes()[end : end + 32])
    header[28:32] = bytes(4)
    header[4:8] = struct.pack("<I", crc32c(bytes(header[:4] + header[8:])))
    patch(segment(queue), end, bytes(header))
    with Queue.open_subscriber(queue) as reader, pytest.raises(c.Corrupt, match="earlier epoch"):
        list(reader)
    assert not Queue.verify(queue).ok


@pytest.mark.parametrize("what", ["another seq", "place of the segment's first", "does not follow", "missing"])
def test_an_end_that_cannot_be(queue: Path, what: str) -> None:
    """With a right CRC, as a bug in a writer may leave it: an error, and the reader stays where it is."""
    make(queue, segments=3)
    first, second, third = Queue.segments(queue)
    end = bytearray(segment(queue).read_bytes()[first.used_bytes : first.used_bytes + 32])
    if what == "does not follow":
        patch_header(segment(queue, 1), 64, struct.pack("<Q", third.base_seq))
    elif what == "missing":
        segment(queue, 1).unlink()
    else:
        at = first.used_bytes if what == "another seq" else 8192
        end[8:16] = struct.pack("<Q", third.base_seq if what == "another seq" else 0)
        end[4:8] = struct.pack("<I", crc32c(bytes(end[:4] + end[8:])))
        patch(segment(queue), at, bytes(end))
    seen: list[int] = []
    with Queue.open_subscriber(queue) as reader:
        for _ in range(2):
            with pytest.raises(c.Corrupt, match=what):
                seen.extend(message.seq for message in reader)
        assert reader.position == len(seen) == (0 if "place" in what else second.base_seq)
    assert not Queue.verify(queue).ok


@pytest.mark.parametrize("how", ["altered", "erased", "an earlier epoch"])
def test_skipping_a_damaged_end_loses_no_record(queue: Path, how: str) -> None:
    payloads = make(queue)
    end = Queue.segments(queue)[0].used_bytes
    header = bytearray(segment(queue).read_bytes()[end : end + 32])
    if how == "altered":
        header[20] ^= 1
    elif how == "erased":
        header[:] = bytes(32)
    else:
        header[28:32] = bytes(4)
        header[4:8] = struct.pack("<I", crc32c(bytes(header[:4] + header[8:])))
    patch(segment(queue), end, bytes(header))
    seen: list[bytes] = []
    with Queue.open_subscriber(queue) as reader:
        with pytest.raises(c.Corrupt):
            seen.extend(message.payload for message in reader)
        assert reader.skip_damaged() == 0  # record seq is fine: it stands in the next segment
        seen += [message.payload for message in reader]
    assert seen == payloads


def test_an_end_that_was_taken_back_stays_so(queue: Path) -> None:
    """Two losses of power: the first takes a segment away that END leads to; the second must not bring END back.

    What recovery zeroes has to be synced, each page of it.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    make(queue, segments=2)
    segment(queue, 1).unlink()
    patch(queue / "queue.meta", 512, bytes(64))
    (queue / "readers" / "me.pos").unlink()
    code = "import sys; from chronicle_ffi import Queue; Queue.open_publisher(sys.argv[1], keeper=False).close()"
    trace = queue.parent / "trace"
    command = ["strace", "-f", "-e", "trace=msync", "-o", str(trace), sys.executable, "-c", code, str(queue)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here")
    assert trace.read_text().count("msync(") >= 3  # the END, the seal, queue.meta


def test_zombies_of_an_earlier_epoch_stay_dead(queue: Path) -> None:
    """A record of the right seq and CRC, but of an older epoch than the one before it, is no record."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for _ in range(3):
            writer.append(b"same length")
    zombie = segment(queue).read_bytes()[8192 + 2 * 64 : 8192 + 3 * 64]
    patch(segment(queue), 8192 + 64, bytes(128))  # records 1 and 2 are lost
    restart(queue)
    with pytest.warns(c.RecoveryWarning, match="2 records that the last writer had appended"):
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:
        assert writer.append(b"same length") == 1
    patch(segment(queue), 8192 + 2 * 64, zombie)
    with Queue.open_subscriber(queue) as reader:
        assert [message.seq for _, message in zip(range(2), reader, strict=False)] == [0, 1]
        with pytest.raises(c.Corrupt, match="epoch"):
            reader.next()
        with pytest.raises(c.Corrupt, match="nothing readable"):
            reader.skip_damaged()  # 0 would say that the record is fine
    restart(queue)
    with pytest.warns(c.RecoveryWarning):
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:
        assert writer.next_seq == 2


def patch_slot(path: Path, offset: int, value: int) -> None:
    """Change a number in the newest slot of queue.meta, and make its CRC right again."""
    meta = (path / "queue.meta").read_bytes()
    at = max((512, 1024), key=lambda slot: int(struct.unpack_from("<Q", meta, slot)[0]))
    slot = bytearray(meta[at : at + 64])
    struct.pack_into("<Q", slot, offset, value)
    struct.pack_into("<I", slot, 60, crc32c(bytes(slot[:60])))
    patch(path / "queue.meta", at, bytes(slot))


def test_epochs_and_seqs_that_cannot_be_counted_on(queue: Path) -> None:
    """Behind epoch 2^32 - 1 records would pass for remnants; behind seq 2^63 - 1 appends would look like errors."""
    for epoch in ((1 << 32) - 1, 1 << 32, (1 << 64) - 2):
        payloads = make(queue)
        patch_slot(queue, 24, epoch)
        with pytest.raises(c.Corrupt, match="epoch"):
            Queue.open_publisher(queue)
        assert read_all(queue) == payloads
        shutil.rmtree(queue)
    Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).close()
    patch_slot(queue, 8, 0)
    patch_header(segment(queue), 56, struct.pack("<Q", 1 << 63))
    segment(queue).rename(queue / f"{1 << 63}.seg".zfill(24))
    with pytest.raises(c.Corrupt, match="seq"):
        Queue.open_publisher(queue)


def test_bytes_made_to_keep_a_search_busy(queue: Path) -> None:
    """Behind damage every 32 bytes could begin a record as long as the rest: to sum all of them up would take hours."""
    size = 32 << 20
    with Queue.open_publisher(queue, segment_size=size, keeper=False) as writer:
        writer.append(b"a")
    begin, end = 8192 + 64, size - 32
    fakes = [struct.pack("<IIQQHHI", end - at - 31, 1, 2, 0, 0, 0, 1) for at in range(begin + 32, end - 32, 32)]
    patch(segment(queue), begin, b"\x05" + bytes(31) + b"".join(fakes))
    restart(queue)
    code = """
        import sys, chronicle_ffi as c
        from chronicle_ffi import Queue
        assert not Queue.verify(sys.argv[1]).ok
        with Queue.open_subscriber(sys.argv[1]) as reader:
            try:
                reader.next()
                reader.skip_damaged()
            except c.Corrupt:
                print("nothing to be found")
        with Queue.open_publisher(sys.argv[1], keeper=False) as writer:
            assert writer.next_seq == 1 and writer.recovery.cut_bytes > 0
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(queue)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "nothing to be found\n"), done.stderr


def test_a_directory_with_other_things_does_not_become_a_queue(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(c.InvalidArgument, match="there is letter.txt"):
        Queue.open_publisher(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_the_root_of_a_fresh_volume_becomes_a_queue(tmp_path: Path) -> None:
    for name in ("lost+found", ".nfs0001"):
        (tmp_path / name).mkdir()
    with Queue.open_publisher(tmp_path) as writer:
        writer.append(b"x")
    assert read_all(tmp_path) == [b"x"]
    assert Queue.verify(tmp_path).ok


def test_history_rewritten_under_an_open_reader(queue: Path) -> None:
    """The record it read last is cut off by a recovery, and another one of the same size takes its place."""
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for i in range(5):
            writer.append(b"first %d" % i)
    with Queue.open_subscriber(queue) as reader:
        assert len(list(reader)) == 5
        with next(queue.glob("*.seg")).open("r+b") as file:
            file.seek(8192 + 4 * 64 + 35)
            file.write(b"?")
        restart(queue)
        with pytest.warns(c.RecoveryWarning):
            writer = Queue.open_publisher(queue, keeper=False)
        with writer:
            assert writer.append(b"other 4") == 4
            assert writer.append(b"other 5") == 5
        with pytest.raises(c.HistoryRewritten) as caught:
            reader.next()
        assert caught.value.seq == 4
        reader.seek(4)
        assert [message.payload for message in reader] == [b"other 4", b"other 5"]


def test_history_rewritten_where_a_reader_had_skipped_to(queue: Path) -> None:
    """It passed over damage to the next segment, and has not looked at that one when a recovery sets it aside."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 100)
    first = segment(queue)
    at = 8192 + 53 * 1056
    patch(first, at, bytes(SEGMENT - at))
    with Queue.open_subscriber(queue, start=53) as reader:
        assert reader.skip_damaged() == 1
        restart(queue)
        with pytest.warns(c.RecoveryWarning, match="1 later segments, with 46 whole records"):
            writer = Queue.open_publisher(queue, keeper=False)
        with writer:
            assert writer.next_seq == 53
            with pytest.raises(c.HistoryRewritten) as caught:
                reader.next()
            assert (caught.value.seq, caught.value.next_seq) == (53, 53)
            reader.seek_latest()
            assert writer.append(b"y") == 53
            assert [message.payload for message in reader] == [b"y"]
