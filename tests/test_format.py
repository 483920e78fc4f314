# SPDX-License-Identifier: MIT
"""The file format held still: the document's own example, golden queues, and an independent decoder that agrees.

tests/golden/*.tar.xz were written by the first release (tests/make_golden.py) and must stay readable for ever.
"""

from __future__ import annotations

import json
import re
import struct
import tarfile
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chronicle_ffi as c
from chronicle_ffi import Queue, RecoveryWarning
from tests import decoder
from tests.make_golden import digest

HERE = Path(__file__).parent
FORMAT = (HERE.parent / "docs" / "FORMAT.md").read_text()
GOLDEN = sorted((HERE / "golden").glob("*.tar.xz"))
SEGMENT = 1 << 16
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def library_reads(path: Path) -> list[tuple[int, int, int, int, bytes]]:
    with Queue.open_subscriber(path) as reader:
        return [(m.seq, m.timestamp_ns, m.type_id, m.flags, m.payload) for m in reader]


def decoder_reads(decoded: decoder.Decoded) -> list[tuple[int, int, int, int, bytes]]:
    return [(r.seq, r.timestamp_ns, r.type_id, r.flags, r.payload) for r in decoded.records]


# -------------------------------------------------------------------------------------- the document


def dumps() -> dict[str, bytes]:
    """The files that section 16 shows, from its hex dumps."""
    section = FORMAT[FORMAT.index("## 16. A worked example") :]
    files = {}
    for name, size, body in re.findall(r"^`([\w./]+)`, (\d+) bytes:\n\n((?:    .*\n)+)", section, re.M):
        data = bytearray(int(size))
        for at, line in re.findall(r"^    ([0-9a-f]{8})  ((?:[0-9a-f]{2} +){16})", body, re.M):
            data[int(at, 16) : int(at, 16) + 16] = bytes.fromhex(line)
        files[name] = bytes(data)
    return files


def write(image: dict[str, bytes], path: Path) -> Path:
    (path / "readers").mkdir(parents=True)
    for name, data in image.items():
        (path / name).write_bytes(data)
    return path


def test_the_worked_example(queue: Path) -> None:
    image = dumps()
    assert sorted(image) == ["00000000000000000000.seg", "doorbell", "queue.meta", "readers/demo.pos"]
    decoded = decoder.decode(image)
    expected = [
        (0, 1_700_000_001_000_000_000, 1, 0, b"hello"),
        (1, 1_700_000_002_000_000_000, 2, 1, b""),
        (2, 1_700_000_008_000_000_000, 1, 0, b"a payload of 34 bytes, two lines.."),
    ]
    assert decoder_reads(decoded) == expected
    write(image, queue)
    assert library_reads(queue) == expected
    assert Queue.verify(queue).ok
    info = Queue.info(queue)
    assert (info.durable_seq, info.epoch, info.created_ns, info.clean) == (2, 2, 1_700_000_000_000_000_000, False)
    with Queue.open_subscriber(queue, "demo") as reader:
        assert reader.position == 2
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.append(b"goes on") == 3


def test_the_end_record_of_the_example() -> None:
    """The last lines of the section: an END that could stand there."""
    lines = re.findall(r"^    000020[cd]0  ((?:[0-9a-f]{2} ?){8} (?: [0-9a-f]{2}){8})$", FORMAT, re.M)
    end = b"".join(bytes.fromhex(line) for line in lines)
    assert len(end) == 32
    assert struct.unpack("<I4xQQHHI", end) == (1, 3, 0, 0xFFFF, 0, 2)
    assert struct.unpack_from("<I", end, 4)[0] == decoder.crc(end[:4] + end[8:])


def test_crc_of_the_document() -> None:
    assert decoder.crc(b"123456789") == 0xE3069283
    assert decoder.crc(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize(
    ("section", "struct_name", "size"),
    [
        ("## 3. The file header", "chron__file_header", 128),
        ("## 4. Slots", "chron__slot", 64),
        ("### Seal", "chron__seal", 64),
        ("### When it was sealed", "chron__seal_clock", 24),
        ("## 7. Records", "chron__record_header", 32),
    ],
)
def test_byte_tables(section: str, struct_name: str, size: int) -> None:
    """The fields of each table lie one behind the other, fill the structure, and are where format.h has them."""
    widths = {"u16": 2, "u32": 4, "u64": 8, "8 bytes": 8, "16 bytes": 16, "36 bytes": 36}
    text = FORMAT[FORMAT.index(section + "\n") :].split("\n#", 1)[0]
    rows = [(int(at), kind) for at, kind in re.findall(r"^\| (\d+) \| ([^|]+?) \|", text, re.M) if kind in widths]
    fields = [row for row in rows if row[0] < size]
    following = [at for at, _ in fields[1:]] + [size]
    assert [at + widths[kind] for at, kind in fields] == following
    header = (HERE.parent / "csrc" / "src" / "base" / "format.h").read_text()
    in_c = {int(at) for at in re.findall(rf"offsetof\({struct_name}, \w+\) == (\d+)", header)}
    assert in_c | {0} == {at for at, _ in fields}
    assert f"sizeof({struct_name}) == {size}" in header or struct_name == "chron__record_header"


def test_text_columns_of_the_dumps() -> None:
    lines = re.findall(r"^    [0-9a-f]{8}  ((?:[0-9a-f]{2} +){16}) *\|(.{16})\|$", FORMAT, re.M)
    assert len(lines) > 30
    for hexadecimal, text in lines:
        assert "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in bytes.fromhex(hexadecimal)) == text


@pytest.mark.skipif(not Path(BOOT_ID).exists(), reason="this system has no name for its boots there")
def test_times_that_nobody_can_set(queue: Path) -> None:
    """In a seal, and in a position: nanoseconds since the boot, and which boot."""
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        writer.append_many([bytes(1000)] * 100)
    with Queue.open_subscriber(queue, "me") as reader:
        reader.commit()
    name = bytes.fromhex(Path(BOOT_ID).read_text().replace("-", ""))
    boot = decoder.crc(name) | 0x80000000
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    page = sorted(queue.glob("*.seg"))[0].read_bytes()[:4096]
    sealed_ns, boot_ns, seal_boot, crc = struct.unpack_from("<QQII", page, 192)
    assert (sealed_ns, seal_boot, crc) == (
        struct.unpack_from("<Q", page, 128 + 48)[0],
        boot,
        decoder.crc(page[192:212]),
    )
    assert now - 60 * 10**9 < boot_ns < now
    slot = (queue / "readers" / "me.pos").read_bytes()[1024:1088]
    assert struct.unpack_from("<Q", slot)[0] == 2
    assert struct.unpack_from("<I", slot, 56)[0] == boot
    assert now - 60 * 10**9 < struct.unpack_from("<Q", slot, 40)[0] < now


# ------------------------------------------------------------------------------------- golden queues


def test_there_are_golden_queues() -> None:
    assert len(GOLDEN) >= 3


@pytest.mark.parametrize("archive", GOLDEN, ids=lambda path: path.name.split(".")[0])
def test_golden(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # since 3.10.12
            tar.extraction_filter = staticmethod(tarfile.data_filter)
        tar.extractall(tmp_path)
    expected = json.loads(archive.with_suffix("").with_suffix(".json").read_text())
    queue = tmp_path / "queue"
    decoded = decoder.open_queue(queue)
    assert library_reads(queue) == decoder_reads(decoded)
    assert [[*record[:4], digest(record[4])] for record in decoder_reads(decoded)] == expected["records"]
    assert {name: slot.next_seq for name, slot in decoded.positions.items()} == expected["positions"]
    assert {info.name: info.position for info in Queue.readers(queue)} == expected["positions"]
    info = Queue.info(queue)
    assert (info.oldest_seq, info.next_seq) == (decoded.oldest_seq, decoded.next_seq)
    assert [problem.kind for problem in Queue.verify(queue).problems] == expected["problems"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecoveryWarning)
        writer = Queue.open_publisher(queue, keeper=False)
    with writer:  # and goes on
        assert writer.append(b"today") == decoded.next_seq
    assert decoder.open_queue(queue).records[-1].payload == b"today"
    assert (queue / "doorbell").read_bytes()[16] == decoder.FENCE  # the first release's was made anew
    assert Queue.verify(queue).ok


# ---------------------------------------------------------------------------------- queues of today


@settings(max_examples=25)
@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.binary(max_size=400), max_size=8),
            st.integers(0, 2**64 - 2),
            st.integers(0, 0xFFFE),
            st.integers(0, 255),
        ),
        max_size=12,
    ),
    large=st.integers(0, 57_000),
    commit=st.integers(0, 100),
)
def test_decoder_and_library_agree(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[list[bytes], int, int, int]],
    large: int,
    commit: int,
) -> None:
    queue = tmp_path_factory.mktemp("agree") / "queue"
    for payloads, stamp, type_id, flags in batches:  # each in an epoch of its own
        with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
            writer.append_many(payloads, type_id, timestamp_ns=stamp, flags=flags, atomic=True)
            writer.append(bytes(large), timestamp_ns=1)
    if not batches:
        Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False).close()
    end = Queue.info(queue).next_seq
    with Queue.open_subscriber(queue, "me", start=min(commit, end)) as reader:
        reader.commit()
    decoded = decoder.open_queue(queue)
    assert decoder_reads(decoded) == library_reads(queue)
    assert decoded.next_seq == end
    assert decoded.positions["me"].next_seq == min(commit, end)
    assert decoded.state.offset == max(len(batches), 1)


def test_the_decoder_is_strict(queue: Path) -> None:
    """Whatever byte of header, seal, index or record is changed, it notices."""
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        for i in range(80):
            writer.append(b"x" * 1000, timestamp_ns=i)
    image = {f.relative_to(queue).as_posix(): f.read_bytes() for f in queue.rglob("*") if f.is_file()}
    decoder.decode(image)
    name = "00000000000000000000.seg"
    for at in [*range(128), *range(132, 192), 4096, 8192 + 1, 8192 + 5, 8192 + 31, 8192 + 500]:
        data = bytearray(image[name])
        data[at] ^= 1
        with pytest.raises(decoder.FormatError):
            decoder.decode({**image, name: bytes(data)})


def test_the_library_makes_what_the_document_says(queue: Path) -> None:
    """Constants of the tables, on a fresh queue."""
    with Queue.open_publisher(queue, segment_size=SEGMENT * 3, keeper=False, durability="always") as writer:
        writer.append(b"abc", 5, timestamp_ns=6, flags=7)
    meta = (queue / "queue.meta").read_bytes()
    segment = (queue / f"{0:020}.seg").read_bytes()
    assert (len(meta), len(segment), len((queue / "doorbell").read_bytes())) == (4096, SEGMENT * 3, 4096)
    state = decoder.slot("queue.meta", meta)
    assert (state.segment_base, state.offset, state.next_seq, state.flags) == (1, 1, 1, decoder.FLAG_CLEAN)
    assert struct.unpack("<I4xQQHHI3s", segment[8192 : 8192 + 35]) == (4, 0, 6, 5, 7, 1, b"abc")
    assert struct.unpack_from("<I", segment, 4096) == (8192 // 32,)
    line = (queue / "writer.lock").read_text()
    assert re.fullmatch(r"pid \d+ host \S+ start \d+ epoch 1 *\n", line)
    assert len(line) == 256
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.recovery.epoch == 2
        with pytest.raises(c.WriterAlreadyActive):
            Queue.open_publisher(queue)
