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

extern PyType_Spec bell_spec;
extern PyType_Spec claim_spec; /* _claim.c */
extern PyType_Spec segment_spec;
extern PyType_Spec member_spec;
extern PyType_Spec taker_spec;   /* _taker.c */
extern PyType_Spec records_spec; /* _fetch.c */

#endif
