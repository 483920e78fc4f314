# SPDX-License-Identifier: MIT
"""`Queue.repair`: it tells what it does before it does it, does that and nothing else, and queue.meta comes back."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Problem, Queue, Recovery
from tests.children import in_child, let_others_pass
from tests.damage import SEGMENT, crc32c, make, patch, patch_header, restart, segment
from tests.decoder import slot as decoded_slot
from tests.test_crashes import program

DATA = 8192
MEMORY = "/dev/shm"


def everything(path: Path) -> dict[str, tuple[str, int]]:
    """All that is in the queue, and when it was changed."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def read(path: Path) -> dict[int, bytes]:
    with Queue.open_subscriber(path, on_gap="oldest") as reader:
        return {message.seq: message.payload for message in reader}


def told(found: list[Problem]) -> list[tuple[str, str, str]]:
    return [(one.file.lstrip("0") or one.file, one.kind, one.action) for one in found]


def repair(path: Path) -> c.RepairReport:
    """A dry run changes nothing; the repair then does what it said; another one has nothing to do."""
    before = everything(path)
    dry = Queue.repair(path, dry_run=True)
    assert everything(path) == before
    done = Queue.repair(path)
    assert (dry.dry_run, done.dry_run) == (True, False)
    assert done.found == dry.found
    assert figures(done.recovery) == figures(dry.recovery)
    report = Queue.verify(path)
    assert report.ok, report.problems
    again = Queue.repair(path)
    assert (again.found, again.recovery.loss()) == ([], None)
    with Queue.open_publisher(path, keeper=False) as writer:
        assert (writer.next_seq, writer.recovery.loss()) == (done.recovery.next_seq, None)
        assert writer.append(b"goes on") == done.recovery.next_seq
    return done


def figures(recovery: Recovery) -> Recovery:
    """But for what only an opening knows."""
    return replace(recovery, epoch=0, clean=True, copied=False, lost_records=0, quarantined=False)


# ------------------------------------------------------------------------------------------ what is told


def one_bit(path: Path) -> None:
    patch(segment(path, 1), DATA + 36, b"\xff")


def index(path: Path) -> None:
    patch(segment(path, 0), 4096, b"\x07")


def seal(path: Path) -> None:
    patch(segment(path, 0), 128 + 8, b"\xff")


def end(path: Path) -> None:
    patch(segment(path, 0), Queue.segments(path)[0].used_bytes, bytes(32))


def behind(path: Path) -> None:
    patch(segment(path, -1), Queue.segments(path)[-1].used_bytes + 5000, b"junk" * 100)


def commit_word(path: Path) -> None:
    """Of the first record in the last segment, which is not sealed."""
    patch(segment(path, -1), DATA, bytes(4))


def doorbell(path: Path) -> None:
    (path / "doorbell").unlink()


def directories(path: Path) -> None:
    for name in ("quarantine", "readers"):
        shutil.rmtree(path / name)


def no_segment(path: Path) -> None:
    for file in path.glob("*.seg"):
        file.unlink()


CASES: dict[str, tuple[Callable[[Path], object], list[tuple[str, str]]]] = {
    "nothing": (lambda path: None, []),
    "one bit": (one_bit, [("record", "gap"), ("index", "anew")]),
    "index": (index, [("index", "anew")]),
    "seal": (seal, [("seal", "anew")]),
    "END": (end, [("record", "anew")]),
    "header": (lambda path: patch(segment(path, 1), 60, b"\xff"), [("header", "anew")]),
    "behind the end": (behind, [("tail", "cut")]),
    "missing": (lambda path: segment(path, 1).unlink(), [("chain", "gap")]),
    "newest missing": (lambda path: segment(path, -1).unlink(), [("chain", "cut"), ("chain", "gap")]),
    "cut short": (
        lambda path: os.truncate(segment(path, 1), 30_000),
        [("record", "gap"), ("file", "anew"), ("seal", "anew")],
    ),
    "no file": (lambda path: segment(path, 1).write_text("?"), [("header", "gap"), ("file", "move")]),
    "last one no file": (
        lambda path: segment(path, -1).write_text("?"),
        [("header", "cut"), ("chain", "gap"), ("file", "move")],
    ),
    "commit word": (commit_word, [("record", "gap"), ("index", "anew")]),
    "doorbell": (doorbell, [("doorbell", "anew")]),
    "directories": (directories, [("file", "anew"), ("file", "anew")]),
    "queue.meta": (lambda path: patch(path / "queue.meta", 0, bytes(128)), [("meta", "anew")]),
    "all gone": (no_segment, [("chain", "gap")]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_tells_what_a_repair_does(queue: Path, case: str) -> None:
    payloads = make(queue)
    damage, expected = CASES[case]
    damage(queue)
    done = repair(queue)
    assert [(one.kind, one.action) for one in done.found] == expected, done.found
    lost = {
        seq
        for one in done.found
        if one.action == "gap" and one.seq is not None and one.seq_end is not None
        for seq in range(one.seq, one.seq_end)
    }
    assert read(queue) == {s: p for s, p in enumerate([*payloads, b"goes on"]) if s not in lost}
    assert done.recovery.gap_records == len(lost)
    assert done.recovery.next_seq == len(payloads)


def test_nothing_is_changed_unless_it_is_approved(queue: Path) -> None:
    make(queue)
    one_bit(queue)
    before = everything(queue)
    seen: list[Problem] = []

    def refuse(found: list[Problem]) -> bool:
        seen.extend(found)
        assert everything(queue) == before | {lock: everything(queue)[lock]}
        return False

    lock = str(queue / "writer.lock")
    for meta in (False, True):
        if meta:
            (queue / "queue.meta").unlink()
            before = everything(queue)
        with pytest.raises(c.Interrupted, match="nothing was changed"):
            Queue.repair(queue, approve=refuse)
        assert everything(queue) == before | {lock: everything(queue)[lock]}
    assert [one.kind for one in seen] == ["record", "index", "meta", "record", "index"]
    assert Queue.repair(queue, approve=lambda found: True).found == seen[2:]
    assert Queue.verify(queue).ok


def test_an_exception_of_the_callers_ends_a_repair(queue: Path) -> None:
    make(queue)
    one_bit(queue)
    before = everything(queue)

    def fail(found: list[Problem]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Queue.repair(queue, approve=fail)
    del before[str(queue / "writer.lock")]
    assert before.items() <= everything(queue).items()


def test_progress_is_told(queue: Path) -> None:
    with Queue.open_publisher(queue, segment_size=1 << 27, keeper=False) as writer:
        writer.append_many([bytes(1 << 20)] * 100)
    said: list[tuple[str, int]] = []
    Queue.repair(queue, dry_run=True, progress=lambda file, seq: said.append((file, seq)))
    assert said == [(segment(queue).name, 64)]


def test_beside_a_writer(queue: Path) -> None:
    make(queue)
    with Queue.open_publisher(queue, keeper=False):
        for dry_run in (True, False):
            with pytest.raises(c.WriterAlreadyActive) as held:
                Queue.repair(queue, dry_run=dry_run)
            assert held.value.pid == os.getpid()
        (queue / "writer.lock").unlink()
        for dry_run in (True, False):
            with pytest.raises(c.WriterAlreadyActive):
                Queue.repair(queue, dry_run=dry_run)


def test_where_there_is_no_queue(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "empty"):
        for dry_run in (True, False):
            with pytest.raises(c.QueueNotFound):
                Queue.repair(path, dry_run=dry_run)
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_only_read_can_see_what_it_would_do(queue: Path) -> None:
    os.umask(0o022)
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False, mode=0o644) as writer:
        writer.append_many([b"x" * 1000] * 100)
    patch(segment(queue), DATA + 36, b"\xff")
    let_others_pass(queue)

    def look() -> None:
        os.setuid(65534)
        assert [one.action for one in Queue.repair(queue, dry_run=True).found] == ["gap", "anew"]
        with pytest.raises(c.AccessDenied):
            Queue.repair(queue)

    in_child(look)
    (queue / "queue.meta").unlink()
    in_child(lambda: look_without_meta(queue))


def look_without_meta(queue: Path) -> None:
    os.setuid(65534)
    assert [one.action for one in Queue.repair(queue, dry_run=True).found] == ["anew", "gap", "anew"]


# -------------------------------------------------------------------------------------------- queue.meta


def zeroed(meta: Path) -> None:
    meta.write_bytes(bytes(4096))


def both_slots(meta: Path) -> None:
    for at in (512, 1024):
        patch(meta, at + 20, b"\xa5\x5a")


LOST: dict[str, Callable[[Path], object]] = {
    "missing": lambda meta: meta.unlink(),
    "zeroed": zeroed,
    "empty": lambda meta: os.truncate(meta, 0),
    "cut short": lambda meta: os.truncate(meta, 600),
    "both slots": both_slots,
    "all of it": lambda meta: meta.write_bytes(b"\xff" * 4096),
}


@pytest.mark.parametrize("how", LOST)
def test_queue_meta_comes_back(queue: Path, how: str) -> None:
    """From any segment's header. Epochs go on far above all that were seen, and all that is there counts as durable."""
    payloads = make(queue)
    payloads.append(b"of another epoch")
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append(payloads[-1])
        epoch = writer.recovery.epoch
    before = Queue.info(queue)
    LOST[how](queue / "queue.meta")
    with pytest.raises((c.Corrupt, c.QueueNotFound)):
        Queue.open_publisher(queue, keeper=False, create=False)
    done = repair(queue)
    assert told(done.found) == [("queue.meta", "meta", "anew")]
    after = Queue.info(queue)
    assert (after.uuid, after.segment_size, after.oldest_seq) == (before.uuid, before.segment_size, before.oldest_seq)
    assert done.recovery.epoch == epoch + (1 if how == "cut short" else 65536)  # there, a slot is whole
    assert done.recovery.next_seq == len(payloads)
    assert read(queue) == dict(enumerate([*payloads, b"goes on"]))
    assert len(list(queue.glob("quarantine/queue.meta-*.damaged"))) == (how != "missing")
    assert Queue.readers(queue)[0].position == (len(payloads) - 1) // 2


def test_the_mark_is_set_after_a_sync(queue: Path) -> None:
    make(queue)
    (queue / "queue.meta").unlink()
    end = Queue.repair(queue).recovery.next_seq
    assert Queue.info(queue).durable_seq == end - 1


def test_a_header_alone_is_mended_in_place(queue: Path) -> None:
    """What the slots say stays believed: this boot, this place, the epoch, the durable mark."""
    make(queue)
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.sync()
        epoch = writer.recovery.epoch
    before = (queue / "queue.meta").stat().st_ino
    patch(queue / "queue.meta", 30, b"\xff")
    done = repair(queue)
    assert told(done.found) == [("queue.meta", "meta", "anew")]
    assert done.recovery.epoch == epoch + 1
    assert (queue / "queue.meta").stat().st_ino == before


def test_epochs_of_remnants_count(queue: Path) -> None:
    """What a loss of power left behind the end of the log must not come back to life in front of what is appended."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        writer.append_many([b"x" * 20] * 3)
    words = struct.pack("<QQHHI", 9, 0, 0, 0, 70_000) + b"remnant."
    commit = struct.pack("<I", 9)
    patch(segment(queue), DATA + 64 * 10, commit + struct.pack("<I", crc32c(commit + words)) + words)
    (queue / "queue.meta").unlink()
    done = Queue.repair(queue)
    assert done.recovery.epoch == 70_000 + 65536
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.recovery.epoch == 70_000 + 65536 + 1


def test_the_epoch_of_a_header_counts(queue: Path) -> None:
    """A segment that was made by a writer that appended nothing to it."""
    make(queue)
    patch_header(segment(queue, -1), 80, struct.pack("<Q", 5000))
    patch(segment(queue, -1), DATA, bytes(SEGMENT - DATA))
    (queue / "queue.meta").unlink()
    assert Queue.repair(queue).recovery.epoch == 5000 + 65536


@pytest.mark.parametrize("lost", ["missing", "both slots"])
def test_segments_of_several_queues(queue: Path, lost: str) -> None:
    make(queue, segments=4)
    other = queue.with_name("other")
    make(other, segments=3)
    stranger = segment(queue, 2)
    shutil.copy(segment(other, 1), stranger)
    patch_header(stranger, 56, struct.pack("<Q", int(stranger.stem)))
    LOST[lost](queue / "queue.meta")
    if lost == "missing":
        for dry_run in (True, False):
            with pytest.raises(c.Corrupt, match="of different queues: 1 of 4") as refused:
                Queue.repair(queue, dry_run=dry_run)
            assert stranger.name in str(refused.value)
        assert not (queue / "queue.meta").exists()
        stranger.unlink()
    done = repair(queue)
    assert [one.action for one in done.found] == ["anew", "gap", "move"][: 2 if lost == "missing" else 3]


def test_nothing_is_left_to_make_it_from(queue: Path) -> None:
    make(queue)
    zeroed(queue / "queue.meta")
    for file in queue.glob("*.seg"):
        patch(file, 40, b"\xff" * 8)
    for dry_run in (True, False):
        with pytest.raises(c.Corrupt, match="no segment has a header that can be believed"):
            Queue.repair(queue, dry_run=dry_run)
    for file in queue.glob("*.seg"):
        file.unlink()
    with pytest.raises(c.Corrupt, match="there is no segment"):
        Queue.repair(queue)


def test_queue_meta_of_a_later_format_is_left_alone(queue: Path) -> None:
    make(queue)
    patch_header(queue / "queue.meta", 8, struct.pack("<I", 2))
    before = (queue / "queue.meta").read_bytes()
    with pytest.raises(c.UnsupportedFormat):
        Queue.repair(queue)
    assert (queue / "queue.meta").read_bytes() == before


def test_an_opening_that_repairs_makes_queue_meta_too(queue: Path) -> None:
    payloads = make(queue)
    (queue / "queue.meta").unlink()
    with Queue.open_publisher(queue, keeper=False, repair=True, create=False) as writer:
        assert writer.next_seq == len(payloads)
    assert decoded_slot("queue.meta", (queue / "queue.meta").read_bytes()).offset > 65536


def test_verify_looks_at_the_segments_all_the_same(queue: Path) -> None:
    payloads = make(queue)
    for how in ("zeroed", "missing"):
        LOST[how](queue / "queue.meta")
        report = Queue.verify(queue)
        assert (report.ok, report.records) == (False, len(payloads))
        assert [problem.kind for problem in report.problems] == ["meta"]
    one_bit(queue)
    assert [problem.kind for problem in Queue.verify(queue).problems] == ["meta", "record"]


def test_in_another_boot(queue: Path) -> None:
    payloads = make(queue)
    one_bit(queue)
    restart(queue)
    repair(queue)
    assert len(read(queue)) == len(payloads)


@pytest.mark.parametrize("how", ["missing", "zeroed"])
def test_killed_at_any_step(queue: Path, how: str) -> None:
    """Another repair comes to the same end."""
    payloads = make(queue)
    end(queue)
    one_bit(queue)
    LOST[how](queue / "queue.meta")
    lost = Queue.repair(queue, dry_run=True).found[1].seq
    whole = {seq: payload for seq, payload in enumerate(payloads) if seq != lost}
    died = True
    for step in range(1, 500):
        path = queue.with_name(str(step))
        shutil.copytree(queue, path)
        done = subprocess.run([program(), path, "0", str(step), "repair"], capture_output=True)
        died = done.returncode == -signal.SIGKILL
        assert died or done.returncode == 0, done.stderr
        Queue.repair(path)
        assert Queue.verify(path).ok, done.stdout
        assert read(path) == whole, done.stdout
        shutil.rmtree(path)
        if not died:
            break
    assert not died
    assert step > 20


@pytest.mark.skipif(not Path(MEMORY).is_dir(), reason="there is no file system in memory")
def test_a_gap_in_the_last_segment_that_nothing_else_tells_of() -> None:
    """No seal, no durable mark, no last words: in memory nothing is durable, and the next writer is there."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path = Path(directory, "q")
        payloads = make(path)
        lost = int(segment(path, -1).stem)
        commit_word(path)
        Queue.repair(path)
        with (
            Queue.open_publisher(path, keeper=False),
            Queue.open_subscriber(path, on_gap="oldest") as reader,
        ):
            assert [message.payload for message in reader] == payloads[:lost] + payloads[lost + 1 :]
            assert Queue.verify(path).records == len(payloads) - 1
