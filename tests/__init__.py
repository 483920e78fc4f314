# SPDX-License-Identifier: MIT
"""Temporary files go to a disk unless TMPDIR says otherwise: where /tmp lies in memory, a queue cannot be durable."""

import os
import tempfile

if os.path.isdir("/var/tmp"):
    os.environ.setdefault("TMPDIR", "/var/tmp")
    tempfile.tempdir = None  # pytest may have asked before
