# SPDX-License-Identifier: MIT
"""`open_subscriber`: a queue and its archive, as one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chronicle_ffi import InvalidArgument, Queue, QueueReader, ReadOnly, SegmentGone
from chronicle_ffi.archive._archiver import about
from chronicle_ffi.archive._cache import Cache
from chronicle_ffi.archive._manifest import Manifest
from chronicle_ffi.archive._reader import ArchivedReader
from chronicle_ffi.archive._store import Store

CACHE_BYTES: Final = 256 << 20
ON_GAP: Final = ("error", "oldest", "latest")


def open_subscriber(
    path: str | os.PathLike[str] | None,
    archive: Any,
    name: str | None = None,
    *,
    start: Any = "resume",
    on_gap: str = "error",
    options: Mapping[str, str] | None = None,
    cache_bytes: int = CACHE_BYTES,
    cache_dir: str | os.PathLike[str] | None = None,
    **others: Any,
) -> ArchivedReader:
    """Read a queue together with its archive; ``Queue.open_subscriber(path, archive=url)`` with more to choose.

    :param path: the queue; None: only the archive, on a machine that has nothing else.
    :param archive: as for `Archive`.
    :param options: of the store, as for `Archive`.
    :param cache_bytes: disk for what was fetched: what was used longest ago goes.
    :param cache_dir: where; by default where temporary files are. Nothing of it stays behind.
    :param others: as for `Queue.open_subscriber`.

    >>> first, count = writer.append_many([bytes(1000)] * 100)
    >>> writer.sync()
    >>> report = Archive("q", "archive").run()
    >>> with open_subscriber(None, "archive") as anywhere:
    ...     len(list(anywhere))
    54
    """
    if on_gap not in ON_GAP:
        raise InvalidArgument(f"on_gap is {on_gap!r}; it can be {', '.join(map(repr, ON_GAP))}")
    if path is None and name is not None:
        raise ReadOnly("an archive alone has no place for a position: open it without a name, or with its queue")
    manifest = Manifest(Store(archive, options))
    manifest.about()
    manifest.reload()
    with ExitStack() as opened:
        local, resume = None, None
        if path is not None:
            _same(manifest, path)
            local, resume = _open_local(path, name, start, others)
            opened.callback(local.close)
        cache = Cache(manifest, cache_bytes, cache_dir)
        reader = ArchivedReader(manifest, path, local, name, on_gap, cache)
        opened.callback(reader.close)
        _start(reader, start if resume is None else resume)
        opened.pop_all()
    return reader


def _start(reader: ArchivedReader, start: Any) -> None:
    if isinstance(start, str):
        if start not in ("resume", "earliest", "latest"):
            raise InvalidArgument(f"start is {start!r}; it can be 'resume', 'earliest', 'latest', a seq or a time")
        (reader.seek_latest if start == "latest" else reader.seek_earliest)()
    elif isinstance(start, datetime) or hasattr(start, "astype"):
        reader.seek_time(start)
    else:
        reader.seek(start)


def _same(manifest: Manifest, path: Any) -> None:
    info = Queue.info(path)
    if not info.meta_lost:
        manifest.found(about(Path(path), info))


def _open_local(path: Any, name: str | None, start: Any, others: dict[str, Any]) -> tuple[QueueReader, int | None]:
    """The reader of the queue itself; and where to go on, if that is a position that was committed."""
    if name is None or start != "resume":
        return Queue.open_subscriber(path, name, start="latest", **others), None
    try:
        local = Queue.open_subscriber(path, name, **others)
    except SegmentGone:  # the position lies where only the archive is
        local = Queue.open_subscriber(path, name, start="latest", **others)
    return local, local.committed
