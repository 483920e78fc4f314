# SPDX-License-Identifier: MIT
from collections.abc import Iterator
from typing import TypeVar

from typing_extensions import Buffer

from chronicle_ffi.model import Message

T = TypeVar("T", bound=tuple[object, ...])

def messages(kind: type[T], columns: int, count: int, /) -> list[T]: ...
def payloads(columns: int, count: int, /) -> list[bytes]: ...

class Appender:
    def append(self, data: Buffer, type_id: int = 0, timestamp_ns: int | None = None, flags: int = 0) -> int: ...
    def _bind(self, try_append: int, writer: int, /) -> None: ...

class Taker:
    def next(self) -> Message | None: ...
    def _offer(self, fetched: Iterator[Message], /) -> None: ...
