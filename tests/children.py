# SPDX-License-Identifier: MIT
"""Forked children that tests run a piece of themselves in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def in_child(work: Callable[[], None]) -> None:
    """Run in a forked child; what it raises fails the test."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as failure:
            os.write(2, f"in the child: {failure!r}\n".encode())
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def let_others_pass(path: Path) -> None:
    """Other users may get to `path`: on the way there bits are added where they lack, and never taken from anything."""
    for parent in path.parents:
        mode = parent.stat().st_mode & 0o7777
        if not mode & 0o001:
            parent.chmod(mode | 0o055)
