# SPDX-License-Identifier: MIT
"""`Place`: where an `ArchivedReader` stands, and who reads on there.

At every moment one reader of the library is in use: that of the queue itself, or one over an archived segment, as far
as it was fetched. What the queue has is read there; what it has not, from the archive. So the seam may move while one
reads.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, fields
from typing import Final

from chronicle_ffi import ClosedHandle, ForkedHandle, Queue, QueueReader, ReaderStats, SegmentGone
from chronicle_ffi.archive._cache import Cache, Piece
from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveError
from chronicle_ffi.archive._manifest import Entry, Manifest

RUN_MAX: Final = 64  # frames
RUN_MAX_BYTES: Final = 8 << 20  # that are fetched at once
SKIPPED, GAPS = (list(ReaderStats.__dataclass_fields__).index(name) for name in ("skipped", "gaps"))


class Place:
    """See above. Belongs to one thread; another one, of its own, fetches ahead."""

    def __init__(
        self,
        manifest: Manifest,
        path: str | os.PathLike[str] | None,
        local: QueueReader | None,
        name: str | None,
        on_gap: str,
        cache: Cache,
    ) -> None:
        self._manifest = manifest
        self._path = path
        self._local = local
        self._name = name
        self._on_gap = on_gap
        self._cache = cache
        self._pool = ThreadPoolExecutor(1, "chronicle-fetch")  # starts no thread before it is used
        self._ahead: Future[None] | None = None
        self._in_queue = False  # whether it is the queue's own reader that stands
        self._inner: QueueReader | None = None  # else: one over the piece
        self._piece: Piece | None = None
        self._limit = 0  # up to where that may read
        self._run = 1  # frames to fetch at once
        self._at = 0  # where it stands, if no reader does
        self._closed = False
        self._pid = os.getpid()
        self._past = [0] * len(fields(ReaderStats))  # of inner readers that are closed, and of gaps

    # -------------------------------------------------------------------------------------- where it stands

    def _move(self, at: int) -> None:
        """Stand at `at`, and find out who has it when it is wanted."""
        self._at = at
        self._in_queue = False
        self._limit = 0

    def _ready(self) -> QueueReader | None:
        """Who reads on: the queue's own reader, or one that may read up to the limit. None: the end of an archive
        alone."""
        if self._closed:
            raise ClosedHandle("this reader is closed")
        if self._pid != os.getpid():
            raise ForkedHandle("this reader was opened before a fork, by the parent process: open a new one")
        if self._in_queue:
            return self._local
        if self._limit:
            assert self._inner is not None
            at = self._inner.position
            if at < self._limit:
                return self._inner
            self._move(at)
            self._run = min(self._run * 4, RUN_MAX)
        while True:
            found = self._find(self._at)
            if found is None or isinstance(found, QueueReader):
                return found
            self._pass_gap(found)
            if self._in_queue:
                return self._local

    def _find(self, at: int) -> QueueReader | SegmentGone | None:
        """Who has record `at`; or, if nobody has, what is to be said about it."""
        piece = self._piece
        gone: SegmentGone | None = None
        if self._local is not None and not (piece is not None and piece.entry.base_seq < at < piece.entry.next_seq):
            try:
                self._local.seek(at)
                self._in_queue = True
                return self._local
            except SegmentGone as error:
                gone = error
        entry = self._manifest.covering(at)
        if entry is None:
            self._manifest.refresh()
            entry = self._manifest.covering(at)
        if entry is not None:
            return self._enter(entry, at)
        behind = [
            seq for seq in (self._manifest.behind(at), gone.oldest if gone else None) if seq is not None and seq > at
        ]
        if not behind:
            return None
        text = f"record {at} is neither in the queue nor in the archive; the next one there is, is {min(behind)}"
        return SegmentGone(f"{text}: seek there, or use on_gap", seq=at, oldest=min(behind))

    def _pass_gap(self, gone: SegmentGone) -> None:
        """As `on_gap` says."""
        at = self._at
        if self._on_gap == "error" or gone.oldest is None:
            raise gone
        if self._on_gap == "latest":
            self._go_to_end()
        else:
            self._move(gone.oldest)
        self._skip(self._where() - at)

    def _skip(self, records: int) -> None:
        if records:
            self._past[SKIPPED] += records
            self._past[GAPS] += 1

    def _meet_gap(self, at: int, gone: SegmentGone) -> None:
        """A reader of the library says that record `at` is gone: the other side may have it."""
        was_local = self._in_queue
        self._move(at)
        if was_local:
            found = self._find_archived(at)
            if found is not None:
                self._enter(found, at)
                return
        self._pass_gap(gone)

    def _find_archived(self, at: int) -> Entry | None:
        if self._manifest.covering(at) is None:
            self._manifest.refresh()
        return self._manifest.covering(at)

    def _enter(self, entry: Entry, at: int) -> QueueReader:
        """Have record `at` of an archived segment, and what follows it, as far as it is fetched at once."""
        if self._ahead is not None and self._ahead.done():
            self._ahead = None
        piece = self._cache.piece(entry)
        if piece is not self._piece:
            self._leave_piece()
            self._inner = piece.open_reader()
            self._piece = piece
        assert self._inner is not None
        run = max(1, min(self._run, RUN_MAX_BYTES // piece.frame_bytes))
        try:
            limit = piece.span(at, run)
        except ArchiveDamaged as damage:
            if damage.seq is None or damage.seq <= at:
                raise
            limit = piece.span(at, 1)
        if self._inner.position != at:
            self._inner.seek(at)
        self._limit = limit
        self._cache.trim(entry.base_seq)
        if self._run > 1 and self._ahead is None:
            self._ahead = self._pool.submit(self._fetch_ahead, piece, limit, run)
        return self._inner

    def _fetch_ahead(self, piece: Piece, at: int, run: int) -> None:
        """What is likely to be wanted next. What goes wrong will be met, and told, when it is."""
        with suppress(ArchiveError, OSError):
            if at < piece.entry.next_seq:
                piece.span(at, run)
            elif (entry := self._manifest.covering(at)) is not None and not self._local_has(at):
                self._cache.piece(entry).span(at, run)

    def _local_has(self, at: int) -> bool:
        return self._path is not None and Queue.info(self._path).oldest_seq <= at

    def _leave_piece(self) -> None:
        if self._inner is not None:
            for i, value in enumerate(astuple(self._inner.stats())):
                self._past[i] += value
            self._inner.close()
        self._inner = self._piece = None
        self._limit = 0

    def _where(self) -> int:
        if self._in_queue and self._local is not None:
            return self._local.position
        return self._inner.position if self._limit and self._inner is not None else self._at

    def _go_to_end(self) -> None:
        if self._local is None:
            self._manifest.refresh()
            self._move(self._manifest.end())
        else:
            self._local.seek_latest()
            self._in_queue, self._limit = True, 0
