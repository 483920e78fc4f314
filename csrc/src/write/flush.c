/* SPDX-License-Identifier: MIT */
/*
 * flush.c - syncing by the owner's thread, which can do what no other may: leave the current segment, where the device has
 * lost a part of it that was there before this writer came. Then that part is written anew.
 */
#include "write/flush.h"

#include "base/error.h"
#include "write/keeper.h"
#include "write/roll.h"
#include "write/sync.h"

int chron__writer_flush(chron_writer *w)
{
    int status = chron__writer_sync(w);
    int left;

    if (status == 0)
        return 0;
    if (chron__get32(&w->poisoned)) { /* [STOP] */
        w->was_told = 1;
        return status;
    }
    left = chron__writer_leave_lost(w);
    if (left == 0)
        return status;
    return left < 0 ? left : chron__writer_sync(w);
}

int chron_writer_sync(chron_writer *w)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = chron__writer_flush(w);
    if (status == 0)
        w->unsynced = 0;
    chron__writer_leave(w);
    return status;
}

static int sync_request(chron_writer *w, uint64_t seq)
{
    int status;

    if (seq >= chron_writer_next_seq(w))
        return chron__fail_range("", seq, chron_writer_next_seq(w));
    if (chron_writer_durable_seq(w) + 1u > seq)
        return 1;
    status = chron__writer_check_sync(w);
    if (status < 0)
        return status;
    if (!w->keeper_running && w->keeper_wanted) {
        status = chron__keeper_start(w);
        if (status < 0)
            return status;
    }
    if (!w->keeper_running)
        return chron__fail(CHRON_EINVAL, "syncing in the background takes the keeper: open the writer with one, or use "
                                         "sync");
    status = chron__writer_leave_lost(w);
    if (status < 0)
        return status;
    pthread_mutex_lock(&w->lock);
    if (w->syncing_next <= seq) { /* else the sync that runs now does it */
        w->sync_wanted = 1;
        pthread_cond_signal(&w->syncer_wake);
    }
    pthread_mutex_unlock(&w->lock);
    return 0;
}

int chron_writer_sync_request(chron_writer *w, uint64_t seq)
{
    int status = chron__writer_enter(w);

    if (status < 0)
        return status;
    status = sync_request(w, seq);
    chron__writer_leave(w);
    return status;
}
