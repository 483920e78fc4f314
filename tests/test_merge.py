# SPDX-License-Identifier: MIT
"""Many queues as one: the order, the stored position whatever happens, live sources, and what goes wrong with one."""

from __future__ import annotations

import asyncio
import heapq
import lzma
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle_ffi import (
    ClosedHandle,
    ConcurrentUse,
    Corrupt,
    ForkedHandle,
    InvalidArgument,
    Merge,
    MergedMessage,
    Queue,
    QueueRemoved,
    ReaderAlreadyActive,
    ReadOnly,
)
from tests import decoder
from tests.children import in_child
from tests.interop import need

CAPTURES = Path(os.environ.get("CHRONICLE_CAPTURES") or Path(__file__).parent.parent.parent / "shared" / "data")
SEGMENT = 1 << 16


def fill(path: Path, stamps: list[int], payload: bytes = b"%d") -> Path:
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for stamp in stamps:
            writer.append(payload % stamp, timestamp_ns=stamp)
    return path


def in_order(queues: list[list[int]], lateness: int | None) -> list[tuple[int, int, int, bool]]:
    """By the definition: (source, seq, timestamp, late) sorted by (place, source, seq)."""
    found = []
    for source, stamps in enumerate(queues):
        promise = 0
        for seq, stamp in enumerate(stamps):
            found.append((max(stamp, promise), source, seq, stamp, stamp < promise))
            promise = max(promise, stamp - lateness if lateness is not None else 0)
    return [found_[1:] for found_ in sorted(found)]


def told(message: MergedMessage) -> tuple[int, int, int, bool]:
    return message.source, message.seq, message.timestamp_ns, message.late


# ------------------------------------------------------------------------------------------ order

STAMPS = st.lists(st.integers(0, 60), max_size=40) | st.lists(st.integers(0, 9), max_size=600).map(sorted)


@given(
    queues=st.lists(STAMPS, min_size=1, max_size=5),
    lateness=st.sampled_from([0, 1, 7, 50, None]),
    take=st.integers(1, 50),
)
def test_the_order_is_that_of_a_sort_however_often_it_is_left(
    tmp_path_factory: pytest.TempPathFactory, queues: list[list[int]], lateness: int | None, take: int
) -> None:
    place = tmp_path_factory.mktemp("merge")
    paths = [fill(place / str(i), stamps) for i, stamps in enumerate(queues)]
    span = None if lateness is None else f"{lateness}ns"
    found: list[tuple[int, int, int, bool]] = []
    for _ in range(1000):
        with Queue.merge(paths, "me", lateness=span) as merge:
            found += map(told, islice(merge, take if len(found) < 200 else None))
            merge.commit()
            if merge.ended:
                break
    assert found == in_order(queues, lateness)
    shutil.rmtree(place)


@given(queues=st.lists(STAMPS, min_size=1, max_size=5))
def test_order_of_appending_is_what_heapq_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, queues: list[list[int]]
) -> None:
    place = tmp_path_factory.mktemp("merge")
    paths = [fill(place / str(i), stamps) for i, stamps in enumerate(queues)]
    lists = [[(stamp, i, seq) for seq, stamp in enumerate(stamps)] for i, stamps in enumerate(queues)]
    with Queue.merge(paths, order="append") as merge:
        found = [(message.timestamp_ns, message.source, message.seq) for message in merge]
        assert merge.late == 0
    assert found == list(heapq.merge(*lists, key=lambda one: one[:2]))
    shutil.rmtree(place)


def test_captures_merged_are_an_offline_sort(tmp_path: Path) -> None:
    files = sorted(CAPTURES.glob("*.txt.xz"))
    if not files:
        pytest.skip("the captures are not here")
    lines: list[tuple[int, int, int, bytes]] = []
    paths = []
    for source, file in enumerate(files):
        paths.append(tmp_path / file.stem)
        with Queue.open_publisher(paths[-1]) as writer, lzma.open(file, "rb") as capture:
            for seq, line in enumerate(islice(capture, 20_000)):
                seconds, _, text = line.partition(b": ")
                whole, _, fraction = seconds.partition(b".")
                stamp = int(whole) * 10**9 + int(fraction.ljust(9, b"0")[:9])
                writer.append(text, timestamp_ns=stamp)
                lines.append((stamp, source, seq, text))
    with Queue.merge(paths, lateness=None) as merge:
        found = [(one.timestamp_ns, one.source, one.seq, one.payload) for one in merge]
        assert merge.late == 0
    assert found == sorted(lines)


def test_batches_hold_the_same_as_messages(tmp_path: Path) -> None:
    chance = random.Random(5)
    paths = [fill(tmp_path / str(i), sorted(chance.randrange(10**6) for _ in range(2000))) for i in range(3)]
    with Queue.merge(paths) as merge:
        messages = list(merge)
    with Queue.merge(paths) as merge:
        batches = list(_batches(merge))
    assert [message for batch in batches for message in batch] == messages
    assert batches[0][3] == messages[3]
    assert batches[0][1:4] == messages[1:4]
    assert batches[0][-1] == messages[len(batches[0]) - 1]
    with pytest.raises(IndexError):
        batches[0][len(batches[0])]


def _batches(merge: Merge) -> Iterator[list[MergedMessage]]:
    while batch := merge.read_batch(777):
        yield batch  # type: ignore[misc]


def test_a_payload_that_is_larger_than_a_batch(tmp_path: Path) -> None:
    with Queue.open_publisher(tmp_path / "q") as writer:
        writer.append(b"small")
        writer.append(b"x" * (3 << 20))
        writer.append(b"")
    with Queue.merge([tmp_path / "q"]) as merge:
        assert [len(message.payload) for message in merge] == [5, 3 << 20, 0]


def test_arrow_batches_name_the_source(tmp_path: Path) -> None:
    need("pyarrow")
    paths = [fill(tmp_path / "a", [1, 3]), fill(tmp_path / "b", [2])]
    with Queue.merge(paths) as merge:
        table = merge.to_arrow().read_all()
    assert table["source"].to_pylist() == [str(paths[0]), str(paths[1]), str(paths[0])]
    assert table["payload"].to_pylist() == [b"1", b"2", b"3"]
    assert table["late"].to_pylist() == [False] * 3


def test_start_and_stop(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 3, 5]), fill(tmp_path / "b", [2, 4])]
    with Queue.merge([]) as merge:
        merge.add(paths[0], start=1, stop=2)
        merge.add(paths[1], start="latest")
        assert [message.payload for message in merge] == [b"3"]
        assert merge.ended
        with pytest.raises(Exception, match="records were read already"):
            merge.add(paths[1])
    with pytest.raises(InvalidArgument, match="ends at seq 3"), Queue.merge([]) as merge:
        merge.add(paths[0], stop=4)


def test_nothing_to_read_below_the_stop(tmp_path: Path) -> None:
    with Queue.merge([]) as merge:
        merge.add(fill(tmp_path / "a", [5]), stop=0)
        assert merge.next() is None
        assert merge.ended


# --------------------------------------------------------------------------------------- position


def test_a_commit_counts_what_the_loop_has_got(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 3, 5]), fill(tmp_path / "b", [2, 4])]
    with Queue.merge(paths, "me") as merge:
        for message in merge:
            if message.payload == b"3":
                merge.commit(sync=True)
                break
    assert [(one.name, one.position) for one in Queue.readers(paths[0])] == [("me", 2)]
    assert [(one.name, one.position) for one in Queue.readers(paths[1])] == [("me", 1)]
    with Queue.merge(reversed(paths), "me", home=paths[0] / "readers") as merge:  # the indices stay as they were
        assert [(message.source, message.payload) for message in merge] == [(1, b"4"), (0, b"5")]
    assert Queue.verify(paths[0]).notes == []


def test_a_closed_merge_goes_on_to_the_end_that_it_had(tmp_path: Path) -> None:
    path = fill(tmp_path / "a", [1, 2, 3])
    with Queue.merge([path], "me") as merge:
        merge.next()
        merge.commit()
    fill(path, [0, 4])
    with Queue.merge([path], "me") as merge:
        assert [message.payload for message in merge] == [b"2", b"3"]
        merge.commit()
    with Queue.merge([path], "me", lateness="5ms") as merge:
        assert [(message.payload, message.late) for message in merge] == [(b"0", True), (b"4", False)]


def test_retention_waits_for_the_stored_position(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        fill(path, list(range(5000)), b"%0100d")
    with Queue.merge(paths, "me", lateness=0) as merge:
        taken = list(islice(merge, 3000))
        merge.commit()
        assert len(list(islice(merge, 3000))) == 3000  # read, and not committed
    for path in paths:
        with Queue.open_publisher(path) as writer:
            assert writer.cleanup().deleted_segments > 0
    with Queue.merge(paths, "me", lateness=0) as merge:
        assert len(taken) + sum(1 for _ in merge) == 10_000


def test_a_position_belongs_to_its_merge(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 3]), fill(tmp_path / "b", [2, 4])]
    with Queue.merge(paths, "me") as merge:
        merge.next()
        merge.commit()
        with pytest.raises(ReaderAlreadyActive):
            Queue.merge(paths, "me")
    with pytest.raises(InvalidArgument, match="lateness of 5000000 ns"):
        Queue.merge(paths, "me", lateness=1)
    with pytest.raises(InvalidArgument, match="knows nothing of it"):
        Queue.merge([paths[1], paths[0]], "me")
    with pytest.raises(InvalidArgument, match="was not added"), Queue.merge([paths[0]], "me") as merge:
        merge.next()
    with Queue.merge([paths[0]], "me", missing="allow") as merge:
        assert [message.payload for message in merge] == [b"3"]
        merge.commit()
    with Queue.merge(paths, "me") as merge:  # the missing one comes back, where it was
        assert [(message.payload, message.late) for message in merge] == [(b"2", True), (b"4", False)]
    with pytest.raises(ReadOnly), Queue.merge(paths) as merge:
        merge.commit()


def test_the_file_of_the_position_is_what_the_format_says(tmp_path: Path) -> None:
    """Read by FORMAT.md alone, after each commit: generations take turns, readers are never ahead."""
    queues = [[5, 1, 9, 3, 20], [2, 4, 6, 30]]
    paths = [fill(tmp_path / name, stamps) for name, stamps in zip("ab", queues, strict=True)]
    expected = in_order(queues, 3)
    given = [set[int](), set[int]()]
    with Queue.merge(paths, "me", lateness="3ns") as merge:
        before = decoder.open_merge(paths[0] / "readers" / "me.merge").generation
        for source, seq, stamp, late in expected:
            assert told(next(iter(merge))) == (source, seq, stamp, late)
            given[source].add(seq)
            merge.commit()
            found = decoder.open_merge(paths[0] / "readers" / "me.merge")
            assert (found.generation, found.lateness_ns, found.order) == (before + 1, 3, 0)
            before = found.generation
            for path, stored, done, stamps in zip(paths, found.sources, given, queues, strict=True):
                queue = decoder.open_queue(path)
                start = stored.start or 0
                assert (stored.uuid, stored.path, stored.stop) == (queue.uuid, str(path), len(stamps))
                assert done == {*range(start), *(seq for begin, end in stored.done for seq in range(begin, end))}
                assert stored.promise == max([0, *(stamp - 3 for stamp in stamps[:start])])
                assert queue.positions["me"].next_seq <= start
    with pytest.raises(decoder.FormatError):
        decoder.open_merge(paths[0] / "queue.meta")


@given(
    damage=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=40),
    cut=st.integers(0, 1),
)
def test_any_bytes_in_the_file_of_the_position(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], cut: int
) -> None:
    """It is refused, or one of the two positions that were stored is what it says; nothing else ever comes out."""
    place = tmp_path_factory.mktemp("merge")
    path = fill(place / "a", list(range(10)))
    with Queue.merge([path], "me") as merge:
        for _ in range(2):
            next(iter(merge))
            merge.commit()
    file = path / "readers" / "me.merge"
    content = bytearray(file.read_bytes())
    for at, value in damage:
        content[at % len(content)] = value
    file.write_bytes(content[: damage[0][0]] if cut else content)
    try:
        with Queue.merge([path], "me") as merge:
            assert next(iter(merge)).seq == 2  # the reader is there already
    except Exception as refused:
        assert isinstance(refused, Corrupt | InvalidArgument) or type(refused).__name__ == "UnsupportedFormat"
    shutil.rmtree(place)


KILLED = """
import sys
from chronicle_ffi import Queue
out = open(sys.argv[1], "ab", buffering=0)
with Queue.merge(sys.argv[2:], "me", lateness="50ns") as merge:
    for count, message in enumerate(merge):
        out.write(b"%d %d\\n" % (message.source, message.seq))
        if count % 7 == 0:
            merge.commit()
    merge.commit()
print("ended")
"""


def test_killed_anywhere_and_resumed_it_is_the_same_order(tmp_path: Path) -> None:
    """What is handed out behind the last commit comes again, and in the same order, byte for byte."""
    chance = random.Random(3)
    queues = [[max(0, i * 10 + chance.randrange(-90, 90)) for i in range(500)] for _ in range(3)]
    paths = [fill(tmp_path / str(i), stamps) for i, stamps in enumerate(queues)]
    wanted = [b"%d %d" % one[:2] for one in in_order(queues, 50)]
    log = tmp_path / "log"
    position = 0
    for _ in range(200):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(log), *map(str, paths)], stdout=subprocess.PIPE)
        try:
            out, _ = child.communicate(timeout=chance.uniform(0.15, 0.3))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            out, _ = child.communicate()
        lines = log.read_bytes().splitlines() if log.exists() else []
        run, lines = lines[position:], lines[:position]
        if run:
            begin = wanted.index(run[0])
            assert run == wanted[begin : begin + len(run)]
        position = len(lines) + len(run)
        if b"ended" in out:
            break
    else:
        pytest.fail("it never came to its end")
    assert set(log.read_bytes().splitlines()) == set(wanted)


# ------------------------------------------------------------------------------------------- live


def test_a_silent_queue_holds_the_others_back_and_not_for_ever(tmp_path: Path) -> None:
    with (
        Queue.open_publisher(tmp_path / "a") as a,
        Queue.open_publisher(tmp_path / "b") as b,
        Queue.merge([a.path, b.path], live=True, lateness=0, idle=0.2) as merge,
    ):
        a.append(b"1", timestamp_ns=1)
        a.append(b"3", timestamp_ns=3)
        assert merge.next() is None  # b may come with something older
        b.append(b"2", timestamp_ns=2)
        found = [message.payload for message in islice(merge.follow(timeout=5), 3)]
        assert found == [b"1", b"2", b"3"]
        assert merge.late == 0
        a.append(b"9", timestamp_ns=9)
        assert [message.payload for message in islice(merge.follow(timeout=5), 1)] == [b"9"]
        assert merge.sources[1].idle
        b.append(b"8", timestamp_ns=8)
        late = next(merge.follow(timeout=5))
        assert (late.payload, late.late, merge.late) == (b"8", True, 1)
        assert not merge.ended


def test_queues_join_and_leave_a_live_merge(tmp_path: Path) -> None:
    first = fill(tmp_path / "a", [10])
    with Queue.merge([first], "me", live=True, idle=0.01, lateness=0) as merge:
        assert [message.payload for message in merge.follow(timeout=0.1)] == [b"10"]
        merge.commit()
        assert merge.add(fill(tmp_path / "b", [5, 20])) == 1
        assert [told(message) for message in merge.follow(timeout=0.1)] == [(1, 0, 5, True), (1, 1, 20, False)]
        merge.commit()
        merge.drop(tmp_path / "b")
        fill(tmp_path / "b", [21])
        fill(first, [22])
        assert [message.payload for message in merge.follow(timeout=0.1)] == [b"22"]
        merge.commit()
    with Queue.merge([first, tmp_path / "b"], "me", live=True, idle=0.01, lateness=0) as merge:
        assert [message.payload for message in merge.follow(timeout=0.1)] == [b"21"]


def test_writers_in_other_processes_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom chronicle_ffi import Queue\n"
        "with Queue.open_publisher(sys.argv[1]) as writer:\n"
        "    for i in range(5000): writer.append(b'%d' % i)\n"
    )
    paths = [tmp_path / str(i) for i in range(3)]
    children = [subprocess.Popen([sys.executable, "-c", program, path]) for path in paths]
    found: list[list[int]] = [[], [], []]
    with Queue.merge([], live=True, idle=0.02, lateness="1ms") as merge:
        for path in paths:
            Queue.open_subscriber(path, wait=30).close()
            merge.add(path)
        for message in islice(merge.follow(timeout=20), 15_000):
            found[message.source].append(message.seq)
    assert [child.wait() for child in children] == [0, 0, 0]
    assert all(sorted(seqs) == list(range(5000)) for seqs in found)


def test_on_an_event_loop(tmp_path: Path) -> None:
    async def both() -> list[bytes]:
        with (
            Queue.open_publisher(tmp_path / "a") as writer,
            Queue.merge([tmp_path / "a"], live=True, lateness=0) as merge,
        ):
            waiting = asyncio.create_task(merge.wait_async())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert merge.next() is None  # nobody is in there any more
            asyncio.get_running_loop().call_later(0.05, writer.append, b"one")
            async for message in merge:
                return [message.payload]
            return []

    assert asyncio.run(both()) == [b"one"]


# ------------------------------------------------------------------------------- what goes wrong


def test_the_same_queue_twice(tmp_path: Path) -> None:
    path = fill(tmp_path / "a", [1])
    (tmp_path / "link").symlink_to(path)
    shutil.copytree(path, tmp_path / "copy")
    for other in ("a", "link", "copy"):
        with pytest.raises(InvalidArgument, match="a source of this merge already"):
            Queue.merge([path, tmp_path / other])


def test_a_queue_that_vanishes(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 4]), fill(tmp_path / "b", [2])]
    found = []
    with Queue.merge(paths, live=True, idle=60, lateness=0) as merge:
        found.append(next(iter(merge)).payload)
        found.append(next(iter(merge)).payload)
        shutil.rmtree(paths[1])
        with pytest.raises(QueueRemoved, match=str(paths[1])):
            found += [message.payload for message in merge.follow(timeout=10)]
        merge.drop(paths[1])
        found += [message.payload for message in islice(merge.follow(timeout=10), 1)]
    assert found == [b"1", b"2", b"4"]


def test_a_damaged_source_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    paths = [fill(tmp_path / "a", [1, 3, 5]), fill(tmp_path / "b", [2, 4, 6], b"payload %d")]
    segment = paths[1] / f"{0:020}.seg"
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"payload 4", b"PAYLOAD 4"))
    found: list[bytes] = []
    with Queue.merge(paths, lateness=0) as merge:
        with pytest.raises(Corrupt, match=str(paths[1])):
            found += iter_into(merge, found)
        assert merge.skip_damaged() == 1
        found += [message.payload for message in merge]
        assert [source.skipped for source in merge.sources] == [0, 1]
    assert found == [b"1", b"payload 2", b"3", b"5", b"payload 6"]


def iter_into(merge: Merge, found: list[bytes]) -> list[bytes]:
    for message in merge:
        found.append(message.payload)
    return []


def test_handles_are_guarded(tmp_path: Path) -> None:
    path = fill(tmp_path / "a", [1])
    merge = Queue.merge([path], "me", live=True)

    def child() -> None:
        with pytest.raises(ForkedHandle):
            merge.next()
        merge.close()

    in_child(child)
    with pytest.raises(ReaderAlreadyActive):  # the child has given up nothing of the parent's
        Queue.merge([path], "me", live=True)
    assert [message.payload for message in merge.follow(timeout=0.2)] == [b"1"]
    waiting = threading.Thread(target=merge.wait, args=(3,))
    waiting.start()
    with pytest.raises(ConcurrentUse):
        while waiting.is_alive():
            merge.next()
            time.sleep(0.001)
    fill(path, [2])
    waiting.join()
    merge.close()
    merge.close()
    with pytest.raises(ClosedHandle):
        merge.next()


def test_arguments(tmp_path: Path) -> None:
    path = fill(tmp_path / "a", [1])
    for wrong in (
        {"order": "seq"},
        {"lateness": "5 parsecs"},
        {"on_gap": "x"},
        {"missing": "x"},
        {"home": tmp_path},
        {"name": "../x"},
        {"start": "x"},
    ):
        with pytest.raises(InvalidArgument):
            Queue.merge([path], **wrong)
    with Queue.merge([path]) as merge, pytest.raises(InvalidArgument):
        merge.drop("elsewhere")


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.heavy)])
def test_many_sources(tmp_path: Path, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8000:
        pytest.skip(f"no more than {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8000), hard))
    paths = []
    for i in range(count):
        paths.append(tmp_path / str(i))
        with Queue.open_publisher(paths[-1], segment_size=SEGMENT, keeper=False) as writer:
            writer.append(b"x", timestamp_ns=i)
            writer.append(b"x", timestamp_ns=count + i)
    with Queue.merge(paths, "me") as merge:
        assert [message.timestamp_ns for message in islice(merge, count + 7)] == list(range(count + 7))
        merge.commit()
    with Queue.merge(paths, "me") as merge:
        assert [message.timestamp_ns for message in merge] == list(range(count + 7, 2 * count))
