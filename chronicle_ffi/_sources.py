# SPDX-License-Identifier: MIT
"""What batches of records come from: many payloads in one buffer, with columns beside it, for C to read.

numpy and pyarrow are not imported here: what their objects offer is used where such an object was passed.

Buffers are lent to C for one call, and given back by an ExitStack when it ends, whatever happens. Left to the garbage
collector they could crash it: CPython (3.11, for one) breaks down over a memoryview that is still lent and part of a
cycle, such as an exception makes with the frames it came through.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from operator import index
from typing import TYPE_CHECKING, Any, Final

from chronicle_ffi._arguments import FLAGS_MAX, TIME_MAX, TYPE_ID_MAX, is_time, number, time_ns, times_ns
from chronicle_ffi._binding import NOW, ffi, lib, new_struct
from chronicle_ffi.errors import InvalidArgument, PayloadTooLarge, StorageError, WrongType

if TYPE_CHECKING:
    from datetime import datetime
    from typing import SupportsIndex, TypeAlias

    from typing_extensions import Buffer

    from chronicle_ffi._arguments import Time

    #: One value for all records, or one for each: a buffer (an array of numpy, array.array, ...) or a list.
    Column: TypeAlias = SupportsIndex | Buffer | Sequence[int]
    Stamps: TypeAlias = Column | Time | Sequence[datetime]

CHUNK_BYTES: Final = 1 << 20  # of one crossing of append_many
CHUNK_RECORDS: Final = 4096
RUN_MAX: Final = 256  # payloads taken from an iterator between two looks at how large they are
ROW_BYTES_MAX: Final = (1 << 32) - 1
NATIVE: Final = "@=" + ("<" if sys.byteorder == "little" else ">")


def buffer_of(data: Any) -> Any:
    """Any C-contiguous buffer as what cffi takes as a pointer, and len() in bytes; to be given back: use ``with``."""
    if isinstance(data, str):
        raise WrongType("a payload is bytes or another buffer, not str: encode it, for example with .encode()")
    if hasattr(data, "dtype"):
        _refuse_objects(data)
    try:
        return ffi.from_buffer(data)
    except TypeError as wrong:
        raise WrongType(f"a payload is bytes or another buffer, not {type(data).__name__}: {wrong}") from None
    except (ValueError, BufferError) as wrong:
        raise InvalidArgument(f"a payload is a C-contiguous buffer: {wrong}") from None


def _refuse_objects(data: Any) -> None:
    if getattr(getattr(data, "dtype", None), "hasobject", False):
        raise InvalidArgument("the array holds references to Python's objects, which mean nothing elsewhere")


def view_of(data: Any) -> memoryview:
    """Any buffer as a memoryview; numpy's arrays of times, which it does not know, as arrays of bytes."""
    _refuse_objects(data)
    try:
        return memoryview(data)
    except TypeError:
        hint = ": encode it" if isinstance(data, str) else ""
        raise WrongType(f"a payload is bytes or another buffer, not {type(data).__name__}{hint}") from None
    except ValueError as wrong:
        if not hasattr(data, "dtype"):
            raise InvalidArgument(f"a payload cannot be read: {wrong}") from None
        return memoryview(data.view(f"V{data.dtype.itemsize}"))


# ------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class Kind:
    """What a column holds."""

    name: str
    ctype: str
    size: int
    formats: str  #: of memoryviews; a signed one only where C checks for negative values
    code: str  #: of array.array, for lists
    wanted: str
    most: int = 0  #: of one value for all


TYPE_ID: Final = Kind("type_id", "uint16_t[]", 2, "H", "H", "unsigned integers of 16 bits", TYPE_ID_MAX)
FLAGS: Final = Kind("flags", "uint8_t[]", 1, "B?", "B", "unsigned integers of 8 bits", FLAGS_MAX)
STAMPS: Final = Kind(
    "timestamp_ns", "uint64_t[]", 8, "QLNqln", "Q", "integers of 64 bits, datetimes or numpy.datetime64,", TIME_MAX
)
OFFSETS_4: Final = Kind("offsets", "uint32_t[]", 4, "ILil", "I", "integers of 32 or 64 bits")
OFFSETS_8: Final = Kind("offsets", "uint64_t[]", 8, "QLNqln", "Q", "integers of 32 or 64 bits")


@dataclass(frozen=True)
class Values:
    """A column with a value for each record."""

    pointer: Any  #: of cffi, good as long as the stack that it was lent by
    count: int
    signed: bool


def _column_view(values: Any, kind: Kind) -> memoryview:
    """A buffer, a list, or what can be had as an array of numpy, as a memoryview."""
    if isinstance(values, list | tuple | range):
        try:
            if kind is STAMPS and any(map(is_time, values)):
                values = [time_ns(kind.name, value) for value in values]
            return memoryview(array(kind.code, values))
        except OverflowError as wrong:
            raise InvalidArgument(f"{kind.name} holds a number that is out of range: {wrong}") from None
        except WrongType:
            raise
        except TypeError as wrong:
            raise WrongType(f"{kind.name} holds something else than {kind.wanted}: {wrong}") from None
    if hasattr(values, "__array__"):  # of numpy, and of pandas, polars and pyarrow
        values = values.__array__()
        if values.dtype.kind == "M" and kind is STAMPS:
            values = times_ns(kind.name, values)
    try:
        return memoryview(values)
    except (TypeError, ValueError):
        what = f"{type(values).__name__} {getattr(values, 'dtype', '')}".strip()
        raise WrongType(f"{kind.name} is one number, or {kind.wanted} in a buffer or a list; not {what}") from None


def values_of(lent: ExitStack, values: Any, kind: Kind) -> Values:
    """A column for C, copied if it has gaps or is not aligned. Refuses what would be read as other numbers."""
    view = _column_view(values, kind)
    form = view.format.lstrip(NATIVE)
    if view.ndim != 1 or view.itemsize != kind.size or form not in kind.formats:
        raise InvalidArgument(
            f"{kind.name} takes {kind.wanted} in native byte order; this has items {view.format!r} of {view.itemsize} "
            f"bytes in {view.ndim} dimensions: convert it, for example with astype()"
        )
    pointer = lent.enter_context(ffi.from_buffer(kind.ctype, view)) if view.c_contiguous else None
    if pointer is None or int(ffi.cast("uintptr_t", pointer)) % kind.size:
        copy = view.tobytes()
        if lib.chron_guard_faulted(ffi.NULL, 0) and view.c_contiguous:
            refuse_faulted([view])
        pointer = lent.enter_context(ffi.from_buffer(kind.ctype, array(kind.code, copy)))
    return Values(pointer, len(view), form.islower())


def _one_or_each(lent: ExitStack, value: Any, kind: Kind) -> int | Values:
    if kind is STAMPS and is_time(value):
        return time_ns(kind.name, value)
    try:
        index(value)
    except TypeError:
        return values_of(lent, value, kind)
    return number(kind.name, value, kind.most)


class Columns:
    """What belongs to the payloads of a call: for each of type_id, timestamp_ns, flags one value, or one a record."""

    def __init__(self, lent: ExitStack, type_id: Any, timestamp_ns: Any, flags: Any) -> None:
        self.type_id = _one_or_each(lent, type_id, TYPE_ID)
        self.timestamp_ns = NOW if timestamp_ns is None else _one_or_each(lent, timestamp_ns, STAMPS)
        self.flags = _one_or_each(lent, flags, FLAGS)
        every = ((TYPE_ID, self.type_id), (STAMPS, self.timestamp_ns), (FLAGS, self.flags))
        self._each = [(kind.name, value.count) for kind, value in every if isinstance(value, Values)]

    @property
    def same_for_all(self) -> bool:
        return not self._each

    @property
    def numbers(self) -> tuple[Any, Any, Any]:
        """If they are the same for all: type_id, timestamp_ns (or NOW), flags."""
        return self.type_id, self.timestamp_ns, self.flags

    def check(self, count: int) -> None:
        for name, found in self._each:
            if found != count:
                raise InvalidArgument(f"{name} has {found} values for {count} records")

    def put(self, struct: Any, begin: int) -> None:
        """Into a chron_source whose first record is number `begin` of the call."""
        if isinstance(self.type_id, Values):
            struct.type_ids = self.type_id.pointer + begin
        else:
            struct.type_id = self.type_id
        if isinstance(self.timestamp_ns, Values):
            struct.timestamps = self.timestamp_ns.pointer + begin
            struct.timestamps_signed = self.timestamp_ns.signed
        else:
            struct.timestamp_ns = self.timestamp_ns
        if isinstance(self.flags, Values):
            struct.flags = self.flags.pointer + begin
        else:
            struct.flag = self.flags


# ------------------------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class Source:
    """A ``chron_source``, and how many records it has."""

    struct: Any
    count: int


def source(
    lent: ExitStack,
    data: Any,
    count: int,
    columns: Columns,
    *,
    begin: int = 0,
    row_bytes: int = 0,
    offsets: Values | None = None,
) -> Source:
    """Put together what C reads; buffers stay where they are."""
    bytes_ = lent.enter_context(buffer_of(data))
    struct = new_struct("chron_source")
    struct.bytes = bytes_
    struct.bytes_size = len(bytes_)
    struct.row_bytes = row_bytes
    if offsets is not None:
        struct.offsets = offsets.pointer
        struct.offset_size = ffi.sizeof(ffi.typeof(offsets.pointer).item)
    columns.put(struct, begin)
    return Source(struct, count)


def refuse_faulted(payloads: list[Any]) -> None:
    """Raise StorageError if some were just copied out of a segment whose file went away: the copy has zeros."""
    for payload in payloads:
        with buffer_of(payload) as data:
            if lib.chron_guard_faulted(ffi.cast("const void *", data), len(data)):
                raise StorageError("the data lies in a mapped segment whose file went away: nothing was appended")


def measure(payloads: list[Any], lengths: list[int]) -> None:
    """Note the length of each; raises at the first that is no payload."""
    if list(map(type, payloads)).count(bytes) == len(payloads):
        lengths.extend(map(len, payloads))
        return
    for payload in payloads:
        view = view_of(payload)
        if not view.c_contiguous:
            raise InvalidArgument("a payload is not C-contiguous: pass a copy, for example bytes(it)")
        lengths.append(view.nbytes)


def of_list(lent: ExitStack, payloads: list[Any], lengths: list[int], columns: Columns, begin: int = 0) -> Source:
    """Payloads that are objects of their own, joined into one buffer."""
    joined = b"".join(payloads)
    if lib.chron_guard_faulted(ffi.NULL, 0):
        refuse_faulted(payloads)
    first = lengths[0] if lengths else 0
    if lengths.count(first) == len(lengths):
        total = first * len(lengths)
        made = source(lent, joined, len(lengths), columns, begin=begin, row_bytes=first)
    else:
        offsets = array("Q", accumulate(lengths, initial=0))
        total = offsets[-1]
        made = source(lent, joined, len(lengths), columns, begin=begin, offsets=values_of(lent, offsets, OFFSETS_8))
    if total != len(joined):
        raise InvalidArgument("a payload changed its length while it was read")
    return made


class Runs:
    """Payloads of an iterable, some at a time: so many that they are worth a crossing, and take little memory.

    What comes before the iterable raises, or gives something that is no payload, can still be appended: whoever meets
    that notes it as `failure`, and it is raised when all before it has been dealt with.
    """

    def __init__(self, payloads: Iterable[Any]) -> None:
        self._rest = iter(payloads)
        self._size = RUN_MAX if isinstance(payloads, list | tuple) else 1
        self.in_memory = isinstance(payloads, list | tuple)  # then to take many costs nothing
        self.ended = False
        self.failure: BaseException | None = None

    def take(self, limit: int = RUN_MAX) -> list[Any]:
        wanted = min(self._size, limit)
        run: list[Any] = []
        try:
            run.extend(islice(self._rest, wanted))
        except BaseException as raised:
            self.fail(raised)
        self.ended = self.ended or len(run) < wanted
        return run

    def put_back(self, run: list[Any]) -> None:
        """The end of what was taken last."""
        self._rest = chain(run, () if self.ended else self._rest)
        self.ended = False

    def weigh(self, size: int) -> None:
        """What was taken last has so many bytes: take more the next time, or less."""
        self._size = min(2 * self._size, RUN_MAX) if size * 16 < CHUNK_BYTES else 1

    def fail(self, failure: BaseException) -> None:
        self.failure = failure
        self.ended = True

    def finish(self) -> None:
        if self.failure is not None:
            raise self.failure


def chunks(runs: Runs) -> Iterator[tuple[list[Any], list[int]]]:
    """Runs put together to what one crossing takes, with their lengths."""
    while not runs.ended:
        chunk: list[Any] = []
        lengths: list[int] = []
        size = 0
        while not runs.ended and len(chunk) < CHUNK_RECORDS and size < CHUNK_BYTES:
            begin = len(chunk)
            chunk += runs.take(CHUNK_RECORDS - begin)
            try:
                measure(chunk[begin:], lengths)
            except BaseException as raised:
                runs.fail(raised)
                del chunk[len(lengths) :]
            grown = sum(lengths[begin:])
            size += grown
            runs.weigh(grown)
        if chunk:
            yield chunk, lengths


def of_rows(lent: ExitStack, rows: Any, row_bytes: Any, columns: Columns) -> Source:
    """Rows of an array: of two and more dimensions, or structured, or cut into `row_bytes`."""
    view = view_of(rows)
    if not view.c_contiguous:
        raise InvalidArgument("the array is not C-contiguous: pass a copy, for example numpy.ascontiguousarray(a)")
    if row_bytes is not None:
        row_bytes = number("row_bytes", row_bytes, least=1)
        if view.nbytes % row_bytes:
            raise InvalidArgument(f"{view.nbytes} bytes cannot be cut into rows of {row_bytes}")
        count = view.nbytes // row_bytes
    elif view.ndim == 0:
        raise InvalidArgument("the array has no dimension to take rows from")
    elif view.ndim == 1 and view.format in ("B", "b", "c"):
        raise InvalidArgument("bytes in one row: say with row_bytes how many make a record")
    else:
        count = view.shape[0] if view.shape else 0
        row_bytes = view.nbytes // count if count else 0
    if row_bytes > ROW_BYTES_MAX:
        raise PayloadTooLarge(f"rows of {row_bytes} bytes: a record holds 1 GiB at most")
    columns.check(count)
    return source(lent, view, count, columns, row_bytes=row_bytes)


def of_buffer(lent: ExitStack, data: Any, offsets: Any, columns: Columns) -> Source:
    """Payloads one behind the other, and where each begins and the last one ends."""
    view = _column_view(offsets, OFFSETS_8)
    places = values_of(lent, view, OFFSETS_4 if view.itemsize == 4 else OFFSETS_8)
    if places.count == 0:
        raise InvalidArgument("there are no offsets: even without records there is one, 0")
    columns.check(places.count - 1)
    return source(lent, data, places.count - 1, columns, offsets=places)


# ---------------------------------------------------------------------------------------------- Arrow


def _chunks_of_arrow(values: Any, whole: bool) -> list[Any]:
    """The pyarrow Arrays of an Array, a ChunkedArray, or of what offers one of Arrow's C interfaces."""
    if hasattr(values, "buffers"):
        return [values]
    if not hasattr(values, "combine_chunks"):
        if not hasattr(values, "__arrow_c_stream__") and not hasattr(values, "__arrow_c_array__"):
            raise WrongType(f"values are an array of pyarrow, or offer an Arrow interface; not {type(values).__name__}")
        import pyarrow as pa

        if not hasattr(values, "__arrow_c_stream__"):
            return [pa.array(values)]
        values = pa.chunked_array(values)
    if not whole or values.num_chunks == 1:
        return list(values.chunks)
    if str(values.type) in ("binary", "string"):
        values = values.cast("large_" + str(values.type))  # of any length together
    return [values.combine_chunks()]


def of_arrow(lent: ExitStack, values: Any, columns: Columns, whole: bool) -> list[Source]:
    """Arrays of binary, large_binary, string, large_string or fixed-size binary values, as they are.

    Views (binary_view, string_view) are packed first, and with `whole` several chunks are put together: one copy.
    """
    found = _chunks_of_arrow(values, whole)
    columns.check(sum(map(len, found)))
    made = []
    begin = 0
    for chunk in found:
        made.append(_of_arrow_chunk(lent, chunk, columns, begin))
        begin += len(chunk)
    return made


def _of_arrow_chunk(lent: ExitStack, values: Any, columns: Columns, begin: int) -> Source:
    if values.null_count:
        raise InvalidArgument(f"the array has {values.null_count} nulls: a record has a payload, drop or fill them")
    if hasattr(values, "storage"):  # of an extension type
        values = values.storage
    kind = str(values.type)
    count = len(values)
    if kind in ("binary_view", "string_view"):
        kind = kind.replace("_view", "")
        values = values.cast(f"large_{kind}")
        kind = f"large_{kind}"
    if kind.startswith("fixed_size_binary"):
        width = values.type.byte_width
        data = memoryview(values.buffers()[1] or b"")[values.offset * width : (values.offset + count) * width]
        return source(lent, data, count, columns, begin=begin, row_bytes=width)
    sizes = {"binary": 4, "string": 4, "large_binary": 8, "large_string": 8}
    if kind not in sizes:
        raise InvalidArgument(f"an array of {kind} has no payloads: binary and string arrays have")
    if count == 0:
        return source(lent, b"", 0, columns, begin=begin)
    size = sizes[kind]
    _, places, data = values.buffers()
    used = memoryview(places).cast("B")[values.offset * size : (values.offset + count + 1) * size]
    offsets = values_of(lent, used.cast("I" if size == 4 else "Q"), OFFSETS_4 if size == 4 else OFFSETS_8)
    return source(lent, data or b"", count, columns, begin=begin, offsets=offsets)
