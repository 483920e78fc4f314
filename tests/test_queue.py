# SPDX-License-Identifier: MIT
"""Looking at queues from outside, verification beside a live writer, errors as such."""

from __future__ import annotations

import builtins
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue, errors
from tests import decoder

ROOT = Path(__file__).parent.parent
SEGMENT = 1 << 16


def test_info_segments_readers(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        info = Queue.info(queue)
        assert (info.oldest_seq, info.next_seq, info.durable_seq, info.segments) == (0, 0, -1, 1)
        assert (info.epoch, info.format_version, info.segment_size, info.bytes) == (1, 1, SEGMENT, SEGMENT)
        for i in range(130):
            writer.append(b"x" * 1000, timestamp_ns=i)
        info = Queue.info(queue)
        assert (info.next_seq, info.segments, info.writer_alive) == (130, 3, True)
        assert info.writer_host
        assert abs(info.created_ns - time.time_ns()) < 60 * 10**9
    first, second, third = Queue.segments(queue)
    assert (first.base_seq, first.next_seq, first.sealed, first.damaged) == (0, second.base_seq, True, False)
    assert (first.first_ts_ns, first.last_ts_ns) == (0, first.next_seq - 1)
    assert (third.next_seq, third.sealed) == (130, False)
    assert (third.first_ts_ns, third.last_ts_ns) == (third.base_seq, 129)
    assert third.used_bytes == 8192 + (130 - third.base_seq) * 1056
    assert Queue.readers(queue) == []
    Queue.open_publisher(queue).close()
    assert Queue.info(queue).epoch == 2


def test_a_small_queue_takes_one_segment(queue: Path) -> None:
    """... and a second one is prepared when the first is half full."""

    def files() -> list[str]:
        return sorted(file.name for file in queue.iterdir() if file.stat().st_size == SEGMENT)

    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        writer.append(b"x")
        assert files() == [f"{0:020}.seg"]
        writer.append_many([bytes(1000)] * 40)
        deadline = time.monotonic() + 60
        while len(files()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert files() == [f"{0:020}.seg", "next.tmp"]


def test_verify_counts_and_reports_progress(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 200)
    with Queue.open_subscriber(queue, "me"):
        pass
    seen: list[tuple[str, int]] = []
    report = Queue.verify(queue, lambda file, seq: seen.append((file, seq)))
    assert (report.ok, report.records, report.payload_bytes) == (True, 200, 200_000)
    assert (report.segments, report.readers, report.oldest_seq, report.next_seq) == (4, 1, 0, 200)
    assert [file for file, _ in seen] == [file.name for file in sorted(queue.glob("*.seg"))]

    def stop(file: str, seq: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        Queue.verify(queue, stop)


BUSY = """
import sys, time
from chronicle_ffi import Queue
ends = time.monotonic() + 60
with Queue.open_publisher(sys.argv[1], segment_size=1 << 16) as writer:
    print("open", flush=True)
    while time.monotonic() < ends:
        writer.append_many([b"x" * 300] * 200)
        writer.append_many([b"y"] * 20, atomic=True)
        with writer.claim(100):
            pass
        with Queue.open_subscriber(sys.argv[1], "me", start="latest") as reader:
            reader.commit()
        writer.cleanup()
"""


def test_verify_beside_a_live_writer_raises_no_false_alarm(queue: Path) -> None:
    """One that appends, rolls, commits and cleans up all the time, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, queue], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        first = Queue.info(queue).next_seq
        until = time.monotonic() + 1.5
        while time.monotonic() < until or Queue.info(queue).next_seq < first + 50_000:
            report = Queue.verify(queue)
            assert report.ok, report.problems
            assert Queue.info(queue).next_seq >= report.next_seq
            assert all(not segment.damaged for segment in Queue.segments(queue)[1:])
            assert all(not reader.damaged for reader in Queue.readers(queue))
    finally:
        process.kill()
        process.communicate()


def test_the_clock_going_backwards(queue: Path) -> None:
    """The wall clock only stamps: order is that of the seq."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(200):
            writer.append(b"x" * 1000, timestamp_ns=10**18 - i)
    assert Queue.verify(queue).ok
    with Queue.open_subscriber(queue) as reader:
        assert [message.seq for message in reader] == list(range(200))
        reader.seek_time(10**18 - 100)
        assert reader.position == 0


# --------------------------------------------------------------------------------------------- errors


def test_every_error_is_also_a_builtin_and_can_be_pickled() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, c.ChronicleError)]
    of_python = {c.ChronicleError, c.SchemaError, c.TimedOut, c.WrongType}
    assert {*kinds} == {*errors.BY_CODE.values(), *of_python}
    for kind in kinds:
        error = kind("what to do", code=7, file="x.seg", offset=3, seq=4, oldest=5, next_seq=7, pid=6, sys_errno=28)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert (str(copy), vars(copy)) == ("what to do", vars(error))
        if kind is not c.ChronicleError:
            standard = [base.__name__ for base in kind.__mro__ if hasattr(builtins, base.__name__)]
            assert standard[0] not in ("Exception", "BaseException", "object"), kind
            assert kind.__name__ in c.__all__


def test_every_code_of_the_header_has_its_class() -> None:
    header = (ROOT / "csrc/include/chronicle.h").read_text()
    codes = dict(re.findall(r"^    X\((\w+), (\d+),", header, re.M))
    assert set(codes) == set(errors.BY_CODE)
    pinned = "EINVAL ENOMEM EIO ENOSPC EACCESS ENOQUEUE EWRITER EREADER EFULL ETOOBIG EGONE ECORRUPT EREWRITTEN EFORMAT"
    pinned += " EFORKED ECLOSED ENOTDURABLE EPOISONED EINTR EBUSY EBUFFER ENETFS ERANGE EREADONLY ECLAIM ENOTSUP"
    pinned += " EREMOVED EUNSYNCED ETURN ESTALE EWINDOW EHELD"
    assert list(codes) == pinned.split()
    assert [int(value) for value in codes.values()] == list(range(1, 33))


def test_version() -> None:
    from chronicle_ffi._chronicle import ffi, lib

    assert ffi.string(lib.chron_version()).decode() == c.__version__


def test_a_queue_that_begins_later(queue: Path) -> None:
    """`first_seq` counts when the queue is made; then the first segment's name remembers, and nothing else has to."""
    with pytest.raises(c.InvalidArgument):
        Queue.open_publisher(queue, first_seq=1 << 63)
    with Queue.open_publisher(queue, segment_size=65536, first_seq=1000) as writer:
        assert (writer.next_seq, writer.durable_seq) == (1000, -1)
    with Queue.open_publisher(queue, first_seq=5) as writer:
        assert writer.append_many([bytes(1000)] * 100) == (1000, 100)
        writer.sync()
    info = Queue.info(queue)
    assert (info.oldest_seq, info.next_seq, info.durable_seq) == (1000, 1100, 1099)
    report = Queue.verify(queue)
    assert (report.ok, report.records, report.notes) == (True, 100, [])
    assert [record.seq for record in decoder.open_queue(queue).records] == list(range(1000, 1100))
    with Queue.open_subscriber(queue, "me") as reader:
        assert [message.seq for message in reader] == list(range(1000, 1100))
        with pytest.raises(c.SegmentGone):
            reader.seek(999)
    assert Queue.repair(queue).found == []
