"""Resonance: neurons whose integrator turns by omega while it decays. Outputs and all gradients equal the reference in
every mode and on every path, a sequence equals its pieces, and an omega of 0 gives the bits of neurons without one.
tests/test_bits.py has the bits of resonant neurons.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import srcell
from srcell import (
    SRC,
    EventBatch,
    LinearReadout,
    ResonantState,
    SRCCell,
    SRCConv2d,
    SRCState,
    rest_state,
    src,
    src_linear,
)
from srcell.models import Classifier
from srcell.plots import membrane, traces
from srcell.reference import src_reference
from support.calls import NEW_TORCH
from support.gradients import assert_close, in_pieces, relative_error, requiring_grad, results
from support.inputs import MODES, call, make_inputs, make_lateral, make_layer, noise, resonant
from support.layers import of_cell, stepped
from support.linear import KINDS, SHAPES, mode_options, tensors_of, trace
from support.operators import layer_call
from support.refusals import Message, Refusal, refusals

LATERAL = ("", "relu", "straight_through")


def options_of(mode: tuple[str, bool], lateral: str, lengths: list[int] | None = None) -> dict[str, Any]:
    return mode_options(mode, lengths) | ({"recurrent_surrogate": lateral} if lateral else {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lateral", LATERAL)
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_equal_the_reference(mode: tuple[str, bool], lateral: str, kind: str) -> None:
    """To 1e-11; those of omega, of q0 and of all else, from the gradients of spikes and of the final i, h, hs and q."""
    for seed in (3, 2):
        function, reference, inputs = trace(kind, seed)
        inputs = resonant(inputs, seed)
        if lateral:
            inputs["weight_hh"] = make_lateral(seed, len(inputs["bias"]))
        lengths = [7] * SHAPES[seed][0][1] if seed == 3 and kind != "gemm" else None
        expected, made = (results(f, inputs, seed, **options_of(mode, lateral, lengths)) for f in (reference, function))
        assert made.keys() == expected.keys() and expected["spikes"].any()
        assert all(expected[f"gradient of {name}"].any() for name in ("omega", "q0", "alpha"))
        assert {name for name in expected if not relative_error(made[name], expected[name]) <= 1e-11} == set()


@pytest.mark.parametrize("kind", ["src", "EventBatch", "events"])
def test_omega_of_the_whole_layer_equals_the_reference(kind: str) -> None:
    """One omega beside an alpha per neuron, and the other way round."""
    for alone in ("omega", "alpha"):
        function, reference, inputs = trace(kind, 8)
        inputs = resonant(inputs, 8)
        inputs[alone] = inputs[alone][-1].clone()
        options = mode_options(("relu", True), None)
        expected, made = (results(f, inputs, 8, **options) for f in (reference, function))
        assert made["gradient of omega"].shape == inputs["omega"].shape
        assert_close(made, expected)


def test_relu_with_recurrence_is_the_derivative_of_the_forward_pass() -> None:
    inputs = resonant(make_inputs(5, 12, 2, 3), 5)

    def outputs(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(inputs, tensors, strict=True))
        return tensors_of(call(src, given, surrogate="relu", full_gradient=True))

    assert torch.autograd.gradcheck(outputs, tuple(requiring_grad(inputs).values()))


@pytest.mark.parametrize("shape", [(75, 2, 5), (300, 1, 130)])
@pytest.mark.parametrize("lateral", LATERAL)
def test_a_long_sequence_equals_its_pieces(lateral: str, shape: tuple[int, int, int]) -> None:
    """Bit for bit forwards; gradients to rounding. The pieces do not end where segments and blocks do."""
    steps, batch, neurons = shape
    inputs, ends = resonant(make_inputs(23, *shape), 23), [*range(21, steps, 21), steps]
    if lateral:
        inputs["weight_hh"] = make_lateral(23, neurons)
    options = options_of(("straight_through", False), lateral) | {"lengths": torch.full((batch,), steps)}
    expected, made = (results(f, inputs, 23, **options) for f in (in_pieces(src, ends), src))
    assert all(torch.equal(made[name], expected[name]) for name in ("spikes", *ResonantState._fields))
    assert_close(made, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_omega_of_zero_gives_the_bits_of_neurons_without_one(dtype: torch.dtype, kind: str) -> None:
    function, _, inputs = trace(kind, 3)
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    zeros = {"omega": torch.zeros(len(inputs["bias"]), dtype=dtype), "q0": torch.zeros_like(inputs["i0"])}
    plain, still = (results(function, given, 3) for given in (inputs, inputs | zeros))
    assert plain["spikes"].any() and not still["q"].any()
    assert [name for name in plain if not torch.equal(plain[name], still[name])] == []


def test_from_an_omega_of_zero_nothing_is_learnt() -> None:
    """Spikes are even in omega. That is why layers refuse to learn from omega = 0."""
    inputs = make_inputs(3, *SHAPES[3][0]) | {"omega": torch.zeros(5, dtype=torch.float64, requires_grad=True)}
    del inputs["i0"], inputs["h0"], inputs["hs0"]
    (spikes, state) = src(inputs.pop("current"), inputs.pop("bias"), **inputs)
    (spikes.sum() + state.h.sum()).backward()
    assert spikes.any() and inputs["omega"].grad is not None and not inputs["omega"].grad.any()


def test_a_neuron_answers_its_own_rhythm() -> None:
    """A weak current of its period makes the integrator of a resonant neuron swing far beyond that of another one."""
    steps, period = 400, 20
    current = 0.3 * torch.cos(2 * math.pi * torch.arange(steps) / period)[:, None, None].expand(steps, 1, 3)
    omega = torch.tensor([2 * math.pi / period, 2 * math.pi / 7, 0.0])
    trace = [state.i for t in range(steps) for _, state in [src(current[: t + 1], -6.0, alpha=0.98, omega=omega)]]
    swing = torch.stack(trace[steps // 2 :]).amax(0).flatten()
    assert swing[0] > 5 * swing[1] and swing[0] > 5 * swing[2]


X = (noise(1, 60, 3, 6, dtype=torch.float32) > 0.6).float() * 3


def layer(**options: Any) -> SRC:
    torch.manual_seed(3)
    given = {"omega": srcell.spread_frequencies(0.01, 1), "alpha": srcell.spread(0.5, 0.99), "initial_state": "rest"}
    return SRC(6, 130, 2, **given | options)


@pytest.mark.parametrize("lateral", [False, True])
def test_layers_stream_and_equal_the_function(lateral: bool) -> None:
    module = layer(recurrent=lateral)
    with torch.no_grad():
        spikes, state = module(X)
        first, between = module(EventBatch.from_dense(X[:25]))
        second, after = module(X[25:], between)
    assert spikes.any() and isinstance(state, ResonantState) and state.q.shape == (2, 3, 130)
    assert torch.equal(torch.cat([first, second]), spikes)
    assert all(map(torch.equal, after, state))
    start = ResonantState(*(x.expand(3, -1) for x in rest_state(module.bias_l0, omega=module.omega_l0)))
    weight_hh = module.weight_hh_l0 if lateral else None
    options = {"alpha": module.alpha_l0, "omega": module.omega_l0, "weight_hh": weight_hh}
    with torch.no_grad():
        lower = src_linear(X, module.weight_ih_l0, module.bias_l0, start, **options)[1]
    assert all(torch.equal(x, y[0]) for x, y in zip(lower, state, strict=True))


def test_a_cell_called_step_by_step_equals_the_layer() -> None:
    module, cell = SRC(6, 9, omega=0.3), SRCCell(6, 9, omega=0.3)
    cell.load_state_dict(of_cell(module))
    (spikes, state), (expected, end) = stepped(cell, X), module(X)
    assert torch.equal(spikes, expected) and expected.any()
    assert all(torch.equal(x, y[0]) for x, y in zip(state, end, strict=True))
    assert cell(X[0, 0])[1].q.shape == (9,) and module(X[:, 0])[1].q.shape == (1, 9)


def test_a_convolution_resonates() -> None:
    module = SRCConv2d(1, 2, 3, omega=torch.tensor([0.1, 2.0]), method="dense")
    maps = noise(2, 30, 2, 1, 6, 6, dtype=torch.float32).abs() * 9
    spikes, state = module(maps)
    current = F.conv2d(maps.flatten(0, 1), module.weight).unflatten(0, maps.shape[:2])
    start = {"bias": module.bias.view(-1, 1, 1), "omega": module.omega.view(-1, 1, 1)}
    expected = src(current, **start)
    assert spikes.any() and torch.equal(spikes, expected[0]) and torch.equal(state.q, expected[1].q)
    assert state.q.shape == (2, 2, 4, 4)


def test_frequencies_are_learnt_within_their_domain() -> None:
    module = layer(learnable=("omega",), initial_state="zeros")
    with torch.no_grad():
        module.omega_l0[:2] = torch.tensor([4.0, -4.0])
    spikes, state = module(X)
    omega = module.omega_l0.detach().clamp(-math.pi, math.pi)
    expected = src_linear(X, module.weight_ih_l0, module.bias_l0, alpha=module.alpha_l0, omega=omega)[1]
    assert all(torch.equal(x[0], y) for x, y in zip(state, expected, strict=True))
    spikes.sum().backward()
    assert all(x.grad is not None and x.grad[2:].any() for x in (module.omega_l0, module.omega_l1))
    module.constrain_()
    assert module.omega_l0[:2].tolist() == [np.float32(np.pi), -np.float32(np.pi)]
    assert module.double()(X.double())[1].q.isfinite().all()  # float32's pi, in float64


def test_the_learnt_initial_state_has_no_q() -> None:
    module = layer(learn_initial_state=True, recurrent=True)
    assert not hasattr(module, "q0_l0")
    _, state = module(X[:0])
    assert not state.q.any() and torch.equal(state.h[0], module.h0_l0.expand(3, -1))


def test_a_layer_without_resonance_saves_what_it_always_saved() -> None:
    plain = SRC(6, 4)
    assert len(plain.state_dict()["_extra_state"]) == 9
    with pytest.raises(RuntimeError, match=r"omega: expected a tensor .* got one number in the checkpoint"):
        SRC(6, 4, omega=torch.ones(4)).load_state_dict(plain.state_dict(), strict=False)
    with pytest.warns(UserWarning, match=r"omega=0.3 instead of 0"):
        plain.load_state_dict(SRC(6, 4, omega=0.3).state_dict())
    assert isinstance(plain(X)[1], ResonantState)
    with pytest.warns(UserWarning, match=r"omega=0 instead of 0.3"):
        plain.load_state_dict(SRC(6, 4).state_dict())
    assert type(plain(X)[1]) is SRCState


def test_a_recording_has_q() -> None:
    module = layer()
    with srcell.record(module) as recording, torch.no_grad():
        _, state = module(X)
    recorded = recording["l1"] if "l1" in recording else list(recording.values())[-1]
    found = recorded.trace()
    assert isinstance(found, ResonantState) and torch.equal(found.q[-1], state.q[1])
    labels = [line.get_label() for panel in membrane(found).axes for line in panel.get_lines()]
    assert "integrator q" in labels


def test_frequencies_spread_evenly_in_their_logarithm() -> None:
    omega = srcell.spread_frequencies(0.01, 1, 0.25).values(8)
    assert (omega == 0).sum() == 2
    assert torch.allclose(
        omega.sort().values[2:].log().diff(), torch.full((5,), math.log(100) / 5, dtype=torch.float64)
    )
    assert not torch.equal(omega, omega.sort().values)
    assert torch.equal(omega, srcell.spread_frequencies(0.01, 1, 0.25).values(8))


STATE3, STATE4 = [torch.zeros(1, 2)] * 3, [torch.zeros(1, 2)] * 4
C = torch.zeros(3, 1, 2)


@refusals(
    Message("omega: expected values in .-pi, pi., got 3.2", lambda: src(C, -6.0, omega=3.2)),
    Message("omega: expected values in .-pi, pi., got nan", lambda: src(C, -6.0, omega=torch.tensor([0.1, math.nan]))),
    Message("omega: expected a finite|omega: expected values", lambda: src(C, -6.0, omega=math.inf)),
    Message("omega: expected a float or a tensor", lambda: src(C, -6.0, omega="fast"), TypeError),
    Message(
        "state: expected a tuple of four tensors .i, h, hs, q.",
        lambda: src(C, -6.0, tuple(STATE3), omega=0.1),
        TypeError,
    ),
    Message("state: expected a tuple of three tensors", lambda: src(C, -6.0, tuple(STATE4)), TypeError),
    Message("state.q: expected shape", lambda: src(C, -6.0, (*STATE3, torch.zeros(2, 2)), omega=0.1)),
    Message("omega: expected values in .-3.14159, 3.14159., got 4", lambda: SRC(3, 4, omega=4)),
    Message("omega: expected values other than 0 to learn from", lambda: SRC(3, 4, learnable=["omega"])),
    Message("omega: expected values other than 0", lambda: SRC(3, 4, omega=torch.zeros(4), learnable=["omega"])),
    Message("omega: expected a float or a tensor", lambda: src(C, -6.0, omega=False), TypeError),
    Message("omega: expected a number in .-pi, pi., got nan", lambda: rest_state(-6.0, omega=math.nan)),
    Message("omega: expected", lambda: rest_state(-6.0, omega=None), TypeError),
    Message("alpha: .* srcell.spread, got", lambda: SRC(3, 4, alpha=srcell.spread_frequencies(0.1, 0.5)), TypeError),
    Message("omega: .* srcell.spread_frequencies, got", lambda: SRC(3, 4, omega=srcell.spread(0.1, 0.5)), TypeError),
    Message("low: expected a number in .0, pi.", lambda: srcell.spread_frequencies(0, 1)),
    Message("high: expected a number in", lambda: srcell.spread_frequencies(1, 0.5)),
    Message("silent: expected a number in", lambda: srcell.spread_frequencies(0.1, 1, 1)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_a_clamped_pi_is_in_the_domain() -> None:
    """Float32's pi is larger than pi."""
    for dtype in (torch.float32, torch.float64):
        pi = torch.full((2,), 4.0, dtype=dtype).clamp(-math.pi, math.pi)
        assert src(C.to(dtype), -6.0, omega=pi)[1].q.shape == (1, 2)
        assert SRC(3, 2, omega=pi, dtype=dtype)(torch.zeros(2, 1, 3, dtype=dtype))[1].q.shape == (1, 1, 2)


@pytest.mark.parametrize("layers", [1, 2])
def test_compiled_and_exported_layers_give_the_eager_result(layers: int) -> None:
    """Any sizes, and gradients: bounds of a parameter that were no literals would break the second layer."""
    module = SRC(6, 4, layers, omega=0.2, learnable=("omega", "alpha"))
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=NEW_TORCH, dynamic=True, backend="aot_eager")
    for x in (X, X[:40, :2]):
        made, eager = (tensors_of(run(x)) for run in (compiled, module))
        assert len(made) == 5 and all(map(torch.equal, made, eager))
        gradients = [torch.autograd.grad(y[0].sum(), [*module.parameters()]) for y in (made, eager)]
        assert all(map(torch.equal, *gradients))
    exported = torch.export.export(module, (X,)).module()(X)
    assert all(map(torch.equal, tensors_of(exported), tensors_of(module(X))))


@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 has no vmap of operators of lists")
def test_gradients_of_each_sample() -> None:
    """vmap over the gradient of a function of omega."""
    current, omega = noise(3, 4, 30, 1, 2) * 9, torch.tensor([0.3, 1.0], dtype=torch.float64)

    def loss(w: Tensor, c: Tensor) -> Tensor:
        return (src(c, -6.0, omega=w)[1].i ** 2).sum()

    made = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(omega, current)
    each = torch.stack([torch.func.grad(loss)(omega, c) for c in current])
    assert made.any() and torch.equal(made, each)


def test_double_backward_of_omega_is_refused() -> None:
    omega = torch.tensor(0.3, requires_grad=True)
    (first,) = torch.autograd.grad(src(C + 1, -6.0, omega=omega)[1].i.sum(), omega, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        first.backward()


def test_a_network_with_a_resonant_layer_is_plotted() -> None:
    network = Classifier((6,), [SRC(6, 20, omega=0.3)], LinearReadout(20, 3))
    assert traces(network, EventBatch.from_dense(X[:, :1]), 0).axes


def test_an_empty_layer_resonates() -> None:
    module = SRC(6, 0, omega=srcell.spread_frequencies(0.01, 1), learnable=("omega",))
    spikes, state = module(X)
    spikes.sum().backward()
    assert spikes.shape == (60, 3, 0) and state.q.shape == (1, 3, 0)


def test_a_missing_parameter_of_a_backward_operator_is_named() -> None:
    call = layer_call(make_layer(resonant(make_inputs(3, 4, 2, 3), 3), MODES[0]), torch.zeros(4, 2, 3).double())
    grads, saved = [None] * 6, list(call.forward()()[6:])
    for gap, message in ((0, "alpha: expected a tensor"), (6, "cell: expected 0 or 7 tensors, got 6")):
        cell = [None if k == gap else x for k, x in enumerate(call.layer.cell)]
        changed = call._replace(layer=call.layer._replace(cell=cell))
        with pytest.raises(ValueError, match=message):
            changed.backward(grads, saved, [True] * 11)()


def test_states_without_resonance_stay_three_tensors() -> None:
    assert type(src(C, -6.0)[1]) is SRCState
    assert type(src(C, -6.0, omega=torch.zeros(()))[1]) is ResonantState
    assert type(rest_state(-6.0)) is SRCState and type(rest_state(-6.0, omega=1.0)) is ResonantState
    assert len(src_reference(C, torch.tensor(-6.0), omega=0.0)[1]) == 3
