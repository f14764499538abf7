"""The compiled module against its stub _core.pyi, which is all that mypy knows of it.

``tools/check.sh`` compares the names, with mypy's stubtest, which does not check the arguments of pybind11's functions.
"""

import ast
import re
from operator import attrgetter
from pathlib import Path

import pytest

import srcell
from srcell import _core

STUB = ast.parse((Path(srcell.__file__).parent / "_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
SIGNATURES = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
for name, node in CLASSES.items():
    methods = [method for method in node.body if isinstance(method, ast.FunctionDef) and not method.decorator_list]
    methods = [method for method in methods if not method.args.vararg]  # a class that C++ alone makes
    SIGNATURES |= {f"{name}.{method.name}": method for method in methods}
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


def test_every_class_of_the_stub_has_a_constructor() -> None:
    assert {f"{name}.__init__" for name in CLASSES if name != "LinearCall"} <= SIGNATURES.keys()


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_and_methods_have_the_arguments_of_the_stub(name: str) -> None:
    stub, module = names_and_types(SIGNATURES[name]), bound(attrgetter(name)(_core).__doc__)
    assert [name for name, _ in stub] == [name for name, _ in module]
    for (argument, expected), (_, got) in zip(stub, module, strict=True):
        kind = expected.partition("[")[0].removesuffix(" | None")
        assert re.search(KINDS.get(kind, kind), got), (argument, expected, got)
