# SPDX-License-Identifier: MIT
"""What befalls an archive: killed archivers, two at once, damage anywhere, a full store, another queue."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle_ffi import (
    Message,
    Queue,
    ReaderAlreadyActive,
)
from tests.archive_child import Children
from tests.archived import FRAME, check, fill, objects
from tests.interop import need

need("obstore")
need("zstandard")

from chronicle_ffi.archive import (  # noqa: E402
    Archive,
    ArchiveDamaged,
    ArchiveError,
    ArchiveMismatch,
    open_subscriber,
)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.close()


def test_killed_at_every_step_nothing_is_lost_doubled_or_left(tmp_path: Path, children: Children) -> None:
    queue, place = tmp_path / "queue", tmp_path / "archive"
    payloads = fill(queue, 700)
    shutil.copytree(queue, tmp_path / "copy")
    step = 0
    while True:
        step += 1
        shutil.rmtree(queue)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "copy", queue)
        if not children.run("archive", step, queue, place):
            break
        if (place / "archive.json").exists():
            between = Archive(None, place).verify()
            assert between.ok
            with open_subscriber(queue, place, start="earliest") as reader:
                assert [message.payload for message in reader] == payloads
            assert set(between.orphans) == objects(place) - {entry.object for entry in Archive(None, place).entries}
        Archive(queue, place, frame_bytes=FRAME).run()
        check(place, queue, payloads)
    assert step >= 10


@pytest.mark.heavy
def test_killed_again_and_again(queue: Path, place: Path, children: Children) -> None:
    payloads = fill(queue, 700)
    for step in (1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 6, 7, 8):
        children.run("archive", step, queue, place)
        with (
            open_subscriber(queue, place, start="earliest")
            if (place / "archive.json").exists()
            else Queue.open_subscriber(queue) as reader
        ):
            assert [message.payload for message in reader] == payloads
    Archive(queue, place, frame_bytes=FRAME).run()
    check(place, queue, payloads)


def test_an_object_that_can_never_be_noted_is_deleted(queue: Path, place: Path, children: Children) -> None:
    """An archiver with another level is killed before it notes; one with this level notes the segment."""
    payloads = fill(queue, 700)
    assert children.run("archive", 3, queue, place)
    orphans = Archive(None, place).verify().orphans
    assert len(orphans) == 1
    report = Archive(queue, place, level=1).run()
    assert report.swept == orphans
    check(place, queue, payloads)
    leftover = place / "segments" / "00000000000000000000-0000000000000000.seg.zst#1"
    leftover.write_bytes(b"of a write that was cut off")
    assert Archive(None, place).verify().orphans == [leftover.relative_to(place).as_posix()]


def test_two_archivers_at_once(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    Archive(queue, place).run(older=1e6)
    with Queue.open_subscriber(queue, "archive"), pytest.raises(ReaderAlreadyActive):
        Archive(queue, place).run()
    code = (
        "import sys; from chronicle_ffi.archive import Archive; queue, place, name, level = sys.argv[1:];"
        "Archive(queue, place, reader=name, level=int(level)).run(keep_local=True)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, queue, place, name, level], stderr=subprocess.PIPE)
        for name, level in (("one", "1"), ("two", "5"))
    ]
    for process in both:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    Archive(queue, place).run(keep_local=True)
    check(place, queue, payloads)


def test_the_archive_of_another_queue_or_history_is_refused(queue: Path, place: Path, tmp_path: Path) -> None:
    fill(queue, 300)
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(queue, copy)
    fill(queue, 900, seed=2, first=300)
    fill(copy, 900, seed=3, first=300)
    fill(other)
    Archive(queue, place).run()
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(ArchiveMismatch, match="is the archive of the queue"):
        Archive(other, place).run()
    with pytest.raises(ArchiveMismatch, match="is the archive of the queue"):
        open_subscriber(other, place)
    with pytest.raises(ArchiveMismatch, match="twice"):
        Archive(copy, place).run()
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert Queue.info(copy).oldest_seq == 0


def test_half_an_entry(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    entries = Archive(queue, place).run(keep_local=True).archived
    path = place / "manifest" / f"{entries[1].base_seq:020}.json"
    whole = path.read_bytes()
    for data in (
        whole[:100],
        b"",
        whole[:-1],
        whole.replace(b'"format":1', b'"format":7'),
        bytes([whole[0] ^ 1]) + whole[1:],
    ):
        path.write_bytes(data)
        found = Archive(None, place).verify()
        assert [(one.file, one.seq, one.next_seq) for one in found.damaged] == [
            (f"manifest/{path.name}", entries[1].base_seq, entries[2].base_seq)
        ]
        with open_subscriber(queue, place, start="earliest") as reader:  # the queue has it
            assert [message.payload for message in reader] == payloads
        with open_subscriber(None, place) as reader:
            seen: list[Message] = []
            with pytest.raises(ArchiveDamaged, match=path.name):
                seen.extend(reader)
            assert reader.position == entries[1].base_seq
            assert reader.skip_damaged() == entries[2].base_seq - entries[1].base_seq
            assert [message.payload for message in reader] == payloads[entries[2].base_seq : entries[-1].next_seq]
    path.unlink()
    report = Archive(queue, place).run()  # it was not noted: it is noted now
    assert [entry.base_seq for entry in report.archived] == [entries[1].base_seq]
    check(place, queue, payloads)


def test_an_object_is_missing_or_damaged_anywhere(queue: Path, place: Path) -> None:
    """Each damage is named, and only what stood in its frame is passed over."""
    payloads = fill(queue)
    entries = Archive(queue, place, frame_bytes=FRAME).run().archived
    entry = entries[1]
    path = place / entry.object
    whole = path.read_bytes()
    rng = random.Random(3)
    places = sorted(rng.randrange(len(whole)) for _ in range(25))
    for at in [None, 0, *places, len(whole) - 1]:
        if at is None:
            path.unlink()
        else:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        found = Archive(None, place).verify()
        assert [(one.file, one.seq, one.next_seq) for one in found.damaged] == [
            (entry.object, entry.base_seq, entry.next_seq)
        ]
        seen: list[bytes | None] = []
        with open_subscriber(None, place) as reader:
            while True:
                try:
                    seen.extend(reader.payloads())
                    break
                except ArchiveDamaged as damage:
                    assert damage.file == entry.object
                    assert damage.seq is not None
                    assert entry.base_seq <= damage.seq == reader.position < entry.next_seq
                    seen.extend([None] * reader.skip_damaged())
            end = reader.position
        assert len(seen) == end == entries[-1].next_seq
        assert all(one is None or one == wanted for one, wanted in zip(seen, payloads[:end], strict=True))
        lost = seen.count(None)
        assert lost < entry.records or at is None or at < 200 or at >= entry.index_at


def test_a_full_store(queue: Path, small_disk: Path) -> None:
    payloads = fill(queue, 4500)
    place = small_disk / "archive"
    with pytest.raises(ArchiveError, match="is full: make room"):
        Archive(queue, place).run()
    with open_subscriber(queue, place, start="earliest") as reader:
        assert [message.payload for message in reader] == payloads
    assert Archive(None, place).verify().ok
    for path in place.rglob("*#*"):
        path.unlink()


def test_no_permission(queue: Path, tmp_path: Path) -> None:
    fill(queue)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArchiveError, match="file"):
        Archive(queue, tmp_path / "file" / "archive").run()
