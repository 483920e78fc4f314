# SPDX-License-Identifier: MIT
"""`Table`: the records of one type as columns, by their schema: what `Queue.scan` gives to polars, DuckDB, pandas."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from chronicle_ffi.errors import InvalidArgument, SchemaError
from chronicle_ffi.schema.described import Schema, needs
from chronicle_ffi.schema.layout import Field

if TYPE_CHECKING:
    from chronicle_ffi import Batch
    from chronicle_ffi.schema.store import Schemas

_HEAD = ("seq", "timestamp")
_NAMES = {"int": "int64", "float": "float64", "str": "string", "bytes": "binary", "bool": "bool_"}


class Table:
    """How the records of one type become columns: seq, timestamp, and the fields of the newest schema.

    Older records that lack a field have null there. Made by `Queue.scan`; stands on what a `Batch` offers to everybody.
    """

    def __init__(self, schemas: Schemas, type_id: int, columns: Sequence[str] | None = None, key: Any = None) -> None:
        self._versions = schemas.versions(type_id)
        if not self._versions:
            raise SchemaError(f"type {type_id} has no schema in this queue: its payloads have no columns")
        self.schema: Schema = self._versions[-1][1]
        self._key = key
        self._type_id = type_id
        if key is not None and self.schema.key is None:
            raise SchemaError(f"the schema of type {type_id} has no key: name one, Schema.of(..., key=...)")
        known = [*_HEAD, *(field.name for field in self.schema.fields)]
        if doubled := {*_HEAD} & {field.name for field in self.schema.fields}:  # the record's own would hide the field
            known = [name for name in known if name not in doubled] + sorted(doubled)
        self.columns = known if columns is None else list(columns)  #: names
        if unknown := [name for name in self.columns if name not in known]:
            raise InvalidArgument(f"there is no column {unknown[0]!r}: there are {known}")

    @property
    def has_columns(self) -> bool:
        """Whether the schema names fields: else payloads stay what they are."""
        return bool(self.schema.fields)

    def pick(self, batch: Batch) -> Batch:
        """Those of a batch whose key is the one that is wanted."""
        if self._key is None:
            return batch
        wanted = self._key
        keep: list[bool] = []
        for schema, part in self._parts(batch):
            if schema.codec == "fixed" and len(part):
                found = part.to_numpy(schema.dtype(), type_id=self._type_id)[schema.key]
                keep += (
                    found == (wanted.encode() if isinstance(wanted, str) and found.dtype.kind == "S" else wanted)
                ).tolist()
            else:
                keep += [schema.decode(payload).get(schema.key) == wanted for payload in part.payloads()]
        return batch if all(keep) else batch.take(list(compress(range(len(batch)), keep)))

    # ---------------------------------------------------------------------------------------- Arrow

    def arrow_schema(self) -> Any:
        """Of what `to_arrow` gives."""
        pa = needs("pyarrow", "arrow")
        return pa.schema([(name, self._type(name)) for name in self.columns])

    def to_arrow(self, batch: Batch) -> Iterator[Any]:
        """Record batches. One copy of each wanted column: Arrow's columns lie together, those of the log do not."""
        pa = needs("pyarrow", "arrow")
        for schema, part in self._parts(batch):
            rows = self._rows(schema, part)
            count = len(rows["seq"])
            arrays = [rows[name] if name in rows else pa.nulls(count, self._type(name)) for name in self.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.arrow_schema())

    def _parts(self, batch: Batch) -> Iterator[tuple[Schema, Batch]]:
        """By the schema that was in force."""
        begin = 0
        for i, (_, schema) in enumerate(self._versions):
            end = bisect_left(batch.seq, self._versions[i + 1][0]) if i + 1 < len(self._versions) else len(batch)
            if end > begin:
                yield schema, batch[begin:end]
            begin = max(begin, end)

    def _field(self, name: str) -> Field | None:
        return next((field for field in self.schema.fields if field.name == name), None)

    def _type(self, name: str) -> Any:
        pa = needs("pyarrow", "arrow")
        field = self._field(name)
        if field is None:
            return pa.uint64() if name == "seq" else pa.timestamp("ns", "UTC")
        if self.schema.codec == "arrow":
            return self.schema.arrow_schema().field(name).type
        if self.schema.codec != "fixed":
            return getattr(pa, _NAMES.get(field.type, "string"))()
        kind = field.type[1:]
        if kind[0] in "SV":
            found = pa.binary()
        elif kind[0] == "U":
            found = pa.string()
        else:
            found = pa.from_numpy_dtype(needs("numpy", "arrow").dtype(field.type).newbyteorder("="))
        for length in reversed(field.shape):
            found = pa.list_(found, length)
        return found

    def _rows(self, schema: Schema, part: Batch) -> dict[str, Any]:
        """Columns by name, of those that are wanted and that this schema has."""
        pa = needs("pyarrow", "arrow")
        found = part.numpy()
        if (found["timestamp_ns"] >> 63).any():
            raise InvalidArgument(
                "a timestamp lies beyond 2262-04-11, which Arrow cannot say: use the columns of batches"
            )
        head = {
            "seq": pa.array(found["seq"]),
            "timestamp": pa.array(found["timestamp_ns"]).view(pa.timestamp("ns", "UTC")),
        }
        names = [field.name for field in schema.fields if field.name in self.columns]
        if schema.codec == "fixed":
            rows = part.to_numpy(schema.dtype(), type_id=self._type_id)
            part.check()
            return head | {name: self._fixed(rows[name], name) for name in names}
        decoded = [schema.decode(payload) for payload in part.payloads()]
        if schema.codec == "arrow":
            table = pa.Table.from_batches(decoded, schema.arrow_schema()).combine_chunks()
            counts = [one.num_rows for one in decoded]
            at = pa.array([i for i, count in enumerate(counts) for _ in range(count)], pa.int64())
            columns = {name: pa.concat_arrays(table[name].chunks or [pa.nulls(0, self._type(name))]) for name in names}
            return {name: column.take(at) for name, column in head.items()} | columns
        return head | {name: self._plain([one.get(name) for one in decoded], name) for name in names}

    def _fixed(self, column: Any, name: str) -> Any:
        pa, np = needs("pyarrow", "arrow"), needs("numpy", "arrow")
        if column.dtype.kind in "SVU":
            return pa.array(
                column.astype(object).tolist() if column.dtype.kind != "V" else column.tolist(), self._type(name)
            )
        flat = np.ascontiguousarray(column, column.dtype.newbyteorder("=")).reshape(-1)
        made = pa.array(flat)
        for length in reversed(column.shape[1:]):
            made = pa.FixedSizeListArray.from_arrays(made, length)
        return made

    def _plain(self, values: list[Any], name: str) -> Any:
        """Values of JSON or msgpack. What is no plain value is JSON, as text."""
        pa = needs("pyarrow", "arrow")
        kind = self._type(name)
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as wrong:
            field = self._field(name)
            if field is not None and field.type in _NAMES:
                raise SchemaError(f"field {name!r} does not hold what its schema says, {field.type}: {wrong}") from None
            import json

            return pa.array([None if value is None else json.dumps(value, default=str) for value in values], kind)
