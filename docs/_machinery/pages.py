"""Writes into README.md and the pages what is made elsewhere, and draws their figures: ``make pages``.

- ``<!-- measured: NAME -->`` is followed by the table of that name in ``measured.py``, up to ``<!-- /measured -->``;
- ``<!-- file: PATH -->`` by a file of the repository, ``<!-- file: PATH:NAME -->`` by a function of it;
- ``<!-- readme: HEADING -->`` by a section of README.md;
- ``<!-- help: srcell COMMAND -->`` by the help that the command prints;
- ``<!-- summary: PAGE -->`` by a line about each name that a page of the reference documents.

``tests/test_docs.py`` compares pages and figures with what this writes.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import pydoc
import re
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import figures
import report
from measured import TABLES

from srcell.cli import main

ROOT = Path(__file__).resolve().parents[2]
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


def readme(heading: str) -> str:
    """A section of README.md, with links as pages of docs/ have them."""
    text = (ROOT / "README.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0].strip()
    for link, here in {"#speed": "speed.md", "#accuracy": "accuracy.md", "docs/": ""}.items():
        section = section.replace(f"]({link}", f"]({here}")
    return section


def command_help(command: str) -> str:
    """What ``srcell COMMAND --help`` prints on a terminal of 79 columns."""
    words = command.split()[1:]
    columns = mock.patch.dict("os.environ", COLUMNS="79")
    with columns, contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*words, "--help", *["all"] * (words == ["train"])])
    return f"```text\n{printed.getvalue().rstrip()}\n```"


def summary(page: str) -> str:
    """A table with the first sentence of each docstring of a page of the reference."""
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
    rows = []
    for name in re.findall(r"^\.\. auto(?:function|class|exception):: (.*)$", text, re.MULTILINE):
        sentence = re.split(r"(?<=\.)\s", inspect.getdoc(pydoc.locate(name)))[0].replace("\n", " ")
        plain = re.sub(r":\w+:(`[^`]+`)", r"\1", sentence).replace("``", "`")
        rows.append([f"[`{name.removeprefix('srcell.')}`](#{name})", plain])
    return report.lines(report.markdown_table(["name", "what it is"], rows))


MADE: dict[str, Callable[[str], str]] = {
    "measured": lambda name: TABLES[name](),
    "file": code,
    "readme": readme,
    "help": command_help,
    "summary": summary,
}
MARKED = re.compile(rf"^<!-- ({'|'.join(MADE)}): ([^\n]+) -->\n(.*?)^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)


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
