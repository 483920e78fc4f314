# SPDX-License-Identifier: MIT
"""The package's version, which is also that of the C library; a test compares the two."""

__version__ = "0.1.0"
