# SPDX-License-Identifier: MIT
"""Readers live with damage: every call that reads, beside every kind of damage, in one table.

What is lost is what was damaged, and nothing else: each call passes over it, or tells of it where it stands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from chronicle_ffi import Corrupt, HistoryRewritten, Queue, QueueReader, RecoveryWarning
from chronicle_ffi.cli import main
from tests.damage import crc32c, make, patch, restart, segment

HEADER_BYTES = 32  # of a record
COMMIT, CRC = 0, 4
SEAL_AT, INDEX_AT = 512, 4096


@dataclass
class Log:
    """A queue, where its records lie, and which of them a damage has made unreadable."""

    path: Path
    payloads: list[bytes]
    places: dict[int, tuple[Path, int]]  # seq: segment, offset
    bases: list[int]
    lost: set[int]
    torn: bool = False  # what stands behind the last record is none: that is told where it stands

    @property
    def end(self) -> int:
        return len(self.payloads)

    def whole(self, start: int = 0) -> list[int]:
        return [seq for seq in range(start, self.end) if seq not in self.lost]

    def seqs(self, index: int) -> set[int]:
        """Of one segment."""
        bounds = [*self.bases, self.end]
        index %= len(self.bases)
        return set(range(bounds[index], bounds[index + 1]))


def build(path: Path) -> Log:
    payloads = make(path)
    bases = [one.base_seq for one in Queue.segments(path)]
    places = {}
    with Queue.open_subscriber(path) as reader:
        while batch := reader.read_batch():
            for seq, offset in zip(batch.seq, batch.offset, strict=True):
                base = max(base for base in bases if base <= seq)
                places[int(seq)] = path / f"{base:020}.seg", int(offset) - HEADER_BYTES
    return Log(path, payloads, places, bases, set())


# ------------------------------------------------------------------------------------------ damage


def record(index: int, which: int, at: int, data: bytes) -> Callable[[Log], None]:
    """Bytes of one record: that which is the which-th of the index-th segment."""

    def damage(log: Log) -> None:
        seq = sorted(log.seqs(index))[which]
        file, offset = log.places[seq]
        patch(file, offset + at, data)
        log.lost.add(seq)

    return damage


def advice(index: int, at: int, data: bytes) -> Callable[[Log], None]:
    return lambda log: patch(segment(log.path, index), at, data)


def header(index: int) -> Callable[[Log], None]:
    return advice(index, 20, b"\xff\xff")


def whole_segment(index: int, change: Callable[[Path], None]) -> Callable[[Log], None]:
    def damage(log: Log) -> None:
        change(segment(log.path, index))
        log.lost |= log.seqs(index)

    return damage


def end_record(log: Log) -> None:
    file, offset = log.places[log.bases[1] - 1]
    length = len(log.payloads[log.bases[1] - 1])
    patch(file, offset + (HEADER_BYTES + length + 31) // 32 * 32 + CRC, b"\xff\xff")


def torn_tail(log: Log) -> None:
    file, offset = log.places[log.end - 1]
    length = len(log.payloads[-1])
    patch(file, offset + (HEADER_BYTES + length + 31) // 32 * 32, b"\xff\xff\xff\x7fgarbage")
    log.torn = True


def state(log: Log) -> None:
    for slot in (512, 1024):
        patch(log.path / "queue.meta", slot + 8, b"\xff\xff")


def several(*damages: Callable[[Log], None]) -> Callable[[Log], None]:
    def damage(log: Log) -> None:
        for one in damages:
            one(log)

    return damage


DAMAGES: dict[str, Callable[[Log], None]] = {
    "nothing": lambda log: None,
    "torn tail": torn_tail,
    "torn tail, state lost": several(torn_tail, state),
    "both slots of queue.meta": state,
    "position": lambda log: patch(log.path / "readers" / "me.pos", 0, b"\xff" * 2048),
    "END": end_record,
    "header of the last segment, state lost": several(header(-1), state),
    "no seal, and no commit word": several(advice(0, SEAL_AT, bytes(72)), record(0, 2, COMMIT, bytes(4))),
}
for place, number in (("first", 0), ("middle", 1), ("last", -1)):
    DAMAGES |= {
        f"header of the {place} segment": header(number),
        f"seal of the {place} segment": advice(number, SEAL_AT + 8, b"\xff" * 40),
        f"index of the {place} segment": advice(number, INDEX_AT, b"\x03\x01\0\0"),
        f"header, first record of the {place} segment": several(header(number), record(number, 0, COMMIT, b"\xff" * 4)),
    }
    DAMAGES[f"two records in a row of the {place} segment"] = several(
        record(number, 0, COMMIT, b"\xff" * 4), record(number, 1, COMMIT, b"\xff" * 4)
    )
    for which, name in ((0, "first"), (2, "third"), (-1, "last")):
        DAMAGES |= {
            f"CRC of the {name} record of the {place} segment": record(number, which, CRC, b"\xff\xff"),
            f"length of the {name} record of the {place} segment": record(number, which, COMMIT, b"\xff" * 4),
            f"seq of the {name} record of the {place} segment": record(number, which, 8, b"\xff" * 4),
            f"no commit word of the {name} record of the {place} segment": record(number, which, COMMIT, bytes(4)),
        }
for place, number in (("middle", 1), ("last", -1)):
    DAMAGES |= {
        f"{place} segment cut short": whole_segment(number, lambda file: os.truncate(file, 20000)),
        f"{place} segment empty": whole_segment(number, lambda file: os.truncate(file, 0)),
        f"{place} segment missing": whole_segment(number, lambda file: file.unlink()),
        f"{place} segment of garbage": whole_segment(number, lambda file: patch(file, 0, b"\xaa" * 65536)),
    }


@pytest.fixture(params=DAMAGES)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    one = build(tmp_path / "queue")
    DAMAGES[request.param](one)
    return one


# ------------------------------------------------------------------------------------------- calls


def rest(reader: QueueReader, read: Callable[[QueueReader], list[int]]) -> Iterator[int]:
    """All seqs from the position on, over all damage."""
    for _ in range(1000):
        try:
            seqs = read(reader)
            if not seqs:
                return
            yield from seqs
        except Corrupt:
            try:
                reader.skip_damaged()
            except Corrupt:  # nothing follows, and nobody knows what was there
                return
    pytest.fail("it does not come to an end")


def one(reader: QueueReader) -> list[int]:
    message = reader.next()
    return [] if message is None else [message.seq]


WAYS: dict[str, Callable[[QueueReader], list[int]]] = {
    "next": one,
    "batch": lambda reader: [int(seq) for seq in reader.read_batch().seq],
    "follow": lambda reader: [message.seq for message in reader.follow(timeout=0)],
    "wait": lambda reader: one(reader) if reader.wait(0) else [],
}


@pytest.mark.parametrize("way", WAYS)
def test_reading_passes_over_it(log: Log, way: str) -> None:
    with Queue.open_subscriber(log.path) as reader:
        read = list(rest(reader, WAYS[way]))
        if way != "follow":  # what was gathered when it met damage went with the list
            assert read == log.whole()
        reader.seek(0)
        assert list(rest(reader, one)) == log.whole()


def test_moving_passes_over_it(log: Log) -> None:
    with Queue.open_subscriber(log.path) as reader:
        for seq in range(log.end):
            whole = log.whole(seq)
            reader.seek(seq)
            assert reader.position == seq
            assert next(rest(reader, one), None) == (whole[0] if whole else None), seq
            reader.seek_time(seq + 1)  # which is its timestamp
            assert (reader.position == whole[0]) if whole else (reader.position > max(log.whole())), seq


def test_opening_passes_over_it(log: Log) -> None:
    for seq in {0, *log.bases, *log.lost, log.end - 1}:
        whole = log.whole(seq)
        with Queue.open_subscriber(log.path, start=seq) as reader:
            assert reader.position == seq
            assert next(rest(reader, one), None) == (whole[0] if whole else None)
        with Queue.open_subscriber(log.path, f"at{seq}", start=seq) as reader:
            reader.commit()
        with Queue.open_subscriber(log.path, f"at{seq}") as reader:  # resume
            assert reader.position == seq


def test_going_back_passes_over_it(log: Log) -> None:
    with Queue.open_subscriber(log.path, start="latest") as reader:
        back = []
        while message := reader.previous():
            assert message.payload == log.payloads[message.seq]
            back.append(message.seq)
        assert back == log.whole()[::-1]
        stats = reader.stats()
        assert (stats.records, stats.skipped >= sum(b - a - 1 for a, b in pairwise(back[::-1]))) == (len(back), True)


def test_the_end_is_found_behind_it(log: Log) -> None:
    with Queue.open_subscriber(log.path) as reader:
        assert reader.lag == log.end
        reader.seek_latest()
        assert (reader.position, reader.lag) == (log.end, 0)
    with Queue.open_subscriber(log.path, start="latest") as reader:
        assert (reader.position, reader.wait(0)) == (log.end, log.torn)
        if log.torn:
            with pytest.raises(Corrupt, match="opening one may mend it"):
                reader.next()
    info = Queue.info(log.path)
    assert (info.oldest_seq, info.next_seq) == (0, log.end)
    segments = [one.base_seq for one in Queue.segments(log.path)]
    assert segments == sorted({int(file.stem) for file in log.path.glob("*.seg")})
    (me,) = [one for one in Queue.readers(log.path) if one.name == "me"]
    assert me.damaged or me.lag == log.end - me.position


def test_commands_pass_over_it(log: Log, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["tail", str(log.path), "--from", "oldest", "--skip-damaged"]) == 0
    assert capfdbinary.readouterr().out == b"".join(log.payloads[seq] + b"\n" for seq in log.whole())
    assert main(["inspect", str(log.path)]) == 0


# ------------------------------------------------------------------------- damage at the end, and what comes then


def newest(log: Log, at: int, data: bytes) -> int:
    """Damage the newest record."""
    file, offset = log.places[log.end - 1]
    patch(file, offset + at, data)
    return log.end - 1


@pytest.mark.parametrize(("at", "data"), [(CRC, b"\xff\xff"), (COMMIT, b"\xff" * 4), (8, b"\xff" * 4)])
def test_a_reader_waits_behind_the_newest_damaged_record(tmp_path: Path, at: int, data: bytes) -> None:
    log = build(tmp_path / "queue")
    with Queue.open_publisher(log.path, keeper=False) as writer, Queue.open_subscriber(log.path, "me") as reader:
        seq = newest(log, at, data)
        reader.seek(seq)
        with pytest.raises(Corrupt):
            reader.next()
        assert reader.skip_damaged() == 1
        assert (reader.position, reader.next(), reader.wait(0.01)) == (seq + 1, None, False)
        reader.commit()
        assert writer.append(b"on") == seq + 1
        assert [message.payload for message in reader] == [b"on"]
    with Queue.open_subscriber(log.path, "me") as reader:
        assert [message.payload for message in reader] == [b"on"]


def test_a_follower_of_the_command_line_waits_behind_it(tmp_path: Path) -> None:
    log = build(tmp_path / "queue")
    command = [sys.executable, "-m", "chronicle_ffi", "tail", str(log.path), "-f", "--from", f"{log.end - 2}"]
    with Queue.open_publisher(log.path, keeper=False) as writer:
        seq = newest(log, CRC, b"\xff\xff")
        with subprocess.Popen([*command, "--skip-damaged"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
            assert tail.stdout is not None
            assert tail.stderr is not None
            assert tail.stdout.readline() == log.payloads[seq - 1] + b"\n"
            assert b"skipped 1 record" in tail.stderr.readline()
            writer.append(b"on")
            assert tail.stdout.readline() == b"on\n"
            tail.kill()


def test_a_torn_tail_is_not_passed_over_for_good(tmp_path: Path) -> None:
    log = build(tmp_path / "queue")
    torn_tail(log)
    restart(log.path)
    with Queue.open_subscriber(log.path, start="latest") as reader:
        with pytest.raises(Corrupt):
            reader.skip_damaged()
        with pytest.warns(RecoveryWarning), Queue.open_publisher(log.path, keeper=False) as writer:
            assert writer.append(b"in its place") == log.end
            assert [message.payload for message in reader] == [b"in its place"]


def test_where_a_reader_resumes_behind_damage_history_is_compared_later(tmp_path: Path) -> None:
    """A position behind what a loss of power tore, and that other records take the place of."""
    log = build(tmp_path / "queue")
    with Queue.open_subscriber(log.path, "me", start="latest") as reader:
        reader.commit()
    lost = min(log.seqs(-1)) + 1
    file, offset = log.places[lost]
    with file.open("r+b") as out:  # as the disk was: the rest of the segment never got there
        out.seek(offset)
        out.write(b"\xff\xff\xff\x7f" + bytes(os.path.getsize(file) - offset - 4))
    state_of_another_boot(log.path)
    with Queue.open_subscriber(log.path, "me") as reader:
        assert (reader.position, reader.next()) == (log.end, None)
        with pytest.warns(RecoveryWarning), Queue.open_publisher(log.path, keeper=False) as writer:
            while writer.append(b"another") < log.end + 3:
                pass
        with pytest.raises(HistoryRewritten):
            reader.next()


def state_of_another_boot(path: Path) -> None:
    """queue.meta as a loss of power may leave it: not closed, nothing durable."""
    meta = path / "queue.meta"
    for slot in (512, 1024):
        words = bytearray(meta.read_bytes()[slot : slot + 64])
        words[16:24] = bytes(8)  # durable_next
        words[52:56] = bytes(4)  # flags
        if any(words):
            patch(meta, slot, bytes(words[:60]) + crc32c(bytes(words[:60])).to_bytes(4, "little"))
    restart(path)
