/* SPDX-License-Identifier: MIT */
/* next.h - looking at the record at the position (next.c). */
#ifndef CHRON_NEXT_H
#define CHRON_NEXT_H

#include "read/reader.h"

/*
 * Is there a record at the position? 1: *rec is loaded, in bounds, with the right seq; its CRC is not checked yet. 0: not
 * yet. Goes on to the next segment when need be.
 */
int chron__reader_peek(chron_reader *r, chron__rec *rec);
/* The record that peek found: is it whole, with the payload at `payload`, and does it follow? 0, or why not. */
int chron__reader_check(const chron_reader *r, const chron__rec *rec, const void *payload);
/* check has failed with `status`. 1: it is a gap that was accepted, and the position is behind it: look again; or a failure. */
int chron__reader_pass_damage(chron_reader *r, int status);

#endif
