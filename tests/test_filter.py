# SPDX-License-Identifier: MIT
"""Readers of some types only: the answers are those of reading all and leaving out the rest, whatever is in types/."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle_ffi import InvalidArgument, Message, Queue, QueueReader, Retention, SegmentGone, WrongType
from tests.children import in_child, let_others_pass
from tests.damage import crc32c, patch, segment

SEGMENT = 1 << 18  # four blocks
COUNT = 6_000
RARE, COMMON, LONG, ABSENT = 1, 2, 3, 9


def fill(path: Path, seed: int = 1, count: int = COUNT) -> list[Message]:
    """Mostly COMMON, RARE in clusters, some LONG ones over several blocks, snapshots; what a reader gets."""
    rng = random.Random(seed)
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(count):
            if rng.random() < 0.0005:
                writer.append(bytes([i % 251]) * rng.randrange(70_000, 150_000), LONG)
            elif i % 2000 < 40 and rng.random() < 0.5:
                writer.append(b"%d" % i, RARE)
            elif i % 2500 == 2499:
                writer.snapshot(COMMON, b"state %d" % i)
            else:
                writer.append(bytes([i % 251]) * rng.randrange(0, 120), COMMON)
    with Queue.open_subscriber(path) as reader:
        return list(reader)


class Made:
    """A log that is made once; each test that changes its summaries gets them back as they were."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="chronicle-filter-"))
        self.path = self.directory / "queue"
        self.all = fill(self.path)
        other = self.directory / "other"
        fill(other, seed=1)  # the same records, of another queue
        for path in (self.path, other):
            with Queue.open_subscriber(path, types=ABSENT) as reader:
                assert reader.next() is None
        self.summaries = {file.name: file.read_bytes() for file in (self.path / "types").iterdir()}
        self.foreign = [file.read_bytes() for file in sorted((other / "types").iterdir())]

    def wanted(self, types: set[int]) -> list[Message]:
        return [message for message in self.all if message.type_id in types]

    def restore(self) -> None:
        shutil.rmtree(self.path / "types", ignore_errors=True)
        (self.path / "types").mkdir()
        for name, content in self.summaries.items():
            (self.path / "types" / name).write_bytes(content)


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    log = Made()
    yield log
    shutil.rmtree(log.directory)


types_wanted = st.sets(st.sampled_from([RARE, COMMON, LONG, ABSENT]), min_size=1)
damages = st.lists(
    st.one_of(
        st.tuples(st.just("delete"), st.integers(0, 99)),
        st.tuples(st.just("cut"), st.integers(0, 99), st.integers(0, 5000)),
        st.tuples(st.just("flip"), st.integers(0, 99), st.integers(0, 5000), st.integers(1, 255)),
        st.tuples(st.just("swap"), st.integers(0, 99), st.integers(0, 99)),
        st.tuples(st.just("foreign"), st.integers(0, 99), st.integers(0, 99)),
        st.tuples(st.just("bytes"), st.integers(0, 99), st.binary(max_size=300)),
        st.tuples(st.just("directory"), st.integers(0, 99)),
        st.tuples(st.just("link"), st.integers(0, 99)),
    ),
    max_size=8,
)


def damage(made: Made, what: tuple[Any, ...]) -> None:
    """Of one summary's file, chosen by a number."""
    names = sorted(made.summaries)
    kind, which, *rest = what
    file = made.path / "types" / names[which % len(names)]
    content = bytearray(made.summaries[file.name])
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    if kind == "cut":
        file.write_bytes(content[: rest[0] % len(content)])
    elif kind == "flip":
        content[rest[0] % len(content)] ^= rest[1]
        file.write_bytes(content)
    elif kind == "swap":
        file.write_bytes(made.summaries[names[rest[0] % len(names)]])
    elif kind == "foreign":
        file.write_bytes(made.foreign[rest[0] % len(made.foreign)])
    elif kind == "bytes":
        file.write_bytes(rest[0])
    elif kind == "directory":
        file.mkdir()
    elif kind == "link":
        file.symlink_to("/dev/zero")


def read_in_steps(reader: QueueReader, steps: list[tuple[str, int]]) -> list[Message]:
    """To the end, in all the ways there are, by turns."""
    found: list[Message] = []
    steps = [*steps, ("batch", 65536)]
    while True:
        before = len(found)
        for way, count in steps:
            if way == "next":
                for _ in range(count % 50):
                    if (message := reader.next()) is not None:
                        found.append(message)
            elif way == "loop":
                for message, _ in zip(reader, range(count % 300), strict=False):
                    found.append(message)
                reader.seek(found[-1].seq + 1 if found else 0)  # zip takes one more than it hands out
            elif way == "batch":
                found += reader.read_batch(count)
            elif found:  # back, and forward again
                reader.seek(found[-1].seq + 1)
                assert reader.previous() == found[-1]
                assert reader.next() == found[-1]
        if len(found) == before:
            return found


ways = st.lists(
    st.tuples(st.sampled_from(["next", "loop", "batch", "back"]), st.integers(1, 3000)), min_size=1, max_size=4
)


@settings(max_examples=max(1, settings.default.max_examples // 2))  # type: ignore[union-attr]
@given(types=types_wanted, what=damages, steps=ways, backwards=st.booleans())
def test_like_leaving_out_the_rest(
    made: Made, types: set[int], what: list[tuple[Any, ...]], steps: list[tuple[str, int]], backwards: bool
) -> None:
    made.restore()
    for one in what:
        damage(made, one)
    wanted = made.wanted(types)
    with Queue.open_subscriber(made.path, types=types, start="latest" if backwards else "earliest") as reader:
        if backwards:
            found = []
            while (message := reader.previous()) is not None:
                found.append(message)
            assert found[::-1] == wanted
            assert reader.position == 0 or reader.position == wanted[0].seq
            reader.seek_earliest()
        assert read_in_steps(reader, steps) == wanted
        assert reader.position == COUNT
        stats = reader.stats()
        assert stats.skipped == stats.gaps == 0


@settings(max_examples=30)
@given(types=types_wanted, start=st.integers(0, COUNT), stop=st.integers(0, COUNT), rows=st.integers(1, 5000))
def test_a_range(made: Made, types: set[int], start: int, stop: int, rows: int) -> None:
    with Queue.scan(made.path, start=start, stop=stop, type_id=types, batch_records=rows) as scan:
        found = [message for batch in scan for message in batch]
    assert found == [message for message in made.wanted(types) if start <= message.seq < stop]


def test_blocks_are_not_read(made: Made) -> None:
    """Neither those of other types nor anything of a segment that has none; and what is not there is made anew."""
    made.restore()
    with Queue.open_subscriber(made.path, types=RARE) as reader:
        assert list(reader) == made.wanted({RARE})
        stats = reader.stats()
    assert stats.records + stats.filtered == COUNT
    assert stats.unread > 0.6 * COUNT
    shutil.rmtree(made.path / "types")
    with Queue.open_subscriber(made.path, types=RARE) as reader:
        assert list(reader) == made.wanted({RARE})
    again = {file.name: file.read_bytes() for file in (made.path / "types").iterdir()}
    assert again.keys() == made.summaries.keys()
    for name, content in again.items():  # but for the time they were made at, and what sums it up
        assert content[128:-4] == made.summaries[name][128:-4]


def test_what_is_not_read_is_not_met(queue: Path) -> None:
    """Damage in a block that has nothing; where it may have something, it is met as ever."""
    everything = fill(queue)
    with Queue.open_subscriber(queue, types=ABSENT) as reader:
        assert list(reader) == []
    common = next(m for m in everything if m.type_id == COMMON and m.seq > 100 and len(m.payload) > 50)
    file = segment(queue)
    patch(file, file.read_bytes().index(common.payload), b"!" * 40)
    with Queue.open_subscriber(queue, types=ABSENT) as reader:
        assert reader.next() is None
    for types in ({COMMON}, {RARE, LONG}):
        shutil.rmtree(queue / "types", ignore_errors=True)
        with Queue.open_subscriber(queue, types=types) as reader:
            found = []
            with pytest.raises(Exception, match="is damaged") as error:
                while (message := reader.next()) is not None:
                    found.append(message)
            assert error.value.seq == reader.position  # type: ignore[attr-defined]
            wanted = [m for m in everything if m.type_id in types]
            assert found == [m for m in wanted if m.seq < reader.position]
            assert reader.skip_damaged() == 1
            behind = reader.position
            assert list(reader) == [m for m in wanted if m.seq >= behind]


def forge(file: Path, offset: int, data: bytes) -> None:
    """Change a summary, and make its CRC right again."""
    content = bytearray(file.read_bytes()[:-4])
    content[offset : offset + len(data)] = data
    file.write_bytes(content + struct.pack("<I", crc32c(bytes(content))))


@settings(max_examples=30)
@given(block=st.integers(0, 3), seq=st.integers(0, (1 << 64) - 1), offset=st.integers(0, (1 << 32) - 1))
def test_a_place_that_is_none(made: Made, block: int, seq: int, offset: int) -> None:
    """With a right CRC: whatever it leads to is checked, and no byte beyond the segment is touched."""
    made.restore()
    for name in made.summaries:
        forge(made.path / "types" / name, 208 + 16 * block, struct.pack("<QI", seq, offset))
    with Queue.open_subscriber(made.path, types={RARE, LONG}) as reader:
        assert list(reader) == made.wanted({RARE, LONG})


def test_a_summary_without_its_crc(made: Made) -> None:
    """A list that was changed, and nothing else: it would have blocks passed over that have what is wanted."""
    made.restore()
    for name, content in made.summaries.items():
        (blocks,) = struct.unpack_from("<I", content, 128 + 68)
        (listed,) = struct.unpack_from("<I", content, 128 + 72)
        patch(made.path / "types" / name, 208 + 16 * blocks, struct.pack(f"<{listed}H", *[ABSENT] * listed))
    with Queue.open_subscriber(made.path, types={RARE, LONG}) as reader:
        assert list(reader) == made.wanted({RARE, LONG})


def test_a_place_where_another_record_stands(made: Made) -> None:
    """Possible places, each with the seq of the record behind the one that is there."""
    made.restore()
    for name, content in made.summaries.items():
        (blocks,) = struct.unpack_from("<I", content, 128 + 68)
        for at in range(208, 208 + 16 * blocks, 16):
            (seq,) = struct.unpack_from("<Q", content, at)
            if seq < COUNT:
                forge(made.path / "types" / name, at, struct.pack("<Q", seq + 1))
    with Queue.open_subscriber(made.path, types={RARE, LONG}) as reader:
        assert list(reader) == made.wanted({RARE, LONG})


def test_another_state_of_the_segment(queue: Path) -> None:
    """What a copy went on with under the same names is not what the summaries of the other one tell of."""
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(900)] * 50, COMMON)
    twin = queue.with_name("twin")
    shutil.copytree(queue, twin)
    for path, kind in ((queue, COMMON), (twin, RARE)):
        with Queue.open_publisher(path, keeper=False) as writer:
            writer.append_many([bytes(900)] * 50, kind)
        with Queue.open_subscriber(path, types=ABSENT) as reader:
            assert reader.next() is None
    shutil.rmtree(twin / "types")
    shutil.copytree(queue / "types", twin / "types")
    with Queue.open_subscriber(twin, types=RARE) as reader:
        assert [message.seq for message in reader] == list(range(50, 100))


def test_positions(queue: Path) -> None:
    """A named one commits behind what it was not given, resumes there, and retention takes it at its word."""
    everything = fill(queue)
    rare = [m for m in everything if m.type_id == RARE]
    with Queue.open_subscriber(queue, "some", types=RARE) as reader:
        for message in rare[:20]:
            assert reader.next() == message
        reader.commit()
        assert reader.committed == rare[19].seq + 1
        assert reader.lag == COUNT - reader.position
    with Queue.open_subscriber(queue, "some", types=RARE) as reader:
        assert list(reader) == rare[20:]
        reader.commit()
        assert reader.committed == COUNT
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.cleanup().deleted_segments == 4
    assert {file.stem for file in (queue / "types").iterdir()} <= {file.stem for file in queue.glob("*.seg")}
    with pytest.raises(SegmentGone):
        Queue.open_subscriber(queue, types=RARE, start=0)
    with Queue.open_subscriber(queue, types=RARE, start=0, on_gap="oldest") as reader:
        assert reader.stats().skipped == Queue.info(queue).oldest_seq


def test_durable_only(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for i in range(600):
            writer.append(bytes(300), RARE if i % 100 == 99 else COMMON)
            if i == 450:
                writer.sync()
        with Queue.open_subscriber(queue, types=RARE) as reader:  # summaries of all that is sealed
            assert len(list(reader)) == 6
        with Queue.open_subscriber(queue, types=RARE, durable_only=True) as reader:
            assert [message.seq for message in reader] == [99, 199, 299, 399]
            assert reader.position == 451
            assert reader.next() is None
            writer.sync()
            assert [message.seq for message in reader] == [499, 599]


def test_blocks_up_to_the_durable_mark(queue: Path) -> None:
    """It lies in one that has nothing: the position does not go beyond."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(900):
            writer.append(bytes(300), RARE if i in (5, 690) else COMMON)
            if i == 400:
                writer.sync()
        with Queue.open_subscriber(queue, types=RARE) as reader:
            assert len(list(reader)) == 2
            assert reader.stats().unread > 0 or (queue / "types").exists()
        with Queue.open_subscriber(queue, types=RARE, durable_only=True) as reader:
            assert [message.seq for message in reader] == [5]
            assert reader.position == 401
            writer.sync()
            assert [message.seq for message in reader] == [690]


def test_following(queue: Path) -> None:
    """What comes is waited for; others do not end the wait."""
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:

        def write() -> None:
            for i in range(3000):
                writer.append(b"%d" % i, RARE if i % 1000 == 999 else COMMON)

        with Queue.open_subscriber(queue, types=RARE) as reader:
            assert not reader.wait(0.01)
            thread = threading.Thread(target=write)
            thread.start()
            assert [message.payload for message, _ in zip(reader.follow(timeout=10), range(3), strict=False)] == [
                b"999",
                b"1999",
                b"2999",
            ]
            thread.join()
            assert not reader.wait(0.01)


def test_snapshots(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append(b"first")
        with Queue.open_subscriber(queue, start="snapshot") as reader:
            assert reader.position == 0  # there is none: from the beginning
        assert writer.snapshot(7, b"seven") == 1
        writer.append_many([bytes(900)] * 300, COMMON)
        assert writer.snapshot(8, b"eight", flags=3, timestamp_ns=5) == 302
        writer.append_many([bytes(900)] * 300, COMMON)
    for _ in range(2):  # without summaries, and with them
        with Queue.open_subscriber(queue, start="snapshot") as reader:
            assert reader.next() == Message(302, 5, 8, 3, b"eight")
            assert reader.stats().filtered == 0
        with Queue.open_subscriber(queue, start="snapshot", types={7, COMMON}) as reader:
            assert reader.next()[4] == b"seven"  # type: ignore[index]
        with Queue.open_subscriber(queue, start="snapshot", types=COMMON) as reader:
            assert reader.position == 0
    assert Queue.verify(queue).ok


def test_the_newest_snapshot_is_kept(queue: Path) -> None:
    limits = Retention(max_segments=2, keep_snapshot=True)
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False, retention=limits) as writer:
        for round_ in range(3):
            writer.append_many([bytes(900)] * 300)
            kept = writer.snapshot(1, b"state %d" % round_)
            writer.append_many([bytes(900)] * 400)
            report = writer.cleanup()
            newest = max(s.base_seq for s in Queue.segments(queue) if s.base_seq <= kept)
            assert report.oldest_seq == newest
            with Queue.open_subscriber(queue, start="snapshot") as reader:
                assert reader.next()[4] == b"state %d" % round_  # type: ignore[index]
    assert "snapshot" in Queue.cleanup_plan(queue, limits).segments[0].reason
    file = segment(queue, 1)
    patch(file, 0, bytes(128))  # what cannot be read may hold a newer one
    plan = Queue.cleanup_plan(queue, Retention(max_segments=1, keep_snapshot=True))
    assert [fate.deleted for fate in plan.segments][:2] == [True, False]


def test_what_types_can_be(queue: Path) -> None:
    fill(queue, count=10)
    for wrong in ((), {70000}, {-1}, 65535):
        with pytest.raises(InvalidArgument, match="types"):
            Queue.open_subscriber(queue, types=wrong)
    for strange in ("1", 1.5, [None]):
        with pytest.raises(WrongType, match="types"):
            Queue.open_subscriber(queue, types=strange)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_nothing_is_left_in_a_queue_of_somebody_else(queue: Path) -> None:
    let_others_pass(queue)
    queue.parent.chmod(0o777)

    def write() -> None:
        os.setuid(65534)
        fill(queue)

    in_child(write)
    with Queue.open_subscriber(queue, types=RARE) as reader:
        assert len(list(reader)) > 0
    assert not (queue / "types").exists()


def test_verify_knows_a_summary_that_leaves_something_out(queue: Path) -> None:
    fill(queue)
    with Queue.open_subscriber(queue, types=ABSENT) as reader:
        assert reader.next() is None
    assert Queue.verify(queue).ok
    file = sorted((queue / "types").iterdir())[0]
    content = file.read_bytes()
    (blocks,) = struct.unpack_from("<I", content, 128 + 68)
    forge(file, 208 + 16 * blocks, struct.pack("<H", 4711))
    report = Queue.verify(queue)
    assert not report.ok
    assert "leaves out type" in report.problems[0].text


SEARCH = """
import sys
from chronicle_ffi import Queue
with Queue.open_subscriber(sys.argv[1], types=9) as reader:
    print("begun", flush=True)
    while True:
        reader.seek_earliest()
        reader.next()
"""


def test_ctrl_c_ends_a_search(made: Made) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(made.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"begun\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
