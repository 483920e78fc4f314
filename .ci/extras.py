# SPDX-License-Identifier: MIT
"""Prints the packages of one list in pyproject.toml, an extra or `requires`: pip takes extras with the package only."""

import re
import sys
from pathlib import Path


def of(name: str) -> list[str]:
    """Requirements, as pip takes them. Python 3.10 has no tomllib, and the file is ours."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"pyproject.toml has no extra named {name}")
    return re.findall(r'"([^"]+)"', found[1])


if __name__ == "__main__":
    print(*of(sys.argv[1]))
