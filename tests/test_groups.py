# SPDX-License-Identifier: MIT
"""Groups of workers: processes and tasks that share out the records of a queue, and what becomes of their files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronicle_ffi import (
    ConcurrentUse,
    Corrupt,
    ForkedHandle,
    Group,
    GroupFull,
    HeldElsewhere,
    HistoryRewritten,
    InvalidArgument,
    NoSpace,
    NotSupported,
    Queue,
    QueueNotFound,
    ReaderAlreadyActive,
    RecoveryWarning,
    SegmentGone,
    SeqOutOfRange,
    Stage,
    StaleReceipt,
    UnsupportedFormat,
    WrongType,
)
from chronicle_ffi.cli import main
from tests import decoder, group_kill

SEGMENT = 1 << 16


def fill(queue: Path, count: int, size: int = 10) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([(b"job %d" % i).ljust(size) for i in range(count)])


@pytest.fixture
def jobs(queue: Path) -> Path:
    """A queue of ten."""
    fill(queue, 10)
    try:
        Queue.open_group(queue, "probe").close()
    except NotSupported:
        pytest.skip("no groups on this file system")
    Queue.remove_group(queue, "probe")
    return queue


def taken(group: Group) -> Iterator[int]:
    while (job := group.take()) is not None:
        yield job.seq
        job.ack()


def test_workers_are_killed_while_others_go_on(tmp_path: Path) -> None:
    print(group_kill.run(tmp_path / "queue", 12_000, 40, 4, seed=11))


def test_a_dead_workers_job_is_free_at_once(jobs: Path) -> None:
    program = """
import sys, time
from chronicle_ffi import Queue
group = Queue.open_group(sys.argv[1], "w")
job = group.take()
print(job, flush=True)
time.sleep(99)
"""
    worker = subprocess.Popen([sys.executable, "-c", program, jobs], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    with Queue.open_group(jobs, "w") as group:
        assert list(taken(group)) == list(range(1, 10))
        held = Queue.group_jobs(jobs, "w")
        assert [(one.seq, one.state, one.pid, one.alive) for one in held] == [(0, "running", worker.pid, True)]
        worker.kill()
        worker.wait()
        job = group.take(timeout=10)
        assert job is not None
        assert (job.seq, job.delivery) == (0, 2)
        assert group.stats().reclaimed == 1
    worker.stdout.close()


def test_the_end_of_a_handle_gives_its_jobs_back(jobs: Path) -> None:
    with Queue.open_group(jobs, "w") as other:
        with Queue.open_group(jobs, "w") as group:
            assert [job.seq for job in group.take_many(3)] == [0, 1, 2]
        assert [(job.seq, job.delivery) for job in other.take_many(3)] == [(0, 2)]  # alone
    assert Queue.readers(jobs)[0].position == 0


def test_a_job_as_a_context(jobs: Path) -> None:
    with Queue.open_group(jobs, "w") as group:
        with group.take() as job:  # type: ignore[union-attr]
            pass
        with pytest.raises(ZeroDivisionError), group.take() as job:  # type: ignore[union-attr]
            _ = 1 / 0
        assert (group.stats().acked, group.stats().nacked) == (1, 1)
        again = group.take()
        assert again is not None
        assert again.seq == job.seq == 1


def test_dead_letters_have_their_history(jobs: Path) -> None:
    with Queue.open_group(jobs, "w", max_deliveries=3) as group:
        for _ in range(3):
            job = group.take()
            assert job is not None
            assert job.seq == 0
            job.nack()
        rejected = group.take()  # the other one is handed over on the way
        assert rejected is not None
        rejected.reject('no "such"\n \\ format é\x00 ' + "x" * 500)
        with pytest.raises(StaleReceipt):
            rejected.ack()
        assert group.stats().dead == 2
        assert list(taken(group)) == list(range(2, 10))
    first, second = Queue.dead_letters(jobs)
    assert (first.seq, first.group, first.deliveries, first.why, first.reason) == (0, "w", 3, "deliveries", "")
    assert first.queue == Queue.info(jobs).uuid
    assert first.message is not None
    assert first.message.payload == b"job 0     "
    assert (second.seq, second.deliveries, second.why) == (1, 1, "rejected")
    assert second.reason.startswith('no "such"  \\ format é')
    assert Queue.verify(f"{jobs}.dead").problems == []
    assert [letter.seq for letter in Queue.dead_letters(jobs, start=second.dead_seq)] == [1]


def test_whoever_dies_in_a_batch_is_found(jobs: Path) -> None:
    """One job kills its workers: the others of its batch are not counted to death."""
    deaths = 0
    while Queue.groups(jobs) == [] or Queue.groups(jobs)[0].floor < 10:
        child = os.fork()
        if child == 0:
            with Queue.open_group(jobs, "w", max_deliveries=3) as group:
                while batch := group.take_many(5):
                    for job in batch:
                        if job.seq == 2:
                            os.kill(os.getpid(), signal.SIGKILL)
                        job.ack()
                os._exit(0)
        deaths += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert deaths == 3
    assert [(letter.seq, letter.deliveries) for letter in Queue.dead_letters(jobs)] == [(2, 3)]


def test_a_damaged_job_ends_in_the_dead_queue(jobs: Path) -> None:
    segment = jobs / f"{0:020}.seg"
    data = bytearray(segment.read_bytes())
    data[data.find(b"job 1 ")] ^= 1
    segment.write_bytes(data)
    with Queue.open_group(jobs, "w", max_deliveries=2) as group:
        assert next(taken(group)) == 0
        done: list[int] = []
        damages = 0
        while len(done) < 9:
            try:
                done += taken(group)
                break
            except Corrupt as damage:
                assert damage.seq == 1
                damages += 1
    assert damages == 2
    assert sorted(done) == [2, 3, 4, 5, 6, 7, 8, 9] or sorted(done) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    (letter,) = Queue.dead_letters(jobs)
    assert (letter.seq, letter.message) == (1, None)


def test_a_full_window_waits_or_raises(queue: Path) -> None:
    fill(queue, 100)
    with Queue.open_group(queue, "w", window=64) as group:
        stuck = group.take()
        assert stuck is not None
        for _ in range(63):
            group.take().ack()  # type: ignore[union-attr]
        with pytest.raises(GroupFull) as full:
            group.take()
        assert full.value.seq == 0
        with pytest.raises(GroupFull):
            group.take(timeout=0.02)
        stuck.ack()
        assert list(taken(group)) == list(range(64, 100))


def test_order_of_keys(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=SEGMENT) as writer:
        writer.append_many([b"%d %d" % (i % 7, i // 7) for i in range(700)])
    last: dict[bytes, int] = {}
    with Queue.open_group(queue, "w", key=lambda m: m.payload[:1]) as a:
        with Queue.open_group(queue, "w", key=lambda m: m.payload[:1]) as b:
            count = 0
            while batch := [*a.take_many(3), *b.take_many(3)]:
                assert len({job.payload[:1] for job in batch}) == len(batch)
                for job in batch:
                    key, number = job.payload.split()
                    assert last.get(key, -1) == int(number) - 1
                    if job.delivery == 1 and count % 5 == 0:
                        job.nack()
                    else:
                        last[key] = int(number)
                        job.ack()
                    count += 1
        with pytest.raises(InvalidArgument):
            Queue.open_group(queue, "w")
    assert set(last.values()) == {99}


def test_a_job_that_comes_again_comes_alone_behind_new_ones_too(jobs: Path) -> None:
    with Queue.open_group(jobs, "w", key=lambda m: max(m.seq, 1)) as group:  # 0 and 1 have the same
        first, third = group.take_many(2)
        assert (first.seq, third.seq) == (0, 2)
        third.nack()
        first.ack()
        assert [job.seq for job in group.take_many(2)] == [1]
        assert [job.seq for job in group.take_many(2)] == [2]


def test_what_a_key_function_raises(jobs: Path) -> None:
    def key(message: object) -> str:
        raise LookupError("no key")

    with Queue.open_group(jobs, "w", key=key) as group, pytest.raises(LookupError):
        group.take()
    with Queue.open_group(jobs, "w", key=lambda m: 1.5) as group, pytest.raises(WrongType):  # type: ignore[arg-type,return-value]
        group.take()


def test_a_group_counts_as_a_reader(queue: Path) -> None:
    fill(queue, 300, 1000)
    with Queue.open_publisher(queue) as writer:
        with Queue.open_group(queue, "w") as group:
            with pytest.raises(ReaderAlreadyActive):
                Queue.open_subscriber(queue, "w")
            with pytest.raises(ReaderAlreadyActive):
                Queue.remove_reader(queue, "w")
            assert writer.cleanup().deleted_segments == 0
            for _ in range(200):
                group.take().ack()  # type: ignore[union-attr]
        assert Queue.readers(queue)[0].position == 200
        assert writer.cleanup().deleted_segments == 3
    with Queue.open_subscriber(queue, "r") as reader:
        reader.seek(250)
        reader.commit()
        with pytest.raises(ReaderAlreadyActive):
            Queue.open_group(queue, "r")
    assert [known.name for known in Queue.groups(queue)] == ["w"]
    with Queue.open_group(queue, "r") as group:  # goes on where the reader stood
        assert next(taken(group)) == 250


def test_jobs_that_retention_deleted(queue: Path) -> None:
    from chronicle_ffi import Retention

    fill(queue, 10, 1000)
    Queue.open_group(queue, "w").close()
    with Queue.open_publisher(queue, retention=Retention(max_segments=2)) as writer:
        writer.append_many([bytes(1000)] * 300)
        writer.cleanup()
    oldest = Queue.info(queue).oldest_seq  # the keeper may have deleted more since
    assert oldest > 10
    with Queue.open_group(queue, "w") as group, pytest.raises(SegmentGone):
        group.take()
    with Queue.open_group(queue, "w", on_gap="oldest") as group:
        assert list(taken(group)) == list(range(oldest, 310))
        assert group.stats().lost == oldest


def test_misuse(jobs: Path) -> None:
    for options in ({"max_deliveries": 0}, {"window": 100}, {"on_gap": "latest"}, {"start": "end"}, {"lease": "x"}):
        with pytest.raises(InvalidArgument):
            Queue.open_group(jobs, "w", **options)
    with pytest.raises(InvalidArgument):
        Queue.open_group(jobs, "../w")
    with pytest.raises(QueueNotFound):
        Queue.open_group(jobs, "w", create=False)
    with pytest.raises(SeqOutOfRange):
        Queue.open_group(jobs, "w", start=11)
    assert Queue.groups(jobs) == []
    assert Queue.readers(jobs) == []
    with Queue.open_group(jobs, "w") as group:
        with pytest.raises(SeqOutOfRange):
            group.release(3)
        with pytest.raises(HeldElsewhere):
            Queue.remove_group(jobs, "w")
        child = os.fork()
        if child == 0:
            try:
                group.take()
            except ForkedHandle:
                group.close()
                os._exit(7)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert group.take() is not None
    Queue.remove_group(jobs, "w")
    assert (Queue.groups(jobs), Queue.readers(jobs)) == ([], [])


def test_any_byte_of_the_file_may_be_damaged(jobs: Path) -> None:
    """No crash, no job that is neither handed out nor known to be done; damage of what holds data is told."""
    with Queue.open_group(jobs, "w", window=64) as group:
        for _ in range(3):
            group.take().ack()  # type: ignore[union-attr]
        group.take_many(4)
    file = jobs / "groups" / "w.grp"
    good = file.read_bytes()
    interesting = [*range(144), *range(512, 576), *range(1024, 1088), *range(1536, 1760), *range(20480, 20480 + 240)]
    for at in interesting[::4]:
        shutil.copy(file, file.with_suffix(".keep"))
        file.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            with Queue.open_group(jobs, "w") as group:
                found = list(taken(group))
            own = {seq for seq in range(10) if 20480 + 24 * seq <= at < 20504 + 24 * seq}
            assert set(range(3, 10)) - set(found) <= own, (at, found, good[at])
        except (Corrupt, UnsupportedFormat):
            assert at < 144
        os.replace(file.with_suffix(".keep"), file)
    for content in (b"", good[:100], good[:-1], bytes(len(good)), b"x" * len(good)):
        file.write_bytes(content)
        try:
            Queue.open_group(jobs, "w").close()
            assert content in (b"", bytes(len(good)))
        except Corrupt:
            assert Queue.groups(jobs)[0].damaged


def test_records_that_a_loss_of_power_undid_are_other_jobs(queue: Path) -> None:
    fill(queue, 5)
    segment = queue / f"{0:020}.seg"
    before = segment.read_bytes()
    fill(queue, 5)
    with Queue.open_group(queue, "w") as group:
        assert list(taken(group)) == list(range(10))
    segment.write_bytes(before)
    meta = bytearray((queue / "queue.meta").read_bytes())
    meta[600] ^= 1  # of another boot
    meta[1112] ^= 1
    (queue / "queue.meta").write_bytes(meta)
    with pytest.warns(RecoveryWarning):
        fill(queue, 3)
    with Queue.open_group(queue, "w") as group:
        assert list(taken(group)) == [5, 6, 7]


def test_a_log_that_was_replaced_is_told(queue: Path, tmp_path: Path) -> None:
    fill(queue, 5)
    with Queue.open_group(queue, "w") as group:
        assert list(taken(group)) == list(range(5))
    segment = queue / f"{0:020}.seg"
    data = segment.read_bytes()
    fill(tmp_path / "other", 6, size=12)
    other = (tmp_path / "other" / f"{0:020}.seg").read_bytes()
    segment.write_bytes(data[:4096] + other[4096:])
    with pytest.raises(HistoryRewritten, match="Remove the group"):
        Queue.open_group(queue, "w")


def test_acknowledged_jobs_stay_so_if_only_the_cells_reached_the_disk(queue: Path) -> None:
    fill(queue, 70)
    with Queue.open_group(queue, "w", window=64) as group:
        old = (queue / "groups" / "w.grp").read_bytes()
        assert list(taken(group)) == list(range(70))
    file = queue / "groups" / "w.grp"
    file.write_bytes(old[:4096] + file.read_bytes()[4096:])  # the floor of the beginning
    with Queue.open_group(queue, "w") as group:
        assert list(taken(group)) == []


def test_another_queues_file_is_refused(jobs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fill(other, 3)
    Queue.open_group(other, "w").close()
    (jobs / "groups").mkdir(exist_ok=True)
    shutil.copy(other / "groups" / "w.grp", jobs / "groups" / "w.grp")
    with pytest.raises(Corrupt, match="another queue"):
        Queue.open_group(jobs, "w")


def test_tasks_share_a_group(jobs: Path) -> None:
    seen: list[int] = []

    async def worker(group: Group) -> None:
        async for job in group:
            seen.append(job.seq)
            await asyncio.sleep(0.001)
            job.ack()

    async def main() -> None:
        with Queue.open_publisher(jobs) as writer, Queue.open_group(jobs, "w") as group:
            tasks = [asyncio.create_task(worker(group)) for _ in range(3)]
            while len(seen) < 10:
                await asyncio.sleep(0.005)
            writer.append(b"one more")
            while len(seen) < 11:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert sorted(seen) == list(range(11))
    assert Queue.groups(jobs)[0].floor == 11


def test_waiting_is_ended_by_a_record(jobs: Path) -> None:
    with Queue.open_group(jobs, "w", start="latest") as group, Queue.open_publisher(jobs) as writer:
        assert group.take() is None
        assert group.take(timeout=0.01) is None
        writer.append(b"new")
        job = group.take(timeout=10)
        assert job is not None
        assert job.payload == b"new"


def test_a_full_disk_for_dead_letters(small_disk: Path) -> None:
    queue = small_disk / "q"
    fill(queue, 3)
    with Queue.open_group(queue, "w", window=64) as group:
        job = group.take()
        assert job is not None
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        with pytest.raises(NoSpace):
            job.reject("because")
        assert group.take().seq == 1  # type: ignore[union-attr]
        assert [held.state for held in Queue.group_jobs(queue, "w")] == ["deading", "running"]
        filler.unlink()
        deadline = time.monotonic() + 20
        while not Queue.dead_letters(queue) and time.monotonic() < deadline:
            group.take(timeout=0.1)
    assert [letter.seq for letter in Queue.dead_letters(queue)] == [0]


def test_two_threads_at_once(jobs: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Queue.open_group(jobs, "w", start="latest") as group, ThreadPoolExecutor(2) as pool:
        with pytest.raises(ConcurrentUse):
            list(pool.map(group.take, [0.2] * 20))


def test_the_decoder_says_the_same(jobs: Path) -> None:
    with Queue.open_group(jobs, "w", window=64) as group:
        for _ in range(4):
            group.take().ack()  # type: ignore[union-attr]
        group.take_many(2)[1].nack(100)
        decoded = decoder.open_group(jobs, "w")
        assert decoded.window == 64
        assert not decoded.keyed
        assert decoded.undone(10) == {4: "running", 5: "delayed"}
    decoded = decoder.open_group(jobs, "w")
    assert (decoded.floor, decoded.undone(10)) == (4, {4: "ready", 5: "delayed"})


def cli(*arguments: object, status: int = 0) -> str:
    """In a forked child, as another process: starting Python each time took most of the test."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
                code = main(["group", *map(str, arguments)])
                sys.stdout.flush()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
        out.seek(0)
        return out.read()


def test_the_command_line(jobs: Path) -> None:
    with Queue.open_group(jobs, "w") as group:
        job = group.take()
        assert job is not None
        assert cli(jobs) == "w: floor 0, handed out up to 1 of 10, 1 workers\n"
        shown = cli(jobs, "w")
        assert "job 0: running for" in shown
        assert f"delivery 1, process {os.getpid()}\n" in shown
        assert json.loads(cli(jobs, "w", "--json").splitlines()[1])["pid"] == os.getpid()
        cli(jobs, "w", "release", 0)
        with pytest.raises(StaleReceipt):
            job.ack()
        cli(jobs, "w", "bury", 0, "--reason", "it hangs")
        cli(jobs, "w", "release", 0, status=2)
        cli(jobs, "w", "remove", status=2)
        assert list(taken(group)) == list(range(1, 10))
    assert cli(jobs, "w", "dead") == "job 0, rejected: it hangs\n"
    cli(jobs, "w", "requeue", 3, status=2)
    cli(jobs, "w", "requeue")
    cli(jobs, "w", "requeue")  # there are no more
    with Queue.open_group(jobs, "w") as group:
        assert [job.payload for job in group.follow(timeout=0.01)] == [b"job 0     "]
    cli(jobs, "w", "remove")
    assert cli(jobs) == ""


def stage_work(source: Path, sink: Path) -> None:
    with Stage(source, sink, segment_size=SEGMENT, keeper=False) as stage:
        stage.run(lambda m: [m.payload] * (m.seq % 3), batch=1 + os.getpid() % 7, timeout=None)


def test_a_stage_is_killed_and_nothing_comes_twice(tmp_path: Path) -> None:
    source, sink = tmp_path / "source", tmp_path / "sink"
    fill(source, 3000)
    for _ in range(25):
        child = os.fork()
        if child == 0:
            stage_work(source, sink)
            os._exit(1)
        time.sleep(0.004 + child % 5 / 500)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with Stage(source, sink, segment_size=SEGMENT, keeper=False) as stage:
        stage.run(lambda m: [m.payload] * (m.seq % 3))
        assert stage.position == 3000
        with pytest.raises(ZeroDivisionError), Queue.open_publisher(source) as writer:
            writer.append(b"new")
            stage.run(lambda m: [b"%d" % (1 // 0)])
        assert stage.position == 3000
    with Queue.open_subscriber(sink) as reader:
        outputs = [message.payload.split()[1] for message in reader if message.type_id != Stage.POSITION_TYPE]
    assert outputs == [b"%d" % seq for seq in range(3000) for _ in range(seq % 3)]
    other = tmp_path / "other"
    fill(other, 1)
    with pytest.raises(HistoryRewritten):
        Stage(other, sink)
