# SPDX-License-Identifier: MIT
"""``chronicle schema``: what the payloads of a queue hold; and have a C struct stored, for producers in C."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from chronicle_ffi import Queue
from chronicle_ffi.cli.options import Subparsers, add_command, type_id
from chronicle_ffi.cli.status import OK, UserError, reason
from chronicle_ffi.cli.text import plural, table
from chronicle_ffi.schema import Schema, Schemas

EXAMPLES = """\
  chronicle schema Q                                 the fields of each type
  chronicle schema Q --type 1 --struct quote.h       type 1 holds this C struct
  chronicle schema Q --type 1 --struct quote.h --key symbol

quote.h holds one struct of numbers, char[n] and arrays of them, and no more than includes and comments around it.
It is stored for records that come from now on, under the writer's lock: a producer that runs is refused.
What contradicts the schema that is stored is refused, with the field.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "schema",
        "what payloads hold",
        "Show the schemas of a queue: the fields of each type. Or store one.",
        EXAMPLES,
    )
    parser.add_argument("--type", type=type_id, metavar="N", help="only this type_id; the one that --struct is for")
    parser.add_argument(
        "--struct", type=Path, metavar="FILE", help="store the C struct in this file as the schema of --type"
    )
    parser.add_argument("--key", metavar="FIELD", help="the field of it that says what a record is about")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.struct is not None:
        if args.type is None:
            raise UserError("--struct is for one type: say which, with --type")
        try:
            text = args.struct.read_text()
        except (OSError, UnicodeDecodeError) as failed:
            raise UserError(reason(failed) if isinstance(failed, OSError) else f"{args.struct}: {failed}") from None
        Queue.open_publisher(args.queue, keeper=False, schema={args.type: Schema.of(text, key=args.key)}).close()
    elif args.key is not None:
        raise UserError("--key is a field of --struct")
    Queue.info(args.queue)  # that it is one
    stored = Schemas(args.queue)
    types = [one for one in stored.types if args.type in (None, one)]
    for one in types:
        schema = stored.of(one)
        assert schema is not None
        size = f", {plural(schema.size, 'byte')}" if schema.size else ""
        print(f"type {one}: {schema.name or 'without a name'}, {schema.codec}{size}")
        rows = [
            (
                f"  {field.name}",
                field.type + "".join(f"[{length}]" for length in field.shape),
                str(field.offset) if schema.codec == "fixed" else "",
                ", ".join(["key"] * (field.name == schema.key) + ["optional"] * field.optional),
            )
            for field in schema.fields
        ]
        if rows:
            print("\n".join(table("<<><", ("  field", "type", "offset", ""), rows)))
    if not types:
        print("chronicle: no schema is stored there", file=sys.stderr)
    return OK
