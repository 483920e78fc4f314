/* SPDX-License-Identifier: MIT */
/*
 * _fast.c - what is done for each record, where Python and cffi would cost more than the record itself
 * (bench/README.md has the figures), and what no signal handler may come in between of (_fast.h). cffi's module holds the
 * library. Reading is in _taker.c; here are the module, and appending.
 *
 * QueueWriter.append, by its base Appender: without a frame of Python, and without a call through cffi, which gives up
 * the interpreter's lock and takes it again. It takes plain calls that need no more than copying: bytes or a bytearray,
 * numbers in range, room in prepared pages (chron_writer_try_append). Every other call goes to QueueWriter._append,
 * which does the same in Python with the lock given up.
 *
 * Stable ABI of CPython 3.10, but for free-threaded builds, which have none. Those take their lock back when they import
 * this: what it does to objects of Python has not been shown to be safe without.
 */
#include "_fast.h"

#include <pthread.h>

library_calls library;
unsigned forks;

/* ---------------------------------------------------------------------------------------- appending */

/* What a plain call says. */
typedef struct {
    unsigned long type_id;
    unsigned long flags;
    unsigned long long timestamp_ns;
} options;

/* A number up to `limit`? Anything else is left to the slow way, error message included. */
static int take(PyObject *value, unsigned long long limit, unsigned long long *out)
{
    if (!PyLong_Check(value)) /* those of an enum too: what derives from int is one wherever an index is wanted */
        return 0;
    *out = PyLong_AsUnsignedLongLong(value);
    if (*out > limit || (*out == (unsigned long long)-1 && PyErr_Occurred())) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static int take_option(options *o, int which, PyObject *value)
{
    unsigned long long number = 0;

    if (which == 1) {
        if (value == Py_None)
            return 1;
        return take(value, CHRON_NOW - 1, &o->timestamp_ns);
    }
    if (!take(value, which == 0 ? CHRON_TYPE_MAX : 0xFF, &number))
        return 0;
    if (which == 0)
        o->type_id = (unsigned long)number;
    else
        o->flags = (unsigned long)number;
    return 1;
}

static int take_options(options *o, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"type_id", "timestamp_ns", "flags"};
    Py_ssize_t extra = keywords ? PyTuple_Size(keywords) : 0;

    if (count > 4)
        return 0;
    for (Py_ssize_t i = 1; i < count; i++)
        if (!take_option(o, (int)i - 1, args[i]))
            return 0;
    for (Py_ssize_t i = 0; i < extra; i++) {
        int which = (int)count - 1; /* what has been given by place cannot be given by name */

        while (which < 3 && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, i), names[which]) != 0)
            which++;
        if (which == 3 || !take_option(o, which, args[count + i]))
            return 0;
    }
    return 1;
}

static PyObject *slow(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t extra = keywords ? PyTuple_Size(keywords) : 0;
    PyObject *method = PyObject_GetAttrString(self, "_append");
    PyObject *positional = PyTuple_New(count);
    PyObject *named = PyDict_New();
    PyObject *result = NULL;

    if (!method || !positional || !named)
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(positional, i, args[i]);
    }
    for (Py_ssize_t i = 0; i < extra; i++)
        if (PyDict_SetItem(named, PyTuple_GetItem(keywords, i), args[count + i]) < 0)
            goto done;
    result = PyObject_Call(method, positional, named);
done:
    Py_XDECREF(method);
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return result;
}

/* Bytes that nobody changes or gives back while the interpreter's lock is held? */
static int take_payload(PyObject *data, const char **bytes, size_t *length)
{
    if (PyBytes_CheckExact(data)) {
        *bytes = PyBytes_AsString(data);
        *length = (size_t)PyBytes_Size(data);
        return 1;
    }
    if (!PyByteArray_CheckExact(data))
        return 0;
    *bytes = PyByteArray_AsString(data);
    *length = (size_t)PyByteArray_Size(data);
    return 1;
}

/* 1: appended at *seq. 0: not plain, or not ready, and nothing was appended. -1: failed, with an exception. */
static int append_plain(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords, int64_t *seq)
{
    void *writer = ((owner *)self)->pointer;
    options o = {0, 0, CHRON_NOW};
    const char *bytes;
    size_t length;

    if (!writer || count == 0 || !take_payload(args[0], &bytes, &length) || !take_options(&o, args, count, keywords))
        return 0;
    *seq =
        library.chron_writer_try_append(writer, bytes, length, (uint16_t)o.type_id, (uint8_t)o.flags, o.timestamp_ns);
    if (*seq >= 0)
        return 1;
    return *seq == CHRON_NOT_READY ? 0 : failed(self, *seq);
}

static PyObject *append(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    int64_t seq;
    int done = append_plain(self, args, count, keywords, &seq);

    if (done > 0)
        return PyLong_FromLongLong(seq);
    return done < 0 ? NULL : slow(self, args, count, keywords);
}

/* _try_append(data, type_id, timestamp_ns, flags) -> seq, or None where `append` would take its slow way. */
static PyObject *try_append(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int64_t seq;
    int done = append_plain(self, args, count, NULL, &seq);

    if (done > 0)
        return PyLong_FromLongLong(seq);
    if (done < 0)
        return NULL;
    Py_RETURN_NONE;
}

/*
 * _extend(list, begin, type_id, timestamp_ns, flags) -> how many: append list[begin:] up to what is not plain. Appends
 * that need more come every 64 KiB, so the interpreter's lock is not held for long.
 */
static PyObject *extend(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    void *writer = ((owner *)self)->pointer;
    options o = {0, 0, CHRON_NOW};
    Py_ssize_t begin;
    Py_ssize_t end;
    Py_ssize_t at;

    if (count != 5 || !PyList_CheckExact(args[0]) || !writer) {
        PyErr_SetString(PyExc_TypeError, "a list, where to begin, and three options are wanted");
        return NULL;
    }
    begin = PyLong_AsSsize_t(args[1]);
    if (begin < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_IndexError, "%zd lies before the list", begin);
    end = take_options(&o, args + 1, 4, NULL) ? PyList_Size(args[0]) : begin;
    for (at = begin; at < end; at++) {
        PyObject *item = PyList_GetItem(args[0], at);
        int64_t seq;

        if (!PyBytes_CheckExact(item))
            break;
        seq = library.chron_writer_try_append(writer, PyBytes_AsString(item), (size_t)PyBytes_Size(item),
                                              (uint16_t)o.type_id, (uint8_t)o.flags, o.timestamp_ns);
        if (seq == CHRON_NOT_READY)
            break;
        if (seq < 0)
            return fail(self, seq);
    }
    return PyLong_FromSsize_t(at - begin);
}

static PyObject *close_writer(PyObject *self, PyObject *unused)
{
    int status;

    (void)unused;
    Py_BEGIN_ALLOW_THREADS status = library.chron_writer_shut(((owner *)self)->pointer);
    Py_END_ALLOW_THREADS return owner_ended(self, status);
}

static void free_appender(PyObject *self)
{
    Py_BEGIN_ALLOW_THREADS(void) library.chron_writer_close(((owner *)self)->pointer);
    Py_END_ALLOW_THREADS free_object(self);
}

/* ------------------------------------------------------------------------------------------- module */

PyDoc_STRVAR(append_doc,
             "append($self, /, data, type_id=0, timestamp_ns=None, flags=0)\n--\n\n"
             "Append one record and return its seq. When this returns, it survives the death of this process.\n\n"
             "`data` is any C-contiguous buffer (bytes, bytearray, memoryview, an array ...), read in place; `str` is\n"
             "refused. `type_id` is 0 to 65534, `flags` 0 to 255. `timestamp_ns` None reads the clock; timestamps may\n"
             "go back. Blocks only under back-pressure, and for the disk with durability \"always\" or \"batch\".\n\n"
             "Raises PayloadTooLarge, QueueFull, NoSpace (each: nothing was appended), Poisoned, StorageError.\n\n"
             ">>> writer.append(b\"EURUSD 1.0842\", type_id=7)\n"
             "0\n"
             ">>> writer.append(array(\"d\", [1.0842, 1.0843]), timestamp_ns=time.time_ns())\n"
             "1\n");

static PyMethodDef appender_methods[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL | METH_KEYWORDS, append_doc},
    {"close", close_writer, METH_NOARGS, CLOSE_DOC},
    {"__enter__", owner_enter, METH_NOARGS, NULL},
    {"__exit__", close_writer, METH_VARARGS, NULL},
    {"_claim", new_claim, METH_VARARGS, NULL},
    {"_try_append", (PyCFunction)(void (*)(void))try_append, METH_FASTCALL, NULL},
    {"_extend", (PyCFunction)(void (*)(void))extend, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot appender_slots[] = {
    {Py_tp_doc, "Appends plain records; QueueWriter builds on it."},
    {Py_tp_getset, owner_members},
    {Py_tp_methods, appender_methods},
    {Py_tp_dealloc, (void *)free_appender},
    {0, NULL},
};

static PyType_Spec appender_spec = {"chronicle_ffi._fast.Appender", sizeof(owner), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, appender_slots};

static void after_fork_in_child(void)
{
    forks++;
}

/* Where the library has a function, says `address_of`. 0 with an exception. */
static uintptr_t resolve(PyObject *address_of, const char *name)
{
    PyObject *found = PyObject_CallFunction(address_of, "s", name);
    uintptr_t address = found ? (uintptr_t)PyLong_AsVoidPtr(found) : 0;

    Py_XDECREF(found);
    return PyErr_Occurred() ? 0 : address;
}

/* bind(address_of): before anything else is used. In each interpreter, and the same in all. */
static PyObject *bind(PyObject *self, PyObject *address_of)
{
    static int watches;
    library_calls found;

    (void)self;
#define RESOLVE(name) (found.name = (__typeof__(found.name))resolve(address_of, #name)) &&
    if (!(LIBRARY(RESOLVE) 1))
        return NULL;
#undef RESOLVE
    if (!watches && pthread_atfork(NULL, NULL, after_fork_in_child) != 0)
        return PyErr_NoMemory();
    watches = 1;
    library = found;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_O, "bind(address_of): where the functions of the library are"},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    static const struct {
        const char *name;
        PyType_Spec *spec;
    } types[] = {{"Appender", &appender_spec}, {"Taker", &taker_spec},     {"Records", &records_spec},
                 {"Bell", &bell_spec},         {"Segment", &segment_spec}, {"Claim", &claim_spec},
                 {"Columns", &columns_spec},   {"Member", &member_spec}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromSpec(types[i].spec);
        int status = type ? PyModule_AddObjectRef(module, types[i].name, type) : -1;

        Py_XDECREF(type);
        if (status < 0)
            return status;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_fast", .m_size = 0, .m_methods = functions,
                             .m_slots = module_slots};

PyMODINIT_FUNC PyInit__fast(void)
{
    return PyModuleDef_Init(&module);
}
