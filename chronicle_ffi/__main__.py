# SPDX-License-Identifier: MIT
"""``python -m chronicle_ffi``: the same as the command ``chronicle``."""

import sys

from chronicle_ffi.cli import main

if __name__ == "__main__":
    sys.exit(main())
