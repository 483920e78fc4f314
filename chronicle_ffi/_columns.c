/* SPDX-License-Identifier: MIT */
/*
 * _columns.c - the memory of a batch's columns, lent to be read.
 *
 * A batch of 65,536 records has 2 MB of columns. Memory that is new costs a fault a page when it is filled, which took
 * longer than reading the records: so what a batch gives back is kept for the next one.
 *
 * Invariant: memory that is lent, through whatever stands on top of it, keeps its object; it goes to nobody else before.
 */
#include "_fast.h"

#include <stdlib.h>
#include <string.h>

#define KEPT 2                /* blocks: programs read in batches of one size, and look at one while they get another */
#define KEPT_BYTES_MIN 65536u /* smaller ones are better with malloc */
#define KEPT_BYTES_MAX 16777216u /* larger ones go back to the system */

static const size_t sizes[COLUMNS] = {8, 8, 8, 4, 2, 1}; /* seq, timestamp_ns, offset, length, type_id, flags */
#define ROW_BYTES 31u

typedef struct {
    PyObject_HEAD uint8_t *memory;
    size_t bytes;
} columns;

/* All with the interpreter's lock held. */
static struct {
    uint8_t *memory;
    size_t bytes;
} kept[KEPT];
static unsigned turn;

static uint8_t *take(size_t bytes)
{
    for (size_t i = 0; i < KEPT; i++)
        if (kept[i].memory && kept[i].bytes == bytes) {
            uint8_t *memory = kept[i].memory;

            kept[i].memory = NULL;
            return memory;
        }
    return malloc(bytes ? bytes : 1u);
}

static void give(uint8_t *memory, size_t bytes)
{
    size_t at = 0;

    if (!memory || bytes < KEPT_BYTES_MIN || bytes > KEPT_BYTES_MAX) {
        free(memory);
        return;
    }
    while (at < KEPT && kept[at].memory)
        at++;
    if (at == KEPT)
        at = turn++ % KEPT;
    free(kept[at].memory);
    kept[at].memory = memory;
    kept[at].bytes = bytes;
}

static columns *inside(PyObject *object);

int columns_make_room(PyObject *object, size_t rows, chron_columns *c)
{
    columns *self = inside(object);
    uint8_t *at[COLUMNS + 1];

    if (!self || self->memory) {
        PyErr_SetString(PyExc_TypeError, "new Columns are wanted");
        return -1;
    }
    self->memory = rows <= (size_t)PY_SSIZE_T_MAX / ROW_BYTES ? take(rows * ROW_BYTES) : NULL;
    if (!self->memory) {
        PyErr_NoMemory();
        return -1;
    }
    self->bytes = rows * ROW_BYTES;
    at[0] = self->memory;
    for (size_t i = 0; i < COLUMNS; i++)
        at[i + 1] = at[i] + rows * sizes[i];
    c->seq = (uint64_t *)(void *)at[0];
    c->timestamp_ns = (uint64_t *)(void *)at[1];
    c->offset = (uint64_t *)(void *)at[2];
    c->length = (uint32_t *)(void *)at[3];
    c->type_id = (uint16_t *)(void *)at[4];
    c->flags = at[5];
    return 0;
}

int columns_cut(PyObject *object, size_t rows, size_t used)
{
    columns *self = inside(object);
    uint8_t *whole = self->memory;
    size_t bytes = self->bytes;
    uint8_t *to;

    to = malloc(used ? used * ROW_BYTES : 1u);
    if (!to) {
        PyErr_NoMemory();
        return -1;
    }
    self->memory = to;
    self->bytes = used * ROW_BYTES;
    for (size_t i = 0, from = 0; i < COLUMNS; from += rows * sizes[i], to += used * sizes[i], i++)
        memcpy(to, whole + from, used * sizes[i]);
    give(whole, bytes);
    return 0;
}

static void free_columns(PyObject *self)
{
    give(((columns *)self)->memory, ((columns *)self)->bytes);
    free_object(self);
}

static int lend(PyObject *self, Py_buffer *view, int flags)
{
    return lend_bytes(self, view, flags, ((columns *)self)->memory, ((columns *)self)->bytes);
}

static columns *inside(PyObject *object)
{
    return PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) == (void *)free_columns ? (columns *)object : NULL;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Owns the columns of a batch, and lends their bytes, to be read: one column behind the other."},
    {Py_tp_dealloc, (void *)free_columns},
    {Py_bf_getbuffer, (void *)lend},
    {0, NULL},
};

PyType_Spec columns_spec = {"chronicle_ffi._fast.Columns", sizeof(columns), 0, Py_TPFLAGS_DEFAULT, slots};
