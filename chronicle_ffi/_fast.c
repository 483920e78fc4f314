/* SPDX-License-Identifier: MIT */
/*
 * _fast.c - QueueWriter.append without the two costs that are larger than an append: a frame of Python, and a call
 * through cffi that gives up the interpreter's lock and takes it again (bench/README.md has the figures).
 *
 * The type Appender, a base of QueueWriter, knows chron_writer_try_append() and its handle by address: cffi's module
 * holds the library, this one links nothing. It takes plain calls that need no more than copying: a bytes object,
 * numbers in range, room in prepared pages. It decides nothing else: every other call, and every one that try_append
 * is not ready for, goes to QueueWriter._append, which does the same in Python with the lock given up.
 *
 * Stable ABI of CPython 3.10, but for free-threaded builds, which have none. Not built for other implementations.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#define NOW UINT64_MAX  /* CHRON_NOW */
#define NOT_READY -1000 /* CHRON_NOT_READY */

typedef int64_t (*try_append)(void *writer, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                              uint64_t timestamp_ns);

typedef struct {
    PyObject_HEAD try_append call; /* NULL: always the slow way */
    void *writer;                  /* its memory lives as long as this object: Handle keeps it */
} appender;

/* What a plain call says. */
typedef struct {
    unsigned long type_id;
    unsigned long flags;
    unsigned long long timestamp_ns;
} options;

/* A number up to `limit`? Anything else is left to the slow way, error message included. */
static int take(PyObject *value, unsigned long long limit, unsigned long long *out)
{
    if (!PyLong_CheckExact(value))
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
        return take(value, NOW - 1, &o->timestamp_ns);
    }
    if (!take(value, which == 0 ? 0xFFFE : 0xFF, &number))
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

static PyObject *append(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    appender *a = (appender *)self;
    options o = {0, 0, NOW};
    int64_t seq;

    if (!a->call || count == 0 || !PyBytes_CheckExact(args[0]) || !take_options(&o, args, count, keywords))
        return slow(self, args, count, keywords);
    seq = a->call(a->writer, PyBytes_AsString(args[0]), (size_t)PyBytes_Size(args[0]), (uint16_t)o.type_id,
                  (uint8_t)o.flags, o.timestamp_ns);
    if (seq >= 0)
        return PyLong_FromLongLong(seq);
    return seq == NOT_READY ? slow(self, args, count, keywords) : PyObject_CallMethod(self, "_fail", NULL);
}

/* _bind(address of chron_writer_try_append, address of the writer) */
static PyObject *bind(PyObject *self, PyObject *args)
{
    appender *a = (appender *)self;
    PyObject *call;
    PyObject *writer;

    if (!PyArg_ParseTuple(args, "OO", &call, &writer))
        return NULL;
    a->call = (try_append)(uintptr_t)PyLong_AsUnsignedLongLong(call);
    a->writer = PyLong_AsVoidPtr(writer);
    if (PyErr_Occurred()) {
        a->call = NULL;
        return NULL;
    }
    Py_INCREF(Py_None);
    return Py_None;
}

PyDoc_STRVAR(append_doc,
             "append($self, /, data, type_id=0, timestamp_ns=None, flags=0)\n--\n\n"
             "Append one record and return its seq. When this returns, it survives the death of this process.\n\n"
             "`data` is any C-contiguous buffer (bytes, bytearray, memoryview, an array ...), read in place; `str` is\n"
             "refused. `type_id` is 0 to 65534, `flags` 0 to 255. `timestamp_ns` None reads the clock; timestamps may\n"
             "go back. Blocks only under back-pressure, and for the disk with durability \"always\" or \"batch\".\n\n"
             "Raises PayloadTooLarge, QueueFull, NoSpace (each: nothing was appended), Poisoned, StorageError.");

static PyMethodDef methods[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL | METH_KEYWORDS, append_doc},
    {"_bind", bind, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Appends plain records; QueueWriter builds on it."},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "chronicle_ffi._fast.Appender",
    .basicsize = sizeof(appender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    int status = type ? PyModule_AddObjectRef(module, "Appender", type) : -1;

    Py_XDECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_fast", .m_size = 0, .m_slots = module_slots};

PyMODINIT_FUNC PyInit__fast(void)
{
    return PyModuleDef_Init(&module);
}
