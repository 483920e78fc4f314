# SPDX-License-Identifier: MIT
"""Break the C code on purpose, one small change at a time, and show that the tests notice each.

``make mutants``, or ``python tests/mutants.py [NAME ...]``. Each mutant is built in a copy of the tree; then the C
tests and the Python tests named for it run until one fails. Ends with a table, and with status 1 if one survived.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = (
    "csrc",
    "tests",
    "chronicle_ffi",
    "examples",
    "build_ffi.py",
    "setup.py",
    "Makefile",
    "pyproject.toml",
    "README.md",
)
SECONDS = 240  # for one test file; a hang is a failure as well


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in one file; `tests` are tried in order."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


DAMAGE, READER, WRITER, QUEUE = (f"tests/test_{name}.py" for name in ("damage", "reader", "writer", "queue"))
PROCESSES, STATEFUL, STRESS, DISK = (f"tests/test_{name}.py" for name in ("processes", "stateful", "stress", "disk"))

MUTANTS = [
    Mutant(
        "reader skips the CRC",
        "next.c",
        "if (__builtin_expect(!chron__rec_crc_ok(rec, payload), 0))",
        "if (0)",
        (DAMAGE,),
    ),
    Mutant(
        "recovery skips the CRC",
        "recovery.c",
        "if (!chron__seg_step(s->seg, &s->walk, 1, &rec, &s->stop))",
        "if (!chron__seg_step(s->seg, &s->walk, 0, &rec, &s->stop))",
        ("test_power", "test_crash", DAMAGE),
    ),
    Mutant(
        "commit word before the payload",
        "writer.c",
        "    chron__rec_put(at, seq,",
        "    chron__rec_publish(at, length);\n    chron__rec_put(at, seq,",
        ("test_crash", STRESS),
    ),
    Mutant(
        "batch published front to back",
        "writer.c",
        "        if (i > from)\n            chron__rec_publish",
        "        chron__rec_publish",
        ("test_crash", STRESS),
    ),
    Mutant(
        "commit word stored without release",
        "record.h",
        "    chron__store_release_le32(at, length + 1u);",
        "    chron__store_relaxed_le32(at, length + 1u);",
        ("tsan/test_threads",),
    ),
    Mutant(
        "commit word loaded without acquire",
        "record.h",
        "    uint32_t commit = chron__load_acquire_le32(at);",
        "    uint32_t commit = chron__load_relaxed_le32(at);",
        ("tsan/test_threads",),
    ),
    Mutant("END forgotten", "roll.c", "    publish_end(w, offset, seq);\n", "", (READER,)),
    Mutant(
        "END before the next segment has its name",
        "roll.c",
        "    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);\n    if (status < 0) {\n"
        "        end_roll(w, next);",
        "    publish_end(w, offset, seq);\n"
        '    CHRON__STEP("roll: END published");\n'
        "    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);\n    if (status < 0) {\n"
        "        end_roll(w, next);",
        ("test_crash", STRESS),
    ),
    Mutant(
        "no room kept for END",
        "roll.c",
        "uint64_t last = w->seg->size - CHRON__RECORD_HEADER; /* END",
        "uint64_t last = w->seg->size; /* END",
        (WRITER, "test_crash", STATEFUL),
    ),
    Mutant(
        "cleanup overlooks a reader",
        "retention.c",
        "} else if (!l->slowest || holds_from(one) < holds_from(l->slowest)) {",
        "} else if (!l->slowest) {",
        (WRITER, STATEFUL),
    ),
    Mutant(
        "cleanup off by one",
        "retention.c",
        "holds_from(l->slowest) < fate->next_seq",
        "holds_from(l->slowest) + 1u < fate->next_seq",
        (WRITER, STATEFUL),
    ),
    Mutant(
        "sync forgets the records",
        "sync.c",
        "        status = io->sync_map(io, seg->fd, &seg->map, from, tail - from);\n",
        "        status = 0;\n",
        ("test_power",),
    ),
    Mutant(
        "sync forgets the directory",
        "sync.c",
        "    status = w->q.io->sync_dir(w->q.io, w->q.dir);",
        "    status = 0;",
        ("test_power",),
    ),
    Mutant(
        "the names of the writer before are not synced",
        "open.c",
        "    chron__set32(&w->dir_dirty, 1);",
        "    chron__set32(&w->dir_dirty, 0);",
        ("test_power",),
    ),
    Mutant(
        "the lock is handed over with nobody at the door",
        "platform_linux.c",
        "        status = set_lock(fd, F_WRLCK, 1);",
        "        status = 0;",
        ("test_lock",),
    ),
    Mutant(
        "a reader overlooks that another writer came",
        "next.c",
        "    if (__builtin_expect(r->mark.chron__epoch == r->writer_epoch, 1))",
        "    if (1)",
        (PROCESSES,),
    ),
    Mutant(
        "sync forgets older segments",
        "sync.c",
        "            status = sync_sealed(&w->q, bases.at[i]);",
        "            status = 0;",
        ("test_power",),
    ),
    Mutant(
        "durable mark too early",
        "sync.c",
        "    status = sync_older(w, seg->base_seq);\n",
        "    chron__set64(&w->durable_next, next_seq + 1u);\n    status = sync_older(w, seg->base_seq);\n"
        "    next_seq++;\n",
        (WRITER, "test_power"),
    ),
    Mutant(
        "epochs are not compared",
        "locate.c",
        "    if (chron__rec_epoch(rec) < walk->epoch)",
        "    if (0)",
        (DAMAGE, "test_power"),
    ),
    Mutant(
        "an END that is taken back is not synced",
        "recovery.c",
        "        status = io->sync_map(io, s->seg->fd, &s->seg->map, s->walk.offset, CHRON__RECORD_HEADER);\n",
        "",
        (DAMAGE,),
    ),
    Mutant(
        "the torn tail is not zeroed",
        "recovery.c",
        "    return chron__quarantine_tail(s->q, s->seg, s->walk.offset, s->walk.next_seq, epoch, &out->report);",
        "    return 0;",
        ("test_crash", DAMAGE),
    ),
    Mutant(
        "writer rings without a fence",
        "doorbell.h",
        "    chron__fence_seq_cst(); /* [BELL] with chron__bell_announce: publish, then look for sleepers */\n",
        "",
        ("test_bell",),
    ),
    Mutant(
        "reader sleeps without announcing itself",
        "doorbell.c",
        "    chron__store_relaxed32(bell->map.base + CHRON__BELL_WAITING, 1);\n",
        "",
        ("test_bell",),
    ),
    Mutant(
        "length not checked against the mapping",
        "record.h",
        "    if (rec->length > size || offset + chron__record_bytes(rec->length) + CHRON__RECORD_HEADER > size)\n"
        "        return CHRON__REC_BROKEN;\n",
        "",
        (DAMAGE,),
    ),
    Mutant(
        "seq of a record not checked",
        "next.c",
        "chron__rec_seq(rec) != r->next_seq",
        "0",
        (DAMAGE, READER),
    ),
    Mutant(
        "commit without a fingerprint",
        "reader.c",
        "at->flags = chron__reader_fingerprint(r, &crc) ? CHRON__SLOT_FINGERPRINT : 0;",
        "at->flags = 0;",
        (DAMAGE,),
    ),
    Mutant(
        "the same slot is written again and again",
        "slots.c",
        "value->generation % 2u",
        "1u",
        (DAMAGE,),
    ),
    Mutant(
        "the fork counter does not count",
        "platform_posix.c",
        "    (void)chron__count_up32(&chron__fork_count);\n",
        "",
        (PROCESSES,),
    ),
    Mutant(
        "the guard lets faults pass",
        "next.c",
        "chron__map_faulted(&r->seg->map)",
        "0",
        (PROCESSES,),
    ),
    Mutant(
        "a failed sync does not poison",
        "sync.c",
        "        chron__set32(&w->poisoned, 1);    /* [STOP] read by check_ready() in writer.c */\n",
        "",
        ("test_faults",),
    ),
]


def apply(mutant: Mutant, tree: Path) -> None:
    file = tree / "csrc" / "src" / mutant.file
    text = file.read_text()
    if mutant.old not in text:
        raise SystemExit(f"{mutant.name}: {mutant.file} has no {mutant.old!r} any more")
    file.write_text(text.replace(mutant.old, mutant.new))


def run(command: list[str | Path], tree: Path) -> bool:
    """True: it succeeded."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / "hypothesis"),
        "CHRON_BELL_ROUNDS": "8000000",  # a missing fence shows once in some hundred thousand
    }
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def notices(test: str, tree: Path) -> bool:
    """Does this test fail, after having been built?"""
    if not test.endswith(".py"):
        program = f"build/{test}" if "/" in test else f"build/test/{test}"
        if not run(["make", "-j2", program], tree):
            raise SystemExit(f"{program} cannot be built")
        return not run([tree / program], tree)
    if not run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--build-temp", "build/ext"], tree):
        raise SystemExit("the extension cannot be built")
    return not run([sys.executable, "-m", "pytest", "-x", "-q", test], tree)


def try_out(mutant: Mutant) -> str | None:
    """The test that noticed it."""
    with tempfile.TemporaryDirectory(prefix="chronicle-mutant-") as directory:
        tree = Path(directory)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, tree / name)
        apply(mutant, tree)
        return next((test for test in mutant.tests if notices(test, tree)), None)


def main(names: list[str]) -> int:
    survivors = 0
    for mutant in MUTANTS:
        if names and not any(name in mutant.name for name in names):
            continue
        caught = try_out(mutant)
        survivors += caught is None
        print(f"| {mutant.name} | {mutant.file} | {caught or 'NOT NOTICED'} |", flush=True)
    print(f"{survivors} survived" if survivors else "all noticed")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
