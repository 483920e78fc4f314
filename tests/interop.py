# SPDX-License-Identifier: MIT
"""numpy, pyarrow, pandas, polars and duckdb for tests that exchange data with them; without them those tests skip."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import pytest

NEVER = {"pandas", "duckdb"} if sys.version_info < (3, 11) else set()  # pandas 3 and duckdb 2 ask for Python 3.11


def need(name: str) -> Any:
    """The module; or the test that asks skips, and says why. With CHRONICLE_REQUIRE_INTEROP it fails."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        if os.environ.get("CHRONICLE_REQUIRE_INTEROP") and name not in NEVER:
            raise
        pytest.skip(f"{missing}: make test installs it where there are wheels", allow_module_level=True)
