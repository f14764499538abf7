"""What the tests share: inputs that make spikes, the same on every machine, and Python processes that run on a chosen
instruction set. Test modules import from here; nothing here states a promise. Run as a program, this file is such a
process: it calls the functions of the test modules that its parent names.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

import srcell
from srcell import EventBatch, SRCState

ISAS: tuple[str, ...] = srcell.info()["isas"]
MODES = [(surrogate, recurrent) for surrogate in ("relu", "straight_through") for recurrent in (True, False)]
PARAMETERS = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
STATE = ("i0", "h0", "hs0")
CONSTANTS = [0.9, 3.0, 2.0, -7.0, 0.9, 0.0]

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, SRCState]


def random_bits(seed: int, *shape: int) -> NDArray[np.uint64]:
    """SplitMix64: integer arithmetic alone, so that no library version can change what a test sees."""
    z = (np.arange(math.prod(shape), dtype=np.uint64) + np.uint64((seed << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform in [-1, 1) on a grid of 2^-23, which float32 holds exactly."""
    whole = (random_bits(seed, math.prod(shape)) >> np.uint64(40)).astype(np.float64)
    return torch.from_numpy(whole * 2.0**-23 - 1).to(dtype).reshape(shape)


def make_currents(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Noise with a kick in one of sixteen cells: from near rest, some 5 to 10 % of the cells are active."""
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


def make_linear_inputs(
    seed: int, steps: int, batch: int, neurons: int, *, inputs: int, dtype: torch.dtype = torch.float64, **options: bool
) -> tuple[EventBatch, Inputs]:
    """Events, and every differentiable argument of ``src_linear`` on them, the values first. Of the rows of events a
    quarter is empty, others have up to three, in any order, some of them of one input.
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
    """``src`` or ``src_reference`` on what make_inputs made, or a synapse before them on its arguments."""
    state = SRCState(*(inputs[name] for name in STATE))
    cell = {name: inputs[name] for name in PARAMETERS}
    synapse = [x for name, x in inputs.items() if name not in ("bias", *STATE, *PARAMETERS)]
    return function(*synapse, inputs["bias"], state, **cell, **options)


class Layer(NamedTuple):
    """What the operators of ``torch.ops.srcell`` know of a layer."""

    bias: Tensor
    cell: list[Tensor]
    """In the order of PARAMETERS, or none: then the constants hold."""
    state: list[Tensor]
    """In the order of STATE, or none."""
    lengths: Tensor | None
    constants: list[float]
    surrogate: str
    recurrent_grad: bool

    @property
    def forward(self) -> tuple[Any, ...]:
        """The last positional arguments of an operator."""
        return self.bias, self.cell, self.state, self.lengths

    @property
    def backward(self) -> tuple[Any, ...]:
        """Those of ``src_backward``."""
        return self.bias, self.lengths, *(self.cell or [None] * len(PARAMETERS))

    @property
    def synapse_backward(self) -> tuple[Any, ...]:
        """Those of ``src_events_backward`` and ``src_dense_backward``."""
        i0 = self.state[0] if self.state else None
        return self.bias, i0, self.lengths, *(self.cell or [None] * len(PARAMETERS))

    @property
    def options(self) -> dict[str, Any]:
        """The keywords that every operator takes."""
        names = ("constants", "surrogate", "recurrent_grad")
        return {name: getattr(self, name) for name in names}


def make_layer(
    inputs: Inputs, mode: tuple[str, bool], lengths: list[int] | None = None, *, present: bool = True
) -> Layer:
    """A layer of what make_inputs made, or of a part of it; its optional tensors, which are all but the bias, present
    or absent.
    """
    cell, state = ([inputs[name] for name in names if present and name in inputs] for names in (PARAMETERS, STATE))
    ends = torch.tensor(lengths) if present and lengths is not None else None
    return Layer(inputs["bias"], cell, state, ends, CONSTANTS, *mode)


def make_output_gradients(seed: int, outputs: Outputs) -> list[Tensor]:
    """Gradients that arrive at the spikes and at the final i, h, hs."""
    tensors = (outputs[0], *outputs[1])
    return [noise(seed + k, *x.shape, dtype=x.dtype) for k, x in enumerate(tensors)]


def requiring_grad(inputs: Inputs) -> Inputs:
    return {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}


def gradients(
    function: Callable[..., Outputs], inputs: Inputs, arriving: list[Tensor | None], **options: Any
) -> Inputs:
    """The gradient of every input, given those that arrive at spikes, i, h, hs; None is none."""
    leaves = requiring_grad(inputs)
    spikes, state = call(function, leaves, **options)
    pairs = [(x, g) for x, g in zip((spikes, *state), arriving, strict=True) if g is not None]
    made = torch.autograd.grad(
        [x for x, _ in pairs], list(leaves.values()), [g for _, g in pairs], allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, made, strict=True))


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def relative_error(x: Tensor, expected: Tensor) -> float:
    """The largest error as a part of the largest element, or of 1 where that is smaller.

    With the recurrence followed gradients reach 1e4 and more, and a small element of one is a difference of large
    terms: its rounding is theirs. Below 1 it is that of the arriving gradients, which are of size 1.
    """
    return largest(x - expected) / max(1.0, largest(expected))


def assert_same_gradients(ours: Inputs, expected: Inputs) -> None:
    for name, expectation in expected.items():
        error = relative_error(ours[name], expectation)
        assert error <= 1e-12, f"{name}: {error:.2e}"


def moved_by_one_ulp(x: Tensor, seed: int) -> Tensor:
    """Each element's neighbour above or below, at random."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nextafter(x, torch.inf * signs.to(x.dtype))


def membrane(inputs: Inputs, **options: Any) -> Tensor:
    """h[t] of every step, (T, B, N)."""
    h = []
    inputs = {name: x.detach() for name, x in inputs.items()}
    for c in inputs["current"].split(1):
        _, state = call(srcell.src, {**inputs, "current": c}, **options)
        inputs |= zip(STATE, state, strict=True)
        h.append(state.h)
    return torch.stack(h)


def assert_refused(error: type[Exception], argument: str, function: Any, *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        function(*args, **keywords)
    assert re.match(rf"{re.escape(argument)}\b.*expected .*got ", str(caught.value), re.DOTALL), str(caught.value)


class Wrapped(torch.Tensor):
    """A tensor that has another one and no memory of its own, as those of distributed and quantised libraries."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        wrapped: Wrapped = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore
        wrapped.inner = inner
        return wrapped

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(x: Any) -> Any:
            return x.inner if isinstance(x, Wrapped) else x

        return func(*pytree.tree_map(unwrap, args), **pytree.tree_map(unwrap, kwargs or {}))


def active_isa() -> str:
    isa: str = srcell.info()["isa"]
    return isa


class IsaProcess:
    """A Python process in which srcell runs on one instruction set."""

    def __init__(self, isa: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "SRCELL_ISA": isa},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, function: str, *arguments: Any) -> Any:
        """What the function "module.name" of a test module returns there; both ways through JSON."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([function, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process died with status {self._process.wait()} in {function}{arguments}"
        failed, result = json.loads(answer)
        assert not failed, result
        return result

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def isa_processes() -> Iterator[dict[str, IsaProcess]]:
    """A process for each instruction set that this machine has, each seen to be active."""
    processes = {isa: IsaProcess(isa) for isa in ISAS}
    assert {isa: process.call("conftest.active_isa") for isa, process in processes.items()} == {
        isa: isa for isa in ISAS
    }
    yield processes
    for process in processes.values():
        process.close()


@pytest.fixture(scope="session")
def inductor() -> str:
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except Exception as error:
        pytest.skip(f"torch's inductor cannot compile x.sin() + 1 here: {error}")
    return "inductor"


def serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        function, arguments = json.loads(line)
        module, name = function.split(".")
        try:
            answer = (False, getattr(importlib.import_module(module), name)(*arguments))
        except Exception:
            answer = (True, traceback.format_exc())
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
