# SPDX-License-Identifier: MIT
"""What a merge gives: batches of them as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from chronicle_ffi.errors import InvalidArgument
from chronicle_ffi.model import MergedMessage

ARROW_TIME_MAX: Final = (1 << 63) - 1


class MergedBatch(Sequence[MergedMessage]):
    """Records of a merge as columns, and as a sequence of `MergedMessage` objects. The payloads are copies.

    The columns are memoryviews: `seq`, `timestamp_ns`, `offset` (in `data`), `length`, `type_id`, `flags`, `source`
    and `late`.

    >>> first, count = writer.append_many([b"one", b"two"], type_id=7)
    >>> with Queue.merge(["q"]) as merge:
    ...     batch = merge.read_batch()
    >>> len(batch), batch.payloads(), list(batch.source), batch[1].type_id
    (2, [b'one', b'two'], [0, 0], 7)
    """

    __slots__ = ("_paths", "data", "flags", "late", "length", "offset", "seq", "source", "timestamp_ns", "type_id")

    def __init__(self, columns: dict[str, memoryview], data: bytes, paths: Sequence[str]) -> None:
        self.seq = columns["seq"]  #: of 8 bytes each
        self.timestamp_ns = columns["timestamp_ns"]  #: of 8 bytes each
        self.offset = columns["offset"]  #: of 8 bytes each, and one more: where the last payload ends
        self.length = columns["length"]  #: of 4 bytes each
        self.type_id = columns["type_id"]  #: of 2 bytes each
        self.flags = columns["flags"]  #: of 1 byte each
        self.source = columns["source"]  #: of 4 bytes each
        self.late = columns["late"]  #: of 1 byte each: 0 or 1
        self.data = data  #: the payloads, one behind the other
        self._paths = paths

    def __len__(self) -> int:
        return len(self.seq)

    def __getitem__(self, index: Any) -> Any:
        which = range(len(self))[index]
        return self._message(which) if isinstance(which, int) else list(map(self._message, which))

    def _message(self, i: int) -> MergedMessage:
        return MergedMessage(
            self.seq[i],
            self.timestamp_ns[i],
            self.type_id[i],
            self.flags[i],
            self.data[self.offset[i] : self.offset[i + 1]],
            self.source[i],
            bool(self.late[i]),
        )

    def __iter__(self) -> Iterator[MergedMessage]:
        return map(
            MergedMessage,
            self.seq,
            self.timestamp_ns,
            self.type_id,
            self.flags,
            self.payloads(),
            self.source,
            map(bool, self.late),
        )

    def payloads(self) -> list[bytes]:
        """Each payload.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     merge.read_batch().payloads()
        [b'one', b'two']
        """
        data = self.data
        return [data[begin:end] for begin, end in zip(self.offset, self.offset[1:], strict=False)]

    def to_arrow(self) -> Any:
        """A pyarrow.RecordBatch: source (its path, as a dictionary), seq, timestamp, type_id, flags, late, payload.

        Without a further copy. Raises InvalidArgument if a timestamp lies beyond what Arrow can say, 2262-04-11.

        >>> import pyarrow
        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     table = merge.read_batch().to_arrow()
        >>> table["source"].to_pylist(), table["payload"].to_pylist()
        (['q', 'q'], [b'one', b'two'])
        """
        import pyarrow as pa

        count = len(self)
        if count and max(self.timestamp_ns) > ARROW_TIME_MAX:
            raise InvalidArgument("a timestamp lies beyond 2262-04-11, which Arrow cannot say: use the columns")

        def plain(kind: Any, column: memoryview) -> Any:
            return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(column)])

        payload = [None, pa.py_buffer(self.offset), pa.py_buffer(self.data)]
        return pa.RecordBatch.from_arrays(
            [
                pa.DictionaryArray.from_arrays(plain(pa.uint32(), self.source), pa.array(self._paths, pa.string())),
                plain(pa.uint64(), self.seq),
                plain(pa.timestamp("ns", "UTC"), self.timestamp_ns),
                plain(pa.uint16(), self.type_id),
                plain(pa.uint8(), self.flags),
                plain(pa.uint8(), self.late).cast(pa.bool_()),
                pa.Array.from_buffers(pa.large_binary(), count, payload),
            ],
            schema=merged_schema(),
        )

    def __repr__(self) -> str:
        return f"<MergedBatch of {len(self)} records>"


def merged_schema() -> Any:
    """What `MergedBatch.to_arrow` gives."""
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.dictionary(pa.uint32(), pa.string())),
            ("seq", pa.uint64()),
            ("timestamp", pa.timestamp("ns", "UTC")),
            ("type_id", pa.uint16()),
            ("flags", pa.uint8()),
            ("late", pa.bool_()),
            ("payload", pa.large_binary()),
        ]
    )
