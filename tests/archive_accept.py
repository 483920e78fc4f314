# SPDX-License-Identifier: MIT
"""A large queue through an archive and back: byte for byte, and how fast and small beside ``zstd -T1``. On demand.

    python -m tests.archive_accept --gigabytes 2 --seed 1 --directory /var/tmp/accept

Everything is compared: each file restored with what it was, the records by the second decoder (with another library's
CRC-32C, since a table in Python takes hours), DuckDB over the export with `Queue.scan`. Figures are shown, never
asserted.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import google_crc32c

from chronicle_ffi import Queue
from chronicle_ffi.archive import Archive, export, open_subscriber
from tests import decoder

T = TypeVar("T")
SEEKS = 300
COUNT = 1000


def quotes(rng: random.Random, start_ns: int) -> tuple[list[bytes], int]:
    """A thousand updates of prices that walk, as structs of 52 bytes; and when the next ones come."""
    found = []
    for _ in range(COUNT):
        start_ns += rng.randrange(10**6)
        place = rng.randrange(50)
        price = 100 + place + round(rng.gauss(0, 1), 2)
        fields = (start_ns, place, rng.randrange(1000), price, price + 0.01, price - 0.5, rng.randrange(4))
        found.append(struct.pack("<QIIdddI", *fields))
    return found, start_ns


def fill(queue: Path, size: int, rng: random.Random) -> None:
    """Binary quotes, lines of text, and what cannot be compressed, in turns; over some days."""
    words = [bytes(rng.choices(b"etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(3000)]
    at = 1_700_000_000 * 10**9
    with Queue.open_publisher(queue) as writer:
        blocks = [quotes(rng, at)[0] for _ in range(40)]
        blocks += [[b" ".join(rng.choices(words, k=rng.randrange(5, 40))) for _ in range(COUNT)] for _ in range(40)]
        blocks += [[rng.randbytes(rng.randrange(300)) for _ in range(COUNT)] for _ in range(8)]
        while writer.stats().rolls * (64 << 20) < size:
            for block in rng.sample(blocks, len(blocks)):
                stamp = at.to_bytes(8, "little")
                mark = rng.randbytes(6)  # so that no block comes twice
                made = [stamp[:5] + mark[: 1 + i % 6] + one for i, one in enumerate(block)]
                writer.append_many(made, type_id=len(block[0]) % 100, timestamp_ns=at)
                at += 40 * 10**9
        writer.sync()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    begin = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begin


def seeks(reader: object, seqs: list[int]) -> list[float]:
    """Milliseconds of each, sorted."""
    found = []
    for seq in seqs:
        begin = time.perf_counter()
        reader.seek(seq)  # type: ignore[attr-defined]
        assert reader.next().seq == seq  # type: ignore[attr-defined]
        found.append((time.perf_counter() - begin) * 1000)
    return sorted(found)


def digests(queue: Path) -> dict[str, str]:
    found = {}
    for path in sorted(queue.glob("*.seg")):
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while data := file.read(1 << 22):
                digest.update(data)
        found[path.name] = digest.hexdigest()
    return found


def beside_zstd(queue: Path, place: Path) -> None:
    files = sorted(queue.glob("*.seg"))[:-1]
    total = sum(path.stat().st_size for path in files)
    stored, seconds = timed(
        lambda: sum(
            len(subprocess.run(["zstd", "-T1", "-3", "-q", "-c", path], check=True, capture_output=True).stdout)
            for path in files
        )
    )
    report, ours = timed(lambda: Archive(queue, place).run(keep_local=True))
    assert report.segment_bytes == total
    print(f"zstd -T1 -3: {total / seconds / 1e6:.0f} MB/s, {total / stored:.3f} to 1")
    print(
        f"archive, written, read back and compared: {total / ours / 1e6:.0f} MB/s,"
        f" {total / report.object_bytes:.3f} to 1"
    )
    print(f"size {report.object_bytes / stored:.4f} of zstd's, time {ours / seconds:.2f} of zstd's", flush=True)


def there_and_back(queue: Path, place: Path, back: Path) -> None:
    before = digests(queue)
    found, seconds = timed(lambda: Archive(None, place).verify())
    assert found.ok, found
    assert not found.orphans
    print(f"verify: {found.records} records, {found.segments * (64 << 20) / seconds / 1e6:.0f} MB/s")
    _, seconds = timed(lambda: Archive(None, place).restore(back))
    after = digests(back)
    assert after == {name: before[name] for name in after}
    assert len(after) == len(before) - 1
    print(
        f"restored: {len(after)} files, byte for byte, {len(after) * (64 << 20) / seconds / 1e6:.0f} MB/s", flush=True
    )


def by_the_decoder(place: Path) -> None:
    """One segment after the other: each holds the records that its entry tells of, with right CRCs."""
    decoder.crc = google_crc32c.value
    import zstandard

    unzstd = zstandard.ZstdDecompressor().decompress
    records = 0
    for entry in Archive(None, place).entries:
        names = ("archive.json", f"manifest/{entry.base_seq:020}.json", entry.object)
        decoder.archive({name: (place / name).read_bytes() for name in names}, unzstd)
        records += entry.records
    print(f"the second decoder agrees: {records} records", flush=True)


def reading(queue: Path, place: Path, rng: random.Random) -> None:
    end = Archive(None, place).entries[-1].next_seq
    seqs = [rng.randrange(end) for _ in range(SEEKS)]
    with Queue.open_subscriber(queue) as local, open_subscriber(None, place) as archived:
        here, there = seeks(local, seqs), seeks(archived, seqs)
        middle = SEEKS // 2
        print(
            f"a random seek and a record: {here[middle]:.3f} ms here, {there[middle]:.3f} ms there (median),"
            f" {here[-SEEKS // 50]:.3f} and {there[-SEEKS // 50]:.3f} ms (98 %):"
            f" {there[middle] / here[middle]:.0f} times"
        )
        for name, reader in (("here", local), ("there", archived)):
            reader.seek(0)
            begin = time.perf_counter()
            while reader.position < end and (batch := reader.read_batch()):
                size = len(batch)
            assert size
            print(
                f"columns {name}: {end / (time.perf_counter() - begin) / 1e6:.1f} million records a second", flush=True
            )


def tables(queue: Path, place: Path, to: Path) -> None:
    import duckdb

    report, seconds = timed(lambda: export(queue, to, archive=place))
    print(f"export: {report.records / seconds / 1e6:.2f} million records a second, {len(report.files)} files")
    ask = (
        "select count(*), sum(seq), min(seq), max(seq), sum(epoch_ns(timestamp)::hugeint), sum(octet_length(payload)),"
        " bit_xor(hash(seq, timestamp, type_id, flags, payload)) from {}"
    )
    scan = duckdb.from_arrow(Queue.scan(queue).to_arrow(packed=True))
    wanted = scan.query("scanned", ask.format("scanned")).fetchall()
    assert wanted == duckdb.sql(ask.format(f"'{to}/*/*.parquet'")).fetchall()
    print("DuckDB over the export gives what a scan gives", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--directory", type=Path, help="where; by default where temporary files are")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.gigabytes} GB")
    rng = random.Random(args.seed)
    where = Path(tempfile.mkdtemp(prefix="chronicle-accept-", dir=args.directory))
    try:
        fill(where / "queue", int(args.gigabytes * 1e9), rng)
        print(Queue.info(where / "queue").next_seq, "records", flush=True)
        beside_zstd(where / "queue", where / "archive")
        reading(where / "queue", where / "archive", rng)
        there_and_back(where / "queue", where / "archive", where / "back")
        shutil.rmtree(where / "back")
        by_the_decoder(where / "archive")
        tables(where / "queue", where / "archive", where / "tables")
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
