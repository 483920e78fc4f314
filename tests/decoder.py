# SPDX-License-Identifier: MIT
"""A second implementation of docs/FORMAT.md: reads a queue that nobody writes to, and checks all of it.

Written from that text alone, with nothing but the standard library, slow and plain. Where a reader may shrug (the
index and the stored offsets are advice), this one is strict: whatever does not agree raises FormatError.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NONE = 0xFFFFFFFFFFFFFFFF
PAGE = 4096
ALIGN = 32
STRIDE = 65536
END_TYPE = 0xFFFF
SEAL_AT = 128
INDEX_AT = 4096
SLOTS_AT = (512, 1024)
NOTIFY_AT, WAITING_AT = 256, 512
MIN_SEGMENT, MAX_SEGMENT, MAX_PAYLOAD = 65536, 68719476736, 1 << 30
HEADER = struct.Struct("<8sIIII16sQQQQQQ36xI")  # section 3
SLOT = struct.Struct("<QQQQQ8xII4xI")  # section 4
SEAL = struct.Struct("<IIQQQQQQ4xI")  # section 6
RECORD = struct.Struct("<IIQQHHI")  # section 7
SEGMENT_NAME = re.compile(r"[0-9]{20}\.seg")
POSITION_NAME = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})\.pos")
LOCK_LINE = re.compile(rb"pid [0-9]+ host [^ ]+ start [0-9]+ epoch [0-9]+ *\n")


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C, as in section 1."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class FormatError(Exception):
    """What is wrong, in which file of the queue and at which byte of it."""

    def __init__(self, file: str, offset: int, text: str) -> None:
        super().__init__(f"{file} at offset {offset}: {text}")
        self.file = file
        self.offset = offset


@dataclass(frozen=True)
class Record:
    seq: int
    timestamp_ns: int
    type_id: int
    flags: int
    epoch: int
    payload: bytes


@dataclass(frozen=True)
class Header:
    stride: int
    uuid: bytes
    created_ns: int
    segment_size: int
    base_seq: int
    prev_base: int
    data_offset: int
    epoch: int


@dataclass(frozen=True)
class Slot:
    """Field names are those of a position file; queue.meta calls `segment_base` durable_next, `offset` epoch."""

    generation: int
    next_seq: int
    segment_base: int
    offset: int
    time_ns: int
    fingerprint: int
    flags: int


@dataclass(frozen=True)
class Seal:
    flags: int
    records: int
    end_offset: int
    last_seq: int
    first_ts: int
    last_ts: int
    sealed_ns: int


@dataclass(frozen=True)
class Place:
    """Where a record stands, and its CRC field."""

    base_seq: int
    offset: int
    crc: int


@dataclass(frozen=True)
class Tail:
    """The end of the log, and how many bytes behind it are not clean: up to the last one that is not zero."""

    base_seq: int
    offset: int
    next_seq: int
    remains: int


def check_header(data: bytes, size: int, magic: bytes, file: str, uuid: bytes | None) -> Header:
    """The checks of section 3, in their order, but for the last."""
    if len(data) != size:
        raise FormatError(file, 0, f"{len(data)} bytes instead of {size}")
    found, version, _compat, incompat, stride, its_uuid, *numbers, crc = HEADER.unpack_from(data)
    if found != magic:
        raise FormatError(file, 0, f"magic {found!r}")
    if version != 1:
        raise FormatError(file, 8, f"version {version}")
    if crc != crc32c(data[:124]):
        raise FormatError(file, 124, "header CRC")
    if incompat:
        raise FormatError(file, 16, f"incompat flags {incompat:#x}")
    if uuid is not None and its_uuid != uuid:
        raise FormatError(file, 24, "uuid of another queue")
    return Header(stride, its_uuid, *numbers)


def newer_slot(data: bytes) -> Slot | None:
    """Section 4; None if both are damaged."""
    valid = []
    for at in SLOTS_AT:
        *fields, crc = SLOT.unpack_from(data, at)
        if crc == crc32c(data[at : at + 60]):
            valid.append(Slot(*fields))
    if len(valid) == 2 and 0 < (valid[0].generation - valid[1].generation) % (1 << 64) < 1 << 63:
        return valid[0]
    return valid[-1] if valid else None


class Segment:
    """One segment file, its header checked."""

    def __init__(self, path: Path, meta: Header) -> None:
        self.file = path.name
        self.base_seq = int(path.name[:20])
        self.data = path.read_bytes()
        size = meta.segment_size
        self.header = check_header(self.data, size, b"CHRONSEG", self.file, meta.uuid)
        self.begin = INDEX_AT + up(size // STRIDE * 4, PAGE)
        wanted = {"base_seq": (56, self.base_seq), "segment_size": (48, size), "data_offset": (72, self.begin)}
        for name, (offset, value) in {**wanted, "stride": (20, STRIDE)}.items():
            if getattr(self.header, name) != value:
                raise FormatError(self.file, offset, f"{name} is {getattr(self.header, name)}, not {value}")
        self.seal = self._seal()

    def _seal(self) -> Seal | None:
        state, *fields, crc = SEAL.unpack_from(self.data, SEAL_AT)
        if state == 0:
            return None
        seal = Seal(*fields)
        if state != 1 or crc != crc32c(self.data[SEAL_AT + 4 : SEAL_AT + 60]):
            raise FormatError(self.file, SEAL_AT, "damaged seal")
        if seal.records < 1 or seal.last_seq != self.base_seq + seal.records - 1:
            raise FormatError(self.file, SEAL_AT + 24, "the seal's last_seq")
        return seal

    def check_seal(self, timestamps: list[int], end: int) -> None:
        seal = self.seal
        assert seal is not None
        ascending = all(a <= b for a, b in zip(timestamps, timestamps[1:], strict=False))
        facts = (1 if ascending else 0, len(timestamps), end, timestamps[0], timestamps[-1])
        if (seal.flags, seal.records, seal.end_offset, seal.first_ts, seal.last_ts) != facts:
            raise FormatError(self.file, SEAL_AT, f"the seal says {seal}, the records {facts}")

    def check_index(self, starts: list[int]) -> None:
        first: dict[int, int] = {}
        for start in starts:
            first.setdefault((start - self.begin) // STRIDE, start)
        for block in range(up(len(self.data) - self.begin, STRIDE) // STRIDE):
            (entry,) = struct.unpack_from("<I", self.data, INDEX_AT + 4 * block)
            if entry and entry * 32 != first.get(block):
                raise FormatError(self.file, INDEX_AT + 4 * block, f"entry {block} leads to {entry * 32}")

    def remains(self, offset: int) -> int:
        return len(self.data[offset:].rstrip(b"\0"))


class Queue:
    """Opening checks queue.meta and the doorbell; reading to the end checks the log; `positions` the readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "queue.meta").is_file():
            raise FormatError("queue.meta", 0, "it is missing: no queue")
        data = (path / "queue.meta").read_bytes()
        self.meta = check_header(data, PAGE, b"CHRONQUE", "queue.meta", None)
        size = self.meta.segment_size
        if self.meta.stride != STRIDE or size % MIN_SEGMENT or not MIN_SEGMENT <= size <= MAX_SEGMENT:
            raise FormatError("queue.meta", 48, f"segment_size {size}, stride {self.meta.stride}")
        state = newer_slot(data)
        if state is None:
            raise FormatError("queue.meta", SLOTS_AT[0], "both slots are damaged")
        self.next_seq, self.durable_next, self.epoch = state.next_seq, state.segment_base, state.offset
        self.clean = bool(state.flags & 2)
        if (path / "doorbell").exists():
            check_header((path / "doorbell").read_bytes(), PAGE, b"CHRONBEL", "doorbell", self.meta.uuid)
        if (path / "writer.lock").exists():
            line = (path / "writer.lock").read_bytes()
            if len(line) != 256 or not LOCK_LINE.fullmatch(line):
                raise FormatError("writer.lock", 0, f"the line is {line!r}")
        self.bases = sorted(int(one.name[:20]) for one in path.iterdir() if SEGMENT_NAME.fullmatch(one.name))
        self.places: dict[int, Place] = {}  # of the records read so far, by seq
        self.tail: Tail | None = None  # known when all records were read

    def records(self) -> Iterator[Record]:
        """All records from the oldest on; section 9."""
        self.places, self.tail = {}, None
        seq = self.bases[0] if self.bases else 0
        epoch = 0
        previous = None
        while self.bases:
            segment = Segment(self.path / f"{seq:020}.seg", self.meta)
            prev_base = segment.header.prev_base
            if previous is None:
                if prev_base != NONE and prev_base >= seq:
                    raise FormatError(segment.file, 64, f"prev_base {prev_base}")
            elif prev_base != previous:
                raise FormatError(segment.file, 64, f"prev_base {prev_base}, not {previous}")
            offset = segment.begin
            starts: list[int] = []
            timestamps: list[int] = []
            while (found := self._load(segment, offset, seq, epoch)) is not None:
                starts.append(offset)
                record, crc = found
                epoch = record.epoch
                if record.type_id == END_TYPE:
                    break
                self.places[seq] = Place(segment.base_seq, offset, crc)
                timestamps.append(record.timestamp_ns)
                yield record
                offset += up(32 + len(record.payload), ALIGN)
                seq += 1
            segment.check_index(starts)
            if found is None:
                self._check_tail(segment, offset, seq)
                return
            if segment.seal is not None:
                segment.check_seal(timestamps, offset)
            elif seq != self.bases[-1]:  # only the newest roll can be unfinished
                raise FormatError(segment.file, SEAL_AT, "no seal, though the log goes on far behind")
            if seq not in self.bases:
                raise FormatError(segment.file, offset, f"END leads to seq {seq}, but there is no such segment")
            previous = segment.base_seq
        self.tail = Tail(0, 0, 0, 0)

    def _load(self, segment: Segment, offset: int, seq: int, epoch: int) -> tuple[Record, int] | None:
        """The record, or END, at `offset`, with its CRC field; None: commit word 0."""
        data, file = segment.data, segment.file
        if offset > len(data) - 32:
            raise FormatError(file, offset, "the records run over the end of the segment")
        commit, crc, its_seq, timestamp_ns, type_id, flags, its_epoch = RECORD.unpack_from(data, offset)
        if commit == 0:
            return None
        n = commit - 1
        if type_id == END_TYPE:
            if n or timestamp_ns or flags or offset == segment.begin:
                raise FormatError(file, offset, "an END that is none")
        elif offset + up(32 + n, ALIGN) + 32 > len(data) or n > MAX_PAYLOAD:
            raise FormatError(file, offset, f"a payload of {n} bytes does not fit")
        if its_seq != seq:
            raise FormatError(file, offset + 8, f"seq {its_seq}, not {seq}")
        if its_epoch < epoch:
            raise FormatError(file, offset + 28, f"epoch {its_epoch} after {epoch}")
        end = offset + 32 + n
        if crc != crc32c(data[offset : offset + 4] + data[offset + 8 : end]):
            raise FormatError(file, offset + 4, "record CRC")
        if flags > 0xFF or any(data[end : up(end, ALIGN)]):
            raise FormatError(file, offset, "reserved flags or padding are not zero")
        return Record(seq, timestamp_ns, type_id, flags, its_epoch, data[offset + 32 : end]), crc

    def _check_tail(self, segment: Segment, offset: int, seq: int) -> None:
        """A zero commit word: does anything prove that a record was there?"""
        proof = None
        if segment.seal is not None:
            proof = "the seal"
        elif self.durable_next > seq:
            proof = f"durable_next {self.durable_next}"
        elif self.clean and self.next_seq > seq:
            proof = f"next_seq {self.next_seq}"
        elif self.bases[-1] > seq:
            proof = f"a segment with base_seq {self.bases[-1]}"
        if proof is not None:
            raise FormatError(segment.file, offset, f"nothing stands there, but {proof} proves record {seq}")
        self.tail = Tail(segment.base_seq, offset, seq, segment.remains(offset))

    def positions(self) -> dict[str, Slot | None]:
        """By reader's name; None: registered, no position yet. Reads the whole log, to compare."""
        for _ in self.records():
            pass
        readers = self.path / "readers"
        files = sorted(readers.iterdir()) if readers.is_dir() else []
        found = {}
        for path in files:
            if match := POSITION_NAME.fullmatch(path.name):
                found[match[1]] = self._position(f"readers/{path.name}", path.read_bytes())
        return found

    def _position(self, file: str, data: bytes) -> Slot | None:
        if not data or data == bytes(PAGE):
            return None
        check_header(data, PAGE, b"CHRONPOS", file, self.meta.uuid)
        slot = newer_slot(data)
        if slot is None:
            raise FormatError(file, SLOTS_AT[0], "both slots are damaged")
        if slot.next_seq == NONE:
            return None
        assert self.tail is not None
        if slot.next_seq > self.tail.next_seq:
            raise FormatError(file, SLOTS_AT[0] + 8, f"position {slot.next_seq} behind the end of the log")
        here = self.places.get(slot.next_seq)
        if here is not None and slot.segment_base == here.base_seq and slot.offset != here.offset:
            raise FormatError(file, SLOTS_AT[0] + 24, f"record {slot.next_seq} is not at {slot.offset}")
        last = self.places.get(slot.next_seq - 1)
        if slot.flags & 1 and last is not None and last.crc != slot.fingerprint:
            raise FormatError(file, SLOTS_AT[0] + 48, f"record {slot.next_seq - 1} is not the one that was read")
        return slot


if __name__ == "__main__":
    for one in Queue(Path(sys.argv[1])).records():
        print(one)
