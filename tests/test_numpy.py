# SPDX-License-Identifier: MIT
"""Arrays of numpy, in and out."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

import chronicle_ffi as c
from chronicle_ffi import Batch, Queue, QueueWriter
from tests.interop import need

np = need("numpy")

SEGMENT = 1 << 16
TICK = np.dtype([("time", "M8[ns]"), ("price", "f8"), ("size", "i4")])  # 20 bytes


def write(path: Path, *calls: Any) -> None:
    with Queue.open_publisher(path, segment_size=SEGMENT, keeper=False) as writer:
        for call in calls:
            call(writer)
    assert Queue.verify(path).ok


def read(path: Path) -> list[Batch]:
    return list(Queue.scan(path))


def payloads(path: Path) -> list[bytes]:
    return [payload for batch in read(path) for payload in batch.payloads()]


def ticks(count: int) -> Any:
    made = np.zeros(count, TICK)
    made["time"] = np.arange(count) + np.datetime64("2030-01-01", "ns")
    made["price"] = np.arange(count) / 4
    made["size"] = np.arange(count) - 3
    return made


# ----------------------------------------------------------------------------------------------- in


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(12, dtype="u1").reshape(3, 4),
        np.arange(12, dtype=">i4").reshape(3, 4),
        np.arange(24.0).reshape(2, 3, 4),
        np.arange(5.0),
        np.array(["2030-01-01", "NaT"], "M8[s]"),
        np.array([b"ab", b"cdef"]),
        np.array(["ab", "cdef"]),
        np.zeros((3, 0)),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j]),
        ticks(4),
        ticks(6)[2:5],
        ticks(0),
        frozen(np.arange(6.0).reshape(2, 3)),
        np.asfortranarray(np.arange(4.0).reshape(4, 1)),  # both orders at once
    ],
)
@pytest.mark.parametrize("atomic", [False, True])
def test_rows_are_written_as_they_are(queue: Path, rows: Any, atomic: bool) -> None:
    write(queue, lambda writer: writer.append_array(rows, atomic=atomic))
    assert payloads(queue) == [rows[i : i + 1].tobytes() for i in range(len(rows))]


@pytest.mark.parametrize(
    "rows",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0)[::2],
        np.arange(12.0).reshape(3, 4)[:, :2],
        ticks(4)[["time", "price"]][::2],
        np.arange(12, dtype="u1"),  # how long is a record?
        np.array([object()]),
        np.zeros(2, [("a", "i4"), ("b", object)]),
        np.float64(1.0),
    ],
)
def test_rows_that_are_refused(queue: Path, rows: Any) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        for atomic in (False, True):
            with pytest.raises((c.InvalidArgument, TypeError)):
                writer.append_array(rows, atomic=atomic)
        assert writer.next_seq == 0


@pytest.mark.parametrize(
    "stamps",
    [
        np.array([3, 1, 2], "u8"),
        np.array([3, 1, 2], "i8"),
        np.array([3, 1, 2], "M8[ns]"),
        np.array([3, 1, 2], ">M8[ns]"),
        np.array([3, 1, 2], "M8[us]"),
        np.array([3, 1, 2], "M8[s]"),
        np.array([3, 0, 1, 0, 2, 0], "M8[ns]")[::2],
        np.array([(3, 0), (1, 0), (2, 0)], "i8,i2")["f0"],
        frozen(np.array([3, 1, 2])),
    ],
)
def test_times(queue: Path, stamps: Any) -> None:
    write(queue, lambda writer: writer.append_array(ticks(3), timestamp_ns=stamps))
    (batch,) = read(queue)
    assert list(batch.timestamp_ns) == [int(stamp) for stamp in stamps.astype("M8[ns]").astype("i8")]


@pytest.mark.parametrize(
    "stamps",
    [
        np.array([3, 1, 2], ">u8"),
        np.array([3, 1, 2], "f8"),
        np.array([3, 1, 2], "u4"),
        np.array([3, 1, -2]),
        np.array([3, 1, "NaT"], "M8[ns]"),
        np.array(["1969-12-31", "2030-01-01", "2030-01-01"], "M8[D]"),
        np.array([3, 1, 2], "m8[ns]"),
        np.array([3, 1]),
        np.array([[3, 1, 2]]),
        np.array([3, 1, 2], object),
    ],
)
def test_times_that_are_refused(queue: Path, stamps: Any) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises((c.InvalidArgument, TypeError)):
            writer.append_array(ticks(3), timestamp_ns=stamps)
        assert writer.next_seq == 0


def test_scalars_of_numpy_are_numbers(queue: Path) -> None:
    scalars = {"timestamp_ns": np.int64(5), "flags": np.uint8(6)}

    def call(writer: QueueWriter) -> None:
        writer.append(b"a", np.uint16(7), **scalars)
        writer.append_many([b"a"], np.int32(7), **scalars)
        writer.append_many((b"a" for _ in range(2)), np.array(7), atomic=True, **scalars)
        writer.append_array(np.frombuffer(b"a", "S1"), np.int64(7), **scalars)

    write(queue, call)
    assert [one[1:] for batch in read(queue) for one in batch] == [(5, 7, 6, b"a")] * 5


def test_columns_and_offsets(queue: Path) -> None:
    offsets = np.array([0, 1, 1, 5], "i4")
    types = np.array([1, 2, 3], "u2")
    write(
        queue,
        lambda writer: writer.append_buffer(np.frombuffer(b"abcde", "u1"), offsets, types, flags=types.astype("u1")),
    )
    (batch,) = read(queue)
    assert [one[2:] for one in batch] == [(1, 1, b"a"), (2, 2, b""), (3, 3, b"bcde")]


def test_many_arrays_as_payloads(queue: Path) -> None:
    given = [np.arange(3), np.arange(6).reshape(2, 3), np.array("2030", "M8[s]"), np.zeros((2, 0))]
    write(queue, lambda writer: writer.append_many(given))
    assert payloads(queue) == [one.tobytes() for one in given]


# ---------------------------------------------------------------------------------------------- out


def test_columns_are_views(queue: Path) -> None:
    write(queue, lambda writer: writer.append_array(ticks(20), 3, timestamp_ns=np.arange(20), flags=4))
    (batch,) = read(queue)
    for part in (batch, batch[5:], batch[::-2]):
        columns = part.numpy()
        assert {name: str(column.dtype) for name, column in columns.items()} == {
            "seq": "uint64",
            "timestamp_ns": "uint64",
            "offset": "uint64",
            "length": "uint32",
            "type_id": "uint16",
            "flags": "uint8",
        }
        for name, column in columns.items():
            assert column.tolist() == list(getattr(part, name))
            assert not column.flags.writeable
            with pytest.raises(ValueError):
                column.flags.writeable = True
            assert np.shares_memory(column, np.asarray(getattr(part, name)))


def test_records_as_one_array(queue: Path) -> None:
    given = ticks(5000)
    write(queue, lambda writer: writer.append_array(given, 3, timestamp_ns=given["time"], flags=4))
    found = read(queue)
    assert len(found) > 3
    arrays = [batch.to_numpy(TICK) for batch in found]
    assert np.array_equal(np.concatenate(arrays), given)
    for batch, array in zip(found, arrays, strict=True):
        assert np.shares_memory(array, np.asarray(batch.segment))
        assert not array.flags.writeable
        with pytest.raises(ValueError):
            array["price"] = 0
        for view in (array, array["price"], batch.to_numpy(), batch.to_numpy(TICK, header=True)):
            with pytest.raises(ValueError):
                view.flags.writeable = True
        rows = batch.to_numpy()
        assert (rows.shape, rows.dtype) == ((len(batch), 20), np.uint8)
        assert rows.tobytes() == array.tobytes()
        full = batch.to_numpy(TICK, header=True)
        assert full.dtype.names == ("seq", "timestamp_ns", "type_id", "flags", "payload")
        assert full["seq"].tolist() == list(batch.seq)
        assert full["timestamp_ns"].tolist() == list(batch.timestamp_ns)
        assert (full["type_id"] == 3).all()
        assert (full["flags"] == 4).all()
        assert np.array_equal(full["payload"], array)


@pytest.mark.parametrize("part", [slice(None), slice(3, 9), slice(None, None, -1), slice(1, 90, 7), slice(5, 6)])
@pytest.mark.parametrize("header", [False, True])
def test_slices_as_one_array(queue: Path, part: slice, header: bool) -> None:
    given = ticks(100)
    write(queue, lambda writer: writer.append_array(given))
    (batch,) = read(queue)
    found = batch[part].to_numpy(TICK, header=header)
    if header:
        assert found["seq"].tolist() == list(range(100))[part]
        found = found["payload"]
    assert np.array_equal(found, given[part])


@pytest.mark.parametrize(
    "dtype", ["f8", ">u2", "M8[us]", ("f4", (2,)), ("i2", (2, 2)), "S8", "U2", [("a", "u4"), ("b", "u1", 4)]]
)
def test_kinds_of_payloads(queue: Path, dtype: Any) -> None:
    kind = np.dtype(dtype)
    rows = np.arange(8 * kind.itemsize, dtype="u1").reshape(8, kind.itemsize) % 2
    write(queue, lambda writer: writer.append_array(rows))
    (batch,) = read(queue)
    found = batch.to_numpy(kind)
    assert found.tobytes() == rows.tobytes()
    assert found.shape == (8, *kind.shape)


def test_an_array_of_nothing(queue: Path) -> None:
    write(queue)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
    assert batch.to_numpy().shape == (0, 0)
    assert batch.to_numpy(TICK).shape == (0,)
    assert batch.to_numpy(("f4", (3,))).shape == (0, 3)
    assert batch.to_numpy(TICK, header=True)["seq"].tolist() == []
    assert all(len(column) == 0 for column in batch.numpy().values())


def test_records_of_no_bytes(queue: Path) -> None:
    write(queue, lambda writer: writer.append_many([b""] * 5, timestamp_ns=range(5)))
    (batch,) = read(queue)
    assert batch.to_numpy().shape == (5, 0)
    assert batch.to_numpy(header=True)["timestamp_ns"].tolist() == [0, 1, 2, 3, 4]


def test_arrays_that_cannot_be(queue: Path) -> None:
    write(queue, lambda writer: writer.append_many([b"a" * 8, b"b" * 8, b"c" * 8, b"c" * 9, b"x" * 40, b"x" * 8]))
    (batch,) = read(queue)
    for part, dtype, why in (
        (batch, None, "differ in length"),
        (batch, "f8", "differ in length"),
        (batch[:3], "f4", "4"),
        (batch[:3], object, "object"),
        (batch[:3], [("a", "u4"), ("b", object)], "object"),
        (batch[:2][::-1], "u1", "1"),
    ):
        with pytest.raises(c.InvalidArgument, match=why):
            part.to_numpy(dtype)
    same = [0, 1, 5]  # of one length, but not the same way apart
    one = Batch(batch._handle, batch.segment, {n: memoryview(v[same].copy()) for n, v in batch.numpy().items()})
    with pytest.raises(c.InvalidArgument, match="left out"):
        one.to_numpy("f8")


def test_an_array_keeps_its_segment(queue: Path) -> None:
    given = ticks(5000)
    write(queue, lambda writer: writer.append_array(given))
    arrays = [batch.to_numpy(TICK)["price"] for batch in read(queue)]
    shutil.rmtree(queue)
    gc.collect()
    assert np.array_equal(np.concatenate(arrays), given["price"])
    assert Path("/proc/self/maps").read_text().count(f"{queue}/") == len(arrays)
    arrays.clear()
    gc.collect()
    assert Path("/proc/self/maps").read_text().count(f"{queue}/") == 0
