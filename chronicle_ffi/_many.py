# SPDX-License-Identifier: MIT
"""What `Queue` does with many queues. Replay and discovery stand on the public API, and are imported when needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from chronicle_ffi import _arguments
from chronicle_ffi._arguments import Duration, Path, Time, seconds
from chronicle_ffi._binding import ffi, lib, new_struct, path_bytes
from chronicle_ffi._merge import Merge
from chronicle_ffi.errors import InvalidArgument

if TYPE_CHECKING:
    from chronicle_ffi.merge import Discovery, Replay

Span: TypeAlias = "Duration | str"

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_ORDER = {"timestamp": lib.CHRON_MERGE_TIMESTAMP, "append": lib.CHRON_MERGE_APPEND}
_ON_GAP = {"error": lib.CHRON_GAP_ERROR, "oldest": lib.CHRON_GAP_OLDEST, "latest": lib.CHRON_GAP_LATEST}
_NO_LIMIT = (1 << 64) - 1


class ManyQueues:
    """Part of `Queue`."""

    @staticmethod
    def merge(
        paths: Iterable[Path],
        name: str | None = None,
        *,
        order: Literal["timestamp", "append"] = "timestamp",
        live: bool = False,
        start: Literal["resume", "earliest", "latest"] | Time = "resume",
        stop: Time | None = None,
        lateness: Span | None = "5ms",
        idle: Span = "100ms",
        home: Path | None = None,
        missing: Literal["error", "allow"] = "error",
        on_gap: Literal["error", "oldest", "latest"] = "error",
        durable_only: bool = False,
    ) -> Merge:
        """Read many queues as one, in the order of their timestamps; see `Merge`.

        Each record has a place: its timestamp, or, where its queue was further already, the newest timestamp in front
        of it, less the lateness. Records come by (place, index of the source, seq), so the order depends on nothing but
        what the queues hold. A closed merge ends where the queues ended when it was opened; when one with a name is
        opened again before it has come to its end, it goes on to that same end.

        :param name: the merge has one stored position for all sources (`Merge.commit`), and in each queue a registered
            reader of that name, for which retention waits. None: nothing is stored.
        :param order: "timestamp", or "append": each queue in its own order, and of their next records the oldest.
        :param live: follow the queues. One that has nothing new holds the others back, but not for longer than `idle`.
        :param start: for sources without a stored position, and, but for "resume", for all: where they begin.
        :param stop: a time: each queue is read up to its first record that is not older.
        :param lateness: by how much timestamps of a queue may go back, and still be sorted in: seconds, a timedelta, or
            text as "5ms". None: by any time; a closed merge then sorts everything, in memory. What goes back
            further is late: it comes all the same, marked, and `Merge.late` counts it. For order "timestamp".
        :param idle: live: how long a silent queue holds back the others.
        :param home: the directory of the stored position, NAME.merge. None: readers/ of the first queue.
        :param missing: what to do about a queue that the stored position knows and `paths` does not name: "error", or
            go on without it ("allow"); it may come back later.
        :param on_gap: as of `open_subscriber`, for each queue.
        :param durable_only: see only records that survive a loss of power.

        Raises as `Merge.add`.

        >>> first, count = writer.append_many([b"one", b"two"])
        >>> with Queue.merge(["q"]) as merge:
        ...     [(message.source, message.payload) for message in merge]
        [(0, b'one'), (0, b'two')]
        """
        options = new_struct("chron_merge_options")
        options.flags = (lib.CHRON_MERGE_LIVE if live else 0) | (lib.CHRON_DURABLE_ONLY if durable_only else 0)
        if _choice("missing", {"error": 0, "allow": 1}, missing):
            options.flags |= lib.CHRON_MERGE_MISSING
        keep = []
        if name is not None:
            keep.append(ffi.new("char[]", _arguments.name(name)))
            options.name = keep[-1]
        if home is not None:
            keep.append(ffi.new("char[]", path_bytes(home)))
            options.home = keep[-1]
        options.order = _choice("order", _ORDER, order)
        options.on_gap = _choice("on_gap", _ON_GAP, on_gap)
        if order == "timestamp":
            options.lateness_ns = _NO_LIMIT if lateness is None else nanoseconds("lateness", lateness)
        options.idle_ns = nanoseconds("idle", idle)
        merge = Merge(options, keep, name, bool(live))
        try:
            for path in paths:
                merge.add(path, start=start, stop=stop)
        except BaseException:
            merge.close()
            raise
        return merge

    @staticmethod
    def discover(
        root: Path, pattern: str = "*", *, watch: bool = True, interval: Span = "1s", depth: int = 16
    ) -> Discovery:
        """The queues below a directory, and what becomes of them; see `chronicle_ffi.merge.Discovery`.

        :param pattern: of names, as of files in a shell: it has to match the queue's directory, or, if it has a slash,
            its path below `root`.
        :param watch: go on, and tell of queues that appear, get a writer, lose it, and go.
        :param interval: how often to look whether writers came or went; and, where nothing tells of new directories
            (there is no inotify), for those as well.
        :param depth: how many directories below `root` to look into.

        >>> [found.path for found in Queue.discover(".", watch=False)]
        ['q']
        """
        found: Discovery = import_module("chronicle_ffi.merge").Discovery(
            _arguments.path(root), pattern, watch=watch, interval=nanoseconds("interval", interval) / 1e9, depth=depth
        )
        return found

    @staticmethod
    def replay(
        source: Path | Merge,
        *,
        speed: float = 1.0,
        start: Literal["earliest"] | Time = "earliest",
        stop: Time | None = None,
        gap: Span | None = None,
    ) -> Replay:
        """Records at the pace at which they came; see `chronicle_ffi.merge.Replay`.

        :param source: a queue, or a merge, which is closed at the end of the replay.
        :param speed: 2: twice as fast; inf: without waiting.
        :param start: of a queue: "earliest", a seq or a time.
        :param stop: of a queue: behind which seq, or in front of which time it ends. None: its end as it is now.
        :param gap: the longest pause between two records that is kept: longer ones are this long. None: all are.

        >>> first, count = writer.append_many([b"one", b"two"], timestamp_ns=[1_000_000_000, 1_010_000_000])
        >>> with Queue.replay("q", speed=10) as replay:
        ...     [message.payload for message in replay]
        [b'one', b'two']
        """
        found: Replay = import_module("chronicle_ffi.merge").Replay(
            source, speed=speed, start=start, stop=stop, gap=None if gap is None else nanoseconds("gap", gap)
        )
        return found


def nanoseconds(what: str, span: Span) -> int:
    """Seconds, a timedelta, or text as "5ms"."""
    if not isinstance(span, str):
        return int(seconds(what, span) * 1e9)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h)\s*", span)
    if not found:
        raise InvalidArgument(f'{what} is {span!r}: a number of seconds, a timedelta, or text as "5ms", "2s", "1m"')
    return round(float(found[1]) * _UNITS[found[2]] * 1e9)


def _choice(what: str, choices: dict[str, int], value: Any) -> int:
    if value not in choices:
        raise InvalidArgument(f"{what} is {value!r}; it can be {', '.join(map(repr, choices))}")
    return choices[value]
