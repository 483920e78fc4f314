# SPDX-License-Identifier: MIT
"""`Scan`: a range of a queue, batch by batch, for programs that compute on columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chronicle_ffi.batch import Batch, arrow_schema
from chronicle_ffi.reader import QueueReader


class Scan:
    """Records [start, stop) of a queue, made by `Queue.scan`. Can be gone through once.

    Iterating gives `Batch` objects. It offers the Arrow C stream interface (this needs pyarrow), so that polars
    (``pl.DataFrame(scan)``), DuckDB (``duckdb.sql("from scan")``), pandas (``scan.to_arrow().read_pandas()``) and
    others read a queue directly, one batch at a time.

    >>> first, count = writer.append_many([b"one", b"two", b"three"])
    >>> for batch in Queue.scan("q", batch_records=2):
    ...     print(batch.payloads())
    [b'one', b'two']
    [b'three']
    """

    def __init__(self, reader: QueueReader, stop: int, batch_records: int) -> None:
        self._reader = reader
        self._stop = stop
        self._batch_records = batch_records

    def __iter__(self) -> Iterator[Batch]:
        with self._reader as reader:
            while (left := self._stop - reader.position) > 0:
                batch = reader.read_batch(min(left, self._batch_records))
                if not len(batch):
                    return
                yield batch

    def to_arrow(self) -> Any:
        """A pyarrow.RecordBatchReader. Payloads lie in the mapped segments, which stay mapped as long as needed.

        >>> import pyarrow
        >>> first, count = writer.append_many([b"one", b"two", b"three"], type_id=7)
        >>> Queue.scan("q").to_arrow().read_all().num_rows
        3
        """
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(arrow_schema(), (batch.to_arrow() for batch in self))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return arrow_schema().__arrow_c_schema__()

    def close(self) -> None:
        """Let go of the queue; batches that were handed out stay good.

        >>> scan = Queue.scan("q")
        >>> scan.close()
        """
        self._reader.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()
