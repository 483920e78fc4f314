# SPDX-License-Identifier: MIT
"""Small changes to the C code that the tests have to notice: what tests/mutants.py builds and tries."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in one file; `tests` are tried in order."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


DAMAGE, REPAIR = (f"tests/test_{name}.py" for name in ("damage", "repair"))
READER, WRITER, QUEUE = (f"tests/test_{name}.py" for name in ("reader", "writer", "queue"))
PROCESSES, STATEFUL, STRESS, FORMAT = (
    f"tests/test_{name}.py" for name in ("processes", "stateful", "stress", "format")
)
CRASHES, LAPPED = (f"tests/test_{name}.py" for name in ("crashes", "lapped"))
REPAIR_CALL, WITHOUT_META, ADVICE = (f"tests/test_{name}.py" for name in ("repair_call", "without_meta", "advice"))
IN, OUT = (f"tests/test_batches_{name}.py" for name in ("in", "out"))

MUTANTS = [
    Mutant(
        "reader skips the CRC",
        "read/next.c",
        "if (__builtin_expect(!chron__rec_crc_ok(rec, payload), 0))",
        "if (0)",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "recovery skips the CRC",
        "queue/survey.c",
        "if (!chron__seg_step(p->seg, &p->walk, 1, &rec, &p->one.stop))",
        "if (!chron__seg_step(p->seg, &p->walk, 0, &rec, &p->one.stop))",
        (
            "test_power",
            "test_crash",
            REPAIR,
            DAMAGE,
        ),
    ),
    Mutant(
        "commit word before the payload",
        "write/append.h",
        "    chron__rec_put(at, seq,",
        "    chron__rec_publish(at, length);\n    chron__rec_put(at, seq,",
        ("test_crash", STRESS),
    ),
    Mutant(
        "batch published front to back",
        "write/batch.c",
        "        if (i > from)\n            chron__rec_publish(at, (uint32_t)r.length);"
        " /* hidden behind the first one's zero commit word */\n        else\n",
        "        chron__rec_publish(at, (uint32_t)r.length);\n        if (i == from)\n",
        ("test_crash", STRESS),
    ),
    Mutant(
        "commit word stored without release",
        "format/record.h",
        "    chron__store_release_le32(at, length + 1u);",
        "    chron__store_relaxed_le32(at, length + 1u);",
        ("tsan/test_threads",),
    ),
    Mutant(
        "commit word loaded without acquire",
        "format/record.h",
        "    uint32_t commit = chron__load_acquire_le32(at);",
        "    uint32_t commit = chron__load_relaxed_le32(at);",
        ("tsan/test_threads",),
    ),
    Mutant("END forgotten", "write/roll.c", "    publish_end(w, offset, seq);\n", "", (READER,)),
    Mutant(
        "END before the next segment has its name",
        "write/roll.c",
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
        "write/roll.c",
        "uint64_t last = w->seg->size - CHRON__RECORD_HEADER; /* END",
        "uint64_t last = w->seg->size; /* END",
        (WRITER, "test_crash", STATEFUL),
    ),
    Mutant(
        "cleanup overlooks a reader",
        "queue/retention.c",
        "} else if (!l->slowest || chron__registered_passed(one) < chron__registered_passed(l->slowest)) {",
        "} else if (!l->slowest) {",
        (WRITER, STATEFUL),
    ),
    Mutant(
        "cleanup off by one",
        "queue/retention.c",
        "chron__registered_passed(l->slowest) < fate->next_seq",
        "chron__registered_passed(l->slowest) + 1u < fate->next_seq",
        (WRITER, STATEFUL),
    ),
    Mutant(
        "sync forgets the records",
        "write/sync.c",
        "        status = io->sync_map(io, seg->fd, &seg->map, from, tail - from);\n",
        "        status = 0;\n",
        ("test_power",),
    ),
    Mutant(
        "sync forgets the directory",
        "write/sync.c",
        "    status = w->q.io->sync_dir(w->q.io, w->q.dir);",
        "    status = 0;",
        ("test_power",),
    ),
    Mutant(
        "sync forgets older segments",
        "write/sync.c",
        "        status = sync_sealed(w, bases.at[i]);",
        "        status = 0;",
        ("test_power",),
    ),
    Mutant(
        "durable mark too early",
        "write/sync.c",
        "    status = chron__writer_check_place(w, seg);\n",
        "    chron__set64(&w->durable_next, next_seq + 1u);\n    status = chron__writer_check_place(w, seg);\n",
        (
            WRITER,
            "test_power",
        ),
    ),
    Mutant(
        "epochs are not compared",
        "format/locate.c",
        "    if (chron__rec_epoch(rec) < walk->epoch)",
        "    if (0)",
        (REPAIR, DAMAGE, "test_power"),
    ),
    Mutant(
        "an END that is taken back is not synced",
        "write/recovery.c",
        "        status = io->sync_map(io, seg->fd, &seg->map, one->offset, CHRON__RECORD_HEADER);\n",
        "",
        (
            REPAIR,
            DAMAGE,
        ),
    ),
    Mutant(
        "the torn tail is not zeroed",
        "write/recovery.c",
        "    if (status == 0)\n        status = chron__quarantine_tail(",
        "    if (status != 0)\n        status = chron__quarantine_tail(",
        (
            "test_crash",
            REPAIR,
            DAMAGE,
        ),
    ),
    Mutant(
        "writer rings without a fence",
        "format/doorbell.h",
        "    chron__fence_seq_cst();",
        "",
        ("test_bell",),
    ),
    Mutant(
        "reader sleeps without announcing itself",
        "format/doorbell.c",
        "    chron__store_relaxed32(bell->map.base + CHRON__BELL_WAITING, 1);",
        "",
        ("test_bell",),
    ),
    Mutant(
        "length not checked against the mapping",
        "format/record.h",
        "    if (rec->length > size || offset + chron__record_bytes(rec->length) + CHRON__RECORD_HEADER > size)\n"
        "        return CHRON__REC_BROKEN;\n",
        "",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "seq of a record not checked",
        "read/next.c",
        "chron__rec_seq(rec) != r->next_seq",
        "0",
        (REPAIR, DAMAGE, READER),
    ),
    Mutant(
        "commit without a fingerprint",
        "read/commit.c",
        "at->flags = chron__reader_fingerprint(r, &crc) ? CHRON__SLOT_FINGERPRINT : 0;",
        "at->flags = 0;",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "the same slot is written again and again",
        "format/slots.c",
        "value->generation % 2u",
        "1u",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "the fork counter does not count",
        "platform/clock.c",
        "    (void)chron__count_up32(&chron__fork_count);",
        "",
        (PROCESSES,),
    ),
    Mutant(
        "the guard lets faults pass",
        "read/reader.c",
        "chron__map_faulted(&r->seg->map)",
        "0",
        (PROCESSES,),
    ),
    Mutant(
        "a failed sync does not poison",
        "write/sync.c",
        "        chron__set32(&w->poisoned, 1);",
        "",
        ("test_faults",),
    ),
    # ---------------------------------------------------------------------------- appending, batches, claims
    Mutant(
        "what was claimed and not used is not zeroed",
        "write/append.c",
        "    memset(at + CHRON__RECORD_HEADER + length, 0, (size_t)(w->claimed - CHRON__RECORD_HEADER - length));\n",
        "",
        (WRITER, "test_crash"),
    ),
    Mutant(
        "an abort leaves what was written",
        "write/append.c",
        "        memset(w->base + chron__get64(&w->tail), 0, (size_t)w->claimed);\n",
        "",
        (STATEFUL, CRASHES),
    ),
    Mutant(
        "largest payload leaves no room for END",
        "write/open.c",
        "- 2u * CHRON__RECORD_HEADER",
        "- CHRON__RECORD_HEADER",
        (WRITER,),
    ),
    Mutant(
        "back-pressure off by one",
        "write/room.c",
        "w->segments < w->limit_segments",
        "w->segments <= w->limit_segments",
        (WRITER,),
    ),
    Mutant(
        "the next segment gets its name before its header",
        "write/roll.c",
        "    chron__seg_write_header(&w->q, next, seq, old->base_seq, w->full_epoch, chron__clock_ns(0));\n"
        '    CHRON__STEP("roll: header written");\n'
        "    chron__segment_name(seq, name);\n"
        "    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);\n",
        "    chron__segment_name(seq, name);\n"
        "    status = w->q.io->rename(w->q.io, w->q.dir, CHRON__FILE_NEXT, w->q.dir, name);\n"
        '    CHRON__STEP("roll: header written");\n'
        "    chron__seg_write_header(&w->q, next, seq, old->base_seq, w->full_epoch, chron__clock_ns(0));\n",
        ("test_crash", CRASHES),
    ),
    Mutant(
        "seal before END",
        "write/roll.c",
        "    publish_end(w, offset, seq);\n"
        '    CHRON__STEP("roll: END published");\n'
        "    chron__seg_seal_store(old, &w->tally, offset, chron__clock_ns(1));\n",
        "    chron__seg_seal_store(old, &w->tally, offset, chron__clock_ns(1));\n"
        '    CHRON__STEP("roll: END published");\n'
        "    publish_end(w, offset, seq);\n",
        ("test_crash", CRASHES),
    ),
    Mutant(
        "a second writer is let in",
        "platform/linux.c",
        "    int status = set_lock(other, F_WRLCK, 0);\n",
        "    int status = 0;\n",
        (QUEUE, PROCESSES),
    ),
    # -------------------------------------------------------------------------------------------- recovery
    Mutant(
        "what recovery cuts off is not kept",
        "queue/quarantine.c",
        "        status = copy_out(q, &p);\n",
        "        status = 0;\n",
        (
            CRASHES,
            REPAIR,
            DAMAGE,
        ),
    ),
    Mutant(
        "zeroed before it is copied",
        "queue/quarantine.c",
        "        status = copy_out(q, &p);\n",
        "        memset(seg->map.base + tail, 0, (size_t)(end - tail));\n        status = copy_out(q, &p);\n",
        (
            CRASHES,
            REPAIR,
            DAMAGE,
        ),
    ),
    Mutant(
        "the zeroed tail is not synced",
        "queue/quarantine.c",
        "        status = q->io->sync_map(q->io, seg->fd, &seg->map, tail, end - tail);\n",
        "        status = 0;\n",
        ("test_order",),
    ),
    Mutant(
        "the copy in quarantine is not synced",
        "queue/quarantine.c",
        "        status = q->io->sync_file(q->io, fd);\n",
        "        status = 0;\n",
        ("test_order",),
    ),
    Mutant(
        "the new epoch is not on disk",
        "write/open.c",
        "    status = chron__writer_store_state(w, 1);\n    CHRON__STEP",
        "    status = chron__writer_store_state(w, 0);\n    CHRON__STEP",
        ("test_order",),
    ),
    Mutant(
        "the epoch stays",
        "write/open.c",
        "w->full_epoch = w->state.epoch + 1u;",
        "w->full_epoch = w->state.epoch;",
        (WRITER,),
    ),
    Mutant(
        "durable records may be missing",
        "queue/survey.c",
        "    if (s->next_seq >= end && !all_is_gone(s))\n        return 0;\n",
        "    return 0;\n",
        (REPAIR, DAMAGE, "tests/test_evidence.py"),
    ),
    Mutant(
        "a roll is left half done",
        "write/recovery.c",
        "        status = mend(s, seg, one, report);",
        "        status = 0;",
        (
            "test_crash",
            CRASHES,
        ),
    ),
    # ------------------------------------------------------------------------------ readers, positions, gaps
    Mutant(
        "slots without a CRC",
        "format/slots.c",
        "    if (chron__read_le32(copy + offsetof(chron__slot, crc)) !=",
        "    if (0 &&\n        chron__read_le32(copy + offsetof(chron__slot, crc)) !=",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "the older slot wins",
        "format/slots.c",
        "(int64_t)(a.generation - b.generation) > 0",
        "(int64_t)(a.generation - b.generation) < 0",
        (READER,),
    ),
    Mutant(
        "a commit one too far",
        "read/commit.c",
        "    at->next_seq = r->next_seq;\n",
        "    at->next_seq = r->next_seq + 1u;\n",
        (READER, STATEFUL),
    ),
    Mutant(
        "a wrong fingerprint is committed",
        "read/commit.c",
        "    at->fingerprint = crc;\n",
        "    at->fingerprint = crc + 1u;\n",
        (READER, STATEFUL),
    ),
    Mutant("a rewritten history passes at resume", "read/seek.c", "crc != at->fingerprint", "0", (REPAIR, DAMAGE)),
    Mutant(
        "a rewritten history passes while reading",
        "read/next.c",
        "        return check_history(r);\n",
        "        return 0;\n",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "gaps are passed over silently",
        "read/attach.c",
        "    if (r->options.on_gap == CHRON_GAP_ERROR)\n",
        "    if (0)\n",
        (LAPPED,),
    ),
    Mutant(
        "skipped records are not counted",
        "read/attach.c",
        "    r->stats.skipped += target - r->next_seq;\n",
        "",
        (LAPPED,),
    ),
    Mutant(
        "a seek that fails moves",
        "read/attach.c",
        "        *r = before;\n",
        "        chron__seg_release(before.seg);\n",
        (READER, LAPPED),
    ),
    Mutant(
        "seek by time skips a segment",
        "read/seek.c",
        "seal.last_ts < timestamp_ns",
        "seal.last_ts <= timestamp_ns",
        (STATEFUL, READER),
    ),
    Mutant(
        "every seal says that time ascends",
        "format/segment.c",
        "tally->goes_back ? 0 : CHRON__SEAL_MONOTONE",
        "CHRON__SEAL_MONOTONE",
        (FORMAT, STATEFUL),
    ),
    Mutant(
        "readers of durable records see all",
        "read/reader.h",
        "    r->visible = r->mark.durable_next;\n",
        "    r->visible = CHRON_SEQ_NONE;\n",
        (WRITER, READER),
    ),
    Mutant(
        "columns skip the CRC",
        "read/columns.c",
        " || !chron__rec_crc_ok(rec, payload_of(c, rec))",
        " || !payload_of(c, rec)",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "batches of C skip the CRC",
        "read/next.c",
        " || !chron__rec_crc_ok(&rec, rec.payload))\n            break;",
        ")\n            break;",
        ("test_reads",),
    ),
    Mutant(
        "verify skips the CRC",
        "queue/verify_segment.c",
        "chron__seg_step(c->seg, &c->walk, 1, &rec, &c->stop)",
        "chron__seg_step(c->seg, &c->walk, 0, &rec, &c->stop)",
        (REPAIR, DAMAGE),
    ),
    Mutant(
        "the names of the writer before are not synced",
        "write/open.c",
        "    chron__set32(&w->dir_dirty, 1);",
        "    chron__set32(&w->dir_dirty, 0);",
        ("test_power",),
    ),
    Mutant(
        "the lock is handed over with nobody at the door",
        "platform/linux.c",
        "        status = set_lock(fd, F_WRLCK, 1);",
        "        status = 0;",
        ("test_lock",),
    ),
    Mutant(
        "a reader overlooks that another writer came",
        "read/next.c",
        "    if (__builtin_expect(r->mark.epoch == r->writer_epoch, 1))",
        "    if (1)",
        (PROCESSES,),
    ),
    # --------------------------------------------------------------------- appends that must not block, event loops
    Mutant(
        "try_append overlooks a claim",
        "write/append.c",
        "           w->claimed == 0 && w->sync_every == 0 &&",
        "           w->sync_every == 0 &&",
        ("test_try_append",),
    ),
    Mutant(
        "try_append overlooks a sync that is due",
        "write/append.c",
        "           w->claimed == 0 && w->sync_every == 0 &&",
        "           w->claimed == 0 &&",
        ("test_try_append",),
    ),
    Mutant(
        "arming a reader does not announce it",
        "read/wait.c",
        "    (void)chron__doorbell_announce(&r->bell);\n    if (is_ready(r))",
        "    if (is_ready(r))",
        ("test_listen",),
    ),
    Mutant(
        "an armed reader does not look again",
        "read/wait.c",
        "    (void)chron__doorbell_announce(&r->bell);\n    if (is_ready(r))",
        "    (void)chron__doorbell_announce(&r->bell);\n    if (0)",
        ("test_listen",),
    ),
    Mutant(
        "nobody hears of a sync", "write/sync.c", "    chron__bell_signal(bell);", "    (void)bell;", ("test_listen",)
    ),
    Mutant(
        "a wait at bells forgets what it has seen",
        "format/bell.c",
        "        counts[i] = now;\n",
        "        (void)now;\n",
        ("test_listen",),
    ),
    # ---------------------------------------------------------------------------------- batches in and out
    Mutant(
        "columns do not compare seqs",
        "read/columns.c",
        "            chron__rec_seq(rec) != seq + n || ",
        "            ",
        (OUT,),
    ),
    Mutant("columns do not compare epochs", "read/columns.c", " || chron__rec_epoch(rec) != epoch ||", " ||", (OUT,)),
    Mutant(
        "copies one byte too long",
        "read/columns.c",
        "rec->length > c->bytes_max - c->payload_bytes",
        "rec->length > c->bytes_max - c->payload_bytes + 1u",
        ("test_columns",),
    ),
    Mutant("advance loses count", "read/columns.c", "        r->peeked.count--;\n", "", ("test_columns",)),
    Mutant(
        "a batch does not keep its segment",
        "read/columns.c",
        "(chron_segment *)chron__seg_retain(r->seg)",
        "(chron_segment *)r->seg",
        ("test_columns",),
    ),
    Mutant(
        "columns of zeros are believed",
        "read/columns.c",
        "    if (chron__map_faulted(&r->seg->map)) /* [FAULT]",
        "    if (0) /* [FAULT]",
        (OUT,),
    ),
    Mutant("views from the wrong place", "read/columns.c", "offset[i] - from;", "offset[i];", ("test_columns",)),
    Mutant(
        "offsets are not looked at again",
        "write/batch.c",
        "begin <= end && end <= s->bytes_size ? (size_t)(end - begin) : CHRON__LENGTH_WRONG;",
        "(size_t)(end - begin);",
        ("test_columns",),
    ),
    Mutant(
        "offsets may lie beyond the buffer",
        "write/batch.c",
        "    if (from < to && offset_at(s, to) > s->bytes_size)",
        "    if (0)",
        (IN,),
    ),
    Mutant(
        "a batch may grow while it is placed",
        "write/batch.c",
        " || chron__record_bytes(r.length) > end - offset)",
        ")",
        ("test_columns",),
    ),
    Mutant(
        "the first commit word is made of what the source says later",
        "write/batch.c",
        "    chron__rec_publish(w->base + offset, (uint32_t)length);",
        "    chron__rec_publish(w->base + offset, (uint32_t)get(source, from).length);",
        ("test_columns",),
    ),
    Mutant(
        "times before 1970 are taken",
        "write/batch.c",
        "        if (stamp < 0)\n",
        "        if (0)\n",
        ("test_columns",),
    ),
    # ------------------------------------------------------------------------------------------- retention
    Mutant(
        "a damaged position holds nothing",
        "queue/retention.c",
        "    } else if (l->damaged) {\n",
        "    } else if (0) {\n",
        (REPAIR, DAMAGE, WRITER),
    ),
    Mutant(
        "without readers all goes",
        "queue/retention.c",
        "    } else if (l->readers.count == 0) {\n",
        "    } else if (0) {\n",
        (WRITER, STATEFUL),
    ),
    Mutant(
        "positions may be lost behind what was deleted",
        "write/room.c",
        "        flags |= CHRON__RETAIN_SYNC_POSITIONS;\n",
        "        flags |= 0;\n",
        ("test_order",),
    ),
    # ------------------------------------------------------------------------- doorbell, keeper, guard, clock
    Mutant(
        "the sleepers' flag is never cleared",
        "format/doorbell.c",
        "chron__exchange32(bell->map.base + CHRON__BELL_WAITING, 0) == 0",
        "chron__load_relaxed32(bell->map.base + CHRON__BELL_WAITING) == 0",
        (PROCESSES,),
    ),
    Mutant(
        "woken without a count",
        "format/doorbell.c",
        "    (void)chron__add32(bell->map.base + CHRON__BELL_NOTIFY, 1);",
        "",
        ("test_bell",),
    ),
    Mutant(
        "the keeper does not sync",
        "write/syncer.c",
        "    status = chron__writer_sync(w);\n",
        "    status = 0;\n",
        (WRITER,),
    ),
    Mutant(
        "preparing pages overwrites them",
        "write/prepare.c",
        "    chron__populate(seg->map.base + from, (size_t)(to - from));\n",
        "    memset(seg->map.base + from, 0, (size_t)(to - from));\n",
        (STRESS, "test_threads"),
    ),
    Mutant(
        "a roll does not wait for the keeper",
        "write/roll.c",
        "    while (w->preparing)\n        pthread_cond_wait(&w->keeper_done, &w->lock);\n",
        "",
        ("tsan/test_threads",),
    ),
    Mutant(
        "the segment changes without the lock",
        "write/roll.c",
        "    pthread_mutex_lock(&w->lock);\n"
        "    w->seg = seg;\n"
        "    chron__set64(&w->tail, tail);\n"
        "    pthread_mutex_unlock(&w->lock);\n",
        "    w->seg = seg;\n    chron__set64(&w->tail, tail);\n",
        ("tsan/test_threads",),
    ),
    Mutant(
        "the guard sets no flag",
        "platform/guard.c",
        "        chron__set_release32(&slot->fault, 1); /* [FAULT] first: zeros must not be seen without it */\n",
        "",
        (PROCESSES,),
    ),
    # ------------------------------------------------------ what an invariant notices first (base/assert.h)
    Mutant(
        "the edge lies where END has to fit",
        "write/roll.c",
        "    if (w->edge > last)\n        w->edge = last;\n",
        "",
        ("test_try_append", "test_stress"),
    ),
    Mutant(
        "a new segment goes on with the old tally", "write/roll.c", "    w->tally = *tally;\n", "", ("test_stress",)
    ),
    Mutant(
        "a segment says that it follows itself",
        "write/roll.c",
        "next, seq, old->base_seq, w->full_epoch",
        "next, seq, seq, w->full_epoch",
        ("test_names", "test_stress"),
    ),
    Mutant(
        "half of the torn tail is zeroed",
        "queue/quarantine.c",
        "memset(seg->map.base + tail, 0, (size_t)(end - tail));",
        "memset(seg->map.base + tail, 0, (size_t)(end - tail) / 2u);",
        ("test_crash", "test_power"),
    ),
    Mutant(
        "the mark in queue.meta stays behind the one that is told",
        "write/sync.c",
        "        w->state.durable_next = next_seq;\n",
        "",
        ("test_order", "test_names"),
    ),
    Mutant(
        "the keeper does not say that it prepares",
        "write/keeper.c",
        "    w->preparing = 1;",
        "    w->preparing = 0;",
        ("test_keeper", "test_threads", "test_stress"),
    ),
    Mutant(
        "an index entry before its record",
        "write/append.h",
        "    chron__rec_publish(at, (uint32_t)length);\n    chron__tally_add",
        "    chron__writer_note_block(w, offset);\n    chron__rec_publish(at, (uint32_t)length);\n    chron__tally_add",
        ("test_reads",),
    ),
    Mutant(
        "a reader enters the next segment at its header",
        "read/next.c",
        "chron__reader_enter_segment(r, next, next->data_offset, r->next_seq);",
        "chron__reader_enter_segment(r, next, 0, r->next_seq);",
        ("test_stress", "test_reads"),
    ),
    Mutant(
        "cleaning without its lock",
        "write/room.c",
        "    pthread_mutex_lock(&w->clean_lock);\n",
        "",
        ("test_keeper", "test_order"),
    ),
    Mutant(
        "a position is stored without its lock",
        "format/position.c",
        "    if (io->same_file(io, p->fd, p->dir, file))\n        return 0;\n    io->unlock(io, &p->lock);\n",
        "    io->unlock(io, &p->lock);\n    if (io->same_file(io, p->fd, p->dir, file))\n        return 0;\n",
        ("test_order", "test_names"),
    ),
    Mutant(
        "a smaller struct is read beyond its end",
        "base/struct.c",
        "smaller(size, known));\n    memset((uint8_t *)to + smaller(size, known), 0, known",
        "known);\n    memset((uint8_t *)to + smaller(size, known), 0, known",
        ("test_structs",),
    ),
    Mutant(
        "a smaller struct is filled beyond its end",
        "base/struct.c",
        "smaller(size, known));\n    memset((uint8_t *)to + smaller(size, known), 0, size",
        "known);\n    memset((uint8_t *)to + smaller(size, known), 0, size",
        ("test_structs",),
    ),
    Mutant(
        "what a smaller struct lacks is not 0",
        "base/struct.c",
        "    memset((uint8_t *)to + smaller(size, known), 0, known - smaller(size, known));\n",
        "    memset((uint8_t *)to + smaller(size, known), 1, known - smaller(size, known));\n",
        ("test_structs",),
    ),
    Mutant(
        "what a larger struct has more is not filled",
        "base/struct.c",
        "    memset((uint8_t *)to + smaller(size, known), 0, size - smaller(size, known));\n",
        "",
        ("test_structs",),
    ),
    Mutant(
        "what only a newer header knows is overlooked",
        "base/struct.c",
        "for (size_t i = known; i < size; i++)",
        "for (size_t i = size; i < size; i++)",
        ("test_structs",),
    ),
    Mutant("any struct_size is believed", "base/struct.c", "size > NONSENSE_BYTES || ", "", ("test_structs",)),
    Mutant(
        "elements lie as far apart as in our header",
        "base/struct.c",
        "array->at + i * array->stride",
        "array->at + i * known",
        ("test_structs",),
    ),
    Mutant(
        "a reader beyond a log that was cut waits for what comes",
        "read/attach.c",
        "return status == -CHRON_ERANGE ? rewritten(r->next_seq - 1u, chron__error()->next_seq) : status;",
        "return status == -CHRON_ERANGE ? 0 : status;",
        (REPAIR,),
    ),
    Mutant(
        "another boot passes for this one",
        "format/identity.c",
        "    if (memcmp(copy, place->boot, sizeof place->boot) != 0)\n        return CHRON__FROM_BOOT;",
        "    if (0)\n        return CHRON__FROM_BOOT;",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "a copy passes for the original",
        "format/identity.c",
        "        return CHRON__FROM_COPY;\n    if (!is_known(",
        "        return CHRON__FROM_HERE;\n    if (!is_known(",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "where another slot was stored counts",
        "format/identity.c",
        " ||\n        chron__read_le64(copy + offsetof(chron__identity, generation)) != value->generation)",
        ")",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "nothing is announced",
        "write/roll.c",
        "    chron__intent_store(w->q.meta.base, w->edge);\n",
        "",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "an END is not announced",
        "write/roll.c",
        "    chron__intent_store(w->q.meta.base, old->size); /* END is about to be placed */\n",
        "",
        (
            "test_crash",
            CRASHES,
        ),
    ),
    Mutant("damage passes for a torn end", "queue/hole.c", ": !torn;", ": 0;", ("tests/test_evidence.py",)),
    Mutant(
        "a sector with good records may be torn",
        "queue/hole.c",
        "        if (sector < h->offset && h->offset > seg->data_offset)\n            continue;\n",
        "",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "behind a hole everything goes",
        "queue/verdict.c",
        "behind.records > before && s->wish->torn == CHRON__TORN_ASK",
        "0 && s->wish->torn == CHRON__TORN_ASK",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "the index proves nothing",
        "queue/hole.c",
        "    int proven = is_indexed(h);",
        "    int proven = 0 && is_indexed(h);",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "a reader's position proves nothing",
        "queue/hole.c",
        "(search.offset >= intent || was_read(&readers, search.seq, rec.crc))",
        "search.offset >= intent",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "records behind all that was announced prove nothing",
        "queue/hole.c",
        "(search.offset >= intent || was_read(&readers, search.seq, rec.crc))",
        "was_read(&readers, search.seq, rec.crc)",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "what a repair gives up is not written down",
        "write/recovery.c",
        "    if (!s->accepted && !s->gaps_damaged)\n",
        "    if (1)\n",
        (
            "tests/test_evidence.py",
            REPAIR,
        ),
    ),
    Mutant(
        "what a repair gives up is not on disk",
        "queue/gaps.c",
        "    return status < 0 ? (int)status : q->io->sync_file(q->io, fd);",
        "    return status < 0 ? (int)status : 0;",
        ("test_order",),
    ),
    Mutant(
        "a copy's mark is believed",
        "write/recovery.c",
        "s->wish->whence == CHRON__FROM_COPY ? 0 : s->wish->state.durable_next",
        "s->wish->state.durable_next",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "seqs that were given up are given away again",
        "queue/survey.c",
        "    s->next_seq = end;\n",
        "",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "nobody counts the segments",
        "queue/survey.c",
        "wish->words.segments != s->bases.count",
        "0",
        ("tests/test_evidence.py",),
    ),
    Mutant(
        "a reader does not pass what a repair gave up",
        "read/attach.c",
        "    found = status == 0 ? chron__gaps_find(&gaps, r->next_seq) : NULL;",
        "    found = NULL;",
        (
            "tests/test_evidence.py",
            REPAIR,
        ),
    ),
    Mutant(
        "an input error passes for a torn end",
        "format/segment.c",
        "    if (status < 0 && chron__map_faulted(&seg->map)) {",
        "    if (0 && chron__map_faulted(&seg->map)) {",
        ("test_faults",),
    ),
    Mutant(
        "whatever fails on the way to the disk poisons",
        "write/sync.c",
        "    if (status < 0 && w->sync_lost) {",
        "    if (status < 0) {",
        ("test_faults",),
    ),
    Mutant(
        "what was there before is not proven",
        "write/prove.c",
        "    status = look(q, seg, from, to, buffer);",
        "    status = 1;",
        ("test_prove",),
    ),
    Mutant(
        "what the device lost is not written anew",
        "write/sync.c",
        "    if (status == 0)\n        status = write_anew(w, seg, name);\n",
        "",
        ("test_prove",),
    ),
    Mutant(
        "descriptors of sealed segments are not kept",
        "write/roll.c",
        "    chron__writer_owe(w, old);\n",
        "",
        ("test_prove",),
    ),
    Mutant(
        "a removed queue is not noticed",
        "write/sync.c",
        "io->links(io, w->q.meta_fd) != 0 && io->links(io, seg->fd) != 0",
        "1",
        ("tests/test_docs.py",),
    ),
    Mutant(
        "the owner is not told of a sync that failed",
        "write/open.c",
        "        return w->was_told ? 0 : chron__writer_fail_poisoned(w);",
        "        return 0;",
        ("test_faults",),
    ),
    Mutant(
        "queue.meta is named before the rest is there",
        "write/birth.c",
        "    if (status == 0)\n        status = chron__birth_complete(w, born);\n    CHRON__STEP",
        "    if (status == 0)\n        status = chron__queue_name_meta(&w->q);\n    CHRON__STEP",
        (
            "test_order",
            CRASHES,
        ),
    ),
    Mutant(
        "the mark does not move by itself",
        "write/syncer.c",
        "        before = old_enough(w, now);",
        "        before = 0;",
        ("test_keeper",),
    ),
    Mutant(
        "the mark stays behind on disk",
        "write/sync.c",
        "    int on_disk = w->unsynced_base > w->mark_on_disk;\n",
        "    int on_disk = 0;\n",
        ("test_order",),
    ),
    Mutant(
        "a repair does not ask",
        "queue/plan.c",
        "    return tell->stopped ? chron__fail(",
        "    return 0 ? chron__fail(",
        (REPAIR_CALL,),
    ),
    Mutant(
        "queue.meta is made from segments of several queues",
        "queue/rebuild.c",
        "    if (others)\n",
        "    if (0)\n",
        (REPAIR_CALL,),
    ),
    Mutant(
        "a rebuilt queue.meta knows no epoch of remnants",
        "queue/rebuild.c",
        "        r->epoch = epoch > r->epoch ? epoch : r->epoch;\n",
        "",
        (REPAIR_CALL,),
    ),
    Mutant(
        "an opening makes what is missing before it has looked",
        "write/open.c",
        "    status = chron__survey_make(&w->q, &wish, &s);\n",
        "    status = chron__birth_complete(w, born);\n"
        "    status = status < 0 ? status : chron__survey_make(&w->q, &wish, &s);\n",
        (REPAIR_CALL,),
    ),
    Mutant(
        "readers need queue.meta",
        "queue/rebuild.c",
        "    if (status != -CHRON_ECORRUPT && status != -CHRON_ENOQUEUE)\n"
        "        return status;\n    q->meta_lost = 1;\n",
        "    if (status < 0)\n        return status;\n    q->meta_lost = 1;\n",
        (WITHOUT_META,),
    ),
    Mutant(
        "what is durable is waited for in vain",
        "read/next.c",
        "            return is_blind(r);\n",
        "            return 0;\n",
        (WITHOUT_META,),
    ),
    Mutant(
        "a flipped version is of a newer program",
        "format/header.c",
        "out->version != CHRON_FORMAT_VERSION && !is_ours_but_for_version(bytes)",
        "out->version != CHRON_FORMAT_VERSION",
        (WITHOUT_META,),
    ),
    Mutant(
        "a damaged seal vetoes",
        "queue/retention.c",
        "    out->sealed = sealed != 0 || i + 2u < l->bases.count;\n",
        "    out->sealed = sealed == 1;\n",
        (ADVICE,),
    ),
    Mutant(
        "a lost seal is as old as can be",
        "queue/retention.c",
        " : out->sealed ? made_ns(l, i + 1u) : 0;",
        " : 0;",
        (ADVICE,),
    ),
    Mutant(
        "a damaged header takes the position",
        "format/position.c",
        "status == -CHRON_ECORRUPT && !chron__header_is_whole(page) ? 1 : status",
        "status",
        (ADVICE,),
    ),
    Mutant(
        "a position that cannot be read is above all limits",
        "queue/retention.c",
        "        if (is_ignored(l, one)) {\n",
        "        if (!one->damaged && is_ignored(l, one)) {\n",
        (ADVICE,),
    ),
]

# What the simulator of tests/sim has to notice by itself, within its hundred seeds.
SIMULATED = (
    "sync forgets the records",
    "sync forgets the directory",
    "sync forgets older segments",
    "durable mark too early",
    "the names of the writer before are not synced",
    "positions may be lost behind what was deleted",
    "the torn tail is not zeroed",
    "the zeroed tail is not synced",
    "what recovery cuts off is not kept",
    "zeroed before it is copied",
    "the copy in quarantine is not synced",
    "a roll is left half done",
    "recovery skips the CRC",
    "durable records may be missing",
    "half of the torn tail is zeroed",
    "queue.meta is named before the rest is there",
    "the epoch stays",
    "slots without a CRC",
    "the same slot is written again and again",
    "what was claimed and not used is not zeroed",
    "an abort leaves what was written",
    "cleanup off by one",
)

MUTANTS += [
    replace(mutant, name=f"{mutant.name}, simulated", tests=("sim/sim",))
    for mutant in MUTANTS
    if mutant.name in SIMULATED
]
MUTANTS += [
    Mutant(
        "the mark is stored before the sync",
        "write/sync.c",
        "    status = chron__writer_check_place(w, seg);\n",
        "    if (next_seq > w->state.durable_next)\n"
        "        w->state.durable_next = next_seq;\n"
        "    (void)chron__writer_store_state(w, 0);\n"
        "    status = chron__writer_check_place(w, seg);\n",
        ("sim/sim",),
    ),
    Mutant(
        "the records of an opening are older than its epoch",
        "write/open.c",
        "    w->epoch = (uint32_t)w->full_epoch;\n",
        "    w->epoch = (uint32_t)w->full_epoch - (w->full_epoch > 1u);\n",
        ("sim/sim",),
    ),
    Mutant(
        "the copy of the state on disk is written over",
        "write/sync.c",
        "raise = w->state.generation == w->state_on_disk ? CHRON__SLOTS_TURN : CHRON__SLOTS_OVER;",
        "raise = CHRON__SLOTS_TURN;",
        ("sim/sim",),
    ),
    Mutant(
        "a missing record after a loss of power is the end",
        "queue/survey.c",
        "    if (s->wish->whence != CHRON__FROM_HERE)\n        return is_last(s, &h);\n",
        "    if (s->wish->whence != CHRON__FROM_HERE)\n        return 1;\n",
        ("sim/sim",),
    ),
    Mutant(
        "an undone position lets retention delete",
        "write/recovery.c",
        "        status = chron__positions_undo(s->q, s->next_seq);\n",
        "        status = 0;\n",
        ("sim/sim",),
    ),
    Mutant(
        "a segment that retention deleted is a loss",
        "write/sync.c",
        "    if (status == -ENOENT) /* the owner has left it",
        "    if (0) /* the owner has left it",
        ("test_prove",),
    ),
    Mutant(
        "a header without a version is of a newer program",
        "format/header.c",
        "    if (out->version == 0) /*",
        "    if (0) /*",
        ("sim/sim",),
    ),
    Mutant(
        "impossible index entries stay",
        "queue/quarantine.c",
        "(chron__seg_index_get(seg, block) == 0 || ",
        "(",
        ("sim/sim",),
    ),
    Mutant(
        "a deleted segment comes back",
        "write/sync.c",
        "    if (w->q.io->same_file(w->q.io, seg->fd, w->q.dir, name))\n",
        "    if (1)\n",
        ("test_prove",),
    ),
    Mutant(
        "a reader sleeps without the fence that the writer leaves to it",
        "format/doorbell.c",
        "    bell->is_missed = needs_membarrier(bell) && chron__membarrier() < 0;",
        "    bell->is_missed = 0;",
        ("test_bell",),
    ),
    Mutant(
        "a writer that does not take part leaves the fence to readers",
        "format/doorbell.c",
        "    bell->is_light = chron__membarrier_join() == 0;",
        "    bell->is_light = 1;",
        ("test_bell",),
    ),
    Mutant(
        "a reader that may not fence sleeps as if it had",
        "format/doorbell.h",
        "    return bell->map.base && !bell->is_missed;",
        "    return bell->map.base != NULL;",
        ("test_bell",),
    ),
    Mutant(
        "a doorbell of the first release is kept",
        "format/doorbell.c",
        "    if (status < 0 || !(features & CHRON__INCOMPAT_FENCE)) {",
        "    if (status < 0) {",
        ("tests/test_format.py",),
    ),
]
