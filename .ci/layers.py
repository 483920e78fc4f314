# SPDX-License-Identifier: MIT
"""Checks the rules of ARCHITECTURE.md that a compiler does not: who may use what, circles, tags of atomics, sizes."""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "csrc" / "src"
LINES_MAX = 600
TABLES = {"mutations.py"}  # as long as they need to be
FUNCTION_LINES_MAX = 50

# A file includes from its own folder, and from those before it in this list; write/ and read/ are side by side.
FOLDERS = ["base", "crc32c", "platform", "format", "queue", "write", "read", "group", "merge"]
APART = {"write", "read"}
BY_API = {"merge"}  # knows handles by chronicle.h alone
OF_API = {"base", "platform", "format"}  # what such a folder includes besides
HANDLES = re.compile(r"\bstruct chron_(?:writer|reader)\b|\bchron_(?:writer|reader) \*")
SYSTEM_IFDEF = re.compile(r"#\s*(?:if|elif|ifdef|ifndef)\b.*__(?:linux__|APPLE__|FreeBSD__|NetBSD__|OpenBSD__)")
SYSTEM_FOLDERS = ("platform/", "crc32c/arm.c")

# ------------------------------------------------------------------------------------------- folders


def includes(text: str) -> list[str]:
    return re.findall(r'^#include "(\w+/.+?)"', text, re.MULTILINE)


def may_include(folder: str, other: str) -> bool:
    if folder == other:
        return True
    if folder in BY_API:
        return other in OF_API
    if {folder, other} <= APART or (folder, other) == ("group", "write"):
        return False
    return FOLDERS.index(other) < FOLDERS.index(folder)


def wrong_uses(name: str, text: str) -> Iterator[str]:
    folder = name.partition("/")[0]
    for included in includes(text):
        if not may_include(folder, included.partition("/")[0]):
            yield f"{name} includes {included}, which is not below it"
    if folder not in APART | BY_API | {"group"} and HANDLES.search(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)):
        yield f"{name} knows a handle: that is for write/ and read/"
    if "#include <stdatomic.h>" in text and name != "base/atomics.h":
        yield f"{name} includes <stdatomic.h>: base/atomics.h is the place for that"
    if SYSTEM_IFDEF.search(text) and not name.startswith(SYSTEM_FOLDERS):
        yield f"{name} asks for the operating system: that is for platform/"


def missing_in_architecture() -> Iterator[str]:
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    listed = [found[1] for line in lines if (found := re.match(r"    csrc/src/(\w+)/ ", line))]
    if listed != FOLDERS:
        yield f"ARCHITECTURE.md lists the folders {listed}, the rule has {FOLDERS}"


# ------------------------------------------------------------------------------------------- circles


def unit(name: str) -> str:
    """A header and the C file of the same name are one."""
    return name.rpartition(".")[0]


def symbols(sources: dict[str, str]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Where each function and variable of the library is defined, and what each unit needs of others."""
    defined: dict[str, str] = {}
    needed: dict[str, set[str]] = {}
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as directory:
        for name in sources:
            if not name.endswith(".c"):
                continue
            subprocess.run(
                [compiler, "-std=c11", "-O0", "-w", f"-I{ROOT}/csrc/include", f"-I{SOURCE}", "-c", SOURCE / name,
                 "-o", f"{directory}/x.o"], check=True,
            )  # fmt: skip
            listing = subprocess.run(["nm", f"{directory}/x.o"], check=True, capture_output=True, text=True).stdout
            for line in listing.splitlines():
                kind, symbol = line.split()[-2:]
                if kind == "U":
                    needed.setdefault(unit(name), set()).add(symbol)
                elif kind.isupper():
                    defined[symbol] = unit(name)
    return defined, needed


def uses(sources: dict[str, str]) -> dict[str, set[str]]:
    """Unit -> the units that it includes or calls."""
    defined, needed = symbols(sources)
    graph: dict[str, set[str]] = {unit(name): set() for name in sources}
    for name, text in sources.items():
        graph[unit(name)] |= {unit(included) for included in includes(text)}
    for user, names in needed.items():
        graph[user] |= {defined[symbol] for symbol in names if symbol in defined}
    return {user: used - {user} for user, used in graph.items()}


def circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Takes away whatever uses nothing that is left; what remains goes in circles, or leads to one."""
    left = {user: set(used) for user, used in graph.items()}
    while leaves := [user for user, used in left.items() if not used & left.keys()]:
        for user in leaves:
            del left[user]
    if left:
        start = min(left)
        way = [start]
        while (following := min(left[way[-1]] & left.keys())) not in way:
            way.append(following)
        yield "files use each other in a circle: " + " -> ".join([*way[way.index(following) :], following])


# ---------------------------------------------------------------------------------------------- tags

TAG = re.compile(r"\[([A-Z]{3,})\]")
PLAIN = {"get32", "set32", "get64", "set64"}  # relaxed, on words whose declaration has the tag
ATOMIC_FIELD = re.compile(r"^\s*(?:static |extern )*(?:const )?chron__a(?:32|64|ptr) (?!\*word\b)\W*\w+.*;")


def operations() -> re.Pattern[str]:
    """Calls of what base/atomics.h defines."""
    names = re.findall(r"^static inline \w+ chron__(\w+)\(", (SOURCE / "base/atomics.h").read_text(), re.MULTILINE)
    return re.compile(rf"\bchron__(?:{'|'.join(sorted(set(names) - PLAIN))})\(")


def statement_around(lines: list[str], number: int) -> str:
    """The line, the comment in front of it, and what is left of its statement."""
    first = number
    while first > 0 and (lines[first - 1].lstrip().startswith(("/*", "*")) or "*/" in lines[first - 1][-3:]):
        first -= 1
    last = number
    while last + 1 < len(lines) and not re.search(r"[;{]\s*(?:/\*.*)?$", lines[last]):
        last += 1
    return "\n".join(lines[first : last + 1])


def untagged(name: str, text: str, operation: re.Pattern[str]) -> Iterator[str]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        code = re.sub(r"/\*.*?\*/|/\*.*$|^\s*\*.*$", "", line)
        if (operation.search(code) or ATOMIC_FIELD.match(code)) and not TAG.search(statement_around(lines, number)):
            yield f"{name}:{number + 1}: an atomic without a tag of base/atomics.h"


def unknown_tags(sources: dict[str, str]) -> Iterator[str]:
    """Each tag stands in the table, and on both sides."""
    table = set(TAG.findall(sources["base/atomics.h"]))
    used: dict[str, int] = {}
    for name, text in sources.items():
        if name != "base/atomics.h":
            for tag in TAG.findall(text):
                used[tag] = used.get(tag, 0) + 1
    yield from (f"the tag [{tag}] is not in the table of base/atomics.h" for tag in sorted(used.keys() - table))
    yield from (f"the tag [{tag}] of base/atomics.h has no two sides" for tag in sorted(table) if used.get(tag, 0) < 2)


# --------------------------------------------------------------------------------------------- sizes


def long_functions(name: str, text: str) -> Iterator[str]:
    """By the braces in column 0."""
    begin = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            begin = number
        elif line == "}" and begin:
            if number - begin - 1 > FUNCTION_LINES_MAX:
                yield f"{name}:{begin}: a function of {number - begin - 1} lines; {FUNCTION_LINES_MAX} are enough"
            begin = 0


def long_files(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        if path.is_file() and path.name not in TABLES and (lines := len(path.read_text().splitlines())) > LINES_MAX:
            yield f"{path.relative_to(ROOT)} has {lines} lines; {LINES_MAX} are enough"


# -------------------------------------------------------------------------------------------- Python

AROUND = {"cli", "channel", "logs", "mpqueue"}
PYTHON_FOLDERS = ("chronicle_ffi", "tests", "bench", "examples", "docs", ".ci")
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def modules() -> dict[str, ast.Module]:
    """What chronicle_ffi consists of, by name: a package's stands for its __init__.py, an extension's for its stub."""
    found = {}
    for path in sorted(path for kind in ("py", "pyi") for path in (ROOT / "chronicle_ffi").rglob(f"*.{kind}")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text() if path.suffix == ".py" else "", path)
    return found


def running_code(tree: ast.AST) -> Iterator[ast.AST]:
    """All of it, but for what stands under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node = ast.Module(node.orelse, [])
        yield node
        yield from running_code(node)


def imports(name: str, tree: ast.Module, names: Iterable[str]) -> set[str]:
    """Which of `names` it imports, inside of functions as well."""
    package = name if any(other.startswith(f"{name}.") for other in names) else name.rpartition(".")[0]
    found = set()
    for node in running_code(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            found |= {inner if (inner := f"{origin}.{alias.name}") in names else origin for alias in node.names}
    return found & set(names)


def wrong_imports(name: str, imported: set[str]) -> Iterator[str]:
    if "chronicle_ffi._chronicle" in imported and name != "chronicle_ffi._binding":
        yield f"{name} imports the extension: _binding.py is the place for that"
    if line_of(name) in AROUND:
        for other in sorted(other for other in imported if other.startswith("chronicle_ffi._")):
            yield f"{name} imports {other}: what stands around the core uses what every user may"


def line_of(name: str) -> str:
    """By what ARCHITECTURE.md lists a module: _queue; cli for all of it; __init__ for the package itself."""
    return [*name.split("."), "__init__"][1]


def upward_imports(graph: dict[str, set[str]]) -> Iterator[str]:
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("\nThe Python package, from the top.")[2]
    lines = text.split("\n\n")[1].splitlines()
    listed = {word.strip("/"): number for number, line in enumerate(lines) for word in line[4:28].split()}
    if differing := listed.keys() ^ {line_of(name) for name in graph}:
        yield f"ARCHITECTURE.md does not list the modules of chronicle_ffi: {', '.join(sorted(differing))}"
        return
    for name, imported in graph.items():
        for other in sorted(other for other in imported if listed[line_of(other)] < listed[line_of(name)]):
            yield f"{name} imports {other}, which is not below it"


def foreign_privates(name: str, tree: ast.Module) -> Iterator[str]:
    """`thing._field` where this file makes nothing of that name. What `self` has may be of a base in another file."""
    made = set()
    owners = {"self", "cls", "super()"}  # and modules: os._exit
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            made.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            made.add(node.attr)
        elif isinstance(node, ast.Import):
            owners |= {alias.asname or alias.name for alias in node.names if alias.name != "chronicle_ffi"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            owner = ast.unparse(node.value)
            if owner not in owners and node.attr not in made | OF_NAMED_TUPLES:
                yield f"{name}:{node.lineno}: {owner}.{node.attr} is private to another file"


def long_python_functions() -> Iterator[str]:
    """Without their signatures and docstrings."""
    for path in sorted(path for folder in PYTHON_FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                code = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
                lines = (node.end_lineno or 0) - code[0].lineno + 1 if code else 0
                if lines > FUNCTION_LINES_MAX:
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield f"{where}: a function of {lines} lines; {FUNCTION_LINES_MAX} are enough"


def python_problems() -> Iterator[str]:
    trees = modules()
    graph = {name: imports(name, tree, trees) - {name} for name, tree in trees.items()}
    for name, tree in trees.items():
        yield from wrong_imports(name, graph[name])
        yield from foreign_privates(name, tree)
    yield from upward_imports(graph)
    yield from circles(graph)
    yield from long_python_functions()


def problems() -> Iterator[str]:
    sources = {path.relative_to(SOURCE).as_posix(): path.read_text() for path in sorted(SOURCE.glob("*/*.[ch]"))}
    operation = operations()
    for name, text in sources.items():
        yield from wrong_uses(name, text)
        yield from long_functions(name, text)
        if name != "base/atomics.h":
            yield from untagged(name, text, operation)
    yield from missing_in_architecture()
    yield from circles(uses(sources))
    yield from unknown_tags(sources)
    yield from python_problems()
    for path in sorted(ROOT.glob("chronicle_ffi/*.[ch]")):
        yield from long_functions(path.name, path.read_text())
    written = (path for folder in ("chronicle_ffi", "tests") for path in ROOT.glob(f"{folder}/**/*.py"))
    yield from long_files([*SOURCE.glob("*/*"), *ROOT.glob("chronicle_ffi/*.[ch]"), *written])


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) if found else "layers: ok")
    sys.exit(bool(found))
