# SPDX-License-Identifier: MIT
"""What payloads mean: schemas that lie in the queue, so that whoever has the directory gets named fields.

A publisher says what each type_id holds; that is stored in the queue's directory, once, before the first record::

    quote = numpy.dtype([("bid", "f8"), ("ask", "f8")])
    with Queue.open_publisher("q", schema={1: quote}) as writer:
        writer.append_array(numpy.array([(1.0, 1.5)], quote), type_id=1)

    with Queue.open_subscriber("q") as reader:
        reader.next().decode()  # {'bid': 1.0, 'ask': 1.5}
    polars.DataFrame(Queue.scan("q", type_id=1))  # columns seq, timestamp, bid, ask

It stands on the public API, as a program of anybody's could. numpy, msgspec and pyarrow are imported where they are
asked for.
"""

from chronicle_ffi.errors import SchemaError
from chronicle_ffi.schema.described import Codec, Schema
from chronicle_ffi.schema.layout import Field
from chronicle_ffi.schema.store import Schemas, store
from chronicle_ffi.schema.table import Table

__all__ = ["Codec", "Field", "Schema", "SchemaError", "Schemas", "Table", "store"]
