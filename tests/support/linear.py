"""``src_linear`` on events and on dense inputs, the reference on both, and traces for comparing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srcell import EventBatch, SRCState, src_linear
from srcell.functional.layer import Cell
from srcell.functional.synapse import linear
from srcell.reference import src_reference
from support.gradients import relative_error
from support.inputs import PARAMETERS, Inputs, Outputs, make_linear_inputs, with_values

# By seed: (T, B, N) and K of the traces on which an error of at most 1e-12 is required.
SHAPES = {10: ((20, 3, 5), 7), 18: ((20, 3, 5), 7), 14: ((17, 2, 9), 70), 1: ((16, 4, 1), 1), 6: ((5, 1, 20), 3)}
LENGTHS = {10: [20, 0, 13], 18: [7, 20, 16], 14: [1, 17], 1: [15, 16, 0, 7], 6: [4]}

Function = Callable[..., Outputs]


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


def on_dense_at_events(input: Tensor, weight: Tensor, bias: Tensor, state: SRCState, **options: Any) -> Outputs:
    """``src_linear`` with ``input_grad_at_events``: the input's gradient is needed only where the input is not 0."""
    cell = {name: options.pop(name) for name in PARAMETERS}
    options = {"lengths": None, "surrogate": "straight_through", "recurrent_grad": False, "method": "events"} | options
    return linear(input, weight, bias, state, Cell(**cell), input_grad_at_events=True, **options)


def densified(events: EventBatch, inputs: Inputs) -> Inputs:
    """The same arguments, with a dense input instead of the events' values."""
    rest = {name: x for name, x in inputs.items() if name != "values"}
    return {"input": events.to_dense(inputs["weight"].dtype), **rest}


def linear_case(seed: int, per_neuron: bool = True) -> tuple[EventBatch, Inputs]:
    shape, inputs = SHAPES[seed]
    return make_linear_inputs(seed, *shape, inputs=inputs, per_neuron=per_neuron)


def mode_options(mode: tuple[str, bool], lengths: list[int] | None) -> dict[str, Any]:
    return {"surrogate": mode[0], "recurrent_grad": mode[1], "lengths": lengths}


def tensors_of(outputs: Outputs) -> list[Tensor]:
    return [outputs[0], *outputs[1]]


def assert_same_outputs(made: Outputs, expected: Outputs) -> None:
    assert expected[0].count_nonzero() > 0
    for x, y in zip(tensors_of(made), tensors_of(expected), strict=True):
        assert relative_error(x, y) <= 1e-12


def assert_equal_outputs(made: Outputs, expected: Outputs) -> None:
    assert all(map(torch.equal, tensors_of(made), tensors_of(expected)))
