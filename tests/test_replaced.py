# SPDX-License-Identifier: MIT
"""Files that are removed, replaced or copied while a reader maps them: it goes over to what is there, or says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chronicle_ffi import Corrupt, Interrupted, Queue, QueueReader, QueueRemoved, WriterAlreadyActive
from tests.damage import SEGMENT, patch

PATIENCE = 20.0  # seconds: none of this takes one


def eventually(look: Callable[[], object]) -> None:
    """Until it says something other than None and False."""
    end = time.monotonic() + PATIENCE
    while look() in (None, False):
        assert time.monotonic() < end, "it never notices"
        time.sleep(0.002)


def copy_in_place(path: Path) -> None:
    """As an overlay file system does when a file is first written to: another file of the same name and content."""
    for file in [path / "queue.meta", path / "doorbell", *path.glob("*.seg")]:
        shutil.copy2(file, file.with_suffix(".copy"))
        os.replace(file.with_suffix(".copy"), file)


def test_a_follower_ends_when_the_queue_is_removed(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, durability="none", keeper=False) as writer:
        writer.append(b"one")
        with Queue.open_subscriber(queue) as reader:
            follower = reader.follow(timeout=PATIENCE)
            assert next(follower).payload == b"one"
            threading.Timer(0.05, shutil.rmtree, [queue]).start()
            with pytest.raises(QueueRemoved, match="was removed"):
                next(follower)
            for call in (reader.next, reader.seek_latest, lambda: reader.lag, reader.wait):
                if call == reader.wait:
                    assert reader.wait(0)  # there is something to be told
                    continue
                with pytest.raises(QueueRemoved):
                    call()
        Queue.open_publisher(queue, keeper=False).close()  # another one of that name is another one


def test_a_follower_ends_when_another_queue_takes_its_place(queue: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for path in (queue, other):
        with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
            writer.append(b"one")
    with Queue.open_subscriber(queue, start="latest") as reader:
        for file in [*other.glob("*.seg"), other / "queue.meta"]:
            os.replace(file, queue / file.name)
        with pytest.raises(QueueRemoved, match="took the place"):
            eventually(reader.next)


@pytest.mark.parametrize("durable_only", [False, True])
def test_a_reader_goes_over_to_copies(queue: Path, durable_only: bool) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"0", b"1"])
        writer.sync()
    with Queue.open_subscriber(queue, durable_only=durable_only) as reader:
        assert [message.payload for message in reader] == [b"0", b"1"]
        copy_in_place(queue)
        with Queue.open_publisher(queue, keeper=False) as writer:
            writer.append_many([b"2", b"3"])
            writer.sync()
            eventually(lambda: reader.wait(0))
            assert [message.payload for message in reader] == [b"2", b"3"]


def test_a_segment_that_is_not_the_one_that_is_written_to(queue: Path) -> None:
    """queue.meta is: it was copied up before this reader came, and the segment after that."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"0")
        segment, aside = queue / f"{0:020}.seg", queue / "aside"
        segment.rename(aside)
        shutil.copy2(aside, segment)
        with Queue.open_subscriber(queue) as reader:
            assert [message.payload for message in reader] == [b"0"]
            os.replace(aside, segment)
            writer.append(b"1")
            eventually(lambda: reader.wait(0))
            assert [message.payload for message in reader] == [b"1"]


def overlay(tmp_path: Path) -> Path:
    """A queue that comes with an image, on the lower layer."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, merged):
        directory.mkdir()
    with Queue.open_publisher(lower / "queue", segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"from the image")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no overlay file system can be mounted here")
    return merged


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    mounted = overlay(tmp_path)
    yield mounted / "queue"
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_copied_up_by_an_overlay_file_system(merged: Path) -> None:
    with Queue.open_subscriber(merged) as reader:
        assert [message.payload for message in reader] == [b"from the image"]
        with Queue.open_publisher(merged, keeper=False) as writer:
            writer.append_many([b"1", b"2"])
            eventually(lambda: reader.wait(0))
            assert [message.payload for message in reader] == [b"1", b"2"]
            writer.append(b"3")
            assert [message.payload for message in reader] == [b"3"]


def maps_doorbell(reader: QueueReader, queue: Path) -> bool:
    """Whether the doorbell that is there now is mapped by this process."""
    inode = str((queue / "doorbell").stat().st_ino)
    return any(line.split()[4] == inode for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("missing", [True, False])
def test_a_doorbell_that_is_missing_or_replaced_is_looked_for_again(queue: Path, missing: bool) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).close()
    if missing:
        (queue / "doorbell").unlink()
    with Queue.open_subscriber(queue, start="latest", waiting="sleep") as reader:
        if not missing:
            (queue / "doorbell").unlink()
        Queue.open_publisher(queue, keeper=False).close()  # makes it anew, and maps it no more
        assert not maps_doorbell(reader, queue)

        def records_come() -> bool:
            with Queue.open_publisher(queue, keeper=False) as writer:
                writer.append(b"one")
            assert reader.wait(PATIENCE)
            assert reader.next() is not None
            reader.wait(0.001)
            return maps_doorbell(reader, queue)

        eventually(records_come)


def test_a_directory_of_positions_that_is_missing_is_made(queue: Path) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).close()
    (queue / "readers").rmdir()
    with Queue.open_subscriber(queue, "me") as reader:
        reader.commit()
    assert [one.name for one in Queue.readers(queue)] == ["me"]


def test_a_writer_whose_lock_file_was_deleted_is_alive_and_nobody_else_is(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False):
        (queue / "writer.lock").unlink()
        with pytest.raises(WriterAlreadyActive) as refused:
            Queue.open_publisher(queue, keeper=False)
        info = Queue.info(queue)
        with Queue.open_subscriber(queue) as reader:
            assert (info.writer_alive, info.writer_pid, reader.writer_alive()) == (True, None, True)
        assert refused.value.pid is None


def test_an_opening_that_is_refused_changes_no_byte(queue: Path) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in queue.iterdir() if file.is_file()}

    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"%064d" % i for i in range(100)])
        writer.sync()
    segment = queue / f"{0:020}.seg"
    patch(segment, segment.read_bytes().find(b"%064d" % 10), b"!")
    patch(segment, 4096, bytes(4))  # advice that is lost is not given anew either
    before = content()
    with pytest.raises(Corrupt, match="Nothing was changed"):
        Queue.open_publisher(queue, keeper=False)
    assert content() == before


@pytest.mark.parametrize("lost", [["queue.meta"], ["queue.meta", "writer.lock"], []])
def test_a_repair_that_is_not_wanted_changes_no_byte(queue: Path, lost: list[str]) -> None:
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in queue.iterdir() if file.is_file()}

    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"x")
    for name in lost:
        (queue / name).unlink()
    before = content()
    with pytest.raises(Interrupted):
        Queue.repair(queue, approve=lambda found: False)
    assert content() == before
