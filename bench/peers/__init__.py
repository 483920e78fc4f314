# SPDX-License-Identifier: MIT
"""The race against what people use today: ``python -m bench.peers``; see bench/README.md."""
