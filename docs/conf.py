# SPDX-License-Identifier: MIT
"""Sphinx's settings for "make docs", and two checks that make it strict.

Every warning fails the build. Beyond Sphinx's own: a public name that has no entry is one, and so is a word in
backticks that is neither a name of this package, nor of the standard library, nor a parameter. Nothing is fetched:
names of other projects are shown, and not linked.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]

import chronicle_ffi  # noqa: E402
from chronicle_ffi import errors  # noqa: E402

project = "chronicle-ffi"
release = version = chronicle_ffi.__version__
copyright = "the authors of chronicle-ffi"

extensions = ["myst_parser", "sphinx.ext.autodoc", "chronicle_h"]
myst_heading_anchors = 3
exclude_patterns = ["conf.py"]
default_role = "py:obj"
nitpicky = True
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"chronicle-ffi {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

log = logging.getLogger(__name__)

LINK = re.compile(r"(?<!!)\[(?P<label>[^\]]+)\]\((?P<target>(?![a-z]+:|#)[^)\s]+)\)")

EXCEPTION = re.compile(rf"(?<![`.\w])({'|'.join(kind.__name__ for kind in errors.BY_CODE.values())})(?![`\w])")

# Where names in annotations come from, without being qualified there.
MODULES = ("typing", "typing_extensions", "collections.abc", "datetime", "uuid", "os", "contextlib")
C_TYPES = {"size_t", *(f"{kind}{bits}_t" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
THIRD_PARTY = ("pyarrow.", "numpy.", "asyncio.")


def members(kind: type) -> dict[str, Any]:
    """What this package defines in a class and its bases, without underscores in front."""
    bases = [base for base in reversed(kind.__mro__) if base.__module__.startswith("chronicle_ffi")]
    found: dict[str, Any] = {}
    for base in bases:
        found |= dict.fromkeys(inspect.get_annotations(base)) | dict(vars(base))
    return {name: value for name, value in found.items() if not name.startswith("_")}


def warn_of_missing_names(app: Sphinx, env: Any) -> None:
    entries = env.domaindata["py"]["objects"]
    for name in chronicle_ffi.__all__:
        thing = getattr(chronicle_ffi, name)
        expected = {name}
        if inspect.isclass(thing) and not issubclass(thing, chronicle_ffi.ChronicleError):
            expected |= {f"{name}.{member}" for member in members(thing)}
        elif thing is chronicle_ffi.ChronicleError:
            expected |= {f"{name}.{member}" for member in inspect.signature(thing).parameters}
        for missing in sorted(expected):
            if f"chronicle_ffi.{missing}" not in entries:
                log.warning("chronicle_ffi.%s is public, and has no entry or no docstring", missing)


@cache
def parameters() -> set[str]:
    """The names of all parameters of the package's functions: docstrings put them into backticks too."""
    found = set(inspect.signature(chronicle_ffi.ChronicleError).parameters)
    for kind in filter(inspect.isclass, vars(chronicle_ffi).values()):
        functions = [getattr(value, "__func__", value) for value in members(kind).values()]
        for function in filter(inspect.isroutine, functions):
            found |= set(inspect.signature(function).parameters)
    return found


def exists_elsewhere(target: str) -> bool:
    if hasattr(builtins, target) or target.startswith(THIRD_PARTY):
        return True
    module, _, name = target.rpartition(".")
    if module:
        try:
            return hasattr(importlib.import_module(module), name)
        except ImportError:
            return False
    return any(hasattr(importlib.import_module(module), name) for module in MODULES) or name in parameters()


def link_exceptions(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """``Raises QueueFull`` is a link, and is written without marks."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "Traceback", "chronicle_ffi.errors.")):
            lines[number] = EXCEPTION.sub(r"`~chronicle_ffi.\1`", line)


def keep_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """``bytes`` in an annotation is Python's, whatever fields there are of that name."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") == "class" and hasattr(builtins, node["reftarget"]):
            node.replace_self(nodes.Text(node["reftarget"]))


def resolve_elsewhere(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A reference that Sphinx cannot resolve: plain text if it names something that exists, else a warning.

    What stands above the package, chronicle_ffi.archive, refers to it by its names alone.
    """
    if node.get("refdomain") == "py" and node.get("py:module") == "chronicle_ffi.archive":
        python, target = env.domains["py"], f"chronicle_ffi.{node['reftarget']}"
        found = python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, contnode)
        if found is not None:
            return found
    known = exists_elsewhere if node.get("refdomain") == "py" else C_TYPES.__contains__
    return contnode if known(node["reftarget"]) else None


def relink(app: Sphinx, page: str, source: list[str]) -> None:
    """Markdown links of pages lead to pages; other files of the repository are only named, but have to exist.

    README.md is the first page.
    """
    start = ROOT / "docs"
    if page == "index":
        start = ROOT
        source[0] = (ROOT / "README.md").read_text(encoding="utf-8") + source[0]
        app.env.note_dependency(str(ROOT / "README.md"))

    def link(found: re.Match[str]) -> str:
        file, _, anchor = found["target"].partition("#")
        path = (start / file).resolve()
        if not path.exists():
            log.warning("a link to %s, which is not there", file, location=page)
        if path.parent != ROOT / "docs":
            return found["label"]
        return f"[{found['label']}]({path.name}{'#' * bool(anchor)}{anchor})"

    if app.env.doc2path(page).suffix == ".md":
        source[0] = LINK.sub(link, source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", relink)
    app.connect("autodoc-process-docstring", link_exceptions)
    app.connect("doctree-read", keep_builtins)
    app.connect("missing-reference", resolve_elsewhere)
    app.connect("env-check-consistency", warn_of_missing_names)
