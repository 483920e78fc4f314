# SPDX-License-Identifier: MIT
"""What an opening believes: this boot and place, another boot, a copy. Nothing is changed before the verdict."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, QueueWriter
from tests.damage import crc32c, patch, restart, segment

SEGMENT = 1 << 18
DATA = 8192  # where records begin in a segment of this size
SMALL, LARGE = 96, 2080  # bytes of a record with 60 and 2040 of payload
FIRST = (SEGMENT - DATA - 32) // LARGE  # large records in one segment


def payload(seq: int, size: int) -> bytes:
    return (b"%d." % seq * size)[:size]


def fill(path: Path, count: int, size: int, *, close: bool = True, sync: int | None = None) -> None:
    """A process writes `count` records, puts the first `sync` on disk, and closes or dies."""
    child = os.fork()
    if child == 0:
        try:
            writer = Queue.open_publisher(path, segment_size=SEGMENT, keeper=False)
            for seq in range(count):
                writer.append(payload(seq, size))
                if seq + 1 == sync:
                    writer.sync()
            if close:
                writer.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def another_boot(path: Path) -> None:
    """As if the machine had been started again since: the boot that queue.meta names is another one."""
    meta = (path / "queue.meta").read_bytes()
    for slot in (512 + 64, 1024 + 64):
        identity = bytearray(meta[slot : slot + 64])
        if any(identity):
            identity[0] ^= 0xFF
            struct.pack_into("<I", identity, 60, crc32c(bytes(identity[:60])))
            patch(path / "queue.meta", slot, bytes(identity))


def everything(path: Path) -> dict[str, str]:
    """All that is in the queue, but for the line for people in writer.lock."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "writer.lock")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def refused(path: Path, match: str, **options: object) -> None:
    before = everything(path)
    with pytest.raises(c.Corrupt, match=match):
        Queue.open_publisher(path, keeper=False, **options)  # type: ignore[arg-type]
    assert everything(path) == before, "something was changed before the verdict"


def opened(path: Path, *, warns: bool = False, **options: object) -> QueueWriter:
    if not warns:
        return Queue.open_publisher(path, keeper=False, **options)  # type: ignore[arg-type]
    with pytest.warns(c.RecoveryWarning):
        return Queue.open_publisher(path, keeper=False, **options)  # type: ignore[arg-type]


def flip(path: Path, seq: int, size: int, index: int = 0, first: int = 0) -> None:
    """One bit in the payload of a record."""
    at = DATA + (seq - first) * size + 40
    patch(segment(path, index), at, bytes([segment(path, index).read_bytes()[at] ^ 1]))


def erase(path: Path, seq: int, size: int, *, index: int = 0, first: int = 0, bytes_: int | None = None) -> None:
    """Zeros from the beginning of a record on: all of it, or so many bytes."""
    patch(segment(path, index), DATA + (seq - first) * size, bytes(size if bytes_ is None else bytes_))


# ----------------------------------------------------------------------- the same boot, the same place


@pytest.mark.parametrize("close", [True, False])
def test_one_flipped_bit_cuts_nothing(queue: Path, close: bool) -> None:
    """The worst that was found in the first release: 199,990 records cut without a word."""
    fill(queue, 1000, 60, close=close)
    flip(queue, 10, SMALL)
    refused(queue, "seq 10: its CRC does not match. Nothing was changed")
    refused(queue, "seq 10", torn="cut")
    with opened(queue, warns=True, repair=True) as writer:
        assert (writer.next_seq, writer.recovery.gaps, writer.recovery.gap_records) == (1000, 1, 1)
    with opened(queue) as writer:
        assert writer.append(b"goes on") == 1000
    with Queue.open_subscriber(queue, on_gap="oldest") as reader:
        assert [message.seq for message in reader] == [seq for seq in range(1001) if seq != 10]


def test_damage_in_an_older_segment_does_not_stop_the_writer(queue: Path) -> None:
    """It is not looked for there: readers and verify name it, and nothing behind it is touched."""
    fill(queue, 2 * FIRST + 5, 2040)
    flip(queue, 3, LARGE)
    with opened(queue) as writer:
        assert writer.append(b"x") == 2 * FIRST + 5
        assert writer.recovery.scanned_records == 5
    assert [problem.seq for problem in Queue.verify(queue).problems] == [3]


@pytest.mark.parametrize("seq", [0, 500, 999])
def test_an_erased_record_of_a_closed_queue(queue: Path, seq: int) -> None:
    fill(queue, 1000, 60)
    erase(queue, seq, SMALL)
    refused(queue, f"seq {seq}: nothing stands there")


def test_an_erased_commit_word_far_from_the_end(queue: Path) -> None:
    """The writer died, so it did not say where the log ends; but an index entry was stored behind the hole."""
    fill(queue, 1000, 60, close=False)
    erase(queue, 100, SMALL, bytes_=4)
    refused(queue, "seq 100: nothing stands there")


def announce_group(queue: Path, seq: int) -> None:
    """The writer says that it places a batch from there on."""
    patch(queue / "queue.meta", 1536 + 16, struct.pack("<I", (DATA + seq * SMALL) // 32))


def test_what_a_dying_writer_had_not_published_is_erased(queue: Path) -> None:
    """A batch without its first commit word, within what the writer had announced: nobody has ever seen it."""
    fill(queue, 1000, 60, close=False)
    erase(queue, 998, SMALL, bytes_=4)
    announce_group(queue, 998)
    with opened(queue) as writer:
        assert writer.next_seq == 998
        assert writer.recovery.unfinished_bytes > 0
        assert (writer.recovery.cut_bytes, writer.recovery.quarantined) == (0, False)
        assert writer.append(b"x") == 998
    assert Queue.verify(queue).ok


@pytest.mark.parametrize("announced", [False, True])
def test_an_erased_commit_word_close_to_the_end(queue: Path, announced: bool) -> None:
    """Records that were appended one by one: none of those behind was placed before the one in front could be seen."""
    fill(queue, 1000, 60, close=False)
    erase(queue, 990, SMALL, bytes_=4)
    if announced:
        announce_group(queue, 980)  # another one, long since published
    refused(queue, "seq 990: nothing stands there")
    with opened(queue, warns=True, repair=True) as writer:
        assert (writer.next_seq, writer.recovery.gap_records) == (1000, 1)


@pytest.mark.parametrize("seq", [998, 999])
def test_what_a_reader_has_read_was_published(queue: Path, seq: int) -> None:
    fill(queue, 1000, 60, close=False)
    with Queue.open_subscriber(queue, "me", start="latest") as reader:
        reader.commit()
    erase(queue, seq, SMALL, bytes_=4)
    announce_group(queue, seq)
    refused(queue, f"seq {seq}: nothing stands there")


@pytest.mark.parametrize("undone", [False, True])
def test_a_reader_has_read_what_left_no_trace(queue: Path, undone: bool) -> None:
    fill(queue, 100, 60, close=False)
    with Queue.open_subscriber(queue, "me", start="latest") as reader:
        reader.commit()
    patch(segment(queue), DATA + 50 * SMALL, bytes(50 * SMALL))
    if not undone:
        refused(queue, "seq 50: nothing stands there")
        return
    another_boot(queue)  # a loss of power leaves just that, and the position is marked
    with opened(queue) as writer:
        assert writer.append(b"x") == 50
    fill(queue, 1, 60, close=False)
    with opened(queue) as writer:
        assert writer.next_seq == 52


def test_pages_without_a_record_behind_them(queue: Path) -> None:
    """All records from one on are gone, as after a failed write-back; the index tells that there were more."""
    fill(queue, 1000, 60, close=False)
    patch(segment(queue), DATA + 600 * SMALL, bytes(400 * SMALL))
    refused(queue, "seq 600: nothing stands there")


@pytest.mark.parametrize(("block", "entry"), [(0, DATA // 32 | 1 << 10), (1, 1 << 12)])
def test_one_flipped_bit_of_the_index_is_no_entry(queue: Path, block: int, entry: int) -> None:
    fill(queue, 300, 60, close=False)
    patch(segment(queue), 4096 + 4 * block, struct.pack("<I", entry))
    with opened(queue) as writer:
        assert writer.next_seq == 300


def test_a_record_behind_all_that_was_announced(queue: Path) -> None:
    """Where this writer has never been: that is no unfinished append. If its seq fits, the end in front is a hole."""
    fill(queue, 1000, 60, close=False)
    for seq, fits in ((999, False), (1002, True)):
        words = struct.pack("<QQHHI", seq, 0, 0, 0, 1) + b"payload."
        commit = struct.pack("<I", 9)
        record = commit + struct.pack("<I", crc32c(commit + words)) + words
        patch(segment(queue), DATA + 1000 * SMALL + 65536 * 2, record)
        if fits:
            refused(queue, "seq 1000: nothing stands there")
        else:
            with opened(queue, warns=True) as writer:
                assert (writer.next_seq, writer.recovery.quarantined) == (1000, True)
            fill(queue, 0, 60, close=False)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_segment_is_missing(queue: Path, which: int) -> None:
    fill(queue, 3 * FIRST + 5, 2040)
    end = Queue.info(queue).next_seq
    segment(queue, which).unlink()
    if which == 0:  # as after retention
        with opened(queue) as writer:
            assert writer.next_seq == end
        return
    refused(queue, "missing")
    with opened(queue, warns=True, repair=True) as writer:
        assert writer.next_seq == end  # no seq is given away again
        assert writer.recovery.gap_records == (FIRST if which < 3 else 5)
    for _ in range(2):  # it lasts
        with opened(queue) as writer:
            writer.append(b"x")
    with Queue.open_subscriber(queue, on_gap="oldest") as reader:
        seqs = [message.seq for message in reader]
    assert seqs[-2:] == [end, end + 1]
    assert Queue.verify(queue).ok


def test_all_segments_are_missing(queue: Path) -> None:
    fill(queue, 100, 60)
    segment(queue).unlink()
    assert not Queue.verify(queue).ok
    refused(queue, "there is no segment")
    with opened(queue, warns=True, repair=True) as writer:
        assert writer.append(b"x") == 100
    with opened(queue) as writer:
        assert writer.next_seq == 101


@pytest.mark.parametrize("index", [0, 1])
def test_a_flipped_header(queue: Path, index: int) -> None:
    fill(queue, FIRST + 5, 2040)
    patch(segment(queue, index), 60, b"\xff")
    if index == 0:
        with opened(queue) as writer:  # not looked at
            assert writer.next_seq == FIRST + 5
    else:
        refused(queue, "header")
    with opened(queue, repair=True) as writer:
        assert writer.recovery.repaired_headers == 1
        assert writer.append(payload(FIRST + 5, 2040)) == FIRST + 5
    with Queue.open_subscriber(queue) as reader:
        assert [message.payload for message in reader] == [payload(seq, 2040) for seq in range(FIRST + 6)]
    assert Queue.verify(queue).ok


def test_an_opening_reads_the_last_segment_alone(queue: Path) -> None:
    fill(queue, 10 * FIRST + 7, 2040, close=False)
    with opened(queue) as writer:
        assert writer.recovery.scanned_records == 7
    with opened(queue) as writer:
        assert writer.recovery.scanned_records == 7
    another_boot(queue)
    with opened(queue) as writer:
        assert writer.recovery.scanned_records == 10 * FIRST + 7


# --------------------------------------------------------------------------------------- another boot

OTHERS = pytest.mark.parametrize("come_back", [another_boot, restart], ids=["boot", "released"])


@OTHERS
def test_a_torn_end_is_cut_and_told(queue: Path, come_back: Callable[[Path], None]) -> None:
    fill(queue, 50, 2040)
    erase(queue, 49, LARGE)
    come_back(queue)
    with opened(queue, warns=True) as writer:
        assert (writer.next_seq, writer.recovery.lost_records) == (49, 1)


@OTHERS
def test_a_torn_record_in_front_of_a_few(queue: Path, come_back: Callable[[Path], None]) -> None:
    fill(queue, 50, 2040)
    patch(segment(queue), DATA + 47 * LARGE + 512, bytes(1024))  # sectors that were not written
    come_back(queue)
    with opened(queue, warns=True) as writer:
        assert (writer.next_seq, writer.recovery.cut_records, writer.recovery.quarantined) == (47, 2, True)


@OTHERS
def test_more_good_records_behind_the_hole_than_before(queue: Path, come_back: Callable[[Path], None]) -> None:
    fill(queue, 50, 2040)
    patch(segment(queue), DATA + 5 * LARGE + 512, bytes(1024))
    come_back(queue)
    refused(queue, "44 whole records lie behind it, and only 5 before")
    other = queue.with_name("other")
    shutil.copytree(queue, other)
    with opened(other, warns=True, torn="cut") as writer:
        assert (writer.next_seq, writer.recovery.cut_records) == (5, 44)
    with opened(queue, warns=True, torn="skip") as writer:
        assert (writer.next_seq, writer.recovery.gap_records) == (50, 1)
    with opened(queue) as writer:
        assert writer.append(b"x") == 50
    with Queue.open_subscriber(queue, on_gap="oldest") as reader:
        assert [message.seq for message in reader] == [seq for seq in range(51) if seq != 5]


@OTHERS
def test_what_no_loss_of_power_leaves(queue: Path, come_back: Callable[[Path], None]) -> None:
    """A bad record whose every sector holds good ones: the sector was written, so this was altered afterwards."""
    fill(queue, 50, 60)
    flip(queue, 10, SMALL)
    come_back(queue)
    refused(queue, "seq 10: its CRC does not match", torn="cut")


@OTHERS
def test_below_the_mark_everything_has_to_be_there(queue: Path, come_back: Callable[[Path], None]) -> None:
    fill(queue, 50, 2040, close=False, sync=40)
    patch(segment(queue), DATA + 35 * LARGE + 512, bytes(1024))
    come_back(queue)
    refused(queue, "seq 35", torn="cut")
    with opened(queue, warns=True, repair=True) as writer:
        assert (writer.next_seq, writer.recovery.gap_records) == (50, 1)


@OTHERS
def test_a_header_that_did_not_reach_the_disk(queue: Path, come_back: Callable[[Path], None]) -> None:
    """Its records did: the header is made anew, from what is known elsewhere."""
    fill(queue, FIRST + 5, 2040)
    patch(segment(queue, 1), 0, bytes(4096))
    come_back(queue)
    with opened(queue) as writer:
        assert (writer.next_seq, writer.recovery.repaired_headers) == (FIRST + 5, 1)
    assert Queue.verify(queue).ok


def test_a_state_that_a_released_library_stored(queue: Path) -> None:
    """It says nothing of boot and place; what stands beside the slot is that of an earlier state."""
    fill(queue, 50, 2040)
    meta = (queue / "queue.meta").read_bytes()
    newest, other = sorted((512, 1024), key=lambda at: int(struct.unpack_from("<Q", meta, at)[0]), reverse=True)
    slot = bytearray(meta[newest : newest + 64])
    struct.pack_into("<Q", slot, 0, struct.unpack_from("<Q", slot, 0)[0] + 1)
    struct.pack_into("<I", slot, 60, crc32c(bytes(slot[:60])))
    patch(queue / "queue.meta", other, bytes(slot))
    erase(queue, 49, LARGE)
    with opened(queue, warns=True) as writer:
        assert (writer.next_seq, writer.recovery.lost_records) == (49, 1)


# -------------------------------------------------------------------------------------------- a copy


def test_a_copy_has_nothing_on_disk_yet(queue: Path) -> None:
    fill(queue, 50, 2040, sync=50)
    copy = queue.with_name("copy")
    shutil.copytree(queue, copy)
    with opened(copy) as writer:
        assert writer.recovery.copied
        assert writer.durable_seq == -1
        writer.append(b"x")
        writer.sync()
        assert writer.durable_seq == 50
    with opened(copy) as writer:
        assert not writer.recovery.copied
        assert writer.durable_seq == 50
    with opened(queue) as writer:
        assert not writer.recovery.copied
        assert writer.durable_seq == 49


def test_a_copy_of_a_live_queue_may_be_torn(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many(payload(seq, 2040) for seq in range(100))
        copy = queue.with_name("copy")
        shutil.copytree(queue, copy)
    erase(copy, 95, LARGE, bytes_=512)  # the copy passed there before the writer did, and later on behind it
    with opened(copy, warns=True) as writer:
        assert (writer.next_seq, writer.recovery.cut_records) == (95, 4)
