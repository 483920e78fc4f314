# SPDX-License-Identifier: MIT
"""Claims, and other memory that is lent or was: it cannot write into the log."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import pytest

import chronicle_ffi as c
from chronicle_ffi import Queue


def payloads(path: Path) -> list[bytes]:
    with Queue.open_subscriber(path) as reader:
        return list(reader.payloads())


def test_claim_publishes_what_was_written(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with writer.claim(5, 2, timestamp_ns=77, flags=3) as buffer:
            assert bytes(buffer) == b"\0" * 5
            buffer[:] = b"claim"
            with Queue.open_subscriber(queue) as reader:
                assert reader.next() is None
        with pytest.raises(ValueError):
            buffer[0] = 1  # released
        with writer.claim(0) as empty:
            assert len(empty) == 0
    with Queue.open_subscriber(queue) as reader:
        assert list(reader)[0] == (0, 77, 2, 3, b"claim")


def test_claim_is_aborted_by_an_exception(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises(KeyError), writer.claim(100) as buffer:
            buffer[:] = b"x" * 100
            raise KeyError
        assert writer.append(b"after") == 0
    assert payloads(queue) == [b"after"]
    assert Queue.verify(queue).ok


def test_what_is_kept_of_a_claim_changes_no_record(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        kept = []
        for end in (None, KeyError):
            with suppress(KeyError), writer.claim(10) as buffer:
                buffer[:] = b"0123456789"
                kept.append(buffer[2:4])
                if end:
                    raise end
        assert writer.append(b"after, and longer") == 1
        for one in kept:
            one[:] = b"xx"
    assert payloads(queue) == [b"0123456789", b"after, and longer"]
    assert Queue.verify(queue).ok


def test_close_in_a_claim(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with pytest.raises(c.ClosedHandle), writer.claim(10) as buffer:
            writer.close()
            buffer[:] = b"0123456789"
    assert payloads(queue) == []


def test_options_of_a_claim_are_checked_before_it_begins(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        for options in ({"type_id": 0xFFFF}, {"flags": 256}, {"timestamp_ns": -1}, {"timestamp_ns": 2**64 - 1}):
            with pytest.raises(c.InvalidArgument):
                writer.claim(1, **options)
        with pytest.raises(TypeError):
            writer.claim(1, "7")  # type: ignore[arg-type]
        never_begun = writer.claim(1)
        assert writer.append(b"after") == 0
        del never_begun


def test_data_whose_file_went_away_is_refused(tmp_path: Path) -> None:
    """A mapping that faulted reads as zeros: they must not become a record with a good CRC."""
    with Queue.open_publisher(tmp_path / "from", segment_size=1 << 20, keeper=False) as writer:
        writer.append_many([b"payload %04d " % i * 8 for i in range(2000)])
    with Queue.open_subscriber(tmp_path / "from") as reader, Queue.open_publisher(tmp_path / "to") as writer:
        view = reader.read_batch(1500).views()[700]
        os.truncate(tmp_path / "from" / f"{0:020}.seg", 4096)
        for attempt in (
            lambda: writer.append(view),
            lambda: writer.append_many([view]),
            lambda: writer.append_many([b"good", view], atomic=True),
            lambda: writer.append_array(view, row_bytes=len(view)),
            lambda: writer.append_buffer(view, [0, len(view)]),
        ):
            with pytest.raises(c.StorageError):
                attempt()
        assert writer.next_seq == 0
        assert writer.append(b"good") == 0


def test_one_claim_at_a_time(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        with writer.claim(3) as buffer:
            with pytest.raises(c.ClaimError), writer.claim(3):
                pass
            with pytest.raises(c.ClaimError):
                writer.append(b"x")
            buffer[:] = b"abc"
        with pytest.raises(c.PayloadTooLarge), writer.claim(1 << 40):
            pass
        with pytest.raises(ValueError), writer.claim(-1):
            pass
    assert payloads(queue) == [b"abc"]


def test_a_segment_is_read_only_through_whatever_stands_on_it(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append(b"one")
    with Queue.open_subscriber(queue) as reader:
        segment = reader.read_batch().segment
    for lent in (segment, segment.obj, segment[1:].obj):
        assert memoryview(lent).readonly
        with pytest.raises(TypeError):
            memoryview(lent)[0] = 1
        with pytest.raises((TypeError, BufferError)):
            (ctypes.c_char * 3).from_buffer(lent)
