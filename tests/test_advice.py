# SPDX-License-Identifier: MIT
"""Advice cannot veto: a seal, an index entry, somebody's position. What cannot be read is said, with its true cause."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from chronicle_ffi import Queue
from tests.children import in_child
from tests.damage import SEGMENT, make, patch

NOBODY, STRANGER = 65534, 1234
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_user(user: int, path: Path) -> None:
    """In a child. All on the way to `path` may be passed by anybody."""
    os.setgid(user)
    os.setuid(user)


@pytest.fixture
def shared(queue: Path) -> Path:
    """A queue of NOBODY's, with a reader of STRANGER's whose position nobody else may read."""
    for parent in list(queue.parents)[:-2]:
        parent.chmod(0o755)
    queue.parent.chmod(0o777)
    os.umask(0)

    def write() -> None:
        as_user(NOBODY, queue)
        with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, mode=0o666) as writer:
            writer.append_many([bytes(1000)] * 300)
        (queue / "readers").chmod(0o777)

    def read() -> None:
        as_user(STRANGER, queue)
        with Queue.open_subscriber(queue, "stranger", start="latest") as reader:
            reader.commit()

    in_child(write)
    in_child(read)
    os.umask(0o022)
    return queue


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
