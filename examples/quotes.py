# SPDX-License-Identifier: MIT
"""Reads what quotes.c has written, knowing nothing but where it lies: as in a notebook, cell by cell.

python examples/quotes.py /tmp/quotes
"""

import sys

import polars

from chronicle_ffi import Queue
from chronicle_ffi.schema import Schemas

path = sys.argv[1]

# What is in there?
schema = Schemas(path).of(1)
assert schema is not None
print(f"{schema.name}: {', '.join(field.name for field in schema.fields)}")

# The newest one, without reading the others.
with Queue.open_subscriber(path, start="latest", types=1) as reader:
    newest = reader.previous()
    assert newest is not None
    print(f"newest: {newest.decode()['symbol'].decode()} {newest.decode()['bid']:.3f}")

# As a table; the columns that are not asked for are not made.
quotes = polars.DataFrame(Queue.scan(path, type_id=1, columns=["symbol", "bid", "ask"]))
spread = (
    quotes.group_by("symbol").agg((polars.col("ask") - polars.col("bid")).mean().round(6), polars.len()).sort("symbol")
)
for symbol, width, count in spread.iter_rows():
    print(f"{symbol.decode()}: {count} quotes, mean spread {width}")

# As arrays of numpy over the mapped file, of one key.
best = max(float(batch.to_numpy(type_id=1)["bid"].max()) for batch in Queue.scan(path, type_id=1, key="EURGBP"))
print(f"EURGBP: best bid {best:.3f}")
