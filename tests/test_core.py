"""The compiled module against its stub _core.pyi, which is all that mypy knows of it.

``tools/check.sh`` compares the names, with mypy's stubtest, which does not check the arguments of pybind11's functions.
"""

import ast
import re
from pathlib import Path

import pytest

import srcell
from srcell import _core

STUB = ast.parse((Path(srcell.__file__).parent / "_core.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
KINDS = {"int": "int|SupportsInt", "float": "float|SupportsFloat", "Sequence": "Sequence|[Ll]ist", "NDArray": "numpy"}


def names_and_types(node: ast.FunctionDef) -> list[tuple[str, str]]:
    """Argument names and types of a function of the stub."""
    return [(x.arg, ast.unparse(x.annotation)) for x in node.args.args if x.arg != "self" and x.annotation]


def bound(doc: str | None) -> list[tuple[str, str]]:
    """Argument names and types of the (first) signature that pybind11 writes into a docstring."""
    assert doc
    signature = re.search(r"\((?:self: [\w.]+(?:, )?)?(.*)\) ->", doc)
    assert signature
    return re.findall(r"(\w+): (.*?)(?=, \w+: |$)", signature[1])


def assert_same(stub: list[tuple[str, str]], module: list[tuple[str, str]]) -> None:
    assert [name for name, _ in stub] == [name for name, _ in module]
    for (name, expected), (_, got) in zip(stub, module, strict=True):
        kind = expected.partition("[")[0].removesuffix(" | None")
        assert re.search(KINDS.get(kind, kind), got), (name, expected, got)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_their_stub_says(name: str) -> None:
    assert_same(names_and_types(FUNCTIONS[name]), bound(getattr(_core, name).__doc__))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_take_what_their_stub_says(name: str) -> None:
    methods = [node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    assert "__init__" in [method.name for method in methods]
    for method in methods:
        assert_same(names_and_types(method), bound(getattr(getattr(_core, name), method.name).__doc__))
