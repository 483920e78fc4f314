# SPDX-License-Identifier: MIT
"""queue.meta is no single point of failure: without it, a queue is read as before, but for what is durable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.damage import SEGMENT, make, patch, segment
from tests.test_cli import run
from tests.test_repair_call import LOST, one_bit, read

lost = pytest.mark.parametrize("how", LOST)


@lost
def test_all_of_it_is_read(queue: Path, how: str) -> None:
    payloads = make(queue)
    LOST[how](queue / "queue.meta")
    assert read(queue) == dict(enumerate(payloads))
    with Queue.open_subscriber(queue, "me") as reader:
        assert reader.position == len(payloads) // 2
        assert [message.payload for message in reader] == payloads[len(payloads) // 2 :]
        reader.commit()
        reader.seek(3)
        assert reader.next() is not None
        reader.seek_time(5)
        assert (reader.position, reader.wait(0)) == (4, True)
    with Queue.open_subscriber(queue, start="latest") as reader:
        assert reader.next() is None
    assert Queue.readers(queue)[0].position == len(payloads)
    assert run("tail", queue, "--from", "5")[0].startswith("5:ppp")


@lost
def test_all_of_it_is_told(queue: Path, how: str) -> None:
    make(queue)
    before = Queue.info(queue)
    segments, plan = Queue.segments(queue), Queue.cleanup_plan(queue)
    assert not before.meta_lost
    LOST[how](queue / "queue.meta")
    after = Queue.info(queue)
    assert after.meta_lost
    for name in ("uuid", "segment_size", "oldest_seq", "next_seq", "segments", "bytes", "writer_alive"):
        assert getattr(after, name) == getattr(before, name), name
    assert Queue.segments(queue) == segments
    assert [fate.reason for fate in Queue.cleanup_plan(queue).segments] == [fate.reason for fate in plan.segments]
    assert "queue.meta is missing or damaged: chronicle repair makes it anew" in run("inspect", queue)[0]


@lost
def test_damage_is_passed_as_before(queue: Path, how: str) -> None:
    payloads = make(queue)
    one_bit(queue)
    LOST[how](queue / "queue.meta")
    with Queue.open_subscriber(queue) as reader, pytest.raises(c.Corrupt):
        list(reader)
    got = []
    with Queue.open_subscriber(queue) as reader:
        while reader.wait(0):
            try:
                got.append(reader.next())
            except c.Corrupt:
                reader.skip_damaged()
    assert len(got) == len(payloads) - 1


def test_what_is_durable_is_not_known(queue: Path) -> None:
    make(queue)
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.sync()
    LOST["both slots"](queue / "queue.meta")
    with pytest.raises(c.Corrupt, match=r"what is durable stands in queue\.meta, and that is lost") as refused:
        Queue.open_subscriber(queue, durable_only=True)
    assert refused.value.file == "queue.meta"
    assert Queue.info(queue).durable_seq == -1


def test_a_damaged_header_loses_nothing_of_the_state(queue: Path) -> None:
    payloads = make(queue)
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.sync()
        epoch = writer.recovery.epoch
    patch(queue / "queue.meta", 30, b"\xff")
    with Queue.open_subscriber(queue, durable_only=True) as reader:
        assert [message.payload for message in reader] == payloads
    info = Queue.info(queue)
    assert (info.meta_lost, info.durable_seq, info.epoch) == (True, len(payloads) - 1, epoch)


def test_readers_that_are_running(queue: Path) -> None:
    """They go on. Who wants durable records only is told that nobody can tell any more."""
    writer = Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False)
    writer.append_many([b"x"] * 5)
    writer.sync()
    with Queue.open_subscriber(queue) as plain, Queue.open_subscriber(queue, durable_only=True) as durable:
        assert len(list(plain)) == len(list(durable)) == 5
        os.truncate(queue / "queue.meta", 0)
        assert not plain.wait(0)
        assert writer.append(b"more") == 5
        assert [message.seq for message in plain] == [5]
        assert durable.wait(5)  # there is something to be told
        with pytest.raises(c.StorageError, match=r"queue\.meta went away"):
            durable.next()
    with pytest.raises(c.StorageError, match=r"queue\.meta went away"):
        writer.close()


def test_nothing_is_left(queue: Path) -> None:
    make(queue)
    (queue / "queue.meta").unlink()
    for file in queue.glob("*.seg"):
        patch(file, 40, b"\xff" * 8)
    for look in (Queue.info, Queue.segments, Queue.readers, Queue.open_subscriber):
        with pytest.raises(c.Corrupt, match="no segment has a header that can be believed"):
            look(queue)


def test_one_bit_of_the_version_is_damage(queue: Path) -> None:
    """Not a later format, which nobody could do anything about."""
    payloads = make(queue)
    for file in (queue / "queue.meta", segment(queue, 1)):
        patch(file, 8, b"\x03")
    assert read(queue) == dict(enumerate(payloads))
    assert [found.file for found in Queue.repair(queue).found] == ["queue.meta", segment(queue, 1).name]
    assert Queue.verify(queue).ok
