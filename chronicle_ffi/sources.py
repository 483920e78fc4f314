# SPDX-License-Identifier: MIT
"""What batches of records come from: many payloads in one buffer, with columns beside it, for C to read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from chronicle_ffi._binding import NOW, ffi
from chronicle_ffi.errors import InvalidArgument

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A ``chron_source``, how many records it has, and what it points into."""

    struct: Any
    count: int
    kept: tuple[Any, ...]


def buffer_of(data: Any) -> Any:
    """Any C-contiguous buffer as something that has a length in bytes and that cffi takes as a pointer."""
    if isinstance(data, str):
        raise TypeError("a payload is bytes or another buffer, not str: encode it, for example with .encode()")
    return ffi.from_buffer(data)


def _column(values: Any, ctype: str, size: int, count: int, what: str) -> Any:
    """A column for C: `count` values of `size` bytes."""
    view = memoryview(values)
    if view.itemsize != size or view.nbytes != count * size or not view.c_contiguous:
        raise InvalidArgument(
            f"{what} has {view.nbytes} bytes in items of {view.itemsize}; {count} records need {count} of {size}"
        )
    return ffi.from_buffer(f"{ctype}[]", view.cast("B") if count else b"")


def source(
    data: Any,
    count: int,
    *,
    row_bytes: int = 0,
    offsets: Any = None,
    type_id: int | Buffer = 0,
    timestamp_ns: int | Buffer | None = None,
    flags: int | Buffer = 0,
) -> Source:
    """Put together what C reads; buffers stay where they are."""
    bytes_ = ffi.from_buffer(data)
    struct = ffi.new("chron_source *")
    kept: list[Any] = [bytes_, data]
    struct.bytes = bytes_
    struct.bytes_size = len(bytes_)
    struct.row_bytes = row_bytes
    if offsets is not None:
        view = memoryview(offsets)
        if view.itemsize not in (4, 8) or view.nbytes != (count + 1) * view.itemsize or not view.c_contiguous:
            raise InvalidArgument(f"{count} records need {count + 1} offsets of 4 or 8 bytes")
        struct.offset_size = view.itemsize
        kept.append(ffi.from_buffer(offsets))
        struct.offsets = kept[-1]
    if timestamp_ns is None or isinstance(timestamp_ns, int):
        struct.timestamp_ns = NOW if timestamp_ns is None else timestamp_ns
    else:
        kept.append(_column(timestamp_ns, "uint64_t", 8, count, "timestamp_ns"))
        struct.timestamps = kept[-1]
    if isinstance(type_id, int):
        struct.type_id = type_id
    else:
        kept.append(_column(type_id, "uint16_t", 2, count, "type_id"))
        struct.type_ids = kept[-1]
    if isinstance(flags, int):
        struct.flag = flags
    else:
        kept.append(_column(flags, "uint8_t", 1, count, "flags"))
        struct.flags = kept[-1]
    return Source(struct, count, tuple(kept))


def of_list(payloads: list[Any], **columns: Any) -> Source:
    """Payloads that are objects of their own, joined into one buffer."""
    try:
        joined = b"".join(payloads)
    except TypeError as wrong:
        raise TypeError(f"payloads are bytes or other buffers, not text (encode it): {wrong}") from None
    lengths = (len(item) if type(item) is bytes else memoryview(item).nbytes for item in payloads)
    offsets = array("Q", accumulate(lengths, initial=0))
    return source(joined, len(payloads), offsets=offsets, **columns)


def of_rows(rows: Any, row_bytes: int | None, **columns: Any) -> Source:
    """Rows of an array: of two and more dimensions, or structured, or cut into `row_bytes`."""
    view = memoryview(rows)
    if not view.c_contiguous:
        raise InvalidArgument("the array is not C-contiguous: pass a copy, for example numpy.ascontiguousarray(a)")
    if row_bytes is None:
        if view.ndim == 0:
            raise InvalidArgument("the array has no dimension to take rows from")
        count = view.shape[0] if view.shape else 0
        row_bytes = view.nbytes // count if count else 0
    elif row_bytes <= 0 or view.nbytes % row_bytes:
        raise InvalidArgument(f"{view.nbytes} bytes cannot be cut into rows of {row_bytes}")
    else:
        count = view.nbytes // row_bytes
    return source(rows, count, row_bytes=row_bytes, **columns)


def of_arrow(values: Any, **columns: Any) -> Source:
    """A pyarrow array of binary, large_binary, string, large_string or fixed-size binary values, as it is."""
    if values.null_count:
        raise InvalidArgument(f"the array has {values.null_count} nulls: a record has a payload, drop or fill them")
    kind = str(values.type)
    count = len(values)
    buffers = values.buffers()
    if kind.startswith("fixed_size_binary"):
        width = values.type.byte_width
        data = memoryview(buffers[1])[values.offset * width : (values.offset + count) * width]
        return source(data, count, row_bytes=width, **columns)
    sizes = {"binary": 4, "string": 4, "large_binary": 8, "large_string": 8}
    if kind not in sizes:
        raise InvalidArgument(f"an array of {kind} has no payloads: binary and string arrays have")
    size = sizes[kind]
    offsets = memoryview(buffers[1]).cast("B")[values.offset * size : (values.offset + count + 1) * size]
    return source(buffers[2] or b"", count, offsets=offsets.cast("I" if size == 4 else "Q"), **columns)


def parts(chunk: list[Buffer]) -> Iterator[list[Buffer]]:
    """Cut a chunk so that no part is much larger than CHUNK_BYTES, if its records are large."""
    begin = 0
    size = 0
    for i, item in enumerate(chunk):
        size += len(item)  # type: ignore[arg-type]  # items of a memoryview: good enough for a cut
        if size >= CHUNK_BYTES:
            yield chunk[begin : i + 1]
            begin = i + 1
            size = 0
    if begin < len(chunk):
        yield chunk[begin:]
