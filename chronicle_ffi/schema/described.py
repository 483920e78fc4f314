# SPDX-License-Identifier: MIT
"""`Schema`: what the payloads of one type hold; how it is written down, and read; what may follow it."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from chronicle_ffi.errors import NotSupported, SchemaError
from chronicle_ffi.schema import layout
from chronicle_ffi.schema.layout import Field

Codec: TypeAlias = Literal["fixed", "json", "msgpack", "arrow", "protobuf", "bytes"]
VERSION: Final = 1
BYTES_MAX: Final = 1 << 20  # of a description


@dataclass(frozen=True)
class Schema:
    """What the payloads of one type_id hold.

    >>> Schema.of("struct quote { double bid, ask; char symbol[8]; };").fields[2]
    Field(name='symbol', type='|S8', offset=16, shape=(), optional=False)
    """

    codec: Codec  #: how a payload is written
    name: str = ""  #: for people
    fields: tuple[Field, ...] = ()  #: the columns; () if they are not known
    size: int = 0  #: bytes of a payload, of codec "fixed"
    key: str | None = None  #: the field that says what a record is about
    is_array: bool = False  #: codecs "json" and "msgpack": a payload is an array of the fields, without names
    source: str = ""  #: the C text; base64 of an Arrow schema, of a descriptor of protobuf

    @staticmethod
    def of(what: Any, *, key: str | None = None, codec: Literal["json", "msgpack"] = "msgpack") -> Schema:
        """From a dtype of numpy, a Struct of msgspec, a Schema of pyarrow, a message class of protobuf, a C struct as
        text, or the name of a codec ("bytes", "json", "msgpack").

        :param key: the name of the field that `chronicle_ffi.Queue.scan` compares with its `key`.
        :param codec: how Structs of msgspec are written.

        Raises SchemaError, which names the field.
        """
        made = _of(what, codec)
        return replace(made, key=key).checked() if key is not None else made.checked()

    def checked(self) -> Schema:
        """Itself; or SchemaError, if it makes no sense."""
        names = [field.name for field in self.fields]
        if doubled := {name for name in names if names.count(name) > 1 or not name}:
            raise SchemaError(f"there are several fields named {sorted(doubled)[0]!r}, or one without a name")
        if self.key is not None and self.key not in names:
            raise SchemaError(f"the key {self.key!r} is none of the fields {names}")
        if self.codec == "fixed":
            layout.check_layout(self.fields, self.size)
        return self

    # ----------------------------------------------------------------------------------- written down

    def to_bytes(self) -> bytes:
        """As it is stored: JSON, the same bytes for the same schema."""
        told: dict[str, Any] = {"chronicle_schema": VERSION, "codec": self.codec, "name": self.name}
        told["fields"] = [
            {
                "name": field.name,
                "type": field.type,
                **({"offset": field.offset} if self.codec == "fixed" else {}),
                **({"shape": list(field.shape)} if field.shape else {}),
                **({"optional": True} if field.optional else {}),
            }
            for field in self.fields
        ]
        told.update(
            {name: getattr(self, name) for name in ("size", "key", "is_array", "source") if getattr(self, name)}
        )
        return json.dumps(told, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"

    @staticmethod
    def from_bytes(data: bytes, file: str = "a schema") -> Schema:
        """Raises SchemaError if these bytes are none, which `file` names."""
        try:
            told = json.loads(data)
            if told["chronicle_schema"] != VERSION:
                raise SchemaError(f"{file} is of version {told['chronicle_schema']!r}: it needs a later release")
            fields = tuple(_field(one) for one in told["fields"])
            made = Schema(
                told["codec"],
                _typed(told["name"], str),
                fields,
                _typed(told.get("size", 0), int),
                _typed(told["key"], str) if "key" in told else None,
                _typed(told.get("is_array", False), bool),
                _typed(told.get("source", ""), str),
            )
            if made.codec not in get_args(Codec):
                raise SchemaError(f"{file} has the codec {made.codec!r}, which this release does not know")
            return made.checked()
        except SchemaError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as wrong:
            raise SchemaError(f"{file} is damaged, or no schema: {wrong!r}") from None

    @property
    def hash(self) -> str:
        """SHA-256 of `to_bytes`, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    # --------------------------------------------------------------------------------------- payloads

    def decode(self, payload: bytes) -> Any:
        """Fixed layouts, JSON, msgpack: a dict of the fields, if they are known. Arrow: a RecordBatch. Else the bytes.

        Raises SchemaError if the payload does not fit, NotSupported if a library is missing.
        """
        if self.codec == "fixed":
            if len(payload) != self.size:
                raise SchemaError(f"the payload has {len(payload)} bytes, {self.name or 'its schema'} has {self.size}")
            return {field.name: layout.values(field, payload) for field in self.fields}
        try:
            if self.codec == "arrow":
                pyarrow = needs("pyarrow", "arrow")
                return pyarrow.ipc.read_record_batch(pyarrow.py_buffer(payload), self.arrow_schema())
            if self.codec not in ("json", "msgpack"):
                return payload
            found = json.loads(payload) if self.codec == "json" else needs("msgspec", "schema").msgpack.decode(payload)
        except (ValueError, OSError, RecursionError) as wrong:  # msgspec's and pyarrow's are ValueErrors
            raise SchemaError(f"the payload is no {self.codec}: {wrong}") from None
        return self._named(found) if self.fields else found

    def _named(self, found: Any) -> dict[str, Any]:
        if self.is_array:
            if not isinstance(found, list):
                raise SchemaError(f"the payload is {type(found).__name__}, and no array of fields")
            found = dict(zip((field.name for field in self.fields), found, strict=False))
        if not isinstance(found, dict):
            raise SchemaError(f"the payload is {type(found).__name__}, and no object with fields")
        for field in self.fields:
            if field.name not in found and not field.optional:
                raise SchemaError(f"the payload has no field {field.name!r}")
        return found

    def encode(self, value: Any) -> bytes:
        """The other way round. Fixed layouts take a dict or a row of numpy."""
        if self.codec == "fixed":
            numpy = needs("numpy", "arrow")
            row = numpy.zeros((), layout.dtype_of(self.fields, self.size))
            names = set(value.keys()) if isinstance(value, dict) else set(value.dtype.names or ())
            if wrong := names ^ {field.name for field in self.fields}:
                raise SchemaError(f"the value lacks, or has more than the schema: field {sorted(wrong)[0]!r}")
            for field in self.fields:
                row[field.name] = value[field.name]
            return bytes(row.tobytes())
        if self.codec == "arrow":
            if not value.schema.equals(self.arrow_schema()):
                raise SchemaError(f"the batch has the schema {value.schema}, another one is stored")
            return bytes(value.serialize())
        if self.codec == "json" and not hasattr(value, "__struct_fields__"):
            return json.dumps(value, ensure_ascii=False).encode()
        if self.codec in ("json", "msgpack"):
            return bytes(getattr(needs("msgspec", "schema"), self.codec).encode(value))
        return bytes(value)

    def arrow_schema(self) -> Any:
        """Of codec "arrow"."""
        pyarrow = needs("pyarrow", "arrow")
        try:
            return pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(self.source)))
        except (ValueError, OSError) as wrong:
            raise SchemaError(f"the Arrow schema {self.name} cannot be read: {wrong}") from None

    def dtype(self) -> Any:
        """numpy's dtype of a fixed layout; inner fields of nested structs are flat, as "outer.inner"."""
        needs("numpy", "arrow")
        if self.codec != "fixed":
            raise SchemaError(f"{self.name or 'the schema'} has the codec {self.codec}: only fixed layouts are arrays")
        return layout.dtype_of(self.fields, self.size)

    # -------------------------------------------------------------------------------------- changes

    def must_allow(self, later: Schema) -> None:
        """Raise SchemaError, with the field, if readers of this one could take records of ``later`` for something else.

        Fields stay as they are, and where they are. New ones may come: at the end of a fixed layout; else optional.
        """
        if self.codec != later.codec or self.is_array != later.is_array:
            raise SchemaError(f"the codec was {self.codec}, and would be {later.codec}: use another type_id")
        if self.codec == "protobuf" and self.name != later.name:
            raise SchemaError(f"the message was {self.name}, and would be {later.name}: use another type_id")
        if self.key != later.key:
            raise SchemaError(f"the key was {self.key!r}, and would be {later.key!r}: use another type_id")
        others = {field.name: field for field in later.fields}
        for place, field in enumerate(self.fields):
            other = others.get(field.name)
            if other is None:
                raise SchemaError(f"field {field.name!r} is gone: leave it, or use another type_id")
            same = (field.type, field.offset, field.shape) == (other.type, other.offset, other.shape)
            if not same or (self.is_array and later.fields[place].name != field.name):
                raise SchemaError(
                    f"field {field.name!r} was {field.type} {field.shape or ''} at {field.offset}, and would be "
                    f"{other.type} {other.shape or ''} at {other.offset}: use another name, or another type_id"
                )
            if other.optional and not field.optional:
                raise SchemaError(f"field {field.name!r} would be optional: readers rely on it")
        for field in later.fields:
            known = field.name in {one.name for one in self.fields}
            if (
                not known
                and (field.offset < self.size if self.codec == "fixed" else not field.optional)
                and self.fields
            ):
                raise SchemaError(
                    f"field {field.name!r} is new: it has to be {'at the end' if self.size else 'optional'}"
                )
        if later.size < self.size:
            raise SchemaError(f"the record had {self.size} bytes, and would have {later.size}")
        if self.codec == "arrow" and later.source != self.source:
            raise SchemaError("the Arrow schema is another one: use another type_id")


def needs(module: str, extra: str) -> Any:
    """A library that is not everybody's."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotSupported(f"this needs {module}: pip install chronicle-ffi[{extra}]") from None


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _field(told: dict[str, Any]) -> Field:
    return Field(
        _typed(told["name"], str),
        _typed(told["type"], str),
        _typed(told.get("offset", 0), int),
        tuple(_typed(length, int) for length in told.get("shape", ())),
        _typed(told.get("optional", False), bool),
    )


def _of(what: Any, codec: Literal["json", "msgpack"]) -> Schema:
    if isinstance(what, Schema):
        return what
    if what in ("bytes", "json", "msgpack"):
        return Schema(what)
    if isinstance(what, str):
        name, fields, size = layout.of_c(what)
        return Schema("fixed", name, fields, size, source=what)
    if isinstance(what, type) and hasattr(what, "__struct_fields__"):
        return _of_struct(what, codec)
    if hasattr(what, "DESCRIPTOR") and hasattr(what.DESCRIPTOR, "file"):
        source = base64.b64encode(what.DESCRIPTOR.file.serialized_pb).decode()
        return Schema("protobuf", what.DESCRIPTOR.full_name, source=source)
    if hasattr(what, "serialize") and hasattr(what, "field") and hasattr(what, "names"):
        fields = tuple(Field(field.name, str(field.type), optional=field.nullable) for field in what)
        return Schema("arrow", fields=fields, source=base64.b64encode(what.serialize()).decode())
    try:
        dtype = needs("numpy", "arrow").dtype(what)
    except TypeError:
        raise SchemaError(
            f"{what!r} is no schema: a dtype, a Struct, an Arrow schema, a C struct, or a codec"
        ) from None
    fields, size = layout.of_dtype(dtype)
    return Schema("fixed", fields=fields, size=size)


def _of_struct(struct: Any, codec: Literal["json", "msgpack"]) -> Schema:
    from msgspec.structs import fields

    told = tuple(Field(one.encode_name, _type_name(one.type), optional=not one.required) for one in fields(struct))
    return Schema(codec, struct.__name__, told, is_array=bool(struct.__struct_config__.array_like))


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
