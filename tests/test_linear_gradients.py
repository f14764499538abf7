"""Gradients of ``src_linear``, on an EventBatch and on dense inputs: the derivative of the forward pass, and in all
four modes the gradients of the reference. Unsupported kinds of differentiation raise.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import SRCState, src, src_linear
from support.calls import NEW_TORCH
from support.gradients import (
    assert_same_gradients,
    gradients,
    make_output_gradients,
    membrane,
    moved_by_one_ulp,
    relative_error,
    requiring_grad,
)
from support.inputs import MODES, PARAMETERS, STATE, Outputs, call, make_layer, make_linear_inputs, noise, with_values
from support.linear import (
    LENGTHS,
    SHAPES,
    assert_equal_outputs,
    assert_same_outputs,
    densified,
    linear_case,
    mode_options,
    on_dense,
    on_dense_at_events,
    on_events,
    reference_on_dense,
    reference_on_events,
    tensors_of,
)


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("seed", SHAPES)
def test_premise_the_short_traces_are_well_conditioned(seed: int, per_neuron: bool) -> None:
    """As in test_gradients.py: if one ulp in every input changes at most 2e-13, rounding cannot cause 1e-12."""
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
    """With weights of few bits, sums of binary events are exact in any order, so that only the order in which gradients
    are summed may make a difference."""
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
    # Two sums of at most n products differ by at most 2 n roundings of the sum of their absolute values.
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
    """Neurons are independent, and a neuron alone has the bits that it has in its layer: so few samples are summed in
    the same order whatever the width.
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
def test_func_grad_is_the_gradient(name: str) -> None:
    events, inputs = linear_case(10)

    def total(x: Tensor) -> Tensor:
        spikes, state = call(on_events(events), {**inputs, name: x}, surrogate="relu", recurrent_grad=True)
        return spikes.square().sum() + state.h.sum()

    x = inputs[name].clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(x), x)
    assert expected.count_nonzero() > 0
    assert torch.equal(torch.func.grad(total)(inputs[name]), expected)


@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 has no vmap of operators of lists")
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_per_sample_gradients_are_those_of_each_sample(method: str) -> None:
    x = (noise(5, 30, 4, 6) > 0.6).double()
    weight, bias = noise(6, 5, 6), torch.full((5,), -5.0, dtype=torch.float64)

    def total(weight: Tensor, sample: Tensor) -> Tensor:
        return src_linear(sample[:, None], weight, bias, method=method)[0].square().sum()

    made = torch.func.vmap(torch.func.grad(total), (None, 1))(weight, x)
    expected = torch.stack([torch.func.grad(total)(weight, x[:, k]) for k in range(4)])
    assert expected.count_nonzero() > 0
    assert torch.equal(made, expected)
