"""``src_linear`` on an EventBatch and on dense inputs: exact gradients in all four modes, operators as torch wants
them, sizes that must work, refusals that name the argument, batches altered behind its back, and what torch does with
it (compile, autocast, half precision, modules). That its bits are the same everywhere is in test_bits.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import (
    MODES,
    PARAMETERS,
    STATE,
    Inputs,
    Layer,
    Outputs,
    assert_refused,
    assert_same_gradients,
    call,
    gradients,
    make_layer,
    make_linear_inputs,
    make_output_gradients,
    membrane,
    moved_by_one_ulp,
    noise,
    relative_error,
    requiring_grad,
    with_values,
)
from srcell import SRC, EventBatch, SRCState, src, src_linear
from srcell.functional import Cell, linear
from srcell.ops._dense import events_are_faster
from srcell.reference import src_reference

# By seed: (T, B, N) and K of the traces on which 1e-12 is asked for.
SHAPES = {10: ((20, 3, 5), 7), 18: ((20, 3, 5), 7), 14: ((17, 2, 9), 70), 1: ((16, 4, 1), 1), 6: ((5, 1, 20), 3)}
LENGTHS = {10: [20, 0, 13], 18: [7, 20, 16], 14: [1, 17], 1: [15, 16, 0, 7], 6: [4]}

Function = Callable[..., Outputs]


def on_events(events: EventBatch) -> Function:
    """``src_linear`` on these events, given their values."""
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
    """``src_linear`` whose caller asks for the gradient of the input only where it is not 0."""
    cell = {name: options.pop(name) for name in PARAMETERS}
    options = {"lengths": None, "surrogate": "straight_through", "recurrent_grad": False, "method": "events"} | options
    return linear(input, weight, bias, state, Cell(**cell), input_grad_at_events=True, **options)


def densified(events: EventBatch, inputs: Inputs) -> Inputs:
    """The same arguments with a dense input for the values."""
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


# Gradients


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("seed", SHAPES)
def test_premise_the_short_traces_are_well_conditioned(seed: int, per_neuron: bool) -> None:
    """As in test_gradients.py: where one ulp in every input makes at most 2e-13, rounding cannot make 1e-12."""
    events, inputs = linear_case(seed, per_neuron)
    reference = reference_on_events(events)
    outputs = call(reference, inputs)
    assert (outputs[0] > 0.5).sum() >= 8
    arriving: list[Tensor | None] = [*make_output_gradients(seed, outputs)]
    options = {"surrogate": "straight_through", "recurrent_grad": True}
    expected = gradients(reference, inputs, arriving, **options)
    for draw in range(3):
        moved = {name: moved_by_one_ulp(x, draw) for name, x in inputs.items()}
        made = gradients(reference, moved, arriving, **options)
        assert all(relative_error(made[name], expected[name]) <= 2e-13 for name in expected)


def test_premise_the_events_have_all_that_may_occur() -> None:
    events, _ = linear_case(10)
    counts = events.offsets.diff()
    assert {0, 1, 2, 3} <= set(counts.tolist())
    rows = [row.tolist() for row in events.indices.split(counts.tolist())]
    assert any(row != sorted(row) for row in rows)
    assert any(len(set(row)) < len(row) for row in rows)


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_on_events_every_mode_equals_autograd_of_the_reference(
    mode: tuple[str, bool], seed: int, with_lengths: bool, per_neuron: bool
) -> None:
    options = mode_options(mode, LENGTHS[seed] if with_lengths else None)
    events, inputs = linear_case(seed, per_neuron)
    expected = call(reference_on_events(events), inputs, **options)
    assert_same_outputs(call(on_events(events), inputs, **options), expected)
    spikes, *state = make_output_gradients(seed, expected)
    for arriving in ([spikes, None, None, None], [None, *state], [spikes, *state]):
        reference = gradients(reference_on_events(events), inputs, arriving, **options)
        assert reference["weight"].count_nonzero() > 0
        assert_same_gradients(gradients(on_events(events), inputs, arriving, **options), reference)


@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_on_a_dense_input_every_mode_equals_autograd_of_the_reference(
    mode: tuple[str, bool], seed: int, with_lengths: bool, method: str
) -> None:
    options = mode_options(mode, LENGTHS[seed] if with_lengths else None)
    inputs = densified(*linear_case(seed))
    expected = call(reference_on_dense, inputs, **options)
    assert_same_outputs(call(on_dense(method), inputs, **options), expected)
    arriving: list[Tensor | None] = [*make_output_gradients(seed, expected)]
    reference = gradients(reference_on_dense, inputs, arriving, **options)
    at_zeros = reference["input"][inputs["input"] == 0]
    assert at_zeros.count_nonzero() > 0 or not at_zeros.numel()
    assert_same_gradients(gradients(on_dense(method), inputs, arriving, **options), reference)


@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_wanted_at_events_alone_is_that_there_and_zero_elsewhere(mode: tuple[str, bool], seed: int) -> None:
    options = mode_options(mode, LENGTHS[seed])
    inputs = densified(*linear_case(seed))
    arriving: list[Tensor | None] = [*make_output_gradients(seed, call(on_dense_at_events, inputs, **options))]
    reference = gradients(reference_on_dense, inputs, arriving, **options)
    reference["input"] *= inputs["input"] != 0
    made = gradients(on_dense_at_events, inputs, arriving, **options)
    assert made["input"][inputs["input"] == 0].count_nonzero() == 0
    assert_same_gradients(made, reference)


@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("lengths", [None, [12, 7]])
@pytest.mark.parametrize("dense", [False, True], ids=["EventBatch", "dense"])
def test_relu_with_recurrence_is_the_derivative_of_the_forward_pass(
    dense: bool, lengths: list[int] | None, per_neuron: bool
) -> None:
    events, inputs = make_linear_inputs(2, 12, 2, 3, inputs=4, per_neuron=per_neuron)
    function = on_dense("events") if dense else on_events(events)
    current = events.to_dense(torch.float64) @ inputs["weight"].T
    layer = {name: x for name, x in inputs.items() if name not in ("values", "weight")}
    h = membrane({"current": current, **layer})
    assert (h > 0.5).sum() >= 3
    assert h.abs().min() > 1e-3
    if dense:
        inputs = densified(events, inputs)
        assert (inputs["input"] == 0).any()
    inputs = requiring_grad(inputs)

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(inputs, tensors, strict=True))
        spikes, state = call(function, given, surrogate="relu", recurrent_grad=True, lengths=lengths)
        return (spikes, *state)

    assert torch.autograd.gradcheck(outputs, tuple(inputs.values()))


@pytest.mark.parametrize("mode", MODES)
def test_over_many_segments_it_is_src_on_the_same_currents(mode: tuple[str, bool]) -> None:
    """Weights of few bits make sums of binary events exact in every order, so that nothing may differ but the order in
    which gradients are summed."""
    lengths = [300, 257, 256, 33, 32, 31, 1, 0]
    events, inputs = make_linear_inputs(3, 300, len(lengths), 20, inputs=9)
    inputs["weight"] = (8 * inputs["weight"]).round() / 8
    inputs["values"] = torch.ones_like(inputs["values"])
    options = mode_options(mode, lengths)
    dense = with_values(events, None).to_dense(torch.float64)
    as_currents = {"current": dense @ inputs["weight"].T, **inputs}
    del as_currents["weight"], as_currents["values"]
    expected = call(src, as_currents, **options)
    assert_equal_outputs(call(on_events(events), inputs, **options), expected)
    assert (expected[0] > 0.5).sum() > 100
    arriving: list[Tensor | None] = [*make_output_gradients(3, expected)]
    reference = gradients(src, as_currents, arriving, **options)
    made = gradients(on_events(events), inputs, arriving, **options)
    for name in ("bias", *STATE, *PARAMETERS):
        assert torch.equal(made[name], reference[name]), name
    # Two sums of at most n products differ by 2 n roundings of the sum of their sizes.
    current = reference["current"]
    weight = torch.einsum("tbn,tbk->nk", current, dense)
    sizes = torch.einsum("tbn,tbk->nk", current.abs(), dense.abs())
    assert ((made["weight"] - weight).abs() <= 2 * 3 * len(lengths) * 300 * 2**-53 * sizes).all()
    sample_of_row = torch.arange(len(lengths)).repeat_interleave(300)
    step_of_row = torch.arange(300).repeat(len(lengths))
    row = torch.arange(len(events.offsets) - 1).repeat_interleave(events.offsets.diff())
    at_event = current[step_of_row[row], sample_of_row[row]]
    weight_at_event = inputs["weight"].T[events.indices.long()]
    sizes = (at_event * weight_at_event).abs().sum(1)
    assert ((made["values"] - (at_event * weight_at_event).sum(1)).abs() <= 2 * 20 * 2**-53 * sizes).all()
    assert made["values"][step_of_row[row] >= torch.tensor(lengths)[sample_of_row[row]]].count_nonzero() == 0


@pytest.mark.parametrize("neurons", [1, 15, 16, 17, 100, 128, 129, 130, 260])
def test_every_width_of_a_layer_equals_its_neurons_one_by_one(neurons: int) -> None:
    """Neurons do not see each other, and a neuron alone has the bits that it has in its layer; so few samples
    are summed in one order, whatever the width.
    """
    events, inputs = make_linear_inputs(4, 40, 3, neurons, inputs=6)
    options = mode_options(("straight_through", True), [40, 33, 7])
    outputs = call(on_events(events), inputs, **options)
    assert outputs[0].count_nonzero() > 0
    arriving = make_output_gradients(4, outputs)
    made = gradients(on_events(events), inputs, [*arriving], **options)
    for n in {0, neurons // 2, neurons - 1, *range(15, neurons, 16)}:
        one = {name: x[..., n : n + 1] for name, x in inputs.items() if name not in ("values", "weight")}
        one = {"values": inputs["values"], "weight": inputs["weight"][n : n + 1], **one}
        assert_equal_outputs(
            call(on_events(events), one, **options),
            (outputs[0][..., n : n + 1], SRCState(*(x[:, n : n + 1] for x in outputs[1]))),
        )
        alone = gradients(on_events(events), one, [g[..., n : n + 1] for g in arriving], **options)
        assert torch.equal(alone["weight"][0], made["weight"][n])
        for name in ("bias", *STATE, *PARAMETERS):
            assert torch.equal(alone[name][..., 0], made[name][..., n]), name


def test_gradients_asked_for_one_by_one_are_those_asked_for_together() -> None:
    events, inputs = linear_case(10)
    options = mode_options(("relu", True), LENGTHS[10])
    for function, given in ((on_events(events), inputs), (on_dense("events"), densified(events, inputs))):
        arriving: list[Tensor | None] = [*make_output_gradients(10, call(function, given))]
        expected = gradients(function, given, arriving, **options)
        for name in given:
            leaves = requiring_grad(given)
            outputs = tensors_of(call(function, leaves, **options))
            (made,) = torch.autograd.grad(outputs, leaves[name], arriving)
            assert torch.equal(made, expected[name]), name
            alone = {**given, name: given[name].clone().requires_grad_()}
            outputs = tensors_of(call(function, alone, **options))
            (made,) = torch.autograd.grad(outputs, alone[name], arriving)
            assert torch.equal(made, expected[name]), name


@pytest.mark.parametrize("dense", [False, True], ids=["EventBatch", "dense"])
def test_double_backward_is_refused(dense: bool) -> None:
    events, inputs = linear_case(10)
    leaves = requiring_grad(densified(events, inputs) if dense else inputs)
    spikes, _ = call(on_dense("events") if dense else on_events(events), leaves)
    (grad,) = torch.autograd.grad(spikes.sum(), leaves["weight"], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(grad.sum(), leaves["weight"])


@pytest.mark.parametrize("name", ["weight", "values", "rho"])
def test_func_grad_is_the_gradient_or_refuses(name: str) -> None:
    events, inputs = linear_case(10)

    def total(x: Tensor) -> Tensor:
        spikes, state = call(on_events(events), {**inputs, name: x}, surrogate="relu", recurrent_grad=True)
        return spikes.square().sum() + state.h.sum()

    x = inputs[name].clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(x), x)
    assert expected.count_nonzero() > 0
    try:
        made = torch.func.grad(total)(inputs[name])
    except (NotImplementedError, RuntimeError) as refusal:
        assert str(refusal)
    else:
        assert torch.equal(made, expected)


# The operators


def operator_arguments(
    dtype: torch.dtype, present: bool, requires_grad: bool, mode: tuple[str, bool]
) -> tuple[EventBatch, Tensor, Layer]:
    """Events, the weight and the layer of an operator's call, optional tensors present or absent."""
    events, inputs = make_linear_inputs(5, 35, 2, 5, inputs=7, dtype=dtype)
    if requires_grad:
        inputs = requiring_grad(inputs)
    layer = make_layer(inputs, mode, [35, 7], present=present)
    return with_values(events, inputs["values"] if present else None), inputs["weight"], layer


optional_arguments = pytest.mark.parametrize("present", [True, False], ids=["optional present", "optional absent"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# opcheck looks at shapes, dtypes, strides, aliases and dispatch, which no mode changes.
MODE = ("straight_through", True)
WANTED_OF_CELL = ([True] * 6, [False] * 6, [True, False] * 3)


@optional_arguments
@dtypes
@pytest.mark.parametrize("save", [True, False])
def test_opcheck_of_src_events(save: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, save, MODE)
    arguments = (events.offsets, events.indices, events.values, weight, *layer.forward)
    options = {**layer.options, "steps": 35, "batch": 2, "save": save, "trace_integrator": present}
    torch.library.opcheck(torch.ops.srcell.src_events, arguments, options)


@optional_arguments
@dtypes
def test_opcheck_of_src_events_backward(dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, False, MODE)
    parts = (events.offsets, events.indices, events.values, weight)
    options = {**layer.options, "steps": 35, "batch": 2}
    for of_cell in WANTED_OF_CELL if present else ([False] * 6,):
        spikes, *state, trace, checkpoints = torch.ops.srcell.src_events(
            *parts, *layer.forward, **options, save=True, trace_integrator=any(of_cell)
        )
        given = [g if present else None for g in make_output_gradients(5, (spikes, SRCState(*state)))]
        for wanted in ([present, True], [False, False]):
            arguments = (*given, *parts, trace, checkpoints, *layer.synapse_backward)
            masked = {**options, "output_mask": wanted + of_cell}
            torch.library.opcheck(torch.ops.srcell.src_events_backward, arguments, masked)


@optional_arguments
@dtypes
@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_opcheck_of_src_dense(method: str, save: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, save, MODE)
    input = events.to_dense(dtype).detach().requires_grad_(save)
    for at_events in (True, False):
        options = {"method": method, "save": save, "trace_integrator": present, "input_grad_at_events": at_events}
        torch.library.opcheck(torch.ops.srcell.src_dense, (input, weight, *layer.forward), layer.options | options)


@optional_arguments
@dtypes
@pytest.mark.parametrize("at_events", [True, False])
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_opcheck_of_src_dense_backward(method: str, at_events: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, False, MODE)
    input = events.to_dense(dtype)
    options = {**layer.options, "input_grad_at_events": at_events}
    for of_cell in WANTED_OF_CELL if present else ([False] * 6,):
        spikes, *state, trace, checkpoints, mask, path = torch.ops.srcell.src_dense(
            input, weight, *layer.forward, **options, method=method, save=True, trace_integrator=any(of_cell)
        )
        assert path[0] == (method == "events")
        given = [g if present else None for g in make_output_gradients(5, (spikes, SRCState(*state)))]
        for wanted in ([True, True], [False, False]):
            arguments = (*given, input, weight, trace, checkpoints, mask, path, *layer.synapse_backward)
            masked = {**options, "output_mask": wanted + of_cell}
            torch.library.opcheck(torch.ops.srcell.src_dense_backward, arguments, masked)


@pytest.mark.parametrize("method", ["events", "gemm"])
@pytest.mark.parametrize("mode", MODES)
def test_both_ways_of_src_dense_have_the_gradients_of_the_reference(mode: tuple[str, bool], method: str) -> None:
    options = mode_options(mode, LENGTHS[10])
    inputs = densified(*linear_case(10))
    expected = call(reference_on_dense, inputs, **options)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]

    def operator(input: Tensor, weight: Tensor, bias: Tensor, state: SRCState, **cell: Any) -> Outputs:
        layer = make_layer({"bias": bias, **dict(zip(STATE, state, strict=True)), **cell}, mode, LENGTHS[10])
        spikes, i, h, hs, *_ = torch.ops.srcell.src_dense(
            *(input, weight, *layer.forward),
            **layer.options,
            method=method,
            save=True,
            trace_integrator=True,
            input_grad_at_events=False,
        )
        return spikes, SRCState(i, h, hs)

    assert_same_outputs(call(operator, inputs), expected)
    assert_same_gradients(
        gradients(operator, inputs, arriving), gradients(reference_on_dense, inputs, arriving, **options)
    )


# Sizes


# T, B, N and K.
EMPTY = [(0, 3, 5, 4), (7, 0, 5, 4), (7, 3, 0, 4), (7, 3, 5, 0), (0, 0, 0, 0), (7, 3, 0, 0)]


@pytest.mark.parametrize("recurrent_grad", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False], ids=["lengths", "whole"])
@pytest.mark.parametrize("method", [None, "gemm", "events", "auto"])
@pytest.mark.parametrize("sizes", EMPTY)
def test_empty_inputs_work(
    method: str | None, sizes: tuple[int, int, int, int], with_lengths: bool, recurrent_grad: bool
) -> None:
    steps, batch, neurons, width = sizes
    events, inputs = make_linear_inputs(6, steps, batch, neurons, inputs=width)
    function = on_events(events) if method is None else on_dense(method)
    inputs = inputs if method is None else densified(events, inputs)
    lengths = torch.full((batch,), steps // 2) if with_lengths else None
    options = {"lengths": lengths, "recurrent_grad": recurrent_grad}
    outputs = call(function, inputs, **options)
    assert outputs[0].shape == (steps, batch, neurons)
    assert all(x.shape == (batch, neurons) for x in outputs[1])
    arriving: list[Tensor | None] = [*make_output_gradients(6, outputs)]
    made = gradients(function, inputs, arriving, **options)
    if steps:
        reference = reference_on_events(events) if method is None else reference_on_dense
        expected = gradients(reference, inputs, arriving, **options)
    else:
        expected = {name: torch.zeros_like(x) for name, x in inputs.items()}
        expected |= zip(STATE, arriving[1:], strict=True)
    assert_same_gradients(made, expected)
    assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in inputs.items()}


def test_samples_without_events_are_driven_by_nothing() -> None:
    events = EventBatch(torch.zeros(3 * 30 + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), shape=(30, 3, 4))
    spikes, state = src_linear(events, torch.ones(5, 4), -4.0)
    expected, expected_state = src(torch.zeros(30, 3, 5), -4.0)
    assert expected.count_nonzero() > 0
    assert_equal_outputs((spikes, state), (expected, expected_state))


def test_events_of_one_input_in_one_step_add_up() -> None:
    offsets, weight = torch.tensor([0] * 20 + [3] * 11), torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    several = EventBatch(offsets, torch.tensor([0, 1, 0], dtype=torch.int32), shape=(30, 1, 2))
    one = EventBatch(
        torch.tensor([0] * 20 + [2] * 11),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([2.0, 1.0]),
        shape=(30, 1, 2),
    )
    expected = src_linear(one, weight, -6.0)
    assert expected[0].count_nonzero() > 0
    assert_equal_outputs(src_linear(several, weight, -6.0), expected)
    assert_equal_outputs(src_linear(several.to_dense(), weight, -6.0, method="events"), expected)


def test_absent_values_are_ones() -> None:
    events, inputs = linear_case(10)
    inputs["values"] = torch.ones_like(inputs["values"])
    expected = call(on_events(events), inputs)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    expected_gradients = gradients(on_events(events), inputs, arriving)
    del inputs["values"]

    def function(*layer: Any, **options: Any) -> Outputs:
        return src_linear(with_values(events, None), *layer, **options)

    assert_equal_outputs(call(function, inputs), expected)
    made = gradients(function, inputs, arriving)
    assert all(torch.equal(made[name], expected_gradients[name]) for name in made)


@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
def test_the_methods_of_an_event_batch_agree(method: str) -> None:
    events, inputs = linear_case(10)
    function: Function = lambda values, *layer, **options: src_linear(  # noqa: E731
        with_values(events, values), *layer, method=method, **options
    )
    expected = call(reference_on_events(events), inputs)
    assert_same_outputs(call(function, inputs), expected)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    assert_same_gradients(
        gradients(function, inputs, arriving), gradients(reference_on_events(events), inputs, arriving)
    )


@pytest.mark.parametrize(("of_values", "of_weight"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_values_are_computed_in_the_dtype_of_the_weight(of_values: torch.dtype, of_weight: torch.dtype) -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=of_weight)
    expected = call(on_events(events), inputs)
    assert expected[0].count_nonzero() > 0
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    mixed = {**inputs, "values": inputs["values"].to(of_values)}
    inputs["values"] = mixed["values"].to(of_weight)
    expected = call(on_events(events), inputs)
    assert_equal_outputs(call(on_events(events), mixed), expected)
    made, reference = gradients(on_events(events), mixed, arriving), gradients(on_events(events), inputs, arriving)
    assert made["values"].dtype == of_values
    assert torch.equal(made["values"], reference["values"].to(of_values))
    assert torch.equal(made["weight"], reference["weight"])


def test_any_memory_layout_gives_the_same_bits() -> None:
    inputs = densified(*linear_case(10))
    odd = {name: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for name, x in inputs.items()}
    odd["input"] = inputs["input"].transpose(0, 2).contiguous().transpose(0, 2)
    odd["weight"] = inputs["weight"].t().contiguous().t()
    expected = call(on_dense("events"), inputs)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    assert expected[0].count_nonzero() > 0
    assert_equal_outputs(call(on_dense("events"), odd), expected)
    events = EventBatch.from_dense(inputs["input"])
    of_weight = [
        gradients(function, given, arriving)["weight"]
        for function, given in (
            (on_dense("events"), inputs),
            (on_dense("events"), odd),
            (on_events(events), {"values": events.values, **{k: x for k, x in odd.items() if k != "input"}}),
        )
    ]
    assert torch.equal(of_weight[0], of_weight[1]) and torch.equal(of_weight[0], of_weight[2])


@pytest.mark.parametrize("method", [None, "events", "gemm"])
def test_no_output_aliases_an_input_or_another_output(method: str | None) -> None:
    events, inputs = linear_case(10)
    function = on_events(events) if method is None else on_dense(method)
    inputs = requiring_grad(inputs if method is None else densified(events, inputs))
    outputs = tensors_of(call(function, inputs))
    made = torch.autograd.grad(outputs, [*inputs.values()], [torch.ones_like(x) for x in outputs])
    addresses = [x.untyped_storage().data_ptr() for x in (*inputs.values(), *outputs, *made)]
    assert len(set(addresses)) == len(addresses)


# Bad input

STEPS, BATCH, INPUTS, NEURONS = 12, 3, 4, 5


def make_events(**options: Any) -> EventBatch:
    """An event of every input in every step, of float32 values."""
    return EventBatch.from_dense(torch.full((STEPS, BATCH, INPUTS), 0.5), **options)


def good_input(dense: bool) -> Any:
    return make_events().to_dense() if dense else make_events()


either_input = pytest.mark.parametrize("dense", [False, True], ids=["EventBatch", "dense"])


@either_input
@pytest.mark.parametrize("method", ["event", "", "mm", None, 1])
def test_an_unknown_method_is_refused(method: Any, dense: bool) -> None:
    assert_refused(ValueError, "method", src_linear, good_input(dense), torch.ones(5, 4), -6.0, method=method)


@either_input
@pytest.mark.parametrize("method", ["auto", "events"])
@pytest.mark.parametrize(
    ("error", "argument", "weight"),
    [
        (TypeError, "weight", None),
        (TypeError, "weight", [[1.0] * 4]),
        (ValueError, "weight", torch.ones(4)),
        (ValueError, "weight", torch.ones(1, 5, 4)),
        (ValueError, "input", torch.ones(4, 5)),
        (ValueError, "input", torch.ones(5, 0)),
        (ValueError, "input", torch.ones(5, 4, device="meta")),
    ],
)
def test_a_bad_weight_is_refused(error: type[Exception], argument: str, weight: Any, method: str, dense: bool) -> None:
    assert_refused(error, argument, src_linear, good_input(dense), weight, -6.0, method=method)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_weight_that_is_not_of_floats_is_refused(dtype: torch.dtype) -> None:
    weight = torch.ones(NEURONS, INPUTS, dtype=dtype)
    for input in (make_events(), make_events().to_dense().to(dtype)):
        assert_refused(TypeError, "weight", src_linear, input, weight, -6.0, method="events")


@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
@pytest.mark.parametrize(
    ("error", "input"),
    [
        (TypeError, None),
        (TypeError, [[[1.0] * 4]]),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.float64)),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.complex64)),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.float16)),
        (ValueError, torch.ones(STEPS, BATCH, 3)),
        (ValueError, torch.ones(BATCH, 4)),
        (ValueError, torch.ones(STEPS, BATCH, 1, 4)),
        (ValueError, torch.ones(STEPS, BATCH, 4, device="meta")),
        (ValueError, EventBatch.from_dense(torch.ones(STEPS, BATCH, 3))),
    ],
)
def test_a_bad_input_is_refused(error: type[Exception], input: Any, method: str) -> None:
    assert_refused(error, "input", src_linear, input, torch.ones(NEURONS, INPUTS), -6.0, method=method)


def test_events_on_another_device_than_the_weight_are_refused() -> None:
    for method in ("auto", "events"):
        assert_refused(ValueError, "input", src_linear, make_events().to("meta"), torch.ones(5, 4), -6.0, method=method)


@either_input
@pytest.mark.parametrize("name", ["bias", *PARAMETERS])
@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TypeError, "0.5"),
        (TypeError, None),
        (TypeError, torch.full((NEURONS,), 0.5, dtype=torch.float64)),
        (ValueError, torch.full((NEURONS,), 0.5, device="meta")),
        (ValueError, torch.full((NEURONS + 1,), 0.5)),
        (ValueError, float("nan")),
        (ValueError, torch.tensor(float("inf"))),
    ],
)
def test_a_bad_parameter_is_refused(error: type[Exception], value: Any, name: str, dense: bool) -> None:
    arguments = {"bias": -6.0, name: value}
    assert_refused(
        error, name, src_linear, good_input(dense), torch.ones(NEURONS, INPUTS), method="events", **arguments
    )


@either_input
@pytest.mark.parametrize(
    ("error", "lengths"),
    [
        (ValueError, [STEPS + 1, 0, 0]),
        (ValueError, [STEPS, -1, 0]),
        (ValueError, [STEPS, STEPS]),
        (ValueError, torch.zeros(BATCH, dtype=torch.int64, device="meta")),
        (TypeError, [1.0, 2.0, 3.0]),
    ],
)
def test_bad_lengths_are_refused(error: type[Exception], lengths: Any, dense: bool) -> None:
    assert_refused(
        error, "lengths", src_linear, good_input(dense), torch.ones(5, 4), -6.0, method="events", lengths=lengths
    )


@either_input
@pytest.mark.parametrize(
    ("error", "x"),
    [
        (ValueError, torch.zeros(BATCH, NEURONS + 1)),
        (ValueError, torch.zeros(1, NEURONS)),
        (TypeError, torch.zeros(BATCH, NEURONS, dtype=torch.float64)),
    ],
)
def test_a_bad_state_is_refused(error: type[Exception], x: Tensor, dense: bool) -> None:
    state = (torch.zeros(BATCH, NEURONS), x, torch.zeros(BATCH, NEURONS))
    assert_refused(error, "state", src_linear, good_input(dense), torch.ones(5, 4), -6.0, state, method="events")


@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
def test_lengths_are_the_batchs_or_the_calls_not_both(method: str) -> None:
    lengths = torch.tensor([12, 0, 5])
    events = make_events(lengths=lengths)
    weight = torch.ones(NEURONS, INPUTS)
    for given in (lengths, [12, 12, 12]):
        assert_refused(ValueError, "lengths", src_linear, events, weight, -4.0, method=method, lengths=given)
    made = src_linear(events, weight, -4.0, method=method)
    expected = src_linear(make_events(), weight, -4.0, method=method, lengths=lengths)
    assert expected[0][:, 0].count_nonzero() > 0
    assert expected[0][:, 1].count_nonzero() == expected[0][5:, 2].count_nonzero() == 0
    assert_equal_outputs(made, expected)


ALTERATIONS: dict[str, tuple[str, Callable[[EventBatch], None]]] = {
    "index beyond K": ("indices", lambda batch: batch.indices.data.__setitem__(77, INPUTS)),
    "huge index": ("indices", lambda batch: batch.indices.data.__setitem__(-1, 2**31 - 1)),
    "negative index": ("indices", lambda batch: batch.indices.data.__setitem__(0, -1)),
    "descending offsets": ("offsets", lambda batch: batch.offsets.data.__setitem__(14, 0)),
    "offsets beyond the events": ("offsets", lambda batch: batch.offsets.data.__setitem__(-1, 10**15)),
    "one offset beyond the next sample's": ("offsets", lambda batch: batch.offsets.data.__setitem__(20, 2**62)),
    "negative offset": ("offsets", lambda batch: batch.offsets.data.__setitem__(0, -(2**62))),
}


def assert_alteration_is_refused(argument: str, function: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*, got .*altered after it was made"):
        function()


@pytest.mark.parametrize("neurons", [1, 130])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_after_it_was_made_is_refused(alteration: str, neurons: int) -> None:
    events, weight = make_events(), torch.ones(neurons, INPUTS)
    src_linear(events, weight, -6.0)
    argument, alter = ALTERATIONS[alteration]
    alter(events)
    assert_alteration_is_refused(argument, lambda: src_linear(events, weight, -6.0))
    src_linear(make_events(), weight, -6.0)


@pytest.mark.parametrize("wanted", ["weight", "values", "bias"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_before_the_backward_pass_is_refused(alteration: str, wanted: str) -> None:
    events = make_events()
    assert events.values is not None
    leaves = {"weight": torch.ones(130, INPUTS), "values": events.values, "bias": torch.full((130,), -6.0)}
    leaf = leaves[wanted].requires_grad_()
    spikes, _ = src_linear(events, leaves["weight"], leaves["bias"])
    argument, alter = ALTERATIONS[alteration]
    alter(events)
    assert_alteration_is_refused(argument, lambda: torch.autograd.grad(spikes.sum(), leaf))


def test_autograd_sees_an_alteration_in_torchs_own_way() -> None:
    events, weight = make_events(), torch.ones(NEURONS, INPUTS, requires_grad=True)
    spikes, _ = src_linear(events, weight, -6.0)
    events.indices[3] = 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


# Numbers that are none


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("way", ["EventBatch", "dense"])
def test_what_is_no_number_in_a_value_spreads_to_that_samples_later_outputs_alone(way: str, value: float) -> None:
    events, inputs = make_linear_inputs(7, 40, 3, 20, inputs=6, dtype=torch.float32)
    events = EventBatch.from_dense(events.to_dense())
    layer = {name: x for name, x in inputs.items() if name != "values"}
    step = 20
    row = 1 * 40 + step
    assert events.values is not None and events.offsets[row] < events.offsets[row + 1]
    event = int(events.offsets[row])

    def run(values: Tensor, dense: Tensor) -> tuple[Outputs, Inputs]:
        batch = EventBatch(events.offsets, events.indices, events.values.clone(), shape=events.shape)  # type: ignore[union-attr]
        batch.values.copy_(values)  # type: ignore[union-attr]
        if way == "dense":
            given, function = {"input": dense, **layer}, on_dense("events")
        else:
            given = layer
            function = lambda *args, **options: src_linear(batch, *args, **options)  # noqa: E731
        outputs = call(function, given)
        return outputs, gradients(function, given, [*make_output_gradients(7, outputs)])

    dense = events.to_dense()
    clean, clean_gradients = run(events.values, dense)
    dirty_values, dirty_dense = events.values.clone(), dense.clone()
    dirty_values[event] = value
    dirty_dense[step, 1, events.indices[event]] = value
    made, made_gradients = run(dirty_values, dirty_dense)
    if value != value:
        assert made[0][step:, 1].isnan().all() and all(x[1].isnan().all() for x in made[1])
    others = torch.tensor([0, 2])
    assert clean[0].count_nonzero() > 0
    assert torch.equal(made[0][:step, 1], clean[0][:step, 1])
    assert torch.equal(made[0][:, others], clean[0][:, others])
    assert all(torch.equal(x[others], y[others]) for x, y in zip(made[1], clean[1], strict=True))
    for name in STATE:
        assert torch.equal(made_gradients[name][others], clean_gradients[name][others]), name
    if way == "dense":
        assert torch.equal(made_gradients["input"][:, others], clean_gradients["input"][:, others])


def test_what_lies_past_a_samples_end_changes_nothing() -> None:
    inputs = densified(*linear_case(10))
    options = {"lengths": LENGTHS[10], "recurrent_grad": True}
    clean = call(on_dense("events"), inputs, **options)
    arriving: list[Tensor | None] = [*make_output_gradients(10, clean)]
    clean_gradients = gradients(on_dense("events"), inputs, arriving, **options)
    assert clean[0].count_nonzero() > 0
    dirty = inputs["input"].clone()
    dirty[:, 1], dirty[13:, 2] = torch.nan, torch.inf
    inputs["input"] = dirty
    assert_equal_outputs(call(on_dense("events"), inputs, **options), clean)
    made = gradients(on_dense("events"), inputs, arriving, **options)
    for name, x in clean_gradients.items():
        assert torch.equal(made[name], x), name


@pytest.mark.parametrize("fires", [0.0, 0.01, 0.9])
def test_auto_goes_the_way_that_the_cost_model_expects_to_be_faster(fires: float) -> None:
    sizes = (10, 4, 300, 100)
    input = (noise(12, *sizes[:3], dtype=torch.float32) > 1 - 2 * fires).float()
    density = input.count_nonzero().item() / input.numel()
    layer = make_layer({"bias": torch.tensor(-6.0)}, ("relu", False))
    weight = noise(13, sizes[3], sizes[2], dtype=torch.float32)
    *_, path = torch.ops.srcell.src_dense(
        *(input, weight, *layer.forward),
        **layer.options,
        method="auto",
        save=True,
        trace_integrator=False,
        input_grad_at_events=False,
    )
    assert path[0] == events_are_faster(sizes[2], density) == (fires < 0.5)


# What torch does with it


@pytest.mark.parametrize("with_values_", [True, False], ids=["values", "ones"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_a_full_graph_it_is_what_it_is_in_eager_mode(
    backend: str, with_values_: bool, request: pytest.FixtureRequest
) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    events, inputs = make_linear_inputs(8, 40, 3, 20, inputs=6, dtype=torch.float32)
    lengths = torch.tensor([40, 0, 17])
    options: dict[str, Any] = {"recurrent_grad": True, "lengths": lengths}
    names = [name for name in inputs if with_values_ or name != "values"]

    def function(batch: EventBatch, *tensors: Tensor) -> Outputs:
        given = {name: x for name, x in zip(names, tensors, strict=True) if name != "values"}
        return call(lambda *args, **options: src_linear(batch, *args, **options), given, **options)

    results = []
    for f in (function, torch.compile(function, fullgraph=True, backend=backend)):
        leaves = {name: inputs[name].clone().requires_grad_() for name in names}
        batch = with_values(events, leaves.get("values"))
        outputs = tensors_of(f(batch, *leaves.values()))
        arriving = make_output_gradients(8, (outputs[0], SRCState(*outputs[1:])))
        results.append([*outputs, *torch.autograd.grad(outputs, [*leaves.values()], arriving)])
        with torch.no_grad():
            results[-1] += tensors_of(f(with_values(events, batch.values), *leaves.values()))
    assert results[0][0].count_nonzero() > 0
    for eager, made in zip(*results, strict=True):
        assert torch.equal(made, eager)
        assert made.stride() == eager.stride()


def test_one_graph_serves_batches_of_other_sizes() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(src_linear, fullgraph=True, backend="aot_eager", dynamic=True)
    for steps, batch in ((20, 3), (33, 2), (7, 5)):
        events, inputs = make_linear_inputs(9, steps, batch, 6, inputs=4, dtype=torch.float32)
        for given in (events, events.to_dense()):
            assert_equal_outputs(compiled(given, inputs["weight"], -6.0), src_linear(given, inputs["weight"], -6.0))


@pytest.mark.parametrize("full", [False, True])
def test_compiled_on_a_dense_input_auto_is_auto(full: bool) -> None:
    torch._dynamo.reset()
    events, inputs = make_linear_inputs(8, 40, 3, 100, inputs=200, dtype=torch.float32)
    inputs = densified(events, inputs)
    if full:
        inputs["input"] = torch.ones_like(inputs["input"])
    compiled = torch.compile(on_dense("auto"), fullgraph=True, backend="aot_eager")
    results = []
    for function in (on_dense("auto"), compiled):
        leaves = requiring_grad(inputs)
        outputs = tensors_of(call(function, leaves))
        results.append([*outputs, *torch.autograd.grad(outputs[0].sum(), [leaves["weight"], leaves["input"]])])
    assert results[0][0].count_nonzero() > 0
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@either_input
def test_half_precision_is_computed_in_float32(dense: bool, dtype: torch.dtype) -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=torch.float32)
    halves = {name: x.to(dtype) for name, x in inputs.items()}
    events = with_values(events, halves["values"].float())
    if dense:
        function, halves = on_dense("events"), {"input": events.to_dense().to(dtype), **halves}
        del halves["values"]
    else:
        del halves["values"]
        function = lambda *args, **options: src_linear(events, *args, **options)  # noqa: E731
    expected = call(function, {name: x.float() for name, x in halves.items()})
    leaves = {name: x.requires_grad_() for name, x in halves.items()}
    spikes, state = call(function, leaves)
    assert expected[0].count_nonzero() > 0
    assert spikes.dtype == dtype and all(x.dtype == torch.float32 for x in state)
    assert_equal_outputs((spikes, state), (expected[0].to(dtype), expected[1]))
    (spikes.sum() + state.h.sum()).backward()
    assert all(x.grad is not None and x.grad.dtype == dtype for x in leaves.values())


def test_under_autocast_events_are_computed_in_float32() -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=torch.float32)
    expected = call(on_events(events), inputs)
    assert expected[0].count_nonzero() > 0
    with torch.autocast("cpu", torch.bfloat16):
        made = call(on_events(events), inputs)
        of_dense = call(on_dense("events"), densified(events, inputs))
    assert made[0].dtype == of_dense[0].dtype == torch.float32
    assert_equal_outputs(made, expected)
    assert_equal_outputs(of_dense, call(on_dense("events"), densified(events, inputs)))


def test_under_autocast_a_half_weight_still_gives_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for dense in (False, True):
            spikes, state = src_linear(good_input(dense), torch.ones(5, 4, dtype=torch.bfloat16), -6.0)
            assert spikes.dtype == state.h.dtype == torch.float32


def test_running_a_module_on_events_leaves_nothing_in_it() -> None:
    torch.manual_seed(0)
    layer = SRC(6, 8, 2, learnable=["alpha"], initial_state="rest")
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    events, _ = make_linear_inputs(11, 30, 3, 8, inputs=6, dtype=torch.float32)
    spikes, state = layer(events)
    (spikes.sum() + state.i.sum()).backward()
    assert {name for name, _ in layer.named_parameters()} == set(before) - {"_extra_state"}
    assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())
    twin = copy.deepcopy(layer)
    assert spikes.count_nonzero() > 0
    assert_equal_outputs(twin(events), (spikes, state))
    other = SRC(6, 8, 2, learnable=["alpha"], initial_state="rest")
    other.load_state_dict(before)
    assert_equal_outputs(other(events), (spikes, state))
