# SPDX-License-Identifier: MIT
"""Disks that are full, read-only, volatile or forbidden."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.children import in_child, let_others_pass
from tests.damage import restart

SEGMENT = 1 << 16


def fill_up(place: Path, leave: int = 0) -> Path:
    """Use up all space but `leave` bytes."""
    file = place / "ballast"
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 4096)
        except OSError:
            pass
        size = out.tell()
    os.truncate(file, max(0, size - leave))
    return file


def test_full_disk_when_a_queue_is_created(small_disk: Path) -> None:
    ballast = fill_up(small_disk)
    with pytest.raises(c.NoSpace) as caught:
        Queue.open_publisher(small_disk / "queue")
    assert isinstance(caught.value, OSError)
    assert "space" in str(caught.value)
    ballast.unlink()
    with pytest.raises(c.NoSpace):  # 64 MiB do not fit either
        Queue.open_publisher(small_disk / "queue")
    shutil.rmtree(small_disk / "queue", ignore_errors=True)
    with Queue.open_publisher(small_disk / "queue", segment_size=SEGMENT) as writer:
        assert writer.append(b"x") == 0


def test_full_disk_at_a_roll(small_disk: Path) -> None:
    queue = small_disk / "queue"
    for keeper in (True, False):
        with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=keeper) as writer:
            with pytest.raises(c.NoSpace):
                for _ in range(100_000):
                    writer.append(b"x" * 1000)
            appended = writer.next_seq
            with pytest.raises(c.NoSpace):
                writer.append_many([b"x" * 1000] * 1000)
            appended = writer.next_seq
            with Queue.open_subscriber(queue) as reader:
                assert sum(1 for _ in reader) == appended - Queue.info(queue).oldest_seq
            # Room is made: the same writer goes on.
            first = sorted(queue.glob("*.seg"))[:8]
            for file in first:
                file.unlink()
            assert writer.append(b"x" * 1000) == appended
        assert Queue.verify(queue).ok


def copy_with_holes(queue: Path, copy: Path) -> None:
    """As ``cp --sparse=always`` does it: what is zero takes no room."""
    shutil.copytree(queue, copy)
    for file in copy.rglob("*"):
        if file.is_file() and file.suffix != ".lock":
            data = file.read_bytes()
            with file.open("wb") as out:
                for at in range(0, len(data), 4096):
                    if any(data[at : at + 4096]):
                        out.seek(at)
                        out.write(data[at : at + 4096])
                out.truncate(len(data))


def room_of(file: Path) -> int:
    return file.stat().st_blocks * 512


def test_a_copy_with_holes_gets_its_room_when_it_is_opened(queue: Path, tmp_path: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 20, keeper=False) as writer:
        writer.append(b"one")
        if room_of(queue / f"{0:020}.seg") < 1 << 20:
            pytest.skip("this file system does not allocate")
    copy = tmp_path / "copy"
    copy_with_holes(queue, copy)
    segment = copy / f"{0:020}.seg"
    assert room_of(segment) < 1 << 18
    with Queue.open_subscriber(copy) as reader:
        assert list(reader.payloads()) == [b"one"]
    assert room_of(segment) < 1 << 18
    with Queue.open_publisher(copy, keeper=False) as writer:
        assert room_of(segment) >= 1 << 20
        assert writer.append(b"two") == 1
    assert Queue.verify(copy).ok


def test_a_copy_with_holes_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A store to a hole would be SIGBUS: refused before, with the reason; and nothing is the worse for it."""
    queue, copy = tmp_path / "queue", small_disk / "copy"
    with Queue.open_publisher(queue, segment_size=1 << 20, keeper=False) as writer:
        writer.append_many([b"x" * 1000] * 10)
    copy_with_holes(queue, copy)
    ballast = fill_up(small_disk)
    with pytest.raises(c.NoSpace, match="holes") as caught:
        Queue.open_publisher(copy)
    assert caught.value.file == f"{0:020}.seg"
    with Queue.open_subscriber(copy) as reader:
        assert sum(1 for _ in reader) == 10
    ballast.unlink()
    with Queue.open_publisher(copy) as writer:
        fill_up(small_disk)
        writer.append_many([b"x" * 1000] * 900)  # all that its segment holds
        assert writer.next_seq == 910
    assert Queue.verify(copy).ok


def test_opening_needs_no_free_space(small_disk: Path) -> None:
    queue = small_disk / "queue"
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 100] * 300)
    fill_up(small_disk)
    with Queue.open_publisher(queue) as writer:
        assert writer.append(b"there is room in the open segment") == 300
    Queue.info(queue)
    assert Queue.verify(queue).ok


def test_torn_tail_on_a_full_disk(small_disk: Path) -> None:
    """What holds no whole record is zeroed without a copy, and that is told."""
    queue = small_disk / "queue"
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append(b"good")
    with sorted(queue.glob("*.seg"))[0].open("r+b") as file:
        file.seek(8192 + 64)
        file.write(b"torn" * 10)
    restart(queue)
    fill_up(small_disk)
    with pytest.warns(c.RecoveryWarning, match="no room for a copy"):
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:
        assert writer.next_seq == 1
        assert writer.recovery.cut_bytes > 0
        assert not writer.recovery.quarantined


def test_full_disk_for_a_position_file(small_disk: Path) -> None:
    queue = small_disk / "queue"
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    ballast = fill_up(small_disk)
    with pytest.raises(c.NoSpace):
        Queue.open_subscriber(queue, "me")
    assert Queue.readers(queue) == []  # or it would hold all segments, and the disk stay full
    Queue.open_subscriber(queue).close()  # without a name nothing is written
    ballast.unlink()
    with Queue.open_subscriber(queue, "me") as reader:
        reader.commit()
    assert Queue.verify(queue).ok


def test_a_file_system_in_memory_promises_no_durability(small_disk: Path) -> None:
    for durability in ("interval", "batch", "always"):
        with pytest.raises(c.NotDurable) as caught:
            Queue.open_publisher(small_disk / "queue", segment_size=SEGMENT, durability=durability)
        assert "durability none" in str(caught.value)
    with Queue.open_publisher(small_disk / "queue", segment_size=SEGMENT) as writer:
        writer.append(b"x")
        with pytest.raises(c.NotDurable):
            writer.sync()
        assert writer.append(b"y") == 1  # it is not poisoned: nothing failed


def test_a_queue_on_a_read_only_mount(small_disk: Path) -> None:
    queue = small_disk / "queue"
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        writer.append_many([b"a", b"b"])
    with Queue.open_subscriber(queue, "me") as reader:
        reader.commit()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with Queue.open_subscriber(queue) as reader:
        assert [message.payload for message in reader] == [b"a", b"b"]
        assert not reader.wait(0.05)
        assert not reader.writer_alive()
    assert Queue.info(queue).next_seq == 2
    assert Queue.readers(queue)[0].name == "me"
    assert Queue.cleanup_plan(queue).segments
    assert Queue.verify(queue).ok
    for call in (lambda: Queue.open_publisher(queue), lambda: Queue.open_subscriber(queue, "me")):
        with pytest.raises(c.AccessDenied) as caught:
            call()
        assert isinstance(caught.value, PermissionError)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_permissions(queue: Path) -> None:
    """As another user, in a child process: reading needs read permission only."""
    os.umask(0o022)
    with Queue.open_publisher(queue, segment_size=SEGMENT, mode=0o644) as writer:
        writer.append(b"x")
    assert stat.S_IMODE(queue.stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in queue.iterdir() if file.is_file()} == {0o644}
    let_others_pass(queue)

    def as_nobody() -> None:
        os.setuid(65534)
        with Queue.open_subscriber(queue) as reader:
            assert reader.next() is not None
            assert not reader.wait(0.01)
        Queue.info(queue)
        assert Queue.verify(queue).ok
        for call in (
            lambda: Queue.open_publisher(queue),
            lambda: Queue.open_subscriber(queue, "me"),
            lambda: Queue.open_publisher(queue / "below"),
        ):
            with pytest.raises(c.AccessDenied):
                call()

    in_child(as_nobody)


def test_files_are_private_unless_told_otherwise(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT), Queue.open_subscriber(queue, "me"):
        pass
    for file in [queue, *queue.rglob("*")]:
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file


@pytest.mark.parametrize("name", ["queue.meta", "writer.lock"])
def test_what_is_no_file_of_the_queue_is_named(queue: Path, name: str) -> None:
    """Never waited for, as a FIFO would be, nor followed; and the message does not stop at the kernel's word for it."""
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    (queue / name).rename(queue.parent / "aside")
    for make, told in (
        (lambda file: file.symlink_to(queue.parent / "aside"), f"{name} may not be a link"),
        (os.mkfifo, f"{name} is no regular file"),
    ):
        make(queue / name)
        for call in (Queue.info, Queue.verify, Queue.open_publisher, lambda path: Queue.repair(path, dry_run=True)):
            with pytest.raises(c.StorageError, match=told):
                call(queue)
        (queue / name).unlink()


def test_what_is_no_queue(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path):
        for call in (Queue.info, Queue.verify, Queue.segments, Queue.readers, Queue.open_subscriber):
            with pytest.raises(c.QueueNotFound) as caught:
                call(path)
            assert isinstance(caught.value, FileNotFoundError)
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(c.QueueNotFound):
            Queue.open_publisher(path, create=False)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(c.ChronicleError):
        Queue.open_publisher(tmp_path / "no" / "parent")
    with pytest.raises(c.InvalidArgument):
        Queue.info("a\0b")


@pytest.mark.parametrize(
    "options",
    [
        {"segment_size": 1},
        {"segment_size": (1 << 16) + 1},
        {"segment_size": 0},
        {"segment_size": 1 << 40},
        {"max_segments": 1},
        {"max_segments": 0},
        {"max_bytes": 0},
        {"max_bytes": 1},
        {"durability": "sometimes"},
        {"clock": "sundial"},
        {"backpressure": -1},
        {"backpressure": "wait"},
        {"durability_n": -1},
        {"mode": 0o10000},
    ],
)
def test_bad_options_make_no_queue(queue: Path, options: dict[str, object]) -> None:
    with pytest.raises(c.InvalidArgument):
        Queue.open_publisher(queue, **options)  # type: ignore[arg-type]
    assert not list(queue.glob("*")) if queue.exists() else True


@pytest.mark.parametrize(
    "options", [{"start": "somewhere"}, {"start": -1}, {"on_gap": "jump"}, {"wait": "nap"}, {"mode": -1}]
)
def test_bad_options_of_a_reader(queue: Path, options: dict[str, object]) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    with pytest.raises(c.InvalidArgument):
        Queue.open_subscriber(queue, **options)  # type: ignore[call-overload]


def test_segment_size_counts_at_creation_only(queue: Path) -> None:
    Queue.open_publisher(queue, segment_size=SEGMENT).close()
    Queue.open_publisher(queue, segment_size=4 * SEGMENT).close()
    assert Queue.info(queue).segment_size == SEGMENT
