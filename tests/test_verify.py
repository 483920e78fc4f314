# SPDX-License-Identifier: MIT
"""What a verification calls a problem, what it only notes, and that it never calls well what is not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.children import in_child
from tests.damage import SEGMENT, make, patch, read_all, restart, segment
from tests.test_crashes import program

# ------------------------------------------------------------------------------------- what is foreign


def test_foreign_files_are_left_alone_and_noted(queue: Path) -> None:
    payloads = make(queue)
    for name in (
        "notes.txt",
        ".nfs0000000000000001",
        ".DS_Store",
        "queue.meta~",
        "1.seg",
        "readers/x",
        "readers/me.pos~",
    ):
        (queue / name).write_text("mine")
    (queue / "lost+found").mkdir()
    (queue / "pipe.seg").touch()
    os.mkfifo(queue / "fifo")
    with Queue.open_publisher(queue):
        pass
    assert read_all(queue) == payloads
    report = Queue.verify(queue)
    assert (report.ok, report.problems) == (True, [])
    assert {note.kind for note in report.notes} == {"foreign"}
    assert {note.file for note in report.notes} == {
        "notes.txt", ".nfs0000000000000001", ".DS_Store", "queue.meta~", "1.seg", "readers/x", "readers/me.pos~",
        "lost+found", "pipe.seg", "fifo",
    }  # fmt: skip


def test_a_segment_under_another_name_is_recognised(queue: Path) -> None:
    make(queue)
    second = segment(queue, 1)
    second.rename(queue / "second (copy).seg")
    report = Queue.verify(queue)
    assert [problem.kind for problem in report.problems] == ["chain"]
    (note,) = report.notes
    assert (note.file, note.seq) == ("second (copy).seg", int(second.stem))
    assert "a segment of this queue" in note.text


# ------------------------------------------------------------------------------------------ empty sets


def test_no_segment_where_there_was_one(queue: Path) -> None:
    """Nothing was durable and nobody closed it: that a segment was there is known all the same."""

    def write() -> None:
        Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).append(b"x")
        os._exit(0)

    in_child(write)
    assert Queue.verify(queue).ok
    segment(queue).unlink()
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["chain"]
    restart(queue)
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["chain"]


@pytest.mark.parametrize("sync", [False, True])
def test_no_segment_of_a_closed_queue(queue: Path, sync: bool) -> None:
    make(queue)
    if sync:
        with Queue.open_publisher(queue, keeper=False) as writer:
            writer.sync()
    for file in queue.glob("*.seg"):
        file.unlink()
    report = Queue.verify(queue)
    assert not report.ok
    assert {problem.kind for problem in report.problems} == {"chain", "record", "position"}


def test_a_first_opening_that_dies_anywhere_leaves_nothing_wrong(tmp_path: Path) -> None:
    """Also where the queue is there, and its first segment is not yet."""
    without_segment = set()
    for step in range(42, 85):  # from the name of queue.meta on
        queue = tmp_path / str(step)
        done = subprocess.run([program(), queue, "0", str(step)], capture_output=True, text=True)
        if (queue / "queue.meta").exists():
            assert Queue.verify(queue).ok, done.stdout
            if not list(queue.glob("*.seg")):
                without_segment.add(done.stdout.strip())
    assert {"birth: done", "state: identity stored", "open: epoch stored", "open: words stored"} <= without_segment


# ------------------------------------------------------------------------------------------ the verdict


def test_the_verdict_does_not_depend_on_what_was_heard(queue: Path) -> None:
    """In a subinterpreter no callback arrives."""
    make(queue)
    patch(segment(queue), 8192 + 32, b"\xff")
    inner = f"from chronicle_ffi import Queue; print(Queue.verify({str(queue)!r}).ok)"
    code = f"""
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        interpreters.run_string(interpreters.create(), {inner!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the package cannot be had in a subinterpreter here: {done.stderr[-200:]}")
    assert done.stdout == "False\n", done.stderr


def test_accepted_gaps_are_told_and_no_problem(queue: Path) -> None:
    make(queue, segments=4)
    second, third = int(segment(queue, 1).stem), int(segment(queue, 2).stem)
    segment(queue, 1).unlink()
    with pytest.warns(c.RecoveryWarning):
        Queue.open_publisher(queue, keeper=False, repair=True).close()
    report = Queue.verify(queue)
    assert (report.ok, report.gaps, report.gap_records) == (True, 1, third - second)
    assert [(note.kind, note.seq, note.seq_end) for note in report.notes] == [("gap", second, third)]
    with Queue.open_publisher(queue, keeper=False, retention=c.Retention(max_segments=1)) as writer:
        writer.cleanup()
    report = Queue.verify(queue)
    assert (report.ok, report.gaps, report.notes) == (True, 0, [])  # what retention has passed is not told any more
