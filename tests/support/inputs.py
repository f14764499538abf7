"""Inputs that make neurons spike, identical on every machine, and calls of functions and operators on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcell import EventBatch
from srcell._shared.state import AnyState, state_type
from srcell.functional.terms import tables

MODES = [(surrogate, recurrent) for surrogate in ("relu", "straight_through") for recurrent in (True, False)]
PARAMETERS = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
STATE = ("i0", "h0", "hs0")
RESONANCE = ("omega", "q0")  # what inputs have as well if their neurons resonate
DELAYS = ("delay_hh", "past0")  # what they have as well if their recurrent weights have delays
CONSTANTS = [0.9, 3.0, 2.0, -7.0, 0.9, 0.0]
STEPS, BATCH, NEURONS = 30, 3, 5  # for tests that need no particular sizes

WHOLE_STATE = (*STATE, "q0", "past0")

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, AnyState]


def random_bits(seed: int, *shape: int) -> NDArray[np.uint64]:
    """SplitMix64: integer arithmetic alone, so that no library version can change the inputs."""
    z = (np.arange(math.prod(shape), dtype=np.uint64) + np.uint64((seed << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform in [-1, 1) on a grid of 2^-23, which float32 holds exactly."""
    whole = (random_bits(seed, math.prod(shape)) >> np.uint64(40)).astype(np.float64)
    return torch.from_numpy(whole * 2.0**-23 - 1).to(dtype).reshape(shape)


def make_currents(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Noise with a kick in one of sixteen elements. Neurons that start near rest are active in 5 to 10 % of the
    elements.
    """
    kicks = torch.from_numpy((random_bits(seed + 1000, *shape) % np.uint64(16) == 0).astype(np.float64))
    return (0.87 * noise(seed, *shape) + 8 * kicks).to(dtype)


def make_inputs(
    seed: int, steps: int, batch: int, neurons: int, *, dtype: torch.dtype = torch.float64, per_neuron: bool = True
) -> Inputs:
    """Every differentiable argument of ``src``: parameters near their defaults, a state near rest."""
    shape = (neurons,) if per_neuron else ()
    inputs = {
        "current": make_currents(seed, steps, batch, neurons),
        "bias": -6 + 0.1 * noise(seed + 1, neurons),
        "i0": 0.3 * noise(seed + 2, batch, neurons),
        "h0": -0.9 + 0.02 * noise(seed + 3, batch, neurons),
        "hs0": -0.9 + 0.02 * noise(seed + 4, batch, neurons),
        "alpha": 0.9 + 0.02 * noise(seed + 5, *shape),
        "rho": 3 + 0.1 * noise(seed + 6, *shape),
        "r": 2 + 0.1 * noise(seed + 7, *shape),
        "rs": -7 + 0.1 * noise(seed + 8, *shape),
        "zs_hyp": 0.9 + 0.02 * noise(seed + 9, *shape),
        "zs_dep": 0.02 * noise(seed + 10, *shape),
    }
    return {name: x.to(dtype) for name, x in inputs.items()}


def resonant(inputs: Inputs, seed: int) -> Inputs:
    """The inputs with an omega and a q: slow and fast frequencies of either sign, one of them 0."""
    omega = noise(seed + 5000, len(inputs["bias"]), dtype=inputs["bias"].dtype)
    omega = omega.sign() * (5 * omega.abs() - 4).exp()
    omega[: len(omega) // 3 : 2] = 0
    q = noise(seed + 5001, *inputs["i0"].shape, dtype=inputs["i0"].dtype)
    return inputs | {"omega": omega, "q0": q}


def make_lateral(seed: int, neurons: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Recurrent weights, so large that a neuron's spikes make others spike."""
    return (2 * noise(seed + 4000, neurons, neurons) / max(neurons, 1) ** 0.5).to(dtype)


def delayed(inputs: Inputs, seed: int, most: int, width: int = 1) -> Inputs:
    """The inputs with delays of their recurrent weights, of which every third is whole, and a past."""
    dtype, (batch, neurons) = inputs["bias"].dtype, inputs["h0"].shape
    delays = most * noise(seed + 6000, neurons, dtype=dtype).abs()
    delays[::3] = delays[::3].round()
    past = noise(seed + 6001, batch, most + width, neurons, dtype=dtype)
    return inputs | {"delay_hh": delays, "past0": past * (past > 0.7)}


def make_linear_inputs(
    seed: int, steps: int, batch: int, neurons: int, *, inputs: int, dtype: torch.dtype = torch.float64, **options: bool
) -> tuple[EventBatch, Inputs]:
    """Events, and every differentiable argument of ``src_linear`` on them, the values first. A quarter of the rows is
    empty; the others have up to three events, in any order, some of the same input.
    """
    rows = batch * steps
    counts = torch.from_numpy((random_bits(seed + 2000, rows) % np.uint64(4)).astype(np.int64)) * (inputs > 0)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    events = int(offsets[-1])
    indices = torch.from_numpy((random_bits(seed + 2001, events) % np.uint64(max(inputs, 1))).astype(np.int32))
    given = make_inputs(seed, steps, batch, neurons, dtype=dtype, **options)
    del given["current"]
    synapse = {"values": 1 + 0.25 * noise(seed + 2002, events), "weight": 1 + 5 * noise(seed + 2003, neurons, inputs)}
    layer = {name: x.to(dtype) for name, x in synapse.items()} | given
    return EventBatch(offsets, indices, layer["values"], shape=(steps, batch, inputs)), layer


def with_values(events: EventBatch, values: Tensor | None) -> EventBatch:
    return EventBatch(events.offsets, events.indices, values, shape=events.shape, lengths=events.lengths)


def call(function: Callable[..., Outputs], inputs: Inputs, **options: Any) -> Outputs:
    """Call ``src`` or ``src_reference`` on inputs of make_inputs, or ``src_linear`` on those of make_linear_inputs."""
    state = state_type("q0" in inputs, "past0" in inputs)(*[inputs[name] for name in WHOLE_STATE if name in inputs])
    cell = {name: inputs[name] for name in (*PARAMETERS, "omega") if name in inputs}
    lateral = {name: inputs[name] for name in ("weight_hh", "delay_hh") if name in inputs}
    others = ("bias", "weight_hh", *STATE, *PARAMETERS, *RESONANCE, *DELAYS)
    synapse = [x for name, x in inputs.items() if name not in others]
    return function(*synapse, inputs["bias"], state, **cell, **lateral, **options)


class Layer(NamedTuple):
    """A layer's arguments in the form of the operators of ``torch.ops.srcell``."""

    bias: Tensor
    cell: list[Tensor]
    """In the order of PARAMETERS, or empty: then the constants apply."""
    state: list[Tensor]
    """In the order of STATE, or empty."""
    lengths: Tensor | None
    constants: list[float]
    surrogate: str
    recurrent_grad: bool
    weight_hh: Tensor | None = None
    lateral_surrogate: str = "relu"
    first_hh: Tensor | None = None
    factors_hh: Tensor | None = None
    past_steps: int = 0
    bias_max: float | None = None
    channels: int = 0

    @property
    def forward(self) -> tuple[Any, ...]:
        """The last positional arguments of a forward operator."""
        return self.bias, self.cell, self.state, self.lengths, self.weight_hh, self.first_hh, self.factors_hh

    @property
    def backward(self) -> tuple[Any, ...]:
        """The last positional arguments of a backward operator."""
        i0 = self.state[0] if self.state else None
        past0 = self.state[-1] if self.state and self.state[-1].dim() == 3 else None
        cell = *self.cell, *[None] * (1 + len(PARAMETERS) - len(self.cell))
        return self.bias, *cell, i0, past0, self.lengths, self.weight_hh, self.first_hh, self.factors_hh

    @property
    def options(self) -> dict[str, Any]:
        """The keywords that every operator takes."""
        names = ("constants", "surrogate", "recurrent_grad", "lateral_surrogate", "past_steps", "bias_max", "channels")
        return {name: getattr(self, name) for name in names}


def make_layer(
    inputs: Inputs, mode: tuple[str, bool], lengths: list[int] | None = None, *, present: bool = True
) -> Layer:
    """A layer from inputs of make_inputs; if not ``present``, only the bias is given."""
    names = (*PARAMETERS, "omega"), WHOLE_STATE
    cell, state = ([inputs[name] for name in those if present and name in inputs] for those in names)
    constants = [*CONSTANTS, 0.3] if "omega" in inputs else CONSTANTS
    ends = torch.tensor(lengths) if present and lengths is not None else None
    layer = Layer(inputs["bias"], cell, state, ends, constants, *mode, inputs.get("weight_hh") if present else None)
    if "delay_hh" not in inputs:
        return layer
    first, factors = tables(inputs["delay_hh"], 1, keep=True)
    return layer._replace(
        weight_hh=inputs["weight_hh"], first_hh=first, factors_hh=factors, past_steps=inputs["past0"].shape[1]
    )
