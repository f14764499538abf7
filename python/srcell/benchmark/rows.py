"""The functions that are timed, one per row of a benchmark, in srcell and in plain PyTorch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import runtime
from .._export import export
from .._parameters import PARAMETERS, RESONANCE
from .._state import AnyState, SRCState
from ..events import EventBatch
from ..functional import delay, integer_src_linear, src, src_linear
from ..layers import SRC, IntegerSRC, LeakyReadout, SRCCell, spread_frequencies
from ..models import Classifier, SRCClassifier
from ..reference import src_reference
from .cases import Workload
from .lateral_delays import gathered, picked, srcell_call, weight_of

CHUNK = 20  # steps per torch.compile graph: more take minutes to compile, fewer run slower
CLASSES = 10

Neuron = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], Tensor]


class UnavailableError(Exception):
    """Raised if the installation lacks what a row needs; the message says what."""


class Row(NamedTuple):
    """What is timed: a call, and the tensors for which its backward computes gradients."""

    call: Callable[[], Tensor]
    leaves: Sequence[Tensor]


class Spikes:
    """Random spikes in every form that a row uses as input.

    The sparse forms are built anew from their arrays at each call, like the batches of a training loop. So nothing
    derived from one form can be cached for the next call.
    """

    def __init__(self, setting: Workload) -> None:
        self.shape = setting.steps, setting.batch, setting.inputs
        self.dense = torch.rand(self.shape).lt(setting.density).float()
        batch = EventBatch.from_dense(self.dense)
        self._offsets, self._indices = batch.offsets, batch.indices

    def events(self) -> EventBatch:
        """The spikes as an EventBatch."""
        return EventBatch(self._offsets, self._indices, shape=self.shape)

    def make_csr(self) -> Callable[[], Tensor]:
        """A function that builds the CSR matrix (T * B, K), with 32-bit indices: they make torch's product fastest."""
        steps, batch, inputs = self.shape
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            matrix = self.dense.view(steps * batch, inputs).to_sparse_csr()
        row_starts, columns, values = matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values()
        return lambda: torch.sparse_csr_tensor(
            row_starts, columns, values, size=(steps * batch, inputs), check_invariants=False
        )


def _eager(setting: Workload) -> Neuron:
    return lambda current, bias: src_reference(current, bias, **setting.modes)[0]


def _compile(function: Any) -> Any:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UnavailableError(f"torch.compile needs a C++ compiler, and {compiler} is not installed")
    return torch.compile(function, dynamic=False)


def _compiled(setting: Workload) -> Neuron:
    def chunk(current: Tensor, bias: Tensor, i: Tensor, h: Tensor, hs: Tensor) -> tuple[Tensor, AnyState]:
        return src_reference(current, bias, SRCState(i, h, hs), **setting.modes)

    compiled_chunk = _compile(chunk)

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        zeros = torch.zeros_like(current[0])
        state: AnyState = SRCState(zeros, zeros, zeros)
        spikes = []
        for part in current.split(CHUNK):
            part_spikes, state = compiled_chunk(part, bias, *state)
            spikes.append(part_spikes)
        return torch.cat(spikes)

    return neuron


def _srcell(setting: Workload) -> Neuron:
    return lambda current, bias: src(current, bias, **setting.modes)[0]


MOST_DELAY = 100  # steps


def _frequencies(setting: Workload) -> Tensor:
    return spread_frequencies(0.01, 1).values(setting.neurons[0]).float()


def _resonant(setting: Workload) -> Neuron:
    options: dict[str, Any] = {RESONANCE: _frequencies(setting), **setting.modes}
    return lambda current, bias: src(current, bias, **options)[0]


# For each row, a function that makes its neuron: a function of currents (T, B, N) and a bias. bench/ adds the rows of
# other libraries.
NEURONS: dict[str, Callable[[Workload], Neuron]] = {
    "eager": _eager,
    "compiled": _compiled,
    "srcell": _srcell,
    "resonant": _resonant,
}
# For each row, a function that makes its step, a call that advances by one step on an input (B, K), and the step's
# parameters. bench/ adds the rows of other libraries.
STEPS: dict[str, Callable[[Workload, Tensor], tuple[Step, Sequence[Tensor]]]] = {}


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
    spikes = Spikes(setting)
    weight, bias = _weight_and_bias(setting)
    (neurons,) = setting.neurons

    def row(name: str) -> Row:
        if name == "gru":
            gru = nn.GRU(setting.inputs, neurons)
            return Row(lambda: gru(spikes.dense)[0], list(gru.parameters()))
        if name == "sparse":
            make_csr = spikes.make_csr()
            shape = (setting.steps, setting.batch, neurons)

            def call() -> Tensor:
                return src(torch.sparse.mm(make_csr(), weight.t()).view(shape), bias, **setting.modes)[0]
        elif name == "dense":

            def call() -> Tensor:
                return src_linear(spikes.dense, weight, bias, **setting.modes)[0]
        elif name in ("events", "resonant", *PARAMETERS):
            parameter = RESONANCE if name == "resonant" else name
            values = _frequencies(setting) if parameter == RESONANCE else torch.full((neurons,), 0.9)
            options: dict[str, Any] = {} if name == "events" else {parameter: values.requires_grad_(name in PARAMETERS)}

            def call() -> Tensor:
                return src_linear(spikes.events(), weight, bias, **options, **setting.modes)[0]

            return Row(call, (weight, bias, *([values] if name in PARAMETERS else [])))
        elif name in ("delayed", "interpolated", "delays"):
            later = MOST_DELAY * torch.rand(setting.inputs)
            later = later.floor() if name == "delayed" else later.requires_grad_(name == "delays")

            def call() -> Tensor:
                arriving = delay(spikes.events(), later, max_delay=MOST_DELAY)
                return src_linear(arriving, weight, bias, **setting.modes)[0]

            return Row(call, (weight, bias, *([later] if later.requires_grad else [])))
        elif name == "integers":
            return _integer_row(setting, spikes)
        else:
            neuron = NEURONS[name](setting)

            def call() -> Tensor:
                return neuron(spikes.dense @ weight.t(), bias)

        return Row(call, (weight, bias))

    return row


def _lateral_rows(setting: Workload) -> Callable[[str], Row]:
    spikes = Spikes(setting)
    weight, bias = _weight_and_bias(setting)
    weight_hh = weight_of(setting.neurons[0])
    leaves = weight, bias, weight_hh

    def row(name: str) -> Row:
        kind, _, most = name.partition("-")
        if kind in ("gathered", "compiled", "picked"):
            if kind == "picked":
                scan = picked(setting, int(most))
            else:
                scan = gathered(setting, int(most), _compile if kind == "compiled" else lambda f: f, CHUNK)
            return Row(lambda: scan(spikes.dense @ weight.t(), bias, weight_hh), leaves)
        call, learnt = srcell_call(setting, name, spikes.events, *leaves)
        return Row(call, (*leaves, *learnt))

    return row


def _integer_row(setting: Workload, spikes: Spikes) -> Row:
    """A layer of integer neurons; in training, each call rounds the weights anew."""
    layer = IntegerSRC(setting.inputs, setting.neurons[0], weight_bits=9)
    integers = layer.integers()

    def call() -> Tensor:
        if not torch.is_grad_enabled():
            return integer_src_linear(spikes.events(), integers)[0]
        output: Tensor = layer(spikes.events())[0]
        return output

    return Row(call, (layer.weight_ih_l0,))


def _network_rows(setting: Workload) -> Callable[[str], Row]:
    spikes = Spikes(setting)
    neurons_per_class = setting.neurons[-1] // CLASSES
    model = SRCClassifier(
        setting.inputs, setting.neurons[:-1], CLASSES, neurons_per_class=neurons_per_class, **setting.modes
    )
    layers: list[Any] = list(model.layers)
    readout: Callable[[Tensor], Tensor] = model.readout
    parameters = list(model.parameters())
    with_readout = setting.subject == "classifier"

    def row(name: str) -> Row:
        if name in NEURONS:
            neuron = NEURONS[name](setting)

            def call() -> Tensor:
                output = spikes.dense
                for layer in layers:
                    output = neuron(output @ layer.weight_ih_l0.t(), layer.bias_l0)
                return readout(output) if with_readout else output
        else:
            make_input = spikes.events if name == "events" else lambda: spikes.dense

            def call() -> Tensor:
                output: Tensor = model(make_input()) if with_readout else model.layer_spikes(make_input())[-1]
                return output

        return Row(call, parameters)

    return row


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


def _runtime_step(sizes: Sequence[tuple[int, int]], x: Tensor) -> Step:
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

    def step() -> Tensor:
        stream.step(active, offsets=offsets)
        return _NOTHING

    return step


_NOTHING = torch.empty(0)


def _module_rows(setting: Workload) -> Callable[[str], Row]:
    x = Spikes(setting).dense
    (neurons,) = setting.neurons
    modules: dict[str, Callable[[], nn.Module]] = {
        "srcell": lambda: SRC(setting.inputs, neurons, **setting.modes),
        "rnn": lambda: nn.RNN(setting.inputs, neurons),
        "gru": lambda: nn.GRU(setting.inputs, neurons),
    }

    def row(name: str) -> Row:
        module = modules[name]()
        return Row(lambda: module(x)[0], list(module.parameters()))

    return row


def _import_rows(setting: Workload) -> Callable[[str], Row]:
    def row(name: str) -> Row:
        command = [sys.executable, "-c", f"import torch, {name}"]

        def call() -> Tensor:
            subprocess.run(command, check=True)
            return torch.empty(0)

        return Row(call, ())

    return row


MAKERS: dict[str, Callable[[Workload], Callable[[str], Row]]] = {
    "recurrence": _recurrence_rows,
    "layer": _layer_rows,
    "lateral": _lateral_rows,
    "stack": _network_rows,
    "classifier": _network_rows,
    "step": _step_rows,
    "module": _module_rows,
    "import": _import_rows,
}
