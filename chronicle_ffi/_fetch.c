/* SPDX-License-Identifier: MIT */
/*
 * _fetch.c - records are fetched ahead, many with one call of C, made into objects, and handed out one by one. See _taker.h.
 *
 * Invariant: no more than BYTES of payloads are fetched, unless one payload alone is larger: that one is read into the
 * object that it becomes.
 */
#include "_taker.h"

#include <stdlib.h>
#include <string.h>

#define FIELDS 5      /* of a Message */
#define RECORDS_MIN 2 /* after a jump: who reads here and there should not pay for many */
#define BYTES (1u << 18)

/* ------------------------------------------------------------------------------- what was fetched */

void taker_forget(taker *t)
{
    while (t->at < t->count)
        Py_CLEAR(t->items[t->at++]);
    t->count = t->told = t->at = 0;
    t->want = RECORDS_MIN;
}

int taker_enter(taker *t)
{
    if (t->forks != forks) { /* what the parent fetched is the parent's to handle; its other threads are not here */
        taker_forget(t);
        t->inside = 0;
        t->forks = forks;
    }
    if (!t->inside)
        return 0;
    Py_XDECREF(PyObject_CallMethod((PyObject *)t, "_in_use", NULL));
    return -1;
}

int taker_settle(taker *t)
{
    int status = taker_enter(t);

    if (status < 0 || t->at == t->told)
        return status;
    status = library.chron_reader_advance(t->o.pointer, (size_t)(t->at - t->told));
    if (status < 0) {
        taker_forget(t); /* reading goes on where C is */
        return failed((PyObject *)t, status);
    }
    t->told = t->at;
    return 0;
}

int taker_leave_off(taker *t)
{
    int status = taker_settle(t);

    if (status == 0) {
        taker_forget(t);
        t->moves++;
    }
    return status;
}

/* ---------------------------------------------------------------------------------------- messages */

/* Steal `item`, which may be NULL. */
static int put(PyObject *tuple, Py_ssize_t at, PyObject *item)
{
    return item ? PyTuple_SetItem(tuple, at, item) : -1;
}

/* Put the five fields into a tuple that is all NULL. Steals the payload. */
static int fill_fields(const taker *t, PyObject *tuple, Py_ssize_t i, PyObject *payload)
{
    return put(tuple, 4, payload) < 0 || put(tuple, 0, PyLong_FromUnsignedLongLong(t->seq[i])) < 0 ||
                   put(tuple, 1, PyLong_FromUnsignedLongLong(t->timestamp_ns[i])) < 0 ||
                   put(tuple, 2, PyLong_FromLong(t->type_id[i])) < 0 || put(tuple, 3, PyLong_FromLong(t->flags[i])) < 0
               ? -1
               : 0;
}

/* By tuple.__new__: from CPython 3.14 on a tuple has more to it than its items. A third slower. */
static PyObject *message_by_new(const taker *t, Py_ssize_t i, PyObject *payload)
{
    newfunc make = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *fields = PyTuple_New(FIELDS);
    PyObject *arguments = PyTuple_New(1);
    PyObject *made = NULL;

    if (!fields)
        Py_DECREF(payload);
    if (fields && fill_fields(t, fields, i, payload) == 0 && arguments && put(arguments, 0, fields) == 0) {
        fields = NULL;
        made = make(t->kind, arguments, NULL);
    }
    Py_XDECREF(fields);
    Py_XDECREF(arguments);
    return made;
}

/* A message is a named tuple: its memory, and the fields. Steals the payload, which may be NULL. */
static PyObject *message(const taker *t, Py_ssize_t i, PyObject *payload)
{
    PyObject *made;

    if (!payload)
        return NULL;
    if (t->by_new)
        return message_by_new(t, i, payload);
    made = PyType_GenericAlloc(t->kind, FIELDS);
    if (!made)
        Py_DECREF(payload);
    else if (fill_fields(t, made, i, payload) < 0)
        Py_CLEAR(made);
    return made;
}

/* ---------------------------------------------------------------------------------------- fetching */

/* Make things of `count` records, whose payloads lie in `copy`, or of one, whose payload is `whole` (stolen). */
static int make_items(taker *t, Py_ssize_t count, PyObject *whole)
{
    const char *payload = t->copy;
    int collects = PyGC_Disable(); /* before Python 3.12 it runs within allocations, and others' code within it */
    Py_ssize_t i;

    for (i = 0; i < count; i++) {
        PyObject *item = whole ? whole : PyBytes_FromStringAndSize(payload, (Py_ssize_t)t->length[i]);

        if (!t->payloads_only)
            item = message(t, i, item);
        if (!item)
            break;
        t->items[i] = item;
        payload += t->length[i];
    }
    if (collects)
        PyGC_Enable();
    t->at = t->told = 0;
    t->count = i;
    if (i == count)
        return count > 0;
    taker_forget(t);
    return -1;
}

static chron_columns columns_of(taker *t, void *copy, uint64_t bytes_max)
{
    return (chron_columns){.struct_size = sizeof(chron_columns),
                           .seq = t->seq,
                           .timestamp_ns = t->timestamp_ns,
                           .length = t->length,
                           .type_id = t->type_id,
                           .flags = t->flags,
                           .copy = copy,
                           .bytes_max = bytes_max};
}

/* One record, whose payload alone is larger than what is fetched otherwise. */
static int fetch_large(taker *t, uint64_t bytes)
{
    int64_t found = -CHRON_EBUFFER;
    PyObject *whole = NULL;

    while (found == -CHRON_EBUFFER) { /* again, if another one stands there now */
        chron_columns c;

        Py_XDECREF(whole);
        whole = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
        if (!whole)
            return -1;
        c = columns_of(t, PyBytes_AsString(whole), bytes);
        OUTSIDE(t, found = library.chron_reader_peek_columns(t->o.pointer, &c, 1, NULL));
        bytes = c.length_max;
    }
    if (found == 1 && (uint64_t)PyBytes_Size(whole) == t->length[0])
        return make_items(t, 1, whole);
    Py_DECREF(whole);
    return found < 0 ? failed((PyObject *)t, found) : 0; /* or a shorter one: the next call finds it */
}

/* Of records that C has, from its position on. As taker_fill(). */
static int fetch(taker *t)
{
    chron_columns c;
    int64_t found;

    if (!t->copy && !(t->copy = malloc(BYTES))) {
        PyErr_NoMemory();
        return -1;
    }
    t->moves++;
    c = columns_of(t, t->copy, BYTES);
    OUTSIDE(t, found = library.chron_reader_peek_columns(t->o.pointer, &c, t->want, NULL));
    if (found == -CHRON_EBUFFER)
        return fetch_large(t, c.length_max);
    if (found < 0)
        return failed((PyObject *)t, found);
    if ((size_t)found == t->want && t->want < RECORDS_MAX)
        t->want *= t->want < RECORDS_MAX / 4 ? 4 : 2;
    return make_items(t, (Py_ssize_t)found, NULL);
}

int taker_sift(taker *t, int back)
{
    int status;

    do {
        if (taker_enter(t) < 0)
            return -1;
        t->moves++;
        OUTSIDE(t, status = library.chron_reader_sift(t->o.pointer, back));
        if (status == CHRON_NOT_READY && PyErr_CheckSignals() < 0)
            return -1;
        if (t->at < t->count)
            return 1;
    } while (status == CHRON_NOT_READY);
    return status < 0 ? failed((PyObject *)t, status) : status;
}

int taker_fill(taker *t, int payloads_only)
{
    int status;

    if (taker_enter(t) < 0)
        return -1;
    if (t->at < t->count && t->payloads_only == payloads_only)
        return 1;
    if (taker_settle(t) < 0)
        return -1;
    if (t->at < t->count)
        taker_forget(t);
    t->count = t->told = t->at = 0;
    if (t->sifts) {
        status = taker_sift(t, 0);
        if (status <= 0 || t->at < t->count)
            return status <= 0 ? status : taker_fill(t, payloads_only);
    }
    t->payloads_only = payloads_only;
    return fetch(t);
}

/* Hand one out. NULL, without an exception: there is none. */
static inline PyObject *take(taker *t, int payloads_only)
{
    PyObject *item;

    if ((t->at == t->count || t->payloads_only != payloads_only || t->forks != forks) &&
        taker_fill(t, payloads_only) <= 0)
        return NULL;
    item = t->items[t->at];
    t->items[t->at++] = NULL;
    return item;
}

PyObject *taker_next(PyObject *self, PyObject *unused)
{
    PyObject *item = take((taker *)self, 0);

    (void)unused;
    if (!item && !PyErr_Occurred())
        Py_RETURN_NONE;
    return item;
}

PyObject *taker_fetch(PyObject *self, PyObject *unused)
{
    int found = taker_fill((taker *)self, 0);

    (void)unused;
    return found < 0 ? NULL : PyBool_FromLong(found);
}

/* ---------------------------------------------------------------------------------------- iterating */

typedef struct {
    PyObject_HEAD taker *from;
    int payloads_only;
    int fetched_only;
    int ended; /* an iterator that has ended does not begin again */
} records;

static PyObject *next_record(PyObject *self)
{
    records *r = (records *)self;
    PyObject *item = NULL;

    if (r->ended)
        return NULL;
    if (!r->fetched_only || r->from->at < r->from->count)
        item = take(r->from, r->payloads_only);
    r->ended = !item && !PyErr_Occurred();
    return item;
}

static int traverse_records(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((records *)self)->from);
    return 0;
}

static int clear_records(PyObject *self)
{
    (void)self; /* there is always a reader: its own dictionary is where a cycle is broken */
    return 0;
}

static void free_records(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((records *)self)->from);
    free_object(self);
}

static PyObject *self_of(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

static PyType_Slot records_slots[] = {
    {Py_tp_doc,
     "Hands out what a reader has, up to the end; without a bytecode, so that the loop has what was counted."},
    {Py_tp_iter, (void *)self_of},
    {Py_tp_iternext, (void *)next_record},
    {Py_tp_traverse, (void *)traverse_records},
    {Py_tp_clear, (void *)clear_records},
    {Py_tp_dealloc, (void *)free_records},
    {0, NULL},
};

PyType_Spec records_spec = {"chronicle_ffi._fast.Records", sizeof(records), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, records_slots};

PyObject *taker_records(PyObject *self, PyObject *args)
{
    PyTypeObject *type;
    int payloads_only;
    int fetched_only;
    records *made;

    if (!PyArg_ParseTuple(args, "O!pp", &PyType_Type, &type, &payloads_only, &fetched_only))
        return NULL;
    if (PyType_GetSlot(type, Py_tp_iternext) != (void *)next_record) {
        PyErr_SetString(PyExc_TypeError, "Records are wanted");
        return NULL;
    }
    made = (records *)PyType_GenericAlloc(type, 0);
    if (made) {
        Py_INCREF(self);
        made->from = (taker *)self;
        made->payloads_only = payloads_only;
        made->fetched_only = fetched_only;
    }
    return (PyObject *)made;
}
