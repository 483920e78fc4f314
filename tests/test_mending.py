# SPDX-License-Identifier: MIT
"""What a repair makes of files that are missing, cut short, or something else: all whole records stay, and it lasts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, QueueWriter, Retention
from tests.damage import SEGMENT, crc32c, make, patch, restart, segment

DATA = 8192


def repaired(path: Path) -> QueueWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", c.RecoveryWarning)
        return Queue.open_publisher(path, keeper=False, repair=True)


def read(path: Path) -> dict[int, bytes]:
    with Queue.open_subscriber(path, on_gap="oldest") as reader:
        return {message.seq: message.payload for message in reader}


def offsets(data: bytes, base: int) -> dict[int, int]:
    """Where each record of a segment ends."""
    found: dict[int, int] = {}
    at = DATA
    while commit := int.from_bytes(data[at : at + 4], "little"):
        if data[at + 24 : at + 26] == b"\xff\xff":
            break
        at += (32 + commit - 1 + 31) // 32 * 32
        found[base + len(found)] = at
    return found


def check_it_lasts(path: Path, expected: dict[int, bytes], next_seq: int) -> None:
    """Opening, reading, verification and retention go on, whatever was given up."""
    for _ in range(2):
        with Queue.open_publisher(path, keeper=False) as writer:
            assert (writer.next_seq, writer.recovery.loss()) == (next_seq, None)
            expected[next_seq] = b"goes on"
            assert writer.append(b"goes on") == next_seq
            next_seq += 1
        assert read(path) == expected
    report = Queue.verify(path)
    assert report.ok, report.problems
    assert report.records == len(expected)
    restart(path)
    with Queue.open_publisher(path, keeper=False, retention=Retention(max_segments=1)) as writer:
        assert writer.next_seq == next_seq
        writer.cleanup()
    assert len(list(path.glob("*.seg"))) == 1
    assert Queue.verify(path).ok


# ----------------------------------------------------------------------------------- files of another size


@pytest.mark.parametrize("size", [0, 100, 4096, DATA, DATA + 40, 20_000, 4096 * 9, SEGMENT - 4096])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_segment_that_is_cut_short(queue: Path, size: int, which: int) -> None:
    """It is made whole again, and what was behind is a gap."""
    payloads = make(queue, segments=4)
    file = segment(queue, which)
    base = int(file.stem)
    ends = offsets(file.read_bytes(), base)
    behind = base + len(ends)
    kept = {seq for seq, end in ends.items() if end <= size - 32}
    os.truncate(file, size)
    if which == 3:
        with pytest.raises(c.Corrupt):
            Queue.open_publisher(queue, keeper=False)
    assert not Queue.verify(queue).ok
    with repaired(queue) as writer:
        assert writer.next_seq == len(payloads)
        assert writer.recovery.gap_records == len(ends) - len(kept)
        assert writer.recovery.repaired_files == bool(kept)
    assert all(one.stat().st_size == SEGMENT for one in queue.glob("*.seg"))
    expected = {seq: payload for seq, payload in enumerate(payloads) if not base <= seq < behind or seq in kept}
    assert read(queue) == expected
    check_it_lasts(queue, expected, len(payloads))


@pytest.mark.parametrize("which", [0, 2])
def test_a_segment_that_is_too_long(queue: Path, which: int) -> None:
    payloads = make(queue)
    with segment(queue, which).open("ab") as file:
        file.write(b"appended by somebody else")
    with repaired(queue) as writer:
        assert (writer.next_seq, writer.recovery.gaps, writer.recovery.repaired_files) == (len(payloads), 0, 1)
    (kept,) = queue.glob("quarantine/*.seg")
    assert kept.read_bytes().endswith(b"appended by somebody else")
    check_it_lasts(queue, dict(enumerate(payloads)), len(payloads))


# ------------------------------------------------------------------------------------ files that are none


def directory(file: Path) -> None:
    file.mkdir()
    (file / "inside").touch()


OTHERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: None,
    "directory": directory,
    "symlink": lambda file: file.symlink_to("/dev/null"),
    "fifo": lambda file: os.mkfifo(file),
    "text": lambda file: file.write_text("this was a segment"),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("which", [1, 3])
def test_a_segment_that_is_no_file(queue: Path, what: str, which: int) -> None:
    payloads = make(queue, segments=4)
    file = segment(queue, which)
    base, end = int(file.stem), base_of(queue, which + 1) or len(payloads)
    file.unlink()
    OTHERS[what](file)
    if which == 1 and what != "missing":
        restart(queue)  # so that it is looked at
    with pytest.raises(c.Corrupt):
        Queue.open_publisher(queue, keeper=False)
    with repaired(queue) as writer:
        assert (writer.next_seq, writer.recovery.gap_records) == (len(payloads), end - base)
    assert len(list(queue.glob("quarantine/*.seg"))) == (what != "missing")
    expected = {seq: payload for seq, payload in enumerate(payloads) if not base <= seq < end}
    check_it_lasts(queue, expected, len(payloads))


def base_of(path: Path, index: int) -> int | None:
    files = sorted(path.glob("*.seg"))
    return int(files[index].stem) if index < len(files) else None


def test_several_segments_are_missing(queue: Path) -> None:
    payloads = make(queue, segments=7)
    bases = [int(file.stem) for file in sorted(queue.glob("*.seg"))] + [len(payloads)]
    gone = (1, 2, 4, 6)
    for which in gone:
        (queue / f"{bases[which]:020}.seg").unlink()
    with repaired(queue) as writer:
        assert (writer.next_seq, writer.recovery.gaps) == (len(payloads), 3)
    lost = {seq for which in gone for seq in range(bases[which], bases[which + 1])}
    check_it_lasts(queue, {seq: p for seq, p in enumerate(payloads) if seq not in lost}, len(payloads))


@pytest.mark.parametrize("how", ["closed", "died"])
def test_all_segments_are_missing(queue: Path, how: str) -> None:
    """How many there were is known if the writer closed; that there were some, in any case."""
    pid = os.fork()
    if pid == 0:
        writer = Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False)
        writer.append_many([b"x" * 1000] * 100)
        if how == "closed":
            writer.close()
        os._exit(0)
    os.waitpid(pid, 0)
    for file in queue.glob("*.seg"):
        file.unlink()
    for _ in range(2):
        with pytest.raises(c.Corrupt, match="there is no segment"):
            Queue.open_publisher(queue, keeper=False)
    end = 100 if how == "closed" else 0
    with repaired(queue) as writer:
        assert writer.next_seq == end
    check_it_lasts(queue, {}, end)


# -------------------------------------------------------------------------------------- the list of gaps


@pytest.mark.parametrize("how", ["header", "uuid", "entry", "short", "gone", "zeroed"])
def test_the_list_of_gaps_is_damaged(queue: Path, how: str) -> None:
    """What can be read of it counts; what cannot is found again, by the next repair."""
    payloads = make(queue, segments=5)
    bases = [int(file.stem) for file in sorted(queue.glob("*.seg"))]
    for which in (1, 3):
        (queue / f"{bases[which]:020}.seg").unlink()
    repaired(queue).close()
    gaps = queue / "gaps"
    before = gaps.read_bytes()
    assert len(before) == 128 + 2 * 64
    if how == "header":
        patch(gaps, 50, b"\xff")
    elif how == "uuid":
        head = bytearray(before[:128])
        head[24] ^= 1
        head[124:128] = crc32c(bytes(head[:124])).to_bytes(4, "little")
        patch(gaps, 0, bytes(head))
    elif how == "entry":
        patch(gaps, 128 + 4, b"\xff")
    elif how == "short":
        os.truncate(gaps, 130)
    elif how == "gone":
        gaps.unlink()
    else:
        gaps.write_bytes(bytes(len(before)))
    restart(queue)
    with pytest.raises(c.Corrupt):
        Queue.open_publisher(queue, keeper=False)
    with repaired(queue) as writer:
        assert writer.next_seq == len(payloads)
    lost = {seq for which in (1, 3) for seq in range(bases[which], bases[which + 1])}
    assert len(gaps.read_bytes()) == len(before)
    check_it_lasts(queue, {seq: p for seq, p in enumerate(payloads) if seq not in lost}, len(payloads))


def test_what_retention_has_passed_leaves_the_list(queue: Path) -> None:
    make(queue, segments=6)
    segment(queue, 1).unlink()
    repaired(queue).close()
    with Queue.open_publisher(queue, keeper=False, retention=Retention(max_segments=3)) as writer:
        writer.cleanup()
    base = int(segment(queue, 1).stem)
    segment(queue, 1).unlink()
    repaired(queue).close()
    entries = (queue / "gaps").read_bytes()[128:]
    assert len(entries) == 64
    assert int.from_bytes(entries[:8], "little") == base
