# SPDX-License-Identifier: MIT
"""A queue on other hosts: its durable records in a stream of NATS JetStream, exactly once and in order, and back.

This needs the extra: ``pip install 'chronicle-ffi[mirror]'``. It uses what every user of the package may.
"""

from chronicle_ffi.mirror.errors import MirrorError, ServerRefused, ServerUnavailable, StreamMismatch, StreamNotFound
from chronicle_ffi.mirror.sender import Mirror, MirrorStats
from chronicle_ffi.mirror.server import Access
from chronicle_ffi.mirror.subscriber import Subscriber, open_subscriber
from chronicle_ffi.mirror.whole import MirrorReport, restore, verify

__all__ = [
    "Access",
    "Mirror",
    "MirrorError",
    "MirrorReport",
    "MirrorStats",
    "ServerRefused",
    "ServerUnavailable",
    "StreamMismatch",
    "StreamNotFound",
    "Subscriber",
    "open_subscriber",
    "restore",
    "verify",
]
