# SPDX-License-Identifier: MIT
from collections.abc import Iterator
from typing import SupportsIndex, TypeVar

from typing_extensions import Buffer

from chronicle_ffi._arguments import Time
from chronicle_ffi.model import Message

T = TypeVar("T", bound=tuple[object, ...])

def messages(kind: type[T], columns: int, count: int, by_new: bool, /) -> list[T]: ...
def payloads(columns: int, count: int, /) -> list[bytes]: ...

class Appender:
    def append(
        self, data: Buffer, type_id: SupportsIndex = 0, timestamp_ns: Time | None = None, flags: SupportsIndex = 0
    ) -> int: ...
    def _extend(self, payloads: list[Buffer], begin: int, type_id: int, timestamp_ns: int, flags: int, /) -> int: ...
    def _bind(self, try_append: int, writer: int, /) -> None: ...

class Taker:
    def next(self) -> Message | None: ...
    def _offer(self, fetched: Iterator[Message], /) -> None: ...
