# SPDX-License-Identifier: MIT
"""``chronicle archive``: sealed segments to object storage, and what is there."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from chronicle_ffi.cli.options import Subparsers, add_command, duration
from chronicle_ffi.cli.status import DAMAGED, OK, UserError
from chronicle_ffi.cli.text import binary_size, plural

if TYPE_CHECKING:
    from chronicle_ffi.archive import ArchiveCheck, ArchiveReport

EXAMPLES = """\
  chronicle archive Q s3://bucket/q --older 1d       what was sealed a day ago, or earlier; then a cleanup
  chronicle archive Q /mnt/backup/q --keep-local     to a directory; delete nothing here
  chronicle archive - s3://bucket/q --verify         fetch and check everything; "-": without the queue
  chronicle archive - s3://bucket/q --restore DIR    the segment files as they were
  chronicle tail Q --archive s3://bucket/q --from oldest

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...), settings too, or
from --option endpoint=http://127.0.0.1:8333 --option allow_http=true. Run it as often as you like: what is
archived is not archived again, and it may be killed at any moment. Needs pip install 'chronicle-ffi[archive]'.
"""


def load() -> ModuleType:
    """chronicle_ffi.archive; or say which extra it needs."""
    try:
        import chronicle_ffi.archive
    except ImportError as missing:
        raise UserError(str(missing)) from None
    return chronicle_ffi.archive


def setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def add_store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--option",
        dest="options",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the store, such as endpoint, region, allow_http; may be given several times",
    )


def queue_of(args: argparse.Namespace) -> str | None:
    """ "-" stands for none: only the archive."""
    return None if args.queue == "-" else str(args.queue)


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "archive",
        "put sealed segments on object storage",
        "Put sealed segments on object storage, or in a directory, so that retention may delete them here.",
        EXAMPLES,
    )
    parser.add_argument("url", metavar="URL", help="s3://bucket/prefix, gs://..., az://..., or a directory")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="archive nothing: fetch and check what is there")
    what.add_argument("--restore", metavar="DIR", help="archive nothing: make DIR with the segment files as they were")
    parser.add_argument(
        "--older",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="only what was sealed before, e.g. 1d (default: all)",
    )
    parser.add_argument("--keep-local", action="store_true", help="clean up nothing here")
    parser.add_argument(
        "--reader", default="archive", metavar="NAME", help="that retention waits for (default: %(default)s)"
    )
    parser.add_argument("--level", type=int, default=3, metavar="N", help="of zstd, 1 to 22 (default: %(default)s)")
    add_store_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    module = load()
    archive = module.Archive(queue_of(args), args.url, options=dict(args.options), reader=args.reader, level=args.level)
    with progress_bar() as progress:
        if args.verify:
            check = archive.verify(progress)
        elif args.restore:
            restored = archive.restore(args.restore, progress)
        else:
            report = archive.run(older=args.older, keep_local=args.keep_local, progress=progress)
    if args.verify:
        print("\n".join(check_lines(check)))
        return OK if check.ok else DAMAGED
    if args.restore:
        print(f"restored {plural(restored, 'segment')} to {args.restore}: readable; to write to it, repair it first")
        return OK
    print("\n".join(report_lines(report)))
    return OK


@contextmanager
def progress_bar() -> Iterator[Callable[..., Any] | None]:
    """By rich, if it is there and somebody looks."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, size: int = 0) -> None:
            bar.update(task, completed=done, total=total, description=binary_size(size) if size else "")

        yield progress


def report_lines(report: ArchiveReport) -> list[str]:
    lines = [f"missed: records {first} to {behind - 1}: a limit had deleted them" for first, behind in report.missed]
    if report.waiting:
        base, why = report.waiting[0]
        lines.append(f"waiting: {plural(len(report.waiting), 'sealed segment')} from record {base} on: {why}")
    lines += [f"deleted {name}: left by an archiver that was killed" for name in report.swept]
    if report.found:
        lines.append(f"compared {plural(len(report.found), 'segment')} that were noted by a run that was cut off")
    lines.append(
        f"archived {plural(len(report.archived), 'segment')}, {binary_size(report.segment_bytes)} as"
        f" {binary_size(report.object_bytes)}; records below {report.next_seq} are in the archive"
    )
    if report.cleanup is not None:
        lines.append(f"deleted {plural(report.cleanup.deleted_segments, 'segment')} here")
    return lines


def check_lines(check: ArchiveCheck) -> list[str]:
    lines = [str(damage) for damage in check.damaged]
    lines += [f"records {first} to {behind - 1} are in no segment" for first, behind in check.holes]
    lines += [
        f"note: {name} is noted nowhere: left by an archiver that is at work, or was killed" for name in check.orphans
    ]
    told = "all is well" if check.ok else plural(len(check.damaged) + len(check.holes), "problem")
    return [*lines, f"{plural(check.records, 'record')} in {plural(check.segments, 'segment')}: {told}"]
