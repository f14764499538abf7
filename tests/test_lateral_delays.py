"""Delays of recurrent weights (``delay_hh``): outputs and gradients equal the reference in all modes, a sequence equals
its pieces wherever it is cut, delays of 0 change no bit. test_bits.py tests that the bits are the same everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import SRC, DelayedResonantState, DelayedState, EventBatch, SRCCell, SRCState, src, src_linear
from srcell.evaluation import _count_arrivals
from srcell.functional.terms import tables
from srcell.ops._cpu import core
from srcell.reference import src_reference
from support.calls import NEW_TORCH
from support.gradients import assert_close, in_pieces, results
from support.inputs import MODES, Inputs, delayed, make_inputs, make_lateral, noise, resonant
from support.layers import of_cell, stepped
from support.linear import KINDS, mode_options, trace
from support.refusals import Message, Refusal, refusals
from test_lateral import layer_inputs

LATERAL = ("relu", "straight_through")
# The largest delay and the width: shorter and longer than the sequence, one of them wider than its delays.
DELAYS = [(4, 1), (25, 1), (90, 1), (6, 3), (1, 4)]


def inputs_of(shape: tuple[int, int, int], most: int, width: int, *, turning: bool = False) -> Inputs:
    inputs = make_inputs(23, *shape)
    inputs["h0"] = 0.9 * noise(24, *shape[1:])
    if turning:
        inputs = resonant(inputs, 23)
    return delayed(inputs | {"weight_hh": make_lateral(23, shape[2])}, 23, most, width)


@pytest.mark.parametrize("shape", [(14, 3, 5), (9, 2, 130)])
@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize("lateral", LATERAL)
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_equal_the_reference(
    mode: tuple[str, bool], lateral: str, delays: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    most, width = delays
    lengths = [3 * b + shape[0] - 6 for b in range(shape[1])]
    options = mode_options(mode, lengths) | {"recurrent_surrogate": lateral, "max_delay": most, "delay_width": width}
    for turning in (False, True):
        inputs = inputs_of(shape, most, width, turning=turning)
        expected = results(src_reference, inputs, 23, **options)
        assert all(expected[f"gradient of {x}"].count_nonzero() for x in ("weight_hh", "h0", "delay_hh", "past0"))
        assert_close(results(src, inputs, 23, **options), expected)


@pytest.mark.parametrize("lateral", LATERAL)
def test_the_gradient_of_whole_delays_is_the_right_hand_one(lateral: str) -> None:
    inputs = inputs_of((20, 2, 4), 7, 1)
    inputs["delay_hh"] = torch.tensor([0.0, 3.0, 7.0, 1.0]).double()
    options = {"recurrent_surrogate": lateral, "max_delay": 7}
    expected = results(src_reference, inputs, 23, **options)
    assert expected["gradient of delay_hh"].count_nonzero() == 4
    assert_close(results(src, inputs, 23, **options), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [3, 2])
@pytest.mark.parametrize("mode", MODES)
def test_src_linear_equals_the_reference(mode: tuple[str, bool], seed: int, kind: str) -> None:
    function, reference, inputs = trace(kind, seed)
    inputs["weight_hh"] = make_lateral(seed, len(inputs["bias"]))
    inputs, options = delayed(inputs, seed, 5), mode_options(mode, None) | {"max_delay": 5}
    expected, made = (results(f, inputs, seed, **options) for f in (reference, function))
    assert_close(made, expected)


@pytest.mark.parametrize("turning", [False, True])
@pytest.mark.parametrize("delays", [(9, 1), (40, 1), (5, 3)])
@pytest.mark.parametrize("lateral", LATERAL)
def test_a_long_sequence_equals_its_pieces(lateral: str, delays: tuple[int, int], turning: bool) -> None:
    """Some pieces are shorter than a delay; none ends where the kernels' segments do."""
    (most, width), shape = delays, (75, 2, 5)
    inputs, ends = inputs_of(shape, most, width, turning=turning), [1, 2, 7, 28, 49, 50, 75]
    options = {"recurrent_surrogate": lateral, "max_delay": most, "delay_width": width}
    options["lengths"] = torch.tensor([75, 61])
    expected, made = (results(f, inputs, 23, **options) for f in (in_pieces(src, ends), src))
    states = DelayedResonantState if turning else DelayedState
    assert all(torch.equal(made[name], expected[name]) for name in ("spikes", *states._fields))
    assert_close(made, expected)


def test_blocks_of_several_tiles_equal_their_pieces() -> None:
    inputs, ends = inputs_of((300, 1, 130), 70, 1), [31, 100, 280, 300]
    options = {"max_delay": 70, "lengths": torch.tensor([300])}
    expected, made = (results(f, inputs, 23, **options) for f in (in_pieces(src, ends), src))
    assert all(torch.equal(made[name], expected[name]) for name in ("spikes", *DelayedState._fields))
    assert_close(made, expected)


def bits_of(**options: Any) -> list[Tensor]:
    x, weight, lateral = layer_inputs()
    w, v = weight.requires_grad_(), lateral.requires_grad_()
    spikes, state = src_linear(x, w, -6.0, weight_hh=v, method="events", **options)
    (spikes * noise(4, *spikes.shape)).sum().backward()
    assert spikes.any() and w.grad is not None and v.grad is not None and v.grad.any()
    return [spikes, *state[:3], w.grad, v.grad]


@pytest.mark.parametrize("learnt", [False, True])
def test_delays_of_zero_change_no_bit(learnt: bool) -> None:
    delays = torch.zeros(150).requires_grad_(learnt)
    assert all(map(torch.equal, bits_of(delay_hh=delays, max_delay=9), bits_of()))


def test_whole_delays_give_the_same_bits_beside_fractional_ones() -> None:
    """A whole delay has one term, whether or not other neurons need two, and however large delays may become."""
    x, weight, lateral = layer_inputs()
    lateral[:, 0] = 0  # the only neuron with a fractional delay sends nothing
    whole = torch.arange(150.0) % 13
    mixed = whole.clone()
    mixed[0] = 2.5
    a, b, c = (
        src_linear(x, weight, -6.0, weight_hh=lateral, delay_hh=d, max_delay=most)[0]
        for d, most in ((whole, 12), (mixed, 12), (whole, 500))
    )
    assert a.any() and torch.equal(a, b) and torch.equal(a, c)


def test_a_spike_arrives_when_it_should() -> None:
    """Neuron 0 is made to spike once, and neuron 1 hears it so loudly that it answers at once."""
    current = torch.zeros(40, 1, 2)
    current[5, 0, 0] = 9
    weight = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    rest = SRCState(*(x.expand(1, 2) for x in srcell.rest_state(-6.0)))
    undelayed, _ = src(current, -6.0, rest, weight_hh=weight)
    for d in (3, 20):
        spikes, _ = src(current, -6.0, rest, weight_hh=weight, delay_hh=torch.tensor([float(d), 0]), max_delay=20)
        assert spikes[:, 0, 1].any() and torch.equal(spikes[d:, 0, 1], undelayed[:-d, 0, 1])
        assert torch.equal(spikes[:, 0, 0], undelayed[:, 0, 0])


def test_interpolated_spikes_are_sums_of_two() -> None:
    """With alpha = 0 the integrator is the current: what arrives."""
    inputs = inputs_of((1, 2, 6), 4, 1)
    past, v = inputs["past0"], inputs["weight_hh"]
    made = src(
        torch.zeros(1, 2, 6).double(),
        -6.0,
        DelayedState(*[torch.zeros(2, 6).double()] * 3, past),
        alpha=0.0,
        weight_hh=v,
        delay_hh=2.25,
        max_delay=4,
    )[1]
    expected = (0.75 * past[:, 3] + 0.25 * past[:, 2]) @ v.T  # the last row of the past is s[-2]
    assert expected.any() and torch.allclose(made.i, expected, rtol=1e-12, atol=1e-14)


def test_a_state_without_a_past_starts_from_zeros() -> None:
    inputs = inputs_of((20, 2, 5), 6, 1)
    state = SRCState(inputs["i0"], inputs["h0"], inputs["hs0"])
    options = {"weight_hh": inputs["weight_hh"], "delay_hh": inputs["delay_hh"], "max_delay": 6}
    spikes, after = src(inputs["current"], -6.0, state, **options)
    zeros = torch.zeros(2, 7, 5).double()
    expected, expected_after = src(inputs["current"], -6.0, DelayedState(*state, zeros), **options)
    assert torch.equal(spikes, expected) and all(map(torch.equal, after, expected_after))


def test_the_past_is_that_of_the_spikes() -> None:
    inputs = inputs_of((30, 2, 5), 6, 1)
    options = {"weight_hh": inputs["weight_hh"], "delay_hh": inputs["delay_hh"], "max_delay": 6}
    spikes, state = src(inputs["current"], -6.0, **options, lengths=[30, 12])
    assert torch.equal(state.past[0], spikes[22:29, 0]) and torch.equal(state.past[1], spikes[4:11, 1])
    assert spikes[22:29, 0].any()


def test_nan_stays_in_its_sample() -> None:
    x, weight, lateral = layer_inputs()
    options = {"weight_hh": lateral, "delay_hh": 2.5, "max_delay": 4}
    expected, _ = src_linear(x, weight, -6.0, **options)
    state = DelayedState(*torch.zeros(3, 3, 150), torch.zeros(3, 5, 150))
    state.past[1, 3, 4] = torch.nan
    spikes, _ = src_linear(x, weight, -6.0, state, **options)
    assert torch.equal(spikes[:, ::2], expected[:, ::2]) and spikes[:, 1].isnan().any()


# Layers


def x_of(steps: int = 40) -> Tensor:
    return (noise(5, steps, 3, 7, dtype=torch.float32) > 0.6).float()


def module_of(**options: Any) -> SRC:
    torch.manual_seed(1)
    return SRC(7, 11, recurrent=True, **options)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("omega", [0.0, srcell.spread_frequencies(0.1, 1)])
def test_a_module_streams(omega: Any, layers: int) -> None:
    module = module_of(num_layers=layers, delay_hh=torch.linspace(0, 9, 11), omega=omega, initial_state="rest")
    expected, last = module(x_of())
    state, spikes = None, []
    for piece in x_of().split([1, 3, 30, 6]):
        made, state = module(piece, state)
        spikes.append(made)
    assert expected.any() and torch.equal(torch.cat(spikes), expected) and all(map(torch.equal, state, last))
    assert last.past.shape == (layers, 3, 10, 11)
    one, after = module(x_of()[:, 0])
    again, _ = module(x_of()[:, 0], after)
    both, _ = module(x_of()[:, :1].repeat(2, 1, 1))
    assert torch.equal(torch.cat([one, again]), both[:, 0])


def test_a_cell_equals_the_layer() -> None:
    module, cell = module_of(delay_hh=2.5), SRCCell(7, 11, recurrent=True, delay_hh=2.5)
    cell.load_state_dict(of_cell(module))
    expected, last = module(x_of())
    spikes, state = stepped(cell, x_of())
    assert expected.any() and torch.equal(spikes, expected)
    assert type(state) is DelayedState and all(torch.equal(a, b[0]) for a, b in zip(state, last, strict=True))
    assert cell(x_of()[0, 0], DelayedState(*(x[0] for x in state)))[1].past.shape == (4, 11)


def test_learnt_delays_stay_in_their_domain() -> None:
    module = module_of(delay_hh=torch.linspace(0, 9, 11), learnable=("delay_hh",), max_delay=9)
    with torch.no_grad():
        module.delay_hh_l0[0], module.delay_hh_l0[10] = -3, 30
    spikes, _ = module(x_of())
    clamped = module_of(delay_hh=torch.linspace(0, 9, 11), max_delay=9)
    assert spikes.any() and torch.equal(spikes, clamped(x_of())[0])
    spikes.sum().backward()
    assert module.delay_hh_l0.grad is not None and module.delay_hh_l0.grad.any()
    module.constrain_()
    assert module.delay_hh_l0.aminmax() == (0, 9)


def test_the_width_of_a_module_may_change() -> None:
    module = module_of(delay_hh=4.5, learnable=("delay_hh",), max_delay=9, delay_width=8)
    assert module(x_of())[1].past.shape == (1, 3, 17, 11) and module.delay_hh_l0.shape == ()
    module.delay_width = 1
    assert module(x_of())[1].past.shape == (1, 3, 10, 11)
    with pytest.raises(ValueError, match=r"delay_width: expected an int in \[1, 65535\]"):
        module.delay_width = 0


def test_max_delay_defaults_to_the_ceiling_of_fixed_delays() -> None:
    assert module_of(delay_hh=4.5).max_delay == 5 and module_of(delay_hh=torch.arange(11.0)).max_delay == 10
    assert module_of(delay_hh=0).max_delay == 0 and SRC(2, 0, recurrent=True, delay_hh=torch.zeros(0)).max_delay == 0


def test_checkpoints_and_descriptions_have_the_delays() -> None:
    module = module_of(delay_hh=torch.linspace(0, 9, 11), max_delay=20, delay_width=2)
    assert "delay_hh_l0" in module.state_dict() and "delay_hh_l0" not in dict(module.named_parameters())
    assert "delay_hh=tensor(11 values, 0 to 9), max_delay=20, delay_width=2" in repr(module)
    other = module_of(delay_hh=torch.zeros(11), max_delay=20, delay_width=2)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x_of())[0], module(x_of())[0])
    assert "delay_hh" not in repr(module_of()) and "delay_width" not in repr(module_of(delay_hh=3.0))
    with torch.device("meta"):
        built = SRC(7, 11, recurrent=True, delay_hh=torch.empty(11), max_delay=20)
    built.to_empty(device="cpu").load_state_dict(module.state_dict())
    assert torch.equal(built.delay_hh_l0, module.delay_hh_l0)


def test_a_module_is_made_where_tensors_hold_no_values() -> None:
    """Regression: a number became a tensor on meta, whose size is unknown."""
    with torch.device("meta"):
        assert SRC(7, 11, recurrent=True, delay_hh=3.5).max_delay == 4
        with pytest.raises(ValueError, match="delay_hh: expected values in"):
            SRC(7, 11, recurrent=True, delay_hh=5.0, max_delay=4)


def test_fixed_delays_beyond_max_delay_are_not_loaded() -> None:
    module, other = module_of(delay_hh=2.0), module_of(delay_hh=9.0)
    with pytest.raises(RuntimeError, match=r"delay_hh_l0: expected values in \[0, max_delay\] = \[0, 2\], got 9 to 9"):
        module.load_state_dict(other.state_dict())


@pytest.mark.parametrize("learnable", [(), ("delay_hh",)])
def test_delays_rounded_up_in_half_precision_are_clamped(learnable: tuple[str, ...]) -> None:
    module = SRC(7, 11, recurrent=True, delay_hh=303.0, max_delay=303, learnable=learnable, dtype=torch.bfloat16)
    assert module.delay_hh_l0 == 304
    assert module(x_of().bfloat16())[1].past.shape == (1, 3, 304, 11)


def test_delays_are_computed_in_the_dtype_of_the_layer() -> None:
    inputs = inputs_of((20, 2, 5), 6, 1)
    options = {"weight_hh": inputs["weight_hh"], "max_delay": 6}
    rough = inputs["delay_hh"].bfloat16()
    made, expected = (src(inputs["current"], -6.0, delay_hh=d, **options)[0] for d in (rough, rough.double()))
    assert made.any() and torch.equal(made, expected)


def test_a_recording_has_the_states_of_a_call() -> None:
    module = module_of(delay_hh=3.25)
    with srcell.record(module) as recording:
        spikes, state = module(x_of(), lengths=[40, 20, 0])
    trace = recording["src"].trace()
    assert type(trace) is SRCState and torch.equal(trace.h[-1], state.h[0])
    assert torch.equal(trace.h[:20, 1].clamp(min=0), spikes[:20, 1])


@pytest.mark.parametrize("lengths", [None, (20, 0, 7, 13)])
@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("neurons", [(6,), ()])
def test_arrivals_are_counted(
    neurons: tuple[int, ...], whole: bool, width: int, lengths: tuple[int, ...] | None
) -> None:
    """As many as there are steps at which the interpolation of a spike's delay is not 0."""
    generator = torch.Generator().manual_seed(width)
    delay = 13 * torch.rand(neurons, generator=generator)
    delay = delay.round() if whole else delay
    layer = SRC(3, 6, recurrent=True, delay_hh=delay, max_delay=13, delay_width=width)
    spikes = torch.rand(20, 4, 6, generator=generator) * (torch.rand(20, 4, 6, generator=generator) < 0.3)
    ends = None if lengths is None else torch.tensor(lengths)
    arrived = 0
    for step, sample, neuron in spikes.nonzero().tolist():
        left = (20 if lengths is None else lengths[sample]) - step
        if left > 0:  # the spike is before the end of its sample
            steps = torch.arange(max(left, 0))
            arrived += int(((steps - delay.expand(6)[neuron]).abs() < width).sum())
    assert _count_arrivals(layer, spikes, ends) == arrived > 0


def test_events_and_dense_inputs_agree() -> None:
    module = module_of(delay_hh=3.25)
    (a, after), (b, other) = module(EventBatch.from_dense(x_of())), module(x_of())
    assert a.any() and torch.equal(a, b) and all(map(torch.equal, after, other))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    current, v = make_inputs(3, 30, 2, 5)["current"].to(dtype), make_lateral(3, 5).to(dtype)
    spikes, state = src(current, -6.0, weight_hh=v, delay_hh=torch.full((5,), 2.5, dtype=dtype), max_delay=3)
    expected, _ = src(current.float(), -6.0, weight_hh=v.float(), delay_hh=2.5, max_delay=3)
    assert spikes.dtype == dtype and state.past.dtype == torch.float32
    assert expected.any() and torch.equal(spikes, expected.to(dtype))


def test_features_of_any_number_of_dimensions() -> None:
    current, v = make_inputs(3, 30, 2, 6)["current"], make_lateral(3, 6)
    delays = torch.linspace(0, 5, 6).double()
    flat, after = src(current, -6.0, weight_hh=v, delay_hh=delays, max_delay=5)
    folded, state = src(current.view(30, 2, 2, 3), -6.0, weight_hh=v, delay_hh=delays.view(2, 3), max_delay=5)
    assert flat.any() and torch.equal(folded.flatten(2), flat)
    assert state.past.shape == (2, 6, 2, 3) and torch.equal(state.past.flatten(2), after.past)
    again, _ = src(current.view(30, 2, 2, 3), -6.0, state, weight_hh=v, delay_hh=delays.view(2, 3), max_delay=5)
    assert torch.equal(again.flatten(2), src(current, -6.0, after, weight_hh=v, delay_hh=delays, max_delay=5)[0])


def test_gradients_flow_from_call_to_call() -> None:
    module = module_of(delay_hh=torch.linspace(1, 9, 11), learnable=("delay_hh",), max_delay=9)
    whole = torch.autograd.grad(module(x_of())[0][30:].sum(), [*module.parameters()])
    _, state = module(x_of()[:30])
    pieces = torch.autograd.grad(module(x_of()[30:], state)[0].sum(), [*module.parameters()])
    for a, b in zip(whole, pieces, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    cut = torch.autograd.grad(module(x_of()[30:], state.detach())[0].sum(), module.delay_hh_l0)[0]
    assert not torch.allclose(cut, whole[[*dict(module.named_parameters())].index("delay_hh_l0")])


@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0)])
def test_empty_calls(shape: tuple[int, int, int]) -> None:
    steps, batch, neurons = shape
    inputs = inputs_of(shape, 4, 1)
    made = results(src, inputs, 23, max_delay=4)
    assert made["past"].shape == (batch, 5, neurons) and made["gradient of delay_hh"].shape == (neurons,)
    if not steps:
        assert torch.equal(made["past"], inputs["past0"])


C, V = torch.zeros(4, 2, 3), torch.zeros(3, 3)


def refused(**options: Any) -> Any:
    return lambda: src(C, -6.0, **{"weight_hh": V, "delay_hh": 1.0, "max_delay": 3, **options})


@refusals(
    Message("delay_hh: expected weight_hh beside it", refused(weight_hh=None)),
    Message("max_delay: expected the largest delay allowed beside delay_hh", refused(max_delay=None)),
    Message("max_delay: expected None without delay_hh, got 3", refused(delay_hh=None)),
    Message("max_delay: expected an int", refused(max_delay=2.5), TypeError),
    Message(r"max_delay: expected an int in \[0, 65535\], got 65536", refused(max_delay=65536)),
    Message(r"delay_width: expected an int in \[1, 65535\], got 0", refused(delay_width=0)),
    Message(r"delay_hh: expected values in \[0, max_delay\] = \[0, 3\], got 3.5", refused(delay_hh=3.5)),
    Message("delay_hh: expected values in", refused(delay_hh=-1.0)),
    Message("delay_hh: expected", refused(delay_hh=math.nan)),
    Message(r"delay_hh: expected a shape that broadcasts to \(3,\)", refused(delay_hh=torch.zeros(4))),
    Message("delay_hh: expected a floating-point dtype", refused(delay_hh=torch.zeros(3).long()), TypeError),
    Message("delay_hh: expected a float or a tensor, got str", refused(delay_hh="2"), TypeError),
    Message(
        r"state: expected a tuple of four tensors \(i, h, hs, past\), because there is a delay_hh, got list",
        refused(state=[torch.zeros(2, 3)] * 4),
        TypeError,
    ),
    Message(
        r"state.past: expected shape \(2, 4, 3\), got \(2, 3, 3\)",
        refused(state=(*[torch.zeros(2, 3)] * 3, torch.zeros(2, 3, 3))),
    ),
    Message("delay_width: expected 1 without delay_hh, got 2", refused(delay_hh=None, max_delay=None, delay_width=2)),
    Message("delay_width: expected 1 without delay_hh", lambda: SRC(2, 3, recurrent=True, delay_width=2)),
    Message(
        "delay_hh: expected a number or a tensor, got Spread",
        lambda: SRC(2, 3, recurrent=True, delay_hh=srcell.spread(0.1, 0.5)),
        TypeError,
    ),
    Message(
        "max_delay: expected it with delay_hh", lambda: src_reference(C, torch.tensor(-6.0), weight_hh=V, delay_hh=1.0)
    ),
    Message("delay_hh: expected recurrent=True beside it", lambda: SRC(2, 3, delay_hh=1.0)),
    Message("max_delay: expected None without delay_hh", lambda: SRC(2, 3, recurrent=True, max_delay=4)),
    Message(
        r"delay_hh: expected values in \[0, max_delay\] = \[0, 4\], got 5.0",
        lambda: SRC(2, 3, recurrent=True, delay_hh=5.0, max_delay=4),
    ),
    Message(
        "max_delay: expected the largest delay that may be learnt or loaded, got None",
        lambda: SRC(2, 3, recurrent=True, delay_hh=1.0, learnable=("delay_hh",)),
    ),
    Message(
        "learnable: expected delay_hh, the initial delays", lambda: SRC(2, 3, recurrent=True, learnable=("delay_hh",))
    ),
    Message(r"delay_hh: expected values in \[0, 65535\]", lambda: SRC(2, 3, recurrent=True, delay_hh=1e6)),
)
def test_wrong_arguments_are_named(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.skipif(not NEW_TORCH, reason="torch.export of torch 2.4 leaves a mark, and C++ leaves the rest to torch")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_terms_found_in_cpp_have_the_bits_of_torchs(width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    drawn = 9 * torch.rand(50, dtype=dtype)
    for delay in (drawn, drawn.round(), drawn[0], torch.zeros(50, dtype=dtype)):
        for x in (delay, delay * 1.5 - 2):  # some outside
            made = core.delay_terms(x, 50, width, 9, True)
            assert made is not None
            first, factors = tables(x.clamp(0, 9).expand(50), width, keep=False)
            assert torch.equal(made[0], first) and (made[1] is None) == (factors is None)
            assert made[1] is None or torch.equal(made[1], factors)
    for refused in (drawn - 9, drawn[:7], drawn.half(), drawn.clone().requires_grad_()):
        assert core.delay_terms(refused, 50, width, 9, False) is None
