"""``src`` and ``src_linear`` on every kind of input, each with the eager reference and inputs that make it spike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srcell import EventBatch, src, src_linear
from srcell._shared.state import AnyState
from srcell.functional.layer import Cell, layer_of
from srcell.functional.synapse import after_synapse, directly
from srcell.reference import src_reference
from support.inputs import Inputs, Outputs, make_inputs, make_linear_inputs, with_values

# By seed: (T, B, N) and K of the sequences on which an error of at most 1e-12 is required, and lengths for them.
SHAPES = {3: ((20, 3, 5), 7), 8: ((20, 3, 5), 7), 14: ((17, 2, 9), 70), 1: ((16, 4, 1), 1), 2: ((5, 1, 20), 3)}
LENGTHS = {3: [20, 0, 13], 8: [7, 20, 16], 14: [1, 17], 1: [15, 16, 0, 7], 2: [4]}

# ``src``, ``src_linear`` on an EventBatch, and ``src_linear`` on a dense input by each method.
KINDS = ("src", "EventBatch", "events", "gemm", "auto")
OPERATORS = ("src", "EventBatch", "events")  # one of each operator: src, src_events, src_dense

Function = Callable[..., Outputs]


class Problem(NamedTuple):
    """A function, the reference that it must equal, and all their differentiable arguments."""

    function: Function
    reference: Function
    inputs: Inputs


def problem(kind: str, seed: int, shape: tuple[int, int, int], width: int = 4, **options: Any) -> Problem:
    """One of KINDS with inputs of the shape (T, B, N), and K = ``width``."""
    if kind == "src":
        return Problem(src, src_reference, make_inputs(seed, *shape, **options))
    events, inputs = make_linear_inputs(seed, *shape, inputs=width, **options)
    if kind == "EventBatch":
        return Problem(on_events(events), reference_on_events(events), inputs)
    return Problem(on_dense(kind), reference_on_dense, densified(events, inputs))


def trace(kind: str, seed: int, per_neuron: bool = True) -> Problem:
    """One of KINDS on the sequence of SHAPES with this seed."""
    return problem(kind, seed, *SHAPES[seed], per_neuron=per_neuron)


def on_events(events: EventBatch) -> Function:
    """``src_linear`` on these events, as a function of their values and the other arguments."""
    return lambda values, *layer, **options: src_linear(with_values(events, values), *layer, **options)


def reference_on_events(events: EventBatch) -> Function:
    def function(values: Tensor, weight: Tensor, *layer: Any, **options: Any) -> Outputs:
        dense = with_values(events, values).to_dense(weight.dtype)
        return src_reference(dense @ weight.T, *layer, **options)

    return function


def reference_on_dense(input: Tensor, weight: Tensor, *layer: Any, **options: Any) -> Outputs:
    return src_reference(input @ weight.T, *layer, **options)


def on_dense(method: str) -> Function:
    return lambda *args, **options: src_linear(*args, method=method, **options)


def on_dense_at_events(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: AnyState,
    *,
    lengths: Any = None,
    **others: Any,
) -> Outputs:
    """``src_linear`` with ``input_grad_at_events``: the input's gradient is needed only where the input is not 0."""
    cell = Cell(**{name: others.pop(name) for name in Cell._fields if name in others})
    layer = layer_of(weight, (input.shape[1], weight.shape[0]), bias, cell, state, lengths, **others)
    made = directly(input, weight, layer, "events", input_grad_at_events=True)
    return made or after_synapse(input, weight, layer, "events", input_grad_at_events=True)


def densified(events: EventBatch, inputs: Inputs) -> Inputs:
    """The same arguments, with a dense input instead of the events' values."""
    rest = {name: x for name, x in inputs.items() if name != "values"}
    return {"input": events.to_dense(inputs["weight"].dtype), **rest}


def linear_case(seed: int) -> tuple[EventBatch, Inputs]:
    shape, width = SHAPES[seed]
    return make_linear_inputs(seed, *shape, inputs=width)


def mode_options(mode: tuple[str, bool], lengths: list[int] | None) -> dict[str, Any]:
    return {"surrogate": mode[0], "full_gradient": mode[1], "lengths": lengths}


def tensors_of(outputs: Outputs) -> list[Tensor]:
    return [outputs[0], *outputs[1]]


def assert_equal_outputs(made: Outputs, expected: Outputs) -> None:
    assert all(map(torch.equal, tensors_of(made), tensors_of(expected)))
