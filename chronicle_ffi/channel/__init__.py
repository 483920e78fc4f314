# SPDX-License-Identifier: MIT
"""Request and reply between processes, over a pair of queues for each client. Stands on the public API alone.

A directory holds `server`, a queue that only shows who serves, and `clients/NAME/requests` and `clients/NAME/replies`,
which are ordinary queues: the client writes the one, the server the other. All payloads begin with the call's key of 16
bytes (the client's session, drawn at each opening, and the call's number); in requests the time follows at which the
client gives up (8 bytes, nanoseconds since 1970, 0 for never), all little-endian. A reply's flags are its `Outcome`.
"""

from __future__ import annotations

from typing import Any, Literal, overload

from chronicle_ffi.channel._client import Client
from chronicle_ffi.channel._server import Server
from chronicle_ffi.channel._wire import CallTimedOut, Outcome, RemoteError, Request, ServerDied
from chronicle_ffi.errors import InvalidArgument

__all__ = ["CallTimedOut", "Channel", "Client", "Outcome", "RemoteError", "Request", "Server", "ServerDied"]


class Channel:
    """Where requests go and replies come from: a directory. Never instantiated."""

    @overload
    @staticmethod
    def open(path: Any, role: Literal["client"], **options: Any) -> Client: ...
    @overload
    @staticmethod
    def open(path: Any, role: Literal["server"], **options: Any) -> Server: ...
    @staticmethod
    def open(path: Any, role: str, **options: Any) -> Client | Server:
        """One end of the channel in this directory, which is made if it is not there: a `Client` or the `Server`.

        ``options`` are the keywords of those two. Either end may come first, die, and come back.
        """
        if role == "client":
            return Client(path, **options)
        if role == "server":
            return Server(path, **options)
        raise InvalidArgument(f"role is {role!r}; it can be 'client' or 'server'")
