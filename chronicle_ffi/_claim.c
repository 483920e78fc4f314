/* SPDX-License-Identifier: MIT */
/*
 * _claim.c - a record that is filled piece by piece, in a with block.
 *
 * Invariants:
 *  - The claim of C is open from __enter__ to __exit__, and at the longest as long as this object lives. Each of them is
 *    one call; the interpreter runs no signal handler between such a call and the block's beginning or end.
 *  - What the block fills is memory of its own. A view of the mapping could be kept beyond the block, in ways that nobody
 *    can see (an array over it, a slice), and write into committed records; so the bytes are copied when the block ends.
 */
#include "_fast.h"

typedef struct {
    PyObject_HEAD PyObject *writer;
    PyObject *bytes; /* a bytearray; NULL: not begun, or ended */
    PyObject *view;  /* of them, which the block has */
    Py_ssize_t size;
    unsigned long long timestamp_ns;
    uint16_t type_id;
    uint8_t flags;
    int open; /* in C */
} claim;

static int begin(claim *c)
{
    void *writer = ((owner *)c->writer)->pointer;
    void *unused;
    int status;

    Py_BEGIN_ALLOW_THREADS status = library.chron_writer_claim(writer, (size_t)c->size, &unused);
    Py_END_ALLOW_THREADS c->open = status == 0;
    return status;
}

/* Give the claim back. The writer may have been closed meanwhile, which has done so already. */
static int give_back(claim *c)
{
    int was_open = c->open;

    c->open = 0;
    return was_open ? library.chron_writer_abort(((owner *)c->writer)->pointer) : 0;
}

/* _begin() -> status: for the writer, which calls again when there is room. */
static PyObject *begin_again(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(begin((claim *)self));
}

static int begin_or_wait(PyObject *self)
{
    claim *c = (claim *)self;
    int status = begin(c);
    PyObject *call;
    PyObject *done;

    if (status == 0)
        return 0;
    call = PyObject_GetAttrString(self, "_begin");
    done = call ? PyObject_CallMethod(c->writer, "_again", "iO", status, call) : NULL;
    Py_XDECREF(call);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *enter(PyObject *self, PyObject *unused)
{
    claim *c = (claim *)self;

    (void)unused;
    if (c->bytes) {
        PyErr_SetString(PyExc_RuntimeError, "this claim's block has begun already");
        return NULL;
    }
    c->bytes = PyObject_CallFunction((PyObject *)&PyByteArray_Type, "n", c->size);
    c->view = c->bytes ? PyMemoryView_FromObject(c->bytes) : NULL;
    if (!c->view || begin_or_wait(self) < 0) {
        (void)give_back(c);
        Py_CLEAR(c->view);
        Py_CLEAR(c->bytes);
        return NULL;
    }
    Py_INCREF(c->view);
    return c->view;
}

/* End the claim, and append what was filled in, at the same place. */
static int64_t publish(claim *c)
{
    void *writer = ((owner *)c->writer)->pointer;
    const char *bytes = PyByteArray_AsString(c->bytes); /* it has a view, and cannot be resized */
    int64_t seq = give_back(c);

    if (seq < 0)
        return seq;
    Py_BEGIN_ALLOW_THREADS seq =
        library.chron_writer_append_at(writer, bytes, (size_t)c->size, c->type_id, c->flags, c->timestamp_ns);
    Py_END_ALLOW_THREADS return seq;
}

/* An array over the view may live on: then so does the view. */
static void release_view(claim *c)
{
    PyObject *done = PyObject_CallMethod(c->view, "release", NULL);

    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_CLEAR(c->view);
    Py_CLEAR(c->bytes);
}

static PyObject *leave(PyObject *self, PyObject *args)
{
    claim *c = (claim *)self;
    PyObject *kind;
    PyObject *value;
    PyObject *trace;
    int64_t status = 0;

    if (!PyArg_ParseTuple(args, "OOO", &kind, &value, &trace))
        return NULL;
    if (!c->bytes) {
        PyErr_SetString(PyExc_RuntimeError, "this claim's block has not begun");
        return NULL;
    }
    if (kind == Py_None)
        status = publish(c);
    else
        (void)give_back(c); /* the block's own exception goes on */
    release_view(c);
    if (status < 0)
        return fail(c->writer, status);
    Py_RETURN_NONE;
}

static void free_claim(PyObject *self)
{
    claim *c = (claim *)self;

    (void)give_back(c); /* the block was never entered: an exception came before */
    Py_CLEAR(c->view);
    Py_CLEAR(c->bytes);
    Py_CLEAR(c->writer);
    free_object(self);
}

PyObject *new_claim(PyObject *self, PyObject *args)
{
    PyTypeObject *type;
    Py_ssize_t size;
    unsigned long long timestamp_ns;
    unsigned type_id;
    unsigned flags;
    claim *c;

    if (!PyArg_ParseTuple(args, "O!nIIK", &PyType_Type, &type, &size, &type_id, &flags, &timestamp_ns))
        return NULL;
    if (PyType_GetSlot(type, Py_tp_dealloc) != (void *)free_claim) {
        PyErr_SetString(PyExc_TypeError, "Claim is wanted");
        return NULL;
    }
    c = (claim *)PyType_GenericAlloc(type, 0);
    if (!c)
        return NULL;
    Py_INCREF(self);
    c->writer = self;
    c->size = size;
    c->type_id = (uint16_t)type_id;
    c->flags = (uint8_t)flags;
    c->timestamp_ns = timestamp_ns;
    return (PyObject *)c;
}

static PyMethodDef claim_methods[] = {
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", leave, METH_VARARGS, NULL},
    {"_begin", begin_again, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot claim_slots[] = {
    {Py_tp_doc, "A record that is filled in a with block; made by QueueWriter.claim()."},
    {Py_tp_methods, claim_methods},
    {Py_tp_dealloc, (void *)free_claim},
    {0, NULL},
};

PyType_Spec claim_spec = {"chronicle_ffi._fast.Claim", sizeof(claim), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, claim_slots};
