# SPDX-License-Identifier: MIT
"""Any bytes in any file: the right data or a typed error, never a crash, a hang or a wrong payload."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.damage import SEGMENT, make, patch, patch_header, read_all, restart, segment

HEADER_VERSION, HEADER_INCOMPAT, HEADER_UUID = 8, 16, 24


# ------------------------------------------------------------------------------------- each single byte

FLIP = """
import sys, json
from pathlib import Path
import chronicle_ffi as c
from chronicle_ffi import Queue

path, file, begin, end, step = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
payloads = json.loads(sys.stdin.read())
bits = [1, 0x80, 0xFF]
for offset in range(begin, end, step):
    with open(path / file, "r+b", buffering=0) as f:
        f.seek(offset)
        before = f.read(1)
        f.seek(offset)
        f.write(bytes([before[0] ^ bits[offset % 3]]))
    try:
        verified = True
        try:
            verified = Queue.verify(path).ok
        except c.ChronicleError:
            verified = False
        complete = False
        for name in (None, "me"):
            try:
                with Queue.open_subscriber(path, name) as reader:
                    seen = []
                    for message in reader:
                        if message.payload.decode() != payloads[message.seq]:
                            sys.exit(f"wrong payload: {file} {offset} seq {message.seq}")
                        seen.append(message.seq)
                    if seen != list(range(seen[0] if seen else 0, (seen[0] if seen else 0) + len(seen))):
                        sys.exit(f"gap: {file} {offset} {seen}")
                    complete = seen[-1:] == [len(payloads) - 1]
            except c.ChronicleError:
                complete = False
            if name is None and not complete and verified:
                sys.exit(f"verify did not notice: {file} {offset}")
        try:
            Queue.info(path), Queue.segments(path), Queue.readers(path), Queue.cleanup_plan(path)
        except c.ChronicleError:
            pass
    finally:
        with open(path / file, "r+b", buffering=0) as f:
            f.seek(offset)
            f.write(before)
print("done")
"""


def flip_every(path: Path, payloads: list[bytes], file: str, begin: int, end: int, step: int = 1) -> None:
    """In a process of its own, so that a crash is a failure of this test and not of the whole run."""
    done = subprocess.run(
        [sys.executable, "-c", FLIP, path, file, str(begin), str(end), str(step)],
        input=json.dumps([payload.decode() for payload in payloads]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


def test_every_byte_of_the_small_files(queue: Path) -> None:
    payloads = make(queue)
    for file, end in [("queue.meta", 1100), ("doorbell", 600), ("readers/me.pos", 1100), ("writer.lock", 256)]:
        flip_every(queue, payloads, file, 0, end)


def test_every_byte_of_a_segments_header_and_index(queue: Path) -> None:
    payloads = make(queue)
    for index in (0, 2):
        flip_every(queue, payloads, segment(queue, index).name, 0, 200)
        flip_every(queue, payloads, segment(queue, index).name, 4096, 4104)


def test_every_byte_of_records(queue: Path) -> None:
    """Every byte of the last segment's records: headers, payloads, and what lies behind the tail."""
    payloads = [b"abc", b"", b"x" * 33, b"d" * 100, b"last"]
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for payload in payloads:
            writer.append(payload)
    with Queue.open_subscriber(queue, "me", start=2) as reader:
        reader.commit()
    flip_every(queue, payloads, segment(queue).name, 8192, 8192 + 600)


def test_bytes_here_and_there(queue: Path) -> None:
    payloads = make(queue)
    for index in (0, 1, 2):
        flip_every(queue, payloads, segment(queue, index).name, 8192 + index, SEGMENT, step=499)


def test_random_garbage_in_every_file(queue: Path, tmp_path: Path) -> None:
    payloads = make(queue)
    dice = random.Random(1)
    for round_ in range(60):
        copy = tmp_path / f"copy{round_}"
        shutil.copytree(queue, copy)
        for file in dice.sample([f for f in copy.rglob("*") if f.is_file()], 2):
            size = file.stat().st_size
            for _ in range(dice.randrange(1, 6)):
                patch(file, dice.randrange(size), dice.randbytes(dice.choice([1, 4, 32, 500])))
            os.truncate(file, size)
        try:
            with Queue.open_subscriber(copy) as reader:
                for message in reader:
                    assert message.payload == payloads[message.seq]
        except c.ChronicleError:
            pass
        Queue.verify(copy)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", c.RecoveryWarning)
                Queue.open_publisher(copy, keeper=False, repair=True).close()
        except c.ChronicleError:
            continue
        with Queue.open_subscriber(copy, on_gap="oldest") as reader:
            for message in reader:
                assert message.payload == payloads[message.seq]
        shutil.rmtree(copy)


# -------------------------------------------------------------------------------------- files as a whole


def become_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def truncate_to(size: int) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, size)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (truncate_to(0), c.Corrupt),
        (truncate_to(100), c.Corrupt),
        (truncate_to(SEGMENT - 4096), c.Corrupt),
        (truncate_to(SEGMENT + 4096), c.Corrupt),
        (lambda file: file.write_bytes(b"this is not a segment" * 5000), c.Corrupt),
        (lambda file: patch_header(file, HEADER_UUID, b"x" * 16), c.Corrupt),
        (lambda file: patch_header(file, HEADER_VERSION, b"\x02\0\0\0"), c.UnsupportedFormat),
        (lambda file: patch_header(file, HEADER_INCOMPAT, b"\0\0\0\x80"), c.UnsupportedFormat),
        (lambda file: (file.unlink(), file.mkdir()), c.ChronicleError),
        (lambda file: (file.rename(file.with_suffix(".x")), file.symlink_to(file.with_suffix(".x"))), c.ChronicleError),
        (become_fifo, c.ChronicleError),
    ],
    ids=["empty", "100 bytes", "cut", "longer", "garbage", "uuid", "version", "incompat", "directory", "link", "fifo"],
)
def test_a_segment_that_is_none(queue: Path, change: Callable[[Path], None], error: type[Exception]) -> None:
    payloads = make(queue)
    change(segment(queue, 1))
    with pytest.raises(error) as caught:
        read_all(queue)
    assert segment(queue, 1).name in str(caught.value)
    report = Queue.verify(queue)
    assert not report.ok
    assert any(problem.file == segment(queue, 1).name for problem in report.problems)
    with Queue.open_subscriber(queue) as reader:  # what is whole can be read
        first = [message.payload for _, message in zip(range(5), reader, strict=False)]
    assert first == payloads[:5]


def test_unknown_compat_flags_and_newer_queue_meta(queue: Path) -> None:
    make(queue)
    patch_header(queue / "queue.meta", 12, b"\x01\0\0\0")  # compat: may be ignored
    assert Queue.info(queue).segments == 3
    patch_header(queue / "queue.meta", HEADER_VERSION, b"\x02\0\0\0")
    for call in (Queue.info, Queue.verify, Queue.open_subscriber, Queue.open_publisher):
        with pytest.raises(c.UnsupportedFormat) as caught:
            call(queue)
        assert "newer" in str(caught.value)


@pytest.mark.parametrize("size", [0, 50, 4095])
def test_queue_meta_cut_short(queue: Path, size: int) -> None:
    make(queue)
    os.truncate(queue / "queue.meta", size)
    with pytest.raises(c.Corrupt, match=r"queue\.meta .*repair the queue, which makes queue\.meta anew") as refused:
        Queue.open_publisher(queue)
    assert refused.value.file == "queue.meta"
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["meta"]


def test_queue_meta_missing(queue: Path) -> None:
    make(queue)
    (queue / "queue.meta").unlink()
    with pytest.raises(c.Corrupt, match="which was lost"):
        Queue.open_publisher(queue)


def test_damaged_position(queue: Path) -> None:
    make(queue)
    patch(queue / "readers" / "me.pos", 512, b"\xff" * 64)
    patch(queue / "readers" / "me.pos", 1024, b"\xff" * 64)
    with pytest.raises(c.Corrupt, match="other than resume"):
        Queue.open_subscriber(queue, "me")
    assert Queue.readers(queue)[0].damaged
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["position"]
    plan = Queue.cleanup_plan(queue)
    assert plan.deleted_segments == 0
    assert "damaged" in plan.segments[0].reason
    with Queue.open_subscriber(queue, "me", start="earliest") as reader:
        reader.commit()
    assert Queue.verify(queue).ok


def test_history_rewritten_behind_a_reader(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for _ in range(10):
            writer.append(b"old")
    with Queue.open_subscriber(queue, "me", start="latest") as reader:
        reader.commit()
    # As after a loss of power: records 5 to 9 never reached the disk, and the next writer made others.
    patch(segment(queue), 8192 + 5 * 64, bytes(5 * 64))
    restart(queue)
    with pytest.warns(c.RecoveryWarning, match="5 records that the last writer had appended are missing"):
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:
        assert writer.recovery.lost_records == 5
        with pytest.raises(c.HistoryRewritten) as caught:
            Queue.open_subscriber(queue, "me")
        assert (caught.value.seq, caught.value.next_seq) == (9, 5)
        for _ in range(10):
            writer.append(b"new")
    with pytest.raises(c.HistoryRewritten) as caught:
        Queue.open_subscriber(queue, "me")
    assert isinstance(caught.value, LookupError)
    assert (caught.value.seq, caught.value.next_seq) == (9, 5)
    assert {problem.kind for problem in Queue.verify(queue).problems} == {"position"}
    Queue.open_subscriber(queue, "me", start="earliest").close()
