# SPDX-License-Identifier: MIT
"""Ask pandas, polars or DuckDB about the records of a queue: how many, and how many bytes, of each type?

    python tables.py /tmp/q duckdb

Each needs pyarrow and itself. ``Queue.scan`` hands over Arrow record batches, whose payloads lie in the mapped files.
"""

import sys

from chronicle_ffi import Queue, Scan

Answer = list[tuple[int, int, int]]  # type_id, records, bytes


def with_pandas(scan: Scan) -> Answer:
    frame = scan.to_arrow().read_pandas()
    sizes = frame.assign(size=frame["payload"].str.len()).groupby("type_id")["size"]
    return [(int(kind), int(count), int(total)) for kind, count, total in sizes.agg(["size", "sum"]).itertuples()]


def with_polars(scan: Scan) -> Answer:
    import polars as pl

    sizes = pl.DataFrame(scan).group_by("type_id").agg(pl.len(), pl.col("payload").bin.size().sum()).sort("type_id")
    return list(sizes.iter_rows())


def with_duckdb(scan: Scan) -> Answer:
    import duckdb

    records = duckdb.from_arrow(scan.to_arrow())
    sizes = records.aggregate("type_id, count(*), sum(octet_length(payload))::bigint", "type_id").order("type_id")
    found: Answer = sizes.fetchall()
    return found


ENGINES = {"pandas": with_pandas, "polars": with_polars, "duckdb": with_duckdb}


def main(queue: str, engine: str) -> None:
    with Queue.scan(queue) as scan:
        for type_id, records, size in ENGINES[engine](scan):
            print(f"type {type_id}: {records} records, {size} bytes")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
