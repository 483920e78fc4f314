# SPDX-License-Identifier: MIT
"""Fixed layouts: fields at offsets, from a dtype of numpy or the text of a C struct; one record as values of Python."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from chronicle_ffi.errors import SchemaError

SIZE_MAX: Final = 1 << 30  # bytes of a payload
# numpy's codes of what is not bytes, text or time, and those of the module struct.
_CODES: Final = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
_TYPE: Final = re.compile(r"[<>|](?:(b1|[iu][1248]|f[248])|([SVU])(\d{1,10})|([Mm])8\[(\d*(?:ns|us|ms|s|m|h|D))\])")


@dataclass(frozen=True)
class Field:
    """One field of a record: a column."""

    name: str  #: inner ones of a nested struct as "outer.inner"
    type: str  #: fixed layouts: as numpy writes it (``<f8``, ``|S8``); else the name of a type
    offset: int = 0  #: fixed layouts: bytes from the beginning of the payload
    shape: tuple[int, ...] = ()  #: fixed layouts: of an array; () is one value
    optional: bool = False  #: may be missing

    @property
    def size(self) -> int:
        """Bytes, of a fixed layout."""
        return _item_size(self) * prod(self.shape)


def _item_size(field: Field) -> int:
    found = _TYPE.fullmatch(field.type)
    if found is None:
        raise SchemaError(f"field {field.name!r} has the type {field.type!r}, which no fixed layout can have")
    plain, text, length, time = found[1], found[2], found[3], found[4]
    if time:
        return 8
    return int(plain[1:]) if plain else int(length) * (4 if text == "U" else 1)


def check_layout(fields: tuple[Field, ...], size: int) -> None:
    """Every field lies within the record."""
    if not 0 < size <= SIZE_MAX:
        raise SchemaError(f"a record of {size} bytes: it can have 1 to {SIZE_MAX}")
    for field in fields:
        if any(length < 1 for length in field.shape) or len(field.shape) > 32:
            raise SchemaError(f"field {field.name!r} has the shape {field.shape}")
        if field.offset < 0 or field.size < 1 or field.offset + field.size > size:
            raise SchemaError(
                f"field {field.name!r} lies at {field.offset}, {field.size} bytes long: the record has {size}"
            )


def values(field: Field, payload: bytes) -> Any:
    """The field in one payload, which is long enough."""
    count = prod(field.shape)
    step = _item_size(field)
    found = [
        _value(field.type, payload[at : at + step]) for at in range(field.offset, field.offset + count * step, step)
    ]
    for length in field.shape[:0:-1]:
        found = [found[i : i + length] for i in range(0, len(found), length)]
    return found if field.shape else found[0]


def _value(kind: str, data: bytes) -> Any:
    order, code = kind[0].replace("|", "<"), kind[1:]
    if code in _CODES:
        return struct.unpack(order + _CODES[code], data)[0]
    if code[0] == "S":
        return data.rstrip(b"\0")
    if code[0] == "U":
        return data.decode("utf-32-le" if order == "<" else "utf-32-be", "replace").rstrip("\0")
    return data if code[0] == "V" else struct.unpack(order + "q", data)[0]  # times: a number of their unit


# --------------------------------------------------------------------------------------------- numpy


def of_dtype(dtype: Any) -> tuple[tuple[Field, ...], int]:
    """Fields and size of a structured dtype; of a plain one: a field named "value"."""
    fields = tuple(_of_dtype(dtype, "", 0)) if dtype.names else (_plain(dtype, "value", 0),)
    return fields, int(dtype.itemsize)


def _of_dtype(dtype: Any, prefix: str, base: int) -> Iterator[Field]:
    for name in dtype.names:
        inner, offset = dtype.fields[name][:2]
        if inner.names:
            yield from _of_dtype(inner, f"{prefix}{name}.", base + offset)
        else:
            yield _plain(inner, prefix + name, base + offset)


def _plain(dtype: Any, name: str, offset: int) -> Field:
    item, shape = dtype.subdtype or (dtype, ())
    if item.hasobject or item.names or not _TYPE.fullmatch(item.str):
        raise SchemaError(f"field {name!r} has the type {item}, which a schema cannot have")
    return Field(name, item.str, offset, tuple(shape))


def dtype_of(fields: tuple[Field, ...], size: int) -> Any:
    """The other way round, with nested ones flat."""
    import numpy as np

    return np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [(field.type, field.shape) if field.shape else field.type for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": size,
        }
    )


# ------------------------------------------------------------------------------------------- C structs

_C_TYPES: Final = {
    "char": "i1", "signed char": "i1", "unsigned char": "u1", "bool": "b1", "_Bool": "b1", "short": "i2",
    "unsigned short": "u2", "int": "i4", "unsigned": "u4", "unsigned int": "u4", "long": "i8", "unsigned long": "u8",
    "long long": "i8", "unsigned long long": "u8", "float": "f4", "double": "f8", "size_t": "u8", "ssize_t": "i8",
    **{f"{sign}int{bits}_t": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_STRUCT: Final = re.compile(
    r"\s*(?:typedef\s+)?struct\s*(?P<packed>__attribute__\s*\(\(\s*packed\s*\)\))?\s*(?P<name>\w*)\s*\{(?P<body>[^{}]*)\}"
    r"\s*(?P<late>__attribute__\s*\(\(\s*packed\s*\)\))?\s*(?P<typedef>\w*)\s*;?\s*"
)
_MEMBER: Final = re.compile(
    r"(?P<type>[A-Za-z_][\w\s]*?)\s*\b(?P<name>[A-Za-z_]\w*)\s*(?P<shape>(?:\[\s*\d{1,9}\s*\]\s*)*)"
)


def of_c(text: str) -> tuple[str, tuple[Field, ...], int]:
    """Name, fields and size of ``struct name { type member[n]; ... };`` as 64-bit Linux and macOS lay it out."""
    plain = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    plain = re.sub(r"^\s*#\s*(?:include|pragma\s+once)\b[^\n]*", "", plain, flags=re.MULTILINE)
    found = _STRUCT.fullmatch(plain)
    if found is None:
        raise SchemaError("this is no C struct that can be read: one struct, without structs, unions or macros in it")
    packed = bool(found["packed"] or found["late"])
    fields: list[Field] = []
    end, widest = 0, 1
    for line in filter(None, (part.strip() for part in found["body"].split(";"))):
        first, *more = line.split(",")
        member = _MEMBER.fullmatch(first.strip())
        kind = " ".join(member["type"].replace("const ", "").split()) if member else ""
        if member is None or kind not in _C_TYPES:
            raise SchemaError(
                f"the member {line!r} is not understood: use numbers of a fixed width, char[n], and arrays of them"
            )
        for one in [first.strip(), *(f"{kind} {name.strip()}" for name in more)]:
            field, align = _member(line, one, kind)
            at = end if packed else -(-end // align) * align
            fields.append(Field(field.name, field.type, at, field.shape))
            end, widest = at + field.size, max(widest, align)
    size = end if packed else -(-end // widest) * widest
    return found["typedef"] or found["name"], tuple(fields), size


def _member(line: str, text: str, kind: str) -> tuple[Field, int]:
    member = _MEMBER.fullmatch(text)
    if member is None:
        raise SchemaError(f"the member {line!r} is not understood")
    shape = tuple(int(length) for length in re.findall(r"\d+", member["shape"]))
    code = _C_TYPES[kind]
    if kind == "char" and shape:
        return Field(member["name"], f"|S{shape[-1]}", 0, shape[:-1]), 1
    return Field(member["name"], ("|" if code[1:] == "1" else "<") + code, 0, shape), int(code[1:])
