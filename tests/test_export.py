# SPDX-License-Identifier: MIT
"""Parquet from a queue: every record once, whoever is killed, and in the folder of its day."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from chronicle_ffi import InvalidArgument, Queue
from tests.archive_child import Children
from tests.interop import need

need("obstore")
need("zstandard")
pq = need("pyarrow.parquet")

from chronicle_ffi.archive import Archive, ArchiveDamaged, ArchiveMismatch, _export, export  # noqa: E402

DAY = 86400 * 10**9


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.close()


def fill(queue: Path, records: int, seed: int = 1) -> None:
    """Over five days, mostly in order."""
    rng = random.Random(seed)
    with Queue.open_publisher(queue, segment_size=1 << 16, keeper=False) as writer:
        for i in range(records):
            at = 19_000 * DAY + i * 5 * DAY // records + rng.randrange(DAY // 100)
            writer.append(rng.randbytes(rng.randrange(200)), i % 5, timestamp_ns=at)


def rows(place: Path) -> list[tuple[object, ...]]:
    """Of all files, by seq; each in the folder of its day."""
    found = []
    for path in place.glob("*/*.parquet"):
        table = pq.ParquetFile(path).read()
        for row in zip(
            *(column.to_pylist() for column in (table["seq"], table["timestamp"].cast("int64"))), strict=True
        ):
            date = datetime.fromtimestamp(row[1] // 10**9, timezone.utc).date()
            assert path.parent.name == f"date={date}"
            found.append(row)
    return sorted(found)


def wanted(queue: Path) -> list[tuple[object, ...]]:
    with Queue.open_subscriber(queue) as reader:
        return [(message.seq, message.timestamp_ns) for message in reader]


def test_every_run_adds_what_came_since(queue: Path, tmp_path: Path) -> None:
    place = tmp_path / "tables"
    fill(queue, 2000)
    first = export(queue, place)
    assert (first.first_seq, first.next_seq, first.records) == (0, 2000, 2000)
    assert len(first.files) == 6  # days that are begun
    assert rows(place) == wanted(queue)
    assert export(queue, place).files == []
    fill(queue, 1000, 2)
    second = export(queue, place, stop=2500)
    assert (second.first_seq, second.next_seq) == (2000, 2500)
    assert export(queue, place).records == 500
    assert rows(place) == wanted(queue)


def test_with_the_archive_and_from_it_alone(queue: Path, tmp_path: Path) -> None:
    fill(queue, 2000)
    copy = wanted(queue)
    Archive(queue, tmp_path / "archive").run()
    export(queue, tmp_path / "both", archive=tmp_path / "archive")
    assert rows(tmp_path / "both") == copy
    end = export(None, tmp_path / "alone", archive=tmp_path / "archive").next_seq
    assert rows(tmp_path / "alone") == copy[:end]


def test_engines_give_what_a_scan_gives(queue: Path, tmp_path: Path) -> None:
    duckdb, polars = need("duckdb"), need("polars")
    fill(queue, 3000)
    export(queue, tmp_path, group_rows=100)
    files = f"{tmp_path}/*/*.parquet"
    scanned = Queue.scan(queue).to_arrow(packed=True).read_all()
    ask = "select seq, epoch_ns(timestamp), type_id, flags, payload from {} order by seq"
    assert duckdb.sql(ask.format(f"'{files}'")).fetchall() == duckdb.sql(ask.format("scanned")).fetchall()
    assert scanned.num_rows == 3000
    since, until = 19_002 * DAY + 5 * 10**12, 19_002 * DAY + 7 * 10**12
    inside = [seq for seq, time_ns in wanted(queue) if since <= time_ns < until]  # type: ignore[operator]
    frame = polars.scan_parquet(files).filter(
        polars.col("timestamp").is_between(
            polars.lit(since).cast(polars.Datetime("ns", "UTC")),
            polars.lit(until).cast(polars.Datetime("ns", "UTC")),
            closed="left",
        )
    )
    assert sorted(frame.collect()["seq"].to_list()) == inside
    assert 0 < len(inside) < 300


def test_row_groups_tell_their_times(queue: Path, tmp_path: Path) -> None:
    """By which engines leave out what a filter does not want."""
    fill(queue, 3000)
    for name in export(queue, tmp_path, group_rows=100).files:
        file = pq.ParquetFile(tmp_path / name)
        for i in range(file.num_row_groups):
            group = file.metadata.row_group(i)
            assert group.num_rows <= 100
            times = file.read_row_group(i)["timestamp"].cast("int64").to_pylist()
            told = group.column(1).statistics
            assert group.column(1).path_in_schema == "timestamp"
            assert told.has_min_max
            low, high = (int(value.value) if hasattr(value, "value") else value for value in (told.min, told.max))
            assert (low, high) == (min(times), max(times))


def test_killed_anywhere_every_record_is_there_once(queue: Path, tmp_path: Path, children: Children) -> None:
    fill(queue, 200)
    place = tmp_path / "tables"
    step = -1
    while True:
        step += 2  # every second: two of them are the same file, written and about to be
        shutil.rmtree(place, ignore_errors=True)
        killed = children.run("export", step, queue, place, 120)
        seen = [row[0] for row in rows(place)]
        assert len(seen) == len(set(seen))
        if not killed:
            break
        if step % 5 == 0:
            children.run("export", 2, queue, place, 60)
        export(queue, place)
        assert rows(place) == wanted(queue)
    assert step > 10


def test_two_at_once(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_export, "CHUNK_ROWS", 300)
    fill(queue, 2000)
    both = [threading.Thread(target=export, args=(queue, tmp_path)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert rows(tmp_path) == wanted(queue)


def test_what_is_refused(queue: Path, tmp_path: Path) -> None:
    fill(queue, 100)
    fill(tmp_path / "other", 100, 2)
    place = tmp_path / "tables"
    export(queue, place)
    with pytest.raises(ArchiveMismatch, match="holds the queue"):
        export(tmp_path / "other", place)
    with pytest.raises(InvalidArgument):
        export(None, place)
    with pytest.raises(InvalidArgument):
        export(queue, place, group_rows=0)
    claim = next((place / "_chronicle").iterdir())
    text = claim.read_text()
    for data in ("", text[:20], "[]", json.dumps(json.loads(text) | {"next": 0})):
        claim.write_text(data)
        with pytest.raises(ArchiveDamaged, match="delete it"):
            export(queue, place)
    with Queue.open_publisher(queue, keeper=False) as writer:
        writer.append(b"of another age", timestamp_ns=2**63)
    claim.write_text(text)
    with pytest.raises(InvalidArgument, match="2262"):
        export(queue, place)
