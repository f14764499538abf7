"""Checks a graph before a network is built from it: nodes, edges and fields may have changed since they were made.

``graphs`` calls it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from reprlib import repr as shortened
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import describe
from .._shared.extras import extra
from .node import OPTIONAL, REQUIRED, SRCNode, as_array

with extra("nir"):
    import nir
    from nir.ir.utils import calculate_conv_output

# What the constructors of nodes raise for fields that they do not expect.
WRONG = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Checked:
    """The nodes of a graph, made anew from their checked fields, its edges, and its metadata.

    Raises:
        TypeError: something of another type than NIR's.
        ValueError: a value that no node has, an edge to no node, or an edge given twice. Both name the node.

    """

    def __init__(self, graph: nir.NIRGraph) -> None:
        nodes: Any = getattr(graph, "nodes", None)
        edges: Any = getattr(graph, "edges", None)
        metadata: Any = getattr(graph, "metadata", None)
        for name, value in (("nodes", nodes), ("metadata", metadata)):
            if not isinstance(value, dict):
                raise TypeError(f"graph.{name}: expected a dict, got {describe(value)}")
        if not isinstance(edges, list | tuple | set):
            raise TypeError(f"graph.edges: expected a list, got {describe(edges)}")
        self.nodes = {name: _checked(name, node) for name, node in nodes.items()}
        self.metadata: dict[str, Any] = metadata
        self.edges: dict[tuple[str, str], None] = {}  # in their order
        self.after: dict[str, list[str]] = defaultdict(list)
        self.before: dict[str, list[str]] = defaultdict(list)
        for edge in edges:
            if not isinstance(edge, tuple | list) or [isinstance(x, str) for x in edge] != [True, True]:
                raise TypeError(f"graph.edges: expected pairs of names of nodes, got {shortened(edge)}")
            begin, to = edge
            if not self.nodes.keys() >= set(edge):
                raise ValueError(f"graph.edges: expected edges between nodes, got one from {begin!r} to {to!r}")
            if (begin, to) in self.edges:
                raise ValueError(f"{begin}: expected each edge once, got two to {to!r}")
            self.edges[begin, to] = None
            self.after[begin].append(to)
            self.before[to].append(begin)


def _checked(name: Any, node: Any) -> nir.NIRNode:
    """The node made anew; unchanged if it is of a kind of which no field is read."""
    if not isinstance(name, str) or not isinstance(node, nir.NIRNode):
        raise TypeError(f"graph.nodes: expected nodes by name, got {describe(node)} at {shortened(name)}")
    for kind, make in KINDS.items():
        if isinstance(node, kind):
            try:
                return make(node)
            except WRONG as error:
                raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}: {error}") from None
    return node


def _field(node: nir.NIRNode, name: str) -> Any:
    return getattr(node, name, None)  # None of one that was deleted


def as_numbers(name: str, value: Any, dimensions: int) -> NDArray[Any]:
    """Return an array; raise unless it has real numbers in so many dimensions."""
    array = as_array(name, value, "fiu", "an array of numbers")
    if array.ndim != dimensions:
        raise ValueError(f"{name}: expected an array of {dimensions} dimensions, got shape {array.shape}")
    return np.asarray(array)


def _numbers(node: nir.NIRNode, name: str, dimensions: int) -> NDArray[Any]:
    return as_numbers(name, _field(node, name), dimensions)


def _sizes(name: str, value: Any, shapes: Sequence[tuple[int, ...]], least: int = 1) -> tuple[int, ...]:
    """Return a shape or the sizes of a convolution; raise unless they are an array of one of the shapes."""
    try:
        sizes = np.asarray(value)
    except ValueError:  # lists of different lengths
        sizes = np.empty(0)
    if sizes.dtype.kind not in "iu" or sizes.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: expected whole numbers of shape {expected}, got {shortened(value)}")
    if not ((sizes >= least) & (sizes < 2**31)).all():
        raise ValueError(f"{name}: expected sizes from {least} to 2^31 - 1, got {sizes.tolist()}")
    return tuple(sizes.reshape(-1).tolist())


def _pair(node: nir.NIRNode, name: str, least: int) -> tuple[int, ...]:
    sizes = _sizes(name, _field(node, name), [(), (1,), (2,)], least)
    return sizes * (2 // len(sizes))


def _input(node: nir.Input) -> nir.Input:
    types = _field(node, "output_type")
    shape = types.get("output") if isinstance(types, dict) else types
    return nir.Input({"input": np.array(_sizes("output_type", shape, [(1,), (3,)]))})


def _conv2d(node: nir.Conv2d) -> nir.Conv2d:
    padding: Any = _field(node, "padding")
    if not isinstance(padding, str) or padding not in ("same", "valid"):
        padding = _pair(node, "padding", 0)
    (groups,) = _sizes("groups", _field(node, "groups"), [()])
    made = nir.Conv2d(
        _sizes("input_shape", _field(node, "input_shape"), [(2,)]),
        _numbers(node, "weight", 4),
        _pair(node, "stride", 1),
        padding,
        _pair(node, "dilation", 1),
        groups,
        _numbers(node, "bias", 1),
    )
    if min(made.weight.shape) == 0 or min(set_types(made)) < 1:
        raise ValueError(f"weight: expected a kernel that fits into {made.input_shape}, got {made.weight.shape}")
    return made


def set_types(node: nir.Conv2d) -> tuple[int, ...]:
    """Correct the types of a convolution, which NIR derives wrongly with groups or kernels that are not square."""
    kernel, (height, width) = node.weight.shape[2:], (int(size) for size in node.input_shape)
    out = calculate_conv_output((height, width), node.padding, node.dilation, kernel, node.stride)
    shape = (len(node.weight), *(int(size) for size in out))
    node.input_type = {"input": np.array([node.weight.shape[1] * int(node.groups), height, width])}
    node.output_type = {"output": np.array(shape)}
    return shape


KINDS: dict[type[nir.NIRNode], Callable[[Any], nir.NIRNode]] = {
    nir.Input: _input,
    nir.Linear: lambda node: nir.Linear(_numbers(node, "weight", 2)),
    nir.Affine: lambda node: nir.Affine(_numbers(node, "weight", 2), _numbers(node, "bias", 1)),
    nir.Conv2d: _conv2d,
    nir.Delay: lambda node: nir.Delay(_numbers(node, "delay", 1)),
    SRCNode: lambda node: SRCNode(**{name: _field(node, name) for name in (*REQUIRED, *OPTIONAL, "dt")}),
}
