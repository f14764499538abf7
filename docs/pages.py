"""Writes into README.md and the pages what is made elsewhere: ``make pages``.

``<!-- measured: NAME -->`` is followed by the table of that name in ``measured.py``, up to ``<!-- /measured -->``.

``tests/test_docs.py`` compares the pages with what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

from measured import TABLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

MADE = {"measured": lambda name: TABLES[name]()}
MARKED = re.compile(r"^<!-- (measured): (\S+) -->\n(.*?)^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)


def current(text: str) -> str:
    """The text of a page with what belongs between its markers now."""

    def marked(found: re.Match[str]) -> str:
        kind, name, _ = found.groups()
        return f"<!-- {kind}: {name} -->\n\n{MADE[kind](name)}\n\n<!-- /{kind} -->"

    return MARKED.sub(marked, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(current(page.read_text()))
