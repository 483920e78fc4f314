# SPDX-License-Identifier: MIT
"""What a contestant has to offer, and the work that it can take part in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Final

MEMORY: Final = "lost with the processes"
PROCESS: Final = "survives processes, not a power cut"
DISK: Final = "on disk"

POLL_SECONDS: Final = 0.0002  # of a reader that found nothing, where the peer cannot wake one
CREW: Final = 4  # processes of one run that do the same
GROUP: Final = 1000  # records that are put on disk together, where each group is acknowledged from there


@dataclass(frozen=True)
class Task:
    """One kind of work: how it is measured, and which methods of the contestant write and read."""

    name: str
    title: str
    kind: str  # append, read, pair, trip, share or writers
    write: str
    read: str
    durable: bool = False

    @property
    def arrays(self) -> bool:
        """Whether it takes numpy."""
        return self.write == "append_array" or self.read == "read_columns"

    @property
    def batches(self) -> bool:
        """Whether what is measured goes in batches."""
        if self.kind == "share":
            return False
        return self.read == "read_batch" if self.kind == "read" else self.write == "append_batch"


TASKS: Final = {
    task.name: task
    for task in (
        Task("append_one", "append, one by one", "append", "append_one", "read_batch"),
        Task("append_batch", "append, the batch call", "append", "append_batch", "read_batch"),
        Task("append_array", "append, rows of an array", "append", "append_array", "read_batch"),
        Task("read_one", "read, one by one", "read", "append_batch", "read_one"),
        Task("read_batch", "read, many at a time", "read", "append_batch", "read_batch"),
        Task("read_columns", "read, columns", "read", "append_batch", "read_columns"),
        Task("pair_one", "two processes, one by one", "pair", "append_one", "read_one"),
        Task("pair_batch", "two processes, batches", "pair", "append_batch", "read_batch"),
        Task("pair_array", "two processes, arrays and columns", "pair", "append_array", "read_columns"),
        Task("round_trip", "there and back between two processes", "trip", "append_one", "read_one"),
        Task("sync_one", "append, each record on disk", "append", "append_one", "read_batch", True),
        Task("sync_group", f"append, groups of {GROUP} on disk", "append", "append_batch", "read_batch", True),
        Task("sync_pair", f"two processes, groups of {GROUP}, on disk", "pair", "append_batch", "read_batch", True),
        Task("share", f"jobs shared by {CREW} processes, each taken and acknowledged", "share", "append_batch", "work"),
        Task("writers", f"{CREW} processes append to one queue, one by one", "writers", "append_one", "read_batch"),
    )
}

LOG_TASKS: Final = ("append_one", "append_batch", "read_one", "read_batch")
PAIR_TASKS: Final = ("pair_one", "pair_batch", "round_trip")
SYNC_TASKS: Final = ("sync_one", "sync_group", "sync_pair")


class Writer:
    """Appends. Each method returns when the records have what the contestant promises."""

    def append_one(self, payloads: Sequence[bytes]) -> None:
        """Each record with a call of its own."""
        raise NotImplementedError

    def append_batch(self, payloads: list[bytes]) -> None:
        """All records with the batch call."""
        self.append_one(payloads)

    def append_array(self, rows: Any) -> None:
        """Each row of an array is a record."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class PutWriter(Writer):
    """Appends with the `put` of a queue."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def append_one(self, payloads: Sequence[bytes]) -> None:
        put = self._queue.put
        for payload in payloads:
            put(payload)


class Reader:
    """Reads from the oldest record on. Waits for records that are not there yet: the harness bounds the run."""

    def read_one(self, count: int) -> list[bytes]:
        """The next `count` records, with a call for each."""
        raise NotImplementedError

    def read_batch(self, count: int) -> list[bytes]:
        """At least one and at most `count` records, with the batch call."""
        return self.read_one(count)

    def work(self) -> list[bytes]:
        """Take jobs that nobody has, one by one, and acknowledge each, until there are none; gives their payloads."""
        raise NotImplementedError

    def read_columns(self, count: int) -> Any:
        """At least one and at most `count` records as rows of an array, after a sum over one field of all of them."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class Contestant:
    """One peer with one set of settings. An instance lives for one run, in a process and a directory of its own.

    The directory is the current one; every path is relative to it, which keeps those of sockets short.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()  #: distributions whose versions are reported
    settings: ClassVar[str]  #: as the report gives them
    promise: ClassVar[str]
    durable_settings: ClassVar[str] = ""  #: how each record, or group, gets on disk before it is acknowledged
    tasks: ClassVar[tuple[str, ...]]
    batch: ClassVar[int] = 1000  #: records of one batch call; divides RING
    packed: ClassVar[bool] = False  #: a batch is one message that the user packs, and no batch call

    def __init__(self, size: int, task: Task) -> None:
        self.size = size
        self.task = task

    @classmethod
    def missing(cls) -> str | None:
        """What else than its packages is missing here; None if nothing is."""
        return None

    @classmethod
    def version(cls) -> str:
        """Of the packages; an ImportError if one is missing."""
        from importlib import metadata  # not where it costs every run time

        return ", ".join(f"{name} {metadata.version(name)}" for name in cls.packages)

    def start(self, channels: Sequence[str]) -> None:
        """Before anything else, and before this process forks: servers, shared memory."""

    def writer(self, channel: str) -> Writer:
        raise NotImplementedError

    def reader(self, channel: str) -> Reader:
        """Opened when the writer is open, or has been closed."""
        raise NotImplementedError

    def checker(self, channel: str) -> Reader:
        """What an append is compared with, outside of the time: another reader, if `reader` would take for ever."""
        return self.reader(channel)

    def stop(self) -> None:
        """End what `start` started."""


def load(where: str) -> type[Contestant]:
    """The class at "module:Class"."""
    module, _, name = where.partition(":")
    found: type[Contestant] = getattr(import_module(module), name)
    return found


def find(where: str) -> type[Contestant] | str:
    """The class at "module:Class", or why it cannot take part here."""
    try:
        found = load(where)
        found.version()
    except (ImportError, OSError) as missing:
        return str(missing)
    return found.missing() or found
