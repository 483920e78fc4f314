# SPDX-License-Identifier: MIT
"""`export`: records as Parquet files, a folder for each day, for engines that know nothing of queues.

The log is exported in chunks. A chunk is claimed before a file of it is written, by an object that is made only if
there is none: it says which seqs the chunk holds, and so what is in its files. Who is killed leaves a claim that is
not done; the next run writes the same files again, under the same names. Two at once do the same, or one after the
other.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chronicle_ffi import InvalidArgument, Queue
from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveError, ArchiveMismatch
from chronicle_ffi.archive._manifest import Manifest
from chronicle_ffi.archive._store import Store

CLAIMS: Final = "_chronicle"  # engines leave out what begins with an underscore
CHUNK_BYTES: Final = 256 << 20  # of payload
CHUNK_ROWS: Final = 4 << 20
GROUP_ROWS: Final = 128 << 10  # of a row group, whose lowest and highest timestamp engines look at
DAY_NS: Final = 86400 * 10**9
STATISTICS: Final = ["seq", "timestamp", "type_id"]


@dataclass(frozen=True)
class ExportReport:
    """What `export` did.

    >>> import pyarrow
    >>> seq = writer.append(b"one", timestamp_ns=1_700_000_000_000_000_000)
    >>> export("q", "tables")
    ExportReport(first_seq=0, next_seq=1, records=1, files=['date=2023-11-14/...-....parquet'], bytes=...)
    """

    first_seq: int  #: the first that this run exported
    next_seq: int  #: behind the last; where the next run begins
    records: int  #: that this run exported
    files: list[str]  #: that this run wrote
    bytes: int  #: of those


@dataclass(frozen=True)
class _Claim:
    first: int
    next: int
    done: bool

    @property
    def name(self) -> str:
        return f"{CLAIMS}/{self.first:020}.json"

    def text(self, queue: str) -> bytes:
        fields = {"format": 1, "queue": queue, "first": self.first, "next": self.next, "done": self.done}
        return json.dumps(fields).encode() + b"\n"


def export(
    queue: str | os.PathLike[str] | None,
    destination: Any,
    *,
    archive: Any = None,
    start: Any = "earliest",
    stop: Any = None,
    options: Mapping[str, str] | None = None,
    group_rows: int = GROUP_ROWS,
    progress: Callable[[int, int], object] | None = None,
) -> ExportReport:
    """Write records as Parquet: ``date=2024-05-01/<first>-<behind>.parquet``, days of UTC by the timestamp. Needs
    pyarrow.

    Run again, it goes on where it stopped, and writes what came since; what a run that was killed had begun is
    written again, under the same names: no record is there twice, and none is missing. Columns: seq, timestamp (ns,
    UTC), type_id, flags, payload. Rows are in order of seq, in row groups with the lowest and highest timestamp of
    each, so that DuckDB and polars read of a day only what a filter on time needs.

    :param queue: the queue's directory; None: only `archive`.
    :param destination: a directory, or "s3://bucket/prefix" and the like.
    :param archive: as for `Queue.open_subscriber`.
    :param start: where the first run begins; a later one goes on behind what is there.
    :param stop: as for `Queue.scan`.
    :param options: of the destination's store, as for `Archive`.
    :param group_rows: rows of a row group.
    :param progress: called with (records done, records to do) behind each chunk.

    Raises ArchiveError, ArchiveMismatch (the files are those of another queue), SegmentGone (what comes next was
    deleted), InvalidArgument (a timestamp beyond 2262-04-11), and as `Queue.scan`.

    >>> import pyarrow
    >>> seq = writer.append(b"one")
    >>> export("q", "tables").records, export("q", "tables").records
    (1, 0)
    """
    if group_rows < 1:
        raise InvalidArgument(f"group_rows is {group_rows}: 1 or more")
    if queue is None and archive is None:
        raise InvalidArgument("there is nothing to export: neither a queue nor an archive is given")
    manifest = None if archive is None else Manifest(Store(archive))
    uuid = str(Queue.info(queue).uuid) if queue is not None else manifest.about().queue if manifest else ""
    work = _Export(queue, archive, Store(destination, options, create=True), uuid, group_rows)
    return work.run(start, stop, progress)


class _Export:
    def __init__(self, queue: Any, archive: Any, store: Store, uuid: str, group_rows: int) -> None:
        self._queue = queue
        self._archive = archive
        self._store = store
        self._uuid = uuid
        self._group_rows = group_rows
        self._files: list[str] = []
        self._bytes = self._records = 0

    def run(self, start: Any, stop: Any, progress: Callable[[int, int], object] | None) -> ExportReport:
        claims = [self._claim_of(name) for name in self._store.names(CLAIMS)]
        for claim in claims:
            if not claim.done:
                self._write(claim, self._rows(claim.first, claim.next)[0])
        at = max((claim.next for claim in claims), default=None)
        with Queue.scan(self._queue, start=start if at is None else at, stop=stop, archive=self._archive) as scan:
            first, end = scan.start, scan.stop
        at = first
        while at < end:
            tables, behind = self._rows(at, end)
            if not tables:
                break
            wanted = _Claim(at, behind, False)
            if not self._store.create(wanted.name, wanted.text(self._uuid)):  # another exporter was faster
                claim = self._claim_of(wanted.name)
                if claim.next != behind:
                    tables = self._rows(at, claim.next)[0]
                wanted = claim
            self._write(wanted, tables)
            at = wanted.next
            if progress:
                progress(at - first, end - first)
        return ExportReport(first, at, self._records, self._files, self._bytes)

    def _claim_of(self, name: str) -> _Claim:
        data = self._store.get(name)
        try:
            found = json.loads(data or b"")
            claim = _Claim(found["first"], found["next"], found["done"])
            if found["format"] != 1 or claim.name != name or claim.next <= claim.first:
                raise ValueError(found)
        except (ValueError, KeyError, TypeError):
            raise ArchiveDamaged(
                f"{name} is damaged: it says which records the files hold whose names begin with its number: delete it,"
                " and these, and export again",
                file=name,
            ) from None
        if found["queue"] != self._uuid:
            raise ArchiveMismatch(
                f"{self._store.url} holds the queue {found['queue']}, not {self._uuid}: export to another place",
                file=name,
            )
        return claim

    def _rows(self, first: int, stop: int) -> tuple[list[Any], int]:
        """Tables of records from `first` on, as many as a chunk holds, and where they end."""
        tables: list[Any] = []
        rows = size = 0
        behind = first
        with Queue.scan(self._queue, start=first, stop=stop, archive=self._archive) as scan:
            for batch in scan:
                tables.append(batch.to_arrow(packed=True))
                rows += len(batch)
                size += sum(batch.length)
                behind = batch.seq[-1] + 1
                if rows >= CHUNK_ROWS or size >= CHUNK_BYTES:
                    break
        return tables, behind

    def _write(self, claim: _Claim, batches: list[Any]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if not batches or batches[-1]["seq"][-1].as_py() + 1 != claim.next:
            raise ArchiveError(
                f"records {claim.first} to {claim.next - 1} were to be exported by a run that was cut off, and are not"
                f" there any more: delete {claim.name} and files of its number to go on without them",
                file=claim.name,
                seq=claim.first,
            )
        table = pa.Table.from_batches(batches)
        days = pc.divide(table["timestamp"].cast(pa.int64()), DAY_NS)
        for day in sorted(pc.unique(days).to_pylist()):
            date = (datetime(1970, 1, 1) + timedelta(days=day)).date()
            name = f"date={date}/{claim.first:020}-{claim.next:020}.parquet"
            sink = io.BytesIO()
            pq.write_table(
                table.filter(pc.equal(days, day)),
                sink,
                row_group_size=self._group_rows,
                compression="zstd",
                write_statistics=STATISTICS,
                use_dictionary=["type_id", "flags"],
            )
            data = sink.getbuffer()
            self._store.put(name, bytes(data), len(data))
            self._files.append(name)
            self._bytes += len(data)
        self._records += len(table)
        text = _Claim(claim.first, claim.next, True).text(self._uuid)
        self._store.put(claim.name, text, len(text))
