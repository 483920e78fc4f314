# SPDX-License-Identifier: MIT
"""Where records lie in a stream: binary searches over its messages, a request for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nats.js.errors

from chronicle_ffi.mirror.errors import StreamNotFound
from chronicle_ffi.mirror.frame import Frame, messages_of
from chronicle_ffi.mirror.stream import frame_at, place


@dataclass(frozen=True)
class Ends:
    """What a stream holds: numbers of messages, and seqs of records."""

    first_number: int
    last_number: int  #: below first_number: it is empty
    first: int  #: seq of the oldest record that is whole
    following: int  #: behind the newest one


async def ends_of(js: Any, stream: str) -> Ends:
    """Raises StreamNotFound."""
    try:
        state = (await js.stream_info(stream)).state
    except nats.js.errors.NotFoundError:
        raise StreamNotFound(f"there is no stream {stream}: has a mirror run, with this server and account?") from None
    if not state.messages:
        return Ends(state.last_seq + 1, state.last_seq, 0, 0)
    number = state.first_seq
    oldest = await frame_at(js, stream, number)
    last = await frame_at(js, stream, state.last_seq)
    first = oldest.first_seq
    if oldest.is_part and oldest.offset:  # the beginning of that record went with what was deleted
        first += 1
    return Ends(number, state.last_seq, first, last.next_seq)


async def _first_where(js: Any, stream: str, ends: Ends, holds: Callable[[Frame], bool]) -> int:
    """Number of the first message for which it holds; from there on it has to hold for all."""
    low, high = ends.first_number, ends.last_number + 1
    while low < high:
        middle = (low + high) // 2
        if holds(await frame_at(js, stream, middle)):
            high = middle
        else:
            low = middle + 1
    return low


async def find_seq(js: Any, stream: str, ends: Ends, seq: int) -> int:
    """Number of the message that this record, or its first piece, is in; of the one to come at the end."""
    return await _first_where(
        js, stream, ends, lambda frame: frame.next_seq > seq or (frame.is_part and frame.first_seq >= seq)
    )


async def find_time(js: Any, stream: str, ends: Ends, when: int) -> int:
    """seq of the first record whose timestamp is not below `when`; or behind the newest."""
    number = await _first_where(js, stream, ends, lambda frame: frame.highest_ns >= when)
    while number <= ends.last_number:  # but for what the stream has deleted, the first one has it
        frame = await frame_at(js, stream, number)
        if frame.is_part:
            return max(frame.first_seq, ends.first)
        for message in messages_of(frame, place(stream, number)):
            if message.timestamp_ns >= when:
                return message.seq
        number += 1
    return ends.following
