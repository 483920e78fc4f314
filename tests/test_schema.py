# SPDX-License-Identifier: MIT
"""Records that describe themselves: what a schema can be, how it is stored and changes, and what a stranger gets."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicle_ffi import InvalidArgument, Queue, SchemaError
from chronicle_ffi.cli import main
from chronicle_ffi.schema import Field, Schema, Schemas
from tests.interop import need

POINT = "struct point { double x; float y[2]; char name[6]; uint16_t n; };"


def point(x: float, name: bytes = b"a", n: int = 1) -> bytes:
    return struct.pack("<d2f6sH", x, 1.0, 2.0, name, n)


def test_a_stranger_gets_names(queue: Path) -> None:
    with Queue.open_publisher(queue, schema={1: POINT, 2: "json", 3: "bytes"}) as writer:
        writer.append(point(0.5, b"EUR"), 1)
        writer.append(b'{"a": [1, 2]}', 2)
        writer.append(b"raw", 3)
        writer.append(b"none", 4)
    with Queue.open_subscriber(queue) as reader:
        one, two, three, four = reader
        assert one.decode() == {"x": 0.5, "y": [1.0, 2.0], "name": b"EUR", "n": 1}
        assert (two.decode(), three.decode()) == ({"a": [1, 2]}, b"raw")
        assert type(pickle.loads(pickle.dumps(one))).__name__ == "Message"
        assert pickle.loads(pickle.dumps(one)) == one
        assert repr(one).startswith("Message(seq=0, ")
        with pytest.raises(SchemaError, match="type 4 has no schema"):
            four.decode()


def test_a_payload_that_does_not_fit(queue: Path) -> None:
    with Queue.open_publisher(queue, schema={1: POINT, 2: "json"}) as writer:
        writer.append(point(0.5)[:-1], 1)
        writer.append(b"{", 2)
    with Queue.open_subscriber(queue) as reader:
        for message, said in zip(
            reader, ("record 0, type 1: the payload has 23 bytes, point has 24", "record 1"), strict=True
        ):
            with pytest.raises(SchemaError, match=said):
                message.decode()


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ("struct point { float x; float y[2]; char name[6]; uint16_t n; };", "'x' was <f8"),
        ("struct point { double x; float y[3]; char name[6]; uint16_t n; };", "'y' was <f4"),
        ("struct point { double x; float y[2]; char name[6]; };", "'n' is gone"),
        ("struct point { double x; float y[2]; uint16_t n; char name[6]; };", "'name' was"),
        ("json", "codec was fixed"),
    ],
)
def test_what_contradicts_is_refused(queue: Path, later: str, said: str) -> None:
    with Queue.open_publisher(queue, schema={1: POINT}):
        pass
    before = sorted(os.listdir(queue / "schema"))
    with pytest.raises(SchemaError, match=said):
        Queue.open_publisher(queue, schema={1: later, 2: "json"})
    assert sorted(os.listdir(queue / "schema")) == before
    with Queue.open_publisher(queue, schema={1: POINT}) as writer:  # the lock was given back, and it is stored once
        assert sorted(os.listdir(queue / "schema")) == before
        assert writer.append(point(1), 1) == 0


def test_a_record_grows(queue: Path) -> None:
    """New fields at the end: each record is read by the schema of its time."""
    with Queue.open_publisher(queue, schema={1: "struct p { int a; };"}) as writer:
        writer.append(struct.pack("<i", 1), 1)
    with Queue.open_publisher(queue, schema={1: "struct p { int a; int b; };"}) as writer:
        writer.append(struct.pack("<ii", 2, 3), 1)
    with Queue.open_subscriber(queue) as reader:
        assert [message.decode() for message in reader] == [{"a": 1}, {"a": 2, "b": 3}]
    pyarrow = need("pyarrow")
    table = Queue.scan(queue, type_id=1).to_arrow().read_all()
    assert table.drop_columns("timestamp").to_pylist() == [{"seq": 0, "a": 1, "b": None}, {"seq": 1, "a": 2, "b": 3}]
    assert table.schema.field("b").type == pyarrow.int32()


@pytest.mark.parametrize(
    "text",
    ["struct p { double *x; };", "struct p { int a:3; };", "struct p { struct q b; };", "union u { int a; };", "hello",
     "", "struct p { };", "struct p { int a; int a; };", "struct p { char a[0]; };",
     "struct p { int a[999999999][999]; };"],
)  # fmt: skip
def test_what_is_no_struct(queue: Path, text: str) -> None:
    with pytest.raises(SchemaError):
        Queue.open_publisher(queue, schema={1: text})
    assert not queue.exists()


LAYOUTS = [
    "struct a { char c; double d; char e; short s; };",
    "typedef struct { uint8_t a; int64_t b[3]; unsigned char c[2][5]; float f; bool g; } b;",
    "struct __attribute__((packed)) c { char a; uint32_t b, c; unsigned long d; };",
    "struct d { /* bid */ double bid; // ask\n double ask; char symbol[3]; unsigned int size; const int8_t last; };",
]


def test_structs_lie_as_the_compiler_lays_them_out(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    lines = []
    for text in LAYOUTS:
        schema = Schema.of(text)
        kind = schema.name if text.startswith("typedef") else f"struct {schema.name}"
        lines += [text, f'_Static_assert(sizeof({kind}) == {schema.size}, "size");']
        lines += [f'_Static_assert(offsetof({kind}, {f.name}) == {f.offset}, "{f.name}");' for f in schema.fields]
    source = tmp_path / "layouts.c"
    source.write_text("#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n" + "\n".join(lines))
    subprocess.run([compiler, "-std=c11", "-fsyntax-only", source], check=True)


@given(data=st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.sampled_from("chronicle_schema codec name fields type offset shape size key".split()), inner)),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_bytes_in_place_of_a_schema(data: bytes) -> None:
    with pytest.raises(SchemaError, match="some file"):
        Schema.from_bytes(data, "some file")


@given(place=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_schema_that_is_damaged(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    queue = tmp_path_factory.mktemp("damaged") / "queue"
    with Queue.open_publisher(queue, schema={1: POINT}, segment_size=1 << 16, keeper=False) as writer:
        writer.append(point(1), 1)
    (file,) = (queue / "schema").iterdir()
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    with Queue.open_subscriber(queue) as reader:
        message = reader.next()
        assert message is not None
        assert message.payload == point(1)
        with pytest.raises(SchemaError, match=r"schema/00001-.* is damaged"):
            message.decode()
    with pytest.raises(SchemaError, match="damaged"):
        Queue.open_publisher(queue, schema={1: POINT})
    shutil.rmtree(queue)


def test_a_schema_that_lies() -> None:
    """Under a right hash, too: places beyond the record, sizes beyond all measure."""
    good: dict[str, Any] = json.loads(Schema.of(POINT).to_bytes())
    for change in (
        {"size": 23}, {"size": 1 << 40}, {"size": -1}, {"codec": "pickle"}, {"key": "z"}, {"chronicle_schema": 2},
        {"fields": [{"name": "x", "type": "<f8", "offset": 20}]},
        {"fields": [{"name": "x", "type": "|O", "offset": 0}]},
        {"fields": [{"name": "x", "type": "<f8", "offset": -8}]},
        {"fields": [{"name": "x", "type": "|u1", "offset": 0, "shape": [1 << 40, 0]}]},
    ):  # fmt: skip
        with pytest.raises(SchemaError):
            Schema.from_bytes(json.dumps({**good, **change}).encode())
    assert Schema.from_bytes(json.dumps(good).encode()).hash == Schema.of(POINT).hash


def test_tail_prints_fields(queue: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with Queue.open_publisher(queue, schema={1: POINT}) as writer:
        for i in range(30):
            writer.append(point(i, b"\xff") if i % 10 == 9 else b"other", 1 if i % 10 == 9 else 2)
    assert main(["tail", str(queue), "--format", "json", "--type", "1", "-n", "2"]) == 0
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["seq"] for line in lines] == [19, 29]
    assert lines[1]["fields"] == {"x": 29.0, "y": [1.0, 2.0], "name": {"base64": "/w=="}, "n": 1}


def test_one_who_came_before(queue: Path) -> None:
    with Queue.open_publisher(queue, keeper=False) as writer, Queue.open_subscriber(queue) as reader:
        writer.append(point(1), 1)
        writer.append(point(2), 1)
        assert reader.next().schema is None  # type: ignore[union-attr]
        writer.describe({1: POINT})
        reader.describe(Schemas(queue))
        assert reader.next().decode()["x"] == 2.0  # type: ignore[union-attr]
        with Queue.open_publisher(queue.with_name("other"), schema={1: POINT}) as other:
            with pytest.raises(SchemaError, match="'z'"):
                other.append_object({"x": 1.0, "y": [1, 2], "name": b"", "n": 1, "z": 1}, 1)
            with pytest.raises(SchemaError, match="no schema was given"):
                other.append_object(1)


# --------------------------------------------------------------------------- numpy, Arrow, msgspec


def test_mixed_batches(queue: Path) -> None:
    """Records of another type of the same size are not taken for the ones that were asked for."""
    np = need("numpy")
    quote = np.dtype([("bid", "f8"), ("ask", "f8")])
    other = np.dtype([("a", "i8"), ("b", "i8")])
    with Queue.open_publisher(queue, schema={1: quote, 2: other}) as writer:
        for i in range(100):
            writer.append(np.array([(i, i + 1)], quote if i % 3 else other).tobytes(), 1 if i % 3 else 2)
        with pytest.raises(SchemaError, match="8 bytes"):
            writer.append_array(np.arange(3.0), type_id=1)
    with Queue.open_subscriber(queue) as reader:
        batch = reader.read_batch()
        with pytest.raises(InvalidArgument, match="type_id"):
            batch.to_numpy(quote)
        assert batch.to_numpy(type_id=1)["bid"].tolist() == [i for i in range(100) if i % 3]
        assert batch.to_numpy(type_id=2)["a"].tolist() == list(range(0, 100, 3))
        assert batch.to_numpy(type_id=1, header=True)["seq"].tolist() == [i for i in range(100) if i % 3]
        assert not batch.to_numpy(type_id=1).flags.writeable
        assert len(batch.to_numpy(type_id=3)) == 0
        even = batch.of_type(2).to_numpy(type_id=2)
        assert even.base is not None  # every third: no copy
        assert len(batch.of_type(1)) == 66


def test_columns(queue: Path) -> None:
    pa, np = need("pyarrow"), need("numpy")
    kind = np.dtype(
        [("bid", "f8"), ("at", "<M8[ns]"), ("ok", "?"), ("sym", "S4"), ("v", "<i2", (2,)), ("in", [("a", ">u4")])]
    )
    rows = np.zeros(5, kind)
    rows["bid"], rows["sym"], rows["v"] = range(5), [b"a", b"b", b"a", b"c", b"a"], [[i, -i] for i in range(5)]
    rows["in"]["a"] = 7
    with Queue.open_publisher(queue, schema={1: Schema.of(kind, key="sym")}) as writer:
        writer.append(b"x", 2)
        writer.append_array(rows, type_id=1)
    table = Queue.scan(queue, type_id=1).to_arrow().read_all()
    assert table.column_names == ["seq", "timestamp", "bid", "at", "ok", "sym", "v", "in.a"]
    assert table["v"].to_pylist() == [[i, -i] for i in range(5)]
    assert (table["sym"][3].as_py(), table["in.a"][0].as_py(), table["ok"].type) == (b"c", 7, pa.bool_())
    some = Queue.scan(queue, type_id=1, columns=["bid", "seq"], key="a", batch_records=2).to_arrow().read_all()
    assert some.to_pydict() == {"bid": [0, 2, 4], "seq": [1, 3, 5]}
    for wrong in ({"columns": ["x"]}, {"type_id": None, "key": "a"}, {"type_id": 2, "columns": ["bid"]}):
        with pytest.raises(InvalidArgument):
            Queue.scan(queue, **{"type_id": 1, **wrong})  # type: ignore[arg-type]
    polars, duckdb = need("polars"), need("duckdb")
    assert polars.DataFrame(Queue.scan(queue, type_id=1))["bid"].sum() == 10
    scan = Queue.scan(queue, type_id=1)
    assert duckdb.sql("select sum(bid) from scan where sym = 'a'").fetchall() == [(6.0,)]
    assert scan.to_arrow().read_pandas()["bid"].tolist() == [0, 1, 2, 3, 4]


def test_structs_of_msgspec(queue: Path) -> None:
    msgspec, _ = need("msgspec"), need("pyarrow")
    order = msgspec.defstruct(
        "Order", [("side", str), ("size", int), ("tags", list, msgspec.field(default_factory=list))]
    )
    short = msgspec.defstruct("Short", [("a", int), ("b", float)], array_like=True)
    with Queue.open_publisher(queue, schema={1: order, 2: Schema.of(short, codec="json")}) as writer:
        writer.append_object(order("buy", 100, ["x"]))
        writer.append_object(short(1, 2.5), 2)
        writer.append(msgspec.msgpack.encode({"side": "buy"}), 1)
    with Queue.open_subscriber(queue) as reader:
        one, two, three = reader
        assert one.decode() == {"side": "buy", "size": 100, "tags": ["x"]}
        assert two.decode() == {"a": 1, "b": 2.5}
        with pytest.raises(SchemaError, match="no field 'size'"):
            three.decode()
    table = Queue.scan(queue, type_id=1, stop=1).to_arrow().read_all()
    assert table.drop_columns(["seq", "timestamp"]).to_pylist() == [{"side": "buy", "size": 100, "tags": '["x"]'}]
    more = msgspec.defstruct("Order", [("side", str), ("size", int), ("tags", list, []), ("limit", float, 0.0)])
    with Queue.open_publisher(queue, schema={1: more}):
        pass
    with pytest.raises(SchemaError, match="'stop' is new"):
        Queue.open_publisher(queue, schema={1: msgspec.defstruct("Order", [
            ("side", str), ("size", int), ("stop", int), ("tags", list, []), ("limit", float, 0.0)])})  # fmt: skip


def test_arrow_batches_and_descriptors(queue: Path) -> None:
    pa = need("pyarrow")
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])

    class Message:
        class DESCRIPTOR:
            full_name = "p.M"

            class file:
                serialized_pb = b"\n\x01x"

    with Queue.open_publisher(queue, schema={1: schema, 2: Message}) as writer:
        writer.append_object(pa.record_batch({"a": [1, 2], "b": ["x", None]}, schema), 1)
        writer.append(b"\x08\x01", 2)
        writer.append_object(pa.record_batch({"a": [3], "b": ["z"]}, schema), 1)
        writer.append(b"nonsense", 1)
    assert Queue.scan(queue, type_id=1, stop=3, columns=["seq", "a", "b"]).to_arrow().read_all().to_pydict() == {
        "seq": [0, 0, 2],
        "a": [1, 2, 3],
        "b": ["x", None, "z"],
    }
    with Queue.open_subscriber(queue, start=1) as reader:
        message = reader.next()
        assert message is not None
        assert message.schema is not None
        assert (message.decode(), message.schema.name) == (b"\x08\x01", "p.M")
        assert reader.next() is not None
        with pytest.raises(SchemaError, match="no arrow"):
            reader.next().decode()  # type: ignore[union-attr]


def test_field_by_field() -> None:
    assert Schema.of(POINT).fields == (
        Field("x", "<f8", 0),
        Field("y", "<f4", 8, (2,)),
        Field("name", "|S6", 16),
        Field("n", "<u2", 22),
    )
