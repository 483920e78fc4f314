# SPDX-License-Identifier: MIT
"""What clients and servers have in common: how calls are written down, and how they fail."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from chronicle_ffi import ChronicleError, Corrupt, Message, QueueReader, TimedOut

HEAD: Final = struct.Struct("<QQQ")  # session, number, when the client gives up
KEY_BYTES: Final = 16  # the first two
TEMPORARY: Final = "tmp-"  # how the names of clients begin that do not come back
SEGMENT_SIZE: Final = 1 << 20


class Outcome(IntEnum):
    """What became of a call: the flags of its reply."""

    DONE = 0
    FAILED = 1  #: the handler raised; the payload says what
    LOST = 2  #: a server that may not do it twice died while it was at it
    EXPIRED = 3  #: the client had given up before the server came to it


# As plain numbers, as `Message.flags` is one.
DONE: Final = int(Outcome.DONE)
FAILED: Final = int(Outcome.FAILED)
LOST: Final = int(Outcome.LOST)
EXPIRED: Final = int(Outcome.EXPIRED)


class Request(NamedTuple):
    """What a handler gets."""

    payload: bytes
    type_id: int
    key: bytes  #: the same whenever this call is delivered, and no other's: what makes an effect happen once
    client: str
    deadline_ns: int  #: when the client gives up, since 1970; 0: never


class CallTimedOut(TimedOut):
    """No reply came in time. The server may have done it, or may still do it if it had begun."""


class RemoteError(ChronicleError):
    """The handler raised; the text is that of its exception."""


class ServerDied(ChronicleError):
    """A server that may not do anything twice died while it did this: whether it was done is not known."""


def records(reader: QueueReader) -> Iterator[Message]:
    """Those there are, but for damaged ones."""
    while True:
        try:
            yield from reader
            return
        except Corrupt:
            reader.skip_damaged()
