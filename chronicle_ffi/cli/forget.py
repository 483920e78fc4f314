# SPDX-License-Identifier: MIT
"""``chronicle forget``: remove a registered reader, so that retention no longer waits for it."""

from __future__ import annotations

import argparse
import sys

from chronicle_ffi import Queue
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import OK

EXAMPLES = """\
  chronicle inspect /var/tmp/q            which readers are there?
  chronicle forget /var/tmp/q audit       "audit" will not come back

Removes the reader's committed position, nothing else. A reader that is running is refused.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "forget",
        "remove a registered reader",
        "Remove a registered reader that will not come back, so that retention stops waiting for it.",
        EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="the reader's name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    Queue.remove_reader(args.queue, args.name)
    print(f"removed the reader {args.name}", file=sys.stderr)
    return OK
