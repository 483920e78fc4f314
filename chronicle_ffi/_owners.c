/* SPDX-License-Identifier: MIT */
/*
 * _owners.c - objects that own what the library has opened: what writers and readers have in common, bells, and segments,
 * which lend their memory.
 *
 * Invariants:
 *  - What a call of C has opened is owned as soon as the call returns, and goes with its object, without a bytecode.
 *  - Memory that is lent by a segment can only be read, through whatever stands on top of it, and keeps the segment.
 */
#include "_fast.h"

#include <stddef.h>

PyObject *fail(PyObject *self, int64_t status)
{
    return PyObject_CallMethod(self, "_fail", "i", (int)status);
}

int failed(PyObject *self, int64_t status)
{
    Py_XDECREF(fail(self, status));
    return -1;
}

static PyObject *place(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(&((owner *)self)->pointer);
}

static PyObject *is_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((owner *)self)->closed || !((owner *)self)->pointer);
}

PyGetSetDef owner_members[] = {
    {"_place", place, NULL, "address of the pointer", NULL}, /* private: users see writers and readers */
    {"_closed", is_closed, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyObject *owner_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF(self);
    return self;
}

PyObject *owner_ended(PyObject *self, int status)
{
    if (status != -CHRON_EBUSY)
        ((owner *)self)->closed = 1;
    return PyObject_CallMethod(self, "_ended", "i", status);
}

void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* --------------------------------------------------------------------------------------------- bells */

static PyGetSetDef place_member[] = {
    {"place", place, NULL, "address of the pointer", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static void free_bell(PyObject *self)
{
    library.chron_bell_release(((owner *)self)->pointer);
    free_object(self);
}

static PyType_Slot bell_slots[] = {
    {Py_tp_doc, "Owns a reference to a bell."},
    {Py_tp_getset, place_member},
    {Py_tp_dealloc, (void *)free_bell},
    {0, NULL},
};

PyType_Spec bell_spec = {"chronicle_ffi._fast.Bell", sizeof(owner), 0, Py_TPFLAGS_DEFAULT, bell_slots};

/* -------------------------------------------------------------------------------------------- groups */

static PyObject *close_member(PyObject *self, PyObject *unused)
{
    int status;

    (void)unused;
    Py_BEGIN_ALLOW_THREADS status = library.chron_group_shut(((owner *)self)->pointer);
    Py_END_ALLOW_THREADS return owner_ended(self, status);
}

static void free_member(PyObject *self)
{
    Py_BEGIN_ALLOW_THREADS(void) library.chron_group_close(((owner *)self)->pointer);
    Py_END_ALLOW_THREADS free_object(self);
}

PyDoc_STRVAR(leave_doc,
             "close($self, /)\n--\n\n"
             "Leave the group: jobs that this worker has, and has not settled, are handed out again at once.\n\n"
             "May be called twice. Raises ConcurrentUse while another thread is inside: then it is still open.\n\n"
             ">>> group = Queue.open_group(\"q\", \"resize\")\n"
             ">>> group.close()\n"
             ">>> group.closed\n"
             "True\n");

static PyMethodDef member_methods[] = {
    {"close", close_member, METH_NOARGS, leave_doc},
    {"__enter__", owner_enter, METH_NOARGS, NULL},
    {"__exit__", close_member, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot member_slots[] = {
    {Py_tp_doc, "Owns a place in a group; Group builds on it."},
    {Py_tp_getset, owner_members},
    {Py_tp_methods, member_methods},
    {Py_tp_dealloc, (void *)free_member},
    {0, NULL},
};

PyType_Spec member_spec = {"chronicle_ffi._fast.Member", sizeof(owner), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                           member_slots};

/* ------------------------------------------------------------------------------------------ segments */

static void free_segment(PyObject *self)
{
    library.chron_segment_release(((owner *)self)->pointer);
    free_object(self);
}

chron_segment **segment_place(PyObject *object)
{
    if (PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) != (void *)free_segment) {
        PyErr_SetString(PyExc_TypeError, "a Segment is wanted");
        return NULL;
    }
    return (chron_segment **)(void *)&((owner *)object)->pointer;
}

int lend_bytes(PyObject *self, Py_buffer *view, int flags, const void *bytes, size_t count)
{
    view->obj = NULL;
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "a log can only be read");
        return -1;
    }
    view->buf = bytes ? (void *)(uintptr_t)bytes : (void *)(uintptr_t) "";
    view->len = (Py_ssize_t)count;
    view->readonly = 1;
    view->itemsize = 1;
    view->format = flags & PyBUF_FORMAT ? (char *)(uintptr_t) "B" : NULL;
    view->ndim = 1;
    view->shape = flags & PyBUF_ND ? &view->len : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &view->itemsize : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    Py_INCREF(self);
    view->obj = self;
    return 0;
}

static int lend(PyObject *self, Py_buffer *view, int flags)
{
    chron_segment *segment = ((owner *)self)->pointer;

    return lend_bytes(self, view, flags, segment ? library.chron_segment_bytes(segment) : NULL,
                      library.chron_segment_size(segment));
}

static PyObject *has_faulted(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(library.chron_segment_faulted(((owner *)self)->pointer));
}

static PyMethodDef segment_methods[] = {
    {"faulted", has_faulted, METH_NOARGS, "Whether the file went away under the mapping."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot segment_slots[] = {
    {Py_tp_doc, "Owns a reference to a mapped segment, and lends its bytes, to be read."},
    {Py_tp_getset, place_member},
    {Py_tp_methods, segment_methods},
    {Py_tp_dealloc, (void *)free_segment},
    {Py_bf_getbuffer, (void *)lend},
    {0, NULL},
};

PyType_Spec segment_spec = {"chronicle_ffi._fast.Segment", sizeof(owner), 0, Py_TPFLAGS_DEFAULT, segment_slots};
