/* SPDX-License-Identifier: MIT */
/*
 * _fast.h - what the files of this extension share: the library's functions, and objects that own what it opens.
 *
 * A signal handler of Python runs between two bytecodes, and may raise there. What must happen together therefore
 * happens in one call of this extension: taking a record and counting it, opening something and owning it, moving a
 * reader and forgetting what was fetched for it.
 */
#ifndef CHRONICLE_FAST_H
#define CHRONICLE_FAST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <chronicle.h>

/*
 * The buffer protocol is in the stable ABI from Python 3.11 on. 3.10 has the same slot, struct and flags, without a promise;
 * but it does not change any more.
 */
#if defined(Py_LIMITED_API) && Py_LIMITED_API + 0 < 0x030B0000
#define Py_bf_getbuffer 1
#define PyBUF_WRITABLE 0x0001
#define PyBUF_FORMAT 0x0004
#define PyBUF_ND 0x0008
#define PyBUF_STRIDES (0x0010 | PyBUF_ND)

typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;
#endif

/* cffi's module holds the library; this one links nothing, and is told the addresses (_fast.bind). */
#define LIBRARY(X)                \
    X(chron_writer_try_append)    \
    X(chron_writer_append_at)     \
    X(chron_writer_claim)         \
    X(chron_writer_abort)         \
    X(chron_writer_shut)          \
    X(chron_writer_close)         \
    X(chron_reader_shut)          \
    X(chron_reader_close)         \
    X(chron_reader_peek_columns)  \
    X(chron_reader_advance)       \
    X(chron_reader_sift)          \
    X(chron_reader_position)      \
    X(chron_reader_commit)        \
    X(chron_reader_commit_upto)   \
    X(chron_reader_previous)      \
    X(chron_reader_seek)          \
    X(chron_reader_seek_time)     \
    X(chron_reader_seek_earliest) \
    X(chron_reader_seek_latest)   \
    X(chron_reader_skip_damaged)  \
    X(chron_reader_wait)          \
    X(chron_reader_arm)           \
    X(chron_group_shut)           \
    X(chron_group_close)          \
    X(chron_bell_release)         \
    X(chron_segment_bytes)        \
    X(chron_segment_size)         \
    X(chron_segment_faulted)      \
    X(chron_segment_release)

typedef struct {
#define FIELD(name) __typeof__(name) *name;
    LIBRARY(FIELD)
#undef FIELD
} library_calls;

extern library_calls library;
extern unsigned forks; /* how many there were between this process and the first one */

/*
 * How what owns something of the library's begins. The call that opens it stores the pointer into the object, so that an
 * exception finds it owned wherever it comes. `_place` is the address of that pointer.
 */
typedef struct {
    PyObject_HEAD void *pointer; /* NULL: nothing was opened */
    int closed;                  /* by close(): the memory stays, for whoever is about to call with it */
} owner;

/* _claim.c: a method of writers. _claim(Claim, size, type_id, flags, timestamp_ns) */
PyObject *new_claim(PyObject *self, PyObject *args);
#define CLOSE_DOC                                                                                                    \
    "close($self, /)\n--\n\n"                                                                                        \
    "Close it. May be called twice. Raises ConcurrentUse while another thread is inside: then it is still open.\n\n" \
    "A writer syncs (unless its durability is \"none\"), stops its keeper, marks the queue as properly closed and\n" \
    "gives up its lock; it raises what the sync raises, and is closed all the same. A reader does not commit.\n\n"   \
    ">>> reader.close()\n"                                                                                           \
    ">>> reader.closed\n"                                                                                            \
    "True\n"

/* _owners.c */
extern PyGetSetDef owner_members[];
PyObject *owner_enter(PyObject *self, PyObject *unused);
/* It was shut: tell Python, which raises what there is to raise. */
PyObject *owner_ended(PyObject *self, int status);
/* Give the memory of an object back, when nothing is left in it. */
void free_object(PyObject *self);
/* Raise the error that the thread's last call has met. NULL, or -1. */
PyObject *fail(PyObject *self, int64_t status);
int failed(PyObject *self, int64_t status);
/* Where a segment's pointer is stored; NULL with an exception if the object is no Segment. */
chron_segment **segment_place(PyObject *object);

/* The memory of `count` bytes, read-only, for a getbuffer; PyBuffer_FillInfo() is no part of the ABI. */
int lend_bytes(PyObject *self, Py_buffer *view, int flags, const void *bytes, size_t count);

/* _columns.c. What new Columns get: room for so many rows, which is noted in *c. 0, or -1. */
#define COLUMNS 6
int columns_make_room(PyObject *object, size_t rows, chron_columns *c);
/* They had room for `rows`, and keep the first `used`, in memory that is no larger than that needs. 0, or -1. */
int columns_cut(PyObject *object, size_t rows, size_t used);

extern PyType_Spec bell_spec;
extern PyType_Spec columns_spec; /* _columns.c */
extern PyType_Spec claim_spec;   /* _claim.c */
extern PyType_Spec segment_spec;
extern PyType_Spec member_spec;
extern PyType_Spec taker_spec;   /* _taker.c */
extern PyType_Spec records_spec; /* _fetch.c */

#endif
