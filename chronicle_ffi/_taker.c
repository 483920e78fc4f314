/* SPDX-License-Identifier: MIT */
/*
 * _taker.c - a reader: moving it, batches, its position, waiting, and its end. QueueReader builds on Taker. Handing out
 * records is _fetch.c's; how they go together stands in _taker.h.
 */
#include "_taker.h"

#include <stdlib.h>

#define LOOKED_AT 65536 /* room for so many records of a batch is taken without a look at what a segment can hold */
#define HEADER_BYTES 32u

/* ------------------------------------------------------------------------------------------- moving */

typedef int64_t (*mover)(chron_reader *r, uint64_t value);

static int64_t to_seq(chron_reader *r, uint64_t value)
{
    return library.chron_reader_seek(r, value);
}

static int64_t to_time(chron_reader *r, uint64_t value)
{
    return library.chron_reader_seek_time(r, value);
}

static int64_t to_earliest(chron_reader *r, uint64_t value)
{
    (void)value;
    return library.chron_reader_seek_earliest(r);
}

static int64_t to_latest(chron_reader *r, uint64_t value)
{
    (void)value;
    return library.chron_reader_seek_latest(r);
}

static int64_t past_damage(chron_reader *r, uint64_t value)
{
    (void)value;
    return library.chron_reader_skip_damaged(r);
}

static PyObject *move(PyObject *self, mover call, uint64_t value)
{
    taker *t = (taker *)self;
    int64_t status;

    if (taker_leave_off(t) < 0)
        return NULL;
    OUTSIDE(t, status = call(t->o.pointer, value));
    return status < 0 ? fail(self, status) : PyLong_FromLongLong(status);
}

static PyObject *seek(PyObject *self, PyObject *seq)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(seq);

    return PyErr_Occurred() ? NULL : move(self, to_seq, value);
}

static PyObject *seek_time(PyObject *self, PyObject *ns)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(ns);

    return PyErr_Occurred() ? NULL : move(self, to_time, value);
}

static PyObject *seek_earliest(PyObject *self, PyObject *unused)
{
    (void)unused;
    return move(self, to_earliest, 0);
}

static PyObject *seek_latest(PyObject *self, PyObject *unused)
{
    (void)unused;
    return move(self, to_latest, 0);
}

static PyObject *skip_damaged(PyObject *self, PyObject *unused)
{
    (void)unused;
    return move(self, past_damage, 0);
}

/* The position is on the record afterwards, and stays there: what is fetched has the check over the copy. */
static PyObject *previous(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;
    PyObject *item = NULL;
    chron_view view;
    int status;

    (void)unused;
    if (taker_leave_off(t) < 0)
        return NULL;
    OUTSIDE(t, status = library.chron_reader_previous(t->o.pointer, &view));
    if (status < 0)
        return fail(self, status);
    status = status ? taker_fill(t, 0) : 0;
    if (status > 0) {
        item = t->items[0];
        Py_INCREF(item);
    }
    taker_forget(t);
    if (status == 0)
        Py_RETURN_NONE;
    return item;
}

/* ------------------------------------------------------------------------------------------ batches */

/* As many as were asked for, or as the segment of the position can hold. */
static int64_t bound(taker *t, chron_segment **segment, Py_ssize_t wanted)
{
    chron_columns c = {.struct_size = sizeof c};
    int64_t found;
    uint64_t most;

    if (wanted <= LOOKED_AT)
        return wanted;
    OUTSIDE(t, found = library.chron_reader_peek_columns(t->o.pointer, &c, 1, segment));
    if (found < 0)
        return found;
    most = library.chron_segment_size(*segment) / HEADER_BYTES;
    library.chron_segment_release(*segment);
    *segment = NULL;
    return most < LOOKED_AT ? LOOKED_AT : most < (uint64_t)wanted ? (int64_t)most : wanted;
}

/*
 * _peek(Segment, Columns, wanted) -> how many are there, and for how many the columns, which are new, have room now.
 * _hand_out() goes on with it.
 */
static PyObject *peek(PyObject *self, PyObject *args)
{
    taker *t = (taker *)self;
    chron_columns c = {.struct_size = sizeof c};
    PyObject *object, *columns;
    chron_segment **segment;
    Py_ssize_t wanted;
    int64_t room, found;

    if (!PyArg_ParseTuple(args, "OOn", &object, &columns, &wanted) || !(segment = segment_place(object)) ||
        taker_leave_off(t) < 0)
        return NULL;
    room = bound(t, segment, wanted);
    if (room < 0)
        return fail(self, room);
    if (columns_make_room(columns, (size_t)room, &c) < 0)
        return NULL;
    OUTSIDE(t, found = library.chron_reader_peek_columns(t->o.pointer, &c, (size_t)room, segment));
    if (found < 0)
        return fail(self, found);
    if (2 * found < room) { /* who keeps many batches should not keep their empty room */
        if (columns_cut(columns, (size_t)room, (size_t)found) < 0)
            return NULL;
        room = found;
    }
    t->peeked = t->moves;
    return Py_BuildValue("nn", (Py_ssize_t)found, (Py_ssize_t)room);
}

/* _hand_out(batch, count) -> batch, counted as consumed; or None: something else has moved the reader since the peek. */
static PyObject *hand_out(PyObject *self, PyObject *args)
{
    taker *t = (taker *)self;
    PyObject *batch;
    Py_ssize_t count;
    int status;

    if (!PyArg_ParseTuple(args, "On", &batch, &count) || taker_enter(t) < 0)
        return NULL;
    if (t->peeked != t->moves)
        Py_RETURN_NONE;
    t->moves++;
    status = library.chron_reader_advance(t->o.pointer, (size_t)count);
    if (status < 0)
        return fail(self, status);
    Py_INCREF(batch);
    return batch;
}

/* ------------------------------------------------------------------------------ position, waiting */

/* _settle() -> whether something is there that was fetched. */
static PyObject *settle_now(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;

    (void)unused;
    return taker_settle(t) < 0 ? NULL : PyBool_FromLong(t->at < t->count);
}

static PyObject *position(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;

    (void)unused;
    if (taker_settle(t) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(library.chron_reader_position(t->o.pointer));
}

/* _commit(upto or None, sync) */
static PyObject *commit(PyObject *self, PyObject *args)
{
    taker *t = (taker *)self;
    unsigned long long upto = 0;
    PyObject *value;
    int sync;
    int status;

    if (!PyArg_ParseTuple(args, "Op", &value, &sync) || taker_settle(t) < 0)
        return NULL;
    if (value != Py_None) {
        upto = PyLong_AsUnsignedLongLong(value);
        if (PyErr_Occurred())
            return NULL;
        if (upto != library.chron_reader_position(t->o.pointer)) {
            OUTSIDE(t, status = library.chron_reader_commit_upto(t->o.pointer, upto, sync));
            return status < 0 ? fail(self, status) : PyLong_FromLong(status);
        }
    }
    if (sync)
        OUTSIDE(t, status = library.chron_reader_commit(t->o.pointer, 1));
    else
        status = library.chron_reader_commit(t->o.pointer, 0);
    return status < 0 ? fail(self, status) : PyLong_FromLong(status);
}

/* _wait(ns) -> whether something is there. It ends early when a signal comes. */
static PyObject *wait_for(PyObject *self, PyObject *ns)
{
    taker *t = (taker *)self;
    long long limit = PyLong_AsLongLong(ns);
    int status;

    if (PyErr_Occurred() || taker_enter(t) < 0)
        return NULL;
    if (t->at < t->count)
        Py_RETURN_TRUE;
    if (taker_settle(t) < 0)
        return NULL;
    OUTSIDE(t, status = library.chron_reader_wait(t->o.pointer, limit));
    if (status < 0 && status != -CHRON_EINTR)
        return fail(self, status);
    return PyBool_FromLong(status == 1);
}

/* _arm() -> whether something is there; if not, the writer rings when there is. None: it may fail to ring. */
static PyObject *arm(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;
    int status;

    (void)unused;
    if (taker_enter(t) < 0)
        return NULL;
    if (t->at < t->count)
        Py_RETURN_TRUE;
    if (taker_settle(t) < 0)
        return NULL;
    OUTSIDE(t, status = library.chron_reader_arm(t->o.pointer));
    if (status == -CHRON_EACCESS)
        Py_RETURN_NONE;
    return status < 0 ? fail(self, status) : PyBool_FromLong(status);
}

/* -------------------------------------------------------------------------------- beginning, end */

/* _bind(type of messages, by_new) */
static PyObject *bind(PyObject *self, PyObject *args)
{
    taker *t = (taker *)self;
    PyObject *kind;

    if (!PyArg_ParseTuple(args, "O!p", &PyType_Type, &kind, &t->by_new))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "messages are named tuples");
        return NULL;
    }
    Py_INCREF(kind);
    Py_XDECREF((PyObject *)t->kind);
    t->kind = (PyTypeObject *)kind;
    t->forks = forks;
    taker_forget(t);
    Py_RETURN_NONE;
}

static PyObject *close_reader(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;
    int status;

    (void)unused;
    if (taker_enter(t) < 0)
        return NULL;
    OUTSIDE(t, status = library.chron_reader_shut(t->o.pointer));
    if (status != -CHRON_EBUSY) {
        taker_forget(t);
        free(t->copy);
        t->copy = NULL;
    }
    return owner_ended(self, status);
}

static void free_taker(PyObject *self)
{
    taker *t = (taker *)self;

    taker_forget(t);
    free(t->copy);
    Py_CLEAR(t->kind);
    Py_BEGIN_ALLOW_THREADS(void) library.chron_reader_close(t->o.pointer);
    Py_END_ALLOW_THREADS free_object(self);
}

PyDoc_STRVAR(
    next_doc,
    "next($self, /)\n--\n\n"
    "The record at the position, which moves on by one; None if there is none yet. Never blocks.\n\n"
    "The payload is a copy, and it is the copy whose CRC was checked. After an exception the position is where\n"
    "it was: SegmentGone (retention was faster), Corrupt (see `skip_damaged`), HistoryRewritten, StorageError.\n\n"
    ">>> seq = writer.append(b\"one\")\n"
    ">>> reader.next()\n"
    "Message(seq=0, timestamp_ns=..., type_id=0, flags=0, payload=b'one')\n"
    ">>> reader.next() is None\n"
    "True\n");

static PyMethodDef taker_methods[] = {
    {"next", taker_next, METH_NOARGS, next_doc},
    {"close", close_reader, METH_NOARGS, CLOSE_DOC},
    {"__enter__", owner_enter, METH_NOARGS, NULL},
    {"__exit__", close_reader, METH_VARARGS, NULL},
    {"_bind", bind, METH_VARARGS, NULL},
    {"_records", taker_records, METH_VARARGS, NULL},
    {"_fetch", taker_fetch, METH_NOARGS, NULL},
    {"_settle", settle_now, METH_NOARGS, NULL},
    {"_position", position, METH_NOARGS, NULL},
    {"_commit", commit, METH_VARARGS, NULL},
    {"_wait", wait_for, METH_O, NULL},
    {"_arm", arm, METH_NOARGS, NULL},
    {"_previous", previous, METH_NOARGS, NULL},
    {"_peek", peek, METH_VARARGS, NULL},
    {"_hand_out", hand_out, METH_VARARGS, NULL},
    {"_seek", seek, METH_O, NULL},
    {"_seek_time", seek_time, METH_O, NULL},
    {"_seek_earliest", seek_earliest, METH_NOARGS, NULL},
    {"_seek_latest", seek_latest, METH_NOARGS, NULL},
    {"_skip_damaged", skip_damaged, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot taker_slots[] = {
    {Py_tp_doc, "Fetches records, and hands them out; QueueReader builds on it."},
    {Py_tp_getset, owner_members},
    {Py_tp_methods, taker_methods},
    {Py_tp_dealloc, (void *)free_taker},
    {0, NULL},
};

PyType_Spec taker_spec = {"chronicle_ffi._fast.Taker", sizeof(taker), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                          taker_slots};
