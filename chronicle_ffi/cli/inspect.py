# SPDX-License-Identifier: MIT
"""``chronicle inspect``: what is in a queue, who writes it, who reads it and how far they are."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from chronicle_ffi import QuarantineFile, Queue, QueueInfo, ReaderInfo, SegmentInfo
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import OK
from chronicle_ffi.cli.text import binary_size, number, plural, table, utc

EXAMPLES = """\
  chronicle inspect /var/tmp/q
  chronicle inspect /var/tmp/q --json | jq '.readers[] | select(.lag > 1000) | .name'

Only looks: the queue may be in use, and read permission is enough.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "inspect",
        "show what is in a queue, and who reads it",
        "Show a queue's geometry, head, durable mark, segments, writer, and readers with their lag.",
        EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object; times in ns, sizes in bytes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    info = Queue.info(args.queue)
    segments = Queue.segments(args.queue)
    readers = Queue.readers(args.queue)
    if args.json:
        kept = Queue.quarantine(args.queue)
        print(json.dumps(as_object(args.queue, info, segments, readers, kept), indent=2))
    else:
        print("\n".join([*head(args.queue, info), "", *segment_lines(segments), "", *reader_lines(readers)]))
    return OK


def head(path: str, info: QueueInfo) -> list[str]:
    records = info.next_seq - info.oldest_seq
    held = plural(records, "record")
    if records:
        held += f", seq {info.oldest_seq} to {info.next_seq - 1}"
    lost = ["          queue.meta is missing or damaged: chronicle repair makes it anew"] if info.meta_lost else []
    return [
        f"queue     {path}",
        f"          {info.uuid}, format {info.format_version}, created {utc(info.created_ns)}",
        *lost,
        f"records   {held}",
        f"durable   {'nothing yet' if info.durable_seq < 0 else f'up to seq {info.durable_seq}'}",
        f"segments  {info.segments} of {binary_size(info.segment_size)}, {binary_size(info.bytes)} in all",
        *quarantine_line(path, info),
        f"writer    {writer_line(info)}",
    ]


def quarantine_line(path: str, info: QueueInfo) -> list[str]:
    if not info.quarantine_files:
        return []
    held = f"{plural(info.quarantine_files, 'file')}, {binary_size(info.quarantine_bytes)}"
    return [f"set aside {held}: chronicle quarantine {path}"]


def writer_line(info: QueueInfo) -> str:
    if info.writer_alive:
        return (
            f"process {info.writer_pid or '(unknown)'} on {info.writer_host or '(unknown)'}"
            f" since {utc(info.writer_start_ns)}, epoch {info.epoch}"
        )
    if info.meta_lost:
        return "none"
    if info.clean:
        return f"none; the last one closed properly (epoch {info.epoch})"
    return f"none; the last one did not close: the next one will recover (epoch {info.epoch})"


def segment_lines(segments: list[SegmentInfo]) -> list[str]:
    header = ("segment", "records", "used", "of", "state", "first record", "last record")
    rows = []
    for segment in segments:
        if segment.damaged:
            rows.append((f"{segment.base_seq}", "?", "?", "?", "DAMAGED", "?", "?"))
            continue
        times = [segment.first_ts_ns, segment.last_ts_ns]
        first, last = (utc(time) for time in times) if segment.next_seq > segment.base_seq else ("-", "-")
        rows.append(
            (
                f"{segment.base_seq}",
                number(segment.next_seq - segment.base_seq),
                binary_size(segment.used_bytes),
                binary_size(segment.bytes),
                "sealed" if segment.sealed else "open",
                first,
                last,
            )
        )
    return table("<>>><<<", header, rows)


def reader_lines(readers: list[ReaderInfo]) -> list[str]:
    if not readers:
        return ["no registered readers"]
    rows = []
    for reader in readers:
        if reader.damaged:
            state = os.strerror(reader.sys_errno) if reader.sys_errno else "DAMAGED"
            rows.append((reader.name, "?", "?", state, f"{utc(reader.updated_ns)} (of the file)"))
            continue
        state = "running" if reader.alive else "not running"
        rows.append((reader.name, number(reader.position), number(reader.lag), state, utc(reader.updated_ns)))
    return table("<>><<", ("reader", "committed", "lag", "state", "last commit"), rows)


def as_object(
    path: str,
    info: QueueInfo,
    segments: list[SegmentInfo],
    readers: list[ReaderInfo],
    kept: list[QuarantineFile],
) -> dict[str, Any]:
    return {
        "path": path,
        "uuid": str(info.uuid),
        "format_version": info.format_version,
        "created_ns": info.created_ns,
        "segment_size": info.segment_size,
        "oldest_seq": info.oldest_seq,
        "next_seq": info.next_seq,
        "durable_seq": None if info.durable_seq < 0 else info.durable_seq,
        "bytes": info.bytes,
        "epoch": info.epoch,
        "clean": info.clean,
        "meta_lost": info.meta_lost,
        "writer": {"pid": info.writer_pid, "host": info.writer_host, "start_ns": info.writer_start_ns}
        if info.writer_alive
        else None,
        "segments": [
            {
                "base_seq": segment.base_seq,
                "next_seq": segment.next_seq,
                "bytes": segment.bytes,
                "used_bytes": segment.used_bytes,
                "first_ts_ns": segment.first_ts_ns,
                "last_ts_ns": segment.last_ts_ns,
                "sealed": segment.sealed,
                "damaged": segment.damaged,
            }
            for segment in segments
        ],
        "readers": [
            {
                "name": reader.name,
                "position": reader.position,
                "lag": reader.lag,
                "alive": reader.alive,
                "updated_ns": reader.updated_ns,
                "damaged": reader.damaged,
                "sys_errno": reader.sys_errno or None,
            }
            for reader in readers
        ],
        "quarantine": [asdict(file) for file in kept],
    }
