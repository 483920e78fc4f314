# SPDX-License-Identifier: MIT
"""A directive for Sphinx, ``.. chronicle-header:: PATH``: the C API's page out of chronicle.h itself.

The header is written to be read; here each comment becomes the text of what it stands above (or behind), each name of
the API a link. A name in a comment that the header does not declare is a warning. It reads the header's own style, not
C: comments, ``#define``, ``typedef struct {...}``, and functions that begin with ``CHRON_API``.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)

ITEM = re.compile(
    r"^/\* -{10,} (?P<section>[^*]+?) \*/$"
    r"|^(?P<comment>/\*.*?\*/)$"
    r"|^#define (?P<macro>CHRON_\w+) +(?P<value>\S+)(?: +/\* (?P<about>.*?) \*/)?$"
    r"|^typedef struct \w+ \{\n(?P<members>.*?)^\} (?P<struct>\w+);$"
    r"|^typedef struct \w+ (?P<opaque>\w+);(?: +/\* (?P<opaque_about>.*?) \*/)?$"
    r"|^typedef (?P<callback>\w+ \(\*(?P<callback_name>\w+)\)\([^;]*\));$"
    r"|^CHRON_API (?P<function>[^;]*?(?P<name>chron_\w+)\([^;]*\));$",
    re.MULTILINE | re.DOTALL,
)
MEMBER = re.compile(r"^    (?P<decl>[^/;\n]+);(?: +/\* (?P<about>.*?) \*/)?$", re.MULTILINE)
ERROR = re.compile(r'^    X\((\w+), (\d+), "([^"]+)"\)', re.MULTILINE)


def plain(comment: str) -> str:
    """A comment without its stars."""
    body = re.sub(r"^/\*+ ?\n?|\s*\*/$", "", comment)
    return dedent(re.sub(r"^ \*(?: |$)", "", body, flags=re.MULTILINE)).strip("\n")


class Header:
    """The header's text, turned into reStructuredText."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.errors = ERROR.findall(text)
        patterns = {
            "c:macro": r"^#define (CHRON_\w+)",
            "c:type": r"^(?:typedef struct \w+ |\} |typedef \w+ \(\*)(\w+)\)?[;(]",
            "c:func": r"^CHRON_API [^;]*?(chron_\w+)\(",
        }
        self.roles = {f"CHRON_{name}": "c:macro" for name, _, _ in self.errors}
        for role, pattern in patterns.items():
            self.roles |= dict.fromkeys(re.findall(pattern, text, re.MULTILINE), role)

    def page(self) -> str:
        head = plain(re.findall(r"^/\*\n.*?\*/", self.text, re.MULTILINE | re.DOTALL)[0])
        parts = [self.prose(head.partition("\n\n")[2])]
        api = self.text.partition("/* cdef: begin")[2].partition("*/")[2].partition("/* cdef: end")[0]
        parts += [heading("Error codes"), "Functions return their negative. The numbers are pinned for ever."]
        parts += [
            f".. c:macro:: CHRON_{name}\n   :no-contents-entry:\n\n   ``{value}`` {text}\n"
            for name, value, text in self.errors
        ]
        parts.append(heading("Constants and handles"))
        about = ""
        end = 0
        for found in ITEM.finditer(api):
            if api[end : found.start()].strip():
                log.warning("chronicle.h: not understood: %s", api[end : found.start()].strip())
            if api[end : found.start()].count("\n") > 1 and about:  # the comment stood alone: for what follows
                parts.append(self.prose(about))
                about = ""
            end = found.end()
            if found["section"]:
                parts.append(heading(found["section"].capitalize()))
            elif found["comment"]:
                if about:
                    parts.append(self.prose(about))
                about = plain(found["comment"])
            else:
                parts.append(self.declaration(found, about))
                about = ""
        return "\n\n".join(parts)

    def declaration(self, found: re.Match[str], about: str) -> str:
        if found["macro"]:
            above = f"{self.prose(about)}\n\n" if about else ""
            text = " ".join(filter(None, [f"``{found['value']}``", self.inline(found["about"] or "")]))
            return f"{above}.. c:macro:: {found['macro']}\n   :no-contents-entry:\n\n   {text}\n"
        if found["opaque"]:
            return f".. c:type:: {found['opaque']}\n\n{indent(self.prose(found['opaque_about'] or about), '   ')}\n"
        if found["callback"]:
            return self.entry(f".. c:type:: {' '.join(found['callback'].split())}", about)
        if found["struct"]:
            members = [self.member(one) for one in MEMBER.finditer(found["members"])]
            return self.entry(f".. c:struct:: {found['struct']}", about) + "\n" + indent("\n".join(members), "   ")
        return self.entry(f".. c:function:: {' '.join(found['function'].split())}", about)

    def member(self, found: re.Match[str]) -> str:
        return self.entry(f".. c:member:: {found['decl'].strip()}\n   :no-contents-entry:", found["about"] or "")

    def entry(self, directive: str, about: str) -> str:
        return f"{directive}\n\n{indent(self.prose(about), '   ')}\n"

    def prose(self, text: str) -> str:
        """Paragraphs, lists that begin with ``-``, capitals for headings, four spaces for code: as in the header."""
        out = []
        for block in re.split(r"\n\n+", text):
            if re.fullmatch(r"[A-Z ]+", block):
                out.append(f".. rubric:: {block.capitalize()}")
            elif block.startswith("    "):
                out.append("::\n\n" + block)
            elif block.startswith(" - "):
                items = re.split(r"^ - ", block, flags=re.MULTILINE)[1:]
                out.append("\n".join("- " + indent(self.inline(dedent_item(item)), "  ").strip() for item in items))
            else:
                out.append(self.inline(block))
        return "\n\n".join(out)

    def inline(self, text: str) -> str:
        """Escape what reStructuredText would take for markup; link what the header declares."""
        return re.sub(r"`([^`]+)`|\b(?:chron|CHRON)_\w+(?:\.\.\.|\(\))?|\bE[A-Z]{2,}\b|[\\*|`_]", self.word, text)

    def word(self, found: re.Match[str]) -> str:
        word = found[0]
        if found[1]:
            return f"\\ ``{found[1]}``\\ "
        if len(word) == 1:
            return "\\" + word
        name = word.removesuffix("()")
        if f"CHRON_{name}" in self.roles:
            return f"\\ :c:macro:`{name} <CHRON_{name}>`\\ "  # escaped spaces: nothing, but an end of the word
        if name in self.roles:
            return f"\\ :{self.roles[name]}:`{name}`\\ "
        if re.fullmatch(r"E[A-Z]+", word):
            return word
        if not word.endswith(("_", "...")) and not word.startswith("CHRON_ENUM"):
            log.warning("chronicle.h mentions %s, and does not declare it", word)
        return word.replace("_", "\\_")


def heading(title: str) -> str:
    return f"{title}\n{'-' * len(title)}"


def dedent_item(item: str) -> str:
    return re.sub(r"^ {3}", "", item.strip(), flags=re.MULTILINE)


class ChronicleHeader(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.relfn2path(self.arguments[0])[1]).resolve()
        self.env.note_dependency(str(path))
        lines = Header(path.read_text(encoding="utf-8")).page().splitlines()
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("chronicle-header", ChronicleHeader)
    return {"parallel_read_safe": True}
