# SPDX-License-Identifier: MIT
"""Exit statuses, the error that users see, and output into a pipe whose reader may leave."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from chronicle_ffi.errors import ChronicleError

OK = 0
DAMAGED = 1  # damage, or a difference, was found
USAGE = 2  # wrong arguments, or something else that the user can put right
# Of repair alone:
REPAIRED = 3  # something was wrong, and is not any more; nothing is lost
LOST = 4  # the same, but records were given up, or cut off
NOT_DONE = 5  # something is wrong, and nothing was done: nobody said yes
BEYOND_REPAIR = 6
FAULT = 70  # of this program; as sysexits.h has it
INTERRUPTED = 130  # as shells spell it: 128 + SIGINT

OF_OUTPUT = (errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what write(2) of stdout may meet


class UserError(Exception):
    """Something the user can put right; its text is all they need to see. Exit status 2."""


def occupy_standard_streams() -> None:
    """Where the caller has closed stdin, stdout or stderr: let no other file get its number, and nothing be lost in it.

    Reading from such a stdin and writing to such a stdout fail; what would be told on stderr goes nowhere.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def complain(error: Warning | Exception | str) -> None:
    print(f"chronicle: {error}", file=sys.stderr)


def reason(error: OSError) -> str:
    """Which file, or stream, and why; errors of the library say that themselves."""
    if isinstance(error, ChronicleError) or error.strerror is None:
        return str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return f"cannot write to stdout: {error.strerror}" if error.errno in OF_OUTPUT else error.strerror


@contextmanager
def may_lose_reader() -> Iterator[None]:
    """Around output to stdout: end quietly if its reader has left, as in ``chronicle tail q | head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()


def forget_output() -> None:
    """Python flushes stdout once more as it exits: let what cannot be written go nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
