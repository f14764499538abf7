"""Writes into README.md and the pages what is made elsewhere, and draws their figures: ``make pages``.

- ``<!-- measured: NAME -->`` is followed by the table of that name in ``measured.py``, up to ``<!-- /measured -->``;
- ``<!-- file: PATH -->`` by a file of the repository, ``<!-- file: PATH:NAME -->`` by a function of it, up to
  ``<!-- /file -->``.

``tests/test_docs.py`` compares pages and figures with what this writes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import figures
from measured import TABLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIGURES = ROOT / "docs" / "_static" / "figures"

LANGUAGES = {".c": "c", ".h": "c", ".mjs": "javascript", ".py": "python", ".txt": "cmake"}


def code(place: str) -> str:
    """A fenced block of the file PATH, or PATH:NAME of its function of that name."""
    path, _, name = place.partition(":")
    text = (ROOT / path).read_text()
    if name:
        (start, end) = next(
            (node.lineno, node.end_lineno)
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef) and node.name == name
        )
        text = "\n".join(text.splitlines()[start - 1 : end])
    return f"```{LANGUAGES[Path(path).suffix]}\n{text.strip()}\n```"


MADE: dict[str, Callable[[str], str]] = {"measured": lambda name: TABLES[name](), "file": code}
MARKED = re.compile(r"^<!-- (measured|file): (\S+) -->\n(.*?)^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)


def current(text: str) -> str:
    """The text of a page with what belongs between its markers now."""

    def marked(found: re.Match[str]) -> str:
        kind, name, _ = found.groups()
        return f"<!-- {kind}: {name} -->\n\n{MADE[kind](name)}\n\n<!-- /{kind} -->"

    return MARKED.sub(marked, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(current(page.read_text()))
    figures.write_figures(FIGURES)
