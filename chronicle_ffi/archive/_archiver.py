# SPDX-License-Identifier: MIT
"""`Archive`: sealed, durable segments become objects, which are read back and compared before they are noted.

The order is what makes it safe to be killed anywhere. An object's name holds its digest: who comes again makes the same
one. It is read back, unpacked and compared with the file byte by byte, then noted in the manifest, by an object that
only one can make. Only then the archiver's position in the queue moves behind the segment, and it is for this
position that retention waits. An object that is in no entry belongs to an archiver that is at work, or to one that
was killed and whose successor makes the same; once the segment's entry names another one it can never be noted, and
is deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from chronicle_ffi import (
    Batch,
    CleanupReport,
    Corrupt,
    InvalidArgument,
    Queue,
    QueueInfo,
    QueueReader,
    SegmentGone,
    SegmentInfo,
    StorageError,
    WriterAlreadyActive,
)
from chronicle_ffi.archive import _object
from chronicle_ffi.archive._cache import Cache, restore
from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveMismatch
from chronicle_ffi.archive._manifest import FORMAT, OBJECTS, About, Entry, Manifest, entry_name, pack
from chronicle_ffi.archive._pack import TWICE, Packed, Seen, compare, seen_of
from chronicle_ffi.archive._store import Store

READER: Final = "archive"  # the name under which the queue knows the archiver
LEVEL: Final = 3
BATCH_RECORDS: Final = 65536
HEADER_BYTES: Final = 128  # of queue.meta

Progress: TypeAlias = Callable[[int, int, int], object]


def step(name: str) -> None:
    """Between two steps: where tests kill."""


@dataclass(frozen=True)
class ArchiveReport:
    """What `Archive.run` did.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> len(report.archived), report.next_seq, [why for base, why in report.waiting]
    (1, 54, [])
    """

    archived: list[Entry]  #: segments that this run noted
    found: list[Entry]  #: that were noted already, by a run that was cut off, and were compared again
    next_seq: int  #: everything below is in the archive, or is in `missed`: retention need not wait for it
    waiting: list[tuple[int, str]]  #: base_seq of sealed segments that are not archived yet, and why
    missed: list[tuple[int, int]]  #: seqs [first, behind) that a limit of retention had deleted before
    swept: list[str]  #: objects that could never be noted, deleted
    segment_bytes: int  #: of the segments archived
    object_bytes: int  #: of their objects
    cleanup: (
        CleanupReport | None
    )  #: of the local segments; None: a writer has the queue open, whose retention does that


@dataclass(frozen=True)
class ArchiveCheck:
    """What `Archive.verify` found.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> check = Archive("q", "archive").verify()
    >>> check.ok, check.segments, check.records
    (True, 1, 54)
    """

    ok: bool  #: nothing is damaged, and no record is missing between the first and the last
    segments: int  #: that are noted
    records: int  #: in those that are whole, each with a right CRC
    oldest_seq: int
    next_seq: int
    damaged: list[ArchiveDamaged] = field(repr=False)  #: what cannot be had, and why
    holes: list[tuple[int, int]]  #: seqs [first, behind) that no segment holds
    orphans: list[str]  #: objects that no entry names: of an archiver that is at work, or was killed


class Archive:
    """The archive of a queue on object storage, or in a directory.

    :param queue: the queue's directory; None: only look at the archive.
    :param url: "s3://bucket/prefix", "gs://...", "az://...", a directory, or a store of obstore's. Each queue needs a
        place of its own.
    :param options: settings of the store, such as ``{"endpoint": "http://127.0.0.1:8333", "allow_http": "true"}``;
        credentials come from the environment (AWS_ACCESS_KEY_ID, ...).
    :param reader: the name under which the archiver is registered with the queue, so that retention waits for it. Two
        archives of one queue need two.
    :param level: of zstd, 1 to 22.
    :param frame_bytes: what is fetched at least for a record, a multiple of 64 KiB; by default what costs 1 percent
        of space.

    Belongs to one thread at a time.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> [entry.base_seq for entry in report.archived]
    [0]
    """

    def __init__(
        self,
        queue: str | os.PathLike[str] | None,
        url: Any,
        *,
        options: Mapping[str, str] | None = None,
        reader: str = READER,
        level: int = LEVEL,
        frame_bytes: int | None = None,
    ) -> None:
        if not 1 <= level <= 22:
            raise InvalidArgument(f"level is {level}; zstd has 1 to 22")
        if frame_bytes is None:
            frame_bytes = (4 if level <= 4 else 32) * _object.BLOCK  # higher levels look further back
        if frame_bytes < _object.BLOCK or frame_bytes % _object.BLOCK or frame_bytes > 1 << 30:
            raise InvalidArgument(f"frame_bytes is {frame_bytes}: a multiple of 65536 up to 1 GiB")
        self._queue = None if queue is None else Path(queue)
        if self._queue is not None:
            Queue.info(self._queue)  # before a directory is made for what does not exist
        self._store = Store(url, options, create=queue is not None)
        self._manifest = Manifest(self._store)
        self._reader_name = reader
        self._level = level
        self._frame_bytes = frame_bytes

    @property
    def entries(self) -> list[Entry]:
        """What is archived, oldest first. Raises ArchiveError, ArchiveDamaged.

        >>> Archive("q", "archive").entries
        []
        """
        self._manifest.reload()
        found: list[Entry] = []
        for one in self._manifest.all():
            if isinstance(one, ArchiveDamaged):
                raise one
            found.append(one)
        return found

    # ------------------------------------------------------------------------------------- archiving

    def run(
        self,
        *,
        older: float | timedelta = 0.0,
        keep_local: bool = False,
        progress: Progress | None = None,
    ) -> ArchiveReport:
        """Archive every sealed segment that is not, and let retention have what is.

        :param older: only segments that were sealed so many seconds ago, or longer, counted as `Retention.max_age`
            does: a wall clock that is set changes nothing.
        :param keep_local: delete nothing here. Else, if no writer has the queue open, a cleanup deletes what every
            registered reader, the archiver among them, has passed; a writer's own retention does that where there is
            one.
        :param progress: called with (segments done, segments to do, bytes done) behind each one.

        A segment that is not durable yet waits; where no writer has the queue open, this one syncs it. What is
        damaged is an error: repair the queue first. Raises ArchiveError, ArchiveMismatch, ArchiveDamaged,
        ReaderAlreadyActive (another archiver is at work), and as `Queue.open_subscriber`.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> writer.sync()
        >>> Archive("q", "archive").run(older=timedelta(days=1)).waiting
        [(0, 'it was sealed too short a time ago')]
        """
        if self._queue is None:
            raise InvalidArgument("this Archive was made without a queue: there is nothing to archive")
        age = older.total_seconds() if isinstance(older, timedelta) else float(older)
        if not age >= 0:
            raise InvalidArgument(f"older is {older}: seconds, 0 or more")
        with _Run(self._queue, self._manifest, self._reader_name, self._level, self._frame_bytes) as run:
            run.archive(age, progress)
            cleanup = None if keep_local else run.clean()
            return run.report(cleanup)

    # ------------------------------------------------------------------------------------- looking

    def verify(self, progress: Progress | None = None) -> ArchiveCheck:
        """Fetch everything and check it: every digest, every frame, every record's CRC; and what no entry names.

        `progress` is as in `run`. Raises ArchiveError if the store cannot be reached.

        >>> report = Archive("q", "archive").run()
        >>> Archive("q", "archive").verify().ok
        True
        """
        self._manifest.reload()
        entries = self._manifest.all()
        damaged: list[ArchiveDamaged] = []
        records = done = 0
        named = set()
        with Cache(self._manifest) as cache:
            for i, entry in enumerate(entries):
                if isinstance(entry, ArchiveDamaged):
                    damaged.append(entry)
                    continue
                named.add(entry.object)
                try:
                    compare(self._store, entry, None)
                    records += cache.count(entry)
                except ArchiveDamaged as damage:
                    damaged.append(damage)
                done += entry.object_bytes
                if progress:
                    progress(i + 1, len(entries), done)
        whole = [entry for entry in entries if isinstance(entry, Entry)]
        holes = [
            (one.next_seq, base)
            for one in whole
            if (base := self._manifest.behind(one.base_seq)) is not None and base > one.next_seq
        ]
        broken = {damage.seq for damage in damaged}
        orphans = [name for name in self._store.names(OBJECTS) if name not in named and base_of(name) not in broken]
        return ArchiveCheck(
            ok=not damaged and not holes,
            segments=len(entries),
            records=records,
            oldest_seq=self._manifest.oldest() or 0,
            next_seq=whole[-1].next_seq if whole else 0,
            damaged=damaged,
            holes=holes,
            orphans=orphans + self._store.leftovers(),
        )

    def restore(self, path: str | os.PathLike[str], progress: Progress | None = None) -> int:
        """Make a directory with the segment files as they were, byte for byte, and return how many.

        It can be read as a queue. To go on writing to it, `Queue.repair` makes its queue.meta, first. Raises
        ArchiveDamaged, ArchiveError, and FileExistsError if `path` is there.

        >>> report = Archive("q", "archive").run()
        >>> Archive("q", "archive").restore("again")
        0
        """
        self._manifest.reload()
        return restore(self._manifest, Path(path), progress)


def base_of(name: str) -> int | None:
    digits = name[len(OBJECTS) + 1 :].partition("-")[0]
    return int(digits) if digits.isdecimal() else None


class _Run:
    """One run of an archiver."""

    def __init__(self, queue: Path, manifest: Manifest, name: str, level: int, frame_bytes: int) -> None:
        self._queue = queue
        self._manifest = manifest
        self._store = manifest.store
        self._name = name
        self._level = level
        self._frame_bytes = frame_bytes
        self._archived: list[Entry] = []
        self._found: list[Entry] = []
        self._waiting: list[tuple[int, str]] = []
        self._missed: list[tuple[int, int]] = []
        self._swept: list[str] = []
        self._files: set[IO[bytes]] = set()

    def __enter__(self) -> _Run:
        info = Queue.info(self._queue)
        self._manifest.found(about(self._queue, info))
        self._manifest.reload()
        self._settle(info)
        self._reader = self._register()
        try:
            bases = self._manifest.bases
            self._next_seq = self._manifest.end() if bases else Queue.info(self._queue).oldest_seq
        except BaseException:
            self._reader.close()
            raise
        return self

    def __exit__(self, *why: object) -> None:
        self._reader.close()
        for file in self._files:  # of a segment that was not written, since the one before it could not be
            file.close()

    def _register(self) -> QueueReader:
        """From the first moment on retention waits for what is not archived."""
        try:
            return Queue.open_subscriber(self._queue, self._name, durable_only=True)
        except SegmentGone:
            return Queue.open_subscriber(self._queue, self._name, start="earliest", durable_only=True)

    def _settle(self, info: QueueInfo) -> None:
        """Where nobody has the queue open, nobody else will ever sync it."""
        if info.writer_alive or info.durable_seq + 1 >= info.next_seq:
            return
        try:
            with Queue.open_publisher(self._queue, create=False, keeper=False) as writer:
                writer.sync()
        except WriterAlreadyActive:
            pass  # it came in between, and syncs in its own time

    # ------------------------------------------------------------------------------------- which

    def archive(self, age: float, progress: Progress | None) -> None:
        """Two at a time: one is read and compressed while the one before it is written and read back."""
        todo = self._ready(age)
        under_way: Future[Entry] | None = None
        done = 0
        with ThreadPoolExecutor(1, "chronicle-archive") as pool:
            for i, segment in enumerate(todo):
                seen = self._read(segment)
                if seen is None:
                    continue
                known = segment.base_seq in self._manifest.bases
                work = self._again(segment, seen) if known else self._anew(segment, seen)
                if under_way is not None:
                    self._pass(under_way.result())
                under_way = pool.submit(work)
                del seen, work  # and with them the mapping
                done += segment.bytes
                if progress:
                    progress(i + 1, len(todo), done)
            if under_way is not None:
                self._pass(under_way.result())

    def _ready(self, age: float) -> list[SegmentInfo]:
        """Sealed, old enough, durable, and not known to be archived and compared; oldest first."""
        ages = {fate.base_seq: fate.age_ms / 1000 for fate in Queue.cleanup_plan(self._queue).segments}
        durable = Queue.info(self._queue).durable_seq
        known = set(self._manifest.bases)
        passed = self._reader.committed or 0
        ready: list[SegmentInfo] = []
        for segment in Queue.segments(self._queue):
            if not segment.sealed or (segment.next_seq <= passed and segment.base_seq in known):
                continue
            if self._waiting:
                self._waiting.append((segment.base_seq, "the one before it waits"))
            elif ages.get(segment.base_seq, 0.0) < age:
                self._waiting.append((segment.base_seq, "it was sealed too short a time ago"))
            elif segment.next_seq > durable + 1:
                self._waiting.append((segment.base_seq, "it is not durable yet: its writer has not synced it"))
            else:
                ready.append(segment)
        return ready

    # ------------------------------------------------------------------------------------- one of them

    def _read(self, segment: SegmentInfo) -> Seen | None:
        """Read it with every CRC. None: a limit of retention has deleted it meanwhile."""
        reader = self._reader
        columns: list[Batch] = []
        gaps = False
        wanted = segment.base_seq
        while wanted < segment.next_seq:
            try:
                if reader.position != wanted:
                    reader.seek(wanted)
                batch = reader.read_batch(min(segment.next_seq - wanted, BATCH_RECORDS))
            except SegmentGone as gone:  # the segment, or records in it that a repair has given up
                gaps = True
                wanted = gone.oldest if gone.oldest is not None else segment.next_seq
                continue
            except Corrupt as damage:
                raise Corrupt(
                    f"{damage}. What is damaged is not archived: repair the queue first (chronicle repair)",
                    file=damage.file,
                    offset=damage.offset,
                    seq=damage.seq,
                ) from damage
            if not len(batch):
                raise StorageError(f"the segment of record {segment.base_seq} ended before {segment.next_seq}")
            columns.append(batch)
            wanted = reader.position
        return seen_of(segment, columns, gaps, self._frame_bytes) if columns else None

    def _again(self, segment: SegmentInfo, seen: Seen) -> Callable[[], Entry]:
        entry = self._manifest.entry(segment.base_seq)

        def work() -> Entry:
            self._check(entry, seen)
            self._found.append(entry)
            return entry

        return work

    def _anew(self, segment: SegmentInfo, seen: Seen) -> Callable[[], Entry]:
        made = Packed(seen.segment, segment.bytes, self._frame_bytes, self._level)
        self._files.add(made.file)
        made.finish(segment.base_seq, seen.marks)
        seen.check()
        entry = Entry(
            format=FORMAT,
            queue=self._manifest.about().queue,
            base_seq=segment.base_seq,
            next_seq=segment.next_seq,
            records=seen.records,
            segment_size=segment.bytes,
            end_offset=seen.end_offset,
            min_ts=seen.min_ts,
            max_ts=seen.max_ts,
            object=made.name,
            object_bytes=made.bytes,
            sha256=made.sha256,
            index_at=made.index_at,
            index_bytes=made.index_bytes,
            gaps=(self._queue / "gaps").read_bytes().hex() if seen.gaps else None,
            archived_ns=time.time_ns(),
        )

        def work() -> Entry:
            self._files.discard(made.file)
            with made.file as file:
                file.seek(0)
                step("before the object is written")
                self._store.put(entry.object, file, entry.object_bytes)
            step("before it is read back")
            try:
                compare(self._store, entry, seen.segment)
            except ArchiveDamaged:  # swept by another archiver, that has noted the segment meanwhile?
                if self._store.get(entry_name(entry.base_seq)) is None:
                    raise
            seen.check()
            step("before it is noted")
            return self._note(entry, seen)

        return work

    def _note(self, entry: Entry, seen: Seen) -> Entry:
        if self._store.create(entry_name(entry.base_seq), pack(entry)):
            self._archived.append(entry)
        else:  # another archiver was faster
            self._manifest.reload()
            entry = self._manifest.entry(entry.base_seq)
            self._check(entry, seen)
            self._found.append(entry)
        return entry

    def _check(self, entry: Entry, seen: Seen) -> None:
        if (entry.next_seq, entry.records) != (seen.next_seq, seen.records):
            raise ArchiveMismatch(
                f"{entry_name(entry.base_seq)} says that this segment ends before {entry.next_seq}, here it ends before"
                f" {seen.next_seq}: {TWICE}",
                file=entry_name(entry.base_seq),
                seq=entry.base_seq,
            )
        compare(self._store, entry, seen.segment)
        seen.check()

    def _pass(self, entry: Entry) -> None:
        """It is noted: retention need not wait for it any more, and other objects of it are of no use."""
        if entry.base_seq > self._next_seq:
            self._missed.append((self._next_seq, entry.base_seq))
        self._next_seq = max(self._next_seq, entry.next_seq)
        step("before the position moves")
        if entry.next_seq > (self._reader.committed or 0):
            self._reader.commit(upto=entry.next_seq)
        step("before others are swept")
        for name in self._store.names(OBJECTS, f"{OBJECTS}/{entry.base_seq:020}"):
            if base_of(name) != entry.base_seq:
                break
            if name != entry.object:
                self._store.delete(name)
                self._swept.append(name)

    # ------------------------------------------------------------------------------------- afterwards

    def clean(self) -> CleanupReport | None:
        """Delete what every reader has passed; None: a writer has the queue open, and that is its business."""
        try:
            with Queue.open_publisher(self._queue, create=False, keeper=False) as writer:
                step("before a cleanup")
                return writer.cleanup()
        except WriterAlreadyActive:
            return None

    def report(self, cleanup: CleanupReport | None) -> ArchiveReport:
        return ArchiveReport(
            archived=self._archived,
            found=self._found,
            next_seq=self._next_seq,
            waiting=self._waiting,
            missed=self._missed,
            swept=self._swept,
            segment_bytes=sum(one.segment_size for one in self._archived),
            object_bytes=sum(one.object_bytes for one in self._archived),
            cleanup=cleanup,
        )


def about(queue: Path, info: QueueInfo) -> About:
    """What archive.json says of a queue."""
    if info.meta_lost:
        raise Corrupt(f"{queue}: queue.meta is missing or damaged: repair the queue first (chronicle repair)")
    with (queue / "queue.meta").open("rb") as file:
        header = file.read(HEADER_BYTES)
    return About(format=FORMAT, queue=str(info.uuid), segment_size=info.segment_size, header=header.hex())
