"""Converts networks to NIR graphs and back.

``to_graph`` walks the parts that ``srcell.export`` finds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import layers as modules
from .._shared.arguments import as_float, as_positive, describe
from .._shared.extras import extra
from .._shared.parameters import PARAMETERS
from ..functional.terms import MOST_DELAY
from ..layers.export import Part, checked_parts, inputs_of
from ..layers.exported import EACH, exported, further_settings, settings_of
from ..layers.options import DEFAULTS
from .checks import WRONG, Checked, as_numbers, set_types
from .files import read_contents
from .node import OPTIONAL, REQUIRED, STATE, SRCNode

with extra("nir"):
    import nir

WEIGHTS = (nir.Linear, nir.Affine, nir.Conv2d)
TAKE_VECTORS = (nn.Flatten, modules.SRC, modules.Delay, nn.Linear, modules.LinearReadout)
DTYPES = (torch.float32, torch.float64)
# The fields of nodes that are sizes or axes of their input, and how many each may have.
SIZES = {"input_shape", "input_type", "shape", "kernel_size", "stride", "padding", "dilation", "start_dim", "end_dim"}
MOST_SIZES = 32
FLAGS = ("every_step", "batch_first")  # of readouts, as 0 or 1
OF_DELAYS = ("max_delay", "learnable")
# The settings of a readout in a graph's metadata, by its kind.
SETTINGS = {"linear": ("alpha", "window", "bias"), "votes": ("num_classes", "alpha", "inhibition", "temperature")}


def to_graph(network: nn.Module, *, dt: float, input_shape: Sequence[int] | None = None) -> nir.NIRGraph:
    """Convert a network to a NIR graph, in which each layer of neurons is a node :class:`srcell.nir.SRCNode`.

    Weights are ``Linear``, ``Affine`` or ``Conv2d`` nodes before it. Recurrent weights are a ``Linear`` node from a
    node back to itself, through a ``Delay`` if they have delays; this edge carries the spikes of step t-1.
    Several taps of an input are parallel ``Delay`` and ``Linear`` nodes, whose sum the next node receives. Delays are
    in NIR's unit of time: steps times ``dt``. NIR has no leaky sum in steps, so a readout's settings are in the
    graph's ``metadata["readout"]``, and its weight is the last ``Linear`` node. How layers are trained and called, such
    as their surrogate, is in ``metadata["layers"]``, as JSON, for :func:`from_graph`. Dropout is left out.

    Args:
        network: what :func:`srcell.export` exports, of float neurons, in float32 or float64.
        dt: duration of a step, above 0; NIR counts in seconds.
        input_shape: (C, H, W) of the input, if a convolution comes first; a classifier knows it.

    Returns:
        A graph of NumPy arrays. ``nir.write`` writes it to a file.

    Raises:
        TypeError: as :func:`srcell.export`, and for layers of integer neurons.
        ValueError: as :func:`srcell.export`; a ``dt`` that is not above 0; weights in half precision; delays
            with an interpolation wider than a step; a reshape of vectors to maps in the middle of the network.

    Example:
        >>> import srcell
        >>> from torch import nn
        >>> from srcell.nir import to_graph
        >>> network = nn.Sequential(srcell.SpikesOnly(srcell.SRC(10, 20, recurrent=True)), nn.Linear(20, 3))
        >>> graph = to_graph(network, dt=0.001)
        >>> sorted(graph.nodes)
        ['affine_0', 'input', 'linear_0', 'output', 'recurrent_0', 'src_0']

    """
    dt = as_positive("dt", dt)
    parts, _ = checked_parts(network, input_shape)
    return _Writer(dt).graph(parts)


class _Writer:
    """The nodes and edges of a graph, and the nodes from which the next one receives its input."""

    def __init__(self, dt: float) -> None:
        self.dt = dt
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.ends: list[str] = []
        self.shape: tuple[int, ...] = ()
        self.delay: NDArray[Any] | None = None  # (K, M), in steps
        self.of_delay: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.settings: dict[str, dict[str, Any]] = {}  # of nodes of neurons, and of the first weights after a Delay

    def graph(self, parts: Sequence[Part]) -> nir.NIRGraph:
        metadata: dict[str, Any] = {}
        for part in parts:
            module = part.module
            if (weight := next(module.parameters(), None)) is not None and weight.dtype not in DTYPES:
                raise ValueError(f"{part}: expected weights of float32 or float64, got {weight.dtype}")
            if isinstance(module, nn.Flatten) and not self.nodes:
                continue
            is_reshape = isinstance(module, nn.Unflatten)
            if not self.nodes:
                self.shape = tuple(module.unflattened_size) if is_reshape else (inputs_of(module),)
                self.add("input", nir.Input({"input": np.array(self.shape)}))
            if isinstance(module, TAKE_VECTORS) and len(self.shape) == 3:
                self.add("flatten", nir.Flatten({"input": np.array(self.shape)}, 0, -1))
                self.shape = (prod(self.shape),)
            if is_reshape and tuple(module.unflattened_size) != self.shape:
                raise ValueError(f"{part}: expected no reshape of vectors to maps, which NIR lacks, got one")
            if isinstance(module, modules.SRCConv2d):
                self.convolution(module)
            elif isinstance(module, modules.SRC):
                for number, layer in enumerate(exported(module)):
                    self.weight(layer["weight"])
                    self.neurons(layer, settings_of(module, modules.SRC))
                    if module.recurrent:
                        delay = getattr(module, f"delay_hh_l{number}") if module.delayed else None
                        self.recurrence(layer["lateral"], None if delay is None else _steps(part, module, delay))
            elif isinstance(module, modules.Delay):
                self.delay = _steps(part, module, module.delay)
                self.of_delay = {name: getattr(module, name) for name in OF_DELAYS}
            elif isinstance(module, nn.Linear):
                self.weight(module.weight, module.bias)
            elif isinstance(module, modules.LinearReadout):
                if module.skip is not None:
                    raise ValueError(f"{part}: expected no skip connection, which a graph cannot hold, got one")
                self.weight(module.linear.weight, name="readout")
                settings = {"kind": "linear", "alpha": module.alpha, "window": module.window}
                metadata["readout"] = settings | {"bias": _array(module.linear.bias)} | _flags(module)
            elif isinstance(module, modules.LeakyReadout):
                settings = {name: getattr(module, name) for name in SETTINGS["votes"]}
                metadata["readout"] = {"kind": "votes", **settings} | _flags(module)
            elif not isinstance(module, nn.Flatten | nn.Unflatten):
                raise TypeError(f"{part}: expected layers of float neurons, got {type(module).__name__}")
        if len(self.nodes) < 2:
            raise ValueError("network: expected at least one layer, got none")
        self.add("output", nir.Output({"output": np.array(self.shape)}))
        if self.settings:
            metadata["layers"] = json.dumps(self.settings)
        return nir.NIRGraph(self.nodes, self.edges, metadata)

    def add(self, kind: str, node: nir.NIRNode) -> str:
        """Add a node behind the graph's ends, and make it the end."""
        name = kind if kind in ("input", "readout", "output") else f"{kind}_{self.counts[kind]}"
        self.counts[kind] += 1
        self.nodes[name] = node
        self.edges += [(end, name) for end in self.ends]
        self.ends = [name]
        return name

    def weight(self, weight: Tensor, bias: Tensor | None = None, name: str = "") -> None:
        """Add weights after the pending delays."""
        delay, self.delay, before = self.delay, None, self.ends
        taps = 1 if delay is None else delay.shape[1]
        made = []
        for tap in range(taps):
            columns = _array(weight)[:, tap::taps]
            node = nir.Linear(columns) if bias is None or tap else nir.Affine(columns, _array(bias))
            self.ends = before
            if delay is not None:
                self.add("delay", nir.Delay(delay[:, tap] * self.dt))
            made.append(self.add(name or type(node).__name__.lower(), node))
            if delay is not None and not tap:
                self.settings[made[0]] = self.of_delay
        self.ends, self.shape = made, (len(weight),)

    def convolution(self, module: modules.SRCConv2d) -> None:
        (layer,) = exported(module)
        weight, sizes = _array(layer["weight"]), (module.stride, module.padding, module.dilation, module.groups)
        node = nir.Conv2d(tuple(self.shape[1:]), weight, *sizes, np.zeros(len(weight), weight.dtype))
        self.shape = set_types(node)
        self.add("conv2d", node)
        self.neurons(layer, settings_of(module, modules.SRCConv2d))

    def neurons(self, layer: dict[str, Tensor], settings: dict[str, Any]) -> None:
        found = {name: layer[name] for name in ("bias", *PARAMETERS) if name in layer}
        if "initial" in layer:
            found |= dict(zip(STATE, layer["initial"], strict=True))
        each = (-1, *[1] * (len(self.shape) - 1))  # of a neuron, or of a channel of maps
        arrays = {name: np.broadcast_to(_array(x).reshape(each), self.shape).copy() for name, x in found.items()}
        name = self.add("src", SRCNode(**arrays, dt=self.dt))
        self.settings |= {name: settings} if settings else {}

    def recurrence(self, weight: Tensor, delay: NDArray[Any] | None) -> None:
        (neurons,) = self.ends
        if delay is not None:
            self.add("recurrent_delay", nir.Delay(np.broadcast_to(delay.reshape(-1), len(weight)) * self.dt))
        self.edges.append((self.add("recurrent", nir.Linear(_array(weight))), neurons))
        self.ends = [neurons]


def _flags(readout: Any) -> dict[str, int]:
    return {name: int(getattr(readout, name)) for name in FLAGS}


def _array(x: Tensor) -> NDArray[Any]:
    return np.asarray(x.detach().cpu())


def _steps(part: Part, module: Any, delay: Tensor) -> NDArray[np.float64]:
    """The delays of a module in steps, as they act."""
    width = module.delay_width
    if width != 1:
        raise ValueError(f"{part}: expected delays with a width of 1, because NIR has no interpolation, got {width}")
    return _array(delay.clamp(0, module.max_delay)).astype(float)


def read_graph(path: str | Path) -> nir.NIRGraph:
    """Read a file that ``nir.write`` wrote, as ``nir.read`` does, with nodes :class:`srcell.nir.SRCNode`.

    The file may come from anyone. Time and memory are in proportion to its size (gzip expands data 1032-fold at most),
    and no other file is read: links, data in other files, and sizes without data are refused. The library of HDF5
    finds the data in the file; where that library has a bug, damaged files can still make it crash or never return.

    Args:
        path: the file, compressed with gzip, as ``nir.write`` does by default, or not at all.

    Raises:
        OSError: the file cannot be opened, or is not HDF5.
        ValueError: the file is damaged, is not a NIR graph, has a node that is unknown here, or has something that
            ``nir.write`` does not write.

    """
    return _graph_of(read_contents(path), str(path))


def _graph_of(found: Any, place: str) -> nir.NIRGraph:
    kind, fields = _kind(found), found if isinstance(found, dict) else {}
    nodes, metadata, edges = fields.get("nodes"), fields.get("metadata"), np.asarray(fields.get("edges"))
    if kind != "NIRGraph" or not isinstance(nodes, dict):
        raise ValueError(f"{place}: expected a NIR graph of nodes and edges, got {kind!r}")
    if edges.size and (edges.shape[1:] != (2,) or edges.dtype.kind not in "OS"):
        raise ValueError(f"{place}: expected a NIR graph with edges between pairs of nodes, got other edges")
    made = {name: _node_of(fields, f"{place}: {name}") for name, fields in nodes.items()}
    try:
        names = [(begin.decode(), to.decode()) for begin, to in edges.reshape(-1, 2).tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: expected a NIR graph with names in UTF-8, got {error}") from None
    return nir.NIRGraph(made, names, metadata if isinstance(metadata, dict) else {}, type_check=False)


def _node_of(fields: Any, place: str) -> nir.NIRNode:
    kind = _kind(fields)
    if kind == "NIRGraph":
        return _graph_of(fields, place)
    try:
        _check_shapes(fields)
        with np.errstate(all="raise"):
            node = SRCNode.from_dict(fields) if kind == "SRC" else nir.dict2NIRNode(fields)
            if kind == "Conv2d":
                set_types(node)
    except WRONG as error:
        raise ValueError(f"{place}: expected a node of NIR, got {kind!r}: {error}") from None
    return node


def _check_shapes(fields: dict[str, Any]) -> None:
    """Raise if a constructor of NIR would take time and memory out of proportion to the fields.

    NIR makes lists of the sizes in SIZES, and broadcasts the other arrays, except weight and bias, with each other.
    """
    shapes = {name: np.shape(value) for name, value in fields.items() if name not in ("weight", "bias", "metadata")}
    for name in shapes.keys() & SIZES:
        if sum(shapes[name]) > MOST_SIZES:
            raise ValueError(f"{name}: expected at most {MOST_SIZES} sizes, got an array of shape {shapes[name]}")
    if len(found := {shape for name, shape in shapes.items() if name not in SIZES and prod(shape) > 1}) > 1:
        raise ValueError(f"expected arrays of one shape, got {' and '.join(map(str, sorted(found)))}")


def _kind(found: Any) -> str:
    """The type of a node, from what a file has in its place."""
    kind = found.get("type") if isinstance(found, dict) else found
    return kind if isinstance(kind, str) and kind is not found else type(kind).__name__


def from_graph(graph: nir.NIRGraph) -> modules.Sequential:
    """Convert a NIR graph to a network.

    The graph must be a chain from one input to one output of weights (``Linear``, ``Affine``, ``Conv2d``), ``Flatten``
    and :class:`srcell.nir.SRCNode`, with ``Delay`` before weights, and recurrent weights as :func:`to_graph` writes
    them, all in float32 or all in float64. A network that it wrote comes back with the same bits of every spike; in
    float64 only if its delays are whole.

    Args:
        graph: the graph, from :func:`to_graph` or :func:`read_graph`.

    Returns:
        A ``srcell.Sequential`` of ``SpikesOnly`` layers and delays, ``nn.Linear``, ``nn.Flatten(2)`` and a readout, on
        the CPU. It takes (T, B, K); if the graph's input is a map, its first module unflattens K to (C, H, W).
        :func:`srcell.export` exports it, unless its last weights have delays.

    Raises:
        TypeError: not a graph, or a field of another type than NIR's; the message names the node and the field.
        ValueError: a node or a connection that srcell's layers do not have, or a field with a value that no node has;
            the message names the node.

    Example:
        >>> import srcell, torch
        >>> from torch import nn
        >>> from srcell.nir import from_graph, to_graph
        >>> network = nn.Sequential(srcell.SpikesOnly(srcell.SRC(10, 20, recurrent=True)), srcell.LinearReadout(20, 3))
        >>> again, spikes = from_graph(to_graph(network, dt=0.001)), torch.rand(30, 4, 10).lt(0.2).float()
        >>> bool((again[0](spikes) == network[0](spikes)).all())
        True

    """
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph: expected nir.NIRGraph, got {describe(graph)}")
    made = modules.Sequential(*_Reader(Checked(graph)).modules())
    kinds = (modules.SRC, modules.LinearReadout, modules.LeakyReadout)
    if len({module.batch_first for module in made.modules() if isinstance(module, kinds)}) > 1:
        raise ValueError("metadata: expected batch_first of all layers and the readout, or of none, got both")
    return made


class _Branch(NamedTuple):
    """Weights, and the delay before them in NIR's unit of time, between two nodes."""

    delay: NDArray[Any] | None
    name: str
    node: nir.NIRNode


class _Reader:
    """Follows a graph from its input to its output."""

    def __init__(self, graph: Checked) -> None:
        self.graph = graph
        inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
        outputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(f"graph: expected one input and one output, got {len(inputs)} and {len(outputs)}")
        durations = {float(node.dt) for node in graph.nodes.values() if isinstance(node, SRCNode)}
        if len(durations) != 1:
            raise ValueError(f"graph: expected SRC nodes of one dt, got {sorted(durations)}")
        of_numbers = [node for node in graph.nodes.values() if isinstance(node, (*WEIGHTS, SRCNode))]
        arrays = [getattr(node, name, None) for node in of_numbers for name in ("weight", *REQUIRED, *OPTIONAL)]
        dtypes = {array.dtype for array in arrays if array is not None}
        if len(dtypes) != 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
            raise ValueError(f"graph: expected weights and SRC nodes of float32, or of float64, got {sorted(dtypes)}")
        (self.input,), (self.output,), (self.dt,), (self.dtype,) = inputs, outputs, durations, dtypes
        self.seen, self.used = {self.input}, set[tuple[str, str]]()
        self.shape = tuple(graph.nodes[self.input].output_type["output"].tolist())
        self.settings = _settings_of_layers(graph.metadata.get("layers", "{}"))

    def modules(self) -> Iterator[nn.Module]:
        at, readout = self.input, self.graph.metadata.get("readout")
        if len(self.shape) == 3:
            yield nn.Unflatten(2, self.shape)
        while True:
            after = self.after(at)
            if after == [self.output]:
                self.visit(self.output)
                if readout is not None:
                    yield self.votes(_settings(readout, "votes"))
                break
            if len(after) == 1 and isinstance(self.graph.nodes[after[0]], nir.Flatten):
                yield nn.Flatten(2)
                at, self.shape = self.visit(after[0]), (prod(self.shape),)
                continue
            branches = [self.branch(name) for name in after]
            targets = [self.after(branch.name) for branch in branches]
            if not targets or len(targets[0]) != 1 or targets.count(targets[0]) != len(targets):
                raise ValueError(f"{at}: expected all weights after it to lead to one node, got {targets}")
            target = targets[0][0]
            of_delay, weight = self.with_taps(at, branches)
            yield from of_delay
            node, bias = branches[0].node, _bias(branches[0].node)
            before_neurons = isinstance(self.graph.nodes[target], SRCNode)
            if isinstance(node, nir.Conv2d) and (bias.any() or not before_neurons):
                got = "a bias" if before_neurons else f"{target} after it"
                raise ValueError(f"{branches[0].name}: expected a Conv2d node without bias before SRC, got {got}")
            if before_neurons:
                if bias.any():
                    yield _linear(weight, bias)
                    weight = torch.eye(len(weight), dtype=weight.dtype)
                yield self.neurons(self.visit(target), node, weight)
                at = target
            elif target == self.output and readout is not None:
                if bias.any():
                    raise ValueError(f"{branches[0].name}: expected a Linear node before a readout, got a bias")
                self.visit(target)
                yield self.linear(_settings(readout, "linear"), weight)
                break
            else:
                yield _linear(weight, bias if isinstance(node, nir.Affine) else None)
                at, self.shape = branches[0].name, (len(weight),)
        expected = f"expected a chain from {self.input} to {self.output}"
        if left := sorted(set(self.graph.nodes) - self.seen):
            raise ValueError(f"{left[0]}: {expected}, got a node beside it")
        if self.settings:
            raise ValueError(f"metadata: layers: expected names of nodes, got {min(self.settings)!r:.60}")
        for begin, to in self.graph.edges:
            if (begin, to) not in self.used:
                raise ValueError(f"{begin}: {expected}, got an edge to {to} beside it")

    def visit(self, name: str) -> str:
        if name in self.seen:
            raise ValueError(f"{name}: expected a chain, got a second path to it")
        self.seen.add(name)
        return name

    def after(self, name: str) -> list[str]:
        """The nodes that receive a node's output, in the order of their edges, without its recurrent weights."""
        found = self.graph.after[name]
        if isinstance(self.graph.nodes[name], SRCNode):
            found = [to for to in found if to not in self.seen]
        self.used |= {(name, to) for to in found}
        return found

    def branch(self, name: str) -> _Branch:
        node, delay = self.graph.nodes[self.visit(name)], None
        if isinstance(node, nir.Delay):
            delay, following = node.delay, self.after(name)
            if len(following) != 1:
                raise ValueError(f"{name}: expected one node after it, got {following}")
            name = self.visit(following[0])
            node = self.graph.nodes[name]
        if not isinstance(node, WEIGHTS):
            raise ValueError(
                f"{name}: expected a Linear, Affine, Conv2d, Flatten or Delay node before an SRC node, got "
                f"{type(node).__name__}"
            )
        return _Branch(delay, name, node)

    def with_taps(self, at: str, branches: list[_Branch]) -> tuple[list[nn.Module], Tensor]:
        """Parallel branches as one delay of several taps, if there is any delay, and the weight behind it."""
        weights = [self.weight(branch) for branch in branches]
        if len(branches) == 1 and branches[0].delay is None:
            return [], torch.from_numpy(weights[0].copy())
        if any(isinstance(branch.node, nir.Conv2d) for branch in branches):
            raise ValueError(f"{at}: expected Linear nodes after several edges or a Delay, got a Conv2d node")
        if len({weight.shape for weight in weights}) != 1 or any(_bias(branch.node).any() for branch in branches[1:]):
            raise ValueError(f"{at}: expected parallel weights of one shape, and a bias in the first alone")
        sources = weights[0].shape[1]
        steps = [np.zeros(sources) if x.delay is None else self.steps(x.name, x.delay, sources) for x in branches]
        most = int(np.ceil(max(step.max(initial=0) for step in steps)))
        options = {"max_delay": most, "learnable": False} | self.further(branches[0].name, OF_DELAYS)
        _check_bound(branches[0].name, "max_delay", options["max_delay"], most)
        with _named(branches[0].name), torch.no_grad():
            delay = modules.Delay(sources, taps=len(branches), **options)
            delay.delay.copy_(torch.from_numpy(np.stack(steps, 1)))
        weight = np.stack(weights, 2).reshape(len(weights[0]), -1)
        return [modules.SpikesOnly(delay)], torch.from_numpy(weight)

    def weight(self, branch: _Branch) -> NDArray[Any]:
        weight: NDArray[Any] = branch.node.weight
        taken = tuple(branch.node.input_type["input"].tolist())
        if not weight.size or taken != self.shape:
            raise ValueError(
                f"{branch.name}: expected weights for an input {self.shape}, got {weight.shape} for {taken}"
            )
        if (bias := _bias(branch.node)).shape not in ((1,), (len(weight),)):
            raise ValueError(f"{branch.name}: expected a bias ({len(weight)},), got {bias.shape}")
        return weight

    def steps(self, name: str, delay: NDArray[Any], sources: int) -> NDArray[Any]:
        """Delays in steps: what is near a whole number is whole, for a product with dt and a quotient are rounded."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.asarray(delay, float) / self.dt
            near = abs(found - np.rint(found)) <= 1e-12 * abs(found)
            found = np.where(near, np.rint(found), found).astype(self.dtype)
        if found.shape != (sources,) or not (found >= 0).all() or not (found <= MOST_DELAY).all():
            raise ValueError(
                f"{name}: expected {sources} delays from 0 to {MOST_DELAY} steps before it, got {found.shape} up to "
                f"{found.max(initial=0):g} steps"
            )
        return found

    def further(self, name: str, known: Iterable[str]) -> dict[str, Any]:
        """The settings of the layer or delay of a node."""
        found = self.settings.pop(name, {})
        if unknown := sorted(found.keys() - set(known)):
            raise ValueError(f"metadata: layers: {name}: expected {', '.join(sorted(known))}, got {unknown[0]!r:.60}")
        return found

    def neurons(self, name: str, below: nir.NIRNode, weight: Tensor) -> nn.Module:
        """The layer of an SRC node behind a weight."""
        node, recurrent = self.graph.nodes[name], self.recurrence(name)
        is_map = isinstance(below, nir.Conv2d)
        shape = tuple(below.output_type["output"].tolist()) if is_map else (len(weight),)
        if node.alpha.shape != shape:
            raise ValueError(f"{name}: expected neurons of shape {shape}, as its weights give, got {node.alpha.shape}")
        self.shape = shape
        values = _values_of(name, node)
        kind: Any = modules.SRCConv2d if is_map else modules.SRC
        settings = self.further(name, further_settings(kind).keys() | {EACH})
        each = settings.pop(EACH, ())
        if not isinstance(each, tuple) or not set(each) <= {*PARAMETERS, "delay_hh"}:
            raise ValueError(f"metadata: layers: {name}: expected names of parameters in {EACH}, got {each!r:.60}")
        if "bias_max" in settings and settings.get("learn_bias", True):
            _check_bound(name, "bias_max", settings["bias_max"], float(values["bias"].max()))
        # Layers take one number for a parameter that all neurons share.
        options: dict[str, Any] = {
            field: x if field in each or bool((x != x[0]).any()) else float(str(x[0].numpy()))  # 0.9 of float32's
            for field, x in values.items()
            if field in PARAMETERS
        }
        suffix, tensors, sizes = "_l0", {"weight_ih_l0": weight}, (weight.shape[1], len(weight))
        if is_map:
            suffix, tensors = "", {"weight": weight}
            sizes = (weight.shape[1] * below.groups, len(weight))
            options |= {field: getattr(below, field) for field in ("stride", "padding", "dilation", "groups")}
            options["kernel_size"] = tuple(weight.shape[2:])
        tensors[f"bias{suffix}"] = values["bias"]
        options["bias_max"] = max([DEFAULTS["bias_max"], *values["bias"].tolist()])
        if recurrent is not None:
            options["recurrent"], tensors["weight_hh_l0"] = True, torch.from_numpy(np.array(recurrent.node.weight))
            if recurrent.delay is not None:
                steps = self.steps(recurrent.name, recurrent.delay, len(weight))
                # Layers with delays say what their largest may be.
                shared = "max_delay" in settings and "delay_hh" not in each and bool((steps == steps[0]).all())
                options |= {"delay_hh": float(steps[0]) if shared else torch.from_numpy(steps)}
                options |= {"max_delay": int(np.ceil(steps.max()))}
        state = torch.stack([values[field] for field in STATE]) if STATE[0] in values else None
        starts: list[dict[str, Any]] = [{}]
        if state is not None:  # as the settings say, at rest, or somewhere else
            starts += [{"initial_state": "rest"}, {"learn_initial_state": True, "full_gradient": recurrent is None}]
        for start in starts:
            with _named(name):
                layer = kind(*sizes, dtype=weight.dtype, **(options | settings | start))
            if layer.learn_initial_state and state is not None:
                tensors |= {f"{field.replace('_', '')}{suffix}": values[field] for field in STATE}
            with torch.no_grad():
                for parameter, value in tensors.items():
                    getattr(layer, parameter).copy_(value)
            start_of = exported(layer)[0].get("initial")
            if state is not None and start_of is not None and torch.equal(start_of, state):
                break
        return modules.SpikesOnly(layer)

    def recurrence(self, name: str) -> _Branch | None:
        """The weights that lead from a node back to it."""
        back = [begin for begin in self.graph.before[name] if begin not in self.seen]
        if not back:
            return None
        self.used |= {(name, back[0]), (back[0], name)}
        if len(back) != 1 or not isinstance(node := self.graph.nodes[self.visit(back[0])], nir.Linear):
            raise ValueError(f"{name}: expected one Linear node back to it, got {back}")
        before, delay = self.graph.before[back[0]], None
        if len(before) == 1 and isinstance(of_delay := self.graph.nodes[before[0]], nir.Delay):
            self.used |= {(name, before[0]), (before[0], back[0])}
            delay, before = of_delay.delay, self.graph.before[self.visit(before[0])]
        if before != [name] or node.weight.shape != self.graph.nodes[name].alpha.shape * 2:
            raise ValueError(f"{back[0]}: expected square weights from {name} alone, got others, or from {before}")
        return _Branch(delay, back[0], node)

    def linear(self, settings: dict[str, Any], weight: Tensor) -> nn.Module:
        classes, neurons = weight.shape
        bias = as_numbers("metadata: bias", settings.pop("bias"), 1)
        if bias.shape != (classes,):
            raise ValueError(f"metadata: expected a bias ({classes},) of the readout, got {bias.shape}")
        made = _readout(modules.LinearReadout, neurons, classes, **settings)
        made.linear = _linear(weight, bias.astype(self.dtype))
        return made

    def votes(self, settings: dict[str, Any]) -> nn.Module:
        classes, neurons = settings.pop("num_classes"), prod(self.shape)
        if classes < 1 or neurons % classes:
            raise ValueError(f"metadata: expected a number of classes that divides {neurons} neurons, got {classes}")
        return _readout(modules.LeakyReadout, classes, neurons // classes, **settings)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name a node in what a constructor raises for its settings."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _check_bound(name: str, setting: str, bound: Any, largest: float) -> None:
    """Raise if a setting is a number below the largest value that it bounds."""
    if isinstance(bound, int | float) and bound < largest:
        raise ValueError(f"metadata: layers: {name}: expected {setting} of at least {largest:g}, got {bound}")


def _settings_of_layers(text: Any) -> dict[str, dict[str, Any]]:
    """The settings of nodes in a graph's metadata; lists are those of names, or sizes."""
    try:
        found = json.loads(text)
        made = {
            name: {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
            for name, settings in found.items()
        }
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"metadata: layers: expected settings of nodes in JSON, got {text!r:.60}") from error
    return made


def _readout(kind: type[nn.Module], *arguments: Any, **settings: Any) -> nn.Module:
    with _named("metadata"):
        return kind(*arguments, **settings)


def _settings(readout: Any, kind: str) -> dict[str, Any]:
    """The settings of a readout of this kind, from a graph's metadata."""
    found = readout.get("kind") if isinstance(readout, dict) else type(readout).__name__
    if not isinstance(found, str) or found != kind:
        raise ValueError(f"metadata: expected a readout of kind {kind!r} here, got {found!r}")
    if missing := [name for name in SETTINGS[kind] if name not in readout]:
        raise ValueError(f"metadata: expected a readout with {', '.join(SETTINGS[kind])}, got no {missing[0]}")
    made: dict[str, Any] = {name: readout[name] for name in SETTINGS[kind]}
    made |= {name: readout.get(name, 0) for name in FLAGS}  # graphs that srcell 0.3 wrote have none
    for name in made.keys() - {"bias"}:
        whole = name in ("window", "num_classes", *FLAGS)
        value = as_float(f"metadata: {name}", made[name])
        if whole and not value.is_integer():
            raise ValueError(f"metadata: {name}: expected a whole number, got {value}")
        made[name] = int(value) if whole else value
    for name in FLAGS:
        if made[name] not in (0, 1):
            raise ValueError(f"metadata: {name}: expected 0 or 1, got {made[name]}")
    return made | {name: bool(made[name]) for name in FLAGS}


def _bias(node: nir.NIRNode) -> NDArray[Any]:
    """The bias of weights; zeros without one."""
    return np.asarray(getattr(node, "bias", np.zeros(1)))


def _linear(weight: Tensor, bias: NDArray[Any] | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(torch.from_numpy(np.array(bias)))
    return made


def _values_of(name: str, node: SRCNode) -> dict[str, Tensor]:
    """The fields of a node, (N,) each; of maps they have a value for each channel, which its neurons must share."""
    values = {}
    for field in (*REQUIRED, *OPTIONAL):
        if (array := getattr(node, field)) is None:
            continue
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got {field} with others")
        channels = array.reshape(len(array), -1)
        if (channels != channels[:, :1]).any():
            raise ValueError(f"{name}: expected one {field} for all neurons of a channel, got several")
        values[field] = torch.from_numpy(channels[:, 0].copy())
    return values
