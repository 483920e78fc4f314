/* SPDX-License-Identifier: MIT */
/*
 * dead.c - handing a job over to the dead queue, "<path>.dead": its record as it was, and behind it, in the same batch, one that tells
 * its history. An append there and the change of the cell here are two steps. So first the cell says DEADING, and from where on
 * in the dead queue the letter would lie; whoever finds it so, and its owner dead, looks there before it appends.
 *
 * The history comes last: if a loss of power tears the batch, no history is found, and both are appended again. The cell says
 * DONE only when the letter is on disk.
 */
#include "group/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/step.h"

#define HISTORY_TYPE CHRON_TYPE_MAX
#define HISTORY_BYTES 2048u
#define REASON_BYTES 400u
#define LETTER_ROOM 65536u                /* that a segment of the dead queue has more than one of the queue */
#define LOCK_WAIT_NS INT64_C(10000000000) /* others hand over, too, or return letters */

typedef struct letter {
    char path[4096];
    char history[HISTORY_BYTES];
    size_t key_bytes; /* of the history: they tell which job it is of */
    size_t bytes;
} letter;

static size_t put_reason(const char *reason, char *out)
{
    size_t n = 0;

    for (size_t i = 0; reason[i] && i < REASON_BYTES; i++) {
        unsigned char c = (unsigned char)reason[i];

        if (c == '"' || c == '\\')
            n += (size_t)sprintf(out + n, "\\%c", c);
        else if (c < 0x20u || c == 0x7Fu)
            out[n++] = ' ';
        else
            out[n++] = (char)c;
    }
    while (n > 0 && (out[n - 1u] & 0xC0) == 0x80 && reason[n]) /* not in the middle of a character */
        n--;
    out[n] = '\0';
    return n;
}

/* The beginning tells which job it is; the rest is for people. */
static void write_history(const chron_group *g, uint64_t seq, uint64_t word, const char *reason, const chron_view *view,
                          letter *out)
{
    const uint8_t *uuid = chron__group_queue(g)->uuid;
    char hex[33];
    char text[2u * REASON_BYTES + 8u];
    char host[64];
    int n;

    for (size_t i = 0; i < 16u; i++)
        (void)snprintf(hex + 2u * i, 3, "%02x", uuid[i]);
    (void)put_reason(reason ? reason : "", text);
    chron__hostname(host, sizeof host);
    n = snprintf(out->history, sizeof out->history,
                 "{\"dead_letter\":1,\"queue\":\"%s\",\"group\":\"%s\",\"seq\":%" PRIu64 ",", hex, g->name, seq);
    out->key_bytes = (size_t)n;
    n += snprintf(out->history + n, sizeof out->history - (size_t)n,
                  "\"deliveries\":%u,\"why\":\"%s\",\"reason\":\"%s\",\"readable\":%s,\"timestamp_ns\":%" PRIu64
                  ",\"type_id\":%u,\"flags\":%u,\"buried_ns\":%" PRIu64 ",\"host\":\"%s\",\"pid\":%" PRId64 "}",
                  (unsigned)chron__cell_count(word), reason ? "rejected" : "deliveries", text,
                  view->payload ? "true" : "false", view->timestamp_ns, (unsigned)view->type_id, (unsigned)view->flags,
                  chron__clock_ns(0), host, chron__pid());
    out->bytes = (size_t)n;
}

/* The dead queue's next_seq; 0 if there is no such queue. */
static int end_of_dead(const letter *l, uint64_t *end)
{
    chron_queue_info info = {.struct_size = sizeof info};
    int status = chron_queue_info_get(l->path, &info);

    *end = status == 0 ? info.next_seq : 0;
    return status == -CHRON_ENOQUEUE ? 0 : status;
}

/* Is the letter there, at `from` or behind? 1 or 0. */
static int search(const letter *l, uint64_t from)
{
    const chron_reader_options options = {
        .struct_size = sizeof options, .start = CHRON_START_EARLIEST, .on_gap = CHRON_GAP_OLDEST};
    chron_reader *r;
    chron_view view;
    int found = 0;
    int status = chron_reader_open(l->path, &options, &r);

    if (status < 0)
        return status == -CHRON_ENOQUEUE ? 0 : status;
    status = chron_reader_seek(r, from);
    while (status >= 0 && !found && (status = chron_reader_next(r, &view)) > 0)
        found = view.type_id == HISTORY_TYPE && view.length >= l->key_bytes &&
                memcmp(view.payload, l->history, l->key_bytes) == 0;
    (void)chron_reader_close(r);
    return status < 0 ? status : found;
}

/* Append it unless it is there, and have it on disk, where that is possible: else the queue itself is not kept either. */
static int deliver(chron_group *g, const letter *l, int is_there, const chron_view *view)
{
    const chron_writer_options options = {.struct_size = sizeof options,
                                          .segment_size = chron__group_queue(g)->segment_size + LETTER_ROOM,
                                          .mode = g->options.mode,
                                          .lock_wait_ns = LOCK_WAIT_NS};
    const chron_record records[2] = {
        {view->payload, view->length, view->timestamp_ns, view->type_id, view->flags},
        {l->history, l->bytes, CHRON_NOW, HISTORY_TYPE, 0},
    };
    size_t first = view->payload ? 0 : 1;
    chron_writer *w;
    int64_t status = chron_writer_open(l->path, &options, &w);

    if (status < 0)
        return (int)status;
    if (!is_there)
        status = chron_writer_append_batch(w, records + first, 2u - first);
    CHRON__STEP("group: letter appended");
    if (status >= 0)
        status = chron_writer_sync(w);
    if (status == -CHRON_ENOTDURABLE)
        status = 0;
    (void)chron_writer_close(w);
    return status < 0 ? (int)status : 0;
}

static int hand_over(chron_group *g, uint64_t seq, uint64_t word, uint64_t from, const char *reason, letter *l)
{
    static const uint8_t empty[1];
    chron_view view = {.seq = seq};
    int status = chron__group_read(g, seq, &view);
    int is_there;

    if (status < 0) /* damaged, or deleted: then the history is all there is */
        view = (chron_view){.seq = seq};
    else if (!view.payload)
        view.payload = empty;
    write_history(g, seq, word, reason, &view, l);
    is_there = search(l, from);
    if (is_there < 0)
        return is_there;
    CHRON__STEP("group: letter looked for");
    status = deliver(g, l, is_there, &view);
    if (status < 0)
        return status;
    CHRON__STEP("group: letter delivered");
    (void)chron__cell_swap(&g->file, seq, word,
                           chron__cell_word(&g->file, seq, CHRON__CELL_DONE, chron__cell_count(word), 0));
    CHRON__STEP("group: dead is done");
    g->stats.dead++;
    if (g->keys.at)
        chron__group_ready(g, seq);
    return 0;
}

/* The cell says DEADING, and from where on to look. 1; 0: somebody has released the job. */
static int begin(chron_group *g, uint64_t seq, uint64_t *word, uint64_t end, int was_rejected, uint64_t *from)
{
    uint64_t next = chron__cell_word(&g->file, seq, CHRON__CELL_DEADING, chron__cell_count(*word), g->file.members.me);

    if (chron__cell_state(*word) == CHRON__CELL_DEADING) {
        /* A loss of power may have undone what was there: what is appended from now on lies before the old end. */
        *from = chron__cell_arg(&g->file, seq);
        if (*from > end)
            chron__cell_set_arg(&g->file, seq, *from = end);
        return 1;
    }
    *from = end;
    chron__cell_set_arg(&g->file, seq, end);
    chron__cell_set_field(&g->file, seq, offsetof(chron__cell, aux),
                          was_rejected ? CHRON__DEAD_REJECTED : CHRON__DEAD_DELIVERIES);
    CHRON__STEP("group: about to be dead");
    if (!chron__cell_swap(&g->file, seq, *word, next))
        return 0;
    CHRON__STEP("group: dead");
    *word = next;
    return 1;
}

int chron__group_hand_over(chron_group *g, uint64_t seq, uint64_t word, const char *reason)
{
    letter *l = malloc(sizeof *l);
    uint64_t end = 0;
    uint64_t from = 0;
    int status;

    if (!l)
        return chron__fail(CHRON_ENOMEM, "no memory for a dead letter");
    if ((size_t)snprintf(l->path, sizeof l->path, "%s.dead", g->path) >= sizeof l->path)
        status = chron__fail(CHRON_EINVAL, "the path of the dead queue is too long");
    else
        status = end_of_dead(l, &end);
    if (status == 0)
        status = begin(g, seq, &word, end, reason != NULL, &from);
    if (status > 0) {
        if (!reason && chron__cell_field(&g->file, seq, offsetof(chron__cell, aux)) == CHRON__DEAD_REJECTED)
            reason = ""; /* of somebody who died, with what he had to say */
        status = hand_over(g, seq, word, from, reason, l);
    }
    free(l);
    if (status < 0)
        g->retry_ns = chron__monotonic_ns() + CHRON__HAND_OVER_AGAIN_NS;
    return status;
}
