# SPDX-License-Identifier: MIT
"""`Scan`: a range of a queue, batch by batch, for programs that compute on columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from chronicle_ffi._batch import Batch, arrow_schema
from chronicle_ffi._reader import QueueReader

if TYPE_CHECKING:
    from chronicle_ffi.archive import ArchivedReader


class Scan:
    """Records [start, stop) of a queue, made by `Queue.scan`. May be gone through again and again.

    Iterating gives `Batch` objects. It offers the Arrow C stream interface (this needs pyarrow), so that polars
    (``pl.DataFrame(scan)``), DuckDB (``duckdb.sql("from scan")``), pandas (``scan.to_arrow().read_pandas()``) and
    others read a queue directly, one batch at a time; a version that does not know binary views yet (DuckDB 1.3) takes
    ``scan.to_arrow(packed=True)``. Each way through it opens the queue anew, and raises SegmentGone
    if retention has meanwhile deleted where it begins; between them nothing is open. `close`, or ``with``, ends those
    that were left half way.

    >>> first, count = writer.append_many([b"one", b"two", b"three"])
    >>> for batch in Queue.scan("q", batch_records=2):
    ...     print(batch.payloads())
    [b'one', b'two']
    [b'three']
    """

    def __init__(
        self, open_at: Callable[[int], QueueReader | ArchivedReader], start: int, stop: int, batch_records: int
    ) -> None:
        self._open_at = open_at
        self._batch_records = batch_records
        self.start = start  #: the first seq
        self.stop = stop  #: behind the last one; the scan ends before, if the log does
        self._readers: set[QueueReader | ArchivedReader] = set()  # of those under way

    def __iter__(self) -> Iterator[Batch]:
        if self.start >= self.stop:
            return
        with self._open_at(self.start) as reader:
            self._readers.add(reader)
            try:
                while (left := self.stop - reader.position) > 0:
                    batch = reader.read_batch(min(left, self._batch_records))
                    if not len(batch):
                        return
                    yield batch
            finally:
                self._readers.discard(reader)

    def to_arrow(self, *, packed: bool = False) -> Any:
        """A pyarrow.RecordBatchReader over `Batch.to_arrow` of each batch.

        Payloads lie in the mapped segments, which stay mapped as long as needed; with `packed` they are copies.

        >>> import pyarrow
        >>> first, count = writer.append_many([b"one", b"two", b"three"], type_id=7)
        >>> Queue.scan("q").to_arrow().read_all().num_rows
        3
        """
        import pyarrow as pa

        batches = (batch.to_arrow(packed=packed) for batch in self)
        return pa.RecordBatchReader.from_batches(arrow_schema(packed), batches)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return arrow_schema().__arrow_c_schema__()

    def close(self) -> None:
        """End what goes through it at the moment; batches that were handed out stay good.

        >>> scan = Queue.scan("q")
        >>> scan.close()
        """
        for reader in list(self._readers):
            reader.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Scan cannot be pickled: scan the queue in the other process")

    def __repr__(self) -> str:
        return f"<Scan of [{self.start}, {self.stop})>"
