# SPDX-License-Identifier: MIT
"""A second reader of queues, written from docs/FORMAT.md alone: no code of the library is used or looked at.

It is strict where the text says *must*, and slow everywhere. `open_queue` reads a directory whose writer is not
active; `Image` holds files by name, so that a queue can also come out of an archive or out of the document.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

NONE = 0xFFFF_FFFF_FFFF_FFFF
STRIDE = 65536
END_TYPE = 0xFFFF
SLOT_OFFSETS = (512, 1024)
FLAG_FINGERPRINT, FLAG_CLEAN, FLAG_UNDONE = 1, 2, 4
FENCE = 1  # of the doorbell
REUSE = 1  # of queue.meta and segments
KNOWN = {b"CHRONBEL": FENCE, b"CHRONQUE": REUSE, b"CHRONSEG": REUSE}
SEAL_MONOTONE = 1
SEGMENT_NAME = re.compile(r"(\d{20})\.seg")
READER_NAME = re.compile(r"readers/([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})\.pos")

Image = Mapping[str, bytes]


class FormatError(Exception):
    """Damage, or a file of a newer program: where, and what."""

    def __init__(self, file: str, offset: int, what: str) -> None:
        super().__init__(f"{file}, byte {offset}: {what}")
        self.file = file
        self.offset = offset


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _table()


def crc(data: bytes) -> int:
    """CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def up(value: int, to: int) -> int:
    return -(-value // to) * to


@dataclass(frozen=True)
class Header:
    magic: bytes
    version: int
    compat: int
    incompat: int
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
    generation: int
    next_seq: int
    segment_base: int  # queue.meta: durable_next
    offset: int  # queue.meta: epoch
    time_ns: int
    fingerprint: int
    flags: int


@dataclass(frozen=True)
class Record:
    seq: int
    timestamp_ns: int
    type_id: int
    flags: int
    epoch: int
    payload: bytes
    crc: int


@dataclass(frozen=True)
class Decoded:
    """Everything a queue says."""

    uuid: bytes
    segment_size: int
    state: Slot
    records: list[Record]
    oldest_seq: int
    next_seq: int
    positions: dict[str, Slot]


def header(file: str, data: bytes, size: int, magic: bytes, uuid: bytes | None) -> Header:
    """Section 3, in its order."""
    if len(data) != size:
        raise FormatError(file, 0, f"{len(data)} bytes instead of {size}")
    fields = struct.unpack("<8sIIII16sQQQQQQ36xI", data[:128])
    found = Header(*fields[:-1])
    if found.magic != magic:
        raise FormatError(file, 0, f"begins with {found.magic!r}")
    if found.version != 1:
        raise FormatError(file, 8, f"version {found.version}")
    if fields[-1] != crc(data[:124]):
        raise FormatError(file, 124, "CRC of the header")
    if found.incompat & ~KNOWN.get(magic, 0):
        raise FormatError(file, 16, f"incompat flags {found.incompat:#x}")
    if uuid is not None and found.uuid != uuid:
        raise FormatError(file, 24, "uuid of another queue")
    return found


def slot(file: str, data: bytes) -> Slot:
    """Section 4: the newer valid one."""
    valid = []
    for at in SLOT_OFFSETS:
        *fields, stored = struct.unpack("<QQQQQ8xII4xI", data[at : at + 64])
        if stored == crc(data[at : at + 60]) and any(data[at : at + 64]):
            valid.append(Slot(*fields))
    if not valid:
        raise FormatError(file, SLOT_OFFSETS[0], "no valid slot")
    if len(valid) == 2 and 0 < (valid[0].generation - valid[1].generation) % 2**64 < 2**63:
        return valid[0]
    return valid[-1]


class Segment:
    """Section 6, and the records of section 7."""

    def __init__(self, file: str, data: bytes, meta: Header) -> None:
        self.file = file
        self.data = data
        self.size = meta.segment_size
        self.header = header(file, data, self.size, b"CHRONSEG", meta.uuid)
        self.base_seq = int(file[:20])
        self.begin = 4096 + up(self.size // STRIDE * 4, 4096)
        wanted = (self.base_seq, self.size, STRIDE, self.begin)
        if (self.header.base_seq, self.header.segment_size, self.header.stride, self.header.data_offset) != wanted:
            raise FormatError(file, 56, "geometry")
        self.may_be_reused = bool(meta.incompat & REUSE)

    def held_before(self, offset: int) -> bool:
        """Section 9: what stands there is a record of the segment that the file was before."""
        commit, stored, seq, _, _, _, epoch = struct.unpack("<IIQQHHI", self.data[offset : offset + 32])
        end = offset + 31 + commit
        return (
            self.may_be_reused
            and (seq < self.base_seq or epoch < self.header.epoch & 0xFFFFFFFF)
            and end <= self.size
            and stored == crc(self.data[offset : offset + 4] + self.data[offset + 8 : end])
        )

    def walk(self, epoch: int) -> Iterator[tuple[int, Record]]:
        """(offset, record), END included as the last one if there is one."""
        offset, seq = self.begin, self.base_seq
        while True:
            if offset > self.size - 32:
                raise FormatError(self.file, offset, "records run over the end")
            commit, stored, *rest = struct.unpack("<IIQQHHI", self.data[offset : offset + 32])
            if commit == 0 or self.held_before(offset):
                return
            length = commit - 1
            is_end = rest[2] == END_TYPE
            if is_end and (length != 0 or offset == self.begin):
                raise FormatError(self.file, offset, "not an END")
            if not is_end and offset + up(32 + length, 32) + 32 > self.size:
                raise FormatError(self.file, offset, f"length {length}")
            payload = self.data[offset + 32 : offset + 32 + length]
            record = Record(rest[0], rest[1], rest[2], rest[3], rest[4], payload, stored)
            if record.seq != seq:
                raise FormatError(self.file, offset, f"seq {record.seq} instead of {seq}")
            if record.epoch < epoch:
                raise FormatError(self.file, offset, f"epoch {record.epoch} after {epoch}")
            if stored != crc(self.data[offset : offset + 4] + self.data[offset + 8 : offset + 32] + payload):
                raise FormatError(self.file, offset, "CRC of the record")
            if record.flags >> 8:
                raise FormatError(self.file, offset, "reserved flags")
            yield offset, record
            if is_end:
                if any((record.timestamp_ns, record.flags)):
                    raise FormatError(self.file, offset, "END with a timestamp or flags")
                return
            padding = self.data[offset + 32 + length : offset + up(32 + length, 32)]
            if any(padding):
                raise FormatError(self.file, offset + 32 + length, "padding")
            epoch = record.epoch
            offset += up(32 + length, 32)
            seq += 1

    def check_index(self, offsets: list[int]) -> None:
        """Every entry that is set is the first header that starts in its block."""
        first: dict[int, int] = {}
        for offset in offsets:
            first.setdefault((offset - self.begin) // STRIDE, offset)
        for block in range(up(self.size - self.begin, STRIDE) // STRIDE):
            (entry,) = struct.unpack_from("<I", self.data, 4096 + 4 * block)
            if entry and entry * 32 != first.get(block):
                raise FormatError(self.file, 4096 + 4 * block, f"index entry {block}")

    def check_seal(self, records: list[Record], end_offset: int) -> None:
        """A seal that is there is right."""
        seal = self.data[128:192]
        state, flags, count, end, last_seq, first_ts, last_ts, _sealed, stored = struct.unpack("<IIQQQQQQ4xI", seal)
        if state == 0:
            return
        stamps = [record.timestamp_ns for record in records]
        monotone = all(a <= b for a, b in pairwise(stamps))
        wanted = (1, len(records), end_offset, self.base_seq + len(records) - 1, stamps[0], stamps[-1], crc(seal[4:60]))
        if (state, count, end, last_seq, first_ts, last_ts, stored) != wanted or bool(
            flags & SEAL_MONOTONE
        ) != monotone:
            raise FormatError(self.file, 128, "seal")


def decode(image: Image) -> Decoded:
    """All of a queue whose writer is not active."""
    if "queue.meta" not in image:
        raise FormatError("queue.meta", 0, "not a queue")
    meta = header("queue.meta", image["queue.meta"], 4096, b"CHRONQUE", None)
    state = slot("queue.meta", image["queue.meta"])
    names = sorted(name for name in image if SEGMENT_NAME.fullmatch(name))
    segments = [Segment(name, image[name], meta) for name in names]
    records: list[Record] = []
    epoch = 0
    next_seq = segments[0].base_seq if segments else state.segment_base
    oldest = next_seq
    for i, segment in enumerate(segments):
        if segment.base_seq != next_seq or (i and segment.header.prev_base != segments[i - 1].base_seq):
            raise FormatError(segment.file, 56, f"does not follow: {next_seq} comes next")
        found = list(segment.walk(epoch))
        ended = bool(found) and found[-1][1].type_id == END_TYPE
        own = [record for _, record in found if record.type_id != END_TYPE]
        segment.check_index([offset for offset, _ in found])
        if ended:
            segment.check_seal(own, found[-1][0])
        if ended and i + 1 == len(segments):
            raise FormatError(segment.file, found[-1][0], "END leads to a segment that is missing")
        if not ended and i + 1 < len(segments) - 1:
            raise FormatError(segment.file, 0, "END is missing")
        records += own
        next_seq += len(own)
        epoch = found[-1][1].epoch if found else epoch
    if state.segment_base > next_seq:
        raise FormatError("queue.meta", 512, f"durable up to {state.segment_base}, the log ends before {next_seq}")
    if state.flags & FLAG_CLEAN and state.next_seq > next_seq:
        raise FormatError("queue.meta", 512, f"closed at {state.next_seq}, the log ends before {next_seq}")
    positions = {match[1]: position(name, image, meta, records, next_seq) for name, match in readers_of(image)}
    if "doorbell" in image:
        header("doorbell", image["doorbell"], 4096, b"CHRONBEL", meta.uuid)
    return Decoded(meta.uuid, meta.segment_size, state, records, oldest, next_seq, positions)


def readers_of(image: Image) -> list[tuple[str, re.Match[str]]]:
    return [(name, match) for name in sorted(image) if (match := READER_NAME.fullmatch(name))]


def position(file: str, image: Image, meta: Header, records: list[Record], next_seq: int) -> Slot:
    """Section 10, with the proof that the history is the one that was read."""
    header(file, image[file], 4096, b"CHRONPOS", meta.uuid)
    found = slot(file, image[file])
    if found.next_seq == NONE or found.flags & FLAG_UNDONE:
        return found
    if found.next_seq > next_seq:
        raise FormatError(file, 512, f"position {found.next_seq}, the log ends before {next_seq}")
    before = [record for record in records if record.seq == found.next_seq - 1]
    if found.flags & FLAG_FINGERPRINT and before and before[0].crc != found.fingerprint:
        raise FormatError(file, 512, "fingerprint: history was rewritten")
    return found


# --------------------------------------------------------------------------------- streams (section 20)

FRAME_BYTES = 80


def stream(messages: list[tuple[bytes, dict[str, str]]]) -> list[Record]:
    """The records of all messages of a stream, in order; strict about what goes before what."""
    found: list[Record] = []
    pieces = b""
    expected: int | None = None
    highest = 0
    for number, (data, headers) in enumerate(messages):
        where = f"message {number}"
        first, following, skipped, high, size, offset, crc_, images = _message(where, data, headers)
        if expected is not None and offset == 0 and first != expected + skipped:
            raise FormatError(where, 24, f"record {first} instead of {expected} + {skipped}")
        if len(pieces) != offset:
            raise FormatError(where, 68, f"piece at {offset} instead of {len(pieces)}")
        if high < highest:
            raise FormatError(where, 48, "the highest timestamp goes back")
        highest = high
        if size:
            pieces += images
            if len(pieces) < size:
                if following != first:
                    raise FormatError(where, 32, "a piece that is not the last completes no record")
                expected = first
                continue
            images, pieces = pieces + bytes(up(size, 32) - size), b""
        records = _records_of(where, first, images)
        if first + len(records) != following or records[-1].crc != crc_:
            raise FormatError(where, 32, "next_seq, or the CRC of the last record")
        if max(record.timestamp_ns for record in records) > highest:
            raise FormatError(where, 48, "a timestamp above the highest")
        found += records
        expected = following
    return found


def _message(where: str, data: bytes, headers: dict[str, str]) -> tuple[int, int, int, int, int, int, int, bytes]:
    if "Chronicle-Seq" in headers:
        return _unframed(data, {name: int(text) for name, text in headers.items() if text.isdigit()})
    magic, version, flags, _, first, following, skipped, high, _, size, offset, last, sum_ = struct.unpack(
        "<4sHH16sQQQQQIIII", data[:FRAME_BYTES]
    )
    if magic != b"CHFR" or version != 1 or flags & ~1:
        raise FormatError(where, 0, "no frame of version 1")
    if crc(data[: FRAME_BYTES - 4] + data[FRAME_BYTES:]) != sum_:
        raise FormatError(where, FRAME_BYTES - 4, "CRC")
    if bool(flags & 1) != bool(size) or (offset and not size):
        raise FormatError(where, 6, "flag and size do not fit")
    return first, following, skipped, high, size, offset, last, data[FRAME_BYTES:]


def _unframed(data: bytes, numbers: dict[str, int]) -> tuple[int, int, int, int, int, int, int, bytes]:
    seq, whole = numbers["Chronicle-Seq"], numbers.get("Chronicle-Size")
    offset = numbers.get("Chronicle-Offset", 0)
    length = len(data) if whole is None else whole
    images, at = data, offset + 32
    if offset == 0:
        at = 0
        images = struct.pack(
            "<IIQQHHI", length + 1, numbers["Chronicle-Crc"], seq, numbers["Chronicle-Timestamp"],
            numbers["Chronicle-Type"], numbers["Chronicle-Flags"], numbers["Chronicle-Epoch"],
        ) + data  # fmt: skip
    size = 0 if whole is None else whole + 32
    if whole is None:
        images += bytes(up(len(images), 32) - len(images))
    complete = whole is None or offset + len(data) == whole
    skipped = numbers.get("Chronicle-Skipped", 0)
    return seq, seq + complete, skipped, numbers["Chronicle-Highest"], size, at, numbers["Chronicle-Crc"], images


def _records_of(where: str, seq: int, images: bytes) -> list[Record]:
    found: list[Record] = []
    at = 0
    while at < len(images):
        commit, sum_, number, timestamp, type_id, flags, epoch = struct.unpack("<IIQQHHI", images[at : at + 32])
        payload = images[at + 32 : at + 31 + commit]
        if commit == 0 or len(payload) != commit - 1 or number != seq:
            raise FormatError(where, at, f"no record {seq}")
        if crc(images[at : at + 4] + images[at + 8 : at + 32] + payload) != sum_:
            raise FormatError(where, at, "CRC of a record")
        found.append(Record(number, timestamp, type_id, flags & 0xFF, epoch, payload, sum_))
        at += up(31 + commit, 32)
        seq += 1
    return found


def open_queue(path: Path) -> Decoded:
    return decode({file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()})


STATES = ("new", "ready", "reserved", "running", "delayed", "deading", "done")


@dataclass(frozen=True)
class GroupFile:
    """groups/<name>.grp, as section 11a tells it."""

    window: int
    keyed: bool
    floor: int
    words: list[int]

    def state(self, seq: int) -> str:
        word = self.words[seq % self.window]
        if word >> 46 != seq // self.window & 0x3FFFF:
            return "new"
        return (*STATES, "ready")[word & 7]

    def undone(self, end: int) -> dict[int, str]:
        """Seq -> state of the jobs up to `end` that somebody has, or had."""
        seqs = range(self.floor, min(end, self.floor + self.window))
        return {seq: state for seq in seqs if (state := self.state(seq)) not in ("new", "done")}


def open_group(path: Path, name: str) -> GroupFile:
    uuid = header("queue.meta", (path / "queue.meta").read_bytes(), 4096, b"CHRONQUE", None).uuid
    file = f"groups/{name}.grp"
    data = (path / file).read_bytes()
    window, flags, _, check = struct.unpack_from("<4I", data, 128)
    if check != crc(data[128:140]) or window & (window - 1) or flags & ~1:
        raise FormatError(file, 128, "the shape is damaged")
    header(file, data, up(20480 + 24 * window, 4096), b"CHRONGRP", uuid)
    words = [struct.unpack_from("<Q", data, 20480 + 24 * i)[0] for i in range(window)]
    return GroupFile(window, bool(flags), slot(file, data).next_seq, words)


@dataclass(frozen=True)
class MergeSource:
    uuid: bytes
    start: int | None  # `from`
    promise: int
    stop: int | None
    done: list[tuple[int, int]]
    path: str


@dataclass(frozen=True)
class MergeFile:
    """<home>/<name>.merge, as section 10 tells it."""

    generation: int
    place: int
    lateness_ns: int
    order: int
    sources: list[MergeSource]


def _merge_area(file: str, data: bytes, begin: int, size: int) -> tuple[int, bytes] | None:
    """(generation, content) of a whole area."""
    area = data[begin : begin + size]
    if len(area) < 16:
        return None
    check, count, generation = struct.unpack_from("<IIQ", area)
    if generation == 0 or 16 + count > len(area) or check != crc(area[4 : 16 + count]):
        return None
    if begin != 4096 + (generation & 1) * size:
        raise FormatError(file, begin, f"generation {generation} stands in the wrong area")
    return generation, area[16 : 16 + count]


def open_merge(path: Path) -> MergeFile:
    data = path.read_bytes()
    size = header(path.name, data[:4096], 4096, b"CHRONMRG", bytes(16)).segment_size
    if size < 4096 or size % 4096:
        raise FormatError(path.name, 48, f"areas of {size} bytes")
    areas = [area for at in (4096, 4096 + size) if (area := _merge_area(path.name, data, at, size))]
    if not areas:
        raise FormatError(path.name, 4096, "neither area is whole")
    generation, content = max(areas)
    if not content:
        return MergeFile(generation, 0, 0, 0, [])
    place, lateness_ns, order, count = struct.unpack_from("<QQII", content)
    at, sources = 24, []
    for _ in range(count):
        uuid, start, promise, stop, ranges, path_bytes = struct.unpack_from("<16sQQQII", content, at)
        at += 48
        done = [struct.unpack_from("<QQ", content, at + 16 * i) for i in range(ranges)]
        at += 16 * ranges
        name = content[at : at + path_bytes].decode()
        at = up(at + path_bytes, 8)
        none = 2**64 - 1
        sources.append(
            MergeSource(uuid, None if start == none else start, promise, None if stop == none else stop, done, name)
        )
    if at != len(content):
        raise FormatError(path.name, at, "the content goes on behind the last source")
    return MergeFile(generation, place, lateness_ns, order, sources)


# -------------------------------------------------------------------------------------------- archives, section 19


def archive(image: Image, unzstd: Callable[[bytes], bytes]) -> Image:
    """Segment files by name, out of the objects of an archive. `unzstd` is any decoder of a zstd frame."""
    about = sealed_json("archive.json", image["archive.json"])
    files = {}
    for name in sorted(image):
        if not re.fullmatch(r"manifest/\d{20}\.json", name):
            continue
        entry = sealed_json(name, image[name])
        if (entry["queue"], entry["segment_size"]) != (about["queue"], about["segment_size"]):
            raise FormatError(name, 0, "an entry of another queue")
        if int(name[9:29]) != entry["base_seq"]:
            raise FormatError(name, 0, f"base_seq {entry['base_seq']}")
        files[f"{name[9:29]}.seg"] = unpacked(entry, image[entry["object"]], unzstd)
    return files


def sealed_json(file: str, data: bytes) -> dict[str, Any]:
    line, digest, rest = data.split(b"\n")
    if rest or hashlib.sha256(line).hexdigest().encode() != digest:
        raise FormatError(file, 0, "SHA-256 of the line")
    found: dict[str, Any] = json.loads(line)
    if found["format"] != 1:
        raise FormatError(file, 0, f"format {found['format']}")
    return found


def unpacked(entry: dict[str, Any], data: bytes, unzstd: Callable[[bytes], bytes]) -> bytes:
    """An object, frame by frame, by zstd's seek table; and what the index says of each, by the records themselves."""
    name = entry["object"]
    if (len(data), hashlib.sha256(data).hexdigest()) != (entry["object_bytes"], entry["sha256"]):
        raise FormatError(name, 0, "size or SHA-256")
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    if (descriptor, magic) != (0, 0x8F92EAB1):
        raise FormatError(name, len(data) - 5, "the end of a seek table")
    table_at = len(data) - 17 - 8 * count
    if struct.unpack_from("<II", data, table_at) != (0x184D2A5E, 9 + 8 * count):
        raise FormatError(name, table_at, "the beginning of a seek table")
    sizes = list(struct.iter_unpack("<II", data[table_at + 8 : -9]))
    begins = [sum(size[0] for size in sizes[:i]) for i in range(count + 1)]
    if begins[-1] != table_at or (begins[-2], sizes[-1]) != (entry["index_at"], (entry["index_bytes"], 0)):
        raise FormatError(name, table_at, "the seek table's sizes")
    frames = [unzstd(data[begins[i] : begins[i + 1]]) for i in range(count - 1)]
    if [len(frame) for frame in frames] != [size[1] for size in sizes[:-1]]:
        raise FormatError(name, 0, "the size of a frame")
    segment = b"".join(frames)
    check_rows(entry, data[begins[-2] : table_at], sizes[:-1], segment)
    return segment


def check_rows(entry: dict[str, Any], index: bytes, sizes: list[Any], segment: bytes) -> None:
    name, base_seq = entry["object"], entry["base_seq"]
    magic, length = struct.unpack_from("<II", index)
    head = struct.unpack_from("<8sIIQQ", index, 8)
    if (magic, length) != (0x184D2A50, len(index) - 8) or index[-32:] != hashlib.sha256(index[8:-32]).digest():
        raise FormatError(name, entry["index_at"], "the index frame")
    if head != (b"CHRONIDX", 1, len(sizes), len(segment), base_seq):
        raise FormatError(name, entry["index_at"] + 8, f"the head of the index: {head}")
    meta = Header(b"", 1, 0, 0, STRIDE, segment[24:40], 0, len(segment), 0, 0, 0, 0)
    found = [pair for pair in Segment(f"{base_seq:020}.seg", segment, meta).walk(0) if pair[1].type_id != END_TYPE]
    stamps = [record.timestamp_ns for _, record in found]
    told = (entry["records"], entry["next_seq"], entry["min_ts"], entry["max_ts"])
    if told != (len(found), base_seq + len(found), min(stamps), max(stamps)):
        raise FormatError(name, 0, f"the entry says {told}")
    begin = at = 0
    for i, (stored, size) in enumerate(sizes):
        inside = [(offset, record) for offset, record in found if begin <= offset < begin + size]
        behind = [record.seq for offset, record in found if offset >= begin]
        wanted = (
            begin,
            at,
            behind[0] if behind else entry["next_seq"],
            stored,
            inside[0][0] // 32 if inside else 0xFFFFFFFF,
            max((record.timestamp_ns for _, record in inside), default=0),
        )
        if struct.unpack_from("<QQQIIQ", index, 40 + 40 * i) != wanted:
            raise FormatError(name, entry["index_at"] + 40 + 40 * i, f"row {i} of the index, which should be {wanted}")
        begin, at = begin + size, at + stored


def records(files: Image) -> list[Record]:
    """Those of segments that follow each other, as in an archive without holes."""
    found: list[Record] = []
    for name in sorted(files):
        meta = Header(b"", 1, 0, 0, STRIDE, files[name][24:40], 0, len(files[name]), 0, 0, 0, 0)
        found += [one for _, one in Segment(name, files[name], meta).walk(0) if one.type_id != END_TYPE]
    return found
