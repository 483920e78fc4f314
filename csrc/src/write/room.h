/* SPDX-License-Identifier: MIT */
/* room.h - back-pressure and cleaning (room.c). */
#ifndef CHRON_ROOM_H
#define CHRON_ROOM_H

#include "base/struct.h"
#include "write/writer.h"

/*
 * At an opening, if limits are on: how much there is in quarantine/. If this opening has put something there, what is too much
 * goes: a service that dies again and again may never come to a cleanup.
 */
void chron__writer_trim(chron_writer *w);
/* Retention as the options say. Any thread. As chron__retention_apply(). */
int chron__writer_clean(chron_writer *w, chron_cleanup *out, const chron__array *fates);
/* May another segment file be made? 1 or 0. Any thread. */
int chron__writer_has_room(chron_writer *w);
/*
 * Room for one more segment: delete what readers are done with, then wait for them, `timeout_ns` at most (negative: no
 * limit). 1, 0 or a failure. `on_cancel` is called if the thread is cancelled meanwhile. Owner's thread.
 */
int chron__writer_make_room(chron_writer *w, int64_t timeout_ns, void (*on_cancel)(void *writer));
/* EFULL, with who keeps the oldest segment and why; or another failure. */
int chron__writer_fail_full(chron_writer *w);

#endif
