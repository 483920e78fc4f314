# SPDX-License-Identifier: MIT
"""The package as others get it: from the source archive, into an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import chronicle_ffi

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source archive holds."""
    place = tmp_path_factory.mktemp("package")
    build = f"egg_info --egg-base {place} sdist --dist-dir {place}".split()
    run(sys.executable, "setup.py", "--quiet", *build, cwd=ROOT)
    (archive,) = place.glob("*.tar.gz")
    run("tar", "-xf", archive, cwd=place)
    return place / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """A wheel that was built from the source archive alone, with what is installed here."""
    place = source.parent
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--wheel-dir", place, source, cwd=place)
    (found,) = place.glob("*.whl")
    return found


def test_the_source_archive_holds_all_of_the_repository(source: Path) -> None:
    """So that make works in it: "make sdist-test" tries."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    known = set(run("git", "ls-files", cwd=ROOT).split())
    assert {name for name in known if (ROOT / name).exists() and not (source / name).exists()} == set()


def test_the_wheel_holds_the_package_its_types_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "chronicle_ffi").rglob("*.py*") if path.is_file()}
    wanted = {name for name in modules if "__pycache__" not in name} | {"chronicle_ffi/py.typed"}
    assert {name for name in names if not name.endswith(".so")} == wanted
    assert len([name for name in names if name.endswith(".so")]) == len(names - wanted) > 0


def test_the_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into a directory that Python looks into before any other, without this tree."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import chronicle_ffi; from chronicle_ffi import Queue\n"
        "with Queue.open_publisher('q') as w: w.append(b'x')\n"
        "print(chronicle_ffi.__file__, Queue.verify('q').records)"
    )
    said = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    assert said.split() == [str(tmp_path / "site" / "chronicle_ffi" / "__init__.py"), "1"]


def test_import_brings_in_nothing_that_is_not_needed() -> None:
    code = "import sys; import chronicle_ffi; print(*sys.modules)"
    loaded = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert "chronicle_ffi._writer" in loaded
    unwanted = {"numpy", "pyarrow", "pandas", "polars", "asyncio", "multiprocessing", "argparse", "chronicle_ffi.cli"}
    assert not loaded & unwanted


def test_what_is_internal_begins_with_an_underscore() -> None:
    names = {path.stem for path in (ROOT / "chronicle_ffi").iterdir() if path.suffix in (".py", "")}
    assert {name for name in names if not name.startswith("_")} == {
        *("archive", "channel", "cli", "errors", "logs", "merge", "mirror", "model", "mpqueue", "schema")
    }


def test_pickles_and_tracebacks_name_public_modules() -> None:
    """What can be pickled or raised; the others lead into C, and cannot."""
    kinds = [kind for kind in map(vars(chronicle_ffi).get, chronicle_ffi.__all__) if isinstance(kind, type)]
    inside = {kind.__name__ for kind in kinds if kind.__module__ not in ("chronicle_ffi.errors", "chronicle_ffi.model")}
    assert inside == {
        *(
            "Batch",
            "Group",
            "Job",
            "LockedWriter",
            "Merge",
            "MergedBatch",
            "Queue",
            "QueueReader",
            "QueueWriter",
            "Scan",
            "Stage",
        )
    }


def test_all_is_sorted_and_complete() -> None:
    public = {name for name in vars(chronicle_ffi) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(chronicle_ffi, name)).__name__ == "module"}
    assert set(chronicle_ffi.__all__) == public - modules | {"__version__"}
    assert len(set(chronicle_ffi.__all__)) == len(chronicle_ffi.__all__)
