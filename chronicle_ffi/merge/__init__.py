# SPDX-License-Identifier: MIT
"""What stands on the public API and is about many queues, and about time: discovery and replay.

`Queue.discover` and `Queue.replay` make these; `Queue.merge` needs nothing of this package.
"""

from chronicle_ffi.merge.discovery import Discovery, Sighting
from chronicle_ffi.merge.replay import Replay

__all__ = ["Discovery", "Replay", "Sighting"]
