# SPDX-License-Identifier: MIT
"""Advice cannot veto: a seal, an index entry, somebody's position. What cannot be read is said, with its true cause."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from pathlib import Path

import pytest

from chronicle_ffi import Queue, QueueFull, Retention
from chronicle_ffi.cli import main
from tests.children import in_child, let_others_pass
from tests.damage import SEGMENT, make, patch, segment

NOBODY, STRANGER = 65534, 1234
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_user(user: int, path: Path) -> None:
    """In a child. All on the way to `path` may be passed by anybody."""
    os.setgid(user)
    os.setuid(user)


@pytest.fixture
def shared(queue: Path) -> Path:
    """A queue of NOBODY's, with a reader of STRANGER's whose position nobody else may read."""
    let_others_pass(queue)
    queue.parent.chmod(0o777)
    os.umask(0)

    def write() -> None:
        as_user(NOBODY, queue)
        with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, mode=0o666) as writer:
            writer.append_many([bytes(1000)] * 300)
        (queue / "readers").chmod(0o777)

    def read() -> None:
        as_user(STRANGER, queue)
        with Queue.open_subscriber(queue, "stranger", start="latest", mode=0o600) as reader:
            reader.commit()

    in_child(write)
    in_child(read)
    os.umask(0o022)
    return queue


@needs_root
def test_segments_of_somebody_else(shared: Path) -> None:
    """What cannot be read is not said to be missing, and nobody is advised to do what was just done."""
    for file in shared.glob("*.seg"):
        file.chmod(0o600)

    def look() -> None:
        as_user(STRANGER, shared)
        problems = Queue.verify(shared).problems
        assert {(problem.kind, problem.file) for problem in problems} == {
            ("file", file.name) for file in shared.glob("*.seg")
        }
        assert all("Permission denied" in problem.text for problem in problems)
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            assert main(["repair", "--dry-run", str(shared)]) == 2
        assert told.getvalue() == f"chronicle: cannot open {0:020}.seg: Permission denied\n"

    in_child(look)


# --------------------------------------------------------------------------- positions, as they are told


@needs_root
def test_a_position_of_somebody_else(shared: Path) -> None:
    """Who may not read it cannot check it: that is no damage, and root finds none."""

    def look() -> None:
        as_user(NOBODY, shared)
        (info,) = Queue.readers(shared)
        assert (info.damaged, info.sys_errno) == (True, errno.EACCES)
        assert info.updated_ns == (shared / "readers" / "stranger.pos").stat().st_mtime_ns
        report = Queue.verify(shared)
        assert report.ok
        assert [(note.kind, note.file) for note in report.notes] == [("unreadable", "readers/stranger.pos")]
        assert "Permission denied" in report.notes[0].text

    in_child(look)
    assert Queue.verify(shared).notes == []
    (info,) = Queue.readers(shared)
    assert (info.damaged, info.sys_errno, info.position) == (False, 0, 300)


def test_positions_that_are_no_positions(queue: Path) -> None:
    make(queue)
    readers = queue / "readers"
    (readers / "a.pos").symlink_to("me.pos")
    (readers / "b.pos").mkdir()
    (readers / "c.pos").write_bytes((readers / "me.pos").read_bytes()[:1000])
    (readers / "d.pos").write_bytes((readers / "me.pos").read_bytes())
    patch(readers / "d.pos", 512 + 60, b"\xaa")
    patch(readers / "d.pos", 1024 + 60, b"\xaa")
    causes = {info.name: info.sys_errno for info in Queue.readers(queue) if info.damaged}
    assert causes == {"a": errno.ELOOP, "b": errno.EINVAL, "c": 0, "d": 0}
    problems = {problem.file: problem.text for problem in Queue.verify(queue).problems}
    assert {file: text.rpartition(": ")[2] for file, text in problems.items()} == {
        "readers/a.pos": "it is no regular file",
        "readers/b.pos": "it is no regular file",
        "readers/c.pos": "it is damaged",
        "readers/d.pos": "it is damaged",
    }


# --------------------------------------------------------------------------------------------- retention


def flip(file: Path, offset: int, bit: int) -> None:
    with file.open("rb") as data:
        data.seek(offset)
        byte = data.read(1)[0]
    patch(file, offset, bytes([byte ^ 1 << bit]))


def fill(path: Path, segments: int) -> None:
    """Each of four records. "me" has read all of them."""
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        while writer.stats().rolls < segments - 1:
            writer.append(bytes(13000))
    with Queue.open_subscriber(path, "me", start="latest") as reader:
        reader.commit()


def cleanup(path: Path, retention: Retention | None = None) -> list[str]:
    """What becomes of each segment."""
    with Queue.open_publisher(path, keeper=False, retention=retention) as writer:
        report = writer.cleanup()
    assert len(Queue.segments(path)) == len(report.segments) - report.deleted_segments
    return [fate.reason for fate in report.segments]


CONSUMED = "every reader that counts has committed past it"
ACTIVE = "the writer appends to it, or will"
EARLIER = "an older segment is kept"


@pytest.mark.parametrize("at", [0, 4, 8, 20, 48, 60])
@pytest.mark.parametrize("which", [0, 2, 3])
def test_one_bit_of_a_seal(queue: Path, which: int, at: int) -> None:
    """State, flags, fields, CRC; of the first, the middle, and the one before the last."""
    fill(queue, 5)
    flip(segment(queue, which), 128 + at, 0)
    expected = [CONSUMED] * 4 + [ACTIVE]
    if (which, at) == (3, 0):  # it may be one that gets its seal just now
        expected = [CONSUMED] * 3 + [ACTIVE] * 2
    assert [fate.reason for fate in Queue.cleanup_plan(queue).segments] == expected
    (queue / "readers" / "me.pos").unlink()
    limit = Retention(max_segments=2)
    assert cleanup(queue, limit) == ["limit max_segments"] * 3 + [
        "no reader is registered, and no limit asks for its deletion",
        ACTIVE,
    ]


def test_a_seal_that_is_lost_has_the_age_of_the_next_segment(queue: Path) -> None:
    fill(queue, 4)
    for number in (0, 1):
        flip(segment(queue, number), 128 + 8, 3)
    (queue / "readers" / "me.pos").unlink()
    assert Queue.cleanup_plan(queue, Retention(max_age=3600)).deleted_segments == 0
    time.sleep(0.002)
    assert Queue.cleanup_plan(queue, Retention(max_age=0.001)).deleted_segments == 3


def test_back_pressure_with_damaged_seals(queue: Path) -> None:
    fill(queue, 4)
    for number in range(3):
        flip(segment(queue, number), 128 + 8, 3)
    with Queue.open_publisher(queue, keeper=False, max_segments=4) as writer:
        for _ in range(8):
            writer.append(bytes(13000))


@pytest.mark.parametrize("offset", [*range(0, 128, 9), 127, *range(512, 576, 7), *range(1024, 1088, 7)])
def test_one_bit_of_a_position(queue: Path, offset: int) -> None:
    fill(queue, 4)
    with Queue.open_subscriber(queue, "me") as reader:
        end = reader.position
        reader.commit()  # both slots say the same
    flip(queue / "readers" / "me.pos", offset, 0)
    assert [fate.reason for fate in Queue.cleanup_plan(queue).segments] == [CONSUMED] * 3 + [ACTIVE]
    (info,) = Queue.readers(queue)
    assert (info.position, info.damaged) == (end, False)
    assert [found.kind for found in Queue.verify(queue).problems] == ["position"] * (offset < 128)
    with Queue.open_subscriber(queue, "me") as reader:
        assert reader.position == end
    assert Queue.verify(queue).ok


def test_the_first_sector_of_a_position_is_lost(queue: Path) -> None:
    fill(queue, 2)
    end = Queue.readers(queue)[0].position
    patch(queue / "readers" / "me.pos", 0, bytes(512))
    with Queue.open_subscriber(queue, "me") as reader:
        assert reader.position == end
    assert Queue.verify(queue).ok


def test_a_position_of_another_queue_is_not_believed(queue: Path) -> None:
    fill(queue, 3)
    other = queue.with_name("other")
    fill(other, 3)
    (queue / "readers" / "me.pos").write_bytes((other / "readers" / "me.pos").read_bytes())
    assert cleanup(queue)[0] == "the position of reader me cannot be read: it is damaged"


def test_what_a_position_keeps_that_cannot_be_read(queue: Path) -> None:
    """It is said which, and why. Limits on readers are for it as well: its file tells how long it has been silent."""
    fill(queue, 4)
    position = queue / "readers" / "me.pos"
    for slot in (512, 1024):
        patch(position, slot + 60, b"\xaa\xbb")
    kept = ["the position of reader me cannot be read: it is damaged"] * 3 + [ACTIVE]
    hour = Retention(reader_ttl=3600)
    for retention in (None, hour, Retention(max_reader_lag=1000)):
        assert cleanup(queue, retention) == kept
    with (
        Queue.open_publisher(queue, keeper=False, max_segments=4) as writer,
        pytest.raises(QueueFull, match="the position of reader me cannot be read: it is damaged"),
    ):
        for _ in range(8):
            writer.append(bytes(13000))
    os.utime(position, (1_000_000_000, 1_000_000_000))
    assert [fate.deleted for fate in Queue.cleanup_plan(queue, hour).segments] == [True] * 3 + [False]
    assert cleanup(queue, Retention(max_reader_lag=1)) == [CONSUMED] * 3 + [ACTIVE]


@needs_root
def test_what_a_position_of_somebody_else_keeps(shared: Path) -> None:
    def clean() -> None:
        as_user(NOBODY, shared)
        assert cleanup(shared)[0] == "the position of reader stranger cannot be read: Permission denied"

    in_child(clean)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_one_bit_of_an_index_entry(queue: Path, bit: int) -> None:
    payloads = make(queue, segments=4)
    for number in range(4):
        flip(segment(queue, number), 4096, bit)
    for seq, payload in enumerate(payloads):
        with Queue.open_subscriber(queue, start=seq) as reader:
            message = reader.next()
        assert message is not None
        assert message.payload == payload
    with Queue.open_subscriber(queue, "me", start="latest") as reader:
        reader.commit()
    assert cleanup(queue) == [CONSUMED] * 3 + [ACTIVE]


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o660, 0o640), (0o666, 0o644)])
def test_who_may_read_the_queue_may_read_positions(queue: Path, mode: int, expected: int) -> None:
    """By default: or a reader of another user would keep everything."""
    os.umask(0)
    with Queue.open_publisher(queue, keeper=False, mode=mode):
        pass
    for name, given in (("default", None), ("given", 0o600)):
        with Queue.open_subscriber(queue, name, mode=given) as reader:
            reader.commit()
    os.umask(0o022)
    modes = [(queue / "readers" / f"{name}.pos").stat().st_mode & 0o777 for name in ("default", "given")]
    assert modes == [expected, 0o600]


@needs_root
def test_a_reader_of_another_user_holds_what_it_has_not_read(shared: Path) -> None:
    def read() -> None:
        as_user(STRANGER, shared)
        with Queue.open_subscriber(shared, "other") as reader:
            for _ in range(200):
                reader.next()
            reader.commit()

    def clean() -> None:
        as_user(NOBODY, shared)
        assert [reason == CONSUMED for reason in cleanup(shared)] == [True] * 3 + [False] * 3

    (shared / "readers" / "stranger.pos").unlink()
    in_child(read)
    in_child(clean)
