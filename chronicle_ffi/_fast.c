/* SPDX-License-Identifier: MIT */
/*
 * _fast.c - what is done for each record, where Python and cffi would cost more than the record itself
 * (bench/README.md has the figures). cffi's module holds the library; this one links nothing and gets addresses from it.
 *
 * QueueWriter.append, by its base Appender: without a frame of Python, and without a call through cffi, which gives up
 * the interpreter's lock and takes it again. It takes plain calls that need no more than copying: a bytes object, numbers
 * in range, room in prepared pages (chron_writer_try_append). Every other call goes to QueueWriter._append, which does
 * the same in Python with the lock given up.
 *
 * messages() and payloads(), for _prefetch.py: objects made of the columns that a peek has filled. QueueReader.next, by
 * its base Taker: the next one of those.
 *
 * Stable ABI of CPython 3.10, but for free-threaded builds, which have none. Those take their lock back when they import
 * this: what it does to objects of Python has not been shown to be safe without.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <chronicle.h>

#define FIELDS 5 /* of a Message */

typedef int64_t (*try_append)(void *writer, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                              uint64_t timestamp_ns);

typedef struct {
    PyObject_HEAD try_append call; /* NULL: always the slow way */
    void *writer;                  /* its memory lives as long as this object: Handle keeps it */
} appender;

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

static PyObject *append(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    appender *a = (appender *)self;
    options o = {0, 0, CHRON_NOW};
    int64_t seq;

    if (!a->call || count == 0 || !PyBytes_CheckExact(args[0]) || !take_options(&o, args, count, keywords))
        return slow(self, args, count, keywords);
    seq = a->call(a->writer, PyBytes_AsString(args[0]), (size_t)PyBytes_Size(args[0]), (uint16_t)o.type_id,
                  (uint8_t)o.flags, o.timestamp_ns);
    if (seq >= 0)
        return PyLong_FromLongLong(seq);
    return seq == CHRON_NOT_READY ? slow(self, args, count, keywords) : PyObject_CallMethod(self, "_fail", NULL);
}

/*
 * _extend(list, begin, type_id, timestamp_ns, flags) -> how many: append list[begin:] up to what is not plain. Appends
 * that need more come every 64 KiB, so the interpreter's lock is not held for long.
 */
static PyObject *extend(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    appender *a = (appender *)self;
    options o = {0, 0, CHRON_NOW};
    Py_ssize_t begin;
    Py_ssize_t end;
    Py_ssize_t at;

    if (count != 5 || !PyList_CheckExact(args[0]) || !a->call) {
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
        seq = a->call(a->writer, PyBytes_AsString(item), (size_t)PyBytes_Size(item), (uint16_t)o.type_id,
                      (uint8_t)o.flags, o.timestamp_ns);
        if (seq == CHRON_NOT_READY)
            break;
        if (seq < 0)
            return PyObject_CallMethod(self, "_fail", NULL);
    }
    return PyLong_FromSsize_t(at - begin);
}

/* _bind(address of chron_writer_try_append, address of the writer) */
static PyObject *bind(PyObject *self, PyObject *args)
{
    appender *a = (appender *)self;
    unsigned long long call;
    unsigned long long writer;

    if (!PyArg_ParseTuple(args, "KK", &call, &writer))
        return NULL;
    a->call = (try_append)(uintptr_t)call;
    a->writer = (void *)(uintptr_t)writer;
    Py_INCREF(Py_None);
    return Py_None;
}

/* ------------------------------------------------------------------------------------------ reading */

/* Steal `item`, which may be NULL. */
static int put(PyObject *tuple, Py_ssize_t at, PyObject *item)
{
    return item ? PyTuple_SetItem(tuple, at, item) : -1;
}

/* Put the five fields into a tuple that is all NULL. */
static int fill(PyObject *tuple, const chron_columns *c, size_t i, const char *payload)
{
    return put(tuple, 0, PyLong_FromUnsignedLongLong(c->seq[i])) < 0 ||
                   put(tuple, 1, PyLong_FromUnsignedLongLong(c->timestamp_ns[i])) < 0 ||
                   put(tuple, 2, PyLong_FromLong(c->type_id[i])) < 0 ||
                   put(tuple, 3, PyLong_FromLong(c->flags[i])) < 0 ||
                   put(tuple, 4, PyBytes_FromStringAndSize(payload, (Py_ssize_t)c->length[i])) < 0
               ? -1
               : 0;
}

/* A message is a named tuple: its memory, and the fields. */
static PyObject *message(PyTypeObject *type, const chron_columns *c, size_t i, const char *payload)
{
    PyObject *made = PyType_GenericAlloc(type, FIELDS);

    if (made && fill(made, c, i, payload) < 0)
        Py_CLEAR(made);
    return made;
}

/* The same by tuple.__new__: from CPython 3.14 on a tuple has more to it than its items. A third slower. */
static PyObject *message_by_new(PyTypeObject *type, const chron_columns *c, size_t i, const char *payload)
{
    newfunc make = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *fields = PyTuple_New(FIELDS);
    PyObject *arguments = PyTuple_New(1);
    PyObject *made = NULL;

    if (fields && arguments && fill(fields, c, i, payload) == 0 && put(arguments, 0, fields) == 0) {
        fields = NULL;
        made = make(type, arguments, NULL);
    }
    Py_XDECREF(fields);
    Py_XDECREF(arguments);
    return made;
}

/* Make `count` things of the payloads in c->copy, one behind the other. */
static PyObject *list_of(PyObject *(*make)(PyTypeObject *, const chron_columns *, size_t, const char *),
                         PyTypeObject *type, const chron_columns *c, Py_ssize_t count)
{
    const char *payload = c->copy;
    PyObject *list = PyList_New(count);

    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *item =
            make ? make(type, c, (size_t)i, payload) : PyBytes_FromStringAndSize(payload, (Py_ssize_t)c->length[i]);

        if (!item || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
        payload += c->length[i];
    }
    return list;
}

static PyObject *messages(PyObject *self, PyObject *args)
{
    PyObject *type;
    unsigned long long address;
    Py_ssize_t count;
    int by_new;

    (void)self;
    if (!PyArg_ParseTuple(args, "OKnp", &type, &address, &count, &by_new))
        return NULL;
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "messages are named tuples");
        return NULL;
    }
    return list_of(by_new ? message_by_new : message, (PyTypeObject *)type, (const chron_columns *)(uintptr_t)address,
                   count);
}

static PyObject *payloads(PyObject *self, PyObject *args)
{
    unsigned long long address;
    Py_ssize_t count;

    (void)self;
    if (!PyArg_ParseTuple(args, "Kn", &address, &count))
        return NULL;
    return list_of(NULL, NULL, (const chron_columns *)(uintptr_t)address, count);
}

/* The base of QueueReader: hands out messages that were fetched; QueueReader._next fetches more. */
typedef struct {
    PyObject_HEAD PyObject
        *fetched; /* an iterator, or NULL. It holds messages alone: no cycle for the collector to find */
} taker;

static PyObject *next(PyObject *self, PyObject *unused)
{
    taker *t = (taker *)self;
    PyObject *item = t->fetched ? PyIter_Next(t->fetched) : NULL;

    (void)unused;
    if (item || PyErr_Occurred())
        return item;
    return PyObject_CallMethod(self, "_next", NULL);
}

static PyObject *offer(PyObject *self, PyObject *iterator)
{
    taker *t = (taker *)self;
    PyObject *before = t->fetched;

    if (!PyIter_Check(iterator)) {
        PyErr_SetString(PyExc_TypeError, "an iterator is wanted");
        return NULL;
    }
    Py_INCREF(iterator);
    t->fetched = iterator;
    Py_XDECREF(before);
    Py_INCREF(Py_None);
    return Py_None;
}

static void free_taker(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_CLEAR(((taker *)self)->fetched);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
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

static PyMethodDef appender_methods[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL | METH_KEYWORDS, append_doc},
    {"_extend", (PyCFunction)(void (*)(void))extend, METH_FASTCALL, NULL},
    {"_bind", bind, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef taker_methods[] = {
    {"next", next, METH_NOARGS, next_doc},
    {"_offer", offer, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef functions[] = {
    {"messages", messages, METH_VARARGS, "messages(type, address of a chron_columns, count, by_new) -> list"},
    {"payloads", payloads, METH_VARARGS, "payloads(address of a chron_columns, count) -> list"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot appender_slots[] = {
    {Py_tp_doc, "Appends plain records; QueueWriter builds on it."},
    {Py_tp_methods, appender_methods},
    {0, NULL},
};

static PyType_Slot taker_slots[] = {
    {Py_tp_doc, "Hands out fetched messages; QueueReader builds on it."},
    {Py_tp_methods, taker_methods},
    {Py_tp_dealloc, (void *)free_taker},
    {0, NULL},
};

static PyType_Spec specs[] = {
    {"chronicle_ffi._fast.Appender", sizeof(appender), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, appender_slots},
    {"chronicle_ffi._fast.Taker", sizeof(taker), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, taker_slots},
};

static int execute(PyObject *module)
{
    static const char *const names[] = {"Appender", "Taker"};

    for (size_t i = 0; i < 2; i++) {
        PyObject *type = PyType_FromSpec(&specs[i]);
        int status = type ? PyModule_AddObjectRef(module, names[i], type) : -1;

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
