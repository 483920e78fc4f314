/* SPDX-License-Identifier: MIT */
/*
 * _taker.h - a reader as Python sees it: what C has, and what was fetched from it ahead of the loop that takes it. _fetch.c
 * fetches and hands out, _taker.c does all else.
 *
 * C peeks, which does not move the reader. It is told how many were handed out when somebody asks for the position, and
 * before the next fetch (settle).
 *
 * Invariants:
 *  - A record is counted as handed out by the step that hands it out. No bytecode comes in between, and none while C and
 *    what is kept here disagree about anything else: a signal handler finds a reader that it can use.
 *  - What moves the reader in C forgets what was fetched, in the same call.
 *  - Where the interpreter's lock is given up, `inside` keeps other threads out.
 */
#ifndef CHRONICLE_TAKER_H
#define CHRONICLE_TAKER_H

#include "_fast.h"

#define RECORDS_MAX 256

typedef struct {
    owner o;
    PyTypeObject *kind;        /* of messages */
    int by_new;                /* they are made by tuple.__new__ */
    int sifts;                 /* the reader wants some types only: what it looks for may lie far */
    int inside;                /* a thread is in C, without the interpreter's lock */
    unsigned forks;            /* when it was last used */
    int payloads_only;         /* what was fetched is payloads, not messages */
    size_t want;               /* to be fetched the next time */
    unsigned long long moves;  /* how often C's position may have changed, or what it has peeked at, */
    unsigned long long peeked; /* and how often it had, when a batch was found */
    Py_ssize_t count;          /* fetched: */
    Py_ssize_t told;           /* of them, C's position lies behind so many, */
    Py_ssize_t at;             /* and so many were handed out */
    PyObject *items[RECORDS_MAX];
    char *copy; /* BYTES for payloads */
    uint64_t seq[RECORDS_MAX];
    uint64_t timestamp_ns[RECORDS_MAX];
    uint32_t length[RECORDS_MAX];
    uint16_t type_id[RECORDS_MAX];
    uint8_t flags[RECORDS_MAX];
} taker;

/* A call of C that may take its time. */
#define OUTSIDE(t, call)                     \
    do {                                     \
        (t)->inside = 1;                     \
        Py_BEGIN_ALLOW_THREADS call;         \
        Py_END_ALLOW_THREADS(t)->inside = 0; \
    } while (0)

/* Forget what was fetched and not handed out. */
void taker_forget(taker *t);
/* May this thread use it now? 0, or -1 with an exception, as with all of these. */
int taker_enter(taker *t);
/* The same; and move C's position over what was handed out. */
int taker_settle(taker *t);
/* The same; and forget the rest, because something else is going to move the reader. */
int taker_leave_off(taker *t);
/*
 * Have C move to the next record of the reader's types, or behind the one before, in pieces between which signal handlers run: they may
 * use the reader. 1: there is one, or something was fetched meanwhile; 0: there is none; -1 with an exception.
 */
int taker_sift(taker *t, int back);
/* Fetch more, if everything was handed out. 1: something is there; 0: nothing yet. */
int taker_fill(taker *t, int payloads_only);

/* Methods. next(): hand one out; _fetch() -> whether something is there, which stays; _records(Records, payloads_only,
 * fetched_only) -> an iterator. */
PyObject *taker_next(PyObject *self, PyObject *unused);
PyObject *taker_fetch(PyObject *self, PyObject *unused);
PyObject *taker_records(PyObject *self, PyObject *args);

#endif
