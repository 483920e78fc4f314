# SPDX-License-Identifier: MIT
"""`Cache`: archived segments as directories that the library reads as queues, filled in frame by frame.

Each segment becomes a queue of its own with one segment file, as large as the segment was and empty at first. What is
fetched is written to its place in there; the index entries of its blocks are stored after it, and its seal and END
never, so that to the reader it is an ordinary log that ends somewhere. Who reads keeps to what `span` says is there.

The directory is private to its cache and goes with it. That of a process that was killed is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from chronicle_ffi import Queue, QueueReader
from chronicle_ffi.archive import _object
from chronicle_ffi.archive._errors import ArchiveDamaged
from chronicle_ffi.archive._manifest import Entry, Manifest
from chronicle_ffi.archive._object import BLOCK, Frame, Malformed
from chronicle_ffi.archive._pack import frames_in

PREFIX: Final = f"chronicle-archive-{os.getuid()}-"
META_BYTES: Final = 4096
INDEX_AT: Final = 4096
SEAL: Final = slice(128, 216)
END_BYTES: Final = 32


def make_queue(where: Path, header: str, entry: Entry | None) -> None:
    """A directory that readers take for a queue, and writers refuse: its queue.meta has no slot that is valid."""
    where.mkdir(mode=0o700)
    meta = bytes.fromhex(header)
    (where / "queue.meta").write_bytes(meta + bytes(META_BYTES - len(meta)))
    if entry is not None and entry.gaps is not None:
        (where / "gaps").write_bytes(bytes.fromhex(entry.gaps))


def segment_name(base_seq: int) -> str:
    return f"{base_seq:020}.seg"


class Piece:
    """One segment of the archive, as much of it as was fetched. For several threads."""

    def __init__(self, manifest: Manifest, entry: Entry, where: Path) -> None:
        self.entry = entry
        self.where = where
        self.bytes = 0  # that were written
        self._store = manifest.store
        self._lock = Lock()
        index = self._store.range(entry.object, entry.index_at, entry.index_at + entry.index_bytes)
        try:
            self.frames = _object.read_index(index, entry.segment_size, entry.base_seq)
        except Malformed as why:
            raise self._damaged(why) from None
        self._seqs = [frame.first_seq for frame in self.frames]
        self._there = bytearray(len(self.frames))
        make_queue(where, manifest.about().header, entry)
        self._file = os.open(
            where / segment_name(entry.base_seq), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        os.ftruncate(self._file, entry.segment_size)
        self._head = b""
        self._fetch(0, 1)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        shutil.rmtree(self.where, ignore_errors=True)

    def open_reader(self) -> QueueReader:
        return Queue.open_subscriber(self.where, start="earliest")

    @property
    def frame_bytes(self) -> int:
        return self.frames[1].end - self.frames[1].begin

    def find_time(self, timestamp_ns: int) -> int | None:
        """The first seq whose timestamp is not below. Raises ArchiveDamaged, ArchiveError."""
        with self.open_reader() as reader:
            for i, frame in enumerate(self.frames):
                at, behind = frame.first_seq, self._seq_at(i + 1)
                if frame.max_ts < timestamp_ns or self.entry.gaps is not None:
                    continue
                while at < behind:
                    limit = self.span(at, 1)
                    reader.seek(at)
                    batch = reader.read_batch(min(limit, behind) - at)
                    for seq, time_ns in zip(batch.seq, batch.timestamp_ns, strict=True):
                        if time_ns >= timestamp_ns:
                            return seq
                    at += len(batch)
            if self.entry.gaps is None:
                return None
            self._fetch(0, len(self.frames))
            reader.seek_time(timestamp_ns)
            return reader.position

    # ------------------------------------------------------------------------------------- what is there

    def _seq_at(self, frame: int) -> int:
        """The first seq whose record begins in this frame or behind it."""
        return self._seqs[frame] if frame < len(self._seqs) else self.entry.next_seq

    def _is_entered(self, frame: int) -> bool:
        """Does a record that begins in front of this frame reach into it? Or do records end before it."""
        return self.frames[frame].first_offset != self.frames[frame].begin

    def span(self, seq: int, frames: int) -> int:
        """Have `seq` and what follows, in so many frames, and return up to which seq (not included) it can be read now.

        Raises ArchiveDamaged, ArchiveError, OSError.
        """
        if self.entry.gaps is not None:  # seqs do not tell how many records there are
            self._fetch(0, len(self.frames))
            return self.entry.next_seq
        begin = bisect_right(self._seqs, seq) - 1  # of several with the same first seq, the last one: it begins in that
        end = min(begin + frames, len(self.frames))
        whole = self._seq_at(end)
        if end == len(self.frames) or not self._is_entered(end) or seq < whole - 1:
            self._fetch(begin, end)
            return whole if end == len(self.frames) or not self._is_entered(end) else whole - 1
        later = (one.first_offset for one in self.frames[end:] if one.first_offset is not None)
        reach = next(later, self.entry.end_offset)
        while self.frames[end - 1].end < reach:
            end += 1
        self._fetch(begin, end)
        return whole

    # ------------------------------------------------------------------------------------- fetching

    def _fetch(self, begin: int, end: int) -> None:
        """Frames [begin, end), with one request for each run of those that are not there."""
        with self._lock:
            at = begin
            while at < end:
                if self._there[at]:
                    at += 1
                    continue
                run = at
                while run < end and not self._there[run]:
                    run += 1
                self._fetch_run(at, run)
                at = run

    def _fetch_run(self, begin: int, end: int) -> None:
        frames = self.frames[begin:end]
        start, stop = frames[0].at, frames[-1].at + frames[-1].stored
        data = self._store.range(self.entry.object, start, stop)
        if data is None:
            raise self._damaged("it is missing, or cut off")
        for i, frame in enumerate(frames, begin):
            try:
                found = _object.unpack(frame, data[frame.at - start : frame.at - start + frame.stored])
            except Malformed as why:
                raise self._damaged(why, i) from None
            self._place(frame, found)
            self._there[i] = 1

    def _place(self, frame: Frame, data: bytes) -> None:
        content = bytearray(data)
        end = self.entry.end_offset
        if frame.begin == 0:
            self._head = data
            content[SEAL] = bytes(SEAL.stop - SEAL.start)
            content[INDEX_AT:] = bytes(len(content) - INDEX_AT)
        for at in range(
            max(end, frame.begin), min(end + END_BYTES, frame.end)
        ):  # END: it would lead to what is not there
            content[at - frame.begin] = 0
        _write(self._file, content, frame.begin)
        self.bytes += len(content)
        if frame.begin:
            data_offset = len(self._head)
            first = (frame.begin - data_offset) // BLOCK
            count = -(-len(content) // BLOCK)
            _write(self._file, self._index(first, count), INDEX_AT + 4 * first)

    def _index(self, first: int, count: int) -> bytes:
        entries = struct.unpack_from(f"<{count}I", self._head, INDEX_AT + 4 * first)
        return struct.pack(f"<{count}I", *(0 if at * 32 == self.entry.end_offset else at for at in entries))

    def _damaged(self, why: object, frame: int | None = None) -> ArchiveDamaged:
        first, behind = self.entry.base_seq, self.entry.next_seq
        if frame:  # without the first one nothing can be read
            first = max(first, self._seq_at(frame) - self._is_entered(frame))
            behind = self._seq_at(frame + 1)
        return ArchiveDamaged(
            f"{self.entry.object} is damaged: {why}: records {first} to {behind - 1} are in there",
            file=self.entry.object,
            seq=first,
            next_seq=behind,
        )


def _write(file: int, data: bytes | bytearray, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, at)
        view = view[done:]
        at += done


class Cache:
    """Pieces, in a directory of their own, those that were used last. For several threads."""

    def __init__(self, manifest: Manifest, limit: int = 256 << 20, place: str | os.PathLike[str] | None = None) -> None:
        self._manifest = manifest
        self._limit = limit
        self._pieces: OrderedDict[int, Piece] = OrderedDict()
        self._mutex = Lock()
        self._count = 0
        base = Path(tempfile.gettempdir() if place is None else place)
        base.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(base)
        self.where = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._mark = _lock(self.where)
        self._closed = False

    def piece(self, entry: Entry) -> Piece:
        """That of an entry. Others go, if all of them take more than the limit. Raises ArchiveDamaged, ArchiveError."""
        with self._mutex:
            found = self._pieces.get(entry.base_seq)
            if found is None:
                self._count += 1
                where = self.where / f"{entry.base_seq:020}-{self._count}"
                try:
                    found = Piece(self._manifest, entry, where)
                except BaseException:
                    shutil.rmtree(where, ignore_errors=True)
                    raise
                self._pieces[entry.base_seq] = found
            self._pieces.move_to_end(entry.base_seq)
            return found

    def trim(self, current: int) -> None:
        """Back to the limit: what was used longest ago goes first, the current one last. Who reads it goes on: it is
        mapped."""
        with self._mutex:
            total = sum(piece.bytes for piece in self._pieces.values())
            for base in [base for base in self._pieces if base != current] + [current]:
                if total <= self._limit:
                    return
                gone = self._pieces.pop(base, None)
                if gone is not None:
                    total -= gone.bytes
                    gone.close()

    @property
    def bytes(self) -> int:
        with self._mutex:
            return sum(piece.bytes for piece in self._pieces.values())

    def count(self, entry: Entry) -> int:
        """Read every record of a segment, with its CRC, and return how many there are. Raises ArchiveDamaged."""
        piece = self.piece(entry)
        piece.span(entry.base_seq, len(piece.frames))
        count = 0
        try:
            with Queue.open_subscriber(piece.where, start="earliest", on_gap="oldest") as reader:
                while batch := reader.read_batch():
                    count += len(batch)
        except Exception as damage:
            raise ArchiveDamaged(
                f"{entry.object} is damaged: {damage}", file=entry.object, seq=entry.base_seq, next_seq=entry.next_seq
            ) from damage
        finally:
            with self._mutex:
                self._pieces.pop(entry.base_seq, piece).close()
        if count != entry.records:
            raise ArchiveDamaged(
                f"{entry.object} holds {count} records instead of {entry.records}",
                file=entry.object,
                seq=entry.base_seq,
                next_seq=entry.next_seq,
            )
        return count

    def close(self) -> None:
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            for piece in self._pieces.values():
                piece.close()
            self._pieces.clear()
        shutil.rmtree(self.where, ignore_errors=True)
        os.close(self._mark)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()


def _lock(where: Path) -> int:
    """Held as long as the process lives and the cache is used; inherited by no program that it starts."""
    number = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return number


def _remove_abandoned(base: Path) -> None:
    """Directories of caches whose processes were killed."""
    for where in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            number = _lock(where)
            try:
                shutil.rmtree(where, ignore_errors=True)
            finally:
                os.close(number)


def restore(manifest: Manifest, path: Path, progress: Callable[[int, int, int], object] | None) -> int:
    """See `Archive.restore`. Under another name until it is complete."""
    if path.exists():
        raise FileExistsError(f"{path} is there already: restore to another place")
    entries = manifest.all()
    damaged = [entry for entry in entries if isinstance(entry, ArchiveDamaged)]
    if damaged:
        raise damaged[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    where = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        where.rmdir()
        make_queue(where, manifest.about().header, None)
        gaps = [entry.gaps for entry in entries if isinstance(entry, Entry) and entry.gaps]
        if gaps:
            (where / "gaps").write_bytes(bytes.fromhex(gaps[-1]))
        done = 0
        for i, entry in enumerate(entries):
            assert isinstance(entry, Entry)
            with (where / segment_name(entry.base_seq)).open("xb") as file:
                for _, data in frames_in(manifest.store, entry):
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            done += entry.segment_size
            if progress:
                progress(i + 1, len(entries), done)
        where.rename(path)
    except BaseException:
        shutil.rmtree(where, ignore_errors=True)
        raise
    return len(entries)
