# SPDX-License-Identifier: MIT
"""Archivers and exporters that kill themselves at a given step.

The client of the object store has threads, which no forked child has: so this program, which never uses it, forks them.
Lines in: JSON of [what, step, arguments]; lines out: the child's wait status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from typing import Any

KILLED = signal.SIGKILL.value


class Children:
    """The other side: runs each of them to its end, or its death."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.archive_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, what: str, step: int, *arguments: object) -> bool:
        """Was it killed at its step-th step? False: it came to its end before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, step, [str(one) for one in arguments]]).encode() + b"\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, KILLED), status
        return status == KILLED

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def child(what: str, step: int, arguments: list[str]) -> None:
    from chronicle_ffi import archive
    from chronicle_ffi.archive import _archiver, _export, _store

    modules: Any = _archiver, _export
    store: Any = _store.Store

    count = 0

    def kill(*_: object) -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    if what == "archive":
        modules[0].step = kill
        archive.Archive(arguments[0], arguments[1], frame_bytes=65536).run()
    elif what == "read":
        reader: Any = archive.open_subscriber(None, arguments[0])
        reader.next()
        kill()
    else:
        real_put, real_create = store.put, store.create

        def put(self: Any, *rest: Any) -> Any:
            kill()
            done = real_put(self, *rest)
            kill()
            return done

        def create(self: Any, *rest: Any) -> Any:
            kill()
            done = real_create(self, *rest)
            kill()
            return done

        store.put, store.create = put, create
        modules[1].CHUNK_ROWS = int(arguments[2])
        archive.export(arguments[0], arguments[1])


def main() -> None:
    import chronicle_ffi.archive

    assert chronicle_ffi.archive
    with contextlib.suppress(ImportError):  # once, not in each child
        import pyarrow.compute
        import pyarrow.parquet

        assert pyarrow.compute
    for line in sys.stdin.buffer:
        what, step, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(what, step, arguments)
                status = 0
            finally:
                if status:
                    traceback.print_exc()
                os._exit(status)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
