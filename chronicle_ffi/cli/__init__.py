# SPDX-License-Identifier: MIT
"""The command line: ``chronicle COMMAND ...``.

Each command is one module with ``add(subparsers)``, which declares its arguments, and ``run(args)``, which
returns the exit status. This module puts them together and decides how failures look to the user: one line
on stderr and an exit status, never a traceback for something the user can put right.
"""

from __future__ import annotations

import argparse
import io
import sys
import traceback
import warnings
from collections.abc import Sequence

import chronicle_ffi
from chronicle_ffi.cli import (
    append,
    archive,
    cleanup,
    demo,
    export,
    forget,
    inspect,
    quarantine,
    record,
    repair,
    tail,
    verify,
)
from chronicle_ffi.cli.status import (
    DAMAGED,
    FAULT,
    INTERRUPTED,
    OK,
    USAGE,
    UserError,
    complain,
    forget_output,
    may_lose_reader,
    occupy_standard_streams,
    reason,
)

__all__ = ["main"]

EPILOG = """\
A queue is a directory. Start with:

  ls -l / | chronicle append /tmp/q        each line becomes a record
  chronicle tail /tmp/q                    the last ten of them
  chronicle tail -f --reader me /tmp/q     resume where "me" stopped, and wait for more
  chronicle inspect /tmp/q                 what is in it, who reads it, how far they are

Exit status: 0 all is well; 1 damage or a difference was found; 2 wrong usage, or something you can put
right (no such queue, a second writer, a full disk, ...); 70 a fault of this program; 130 interrupted by Ctrl-C.
repair has others besides.
"chronicle COMMAND --help" tells more, with examples.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` is without the program's name (default: sys.argv[1:]). Returns the status."""
    occupy_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold anything
    try:
        arguments, command = record.split_command(sys.argv[1:] if argv is None else list(argv))
        args = build_parser().parse_args(arguments, argparse.Namespace(command=command))
        status: int = OK
        with may_lose_reader(), warnings.catch_warnings():
            warnings.simplefilter("always", chronicle_ffi.RecoveryWarning)
            warnings.showwarning = lambda message, *_, **__: complain(message)
            status = args.run(args)
        return status
    except SystemExit as exit_:  # argparse: 0 after --help, 2 after a usage error
        return exit_.code if isinstance(exit_.code, int) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (chronicle_ffi.Corrupt, chronicle_ffi.HistoryRewritten) as error:
        complain(error)
        return DAMAGED
    except (UserError, chronicle_ffi.ChronicleError, OSError) as error:
        complain(reason(error) if isinstance(error, OSError) else error)
        forget_output()
        return USAGE
    except Exception:  # Python's own status for it would be 1, and say that damage was found
        traceback.print_exc()
        return FAULT


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chronicle",
        description="A persistent, brokerless message log for one host.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"chronicle {chronicle_ffi.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (append, record, tail, inspect, verify, repair, quarantine, cleanup, archive, export, forget, demo):
        module.add(subparsers)
    return parser
