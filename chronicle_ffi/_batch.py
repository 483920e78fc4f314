# SPDX-License-Identifier: MIT
"""`Batch`: many records as columns over the mapped segment. numpy and pyarrow are imported where they are asked for."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from struct import calcsize
from typing import Any, Final, overload

from chronicle_ffi._binding import ffi, lib
from chronicle_ffi._fast import Columns, Segment
from chronicle_ffi.errors import InvalidArgument, StorageError
from chronicle_ffi.model import Message

HEADER: Final = ffi.typeof("chron__record_header")  # of a record, in front of its payload
HEADER_BYTES: Final[int] = ffi.sizeof(HEADER)
ALIGNMENT: Final[int] = lib.CHRON__ALIGN
VIEW_BYTES: Final = 16
VIEW_BUFFER_BYTES: Final = 1 << 30

_HIGH_BYTE: Final = 7 if sys.byteorder == "little" else 0  # of a number of 8 bytes

# Column, format of its memoryview; one behind the other, as _columns.c has them.
COLUMNS: Final[tuple[tuple[str, Any], ...]] = (
    ("seq", "Q"),
    ("timestamp_ns", "Q"),
    ("offset", "Q"),
    ("length", "I"),
    ("type_id", "H"),
    ("flags", "B"),
)
COLUMN_BYTES: Final = tuple(calcsize(form) for _, form in COLUMNS)


class Batch(Sequence[Message]):
    """Records of one segment: a sequence of `Message` objects, and their columns, which cost nothing per record.

    The columns `seq`, `timestamp_ns`, `type_id`, `flags`, `offset` (of the payload in `segment`, bytes) and `length`
    (bytes) are memoryviews. Payloads stay where they are, in the mapped segment; every view of them, an array of numpy
    or pyarrow included, keeps it mapped, also after `close`, retention, and the reader's end. CRCs were checked when
    the batch was read. A batch may be used by any thread, and in a forked child. Slices are batches, too, over the same
    memory; one with a step has columns of its own.

    >>> first, count = writer.append_many([b"one", b"two", b"three"], type_id=7)
    >>> batch = reader.read_batch()
    >>> len(batch), batch.type_id[0], batch[1:].payloads()
    (3, 7, [b'two', b'three'])
    >>> batch[-1]
    Message(seq=2, timestamp_ns=..., type_id=7, flags=0, payload=b'three')
    """

    __slots__ = ("_handle", "flags", "length", "offset", "segment", "seq", "timestamp_ns", "type_id")

    seq: memoryview  #: of 8 bytes each
    timestamp_ns: memoryview  #: of 8 bytes each
    type_id: memoryview  #: of 2 bytes each
    flags: memoryview  #: of 1 byte each
    offset: memoryview  #: of each payload in `segment`, 8 bytes each
    length: memoryview  #: of each payload, 4 bytes each
    segment: memoryview  #: the whole segment file, read-only

    def __init__(self, handle: Segment, segment: memoryview, columns: dict[str, memoryview]) -> None:
        self._handle = handle
        self.segment = segment
        for name, _ in COLUMNS:
            setattr(self, name, columns[name])

    def __len__(self) -> int:
        return len(self.seq)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Message | Batch:
        if isinstance(index, slice):
            columns = {name: _packed(getattr(self, name)[index], form) for name, form in COLUMNS}
            return Batch(self._handle, self.segment, columns)
        begin = self.offset[index]
        payload = bytes(self.segment[begin : begin + self.length[index]])
        self.check()
        return Message(self.seq[index], self.timestamp_ns[index], self.type_id[index], self.flags[index], payload)

    def __iter__(self) -> Iterator[Message]:
        columns = (self.seq, self.timestamp_ns, self.type_id, self.flags, self.payloads())
        return map(Message, *columns)

    def payloads(self) -> list[bytes]:
        """A copy of each payload.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> reader.read_batch().payloads()
        [b'one', b'two']
        """
        found = list(map(bytes, self.views()))
        self.check()
        return found

    def views(self) -> list[memoryview]:
        """Each payload where it is, read-only. A view keeps the segment mapped.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> [view[0] for view in reader.read_batch().views()]
        [111, 116]
        """
        segment = self.segment
        return [segment[at : at + size] for at, size in zip(self.offset, self.length, strict=True)]

    def check(self) -> None:
        """Raise StorageError if the file went away under the mapping (truncated, or the disk failed).

        What was read since then are zeros. The methods that copy ask this themselves; who computes on views asks
        afterwards.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> batch = reader.read_batch()
        >>> total = sum(map(sum, batch.views()))
        >>> batch.check()  # the sum is right
        """
        if self._handle.faulted():
            raise StorageError("the segment went away under its mapping: it was truncated, or the disk failed")

    # ---------------------------------------------------------------------------------------- numpy

    def numpy(self) -> dict[str, Any]:
        """The columns as numpy arrays, without a copy.

        >>> import numpy
        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> reader.read_batch().numpy()["length"]
        array([3, 3, 5], dtype=uint32)
        """
        import numpy as np

        return {name: np.asarray(getattr(self, name)) for name, _ in COLUMNS}

    def to_numpy(self, dtype: Any = None, *, header: bool = False) -> Any:
        """Records of one length as a numpy array over the mapped segment: read-only, and without a copy.

        `dtype` describes a payload; None gives rows of bytes. With `header` the elements are structured, with the
        fields seq, timestamp_ns, type_id, flags and payload. Raises InvalidArgument if lengths differ, or do not fit.

        >>> import numpy
        >>> quote = numpy.dtype([("bid", "f8"), ("ask", "f8")])
        >>> first, count = writer.append_array(numpy.array([(1.0, 1.5), (2.0, 2.5)], quote))
        >>> quotes = reader.read_batch().to_numpy(quote)
        >>> quotes["ask"] - quotes["bid"]
        array([0.5, 0.5])
        """
        import numpy as np

        count = len(self)
        size = self.length[0] if count else 0
        if dtype is None:
            kind = np.dtype((np.uint8, (size,)))
        else:
            kind = np.dtype(dtype)
            if kind.hasobject:
                raise InvalidArgument(f"a payload cannot hold {kind}: objects of Python live in one process only")
            if count and kind.itemsize != size:
                raise InvalidArgument(f"the payloads have {size} bytes, {kind} has {kind.itemsize}")
        fields = {"seq": "<u8", "timestamp_ns": "<u8", "type_id": "<u2", "flags": "u1"}  # the low byte of flags
        record = np.dtype(
            {
                "names": [*fields, "payload"],
                "formats": [*fields.values(), kind],
                "offsets": [*(ffi.offsetof(HEADER, name) for name in fields), HEADER_BYTES],
                "itemsize": (HEADER_BYTES + kind.itemsize + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT,
            }
        )
        if count:
            # From an array, not from the memoryview, behind which ndarray() would find memory that looks writable.
            segment = np.frombuffer(self.segment, np.uint8)
            rows = np.ndarray((count,), record, segment, self.offset[0] - HEADER_BYTES, (self._step(record),))
        else:
            rows = np.zeros(0, record)
            rows.flags.writeable = False
        return rows if header else rows["payload"]

    def _step(self, record: Any) -> int:
        """Bytes from one record to the next, if that is the same for all, and their lengths are. No loop in Python."""
        import numpy as np

        if len(self) == 1:
            return int(record.itemsize)
        offsets = np.asarray(self.offset).view(np.int64)
        step = int(offsets[1] - offsets[0])
        same = bool((np.asarray(self.length) == self.length[0]).all())
        # Records lie one behind the other: if they span no more than their own length allows, none is left out.
        plain = step == record.itemsize and offsets[-1] - offsets[0] == step * (len(self) - 1)
        if not same or not (plain or (np.diff(offsets) == step).all()):
            raise InvalidArgument("the payloads differ in length, or some are left out: use the columns and views()")
        return step

    # ---------------------------------------------------------------------------------------- Arrow

    def to_arrow(self, *, packed: bool = False) -> Any:
        """A pyarrow.RecordBatch: seq, timestamp (ns, UTC), type_id, flags, payload.

        The payloads are a binary_view array, without a copy: its views (16 bytes each) are new, and hold payloads of
        up to 12 bytes themselves; longer ones lie in the mapped segment. This needs pyarrow 20. With `packed` they are
        a large_binary array: one copy, for what does not know views, or is to be written to a file. Raises
        InvalidArgument if a timestamp lies beyond what Arrow can say, 2262-04-11.

        >>> import pyarrow
        >>> first, count = writer.append_many([b"one", b"two"])
        >>> table = reader.read_batch().to_arrow()
        >>> table.column_names, table["payload"].to_pylist()
        (['seq', 'timestamp', 'type_id', 'flags', 'payload'], [b'one', b'two'])
        """
        import pyarrow as pa

        count = len(self)
        if not bytes(self.timestamp_ns.cast("B")[_HIGH_BYTE::8]).isascii():  # for Arrow they are signed
            raise InvalidArgument("a timestamp lies beyond 2262-04-11, which Arrow cannot say: use the columns")
        payload = self._packed_payloads() if packed else self._views_of_payloads()
        plain = [
            pa.Array.from_buffers(kind, count, [None, pa.py_buffer(column)])
            for kind, column in (
                (pa.uint64(), self.seq),
                (pa.timestamp("ns", "UTC"), self.timestamp_ns),
                (pa.uint16(), self.type_id),
                (pa.uint8(), self.flags),
            )
        ]
        return pa.RecordBatch.from_arrays([*plain, payload], schema=arrow_schema(packed))

    def _packed_payloads(self) -> Any:
        import pyarrow as pa

        offsets = pa.py_buffer(array("q", accumulate(self.length, initial=0)))
        data = pa.py_buffer(b"".join(self.views()))
        self.check()
        return pa.Array.from_buffers(pa.large_binary(), len(self), [None, offsets, data])

    def _views_of_payloads(self) -> Any:
        """The buffers of the array hold what lies between the batch's payloads and nothing beyond, a GiB each."""
        import pyarrow as pa

        count = len(self)
        views = bytearray(VIEW_BYTES * count)
        data = []
        if count:
            first, last = sorted((0, count - 1), key=self.offset.__getitem__)
            begin, end = self.offset[first], self.offset[last] + self.length[last]
            with (  # given back at once: see _sources.py
                ffi.from_buffer("uint64_t[]", self.offset) as offsets,
                ffi.from_buffer("uint32_t[]", self.length) as lengths,
                ffi.from_buffer(views) as out,
            ):
                segment = ffi.cast("chron_segment **", self._handle.place)[0]
                lib.chron_segment_binary_views(segment, begin, offsets, lengths, count, out)
            self.check()
            data = [pa.py_buffer(self.segment[at:end]) for at in range(begin, end, VIEW_BUFFER_BYTES)]
        return pa.Array.from_buffers(pa.binary_view(), count, [None, pa.py_buffer(views), *data])

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} records{f' from seq {self.seq[0]}' if len(self) else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Batch leads into mapped memory and cannot be pickled: send payloads(), or open the queue there"
        )


def arrow_schema(packed: bool = False) -> Any:
    """What `Batch.to_arrow` and `Queue.scan` give."""
    import pyarrow as pa

    return pa.schema(
        [
            ("seq", pa.uint64()),
            ("timestamp", pa.timestamp("ns", "UTC")),
            ("type_id", pa.uint16()),
            ("flags", pa.uint8()),
            ("payload", pa.large_binary() if packed else pa.binary_view()),
        ]
    )


def batch_of(segment: Segment, columns: Columns, count: int, room: int) -> Batch:
    """What a peek has found, in columns that have room for more."""
    lent = memoryview(columns)
    views = {}
    begin = 0
    for (name, form), size in zip(COLUMNS, COLUMN_BYTES, strict=True):
        views[name] = lent[begin : begin + count * size].cast(form)
        begin += room * size
    return Batch(segment, memoryview(segment), views)


def _packed(column: memoryview, form: Any) -> memoryview:
    """The same without gaps."""
    return column if column.c_contiguous else memoryview(column.tobytes()).cast(form)
