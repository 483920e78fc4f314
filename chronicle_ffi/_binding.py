# SPDX-License-Identifier: MIT
"""The only module that imports the extension, and the only place where a C status becomes an exception."""

from __future__ import annotations

import os
from typing import Any, Final

from chronicle_ffi import _arguments, _fast, errors
from chronicle_ffi._chronicle import ffi as ffi
from chronicle_ffi._chronicle import lib as lib

SEQ_NONE: Final[int] = lib.CHRON_SEQ_NONE
NOW: Final[int] = lib.CHRON_NOW
SLICE_NS: Final[int] = 100_000_000  # of one blocking call: after it Python handles signals

_CLASSES: Final = {getattr(lib, f"CHRON_{name}"): kind for name, kind in errors.BY_CODE.items()}
EINVAL: Final[int] = -lib.CHRON_EINVAL
EBUFFER: Final[int] = -lib.CHRON_EBUFFER
EINTR: Final[int] = -lib.CHRON_EINTR
EFULL: Final[int] = -lib.CHRON_EFULL


def error(status: int) -> errors.ChronicleError:
    """The calling thread's last failure, which was this one."""
    last = lib.chron_last_error()
    kind = _CLASSES.get(-status, errors.ChronicleError)
    if last.code != -status:  # a signal handler has come in between, and met another one
        return kind(string(lib.chron_strerror(status)), code=-status)
    file = string(last.file)
    return kind(
        string(last.text),
        code=last.code,
        sys_errno=last.sys_errno or None,
        file=file or None,
        offset=last.offset if file else None,
        seq=optional_seq(last.seq),
        oldest=optional_seq(last.oldest),
        next_seq=optional_seq(last.next_seq),
        appended=last.appended if last.code == lib.CHRON_EUNSYNCED else None,
        pid=last.pid or None,
    )


def check(status: int) -> int:
    """A C status: what it is if it is not a failure, an exception if it is."""
    if status < 0:
        raise error(status)
    return status


def new_struct(kind: str) -> Any:
    """A struct of C's that says its size, and is 0 otherwise."""
    struct = ffi.new(f"{kind} *")
    struct.struct_size = ffi.sizeof(kind)
    return struct


def new_array(kind: str, count: int) -> Any:
    """An array of them, for C to fill: its first one says the size of all."""
    array = ffi.new(f"{kind}[]", count)
    array[0].struct_size = ffi.sizeof(kind)
    return array


def address_of(pointer: Any) -> int:
    """For _fast.c, which knows nothing of cffi. What it points to must be kept alive beside it."""
    return int(ffi.cast("uintptr_t", pointer))


def optional_seq(seq: int) -> int | None:
    return None if seq == SEQ_NONE else seq


def string(text: Any) -> str:
    """A char array of C."""
    return os.fsdecode(ffi.string(text))


def path_bytes(path: _arguments.Path) -> bytes:
    """A path as C wants it."""
    return os.fsencode(_arguments.path(path))


def deadline_ns(timeout: _arguments.Duration | None, now_ns: int) -> int | None:
    """When a wait that begins now ends; None for never. Seconds in, nanoseconds out."""
    return None if timeout is None else now_ns + int(_arguments.seconds("timeout", timeout) * 1e9)


_fast.bind(lambda name: address_of(ffi.addressof(lib, name)))
check(lib.chron_guard_install())
