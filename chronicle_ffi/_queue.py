# SPDX-License-Identifier: MIT
"""`Queue`: opening writers and readers, and looking at queues from outside."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, SupportsIndex, TypeAlias, overload

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import Duration, Path, Time, is_time, limit, number, seconds, time_ns
from chronicle_ffi._binding import check, lib, new_struct, optional_seq, path_bytes, string
from chronicle_ffi._group import letters
from chronicle_ffi._groups import Groups
from chronicle_ffi._handle import open_into
from chronicle_ffi._many import ManyQueues
from chronicle_ffi._opening import (
    CLOCK,
    DURABILITY,
    TORN,
    archives,
    backpressure_seconds,
    check_schemas,
    limits_of,
    open_local,
    retry,
    table_of,
)
from chronicle_ffi._options import MODE_MAX, U32_MAX, choice
from chronicle_ffi._reader import QueueReader
from chronicle_ffi._scan import Scan
from chronicle_ffi._structs import all_of, cleanup_report, fields_of, quarantine_file
from chronicle_ffi._walk import Records, Walk
from chronicle_ffi._writer import QueueWriter
from chronicle_ffi.errors import InvalidArgument, QueueNotFound, RecoveryWarning
from chronicle_ffi.model import (
    CleanupReport,
    DeadLetter,
    Message,
    Problem,
    QuarantineFile,
    QueueInfo,
    ReaderInfo,
    Recovery,
    RepairReport,
    Retention,
    SegmentInfo,
    VerifyReport,
)

if TYPE_CHECKING:
    from chronicle_ffi.archive import ArchivedReader

SEGMENT_SIZE: Final[int] = lib.CHRON_SEGMENT_SIZE_DEFAULT  #: bytes of a segment file unless told otherwise: 64 MiB

_SEQ_MAX = (1 << 63) - 1
Durability: TypeAlias = 'Literal["none", "interval", "batch", "always"]'


class Queue(ManyQueues, Groups):
    """A directory that holds a log. Never instantiated: each function takes the path.

    >>> with Queue.open_publisher("prices", segment_size=SEGMENT_SIZE) as prices:
    ...     prices.append(b"EURUSD 1.0842")
    0
    >>> with Queue.open_subscriber("prices") as anyone:
    ...     [message.payload for message in anyone]
    [b'EURUSD 1.0842']
    """

    @staticmethod
    def open_publisher(
        path: Path,
        *,
        segment_size: SupportsIndex = SEGMENT_SIZE,
        durability: Durability = "none",
        durability_n: SupportsIndex | None = None,
        keeper: bool = True,
        max_bytes: SupportsIndex | None = None,
        max_segments: SupportsIndex | None = None,
        backpressure: Literal["fail"] | Duration = "fail",
        retention: Retention | None = None,
        reuse: bool = False,
        clock: Literal["realtime", "coarse", "counter"] = "realtime",
        schema: Mapping[int, Any] | None = None,
        mode: SupportsIndex | None = None,
        torn: Literal["ask", "cut", "skip"] = "ask",
        repair: bool = False,
        create: bool = True,
        first_seq: SupportsIndex = 0,
        wait: Duration | None = 0.0,
        shared: bool = False,
        turn_timeout: Duration = 5.0,
    ) -> QueueWriter:
        """Open a queue for writing; create it if it is not there, recover it if the last writer died.

        :param segment_size: bytes of each segment file, a multiple of 64 KiB; counts when the queue is created.
        :param durability: when records are put on disk: "none" (by `QueueWriter.sync` only: they survive the death
            of any process, not a loss of power), "interval" (every `durability_n` milliseconds, default 100, in the
            background), "batch" (inside append, every `durability_n` records, default 1000), "always" (in each append).
        :param keeper: prepare segments and pages in a background thread of C.
        :param max_bytes: back-pressure: do not let segment files grow beyond this; see `backpressure`.
        :param max_segments: the same as a number of segments, at least 2.
        :param backpressure: what an append does when they have: "fail" raises QueueFull at once, a number waits so
            many seconds for readers first.
        :param retention: what the keeper deletes by itself, and `QueueWriter.cleanup` on request. None: nothing is
            deleted before a call of cleanup(), which then deletes what all readers have consumed.
        :param reuse: the file of a segment that is deleted becomes the next one, where nobody has it open: that saves
            fresh pages (ext4, xfs, tmpfs, segments of 1 MiB and more; elsewhere nothing changes).
            From then on releases that know nothing of reuse refuse the queue. See the guide, "Retention".
        :param clock: for timestamps: "coarse" is cheaper and 1 to 4 ms rough; "counter" carries the clock on by the
            processor's counter where the kernel does so itself, at half the cost and within 5 us; elsewhere it is
            "realtime".
        :param schema: what the payloads of each type_id hold: a dtype of numpy, a Struct of msgspec, a Schema of
            pyarrow, a message class of protobuf, the text of a C struct, the name of a codec ("json", "msgpack",
            "bytes"), or a `chronicle_ffi.schema.Schema`. Stored in the queue, on disk, before this returns; what
            contradicts a stored one raises SchemaError, with the field. See `Message.decode`, `scan`.
        :param mode: permission bits of new files, default 0o600.
        :param torn: what to do about a hole that a loss of power may have left, with more good records behind it than
            in front of it since the last sync: "ask" raises Corrupt, "cut" sets aside what is behind, "skip" keeps it
            and accepts the gap. A shorter torn tail is cut off in any case, with a `RecoveryWarning`.
        :param repair: accept damage: keep all whole records, and give up the others for good, as a gap.
        :param create: False raises QueueNotFound instead of making a queue.
        :param first_seq: of a queue that is created now: the seq of its first record, for a copy of a log whose
            beginning was deleted.
        :param wait: seconds to wait for another writer to close; None: without limit. Ctrl-C ends it.
        :param shared: be one of several writers, in this process (a handle for each thread) and others, that take
            turns. All of them say so, with the same `max_bytes` and `max_segments`; one that does not excludes the
            others.
        :param turn_timeout: with `shared`: seconds to wait for another one who keeps its turn and lives (it is
            stopped); then an append raises TurnTimeout with its `pid`.

        Warns with RecoveryWarning if records are missing since the last writer (`QueueWriter.recovery`).

        Raises WriterAlreadyActive, Corrupt (something is damaged: restore it, or `repair`), NotDurable, NoSpace,
        AccessDenied, UnsupportedFormat, NetworkFileSystem, QueueNotFound, InvalidArgument.

        >>> with Queue.open_publisher("orders", durability="always") as orders:
        ...     orders.append(b"buy 100")
        ...     orders.durable_seq
        0
        0
        """
        options = new_struct("chron_writer_options")
        options.flags = lib.CHRON_CHECKED
        if keeper:
            options.flags |= lib.CHRON_KEEPER
        if reuse:
            options.flags |= lib.CHRON_REUSE
        if shared:
            options.flags |= lib.CHRON_SHARED
            options.turn_timeout_ns = max(1, int(seconds("turn_timeout", turn_timeout) * 1e9))
        if repair:
            options.flags |= lib.CHRON_REPAIR
        options.flags |= choice("torn", TORN, torn)
        if not create:
            options.flags |= lib.CHRON_MUST_EXIST
        options.segment_size = number("segment_size", segment_size)
        if not options.segment_size:  # in C that is the default; here it is a mistake
            raise InvalidArgument("segment_size is 0: the smallest is 65536 bytes, the default SEGMENT_SIZE")
        options.durability = choice("durability", DURABILITY, durability)
        if durability_n is not None:
            options.durability_n = number("durability_n", durability_n, U32_MAX)
        options.clock = choice("clock", CLOCK, clock)
        options.first_seq = number("first_seq", first_seq, _SEQ_MAX)
        options.mode = 0 if mode is None else number("mode", mode, MODE_MAX)
        options.max_bytes = limit("max_bytes", max_bytes)
        options.max_segments = limit("max_segments", max_segments)
        if retention is not None:
            limits = limits_of(retention)
            limits.automatic = 1
            options.retention = limits
        check_schemas(schema)  # before anything is there
        where = path_bytes(path)
        writer = QueueWriter(
            _arguments.path(path),
            backpressure_seconds(backpressure),
            has_keeper=bool(keeper),
            append_may_wait=shared or durability in ("batch", "always"),
            cleanup_may_wait=shared or durability != "none",
            shared=shared,
        )
        open_it = partial(open_into, writer, lambda out: lib.chron_writer_open(where, options, out))
        try:
            retry(open_it, lib.CHRON_EWRITER, wait)
            if loss := writer.recovery.loss():
                warnings.warn(f"{_arguments.path(path)}: {loss}", RecoveryWarning, stacklevel=2)
            if schema:
                writer.describe(schema)
        except BaseException:  # the filter may make it an exception; or a signal came
            writer.close()
            raise
        return writer

    @overload
    @staticmethod
    def open_subscriber(
        path: Path,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest", "snapshot"] | Time = "resume",
        types: Iterable[SupportsIndex] | SupportsIndex | None = None,
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: None = None,
    ) -> QueueReader: ...
    @overload
    @staticmethod
    def open_subscriber(
        path: Path | None,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest", "snapshot"] | Time = "resume",
        types: Iterable[SupportsIndex] | SupportsIndex | None = None,
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: Any,
    ) -> ArchivedReader: ...
    @staticmethod
    def open_subscriber(
        path: Path | None,
        name: str | None = None,
        *,
        start: Literal["resume", "earliest", "latest", "snapshot"] | Time = "resume",
        types: Iterable[SupportsIndex] | SupportsIndex | None = None,
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
        waiting: Literal["hybrid", "spin", "sleep"] = "hybrid",
        mode: SupportsIndex | None = None,
        wait: Duration | None = 0.0,
        archive: Any = None,
    ) -> QueueReader | ArchivedReader:
        """Open a queue for reading.

        :param name: [A-Za-z0-9._-]{1,64}, not beginning with a dot: registers the reader; it gets a stored position,
            and retention waits for it. None: nothing is stored, and read permission suffices.
        :param start: "resume" (at the committed position; at the oldest record if there is none), "earliest", "latest",
            "snapshot" (at the newest record that `QueueWriter.snapshot` appended, of `types` if they are given; at the
            oldest record if there is none), a seq, or a datetime (a naive one is local time) or datetime64 of numpy.
        :param types: only records of these type_ids. Blocks of 64 KiB that have none of them are not read; seqs have
            holes then, and `QueueReader.lag` goes on counting all records.
        :param on_gap: what to do if the record wanted next was deleted: raise SegmentGone, or go on at the "oldest" or
            "latest" one; `QueueReader.stats` counts what was skipped.
        :param durable_only: see only records that survive a loss of power.
        :param waiting: how `QueueReader.wait` waits: "spin" has the lowest latency and uses a whole processor, "sleep"
            the least work, "hybrid" spins for some microseconds first.
        :param mode: permission bits of a new position file; by default its owner may write to it, and read it whoever
            may read the queue: retention has to.
        :param wait: seconds to wait for the queue to exist; None: without limit. Ctrl-C ends it.
        :param archive: where `chronicle_ffi.archive` has put what is older, "s3://bucket/prefix" or a directory: the
            reader is a `chronicle_ffi.archive.ArchivedReader`, which goes on there for what the queue has not. With it
            `path` may be None, and the archive is all there is. Needs ``pip install 'chronicle-ffi[archive]'``.

        Raises QueueNotFound, ReaderAlreadyActive, SegmentGone, SeqOutOfRange, HistoryRewritten, Corrupt,
        UnsupportedFormat, AccessDenied, InvalidArgument.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> with Queue.open_subscriber("q", start=1) as anyone:
        ...     anyone.next().payload
        b'two'
        """
        if archive is not None:
            if types is not None:
                raise InvalidArgument("readers of an archive see all types: leave out types, or archive")
            choices = {"durable_only": durable_only, "waiting": waiting, "mode": mode, "wait": wait}
            reader: ArchivedReader = archives().open_subscriber(
                path, archive, name, start=start, on_gap=on_gap, **choices
            )
            return reader
        return open_local(path, name, start, _arguments.types(types), on_gap, durable_only, waiting, mode, wait)

    @staticmethod
    def dead_letters(path: Path, *, start: SupportsIndex = 0) -> list[DeadLetter]:
        """What groups of the queue have given up, with its history, from seq `start` of the dead queue on.

        >>> seq = writer.append(b"17.tiff")
        >>> with Queue.open_group("q", "resize") as group:
        ...     group.take().reject("no such format")
        >>> [(letter.seq, letter.why, letter.reason, letter.message.payload) for letter in Queue.dead_letters("q")]
        [(0, 'rejected', 'no such format', b'17.tiff')]
        """
        try:
            with Queue.open_subscriber(os.path.abspath(_arguments.path(path)) + ".dead", on_gap="oldest") as reader:
                first = number("start", start)
                return [letter for letter in letters(iter(reader)) if letter.dead_seq >= first]
        except QueueNotFound:
            if not os.path.isdir(path):
                raise
            return []

    @staticmethod
    def scan(
        path: Path | None,
        *,
        start: Literal["earliest"] | Time = "earliest",
        stop: Time | None = None,
        batch_records: SupportsIndex = 16384,
        durable_only: bool = False,
        archive: Any = None,
        type_id: Iterable[SupportsIndex] | SupportsIndex | None = None,
        columns: Iterable[str] | None = None,
        key: Any = None,
    ) -> Scan:
        """Records as columns: those from `start` up to, not including, `stop`, both settled now; see `Scan`.

        A time stands for one place in the log, as `QueueReader.seek_time` finds it: the first record, in order of seq,
        that is not older. So where timestamps go back (the clock was set), a scan between two times leaves out what
        lies behind its stop with older timestamps, and holds what lies in between with others: scan to the end, and
        pick by the column `timestamp_ns`.

        :param start: "earliest", a seq, or a datetime (the first record not older than it).
        :param stop: a seq, a datetime (up to the first record not older than it), or None: the end as it is now.
        :param batch_records: at most so many in one batch; a batch never leaves its segment.
        :param archive: what the queue has not any more, as for `open_subscriber`; `path` may then be None.
        :param type_id: only records of this type, or of these; blocks without them are not read. Of one type with a
            schema (see `chronicle_ffi.schema`), Arrow and all that takes it get the schema's columns.
        :param columns: some of those only, by name; "seq" and "timestamp" may be among them.
        :param key: only records whose field that the schema names as its key has this value. With `columns` it needs
            one `type_id`.

        Raises as `open_subscriber`.

        >>> first, count = writer.append_many([b"one", b"two", b"three", b"four"])
        >>> with Queue.scan("q", start=1, stop=3) as scan:
        ...     [batch.payloads() for batch in scan]
        [[b'two', b'three']]
        """
        batch_records = number("batch_records", batch_records, least=1)
        wanted = _arguments.types(type_id)
        if path is not None:
            path = os.path.abspath(_arguments.path(path))  # it may be gone through from another working directory
        if isinstance(archive, (str, os.PathLike)) and "://" not in os.fspath(archive):
            archive = os.path.abspath(archive)

        def open_at(at: Any) -> QueueReader | ArchivedReader:
            reader = Queue.open_subscriber(path, start=at, durable_only=durable_only, types=wanted, archive=archive)
            return reader

        with open_at(start) as reader:
            begin = reader.position
            if stop is None:
                end = begin + reader.lag
            elif is_time(stop):
                reader.seek_time(time_ns("stop", stop))
                end = reader.position
            else:
                end = number("stop", stop)
        return Scan(open_at, begin, end, batch_records, table_of(path, wanted, columns, key))

    @staticmethod
    def info(path: Path) -> QueueInfo:
        """Look at a queue, in use or not. Read permission suffices.

        >>> seq = writer.append(b"one")
        >>> info = Queue.info("q")
        >>> info.next_seq, info.durable_seq, info.writer_pid == os.getpid()
        (1, -1, True)
        """
        out = new_struct("chron_queue_info")
        check(lib.chron_queue_info_get(path_bytes(path), out))
        durable = optional_seq(out.durable_seq)
        return QueueInfo(
            uuid=uuid.UUID(bytes=bytes(out.uuid)),
            segment_size=out.segment_size,
            created_ns=out.created_ns,
            oldest_seq=out.oldest_seq,
            next_seq=out.next_seq,
            durable_seq=-1 if durable is None else durable,
            epoch=out.epoch,
            segments=out.segments,
            bytes=out.bytes,
            writer_pid=out.writer_pid or None,
            writer_start_ns=out.writer_start_ns,
            writer_host=string(out.writer_host) or None,
            writer_alive=bool(out.writer_alive),
            clean=bool(out.clean),
            format_version=out.format_version,
            quarantine_files=out.quarantine_files,
            quarantine_bytes=out.quarantine_bytes,
            meta_lost=bool(out.meta_lost),
        )

    @staticmethod
    def segments(path: Path) -> list[SegmentInfo]:
        """The segment files, oldest first.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> [(segment.base_seq, segment.next_seq, segment.sealed) for segment in Queue.segments("q")]
        [(0, 54, True), (54, 100, False)]
        """
        where = path_bytes(path)
        return all_of(
            partial(fields_of, SegmentInfo),
            "chron_segment_info",
            lambda out, n: lib.chron_queue_segments(where, out, n),
        )

    @staticmethod
    def readers(path: Path) -> list[ReaderInfo]:
        """The registered readers, by name.

        >>> first, count = writer.append_many([b"one", b"two", b"three"])
        >>> [(known.name, known.position, known.lag, known.alive) for known in Queue.readers("q")]
        [('me', 0, 3, True)]
        """
        where = path_bytes(path)
        return all_of(
            partial(fields_of, ReaderInfo), "chron_reader_info", lambda out, n: lib.chron_queue_readers(where, out, n)
        )

    @staticmethod
    def remove_reader(path: Path, name: str) -> None:
        """Unregister a reader that is not running. Raises ReaderAlreadyActive if it is, QueueNotFound if unknown.

        >>> Queue.open_subscriber("q", "visitor").close()
        >>> Queue.remove_reader("q", "visitor")
        >>> [known.name for known in Queue.readers("q")]
        ['me']
        """
        check(lib.chron_queue_reader_remove(path_bytes(path), _arguments.name(name)))

    @staticmethod
    def cleanup_plan(path: Path, retention: Retention | None = None) -> CleanupReport:
        """What `QueueWriter.cleanup` would do with this retention, and why. Deletes nothing.

        >>> first, count = writer.append_many([bytes(1000)] * 100)
        >>> for fate in Queue.cleanup_plan("q").segments:
        ...     print(fate.base_seq, fate.deleted, fate.reason)
        0 False reader me has not committed past it
        54 False the writer appends to it, or will
        """
        limits = limits_of(retention or Retention())
        where = path_bytes(path)
        return cleanup_report(lambda out, fates, n: lib.chron_queue_cleanup_plan(where, limits, out, fates, n))

    @staticmethod
    def verify(path: Path, progress: Callable[[str, int], None] | None = None) -> VerifyReport:
        """Read everything and check it: every CRC, every link between files. May run beside a live writer.

        ``progress(file, seq)`` is called now and then. Ctrl-C works, and so does an exception from `progress`.

        >>> seq = writer.append(b"one")
        >>> report = Queue.verify("q")
        >>> report.ok, report.records, report.problems
        (True, 1, [])
        """
        walk = Walk(progress)
        where = path_bytes(path)
        summary = new_struct("chron_verify_summary")
        walk.run(lambda report, context: lib.chron_queue_verify(where, report, context, summary))
        return VerifyReport(
            ok=summary.problems == 0,  # not by what was heard: in a subinterpreter that may be nothing
            records=summary.records,
            payload_bytes=summary.payload_bytes,
            segments=summary.segments,
            readers=summary.readers,
            oldest_seq=summary.oldest_seq,
            next_seq=summary.next_seq,
            problems=walk.problems,
            notes=walk.notes,
            gaps=summary.gaps,
            gap_records=summary.gap_records,
        )

    @staticmethod
    def repair(
        path: Path,
        *,
        dry_run: bool = False,
        approve: Callable[[list[Problem]], bool] | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> RepairReport:
        """Put a queue in order that is damaged. All whole records stay; those that cannot be had are given up for good.

        Their seqs are not given away again, and readers meet them as what retention deleted. What is known from
        elsewhere is made anew: queue.meta from any segment's header, headers, seals, the index. What is set aside is
        kept in quarantine/. The whole log is read first; ``progress(file, seq)`` is called now and then.

        :param dry_run: change nothing, only tell: takes no lock, and read permission suffices.
        :param approve: called with all that was found, before anything is changed; if it returns False, nothing is.

        Raises WriterAlreadyActive, QueueNotFound, Interrupted (`approve` said no), Corrupt (nothing is left to make
        queue.meta from, or segments of several queues are mixed), StorageError, AccessDenied, NoSpace.

        >>> writer.close(); reader.close()
        >>> Path("q", "queue.meta").write_bytes(bytes(4096))
        4096
        >>> for found in Queue.repair("q", dry_run=True).found:
        ...     print(found.file, found.action)
        queue.meta anew
        >>> report = Queue.repair("q")
        >>> Queue.verify("q").ok
        True
        """
        Walk.must_be_heard()
        walk = Walk(progress, approve)
        where = path_bytes(path)
        recovery = new_struct("chron_recovery")
        flags = lib.CHRON_DRY_RUN if dry_run else 0
        walk.run(lambda report, context: lib.chron_queue_repair(where, flags, report, context, recovery))
        return RepairReport(dry_run=dry_run, found=walk.problems, recovery=fields_of(Recovery, recovery))

    @staticmethod
    def quarantine(path: Path) -> list[QuarantineFile]:
        """What recovery and repairs have set aside, oldest first. Read permission suffices.

        >>> Queue.quarantine("q")
        []
        """
        where = path_bytes(path)

        def fill(array: Any, capacity: int) -> int:
            return int(lib.chron_queue_quarantine(where, array, capacity))

        return all_of(quarantine_file, "chron_quarantine_file", fill)

    @staticmethod
    def read_quarantine(path: Path, name: str, each: Callable[[Message], object]) -> int:
        """Call `each` with every whole record in a file of quarantine/, by seq; return how many there were.

        They were cut off, or taken away, for a reason: the log may have other records of these seqs.

        Raises QueueNotFound (no such file), InvalidArgument (`name` is none of a file with records), Corrupt,
        StorageError, AccessDenied, NotSupported (in a subinterpreter), and what `each` raises.

        >>> for file in Queue.quarantine("q"):
        ...     if file.kind != "file":
        ...         Queue.read_quarantine("q", file.name, print)
        """
        return Records(each).run(path_bytes(path), path_bytes(name))
