# SPDX-License-Identifier: MIT
"""``chronicle group``: who has which job, and what to do about those that are stuck or dead."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from chronicle_ffi import DeadLetter, Queue
from chronicle_ffi.cli.options import Subparsers, add_command
from chronicle_ffi.cli.status import OK, UserError

EXAMPLES = """\
  chronicle group /var/tmp/q                    which groups are there, and how far are they?
  chronicle group /var/tmp/q resize             who has what, and since when?
  chronicle group /var/tmp/q resize release 17  take job 17 from a worker that hangs
  chronicle group /var/tmp/q resize bury 17     hand it over to the dead queue
  chronicle group /var/tmp/q resize dead        what was given up, and why?
  chronicle group /var/tmp/q resize requeue     append all of these to the queue again
  chronicle group /var/tmp/q resize requeue 17  append the letter of job 17 again
  chronicle group /var/tmp/q resize remove      forget the group; no worker may be in it

requeue remembers how far it was, as the reader "requeued-NAME" of the dead queue; killed in the middle, it may append
one of them twice. It needs the queue's writer: nobody else may write to it meanwhile.
"""


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "group",
        "look at groups of workers, and at their dead letters",
        "Show the groups of workers of a queue, who has which job, and what they gave up; return jobs.",
        EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the group's name; without it: all groups")
    parser.add_argument("action", metavar="ACTION", nargs="?", default="show", choices=ACTIONS, help=", ".join(ACTIONS))
    parser.add_argument("seq", metavar="SEQ", nargs="*", type=int, help="of jobs")
    parser.add_argument("--reason", default="", help="bury: what is kept in the job's history")
    parser.add_argument("--json", action="store_true", help="one object of JSON a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        for group in Queue.groups(args.queue):
            tell(args, asdict(group), "{name}: floor {floor}, handed out up to {next_new} of {end}, {members} workers")
        return OK
    if args.seq and args.action in ("show", "dead", "remove"):
        raise UserError(f"{args.action} takes no SEQ")
    if not args.seq and args.action in ("release", "bury"):
        raise UserError(f"{args.action} which job? Name its SEQ")
    ACTIONS[args.action](args)
    return OK


def tell(args: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values, default=str) if args.json else text.format_map(values))


def show(args: argparse.Namespace) -> None:
    held = Queue.group_jobs(args.queue, args.name)
    (group,) = (group for group in Queue.groups(args.queue) if group.name == args.name)
    tell(
        args,
        asdict(group),
        "floor {floor}, handed out up to {next_new} of {end}, window {window}; {members} workers\n"
        "running {running}, ready {ready}, delayed {delayed}, on their way to the dead queue {deading}",
    )
    for job in held:
        due = "" if job.due_seconds is None else f", due in {job.due_seconds:.1f} s"
        who = "" if job.pid is None else f", process {job.pid}{'' if job.alive else ' (dead)'}"
        since = f" for {job.for_seconds:.1f} s" if job.state == "running" else ""
        tell(args, asdict(job), f"job {{seq}}: {{state}}{since}, delivery {{deliveries}}{who}{due}")


def release(args: argparse.Namespace) -> None:
    with Queue.open_group(args.queue, args.name, key=key_of(args), create=False) as group:
        for seq in args.seq:
            group.release(seq)
            print(f"released job {seq}", file=sys.stderr)


def bury(args: argparse.Namespace) -> None:
    with Queue.open_group(args.queue, args.name, key=key_of(args), create=False) as group:
        for seq in args.seq:
            group.bury(seq, args.reason)
            print(f"buried job {seq}", file=sys.stderr)


def key_of(args: argparse.Namespace) -> Any:
    """A group with keys wants one of everybody; who takes no job is never asked for it."""
    keyed = any(group.keyed for group in Queue.groups(args.queue) if group.name == args.name)
    return (lambda message: message.payload) if keyed else None


def letters_of(args: argparse.Namespace, start: int = 0) -> list[DeadLetter]:
    return [letter for letter in Queue.dead_letters(args.queue, start=start) if letter.group == args.name]


def dead(args: argparse.Namespace) -> None:
    for letter in letters_of(args):
        values = asdict(letter) | {"message": None if letter.message is None else letter.message.payload.hex()}
        why = "rejected: {reason}" if letter.why == "rejected" else "handed out {deliveries} times"
        tell(args, values, f"job {{seq}}, {why}" + ("" if letter.message else "; it could not be read"))


def requeue(args: argparse.Namespace) -> None:
    place = os.path.abspath(args.queue) + ".dead"
    wanted = set(args.seq)
    with Queue.open_subscriber(place, f"requeued-{args.name}"[:64]) as mark:
        found = letters_of(args, 0 if wanted else mark.position)
        if wanted - {letter.seq for letter in found}:
            raise UserError(f"no letter of job {min(wanted - {letter.seq for letter in found})}")
        with Queue.open_publisher(args.queue, create=False) as writer:
            for letter in found:
                if letter.message is None or (wanted and letter.seq not in wanted):
                    continue
                message = letter.message
                again = writer.append(message.payload, message.type_id, message.timestamp_ns, message.flags)
                if not wanted:
                    mark.seek(letter.dead_seq + 1)
                    mark.commit()
                print(f"job {letter.seq} is job {again} now", file=sys.stderr)


def remove(args: argparse.Namespace) -> None:
    Queue.remove_group(args.queue, args.name)
    print(f"removed the group {args.name}", file=sys.stderr)


ACTIONS = {"show": show, "release": release, "bury": bury, "dead": dead, "requeue": requeue, "remove": remove}
