# SPDX-License-Identifier: MIT
"""numpy, pyarrow, pandas, polars and duckdb for tests that exchange data with them; without them those tests skip."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def need(name: str) -> Any:
    """The module; or the test that asks skips, and says why. With CHRONICLE_REQUIRE_INTEROP it fails."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        if os.environ.get("CHRONICLE_REQUIRE_INTEROP"):
            raise
        pytest.skip(f"{missing}: make test installs it where there are wheels", allow_module_level=True)
