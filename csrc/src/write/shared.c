/* SPDX-License-Identifier: MIT */
/* shared.c - what those who take turns share: telling why there is none, and that nobody goes on. See shared.h. */
#include "write/shared.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"

int chron__turn_fail(const chron_writer *w, int status, uint32_t owner, const char *what)
{
    char who[96];
    chron__member member;

    if (status == -EINTR)
        return chron__fail(CHRON_EINTR, "interrupted while waiting for %s", what);
    if (status != -ETIMEDOUT)
        return chron__fail_sys(status, CHRON__FILE_META, "cannot tell who has %s", what);
    chron__turn_owner(&w->shared->m, owner, &member);
    chron__turn_describe(&w->shared->m, owner, who, sizeof who);
    status =
        chron__fail(CHRON_ETURN, "%s has kept %s for %" PRIu64 " ms: let it go on, or end it (the others go on then)",
                    who, what, w->shared->timeout_ns / 1000000u);
    chron__error()->pid = member.pid;
    return status;
}

void chron__shared_poison(chron_writer *w)
{
    chron__store_release_le32(chron__word(w, CHRON__O_POISON), w->shared->ready); /* [HEAD] looked at in each turn */
    chron__set32(&w->poisoned, 1);                                                /* [STOP] */
}

int chron__shared_open_head(const chron_writer *w, uint64_t base, chron__seg **out)
{
    int status = chron__seg_open(&w->q, base, CHRON__SEG_WRITE, out);

    if (status == -CHRON_EGONE)
        status =
            chron__fail(CHRON_EREMOVED, "the segment that several writers append to is gone: the queue was removed, "
                                        "or a part of it. Close the writers");
    return status;
}
