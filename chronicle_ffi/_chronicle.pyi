# SPDX-License-Identifier: MIT
# What cffi generates has no types of its own; _binding.py is the only module that imports it.
from typing import Any

ffi: Any
lib: Any
