"""Gradients of ``src`` are exact: the mode ("relu", True) gives the derivative of the forward pass, and all four modes
equal autograd of the eager reference for every differentiable argument, with and without lengths, for incoming
gradients at any output. Unsupported kinds of differentiation raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import SRCState
from srcell.reference import src_reference
from support.gradients import (
    assert_same_gradients,
    gradients,
    largest,
    make_output_gradients,
    membrane,
    moved_by_one_ulp,
    relative_error,
    requiring_grad,
)
from support.inputs import MODES, STATE, call, make_inputs

# By seed: (T, B, N) of the traces on which an error of at most 1e-12 is required.
SHAPES = {1: (20, 3, 5), 3: (20, 3, 5), 4: (17, 2, 9), 8: (16, 4, 1), 5: (5, 1, 20)}
LENGTHS = {1: [20, 0, 13], 3: [7, 20, 16], 4: [1, 17], 8: [15, 16, 0, 7], 5: [4]}
ARRIVING = {"spikes": (True, False), "state": (False, True), "spikes and state": (True, True)}


@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("lengths", [None, [12, 7]])
@pytest.mark.parametrize("function", [srcell.src, src_reference])
def test_relu_with_recurrence_is_the_derivative_of_the_forward_pass(
    function: Callable[..., Any], lengths: list[int] | None, per_neuron: bool
) -> None:
    inputs = requiring_grad(make_inputs(5, 12, 2, 3, per_neuron=per_neuron))
    h = membrane(inputs)
    assert (h > 0.5).sum() >= 3
    assert h.abs().min() > 1e-3

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(inputs, tensors, strict=True))
        spikes, state = call(function, given, surrogate="relu", recurrent_grad=True, lengths=lengths)
        return (spikes, *state)

    assert torch.autograd.gradcheck(outputs, tuple(inputs.values()))


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("seed", SHAPES)
def test_premise_the_short_traces_are_well_conditioned(seed: int, per_neuron: bool) -> None:
    """Two correct orders of operations differ by up to five times the effect of a change of every input by one ulp. If
    that effect is at most 2e-13, rounding alone cannot exceed the promised 1e-12; a neuron near its threshold exceeds
    it within 20 steps.
    """
    inputs = make_inputs(seed, *SHAPES[seed], per_neuron=per_neuron)
    arriving: list[Tensor | None] = [*make_output_gradients(seed, call(src_reference, inputs))]
    options = {"surrogate": "straight_through", "recurrent_grad": True}
    expected = gradients(src_reference, inputs, arriving, **options)
    for draw in range(3):
        moved = {name: moved_by_one_ulp(x, draw) for name, x in inputs.items()}
        made = gradients(src_reference, moved, arriving, **options)
        assert all(relative_error(made[name], expected[name]) <= 2e-13 for name in expected)


@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("arriving", ARRIVING)
@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
def test_every_mode_equals_autograd_of_the_reference(
    surrogate: str, recurrent_grad: bool, seed: int, with_lengths: bool, arriving: str, per_neuron: bool
) -> None:
    options: dict[str, Any] = {"surrogate": surrogate, "recurrent_grad": recurrent_grad}
    if with_lengths:
        options["lengths"] = torch.tensor(LENGTHS[seed])
    inputs = make_inputs(seed, *SHAPES[seed], per_neuron=per_neuron)
    outputs = call(srcell.src, inputs, **options)
    expected = call(src_reference, inputs, **options)
    assert outputs[0].count_nonzero() > 0
    for output, reference_output in zip((outputs[0], *outputs[1]), (expected[0], *expected[1]), strict=True):
        assert relative_error(output, reference_output) <= 1e-12
    to_spikes, to_state = ARRIVING[arriving]
    g_spikes, *g_state = make_output_gradients(seed, outputs)
    given = [g_spikes if to_spikes else None, *(g if to_state else None for g in g_state)]
    ours, reference = (gradients(f, inputs, given, **options) for f in (srcell.src, src_reference))
    assert reference["current"].count_nonzero() > 0
    assert_same_gradients(ours, reference)


@pytest.mark.parametrize("target", range(3), ids=SRCState._fields)
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
def test_a_gradient_may_arrive_at_one_tensor_of_the_state(surrogate: str, recurrent_grad: bool, target: int) -> None:
    options = {"surrogate": surrogate, "recurrent_grad": recurrent_grad}
    inputs = make_inputs(6, 18, 2, 5)
    given: list[Tensor | None] = [None] * 4
    given[1 + target] = make_output_gradients(6, call(srcell.src, inputs))[1 + target]
    assert_same_gradients(*(gradients(f, inputs, given, **options) for f in (srcell.src, src_reference)))


@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
def test_over_220_steps_they_differ_by_what_rounding_explains(
    surrogate: str, recurrent_grad: bool, with_lengths: bool
) -> None:
    """Spikes are threshold events, so rounding errors grow along the trace. Their growth is measured by the effect of
    the smallest change of the currents, one ulp in random directions, on the reference's own gradients.
    """
    options: dict[str, Any] = {"surrogate": surrogate, "recurrent_grad": recurrent_grad}
    if with_lengths:
        options["lengths"] = torch.tensor([220, 150])
    inputs = make_inputs(7, 220, 2, 10)
    outputs = call(srcell.src, inputs, **options)
    assert (outputs[0] > 0.5).sum() > 100
    arriving: list[Tensor | None] = [*make_output_gradients(7, outputs)]
    expected = gradients(src_reference, inputs, arriving, **options)
    change = dict.fromkeys(expected, 0.0)
    for draw in range(4):
        moved = {**inputs, "current": moved_by_one_ulp(inputs["current"], draw)}
        perturbed = gradients(src_reference, moved, arriving, **options)
        change = {name: max(change[name], largest(perturbed[name] - expected[name])) for name in expected}
    ours = gradients(srcell.src, inputs, arriving, **options)
    for name, allowed in change.items():
        error = largest(ours[name] - expected[name])
        assert error <= 100 * allowed, f"{name}: {error:.2e}, one ulp makes {allowed:.2e}"


@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
def test_a_sequence_in_chunks_has_the_gradients_of_the_whole(
    surrogate: str, recurrent_grad: bool, with_lengths: bool
) -> None:
    options = {"surrogate": surrogate, "recurrent_grad": recurrent_grad}
    steps, cuts = 40, [5, 16, 21, 40]
    lengths = torch.tensor([40, 0, 18]) if with_lengths else torch.tensor([steps] * 3)
    inputs = make_inputs(8, steps, 3, 6)

    def in_chunks(
        current: Tensor, bias: Tensor, state: SRCState, *, lengths: Tensor, **keywords: Any
    ) -> tuple[Tensor, SRCState]:
        spikes, begin = [], 0
        for end in cuts:
            left = (lengths - begin).clamp(0, end - begin)
            made, state = srcell.src(current[begin:end], bias, state, lengths=left, **keywords)
            spikes.append(made)
            begin = end
        return torch.cat(spikes), state

    outputs = call(srcell.src, inputs, lengths=lengths)
    assert outputs[0].count_nonzero() > 0
    arriving: list[Tensor | None] = [*make_output_gradients(8, outputs)]
    whole = gradients(srcell.src, inputs, arriving, lengths=lengths, **options)
    chunks = gradients(in_chunks, inputs, arriving, lengths=lengths, **options)
    for name in ("current", *STATE):
        assert torch.equal(chunks[name], whole[name]), name
    assert_same_gradients(chunks, whole)  # sums over steps are in another order


@pytest.mark.parametrize("surrogate", ["relu", "straight_through"])
def test_without_recurrence_only_the_final_step_reaches_the_slow_parameters_and_nothing_the_initial_h(
    surrogate: str,
) -> None:
    inputs = make_inputs(9, 18, 3, 5)
    arriving: list[Tensor | None] = [*make_output_gradients(9, call(srcell.src, inputs))]
    made = gradients(srcell.src, inputs, arriving, surrogate=surrogate)
    assert made["h0"].count_nonzero() == made["hs0"].count_nonzero() == 0
    assert made["i0"].count_nonzero() == made["i0"].numel()
    assert made["zs_hyp"].count_nonzero() == made["zs_dep"].count_nonzero() == 5
    made = gradients(srcell.src, inputs, [arriving[0], None, None, None], surrogate=surrogate)
    assert made["zs_hyp"].count_nonzero() == made["zs_dep"].count_nonzero() == 0


@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
def test_a_sample_without_steps_hands_the_gradient_of_its_state_through(surrogate: str, recurrent_grad: bool) -> None:
    options: dict[str, Any] = {"surrogate": surrogate, "recurrent_grad": recurrent_grad}
    inputs = make_inputs(10, 6, 2, 5)
    arriving: list[Tensor | None] = [*make_output_gradients(10, call(srcell.src, inputs))]
    made = gradients(srcell.src, inputs, arriving, lengths=[0, 6], **options)
    assert made["current"][:, 0].count_nonzero() == 0
    for name, arrived in zip(STATE, arriving[1:], strict=True):
        assert arrived is not None
        assert torch.equal(made[name][0], arrived[0])


def test_only_what_requires_a_gradient_gets_one() -> None:
    whole = make_inputs(11, 18, 2, 5)
    arriving: list[Tensor | None] = [*make_output_gradients(11, call(srcell.src, whole))]
    expected = gradients(srcell.src, whole, arriving, recurrent_grad=True)
    for name in whole:
        alone = dict(whole)
        alone[name] = alone[name].clone().requires_grad_()
        spikes, state = call(srcell.src, alone, recurrent_grad=True)
        torch.autograd.backward([spikes, *state], arriving)
        assert alone[name].grad is not None
        assert torch.equal(alone[name].grad, expected[name]), name


def test_double_backward_is_refused() -> None:
    inputs = requiring_grad(make_inputs(12, 10, 2, 3))
    spikes, _ = call(srcell.src, inputs)
    (grad,) = torch.autograd.grad(spikes.sum(), inputs["current"], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(grad.sum(), inputs["current"])


def values_or_refusal(compute: Callable[[], Tensor]) -> Tensor | None:
    """The result, or None if torch or the operator refuses with a message."""
    try:
        return compute()
    except (NotImplementedError, RuntimeError) as refusal:
        assert str(refusal)
        return None


def total(current: Tensor) -> Tensor:
    inputs = make_inputs(13, 18, 2, 5)
    spikes, state = call(srcell.src, {**inputs, "current": current}, surrogate="relu", recurrent_grad=True)
    return spikes.square().sum() + state.h.sum()


def test_func_grad_is_the_gradient() -> None:
    current = make_inputs(13, 18, 2, 5)["current"].requires_grad_()
    (expected,) = torch.autograd.grad(total(current), current)
    assert torch.equal(torch.func.grad(total)(current.detach()), expected)
    _, pull = torch.func.vjp(total, current.detach())
    assert torch.equal(pull(torch.ones((), dtype=expected.dtype))[0], expected)


def test_func_jacrev_is_the_jacobian() -> None:
    bias = make_inputs(13, 18, 2, 5)["bias"]

    def rates(bias: Tensor) -> Tensor:
        inputs = make_inputs(13, 18, 2, 5) | {"bias": bias}
        return call(srcell.src, inputs, surrogate="relu", recurrent_grad=True)[0].sum((0, 1))

    expected = torch.autograd.functional.jacobian(rates, bias)
    assert expected.count_nonzero() > 0
    assert torch.equal(torch.func.jacrev(rates)(bias), expected)


@pytest.mark.parametrize(
    "nested", [torch.func.hessian, lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).sum())]
)
def test_second_derivatives_of_func_are_refused(nested: Callable[..., Any]) -> None:
    current = make_inputs(13, 18, 2, 5)["current"]
    with pytest.raises(RuntimeError, match=r"double backward|forward-mode"):
        nested(total)(current)


def test_func_vmap_is_the_loop_or_refuses() -> None:
    currents = torch.stack([make_inputs(seed, 18, 2, 5)["current"] for seed in (13, 14, 15)])
    made = values_or_refusal(lambda: torch.func.vmap(total)(currents))
    assert made is None or torch.equal(made, torch.stack([total(c) for c in currents]))


def test_func_jvp_is_the_derivative_or_refuses() -> None:
    current = make_inputs(13, 18, 2, 5)["current"].requires_grad_()
    direction = make_inputs(14, 18, 2, 5)["current"]
    (grad,) = torch.autograd.grad(total(current), current)
    made = values_or_refusal(lambda: torch.func.jvp(total, (current.detach(),), (direction,))[1])
    expected = (grad * direction).sum()
    # The same sum of 180 products in two orders.
    assert made is None or abs(made - expected) <= 180 * 2**-52 * (grad * direction).abs().sum()
