/* SPDX-License-Identifier: MIT */
/*
 * header.h - the 128 bytes that every file of a queue begins with: written once, checked on each opening.
 */
#ifndef CHRON_HEADER_H
#define CHRON_HEADER_H

#include "base/format.h"

/* Fill `out` (sizeof(chron__file_header) bytes) from *header: version, little-endian, CRC. */
void chron__header_encode(const chron__file_header *header, uint8_t *out);

/*
 * Check and decode the header that `bytes` points at (a private copy, not the mapping). `uuid` is the
 * queue's, or NULL to accept any. `file` is for the message. 0, or -CHRON_EFORMAT, -CHRON_ECORRUPT.
 */
int chron__header_decode(const uint8_t *bytes, const char *magic, const uint8_t *uuid, const char *file,
                         chron__file_header *out);

/* Is it a header that somebody wrote and nothing has altered since, of whatever file? */
int chron__header_is_whole(const uint8_t *bytes);

#endif
