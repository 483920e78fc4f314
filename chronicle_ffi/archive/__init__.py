# SPDX-License-Identifier: MIT
"""An archive of a queue on object storage: what was sealed goes there, and is read as if it were here.

Needs the extra: ``pip install 'chronicle-ffi[archive]'``. Stands on the public API alone::

    Archive("/var/lib/ticks", "s3://bucket/ticks").run(older=timedelta(days=1))

    with Queue.open_subscriber("/var/lib/ticks", archive="s3://bucket/ticks") as reader:
        for message in reader:  # from the oldest record there ever was, across the seam
            ...
"""

try:
    import obstore  # noqa: F401
    import zstandard  # noqa: F401
except ImportError as missing:
    raise ImportError(
        f"{missing}: an archive needs more than the queue itself: pip install 'chronicle-ffi[archive]'",
        name=missing.name,
    ) from missing

from chronicle_ffi.archive._archiver import Archive, ArchiveCheck, ArchiveReport
from chronicle_ffi.archive._errors import ArchiveDamaged, ArchiveError, ArchiveMismatch
from chronicle_ffi.archive._export import ExportReport, export
from chronicle_ffi.archive._manifest import Entry
from chronicle_ffi.archive._open import open_subscriber
from chronicle_ffi.archive._reader import ArchivedReader

__all__ = [
    "Archive",
    "ArchiveCheck",
    "ArchiveDamaged",
    "ArchiveError",
    "ArchiveMismatch",
    "ArchiveReport",
    "ArchivedReader",
    "Entry",
    "ExportReport",
    "export",
    "open_subscriber",
]

for _name in __all__:  # tracebacks name what users import
    globals()[_name].__module__ = __name__
del _name
