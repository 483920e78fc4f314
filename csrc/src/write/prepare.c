/* SPDX-License-Identifier: MIT */
/*
 * prepare.c - making things ready before they are needed: pages ahead of the tail, and the file of the next segment.
 * By the keeper's thread where there is one, else by the owner's, a slice at a time.
 *
 * Invariant: preparing a page never changes a byte of it. Zeros are written to a file that nobody has mapped yet, and that has no
 * segment's name.
 */
#include "write/prepare.h"

#include "base/assert.h"
#include "write/reuse.h"

#define INLINE_SLICE 65536u            /* prepared in one go by the owner's thread: 16 pages */
#define WIPE_SLICE (2u * INLINE_SLICE) /* so a segment is wiped when the one before is half full */
#define WINDOW_MAX (16u * 1024 * 1024) /* prepared ahead at most; 6 ms at 2.5 GB/s */
#define WINDOW_GROWTH \
    (4u * CHRON__EDGE_STEP) /* so it is four times what was appended: a queue of a few records stays small */

uint64_t chron__writer_touch(chron_writer *w, chron__seg *seg, uint64_t goal, uint64_t limit)
{
    uint64_t from = chron__get64(&seg->touched);
    uint64_t to;

    if (goal > seg->size)
        goal = seg->size;
    if (from >= goal)
        return 0;
    to = goal - from > limit ? from + limit : goal;
    to = (to + CHRON__PAGE - 1u) / CHRON__PAGE * CHRON__PAGE;
    CHRON__ASSERT(from < to && to <= seg->size && from % CHRON__PAGE == 0);
    /* [TOUCH] The owner and the keeper claim slices here; whoever loses leaves this one to the other. */
    if (!chron__cas64(&seg->touched, from, to))
        return 0;
    chron__populate(seg->map.base + from, (size_t)(to - from));
    chron__add64(&w->touched_bytes, to - from); /* [COUNT] */
    return to - from;
}

/* Pages that the owner has written to need no preparing. */
static void skip_touched(chron__seg *seg, uint64_t end)
{
    uint64_t from = chron__get64(&seg->touched);

    if (from < end)
        (void)chron__cas64(&seg->touched, from, (end + CHRON__PAGE - 1u) / CHRON__PAGE * CHRON__PAGE); /* [TOUCH] */
}

void chron__writer_prepare_ahead(chron_writer *w, uint64_t end)
{
    uint64_t tail = chron__get64(&w->tail);
    uint64_t window = chron__get64(&w->window);
    uint64_t slice = window < INLINE_SLICE ? window : INLINE_SLICE;

    skip_touched(w->seg, tail);
    if (chron__get64(&w->seg->touched) < end + slice)
        (void)chron__writer_touch(w, w->seg, end + slice, INLINE_SLICE);
    if (window < WINDOW_MAX)
        chron__set64(&w->window, window + WINDOW_GROWTH);
    if (w->keeper_running)
        chron__writer_kick(w);
    else
        chron__reuse_slice(w, WIPE_SLICE);
}

/* A file for the next segment: one that was another segment, or a new one. */
static int begin_next(chron_writer *w, chron__seg **out)
{
    *out = chron__reuse_next(w);
    return *out ? 0 : chron__seg_create(&w->q, CHRON__FILE_NEXT, w->options.mode, out);
}

int chron__writer_finish_next(chron_writer *w, chron__seg **next)
{
    int status = 0;

    if (chron__seg_is_ready(*next))
        return 0;
    if ((*next)->is_old)
        status = chron__seg_wipe(&w->q, *next, CHRON__FILE_NEXT, (*next)->size);
    else
        status = chron__seg_map(&w->q, *next, CHRON__FILE_NEXT);
    if (status < 0)
        *next = NULL;
    return status;
}

void chron__writer_pages_ahead(chron_writer *w, uint64_t tail, uint64_t goal)
{
    uint64_t window = chron__get64(&w->window);

    skip_touched(w->seg, tail);
    (void)chron__writer_touch(w, w->seg, goal, goal);
    if (window < WINDOW_MAX)
        chron__set64(&w->window, window + WINDOW_GROWTH);
    if (w->keeper_running)
        chron__writer_kick(w);
}

int chron__writer_make_next(chron_writer *w, chron__seg **out)
{
    int status = begin_next(w, out);

    return status < 0 ? status : chron__writer_finish_next(w, out);
}

/*
 * Every sync of a record writes its whole page, and zeros that reach the disk before records do are written twice: so only where
 * nobody syncs, and a segment is full before the kernel begins to write it (30 s by default).
 */
int chron__writer_prewrites(const chron_writer *w)
{
    return w->options.durability == CHRON_DURABILITY_NONE && (w->q.fs & CHRON__FS_LARGE_PAGES) &&
           chron__writer_fills_fast(w);
}

int chron__writer_step_next(chron_writer *w, uint64_t lead, chron__seg **next)
{
    int status;

    if (!*next) {
        status = begin_next(w, next);
        return status < 0 ? status : 1;
    }
    if ((*next)->is_old) {
        status = chron__seg_wipe(&w->q, *next, CHRON__FILE_NEXT, CHRON__ZERO_PIECE);
    } else if (chron__writer_prewrites(w) && (*next)->zeroed < (*next)->size) {
        if ((*next)->zeroed + CHRON__ZERO_PIECE > lead)
            return 0;
        status = chron__seg_zero(&w->q, *next, CHRON__FILE_NEXT);
    } else {
        status = chron__seg_map(&w->q, *next, CHRON__FILE_NEXT);
    }
    if (status < 0)
        *next = NULL;
    return status < 0 ? status : 1;
}
