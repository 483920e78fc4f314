# SPDX-License-Identifier: MIT
"""`Manifest`: what an archive says of itself: archive.json, and an entry for each segment. docs/FORMAT.md, section 17.

An entry is an object of its own that is made only if there is none of its name: so of several archivers one notes a
segment, and what was noted never changes. Each is a line of JSON and a line with the SHA-256 of that, so that half of
one is seen.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveError, ArchiveMismatch
from chronicle_ffi.archive._store import Store

ABOUT: Final = "archive.json"
ENTRIES: Final = "manifest"
OBJECTS: Final = "segments"
FORMAT: Final = 1
AT_ONCE: Final = 16  # entries that are fetched side by side

T = TypeVar("T", "About", "Entry")


@dataclass(frozen=True)
class About:
    """Which queue this is an archive of."""

    format: int
    queue: str  #: uuid
    segment_size: int  #: bytes
    header: str  #: the first 128 bytes of queue.meta, in hex


@dataclass(frozen=True)
class Entry:
    """One archived segment.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> for entry in report.archived:
    ...     print(entry.base_seq, entry.next_seq, entry.object)
    0 54 segments/00000000000000000000-....seg.zst
    """

    format: int  #: of this entry: 1
    queue: str  #: uuid of the queue
    base_seq: int  #: the first seq of the segment
    next_seq: int  #: behind its last seq
    records: int  #: how many there are: fewer than seqs if some are gone for good
    segment_size: int  #: bytes of the segment file
    end_offset: int  #: where its records end, in the file
    min_ts: int  #: the lowest timestamp of its records, ns since 1970
    max_ts: int  #: the highest
    object: str  #: the object's name in the archive
    object_bytes: int
    sha256: str  #: of the object, in hex
    index_at: int  #: where the index frame begins in the object
    index_bytes: int
    gaps: str | None  #: the queue's file of gaps, in hex, if one of them lies in the segment
    archived_ns: int  #: when, by the archiver's clock: for people


def pack(value: About | Entry) -> bytes:
    line = json.dumps(asdict(value), separators=(",", ":")).encode()
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def unpack(kind: type[T], name: str, data: bytes) -> T:
    """What `pack` made; raises ArchiveDamaged, and ArchiveError for what a later version has written."""
    line, _, digest = data.partition(b"\n")
    if digest != hashlib.sha256(line).hexdigest().encode() + b"\n":
        raise ArchiveDamaged(f"{name} is damaged, or was cut off as it was written", file=name)
    try:
        found: dict[str, Any] = json.loads(line)
        made = kind(**{one.name: found[one.name] for one in fields(kind)}) if found["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"{name} is not what it should be: {error!r}", file=name) from None
    if made is None:
        raise ArchiveError(
            f"{name} has format {found['format']}, this program knows {FORMAT}: use a newer one", file=name
        )
    return made


def entry_name(base_seq: int) -> str:
    return f"{ENTRIES}/{base_seq:020}.json"


def object_name(base_seq: int, sha256: str) -> str:
    return f"{OBJECTS}/{base_seq:020}-{sha256[:16]}.seg.zst"


class Manifest:
    """The entries of an archive, fetched when they are asked for, and kept: they never change."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._bases: list[int] = []
        self._entries: dict[int, Entry] = {}
        self._about: About | None = None

    # ------------------------------------------------------------------------------------- the archive

    def about(self) -> About:
        if self._about is None:
            data = self.store.get(ABOUT)
            if data is None:
                raise ArchiveError(f"there is no archive at {self.store.url}: it has no {ABOUT}", file=ABOUT)
            self._about = unpack(About, ABOUT, data)
        return self._about

    def found(self, wanted: About) -> None:
        """Make sure that this is the archive of that queue; it becomes it, if it is none yet."""
        if self._about is None and self.store.get(ABOUT) is None:
            self.store.create(ABOUT, pack(wanted))  # or somebody else was faster
        known = self.about()
        if (known.queue, known.segment_size) != (wanted.queue, wanted.segment_size):
            raise ArchiveMismatch(
                f"{self.store.url} is the archive of the queue {known.queue} with segments of"
                f" {known.segment_size} bytes, not of {wanted.queue}: give each queue a place of its own",
                file=ABOUT,
            )

    # ------------------------------------------------------------------------------------- its entries

    def refresh(self) -> None:
        """Look for entries that came since. Those in front of others are found by `reload`."""
        self._take(self.store.names(ENTRIES, entry_name(self._bases[-1]) if self._bases else None))

    def reload(self) -> None:
        """Look at all names again."""
        self._take(self.store.names(ENTRIES))

    def _take(self, names: Iterable[str]) -> None:
        known = set(self._bases)
        for name in names:
            digits = name[len(ENTRIES) + 1 : -len(".json")]
            if name.endswith(".json") and len(digits) == 20 and digits.isdecimal() and int(digits) not in known:
                bisect.insort(self._bases, int(digits))

    @property
    def bases(self) -> list[int]:
        return self._bases

    def entry(self, base_seq: int) -> Entry:
        """Raises ArchiveDamaged, for what is said to be there and is not, or is not right."""
        if base_seq not in self._entries:
            name = entry_name(base_seq)
            data = self.store.get(name)
            try:
                if data is None:
                    raise ArchiveDamaged(f"{name} is missing", file=name)
                found = unpack(Entry, name, data)
                if (
                    found.base_seq != base_seq
                    or (found.queue, found.segment_size) != (self.about().queue, self.about().segment_size)
                    or found.next_seq <= base_seq
                ):
                    raise ArchiveDamaged(f"{name} is the entry of another segment, or queue", file=name)
            except ArchiveDamaged as damage:
                raise self._placed(damage, base_seq) from None
            self._entries[base_seq] = found
        return self._entries[base_seq]

    def _placed(self, damage: ArchiveDamaged, base_seq: int) -> ArchiveDamaged:
        """The same, with the seqs that cannot be had: up to those of the next entry."""
        at = bisect.bisect_right(self._bases, base_seq)
        behind = self._bases[at] if at < len(self._bases) else None
        return ArchiveDamaged(
            f"{damage}: records {base_seq} to {'the next segment' if behind is None else behind - 1} cannot be found",
            file=damage.file,
            seq=base_seq,
            next_seq=behind,
        )

    def all(self) -> list[Entry | ArchiveDamaged]:
        """Every entry, or what is wrong with it, in order; many are fetched side by side."""

        def one(base_seq: int) -> Entry | ArchiveDamaged:
            try:
                return self.entry(base_seq)
            except ArchiveDamaged as damage:
                return damage

        if all(base in self._entries for base in self._bases):
            return [self._entries[base] for base in self._bases]
        with ThreadPoolExecutor(AT_ONCE, "chronicle-manifest") as pool:
            return list(pool.map(one, self._bases))

    def covering(self, seq: int) -> Entry | None:
        """The entry of the segment that holds `seq`; None: the archive has none."""
        at = bisect.bisect_right(self._bases, seq)
        if not at:
            return None
        found = self.entry(self._bases[at - 1])
        return found if seq < found.next_seq else None

    def behind(self, seq: int) -> int | None:
        """The first base_seq above `seq`."""
        at = bisect.bisect_right(self._bases, seq)
        return self._bases[at] if at < len(self._bases) else None

    def before(self, seq: int) -> Entry | None:
        """The entry of the last segment that begins before `seq`."""
        at = bisect.bisect_left(self._bases, seq)
        return self.entry(self._bases[at - 1]) if at else None

    def oldest(self) -> int | None:
        return self._bases[0] if self._bases else None

    def end(self) -> int:
        """Behind the last record that is known of; 0: there is none."""
        if not self._bases:
            return 0
        try:
            return self.entry(self._bases[-1]).next_seq
        except ArchiveDamaged:
            return self._bases[-1]
