# SPDX-License-Identifier: MIT
"""What `QueueWriter` and `QueueReader` have in common: a handle of C, how it ends, and its bell."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from chronicle_ffi import _fast
from chronicle_ffi._arguments import Duration
from chronicle_ffi._binding import check, error, ffi
from chronicle_ffi.errors import AccessDenied

if TYPE_CHECKING:
    from chronicle_ffi._aio import Bell


class Handle(_fast.Owner if TYPE_CHECKING else object):  # type: ignore[misc]
    """Closed for use by `close`; its memory goes when the last frame that might still call with it has gone.

    The object is there before C opens anything: `open_into` has C store the handle into it. It closes what it holds
    when it goes, so that an exception (Ctrl-C, a signal handler that raises) leaves nothing behind, wherever it comes.
    """

    def __init__(self, kind: str, bell: Any, path: str) -> None:
        self._out = ffi.cast(f"{kind} **", self._place)
        self._handle = ffi.NULL  # for cffi; the frame that calls with it has this object, too
        self._get_bell = bell
        self._path = path
        self._bell: Bell | None = None  # once a task has waited

    @property
    def path(self) -> str:
        """The queue's directory, as given.

        >>> writer.path
        'q'
        """
        return self._path

    @property
    def closed(self) -> bool:
        """Whether `close` has been called.

        >>> writer.closed
        False
        """
        return bool(self._closed)

    def _ended(self, status: int) -> None:
        """Called by `close`, and at the end of a ``with``, which are written in C: the handle was shut."""
        if self._closed:
            self._drop_bell()
        check(status)

    def _fail(self, status: int) -> NoReturn:
        raise error(status)

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
        if getattr(self, "_bell", None) is not None:
            self._drop_bell()

    def _until(self, ready: Callable[[], bool | None], timeout: Duration | None) -> Awaitable[bool]:
        """Wait on the running event loop until `ready()`, which arms the handle; False after `timeout` seconds."""
        from chronicle_ffi import _aio  # not above: it takes asyncio along, which not everybody needs

        return _aio.until(ready, self._bell_here(), timeout)

    def _bell_here(self) -> Bell | None:
        """Its bell on the running event loop; None if it cannot have one now."""
        from chronicle_ffi import _aio

        try:
            if self._bell is None or self._bell.is_mute or not self._bell.is_here():
                owned = _fast.Bell()
                check(self._get_bell(self._handle, ffi.cast("chron_bell **", owned.place)))
                self._drop_bell()
                self._bell = _aio.Bell(owned)
            self._bell.listen()
        except (AccessDenied, _aio.NoThread):
            return None
        return self._bell

    def _drop_bell(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}{' (closed)' if self._closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: open the queue in the other process")


def open_into(handle: Handle, call: Callable[[Any], int]) -> int:
    """Have C open it: `call` takes the place where the handle is to be stored, and answers a status."""
    status = call(handle._out)
    handle._handle = handle._out[0]
    return status
