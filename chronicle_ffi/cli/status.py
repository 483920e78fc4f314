# SPDX-License-Identifier: MIT
"""Exit statuses, the error that users see, and output into a pipe whose reader may leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OK = 0
DAMAGED = 1  # damage, or a difference, was found
USAGE = 2  # wrong arguments, or something else that the user can put right
INTERRUPTED = 130  # as shells spell it: 128 + SIGINT


class UserError(Exception):
    """Something the user can put right; its text is all they need to see. Exit status 2."""


@contextmanager
def may_lose_reader() -> Iterator[None]:
    """Around output to stdout: end quietly if its reader has left, as in ``chronicle tail q | head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more as it exits: let that go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
