"""Gradients of ``src`` and ``src_linear`` are exact: the mode ("relu", True) gives the derivative of the forward pass,
and all four modes equal autograd of the eager reference for every differentiable argument, with and without lengths,
for grad_outputs at any output. Unsupported kinds of differentiation raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import SRCState, src
from srcell.reference import src_reference
from support.gradients import (
    assert_close,
    gradients,
    in_pieces,
    largest,
    make_output_gradients,
    membrane,
    moved_by_one_ulp,
    relative_error,
    requiring_grad,
    results,
)
from support.inputs import MODES, STATE, call, make_inputs, noise
from support.linear import KINDS, LENGTHS, OPERATORS, SHAPES, mode_options, problem, tensors_of, trace

either_length = pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
either_parameter = pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
every_mode = pytest.mark.parametrize("mode", MODES)


@either_parameter
@pytest.mark.parametrize("lengths", [None, [12, 7]])
@pytest.mark.parametrize("kind", ["reference", *OPERATORS])
def test_relu_with_recurrence_is_the_derivative_of_the_forward_pass(
    kind: str, lengths: list[int] | None, per_neuron: bool
) -> None:
    function, reference, inputs = problem("src" if kind == "reference" else kind, 5, (12, 2, 3), per_neuron=per_neuron)
    h = membrane(reference, inputs)
    assert (h > 0.5).sum() >= 3
    assert h.abs().min() > 1e-3
    assert kind != "events" or (inputs["input"] == 0).any()

    def outputs(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(inputs, tensors, strict=True))
        chosen = reference if kind == "reference" else function
        return tensors_of(call(chosen, given, surrogate="relu", full_gradient=True, lengths=lengths))

    assert torch.autograd.gradcheck(outputs, tuple(requiring_grad(inputs).values()))


@either_parameter
@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize("kind", ["src", "EventBatch"])
def test_premise_the_short_traces_are_well_conditioned(kind: str, seed: int, per_neuron: bool) -> None:
    """Two correct orders of operations differ by up to five times the effect of a change of every input by one ulp. If
    that effect is at most 2e-13, rounding alone cannot exceed the promised 1e-12; a neuron near its threshold exceeds
    2e-13 within 20 steps.
    """
    _, reference, inputs = trace(kind, seed, per_neuron)
    expected = results(reference, inputs, seed, full_gradient=True)
    assert (expected["spikes"] > 0.5).sum() >= 8
    for draw in range(3):
        moved = {name: moved_by_one_ulp(x, draw) for name, x in inputs.items()}
        made = results(reference, moved, seed, full_gradient=True)
        assert all(relative_error(made[name], x) <= 2e-13 for name, x in expected.items() if "gradient" in name)


@either_parameter
@either_length
@pytest.mark.parametrize("seed", SHAPES)
@every_mode
@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_equals_autograd_of_the_reference(
    kind: str, mode: tuple[str, bool], seed: int, with_lengths: bool, per_neuron: bool
) -> None:
    function, reference, inputs = trace(kind, seed, per_neuron)
    options = mode_options(mode, LENGTHS[seed] if with_lengths else None)
    to_spikes, *to_state = make_output_gradients(seed, call(reference, inputs))
    for grad_outputs in ([to_spikes, None, None, None], [None, *to_state], [to_spikes, *to_state]):
        expected = results(reference, inputs, grad_outputs=grad_outputs, **options)
        assert expected["gradient of current" if kind == "src" else "gradient of weight"].count_nonzero() > 0
        assert_close(results(function, inputs, grad_outputs=grad_outputs, **options), expected)


@pytest.mark.parametrize("target", range(1, 4), ids=SRCState._fields)
@every_mode
def test_a_gradient_may_come_from_one_tensor_of_the_final_state_alone(mode: tuple[str, bool], target: int) -> None:
    options, inputs = mode_options(mode, None), make_inputs(6, 18, 2, 5)
    grad_outputs: list[Tensor | None] = [None] * 4
    grad_outputs[target] = make_output_gradients(6, call(src, inputs))[target]
    assert_close(*(results(f, inputs, grad_outputs=grad_outputs, **options) for f in (src, src_reference)))


@either_length
@every_mode
def test_over_220_steps_gradients_differ_only_by_rounding(mode: tuple[str, bool], with_lengths: bool) -> None:
    """Spikes are threshold events, so rounding errors grow along the sequence. Their growth is measured by the effect
    of the smallest change of the currents, one ulp in random directions, on the reference's own gradients.
    """
    options = mode_options(mode, [220, 150] if with_lengths else None)
    inputs = make_inputs(7, 220, 2, 10)
    outputs = call(src, inputs, **options)
    assert (outputs[0] > 0.5).sum() > 100
    grad_outputs = make_output_gradients(7, outputs)
    expected = gradients(src_reference, inputs, grad_outputs, **options)
    change = dict.fromkeys(expected, 0.0)
    for draw in range(4):
        moved = {**inputs, "current": moved_by_one_ulp(inputs["current"], draw)}
        perturbed = gradients(src_reference, moved, grad_outputs, **options)
        change = {name: max(change[name], largest(perturbed[name] - expected[name])) for name in expected}
    made = gradients(src, inputs, grad_outputs, **options)
    for name, allowed in change.items():
        error = largest(made[name] - expected[name])
        assert error <= 100 * allowed, f"{name}: {error:.2e}, one ulp makes {allowed:.2e}"


@either_length
@every_mode
def test_a_sequence_in_pieces_has_the_gradients_of_the_whole(mode: tuple[str, bool], with_lengths: bool) -> None:
    options = mode_options(mode, None) | {"lengths": torch.tensor([40, 0, 18] if with_lengths else [40] * 3)}
    inputs = make_inputs(8, 40, 3, 6)
    whole, pieces = (results(f, inputs, 8, **options) for f in (src, in_pieces(src, [5, 16, 21, 40])))
    for name in ("spikes", *SRCState._fields, *(f"gradient of {x}" for x in ("current", *STATE))):
        assert torch.equal(pieces[name], whole[name]), name
    assert_close(pieces, whole)  # in pieces, sums over steps have another order


@pytest.mark.parametrize("surrogate", ["relu", "straight_through"])
def test_without_recurrence_only_the_integrator_carries_gradients_in_time(
    surrogate: str,
) -> None:
    inputs = make_inputs(9, 18, 3, 5)
    grad_outputs = make_output_gradients(9, call(src, inputs))
    made = gradients(src, inputs, grad_outputs, surrogate=surrogate)
    assert made["h0"].count_nonzero() == made["hs0"].count_nonzero() == 0
    assert made["i0"].count_nonzero() == made["i0"].numel()
    assert made["zs_hyp"].count_nonzero() == made["zs_dep"].count_nonzero() == 5
    made = gradients(src, inputs, [grad_outputs[0], None, None, None], surrogate=surrogate)
    assert made["zs_hyp"].count_nonzero() == made["zs_dep"].count_nonzero() == 0


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_gradient_computed_alone_equals_the_one_computed_with_all(kind: str) -> None:
    function, _, inputs = trace(kind, 3)
    options = mode_options(("relu", True), LENGTHS[3])
    grad_outputs = make_output_gradients(3, call(function, inputs))
    expected = gradients(function, inputs, grad_outputs, **options)
    for name, x in inputs.items():
        for leaves in (requiring_grad(inputs), {**inputs, name: x.clone().requires_grad_()}):
            outputs = tensors_of(call(function, leaves, **options))
            (made,) = torch.autograd.grad(outputs, leaves[name], grad_outputs)
            assert torch.equal(made, expected[name]), name


@pytest.mark.parametrize("kind", OPERATORS)
def test_double_backward_is_refused(kind: str) -> None:
    function, _, inputs = trace(kind, 3)
    leaves = requiring_grad(inputs)
    (grad,) = torch.autograd.grad(call(function, leaves)[0].sum(), leaves["bias"], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(grad.sum(), leaves["bias"])


# torch.func


def value_or_refusal(compute: Callable[[], Tensor]) -> Tensor | None:
    """The result, or None if torch or the operator refuses with a message."""
    try:
        return compute()
    except (NotImplementedError, RuntimeError) as refusal:
        assert str(refusal)
        return None


def total_of(kind: str, name: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A scalar function of one argument in the mode ("relu", True), and a value of that argument."""
    function, _, inputs = trace(kind, 3)

    def total(x: Tensor) -> Tensor:
        spikes, state = call(function, {**inputs, name: x}, surrogate="relu", full_gradient=True)
        return spikes.square().sum() + state.h.sum()

    return total, inputs[name]


@pytest.mark.parametrize(
    ("kind", "name"), [("src", "current"), ("EventBatch", "weight"), ("EventBatch", "values"), ("EventBatch", "rho")]
)
def test_func_grad_is_the_gradient(kind: str, name: str) -> None:
    total, x = total_of(kind, name)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    assert expected.count_nonzero() > 0
    assert torch.equal(torch.func.grad(total)(x), expected)
    _, pull = torch.func.vjp(total, x)
    assert torch.equal(pull(torch.ones((), dtype=expected.dtype))[0], expected)


@pytest.mark.parametrize("kind", OPERATORS)
def test_batched_gradients_equal_the_single_ones(kind: str) -> None:
    function, _, inputs = trace(kind, 3)
    leaves = requiring_grad(inputs)
    spikes, _ = call(function, leaves, full_gradient=True)
    grads = torch.stack([noise(seed, *spikes.shape) for seed in (1, 2, 3)])
    wanted = [leaves["bias"], leaves["alpha"], leaves["i0"]]
    batched = torch.autograd.grad(spikes, wanted, grads, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(spikes, wanted, grad, retain_graph=True) for grad in grads]
    for made, expected in zip(batched, zip(*single, strict=True), strict=True):
        assert torch.equal(made, torch.stack(expected)) and made.count_nonzero() > 0


def test_func_jacrev_is_the_jacobian() -> None:
    function, _, inputs = trace("src", 3)

    def rates(bias: Tensor) -> Tensor:
        return call(function, {**inputs, "bias": bias}, surrogate="relu", full_gradient=True)[0].sum((0, 1))

    expected = torch.autograd.functional.jacobian(rates, inputs["bias"])
    assert expected.count_nonzero() > 0
    assert torch.equal(torch.func.jacrev(rates)(inputs["bias"]), expected)


@pytest.mark.parametrize(
    "nested", [torch.func.hessian, lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).sum())]
)
def test_second_derivatives_of_func_are_refused(nested: Callable[..., Any]) -> None:
    total, current = total_of("src", "current")
    with pytest.raises(RuntimeError, match=r"double backward|forward-mode"):
        nested(total)(current)


def test_func_vmap_equals_the_loop_or_raises() -> None:
    total, current = total_of("src", "current")
    currents = torch.stack([current, current / 2, -current])
    made = value_or_refusal(lambda: torch.func.vmap(total)(currents))
    assert made is None or torch.equal(made, torch.stack([total(c) for c in currents]))


def test_func_jvp_is_the_derivative_or_raises() -> None:
    total, current = total_of("src", "current")
    leaf, direction = current.clone().requires_grad_(), current.flip(0)
    (grad,) = torch.autograd.grad(total(leaf), leaf)
    made = value_or_refusal(lambda: torch.func.jvp(total, (current,), (direction,))[1])
    # The two are the same sum of products in different orders.
    bound = current.numel() * 2**-52 * (grad * direction).abs().sum()
    assert made is None or abs(made - (grad * direction).sum()) <= bound
