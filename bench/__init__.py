# SPDX-License-Identifier: MIT
"""Benchmarks: see README.md."""
