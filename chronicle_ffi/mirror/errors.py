# SPDX-License-Identifier: MIT
"""What can go wrong between a queue and a stream, as classes; each is a `ChronicleError`, too."""

from __future__ import annotations

import errno

from chronicle_ffi.errors import ChronicleError


class MirrorError(ChronicleError):
    """What all failures of mirroring have in common."""


class ServerUnavailable(MirrorError, ConnectionError):
    """No server could be reached, or JetStream does not answer: start it, or correct the URL. Nothing was lost."""

    _errno = errno.ECONNREFUSED


class ServerRefused(MirrorError, PermissionError):
    """The server is there and will not have us: credentials, permissions, or a certificate. Nothing was lost."""

    _errno = errno.EACCES


class StreamNotFound(MirrorError, LookupError):
    """There is no stream of this name."""


class StreamMismatch(MirrorError, ValueError):
    """The stream does not hold what the queue holds, so nothing is sent; the message says what differs."""
