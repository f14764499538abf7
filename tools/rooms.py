"""Which modules of the package import which: read from the source, for a test and for the figure in the docs.

A room is a file or folder directly in the package. Imports inside functions count, and those for types only if asked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def imports_of(package: Path, *, types: bool = False) -> dict[str, set[str]]:
    """For each module, named relative to the package (``ops._layer``), the modules of the package that it imports."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package).with_suffix("").parts)
        found[".".join(parts)] = set(_imports(ast.parse(path.read_text()), parts, package.name, types))
    return found


def room_of(module: str) -> str:
    """The room of a module: the first part of its name."""
    return module.partition(".")[0]


def rooms_of(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """For each room the other rooms that it imports."""
    rooms: dict[str, set[str]] = {room_of(module): set() for module in imports}
    for module, names in imports.items():
        rooms[room_of(module)] |= {room_of(name) for name in names} & rooms.keys() - {room_of(module)}
    return rooms


def _imports(tree: ast.AST, parts: list[str], package: str, types: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join([*base, name]) for name in names)
        elif isinstance(node, ast.ImportFrom) and room_of(node.module or "") == package:
            inner = (node.module or "").split(".")[1:]
            yield from [".".join(inner)] if inner else (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (x.name.removeprefix(f"{package}.") for x in node.names if x.name.startswith(f"{package}."))
        else:
            yield from _imports(node, parts, package, types)
