"""The functions that are timed, one per row of a benchmark, in srcell and in plain PyTorch."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import runtime
from .._shared.parameters import PARAMETERS, RESONANCE
from .._shared.torch_private import with_graphs
from ..events import EventBatch
from ..functional import delay, integer_src_linear, src, src_linear
from ..layers import SRC, IntegerSRC, LeakyReadout, SRCCell, SRCConv2d, spread_frequencies
from ..layers.export import export
from ..models import Classifier, SRCClassifier, SRCConvClassifier
from ..reference import src_reference
from .cases import Convolutional, Workload
from .lateral_delays import delayed_scan, delays_of, in_chunks

CHUNK = 20  # steps per torch.compile graph: more take minutes to compile, fewer run slower
CLASSES = 10

Neuron = Callable[[Tensor, Tensor], Tensor]


class UnavailableError(Exception):
    """Raised if the installation lacks what a row needs; the message says what."""


class Row(NamedTuple):
    """What is timed: a call, and the tensors for which the backward pass of its output computes gradients."""

    call: Callable[[], Any]
    leaves: Sequence[Tensor]


class Spikes:
    """Random spikes in every form that a row uses as input.

    The sparse forms are built anew from their arrays at each call, like the batches of a training loop. So nothing
    derived from one form can be cached for the next call.
    """

    def __init__(self, setting: Workload) -> None:
        self.shape = setting.steps, setting.batch, setting.inputs
        self.dense = torch.rand(self.shape).lt(setting.density).float()
        graded = isinstance(setting, Convolutional) and setting.graded
        if graded:
            self.dense *= torch.rand(self.shape)
        batch = EventBatch.from_dense(self.dense)
        self._offsets, self._indices, self.values = batch.offsets, batch.indices, batch.values
        for x in (self.dense, self.values):
            if x is not None:
                x.requires_grad_(graded)

    def events(self) -> EventBatch:
        """The spikes as an EventBatch."""
        return EventBatch(self._offsets, self._indices, self.values, shape=self.shape)

    def make_csr(self) -> Callable[[], Tensor]:
        """A function that builds the CSR matrix (T * B, K), with 32-bit indices: they make torch's product fastest."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            matrix = self.dense.flatten(0, 1).to_sparse_csr()
        parts = matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values()
        return lambda: torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)


def _eager(setting: Workload) -> Neuron:
    return lambda current, bias: src_reference(current, bias, **setting.modes)[0]


def _compile(function: Any) -> Any:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UnavailableError(f"torch.compile needs a C++ compiler, and {compiler} is not installed")
    # One graph for each layer, gradient mode and number of steps; past the default of 8 torch would run eagerly.
    return with_graphs(64)(torch.compile(function, dynamic=False))


def _compiled(setting: Workload) -> Neuron:
    def chunk(current: Tensor, bias: Tensor, *state: Tensor) -> list[Tensor]:
        spikes, after = src_reference(current, bias, state, **setting.modes)
        return [spikes, *after]

    run = _compile(chunk)
    return lambda current, bias: in_chunks(run, current, CHUNK, (bias,), [torch.zeros_like(current[0])] * 3)


def _lif(setting: Workload) -> Neuron:
    """SpikingJelly's leaky integrate-and-fire neuron on all steps at once; it has no bias.

    SpikingJelly's ``layer.Conv2d`` computes what ``_currents`` does.
    """
    try:
        neurons = importlib.import_module("spikingjelly.activation_based.neuron")
        surrogates = importlib.import_module("spikingjelly.activation_based.surrogate")
    except ImportError as error:
        raise UnavailableError(f"SpikingJelly is not installed: {error}") from None
    lif = neurons.LIFNode(surrogate_function=surrogates.ATan(), step_mode="m")

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        lif.reset()
        spikes: Tensor = lif(current)
        return spikes

    return neuron


def _srcell(setting: Workload) -> Neuron:
    return lambda current, bias: src(current, bias, **setting.modes)[0]


MOST_DELAY = 100  # steps


def _frequencies(setting: Workload) -> Tensor:
    return spread_frequencies(0.01, 1).values(setting.neurons[0]).float()


def _resonant(setting: Workload) -> Neuron:
    options: dict[str, Any] = {RESONANCE: _frequencies(setting), **setting.modes}
    return lambda current, bias: src(current, bias, **options)[0]


# For each row, a function that makes its neuron: a function of currents (T, B, N) or (T, B, C, H, W) and a bias. bench/
# adds the rows of other libraries.
NEURONS: dict[str, Callable[[Workload], Neuron]] = {
    "eager": _eager,
    "compiled": _compiled,
    "srcell": _srcell,
    "resonant": _resonant,
    "lif": _lif,
}
# For each row, a function that makes its step, a call that advances by one step on an input (B, K), and the step's
# parameters. bench/ adds the rows of other libraries.
STEPS: dict[str, Callable[[Workload, Tensor], tuple[Callable[[], Any], Sequence[Tensor]]]] = {}


def _weight_and_bias(setting: Workload) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer, as ``srcell.SRC`` initialises them: a few percent of the elements are active."""
    (neurons,) = setting.neurons
    weight = torch.randn(neurons, setting.inputs) * 3 / math.sqrt(setting.inputs)
    return weight.requires_grad_(), torch.full((neurons,), -6.0, requires_grad=True)


def _recurrence_rows(setting: Workload) -> Callable[[str], Row]:
    weight, bias = _weight_and_bias(setting)
    currents = (Spikes(setting).dense @ weight.t()).detach().requires_grad_()

    def row(name: str) -> Row:
        neuron = NEURONS[name](setting)
        return Row(lambda: neuron(currents, bias), (currents, bias))

    return row


def _layer_rows(setting: Workload) -> Callable[[str], Row]:
    """The rows of a layer, with recurrent weights if its subject is "lateral"."""
    spikes = Spikes(setting)
    weight, bias = _weight_and_bias(setting)
    (neurons,) = setting.neurons
    recurrent = {}
    if setting.subject == "lateral":  # as ``srcell.SRC`` initialises them
        recurrent["weight_hh"] = (torch.randn(neurons, neurons) / math.sqrt(neurons)).requires_grad_()

    def linear(make_input: Callable[[], Any], *learnt: Tensor, **constants: Any) -> Row:
        """``src_linear`` on an input that each call makes anew; of the tensors given, those that are learnt."""
        tensors = (weight, bias, *learnt, *filter(torch.is_tensor, constants.values()))
        return Row(
            lambda: src_linear(make_input(), weight, bias, **constants, **setting.modes)[0],
            [x for x in tensors if x.requires_grad],
        )

    def row(name: str) -> Row:
        kind, _, most = name.partition("-")
        if kind in ("gathered", "compiled", "picked") and most:
            scan = delayed_scan(setting, kind, int(most), _compile, CHUNK)
            weight_hh = recurrent["weight_hh"]
            return Row(lambda: scan(spikes.dense @ weight.t(), bias, weight_hh), (weight, bias, weight_hh))
        if name == "lateral" or most:
            return linear(spikes.events, **recurrent, **delays_of(setting, kind, most))
        if name == "gru":
            return _module_row(nn.GRU(setting.inputs, neurons), spikes.dense)
        if name == "integers":
            return _integer_row(setting, spikes)
        if name == "sparse":
            make_csr, shape = spikes.make_csr(), (setting.steps, setting.batch, neurons)
            return Row(
                lambda: src(torch.sparse.mm(make_csr(), weight.t()).view(shape), bias, **setting.modes)[0],
                (weight, bias),
            )
        if name == "dense":
            return linear(lambda: spikes.dense)
        if name == "events":
            return linear(spikes.events)
        if name == "resonant":
            return linear(spikes.events, **{RESONANCE: _frequencies(setting)})
        if name in PARAMETERS:
            values = _frequencies(setting) if name == RESONANCE else torch.full((neurons,), 0.9)
            return linear(spikes.events, **{name: values.requires_grad_()})
        if name in ("delayed", "interpolated", "delays"):
            later = MOST_DELAY * torch.rand(setting.inputs)
            later = later.floor() if name == "delayed" else later.requires_grad_(name == "delays")
            return linear(lambda: delay(spikes.events(), later, max_delay=MOST_DELAY), later)
        neuron = NEURONS[name](setting)
        return Row(lambda: neuron(spikes.dense @ weight.t(), bias), (weight, bias))

    return row


def _integer_row(setting: Workload, spikes: Spikes) -> Row:
    """A layer of integer neurons; in training, each call rounds the weights anew."""
    layer = IntegerSRC(setting.inputs, setting.neurons[0], weight_bits=9)
    integers = layer.integers()

    def call() -> Any:
        if not torch.is_grad_enabled():
            return integer_src_linear(spikes.events(), integers)[0]
        return layer(spikes.events())[0]

    return Row(call, (layer.weight_ih_l0,))


def _network(setting: Workload) -> Classifier:
    """The network of a setting; a convolution alone has a readout that nobody calls."""
    *hidden, last = setting.neurons
    votes: dict[str, Any] = {"neurons_per_class": last // CLASSES, **setting.modes}
    if not isinstance(setting, Convolutional):
        return SRCClassifier(setting.inputs, hidden, CLASSES, **votes)
    first, *channels = setting.channels
    side = math.isqrt(setting.inputs // first)
    shape = first, side, side
    if setting.subject == "convolution":
        layer = SRCConv2d(first, channels[0], kernel_size=5, stride=2, padding=2, **setting.modes)
        return Classifier(shape, [layer], LeakyReadout(1, last))
    return SRCConvClassifier(shape, channels, hidden[len(channels) :], CLASSES, **votes)


def _currents(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's currents in plain PyTorch, at all steps at once, and its bias."""
    convolves = isinstance(layer, SRCConv2d)
    if not convolves:
        return x.flatten(2) @ layer.weight_ih_l0.t(), layer.bias_l0
    maps: Any = F.conv2d(x.flatten(0, 1), layer.weight, None, layer.stride, layer.padding)
    return maps.unflatten(0, x.shape[:2]), layer.bias[:, None, None]


def _network_rows(setting: Workload) -> Callable[[str], Row]:
    spikes, model = Spikes(setting), _network(setting)
    with_readout = setting.subject in ("classifier", "network")

    def dense() -> Any:
        return spikes.dense.unflatten(2, model.input_shape)

    def row(name: str) -> Row:
        if name == "gru":
            layers = [nn.GRU(*sizes) for sizes in pairwise((setting.inputs, *setting.neurons))]
            return Row(lambda: _in_turn(layers, spikes.dense), [x for layer in layers for x in layer.parameters()])
        network = deepcopy(model) if name == "convolved" else model
        for layer in network.src_layers():
            if isinstance(layer, SRCConv2d) and name == "convolved":
                layer.method = "dense"
        if name in NEURONS:
            neuron = NEURONS[name](setting)

            def call() -> Any:
                output = dense()
                for layer in network.layers:
                    output = neuron(*_currents(layer, output))
                return network.readout(output) if with_readout else output.flatten(2)
        else:
            make_input = spikes.events if name == "events" else dense

            def call() -> Any:
                return network(make_input()) if with_readout else network.layer_spikes(make_input())[-1].flatten(2)

        given = spikes.values if name == "events" else spikes.dense
        return Row(call, [*network.parameters(), *(x for x in (given,) if x is not None and x.requires_grad)])

    return row


def _in_turn(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The output of the last of the layers, each of which returns an output and a state."""
    for layer in layers:
        x, _ = layer(x)
    return x


def _step_rows(setting: Workload) -> Callable[[str], Row]:
    x = Spikes(setting).dense[0]
    sizes = list(pairwise((setting.inputs, *setting.neurons)))

    def row(name: str) -> Row:
        if name in STEPS:
            return Row(*STEPS[name](setting, x))
        if name == "runtime":
            return Row(_runtime_step(sizes, x), ())
        cells = [_CELLS[name](inputs, neurons) for inputs, neurons in sizes]
        states = [_state_before(cell, inputs, len(x)) for cell, (inputs, _) in zip(cells, sizes, strict=True)]

        def call() -> Tensor:
            output = x
            for cell, state in zip(cells, states, strict=True):
                output = cell(output, state)
                output = output[0] if isinstance(output, tuple) else output
            return output

        return Row(call, [parameter for cell in cells for parameter in cell.parameters()])

    return row


_CELLS: dict[str, Callable[[int, int], nn.Module]] = {"srcell": SRCCell, "rnn": nn.RNNCell, "gru": nn.GRUCell}


def _state_before(cell: nn.Module, inputs: int, batch: int) -> Any:
    """A state of the cell, in the form that its call expects."""
    made = cell(torch.zeros(batch, inputs))
    return made[1].detach() if isinstance(made, tuple) else made.detach()


def _runtime_step(sizes: Sequence[tuple[int, int]], x: Tensor) -> Callable[[], Any]:
    """A step of an exported network, on NumPy indices of the active inputs."""
    layers = [SRC(inputs, neurons) for inputs, neurons in sizes]
    network = Classifier(sizes[0][:1], layers, LeakyReadout(1, sizes[-1][1]))
    try:
        with tempfile.TemporaryDirectory() as folder:
            export(network, f"{folder}/net.srcell")
            stream = runtime.load(f"{folder}/net.srcell").stream(len(x))
    except ImportError as error:
        raise UnavailableError(str(error)) from None
    active = x.nonzero()[:, 1].int().numpy()
    offsets = None if len(x) == 1 else np.concatenate([[0], (x != 0).sum(1).cumsum(0).numpy()])

    return lambda: stream.step(active, offsets=offsets)


def _module_row(module: nn.Module, x: Tensor) -> Row:
    return Row(lambda: module(x)[0], list(module.parameters()))


def _module_rows(setting: Workload) -> Callable[[str], Row]:
    x = Spikes(setting).dense
    modules: dict[str, Callable[..., nn.Module]] = {
        "srcell": partial(SRC, **setting.modes),
        "with-delays": partial(SRC, recurrent=True, delay_hh=2.5, max_delay=4, **setting.modes),
        "for-sequences": partial(SRC.for_sequences, **setting.modes),
        "rnn": nn.RNN,
        "gru": nn.GRU,
    }

    def row(name: str) -> Row:
        if name == "maps":
            layer, maps = SRCConv2d(1, 4, 3, padding=1, **setting.modes), x.unflatten(2, (1, 8, 8))
            return Row(lambda: layer(maps)[0].flatten(2), list(layer.parameters()))
        return _module_row(modules[name](setting.inputs, *setting.neurons), x)

    return row


def _import_rows(setting: Workload) -> Callable[[str], Row]:
    return lambda name: Row(partial(subprocess.run, [sys.executable, "-c", f"import torch, {name}"], check=True), ())


MAKERS: dict[str, Callable[[Workload], Callable[[str], Row]]] = {
    "recurrence": _recurrence_rows,
    "layer": _layer_rows,
    "lateral": _layer_rows,
    "stack": _network_rows,
    "classifier": _network_rows,
    "convolution": _network_rows,
    "network": _network_rows,
    "step": _step_rows,
    "module": _module_rows,
    "import": _import_rows,
}
