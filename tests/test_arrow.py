# SPDX-License-Identifier: MIT
"""Arrow in and out, and what reads a queue through it: pyarrow, pandas, polars, DuckDB."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue
from tests.children import in_child
from tests.interop import need

pa = need("pyarrow")
pl = need("polars")

SEGMENT = 1 << 16
COUNT = 700
TEXTS = ["", "a", "twelve bytes", "thirteen byte", "ä" * 30] * (COUNT // 5)  # both kinds of views
ROWS = [(i, 10**18 + i, i % 5, i % 256, text.encode()) for i, text in enumerate(TEXTS)]


def fill(path: Path) -> None:
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for seq, stamp, type_id, flags, payload in ROWS:
            assert writer.append(payload, type_id, timestamp_ns=stamp, flags=flags) == seq


def payloads(path: Path) -> list[bytes]:
    return [payload for batch in Queue.scan(path) for payload in batch.payloads()]


def mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(f"{path}/")


# ----------------------------------------------------------------------------------------------- in

KINDS = {
    "binary": pa.binary(),
    "string": pa.string(),
    "large_binary": pa.large_binary(),
    "large_string": pa.large_string(),
    "binary_view": pa.binary_view(),
    "string_view": pa.string_view(),
}


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays(queue: Path, kind: str, atomic: bool) -> None:
    array = pa.array(TEXTS[:30], KINDS[kind])
    parts = [array, array[7:20], array[:0], array[30:], pa.array([], KINDS[kind])]
    with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
        expected = 0
        for part in parts:
            stamps = range(len(part))
            assert writer.append_arrow(part, 5, timestamp_ns=stamps, atomic=atomic) == (expected, len(part))
            expected += len(part)
        chunked = pa.chunked_array(parts)
        assert writer.append_arrow(chunked, range(len(chunked)), atomic=atomic) == (expected, len(chunked))
        nothing = pa.chunked_array([], KINDS[kind])
        assert writer.append_arrow(nothing, atomic=atomic) == (expected + len(chunked), 0)
    wanted = [text.encode() for text in TEXTS[:30] + TEXTS[7:20]]
    assert payloads(queue) == wanted * 2
    messages = [one for batch in Queue.scan(queue, start=expected) for one in batch]
    assert [one.type_id for one in messages] == list(range(len(chunked)))


@pytest.mark.parametrize("atomic", [False, True])
def test_fixed_size(queue: Path, atomic: bool) -> None:
    array = pa.array([b"ab", b"cd", b"ef"], pa.binary(2))
    uuids = pa.array([b"0123456789abcdef"] * 2, pa.binary(16)).cast(pa.uuid())
    with Queue.open_publisher(queue, keeper=False) as writer:
        for given in (array, array[1:], pa.chunked_array([array[:1], array[2:]]), array[:0]):
            assert writer.append_arrow(given, atomic=atomic)[1] == len(given)
        assert writer.append_arrow(pa.array([b"", b""], pa.binary(0)), atomic=atomic)[1] == 2
        assert writer.append_arrow(uuids, atomic=atomic)[1] == 2
    assert payloads(queue) == [b"ab", b"cd", b"ef", b"cd", b"ef", b"ab", b"ef", b"", b"", *[b"0123456789abcdef"] * 2]


def test_arrays_of_others(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.append_arrow(pl.Series(["a", "ä" * 20])) == (0, 2)
        assert writer.append_arrow(pl.Series([b"x", b"y" * 20]), timestamp_ns=pl.Series([1, 2])) == (2, 2)
        assert writer.append_arrow(pa.array(["a"]), timestamp_ns=pa.array([5], pa.timestamp("us"))) == (4, 1)
    assert payloads(queue) == [b"a", "ä".encode() * 20, b"x", b"y" * 20, b"a"]
    stamps = [one.timestamp_ns for batch in Queue.scan(queue) for one in batch]
    assert stamps[2:] == [1, 2, 5000]


def test_series_of_pandas(queue: Path) -> None:
    pd = need("pandas")
    with Queue.open_publisher(queue, keeper=False) as writer:
        assert writer.append_arrow(pd.Series(["a", "b"], dtype="string[pyarrow]")) == (0, 2)
        times = pd.Series(pd.to_datetime(["2030-01-01", "2030-01-02"]))
        assert writer.append_arrow(pa.array(["c", "d"]), timestamp_ns=times) == (2, 2)
    assert payloads(queue) == [b"a", b"b", b"c", b"d"]
    stamps = [one.timestamp_ns for batch in Queue.scan(queue) for one in batch]
    assert stamps[2] == 1893456000 * 10**9


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (pa.array([b"a", None]), c.InvalidArgument),
        (pa.chunked_array([pa.array(["a"]), pa.array([None], pa.string())]), c.InvalidArgument),
        (pa.array([None, None]), c.InvalidArgument),
        (pa.array([1, 2]), c.InvalidArgument),
        (pa.array([["a"], ["b"]]), c.InvalidArgument),
        (pa.array(["a", "a"]).dictionary_encode(), c.InvalidArgument),
        ([b"a", b"b"], TypeError),
        (b"ab", TypeError),
        (pa.array(["a", "b", "c"]), c.InvalidArgument),  # three, for a column of two
    ],
)
@pytest.mark.parametrize("atomic", [False, True])
def test_arrays_that_are_refused(queue: Path, values: Any, error: type[Exception], atomic: bool) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises(error):
            writer.append_arrow(values, [1, 2], atomic=atomic)
        assert writer.next_seq == 0


# ---------------------------------------------------------------------------------------------- out


def rows(table: Any) -> list[tuple[Any, ...]]:
    stamps = table["timestamp"].cast(pa.int64()).to_pylist()
    columns = [table[name].to_pylist() for name in ("seq", "type_id", "flags", "payload")]
    return list(zip(columns[0], stamps, *columns[1:], strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_batches(queue: Path, packed: bool) -> None:
    fill(queue)
    for batch in Queue.scan(queue, batch_records=300):
        for part in (slice(None), slice(7, 90), slice(3, 4), slice(None, None, -1), slice(5, None, 3), slice(9, 9)):
            table = batch[part].to_arrow(packed=packed)
            table.validate(full=True)
            assert str(table.schema.field("payload").type) == ("large_binary" if packed else "binary_view")
            first = batch.seq[0]
            assert rows(table) == ROWS[first : first + len(batch)][part]


def test_batches_are_not_copied_nor_too_large(queue: Path) -> None:
    fill(queue)
    batch = next(iter(Queue.scan(queue)))
    first = memoryview(batch.to_arrow()["seq"].buffers()[1])
    assert pa.py_buffer(batch.seq).address == pa.py_buffer(first).address
    part = batch[14:20].to_arrow()["payload"]
    data = part.buffers()[2:]
    base = pa.py_buffer(batch.segment).address
    begin, end = batch.offset[14], batch.offset[19] + batch.length[19]
    assert [(one.address - base, one.size) for one in data] == [(begin, end - begin)]
    assert all(not one.is_mutable for one in data)


def test_a_batch_of_nothing(queue: Path) -> None:
    Queue.open_publisher(queue, keeper=False).close()
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
    for packed in (False, True):
        empty = batch.to_arrow(packed=packed)
        empty.validate(full=True)
        table = Queue.scan(queue).to_arrow(packed=packed).read_all()
        assert (empty.num_rows, table.num_rows) == (0, 0)
        assert empty.schema == table.schema
    assert pl.DataFrame(Queue.scan(queue)).shape == (0, 5)


def test_columns_are_kept_by_what_came_of_them(queue: Path) -> None:
    fill(queue)
    table = Queue.scan(queue).to_arrow().read_all()
    frame = pl.DataFrame(Queue.scan(queue))
    shutil.rmtree(queue)
    gc.collect()
    assert mappings(queue) > 0
    assert rows(table) == ROWS
    assert frame["payload"].to_list() == [row[-1] for row in ROWS]
    del table, frame
    gc.collect()
    assert mappings(queue) == 0


def test_a_file_that_is_truncated_before_a_copy(queue: Path) -> None:
    def look() -> None:
        with Queue.open_publisher(queue, segment_size=SEGMENT, keeper=False) as writer:
            writer.append_many([b"x" * 100] * 100)
        batch = next(iter(Queue.scan(queue)))
        os.truncate(next(queue.glob("*.seg")), 0)
        calls: list[Callable[[], object]] = [batch.to_arrow, lambda: batch.to_arrow(packed=True)]
        for call in calls:
            with pytest.raises(c.StorageError, match="went away"):
                call()

    in_child(look)


# ---------------------------------------------------------------------------------- who reads streams


@pytest.fixture
def scan(queue: Path) -> c.Scan:
    fill(queue)
    return Queue.scan(queue, start=5, stop=600, batch_records=100)


def test_pyarrow(scan: c.Scan) -> None:
    for _ in range(2):
        assert rows(pa.table(scan)) == ROWS[5:600]
    reader = pa.RecordBatchReader.from_stream(scan)
    assert str(reader.schema.field("timestamp").type) == "timestamp[ns, tz=UTC]"
    assert pa.schema(scan) == reader.schema == scan.to_arrow().schema
    assert sum(batch.num_rows for batch in reader) == 595


def test_pandas(scan: c.Scan) -> None:
    pd = need("pandas")
    for packed in (False, True):
        frame = scan.to_arrow(packed=packed).read_pandas()
        assert frame["payload"].tolist() == [row[-1] for row in ROWS[5:600]]
        assert frame["timestamp"].iloc[0] == pd.Timestamp(10**18 + 5, tz="UTC")
        assert frame["seq"].tolist() == list(range(5, 600))


def test_polars(scan: c.Scan) -> None:
    for _ in range(2):
        frame = pl.DataFrame(scan)
        assert frame["payload"].to_list() == [row[-1] for row in ROWS[5:600]]
        assert frame["timestamp"].cast(pl.Int64).to_list() == [row[1] for row in ROWS[5:600]]
        counts = frame.group_by("type_id").len().sort("type_id")
        assert counts.rows() == [(i, 119) for i in range(5)]


def test_duckdb(scan: c.Scan) -> None:
    duckdb = need("duckdb")
    with duckdb.connect() as database:
        for _ in range(2):
            found = database.sql(
                "select seq, epoch_ns(timestamp), type_id, flags, payload from scan order by seq"
            ).fetchall()
            assert found == ROWS[5:600]
        assert database.sql("select count(*) from scan a join scan b using (seq)").fetchall() == [(595,)]
        assert database.sql("from scan limit 3").fetchall()[2][0] == 7
        relation = database.sql("select sum(octet_length(payload)) from scan where type_id = 4")
        assert relation.fetchall() == [(119 * 60,)]


def test_a_schema_that_is_asked_for(scan: c.Scan) -> None:
    wanted = pa.schema(
        [
            ("seq", pa.int64()),
            ("timestamp", pa.timestamp("ns", "UTC")),
            ("type_id", pa.uint16()),
            ("flags", pa.uint8()),
            ("payload", pa.large_binary()),
        ]
    )
    assert rows(pa.RecordBatchReader.from_stream(scan, wanted).read_all()) == ROWS[5:600]


def test_damage_in_the_middle_of_a_stream(queue: Path) -> None:
    fill(queue)
    with Queue.open_subscriber(queue, start=400) as reader:
        batch = reader.read_batch(3)
        base = max(segment.base_seq for segment in Queue.segments(queue) if segment.base_seq <= 402)
    with (queue / f"{base:020}.seg").open("r+b") as file:
        file.seek(batch.offset[2])
        file.write(b"?")
    found = 0
    with pytest.raises(c.Corrupt, match="record 402"):
        for one in Queue.scan(queue, batch_records=64).to_arrow():
            found += one.num_rows
    assert found == 402
    with pytest.raises(Exception, match="record 402"):
        pl.DataFrame(Queue.scan(queue))
    del batch, one
    gc.collect()
    assert mappings(queue) == 0


def test_streams_that_are_left(queue: Path) -> None:
    """Never looked at, or only half: nothing stays open, and nothing warns."""
    fill(queue)
    scan = Queue.scan(queue, batch_records=10)
    capsule = scan.__arrow_c_stream__()
    del capsule
    reader = scan.to_arrow()
    reader.read_next_batch()
    assert mappings(queue) > 0
    reader.close()
    del reader
    gc.collect()
    assert mappings(queue) == 0
