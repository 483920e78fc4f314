/* SPDX-License-Identifier: MIT */
/* seek.h - where reading begins (seek.c). */
#ifndef CHRON_SEEK_H
#define CHRON_SEEK_H

#include "read/reader.h"

/* Be where the options say that reading begins. */
int chron__reader_start(chron_reader *r);

#endif
