"""Count the lines of code of Python files: those that are neither blank, nor comment, nor docstring.

    python tools/count_lines.py [FOLDER ...]

Prints the count of each folder and the sum; without arguments, of python/srcell and its folders.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstrings(tree: ast.AST) -> set[int]:
    """The lines of all docstrings, and of the strings after attributes that describe these."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def lines_of_code(text: str) -> int:
    """The number of lines that hold a token besides comments and docstrings."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            found.update(range(token.start[0], token.end[0] + 1))
    return len(found - docstrings(ast.parse(text)))


def main(folders: list[str]) -> None:
    """Print the counts."""
    counts: Counter[str] = Counter()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            counts[str(path.parent)] += lines_of_code(path.read_text())
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    print(f"{sum(counts.values()):6} in all")


if __name__ == "__main__":
    main(sys.argv[1:] or [str(Path(__file__).resolve().parent.parent / "python" / "srcell")])
