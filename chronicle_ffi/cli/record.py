# SPDX-License-Identifier: MIT
"""``chronicle record``: a flight recorder for a command's output.

The command's stdout and stderr are pipes that end here. What arrives is journaled and then passed on, byte
for byte and at once. The command must not notice: signals reach it, a reader of its output that leaves is a
closed pipe for it too, and its exit status is the recorder's.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from chronicle_ffi import ChronicleError, Queue, QueueWriter
from chronicle_ffi.cli.options import Subparsers, add_command, add_writer_options, open_writer
from chronicle_ffi.cli.status import OK, UserError
from chronicle_ffi.cli.text import LineSplitter

STDOUT, STDERR, STARTED, ENDED = 1, 2, 3, 4  # type ids
LONGEST_LINE = 1 << 20  # bytes; a longer one is journaled in pieces
NOT_RECORDED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127  # exit statuses, as env(1) and timeout(1) have them
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
TYPED = (signal.SIGINT, signal.SIGQUIT)  # what keys on the terminal send

EXAMPLES = """\
  chronicle record /var/tmp/q -- make -j4
  chronicle record /var/tmp/q --durability interval -- ./server --verbose
  chronicle tail /var/tmp/q --type 2 --from oldest        what it wrote to stderr

Records, by type_id: 1 a line of stdout, 2 a line of stderr, both with their newline and stamped when they
arrived (put together, the payloads of a type are that stream byte for byte; lines beyond 1 MiB come in
pieces); 3 the start, 4 the end, as JSON.

Exit status: that of CMD; 128 + n if signal n ended it; 127 if there is no such command, 126 if it cannot be
run; 125 if CMD succeeded but not all of its output could be recorded. The recorder stays until all that
holds CMD's stdout or stderr has closed it, as a pipe into cat(1) would.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "record",
        "run a command, and journal what it prints",
        "Run a command; journal each line of its output with its arrival time; pass it through unchanged.",
        EXAMPLES,
    )
    parser.usage = "chronicle record [options] Q -- CMD [ARG ...]"
    add_writer_options(parser)
    parser.set_defaults(run=run)


def split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before "--", and CMD behind it: argparse would take a "--" that belongs to CMD."""
    if argv[:1] == ["record"] and "--" in argv:
        cut = argv.index("--")
        return argv[:cut], argv[cut + 1 :]
    return argv, []


def run(args: argparse.Namespace) -> int:
    if not args.command:
        raise UserError("say what to run, behind two dashes: chronicle record Q -- CMD ...")
    with open_writer(args) as writer:
        longest = min(LONGEST_LINE, Queue.info(args.queue).segment_size // 4)
        return record(args.command, Journal(writer), longest)


class Journal:
    """The queue, as the recorder sees it: if it fails, that is told once, and the command goes on."""

    def __init__(self, writer: QueueWriter) -> None:
        self._writer = writer
        self.failed = False

    def write(self, payloads: list[bytes], type_id: int) -> None:
        if self.failed or not payloads:
            return
        try:
            self._writer.append_many(payloads, type_id=type_id, timestamp_ns=time.time_ns())
        except ChronicleError as error:
            self.failed = True
            print(f"chronicle: recording stops, the command goes on: {error}", file=sys.stderr)

    def note(self, type_id: int, **fields: object) -> None:
        self.write([json.dumps(fields).encode()], type_id)


class Stream:
    """One of the command's two output streams, on its way to the journal and to where ours goes."""

    def __init__(self, pipe: IO[bytes], type_id: int, journal: Journal, longest: int) -> None:
        self._pipe = pipe
        self._type_id = type_id
        self._journal = journal
        self._chunk_bytes = longest
        self._splitter = LineSplitter(longest)

    def fileno(self) -> int:
        return self._pipe.fileno()

    def move(self) -> bool:
        """Journal and pass on what has arrived. False: nothing more will come, or be read."""
        chunk = os.read(self._pipe.fileno(), self._chunk_bytes)
        self._journal.write(self._splitter.feed(chunk), self._type_id)
        if chunk and pass_on(self._type_id, chunk):
            return True
        self._journal.write(self._splitter.finish(), self._type_id)
        return False

    def close(self) -> None:
        self._pipe.close()


def pass_on(descriptor: int, chunk: bytes) -> bool:
    """Write all of it to our own stdout (1) or stderr (2). False: nobody reads there any more."""
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody made the terminal that we share non-blocking
            select.select([], [descriptor], [])
        except BrokenPipeError:
            return False
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return True  # it was closed before we began
    return True


def record(command: Sequence[str], journal: Journal, longest: int) -> int:
    with forwarded_signals() as forwarder:
        try:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            journal.note(ENDED, argv=command, status=status, error=str(error))
            print(f"chronicle: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return status
        forwarder.attach(child)
        journal.note(STARTED, argv=command, pid=child.pid, cwd=os.getcwd())
        assert child.stdout is not None
        assert child.stderr is not None
        with selectors.DefaultSelector() as selector:
            for pipe, type_id in ((child.stdout, STDOUT), (child.stderr, STDERR)):
                selector.register(Stream(pipe, type_id, journal, longest), selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    stream = key.fileobj
                    assert isinstance(stream, Stream)
                    if not stream.move():
                        selector.unregister(stream)
                        stream.close()
        returncode = child.wait()
    killed_by = -returncode if returncode < 0 else None
    status = returncode if killed_by is None else 128 + killed_by
    journal.note(ENDED, status=status, signal=killed_by)
    return NOT_RECORDED if journal.failed and status == OK else status


class Forwarder:
    """Passes signals on to the command, from the moment there is one."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def attach(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        for number in self._early:
            child.send_signal(number)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number in TYPED and at_terminal():
            return  # what is typed there reaches the command without our help
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


@contextmanager
def forwarded_signals() -> Iterator[Forwarder]:
    """Signals go to the command. One that is ignored (nohup, a background job) stays so, for both."""
    forwarder = Forwarder()
    taken = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forwarder) for number in taken}
    try:
        yield forwarder
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def at_terminal() -> bool:
    """Whether this process is in its terminal's foreground, where the command then is as well."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
