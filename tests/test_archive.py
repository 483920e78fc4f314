# SPDX-License-Identifier: MIT
"""The archive in a directory: what it holds, who reads it and how, and what befalls it. S3: test_archive_s3.py."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from chronicle_ffi import (
    ClosedHandle,
    Corrupt,
    ForkedHandle,
    InvalidArgument,
    Message,
    Queue,
    ReadOnly,
    Retention,
    SegmentGone,
    SeqOutOfRange,
)
from chronicle_ffi.cli import main
from tests import decoder
from tests.archived import FRAME, SEGMENT, START_NS, check, fill, objects
from tests.children import in_child
from tests.interop import need
from tests.test_cli import run

need("obstore")
need("zstandard")

from chronicle_ffi.archive import (  # noqa: E402
    Archive,
    ArchiveError,
    open_subscriber,
)
from chronicle_ffi.archive._cache import PREFIX  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_cache")


# -------------------------------------------------------------------------------------------- what is in there


def test_sealed_segments_go_and_come_back(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    files = {path.name: path.read_bytes() for path in queue.glob("*.seg")}
    report = Archive(queue, place, frame_bytes=FRAME).run()
    assert len(report.archived) == len(files) - 1
    assert report.cleanup is not None
    assert report.cleanup.deleted_segments == len(files) - 1
    assert report.next_seq == report.archived[-1].next_seq == Queue.info(queue).oldest_seq
    assert not report.waiting + report.missed + report.swept
    check(place, queue, payloads)
    again = Archive(queue, place).run()
    assert not again.archived + again.found

    restored = place.parent / "restored"
    assert Archive(None, place).restore(restored) == len(files) - 1
    for path in restored.glob("*.seg"):
        assert path.read_bytes() == files[path.name]
    with pytest.raises(FileExistsError):
        Archive(None, place).restore(restored)
    assert Queue.repair(restored).recovery.next_seq == report.next_seq
    with Queue.open_publisher(restored) as writer:
        assert writer.append(b"and on") == report.next_seq


def test_the_objects_are_what_the_format_says(queue: Path, place: Path) -> None:
    """By the second decoder, and by zstd's own program."""
    payloads = fill(queue)
    Archive(queue, place, frame_bytes=FRAME).run(keep_local=True)
    image = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    files = decoder.archive(image, need("zstandard").ZstdDecompressor().decompress)
    for name, data in files.items():
        assert data == (queue / name).read_bytes()
    end = Archive(None, place).entries[-1].next_seq
    assert sum(len(files[name]) for name in files) == len(files) * SEGMENT
    assert [record.payload for record in decoder.records(files)] == payloads[:end]
    zstd = shutil.which("zstd")
    if zstd is not None:
        for name in objects(place):
            found = subprocess.run([zstd, "-dc", place / name], check=True, capture_output=True).stdout
            assert found == files[f"{Path(name).name[:20]}.seg"]


def test_reading_is_as_if_everything_were_local(queue: Path, place: Path, tmp_path: Path) -> None:
    """Anything that a reader does, beside one over a copy that still has all; with small frames, and any order."""
    fill(queue)
    whole = tmp_path / "whole"
    shutil.copytree(queue, whole)
    Archive(queue, place, frame_bytes=FRAME).run()
    rng = random.Random(5)
    with Queue.open_subscriber(whole) as local, Queue.open_subscriber(queue, archive=place, start="earliest") as both:
        alone = open_subscriber(None, place, cache_bytes=4 * FRAME)
        end = alone._manifest.end()

        def together(work: Callable[[object], object]) -> None:
            before = local.position
            wanted = work(local)
            assert work(both) == wanted
            assert both.position == local.position
            if before < end and local.position < end:
                alone.seek(before)
                assert work(alone) == wanted

        for _ in range(300):
            seq = rng.randrange(end + 20)
            kind = rng.randrange(6)
            if kind == 0:
                together(methodcaller("seek", seq))
            elif kind == 1:
                together(methodcaller("seek_time", START_NS + seq * 10**9 - 1))
            elif kind in (2, 3):
                for _ in range(rng.randrange(30)):
                    together(methodcaller("previous" if kind == 2 else "next"))
            elif kind == 4:
                together(partial(take, count=seq % 50))
            else:
                wanted = local.read_batch(seq)
                found: list[Message] = []
                while len(found) < len(wanted):
                    found += list(both.read_batch(len(wanted) - len(found)))
                assert found == list(wanted)
        assert alone._cache.bytes <= 4 * FRAME + SEGMENT
        alone.close()
        local.seek_earliest()
        both.seek_earliest()
        assert list(both.payloads()) == list(local.payloads())
        assert (both.position, both.lag) == (local.position, 0)
        both.seek_earliest()
        assert both.lag == local.position
        assert both.stats().records > 0


def take(reader: object, count: int) -> list[Message]:
    """Of a loop that ends half way."""
    found: list[Message] = []
    for message in reader:  # type: ignore[attr-defined]
        found.append(message)
        if len(found) >= count:
            break
    return found


def test_columns_across_the_seam(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    Archive(queue, place).run()
    with Queue.scan(queue, archive=place) as scan:
        for _ in range(2):
            assert [payload for batch in scan for payload in batch.payloads()] == payloads
    with Queue.scan(queue, archive=place, start=100, stop=900, batch_records=77) as scan:
        assert [seq for batch in scan for seq in batch.seq] == list(range(100, 900))
    with Queue.scan(None, archive=place) as scan:
        assert scan.stop == Archive(None, place).entries[-1].next_seq
    table = need("pyarrow") and Queue.scan(queue, archive=place).to_arrow().read_all()
    assert table.num_rows == len(payloads)


def test_times_that_go_back_are_found_as_locally(queue: Path, place: Path, tmp_path: Path) -> None:
    rng = random.Random(9)
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for _ in range(2000):
            writer.append(bytes(100), timestamp_ns=rng.randrange(10**6))
    whole = tmp_path / "whole"
    shutil.copytree(queue, whole)
    Archive(queue, place, frame_bytes=FRAME).run()
    with Queue.open_subscriber(whole) as local, open_subscriber(queue, place) as both:
        for when in [0, 10**6, *(10**6 - 2**i for i in range(20)), *(rng.randrange(10**6) for _ in range(50))]:
            local.seek_time(when)
            both.seek_time(when)
            assert both.position == local.position, when


def test_the_seam_moves_while_one_reads(queue: Path, place: Path) -> None:
    """What is read locally is archived and deleted under the reader; and what a follower falls behind of, too."""
    payloads = fill(queue)
    Archive(queue, place).run(older=1e6)  # makes the archive, and archives nothing
    with Queue.open_subscriber(queue, archive=place, start="earliest") as reader:
        found = [reader.next() for _ in range(10)]
        Archive(queue, place).run()
        found += list(reader)
        assert [message.payload for message in found if message] == payloads
        payloads += fill(queue, 1500, seed=2, first=1500)
        Archive(queue, place).run()
        assert [message.payload for message in reader] == payloads[1500:]  # most of them only in the archive
        reader.seek(0)
        assert len(list(reader)) == len(payloads)


def test_a_follower_crosses_the_seam_and_wakes(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    Archive(queue, place).run()
    with Queue.open_publisher(queue, keeper=False) as writer, open_subscriber(queue, place) as reader:

        def later() -> None:
            time.sleep(0.2)
            writer.append(b"late")

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(later)
            found = [message.payload for message in reader.follow(timeout=0.5)]  # type: ignore[union-attr]
            done.result()
        assert found == [*payloads, b"late"]

        async def some() -> list[bytes]:
            reader.seek(0)
            seen = []
            async for message in reader:
                seen.append(message.payload)
                if len(seen) == len(found):
                    break
            assert await reader.next_async(0.01) is None
            assert not await reader.wait_async(0.01)
            return seen

        assert asyncio.run(some()) == found
    with open_subscriber(None, place, start="latest") as alone:
        assert not alone.wait(0.01)
        assert alone.next() is None
        assert len(alone.read_batch()) == 0
        assert list(alone.follow(timeout=0.01)) == []


def test_a_named_reader_resumes_in_the_archive(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    with Queue.open_subscriber(queue, "slow") as slow:
        slow.seek(20)
        slow.commit()
    Archive(queue, place).run()
    assert Queue.info(queue).oldest_seq == 0  # the slow reader holds them
    with Queue.open_publisher(queue, retention=Retention(max_segments=1)) as writer:
        writer.cleanup()
    with pytest.raises(SegmentGone):
        Queue.open_subscriber(queue, "slow")
    with open_subscriber(queue, place, "slow") as reader:
        assert (reader.position, reader.committed) == (20, 20)
        assert [reader.next().payload for _ in range(30)] == payloads[20:50]  # type: ignore[union-attr]
        reader.commit()
        assert Queue.readers(queue)[1].position == 50
        reader.commit(upto=50, sync=True)
        with pytest.raises(InvalidArgument, match="has committed up to 50"):
            reader.commit(upto=49)
        reader.seek(30)
        with pytest.raises(InvalidArgument, match="in the archive"):
            reader.commit()
    with open_subscriber(queue, place, "slow") as reader:
        assert [message.payload for message in reader] == payloads[50:]
        reader.commit()
    with Queue.open_subscriber(queue, "slow") as slow:
        assert slow.position == len(payloads)
    with open_subscriber(queue, place, "new") as reader:
        assert reader.position == 0


def test_arguments(queue: Path, place: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive"):
        open_subscriber(None, place)
    fill(queue, 20)
    wrongs: list[dict[str, Any]] = [{"level": 0}, {"level": 23}, {"frame_bytes": 1000}, {"frame_bytes": 0}]
    for wrong in wrongs:
        with pytest.raises(InvalidArgument):
            Archive(queue, place, **wrong)
    archive = Archive(queue, place)
    for older in (-1, float("nan")):
        with pytest.raises(InvalidArgument):
            archive.run(older=older)
    assert archive.run().archived == []
    assert archive.verify().ok
    with pytest.raises(InvalidArgument, match="nothing to archive"):
        Archive(None, place).run()
    with pytest.raises(ReadOnly):
        open_subscriber(None, place, "name")
    with pytest.raises(InvalidArgument):
        open_subscriber(None, place, start="somewhere")
    with open_subscriber(queue, place) as reader:
        with pytest.raises(SeqOutOfRange):
            reader.seek(21)
        with pytest.raises(InvalidArgument):
            reader.seek(-1)
        with pytest.raises(ReadOnly):
            reader.commit()
        assert reader.position == 0
    for use in (reader.next, reader.read_batch, reader.previous):
        with pytest.raises(ClosedHandle):
            use()
    forgotten = open_subscriber(queue, place)
    with pytest.warns(ResourceWarning, match="never closed"):
        del forgotten


# -------------------------------------------------------------------------------------------- which segments go


def test_only_what_is_old_enough_by_the_time_that_passed(queue: Path, place: Path) -> None:
    """Timestamps far in the past, and in the future, change nothing."""
    fill(queue)
    report = Archive(queue, place).run(older=3600)
    assert not report.archived
    assert {why for _, why in report.waiting} == {
        "it was sealed too short a time ago", "the one before it waits"
    }  # fmt: skip
    time.sleep(0.05)
    assert Archive(queue, place).run(older=0.02, keep_local=True).archived
    assert Queue.info(queue).oldest_seq == 0


def test_what_is_not_durable_waits_for_its_writer(queue: Path, place: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 200)
        report = Archive(queue, place).run()
        assert not report.archived
        assert "not durable" in report.waiting[0][1]
        assert report.cleanup is None
        writer.sync()
        assert len(Archive(queue, place).run().archived) == 3
        assert writer.cleanup().deleted_segments == 3  # that is the writer's business


def test_retention_waits_for_the_archive_and_a_limit_does_not(queue: Path, place: Path) -> None:
    fill(queue)
    Archive(queue, place).run(older=1e6)
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.cleanup().deleted_segments == 0
    with Queue.open_publisher(queue, keeper=False, retention=Retention(max_segments=3)) as writer:
        deleted = writer.cleanup()
    assert deleted.deleted_segments > 2
    fill(queue, 1500, seed=3, first=1500)
    report = Archive(queue, place).run()
    assert not report.missed  # the archive was empty: it begins here
    assert report.archived[0].base_seq == deleted.oldest_seq
    fill(queue, 1500, seed=4, first=3000)
    with Queue.open_publisher(queue, keeper=False, retention=Retention(max_segments=3)) as writer:
        oldest = writer.cleanup().oldest_seq
    report = Archive(queue, place).run()
    assert report.missed == [(report.missed[0][0], oldest)]
    checked = Archive(None, place).verify()
    assert not checked.ok
    assert checked.holes == report.missed
    with open_subscriber(queue, place, start=report.missed[0][0] - 1) as reader:
        reader.next()
        with pytest.raises(SegmentGone) as gone:
            reader.next()
        assert gone.value.oldest == oldest
    with open_subscriber(queue, place, start=report.missed[0][0], on_gap="oldest") as reader:
        message = reader.next()
        assert message is not None
        assert message.seq == oldest
        assert reader.stats().skipped == oldest - report.missed[0][0]
    with open_subscriber(queue, place, start=report.missed[0][0], on_gap="latest") as reader:
        assert reader.next() is None
        assert reader.lag == 0


def test_damage_here_is_not_archived_and_a_repaired_gap_is(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    Archive(queue, place).run(older=1e6)
    segments = Queue.segments(queue)
    path = queue / f"{segments[1].base_seq:020}.seg"
    data = bytearray(path.read_bytes())
    lost = next(i for i in range(segments[1].base_seq + 3, segments[1].next_seq) if 50 < len(payloads[i]) < 3000)
    at = data.find(payloads[lost])
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match="repair the queue first"):
        Archive(queue, place).run()
    assert [entry.base_seq for entry in Archive(None, place).entries] == [0]
    assert Queue.info(queue).oldest_seq == 0
    Queue.repair(queue)
    report = Archive(queue, place).run()
    assert report.archived[0].records == segments[1].next_seq - segments[1].base_seq - 1
    found = Archive(None, place).verify()
    assert found.ok
    with open_subscriber(None, place) as reader:
        with pytest.raises(SegmentGone) as gone:
            list(reader)
        assert (reader.position, gone.value.oldest) == (lost, lost + 1)
        reader.seek(lost + 1)
        assert reader.next().payload == payloads[lost + 1]  # type: ignore[union-attr]
        assert reader.previous().seq == lost + 1  # type: ignore[union-attr]
        assert reader.previous().seq == lost - 1  # type: ignore[union-attr]
    with open_subscriber(queue, place, on_gap="oldest") as reader:
        assert [message.payload for message in reader] == payloads[:lost] + payloads[lost + 1 :]
        reader.seek_time(START_NS + lost * 10**9)
        assert reader.position == lost + 1


# -------------------------------------------------------------------------------------------- the cache


def test_the_cache_of_a_killed_reader_is_removed_by_the_next(queue: Path, place: Path, tmp_path: Path) -> None:
    fill(queue)
    Archive(queue, place).run()
    environment = os.environ | {"TMPDIR": str(tmp_path / "cache")}
    code = (
        "import os, sys; from chronicle_ffi.archive import open_subscriber;"
        "reader = open_subscriber(None, sys.argv[1]); reader.next(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, place], env=environment).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cache").glob(f"{PREFIX}*"))) == 1
    with open_subscriber(None, place) as one, open_subscriber(None, place) as two:
        assert len(list((tmp_path / "cache").glob(f"{PREFIX}*"))) == 2
        assert one.next() == two.next()


def test_a_seek_costs_a_frame_or_two(queue: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(queue)
    Archive(queue, place, frame_bytes=FRAME).run()
    with open_subscriber(None, place) as reader:
        reader.seek(0)
        fetched: list[int] = []
        store = reader._manifest.store
        real = store.range

        def counting(key: str, start: int, end: int) -> bytes | None:
            fetched.append(end - start)
            return real(key, start, end)

        monkeypatch.setattr(store, "range", counting)
        entry = Archive(None, place).entries[3]
        reader.seek((entry.base_seq + entry.next_seq) // 2)
        assert len(fetched) == 3  # the index, what is in front of the records, and a frame
        assert sum(fetched) < 3 * FRAME
        fetched.clear()
        reader.next()
        assert not fetched


def test_a_forked_child_is_told(queue: Path, place: Path) -> None:
    """Threads of the store's client are not in there: it would wait for ever."""
    fill(queue, 700)
    Archive(queue, place).run()
    with open_subscriber(None, place) as reader:

        def work() -> None:
            for use in (reader.next, lambda: Archive(None, place).verify()):
                with pytest.raises(ForkedHandle):
                    use()

        in_child(work)
        assert reader.next() is not None


def test_batches_outlive_the_reader_and_the_cache(queue: Path, place: Path) -> None:
    payloads = fill(queue)
    Archive(queue, place).run()
    with open_subscriber(None, place) as reader:
        batch = reader.read_batch()
    assert batch.payloads() == payloads[: len(batch)]


# -------------------------------------------------------------------------------------------- the command line


def test_commands(queue: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for i in range(400):
            writer.append(b"line %d " % i + bytes(500))

    def command(*arguments: object) -> tuple[int, str]:
        """In this process, which is quicker."""
        capfd.readouterr()
        return main([str(one) for one in arguments]), capfd.readouterr().out

    assert "from record 0 on: it was sealed too short a time ago" in run("archive", queue, place, "--older", "1d")[0]
    out, _ = run("archive", queue, place)
    assert "archived 3 segments" in out
    assert "deleted 3 segments here" in out
    assert command("archive", "-", place, "--verify") == (0, "315 records in 3 segments: all is well\n")
    assert "line 0 " in run("tail", queue, "--archive", place, "--from", "oldest", "-n", "1")[0]
    assert command("tail", queue, "--archive", place, "-n", "1")[0] == 0
    assert command("archive", "-", place, "--restore", place.parent / "restored")[0] == 0
    next((place / "segments").iterdir()).unlink()
    assert "is missing" in command("archive", "-", place, "--verify")[1]
    assert "skipped" in run("tail", "-", "--archive", place, "--from", "oldest", "--skip-damaged")[1]
    assert command("tail", "-", "--archive", place, "--from", "oldest")[0] == 1
    assert command("tail", queue, "--archive", place / "not")[0] == 2
    assert command("archive", queue, place, "--option", "nothing")[0] == 2


def test_without_the_extra_one_is_told_which(queue: Path, place: Path) -> None:
    fill(queue, 3)
    hidden = (
        "import sys; sys.modules['obstore'] = None; from chronicle_ffi.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for command in (["archive", queue, place], ["tail", queue, "--archive", place]):
        done = subprocess.run([sys.executable, "-c", hidden, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 2
        assert "pip install 'chronicle-ffi[archive]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_digests_are_of_what_is_stored(queue: Path, place: Path) -> None:
    fill(queue, 700)
    for entry in Archive(queue, place).run().archived:
        data = (place / entry.object).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.object_bytes, entry.sha256)
