# SPDX-License-Identifier: MIT
"""What Linux tells of changes in directories: inotify(7), by ctypes, and no more of it than "something has changed"."""

from __future__ import annotations

import ctypes
import os
import select

CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x8, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
ONLY_DIRECTORIES = 0x01000000
IN_DIRECTORY = CREATE | DELETE | MOVED_FROM | MOVED_TO | DELETE_SELF | MOVE_SELF
IN_QUEUE = CLOSE_WRITE | DELETE_SELF | MOVE_SELF  # a writer that goes closes its lock, however it goes
READ_BYTES = 1 << 16


class Watch:
    """A descriptor that becomes readable when something changes in a directory. OSError: there is none to be had."""

    def __init__(self) -> None:
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            init, self._add = self._libc.inotify_init1, self._libc.inotify_add_watch
        except (AttributeError, OSError, TypeError) as missing:
            raise OSError(f"no inotify on this system: {missing}") from missing
        self._add.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
        self.fd: int = init(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def add(self, path: str, mask: int) -> bool:
        """Watch a directory; once more does no harm. False: it cannot be watched (the user has too many already)."""
        return int(self._add(self.fd, os.fsencode(path), mask | ONLY_DIRECTORIES)) >= 0

    def wait(self, seconds: float) -> bool:
        """Whether something has changed within that time."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(max(seconds, 0.0) * 1000)) and self.drain()

    def drain(self) -> bool:
        """Read what was told, and forget it. Whether there was anything."""
        some = False
        try:
            while os.read(self.fd, READ_BYTES):
                some = True
        except BlockingIOError:
            pass
        return some

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
