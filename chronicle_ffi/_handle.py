# SPDX-License-Identifier: MIT
"""What `QueueWriter` and `QueueReader` have in common: a handle of C, how it ends, and its bell."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chronicle_ffi._arguments import Duration
from chronicle_ffi._binding import check, ffi, lib
from chronicle_ffi.errors import AccessDenied

if TYPE_CHECKING:
    from typing_extensions import Self

    from chronicle_ffi._aio import Bell


class Handle:
    """Closed for use by `close`; its memory goes when the last frame that might still call with it has gone.

    That is why C closes in two steps: `shut` ends everything and makes late calls fail, `free` gives the memory back.
    """

    def __init__(self, handle: Any, shut: Any, free: Any, bell: Any, path: str) -> None:
        self._handle = ffi.gc(handle, free)
        self._shut = shut
        self._get_bell = bell
        self._path = path
        self._closed = False
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
        return self._closed

    def close(self) -> None:
        """Close it. May be called twice. Raises ConcurrentUse while another thread is inside: then it is still open.

        A writer syncs (unless its durability is "none"), stops its keeper, marks the queue as properly closed and
        gives up its lock; it raises what the sync raises, and is closed all the same. A reader does not commit.

        >>> reader.close()
        >>> reader.closed
        True
        """
        status = self._shut(self._handle)
        self._closed = status != -lib.CHRON_EBUSY
        if self._closed:
            self._drop_bell()
        check(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
            self._shut(self._handle)
            self._drop_bell()

    def _until(self, ready: Callable[[], bool], timeout: Duration | None) -> Awaitable[bool]:
        """Wait on the running event loop until `ready()`, which arms the handle; False after `timeout` seconds."""
        from chronicle_ffi import _aio  # not above: it takes asyncio along, which not everybody needs

        return _aio.until(ready, self._bell_here(), timeout)

    def _bell_here(self) -> Bell | None:
        """Its bell on the running event loop; None if it cannot have one."""
        if self._bell is None or not self._bell.is_here():
            from chronicle_ffi import _aio

            out = ffi.new("chron_bell **")
            try:
                check(self._get_bell(self._handle, out))
            except AccessDenied:
                return None
            self._drop_bell()
            self._bell = _aio.Bell(ffi.gc(out[0], lib.chron_bell_release))
        return self._bell

    def _drop_bell(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}{' (closed)' if self._closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: open the queue in the other process")
