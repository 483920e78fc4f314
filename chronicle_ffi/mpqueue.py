# SPDX-License-Identifier: MIT
"""`multiprocessing.Queue` and `JoinableQueue`, for those who change one import. Stands on the public API alone.

    from chronicle_ffi.mpqueue import JoinableQueue as Queue

What is the same: any number of processes and threads `get`, each item goes to one of them, in the order of `put`;
`Full`, `Empty`, time-outs, `task_done` and `join`; it is passed to children by fork, by spawn and by pickle.

What differs:

- **One process puts**: the first that does has the queue's writer until it closes the queue or ends; `put` in another
  raises WriterAlreadyActive. (Any number of its threads may. Where `Queue.open_publisher` takes `shared`, any process.)
- Items are in files. With a `path` they survive every process, and who opens that path goes on with them; without one
  they lie in a temporary directory, which goes with the process that made the queue. They take the disk, not memory;
  when that is full, `put` raises NoSpace.
- `put` pickles at once, in the caller: what cannot be pickled raises there, and an object that is changed afterwards is
  put as it was. There is no feeder thread: `join_thread` and `cancel_join_thread` do nothing, and nothing is lost when
  the process ends right after `put`.
- `qsize` works everywhere, and is exact. `empty` and `full` are too, for that moment.
- An item is larger than a segment (1 MiB, `segment_size`) never: PayloadTooLarge.
- After a loss of power, items may be gone or come again: what was on the disk decides. A damaged one raises Corrupt,
  once.
- A signal handler that calls a queue in the middle of another of its calls gets a RuntimeError, and nothing is harmed;
  there it waits for ever. (`put` without a `maxsize` may be called anywhere.)
- `maxsize` and `join` are looked at every 10 ms at most, not signalled.
- A process that is killed between `get` and `task_done` takes its item along, as there; nobody else is harmed, whatever
  it was at. (There a process killed inside `get` may leave a lock that everybody waits for.)
- Pickles run code: whoever may write to the directory may do so in your processes. It is made for its owner alone.
"""

from __future__ import annotations

import fcntl
import inspect
import os
import shutil
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.reduction import ForkingPickler
from queue import Empty, Full
from typing import Any, Final, TypeVar

from chronicle_ffi import (
    Corrupt,
    HistoryRewritten,
    InvalidArgument,
    QueueReader,
    QueueWriter,
    Retention,
    SeqOutOfRange,
    WriterAlreadyActive,
)
from chronicle_ffi import Queue as Log

__all__ = ["Empty", "Full", "JoinableQueue", "Queue"]

SHARED: Final[dict[str, Any]] = {"shared": True} if "shared" in inspect.signature(Log.open_publisher).parameters else {}
STATE: Final = struct.Struct("<8sQQ")  # a magic, how many were taken, how many of them are done
MAGIC: Final = b"CHRONMPQ"
RELEASE_EVERY: Final = 1024  # items: how often those that were taken are given free to be deleted
PAUSES_SECONDS: Final = (0.001, 0.01)
SLICE_SECONDS: Final = 0.1
T = TypeVar("T")


class Queue:
    """A queue of objects between processes; see above for how it differs from multiprocessing's.

    :param maxsize: `put` waits while there are so many; 0: no limit.
    :param path: where it lies, or is made; None: in a temporary directory, and gone with this process.
    """

    def __init__(
        self, maxsize: int = 0, *, path: str | os.PathLike[str] | None = None, segment_size: int = 1 << 20
    ) -> None:
        self._maxsize = maxsize
        self._segment_size = segment_size
        self._path = tempfile.mkdtemp(prefix="chronicle-") if path is None else os.path.abspath(os.fspath(path))
        if path is None:
            weakref.finalize(self, _remove, self._path, os.getpid())
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        self._begin()
        try:
            with suppress(WriterAlreadyActive):  # then it is there; and if not, whoever puts is another process
                Log.open_publisher(self._log, **self._options()).close()
            self._with_state(self._make_room_to_get)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """What belongs to this process."""
        self._log = os.path.join(self._path, "items")
        self._pid = os.getpid()
        self._closed = False
        self._putting = threading.RLock()
        self._getting = threading.RLock()
        self._stating = threading.RLock()
        self._in_state = False
        self._file = -1
        self._writer: QueueWriter | None = None
        self._reader: QueueReader | None = None
        _all.add(self)

    # ------------------------------------------------------------------------------------------- items

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put it at the end; Full if there are ``maxsize`` for `timeout` seconds, or now without ``block``."""
        self._check_open()
        data = ForkingPickler.dumps(obj)
        deadline = _deadline(block, timeout)
        pauses = _Pauses(deadline)
        while True:
            with self._putting:
                self._check_open()  # somebody may have closed it meanwhile
                writer = self._writer_here()
                if self._maxsize <= 0:
                    writer.append(data)
                    return
                if self._with_state(partial(self._put_if_there_is_room, writer, data)):
                    return
            if not pauses.sleep():
                raise Full

    def _put_if_there_is_room(self, writer: QueueWriter, data: Any, state: _State) -> bool:
        """With the lock, so that several who put do not put one too many."""
        if writer.next_seq - state.taken >= self._maxsize:
            return False
        writer.append(data)
        return True

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first; Empty if there was none for `timeout` seconds, or now without ``block``."""
        self._check_open()
        deadline = _deadline(block, timeout)
        try:
            if not self._getting.acquire(timeout=_up_to(deadline)):
                raise Empty
            while True:
                self._check_open()
                found = self._with_state(self._take)
                if found is not None:
                    return ForkingPickler.loads(found)
                left = SLICE_SECONDS if deadline is None else min(deadline - time.monotonic(), SLICE_SECONDS)
                if left <= 0:
                    raise Empty
                self._reader_here().wait(left)
        finally:
            with suppress(RuntimeError):  # it is not this thread's: a time-out, or Ctrl-C before
                self._getting.release()

    def _make_room_to_get(self, state: _State) -> None:
        """All files that `get` needs are there: on a full disk it goes on, too."""
        state.begin()
        if not any(reader.name == "taken" for reader in Log.readers(self._log)):
            with Log.open_subscriber(self._log, "taken", start="earliest") as taken:
                taken.commit()

    def _take(self, state: _State) -> bytes | None:
        reader = self._reader_here()
        while True:
            try:
                if reader.position != state.taken:
                    reader.seek(state.taken)
                message = reader.next()
                break
            except (SeqOutOfRange, HistoryRewritten) as undone:  # by a loss of power
                state.undone(undone.next_seq or 0)
                reader.seek(state.taken)
            except Corrupt:
                reader.skip_damaged()
                state.taken = reader.position  # told once: the next `get` goes on behind it
                state.store()
                raise
        if message is None:
            return None
        if message.seq % RELEASE_EVERY == 0:  # before it is taken: what fails here loses nothing
            with Log.open_subscriber(self._log, "taken", start=message.seq) as taken:
                taken.commit()
        state.taken = message.seq + 1  # not one more than before: a loss of power may have taken the state back
        state.store()
        return message.payload

    def put_nowait(self, obj: Any) -> None:
        """`put` without waiting."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """`get` without waiting."""
        return self.get(False)

    def qsize(self) -> int:
        """How many there are."""
        self._check_open()
        return self._with_state(lambda state: max(self._put_so_far() - state.taken, 0))

    def empty(self) -> bool:
        """Whether there is none."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether `put` would wait."""
        return 0 < self._maxsize <= self.qsize()

    def _put_so_far(self) -> int:
        return Log.info(self._log).next_seq

    # ------------------------------------------------------------------------------------------- ending

    def close(self) -> None:
        """This process puts and gets no more. Items stay, and others go on; its writer is free for another process."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        try:
            with self._putting:
                if self._writer is not None:
                    self._writer.close()
        finally:
            with self._getting:
                if self._reader is not None:
                    self._reader.close()
            with self._stating:
                file, self._file = self._file, -1
                if file >= 0:
                    os.close(file)

    def join_thread(self) -> None:
        """Nothing: there is no feeder thread."""

    def cancel_join_thread(self) -> None:
        """Nothing: there is no feeder thread."""

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def __getstate__(self) -> Any:
        return self._maxsize, self._segment_size, self._path

    def __setstate__(self, state: Any) -> None:
        self._maxsize, self._segment_size, self._path = state
        self._begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}{' (closed)' if self._closed else ''}>"

    # -------------------------------------------------------------------------------------- what it has

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def _writer_here(self) -> QueueWriter:
        if self._writer is None:
            writer = Log.open_publisher(self._log, **self._options())
            try:  # before others take the places of those that a loss of power took
                self._with_state(lambda state: state.undone(writer.next_seq))
            except BaseException:
                writer.close()
                raise
            self._writer = writer
        return self._writer

    def _options(self) -> dict[str, Any]:
        return {"segment_size": self._segment_size, "retention": Retention(), **SHARED}

    def _reader_here(self) -> QueueReader:
        if self._reader is None:
            self._reader = Log.open_subscriber(self._log, start="earliest", on_gap="oldest")
        return self._reader

    def _with_state(self, work: Callable[[_State], T]) -> T:
        """With the kernel's lock on it, which ends with whoever holds it."""
        with self._stating:
            self._check_open()
            if self._in_state:
                raise RuntimeError("a signal handler called this queue in the middle of another of its calls")
            self._in_state = True
            try:
                if self._file < 0:
                    self._file = os.open(
                        os.path.join(self._path, "state"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                    )
                fcntl.flock(self._file, fcntl.LOCK_EX)
                return work(_State(self._file))
            finally:
                self._in_state = False
                if self._file >= 0:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _after_fork(self) -> None:
        """The handles, and the threads that held locks, are the parent's; so is the lock of its open file."""
        closed, inherited, kept = self._closed, self._file, (self._writer, self._reader)
        if inherited >= 0:
            os.close(inherited)
        self._begin()
        self._closed = closed
        for handle in kept:
            if handle is not None:
                handle.close()  # in a child that frees memory, and nothing else


class JoinableQueue(Queue):
    """With `task_done` and `join`."""

    def task_done(self) -> None:
        """One that was taken is done. Raises ValueError if it was called more often than there were items."""
        self._check_open()
        self._with_state(_State.one_done)

    def join(self) -> None:
        """Wait until all that was put is done. Looks every 10 ms at most."""
        self._check_open()
        pauses = _Pauses(None)
        while True:
            if self._with_state(lambda state: state.done >= self._put_so_far()):
                return
            pauses.sleep()


class _State:
    """How far those who get have come."""

    taken: int
    done: int

    def __init__(self, file: int) -> None:
        self._file = file
        self._data = os.pread(file, STATE.size, 0)
        self.taken, self.done = STATE.unpack(self._data)[1:] if len(self._data) == STATE.size else (0, 0)

    def begin(self) -> None:
        """Refuse a foreign one. Then the disk has room for it, whatever comes; zeros are what a loss of power left."""
        if self._data.strip(b"\0") and (len(self._data) != STATE.size or not self._data.startswith(MAGIC)):
            raise InvalidArgument("the file state is none of this queue's: was the path another program's?")
        self.store()

    def one_done(self) -> None:
        if self.done >= self.taken:
            raise ValueError("task_done() called too many times")
        self.done += 1
        self.store()

    def undone(self, next_seq: int) -> None:
        """A loss of power has taken what was put from there on."""
        if self.taken > next_seq:
            self.taken = next_seq
            self.done = min(self.done, next_seq)
            self.store()

    def store(self) -> None:
        os.pwrite(self._file, STATE.pack(MAGIC, self.taken, self.done), 0)


class _Pauses:
    """Longer and longer ones, up to a limit, until a deadline."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._pause, self._longest = PAUSES_SECONDS

    def sleep(self) -> bool:
        left = self._pause if self._deadline is None else min(self._pause, self._deadline - time.monotonic())
        if left <= 0:
            return False
        time.sleep(left)
        self._pause = min(2 * self._pause, self._longest)
        return True


def _deadline(block: bool, timeout: float | None) -> float | None:
    if block and timeout is None:
        return None
    return time.monotonic() + (max(timeout or 0.0, 0.0) if block else 0.0)


def _up_to(deadline: float | None) -> float:
    """For a lock's acquire."""
    return -1 if deadline is None else min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)


_all: weakref.WeakSet[Queue] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for queue in list(_all):
        queue._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
