# SPDX-License-Identifier: MIT
"""Schemas in a queue's directory: ``schema/TTTTT-SSSSSSSSSSSSSSSSSSSS-HASH.json`` (docs/FORMAT.md, section 18).

One file for each schema of a type: T is the type_id, S the seq that it holds from, HASH the SHA-256 of the content. A
file is made whole, synced, and then gets its name: what has a name and another hash is damaged.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chronicle_ffi.errors import AccessDenied, NoSpace, SchemaError, StorageError
from chronicle_ffi.model import Message
from chronicle_ffi.schema.described import BYTES_MAX, Schema

DIRECTORY: Final = "schema"
_NAME: Final = re.compile(r"(\d{5})-(\d{20})-([0-9a-f]{64})\.json")


class Schemas:
    """The schemas of one queue, as they are stored. Reads the directory when it is asked for what it does not know yet.

    >>> with Queue.open_publisher("q2", schema={1: "struct p { double x, y; };", 2: "json"}) as writer:
    ...     seq = writer.append(b"[1, 2]", type_id=2)
    >>> stored = Schemas("q2")
    >>> stored.types, [field.name for field in stored.of(1).fields]
    ([1, 2], ['x', 'y'])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._directory = Path(os.path.abspath(path)) / DIRECTORY
        self._files: dict[int, list[tuple[int, str]]] = {}  # of each type: (from which seq on, hash), ascending
        self._read: dict[str, Schema] = {}
        self._message_type: type[Message] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look at the directory again."""
        found: dict[int, list[tuple[int, str]]] = {}
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            names = []
        except OSError as failed:
            raise _failure(failed, self._directory) from None
        for name in names:
            if parts := _NAME.fullmatch(name):
                found.setdefault(int(parts[1]), []).append((int(parts[2]), parts[3]))
        self._files = found

    @property
    def types(self) -> list[int]:
        """The type_ids that have one."""
        return sorted(self._files)

    def versions(self, type_id: int) -> list[tuple[int, Schema]]:
        """All of one type: (from which seq on, schema). Raises SchemaError if a file is damaged."""
        return [(since, self._load(type_id, since, digest)) for since, digest in self._files.get(type_id, [])]

    def of(self, type_id: int, seq: int | None = None) -> Schema | None:
        """What records of this type hold: at `seq`, or the newest; None: it has none. Raises SchemaError: damaged."""
        if type_id not in self._files:
            self.refresh()
        files = self._files.get(type_id)
        if not files:
            return None
        # What is older than the first one was described later.
        at = -1 if seq is None else max(bisect_right([since for since, _ in files], seq) - 1, 0)
        return self._load(type_id, *files[at])

    def _load(self, type_id: int, since: int, digest: str) -> Schema:
        if digest not in self._read:
            file = self._directory / f"{type_id:05}-{since:020}-{digest}.json"
            content = _content(file)
            if hashlib.sha256(content).hexdigest() != digest:
                raise SchemaError(
                    f"{file} is damaged: it is not what its name says. Restore it from a copy of the queue"
                )
            self._read[digest] = Schema.from_bytes(content, str(file))
        return self._read[digest]

    def message_type(self) -> type[Message]:
        """Of messages that know what they hold."""
        if self._message_type is not None:
            return self._message_type
        schemas = self

        class Described(Message):
            __slots__ = ()

            @property
            def schema(self) -> Schema | None:
                return schemas.of(self.type_id, self.seq)

            def __reduce__(self) -> Any:
                return Message, tuple(self)

        Described.__name__, Described.__qualname__ = Message.__name__, Message.__qualname__
        Described.__module__, Described.__doc__ = Message.__module__, Message.__doc__
        self._message_type = Described
        return Described


def is_described(path: str | os.PathLike[str]) -> bool:
    """Whether the queue has a directory of schemas."""
    return os.path.isdir(os.path.join(path, DIRECTORY))


def store(path: str | os.PathLike[str], schemas: Mapping[int, Schema], next_seq: int) -> Schemas:
    """Have these in the queue, on disk, for records from `next_seq` on. For whoever has it open for writing.

    Nothing is written for those that are there. Raises SchemaError if one contradicts the stored one, and then none is
    stored; AccessDenied, NoSpace, StorageError.
    """
    stored = Schemas(path)
    wanted = []
    for type_id, schema in schemas.items():
        newest = stored.of(type_id)
        if newest is not None:
            try:
                newest.must_allow(schema)
            except SchemaError as wrong:
                raise SchemaError(f"type {type_id}: {wrong}") from None
        # One that holds from a seq which the log does not have any more was stored before a loss of power.
        if newest is None or newest.hash != schema.hash or stored.versions(type_id)[-1][0] > next_seq:
            wanted.append((type_id, schema))
    if wanted:
        _write(Path(path), wanted, next_seq)
        stored.refresh()
    return stored


def _write(path: Path, wanted: list[tuple[int, Schema]], next_seq: int) -> None:
    directory = path / DIRECTORY
    try:
        mode = stat.S_IMODE((path / "queue.meta").stat().st_mode) & 0o666
        if not directory.is_dir():
            directory.mkdir(0o700 | mode | (mode & 0o444) >> 2)
            _sync(path)
        for type_id, schema in wanted:
            content = schema.to_bytes()
            if len(content) > BYTES_MAX:
                raise SchemaError(f"type {type_id}: its description has {len(content)} bytes, the limit is {BYTES_MAX}")
            temporary = directory / f"{type_id:05}.tmp"
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(directory / f"{type_id:05}-{next_seq:020}-{schema.hash}.json")
        _sync(directory)
    except OSError as failed:
        raise _failure(failed, directory) from failed


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _content(file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SchemaError(f"{file} is no regular file")
            return opened.read(BYTES_MAX + 1)
    except OSError as failed:
        raise _failure(failed, file) from None


def _failure(failed: OSError, file: Path) -> Exception:
    kind = {13: AccessDenied, 1: AccessDenied, 30: AccessDenied, 28: NoSpace, 122: NoSpace}.get(
        failed.errno or 0, StorageError
    )
    return kind(f"{file}: {failed.strerror}")
