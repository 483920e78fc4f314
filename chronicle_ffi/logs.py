# SPDX-License-Identifier: MIT
"""Python's logging into a queue, and back out of it. Stands on the public API alone."""

from __future__ import annotations

import inspect
import json
import logging
import os
from typing import Any, Final

from chronicle_ffi import InvalidArgument, Message, NoSpace, PayloadTooLarge, Queue, QueueFull, QueueWriter

#: Handles of several processes on one queue, where this version of the package has them.
SHARED: Final[dict[str, Any]] = (
    {"shared": True} if "shared" in inspect.signature(Queue.open_publisher).parameters else {}
)
OF_ITSELF: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
OURS: Final = {"message", "level", "logger", "file", "line", "function", "process", "thread"}
GOES_ON: Final = (NoSpace, QueueFull, PayloadTooLarge)  # and the same writer with it


class ChronicleHandler(logging.Handler):
    """Each log record is a record of the queue: JSON, its level as `type_id`, its time as timestamp.

    What `emit` returned for survives the death of the process; `flush` puts it on disk. A record that cannot be stored
    (a full disk, a queue that somebody else writes to) goes to ``handleError``, as with every good handler: the program
    goes on, and so does the handler when the cause has gone.

    ``path`` may hold "{pid}": a queue for each process, so that forked children, and several processes of one program,
    log too. Without it, a queue is one process's, unless this package has shared writers; a child then meets
    WriterAlreadyActive in ``handleError``. ``options`` are those of `chronicle_ffi.Queue.open_publisher`.
    """

    def __init__(self, path: str | os.PathLike[str], level: int | str = logging.NOTSET, **options: Any) -> None:
        super().__init__(level)
        self._path = os.path.abspath(os.fspath(path))
        self._options = SHARED | options
        self._writer: QueueWriter | None = None
        self._pid = 0
        self._is_opening = False
        self._ended = False
        self._open()  # so that mistakes are met here

    @property
    def writer_path(self) -> str:
        """Where this process logs to."""
        return self._path.replace("{pid}", str(os.getpid()))

    def emit(self, record: logging.LogRecord) -> None:
        """Append it. Called with the handler's lock, by ``handle``."""
        try:
            payload = self._payload(record)
        except Exception:  # the record's fault
            self.handleError(record)
            return
        try:
            if self._ended or self._is_opening:  # a warning of the opening, that came by `captureWarnings`
                raise InvalidArgument("the handler is closed" if self._ended else "the handler is being opened")
            if self._writer is None or self._pid != os.getpid():
                self._open()
            assert self._writer is not None
            kind = min(max(record.levelno, 0), 65534)
            self._writer.append(payload, kind, max(int(record.created * 1e9), 0))
        except GOES_ON:
            self.handleError(record)
        except Exception:
            self._drop()  # a poisoned one, one that was removed: open it anew for the next record
            self.handleError(record)

    def _payload(self, record: logging.LogRecord) -> bytes:
        fields: dict[str, Any] = {
            "message": record.getMessage(),
            "level": record.levelname,
            "logger": record.name,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "process": record.process,
            "thread": record.threadName,
        }
        if record.exc_info:
            fields["exception"] = (self.formatter or _PLAIN).formatException(record.exc_info)
        elif record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = record.stack_info
        if extra := {name: value for name, value in vars(record).items() if name not in OF_ITSELF}:
            fields["extra"] = extra
        return json.dumps(fields, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def _open(self) -> None:
        self._drop()
        self._is_opening = True
        try:
            self._writer = Queue.open_publisher(self.writer_path, **self._options)
            self._pid = os.getpid()
        finally:
            self._is_opening = False

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except Exception:
                if not writer.closed:
                    raise

    def flush(self) -> None:
        """Put all on disk. Raises as `chronicle_ffi.QueueWriter.sync`."""
        with self._mutex():
            if self._writer is not None and self._pid == os.getpid():
                self._writer.sync()

    def close(self) -> None:
        """Close the queue; what is logged later goes to ``handleError``."""
        try:
            with self._mutex():
                self._ended = True
                self._drop()
        finally:
            super().close()

    def _mutex(self) -> Any:
        assert self.lock is not None
        return self.lock


_PLAIN: Final = logging.Formatter()


def log_record(message: Message) -> logging.LogRecord:
    """The log record that a message of the handler's is, for ``logging.Logger.handle`` of whoever reads the queue.

    Raises ValueError for a message that is none.
    """
    fields = json.loads(message.payload)
    if not isinstance(fields, dict) or not fields.keys() >= OURS:
        raise ValueError(f"record {message.seq} is none of ChronicleHandler's")
    return logging.makeLogRecord(
        fields.get("extra", {})
        | {
            "name": fields["logger"],
            "msg": fields["message"],
            "args": (),
            "levelno": message.type_id,
            "levelname": fields["level"],
            "pathname": fields["file"],
            "filename": os.path.basename(fields["file"]),
            "lineno": fields["line"],
            "funcName": fields["function"],
            "process": fields["process"],
            "threadName": fields["thread"],
            "created": message.timestamp_ns / 1e9,
            "msecs": message.timestamp_ns // 1_000_000 % 1000,
            "exc_text": fields.get("exception"),
            "stack_info": fields.get("stack"),
        }
    )
