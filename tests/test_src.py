"""``src`` and ``rest_state``: errors that name the argument, layouts and sizes that must work, padding past a sample's
end, half precision.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from srcell import SRC, EventBatch, SRCCell, SRCState, integer_src_linear, rest_state, src, src_linear
from srcell.functional import count_spikes
from srcell.reference import src_reference
from support.gradients import gradients, make_output_gradients
from support.inputs import BATCH, NEURONS, PARAMETERS, STATE, STEPS, call, make_currents, make_inputs, noise
from support.refusals import BAD_LENGTHS, assert_refused

X = torch.zeros(3, 2, 4)


def make_call(**changes: Any) -> dict[str, Any]:
    """Valid float32 arguments of ``src``, with some replaced."""
    inputs = make_inputs(1, STEPS, BATCH, NEURONS, dtype=torch.float32)
    state = SRCState(*(inputs.pop(name) for name in STATE))
    return {**inputs, "state": state, "lengths": [30, 0, 17], **changes}


# Bad input


@pytest.mark.parametrize(
    ("dtype", "value", "got"),
    [
        (torch.float32, 1.0000001, "1.0000001"),
        (torch.float64, 1 + 2**-52, "1.0000000000000002"),
        (torch.float32, 1.1, "1.1"),
    ],
)
def test_a_refused_value_is_told_from_those_that_are_not(dtype: torch.dtype, value: float, got: str) -> None:
    current = torch.zeros(2, 1, 1, dtype=dtype)
    with pytest.raises(ValueError, match=rf"^alpha: expected values in \[0, 1\], got {re.escape(got)}$"):
        src(current, -6.0, alpha=value)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("current", lambda x, w: src(x, -6.0)),
        ("weight", lambda x, w: src_linear(x, w, -6.0)),
        ("weight", lambda x, w: integer_src_linear(x, w.to(torch.int16))),
        ("spikes", lambda x, w: count_spikes(x)),
        ("bias", lambda x, w: rest_state(x)),
    ],
)
def test_a_device_without_kernels_is_named(argument: str, call: Callable[..., Any]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, weight = torch.empty(4, 2, 3, device="mps"), torch.empty(5, 3, device="mps")
    expected = rf"^{argument}: expected a tensor on a CPU or a CUDA device, got one on mps\S*: .*\.cpu\(\)$"
    with pytest.raises(ValueError, match=expected):
        call(x, weight)


@pytest.mark.parametrize(
    ("error", "current"),
    [
        (ValueError, torch.zeros(4, 3)),
        (ValueError, torch.zeros(4)),
        (TypeError, torch.zeros(4, 2, 3, dtype=torch.int64)),
        (TypeError, torch.zeros(4, 2, 3, dtype=torch.complex64)),
        (TypeError, [[[0.0]]]),
        (TypeError, None),
    ],
)
def test_a_current_of_wrong_type_or_rank_is_refused(error: type[Exception], current: Any) -> None:
    assert_refused(error, "current", src, current, -6.0)


@pytest.mark.parametrize("name", ["bias", *PARAMETERS])
@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TypeError, "0.5"),
        (TypeError, None),
        (TypeError, torch.full((NEURONS,), 0.5, dtype=torch.float64)),
        (TypeError, torch.ones(NEURONS, dtype=torch.int64)),
        (ValueError, torch.full((NEURONS,), 0.5, device="meta")),
        (ValueError, torch.full((NEURONS + 1,), 0.5)),
        (ValueError, torch.full((BATCH, NEURONS), 0.5)),
        (ValueError, torch.full((0,), 0.5)),
        (ValueError, float("nan")),
        (ValueError, float("inf")),
        (ValueError, float("-inf")),
        (ValueError, torch.tensor(float("nan"))),
        (ValueError, torch.tensor([float("inf")])),
    ],
)
def test_a_bad_parameter_is_refused(error: type[Exception], name: str, value: Any) -> None:
    assert_refused(error, name, src, **make_call(**{name: value}))


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, -1e39])
def test_a_bias_that_the_dtype_does_not_hold_is_refused(value: float) -> None:
    assert_refused(ValueError, "bias", src, X, value)


@pytest.mark.parametrize(("name", "values"), [("alpha", [-0.01, 1.01]), ("rho", [0.0, -3.0])])
def test_a_parameter_out_of_its_domain_is_refused(name: str, values: list[float]) -> None:
    for value in [*values, float("nan")]:
        per_neuron = torch.full((NEURONS,), 0.5)
        per_neuron[2] = value
        for given in (value, torch.tensor(value), per_neuron):
            assert_refused(ValueError, name, src, **make_call(**{name: given}))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_bounds_of_alpha_belong_to_its_domain(alpha: float) -> None:
    inputs: dict[str, Any] = make_inputs(1, 9, 2, 4) | {"alpha": alpha}
    spikes, state = call(src, inputs)
    expected, expected_state = call(src_reference, inputs)
    assert spikes.count_nonzero() > 0
    for x, y in zip((spikes, *state), (expected, *expected_state), strict=True):
        assert (x - y).abs().max() <= 1e-12 * max(1, y.abs().max().item())


@pytest.mark.parametrize("field", range(3), ids=SRCState._fields)
@pytest.mark.parametrize(
    ("error", "value"),
    [
        (ValueError, torch.zeros(BATCH, NEURONS + 1)),
        (ValueError, torch.zeros(1, NEURONS)),
        (ValueError, torch.zeros(NEURONS)),
        (ValueError, torch.zeros(BATCH, NEURONS, device="meta")),
        (TypeError, torch.zeros(BATCH, NEURONS, dtype=torch.float64)),
        (TypeError, 0.0),
    ],
)
def test_a_bad_state_is_refused(error: type[Exception], field: int, value: Any) -> None:
    state: list[Any] = [torch.zeros(BATCH, NEURONS)] * 3
    state[field] = value
    assert_refused(error, "state", src, **make_call(state=tuple(state)))


@pytest.mark.parametrize("state", [(), (torch.zeros(BATCH, NEURONS),) * 2, torch.zeros(3, BATCH, NEURONS), "rest"])
def test_a_state_that_is_no_triple_is_refused(state: Any) -> None:
    assert_refused(TypeError, "state", src, **make_call(state=state))


@pytest.mark.parametrize(("error", "lengths"), BAD_LENGTHS)
def test_bad_lengths_are_refused(error: type[Exception], lengths: Any) -> None:
    assert_refused(error, "lengths", src, **make_call(lengths=lengths))
    assert_refused(error, "lengths", SRC(4, 2), torch.zeros(STEPS, BATCH, 4), lengths=lengths)


@pytest.mark.parametrize("lengths", ["abc", [None, None], [2**70, 2**70], {}, [[1], [2, 3]], object()])
def test_lengths_that_torch_makes_no_tensor_of_are_refused(lengths: Any) -> None:
    assert_refused(TypeError, "lengths", src, X, -6.0, lengths=lengths)


def test_quantised_lengths_of_no_samples_are_refused() -> None:
    lengths = torch.quantize_per_tensor(torch.zeros(0), 0.1, 0, torch.qint8)
    assert_refused(TypeError, "lengths", src, torch.zeros(3, 0, 4), -6.0, lengths=lengths)


@pytest.mark.parametrize("surrogate", ["sigmoid", "", None])
def test_an_unknown_surrogate_is_refused(surrogate: Any) -> None:
    assert_refused(ValueError, "surrogate", src, **make_call(surrogate=surrogate))
    assert_refused(ValueError, "surrogate", SRC, 4, 2, surrogate=surrogate)
    assert_refused(ValueError, "surrogate", SRCCell, 4, 2, surrogate=surrogate)


# Layouts and sizes


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values in other memory orders."""
    spread = torch.full((*x.shape, 2), torch.nan, dtype=x.dtype)
    spread[..., 1] = x
    return {
        "transposed": x.transpose(0, -1).contiguous().transpose(0, -1),
        "every other element": spread[..., 1],
        "with an offset": torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape),
    }


@pytest.mark.parametrize("layout", ["transposed", "every other element", "with an offset"])
def test_any_memory_layout_gives_the_same_bits(layout: str) -> None:
    inputs = make_inputs(3, STEPS, BATCH, NEURONS, dtype=torch.float32)
    options = {"recurrent_grad": True, "lengths": [30, 4, 17]}
    expected = call(src, inputs, **options)
    arriving = make_output_gradients(3, expected)
    expected_gradients = gradients(src, inputs, [*arriving], **options)
    odd = {name: layouts(x)[layout] for name, x in inputs.items()}
    leaves = {name: x.detach().requires_grad_() for name, x in odd.items()}
    made = call(src, leaves, **options | {"lengths": torch.tensor([30, 0, 4, 0, 17, 0], dtype=torch.int32)[::2]})
    for x, y in zip((made[0], *made[1]), (expected[0], *expected[1]), strict=True):
        assert torch.equal(x, y)
    odd_arriving = [layouts(g)[layout] for g in arriving]
    for name, x in zip(leaves, torch.autograd.grad((made[0], *made[1]), [*leaves.values()], odd_arriving), strict=True):
        assert torch.equal(x, expected_gradients[name]), name


def test_expanded_inputs_are_as_good_as_their_copies() -> None:
    current = make_currents(4, STEPS, 1, 1, dtype=torch.float32).expand(STEPS, BATCH, NEURONS)
    state = tuple(torch.full((), x).expand(BATCH, NEURONS) for x in (0.1, -0.9, -0.91))
    bias = torch.tensor([-6.0]).expand(NEURONS)
    spikes, after = src(current, bias, state)
    expected, expected_after = src(current.contiguous(), bias.contiguous(), SRCState(*(x.contiguous() for x in state)))
    assert spikes.count_nonzero() > 0
    assert torch.equal(spikes, expected) and all(map(torch.equal, after, expected_after))


@pytest.mark.parametrize("recurrent_grad", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 5), (7, 0, 5), (7, 3, 0), (0, 0, 0)])
def test_empty_inputs_work(
    shape: tuple[int, int, int], per_neuron: bool, with_lengths: bool, recurrent_grad: bool
) -> None:
    inputs = make_inputs(5, *shape, per_neuron=per_neuron)
    lengths = torch.full((shape[1],), shape[0]) if with_lengths else None
    options = {"lengths": lengths, "recurrent_grad": recurrent_grad}
    spikes, state = call(src, inputs, **options)
    assert spikes.shape == shape
    assert all(torch.equal(x, inputs[name]) for name, x in zip(STATE, state, strict=True))
    made = gradients(src, inputs, [*make_output_gradients(5, (spikes, state))], **options)
    assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in inputs.items()}
    for name in ("bias", *PARAMETERS):
        assert made[name].count_nonzero() == 0, name


def test_features_of_any_rank_are_neurons() -> None:
    shape = (STEPS, 2, 3, 4, 5)
    current = make_currents(6, *shape)
    values = make_inputs(6, 1, 2, 60)
    per_channel, per_column = values["bias"][:3].view(3, 1, 1).clone(), 0.9 + 0.01 * noise(6, 5)
    state = tuple(values[name].view(2, 3, 4, 5) for name in STATE)
    leaves = [x.requires_grad_() for x in (current, per_channel, per_column)]
    spikes, after = src(current, per_channel, state, alpha=per_column)
    assert spikes.shape == shape
    assert all(x.shape == shape[1:] for x in after)
    weight = noise(7, *shape)
    made = torch.autograd.grad((spikes * weight).sum() + after.h.sum(), leaves)
    flat_leaves = [current.detach().reshape(STEPS, 2, 60)]
    flat_leaves += [x.detach().expand(3, 4, 5).reshape(60) for x in (per_channel, per_column)]
    flat_leaves = [x.requires_grad_() for x in flat_leaves]
    flat, flat_after = src(
        flat_leaves[0], flat_leaves[1], SRCState(*(x.reshape(2, 60) for x in state)), alpha=flat_leaves[2]
    )
    expected = torch.autograd.grad((flat * weight.reshape(flat.shape)).sum() + flat_after.h.sum(), flat_leaves)
    assert torch.equal(spikes.reshape(flat.shape), flat)
    of_two, after_two = src(current.detach()[:, :, 0], values["bias"][0].item())
    assert of_two.shape == (STEPS, 2, 4, 5) and all(x.shape == (2, 4, 5) for x in after_two)
    assert all(torch.equal(x.reshape(2, 60), y) for x, y in zip(after, flat_after, strict=True))
    assert torch.equal(made[0].reshape(flat.shape), expected[0])
    # Sums of up to 20 gradients in another order; no term is larger than the largest element.
    for x, y in zip(
        made[1:], (expected[1].view(3, 20).sum(1).view(3, 1, 1), expected[2].view(12, 5).sum(0)), strict=True
    ):
        assert (x - y).abs().max() <= 20 * 20 * 2**-53 * max(g.abs().max() for g in expected[1:])


def test_a_plain_tuple_is_as_good_as_a_state() -> None:
    arguments = make_call()
    expected, expected_state = src(**arguments)
    spikes, state = src(**arguments | {"state": tuple(arguments["state"])})
    assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["current", *STATE])
def test_nan_and_infinity_stay_within_their_neuron_and_sample(place: str, value: float) -> None:
    inputs = make_inputs(8, STEPS, BATCH, 40, dtype=torch.float32)
    clean = call(src, inputs, recurrent_grad=True)
    arriving = make_output_gradients(8, clean)
    clean_gradients = gradients(src, inputs, [*arriving], recurrent_grad=True)
    dirty = {name: x.clone() for name, x in inputs.items()}
    dirty[place][(10, 1, 17) if place == "current" else (1, 17)] = value
    made = call(src, dirty, recurrent_grad=True)
    made_gradients = gradients(src, dirty, [*arriving], recurrent_grad=True)
    if value != value:
        begin = 10 if place == "current" else 0
        assert made[0][begin + 2 :, 1, 17].isnan().all()
        assert torch.equal(made[0][:begin, 1, 17], clean[0][:begin, 1, 17])
    elsewhere = torch.ones(BATCH, 40, dtype=torch.bool)
    elsewhere[1, 17] = False
    for x, y in zip((made[0], *made[1]), (clean[0], *clean[1]), strict=True):
        assert torch.equal(x[..., elsewhere], y[..., elsewhere])
    for name in ("current", *STATE):
        assert torch.equal(made_gradients[name][..., elsewhere], clean_gradients[name][..., elsewhere]), name
    for name in ("bias", *PARAMETERS):
        others = torch.arange(40) != 17
        assert torch.equal(made_gradients[name][others], clean_gradients[name][others]), name


def test_data_past_the_end_of_a_sample_changes_nothing() -> None:
    inputs = make_inputs(9, STEPS, BATCH, NEURONS, dtype=torch.float32)
    options = {"lengths": [30, 0, 17], "recurrent_grad": True}
    clean = call(src, inputs, **options)
    assert clean[0][:, 1].count_nonzero() == clean[0][17:, 2].count_nonzero() == 0
    for name, x in zip(STATE, clean[1], strict=True):
        assert torch.equal(x[1], inputs[name][1])
    arriving = make_output_gradients(9, clean)
    dirty = inputs | {"current": inputs["current"].clone()}
    dirty["current"][:, 1] = torch.nan
    dirty["current"][17:, 2] = torch.inf
    made = call(src, dirty, **options)
    assert torch.equal(made[0], clean[0]) and all(map(torch.equal, made[1], clean[1]))
    made_gradients = gradients(src, dirty, [*arriving], **options)
    expected = gradients(src, inputs, [*arriving], **options)
    assert all(torch.equal(made_gradients[name], expected[name]) for name in expected)
    assert expected["current"][:, 1].count_nonzero() == expected["current"][17:, 2].count_nonzero() == 0


@pytest.mark.parametrize("shape", [(STEPS, BATCH, NEURONS), (0, BATCH, NEURONS), (1, BATCH, NEURONS), (1, 1, 1)])
@pytest.mark.parametrize("lengths", [False, True])
def test_no_output_aliases_an_input_or_another_output(shape: tuple[int, int, int], lengths: bool) -> None:
    inputs = {name: x.requires_grad_() for name, x in make_inputs(10, *shape).items()}
    options = {"lengths": torch.zeros(shape[1], dtype=torch.int64)} if lengths else {}
    spikes, state = call(src, inputs, **options)
    made = torch.autograd.grad([spikes, *state], [*inputs.values()], make_output_gradients(10, (spikes, state)))
    tensors = [x for x in (*inputs.values(), spikes, *state, *made) if x.numel()]
    addresses = [x.untyped_storage().data_ptr() for x in tensors]
    assert len(set(addresses)) == len(addresses)


def test_large_outputs_are_right_and_stay_their_owners() -> None:
    """Outputs of some megabytes or more lie in memory blocks that are reused."""
    current = make_currents(11, 300, 60, 100, dtype=torch.float32)
    expected = torch.cat([src(part, -6.0)[0] for part in current.split(10, 1)], 1)
    first, _ = src(current, -6.0)
    second, _ = src(current.flip(1), -6.0)
    assert torch.equal(first, expected)
    del first
    third, _ = src(current, -6.0)
    assert torch.equal(second, expected.flip(1))
    assert torch.equal(third, expected)


# Precision and grad mode


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = {name: x.to(dtype) for name, x in make_inputs(14, STEPS, BATCH, NEURONS, dtype=torch.float32).items()}
    expected, expected_state = call(src, {name: x.float() for name, x in inputs.items()})
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    spikes, state = call(src, leaves)
    assert spikes.dtype == dtype
    assert torch.equal(spikes, expected.to(dtype))
    assert all(x.dtype == torch.float32 for x in state)
    assert all(map(torch.equal, state, expected_state))
    (spikes.sum() + state.h.sum()).backward()
    assert all(x.grad is not None and x.grad.dtype == dtype for name, x in leaves.items())
    mixed, _ = src(inputs["current"].detach(), inputs["bias"].float().detach(), expected_state)
    assert mixed.dtype == dtype


def test_without_a_gradient_nothing_is_kept_for_one() -> None:
    kept: list[bool] = []

    class Observed(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kept.extend(value for name, value in (kwargs or {}).items() if name == "save")
            return function(*args, **(kwargs or {}))

    with Observed():
        src(X, -6.0)
        for input in (X, EventBatch.from_dense(X)):
            src_linear(input, torch.zeros(5, 4), -6.0, method="events")
    assert kept == [False] * 3


def test_without_grad_mode_outputs_are_the_same_and_need_none() -> None:
    inputs = {name: x.requires_grad_() for name, x in make_inputs(16, STEPS, BATCH, NEURONS).items()}
    expected, expected_state = call(src, inputs)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            spikes, state = call(src, inputs)
        assert not spikes.requires_grad and not any(x.requires_grad for x in state)
        assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))


# rest_state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rest_state_stays_where_it_is(dtype: torch.dtype) -> None:
    bias = torch.tensor([-8.0, -6.0, -5.2], dtype=dtype, requires_grad=True)
    rest = rest_state(bias)
    assert all(x.dtype == dtype and x.shape == (3,) and not x.requires_grad for x in rest)
    assert torch.equal(rest.h, rest.hs) and rest.i.count_nonzero() == 0
    _, state = src(torch.zeros(100, 1, 3, dtype=dtype), bias, SRCState(*(x[None] for x in rest)))
    # u = (r + rs) h + b is below 16 and rounded three times, hs twice; the dynamics at rest amplify this by at most 10.
    eps = torch.finfo(dtype).eps
    assert (state.h[0] - rest.h).abs().max() <= 10 * (3 * 8 + 2) * eps
    varied = rest_state(bias, r=torch.tensor([1.0, 2.0, 2.5]), rs=-6.0)
    assert torch.allclose(varied.h, torch.tanh((torch.tensor([1.0, 2.0, 2.5]) - 6.0) * varied.h + bias), atol=26 * eps)


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "bias", {"bias": None}),
        (TypeError, "bias", {"bias": "x"}),
        (TypeError, "r", {"bias": -6.0, "r": [1.0]}),
        (TypeError, "rs", {"bias": -6.0, "rs": torch.zeros(2, dtype=torch.complex64)}),
        (ValueError, "bias", {"bias": math.nan}),
        (ValueError, "r", {"bias": -6.0, "r": math.inf}),
        (TypeError, "bias", {"bias": True}),
        (ValueError, "r", {"bias": torch.zeros(2), "r": torch.zeros(3)}),
        (ValueError, "rs", {"bias": -6.0, "r": torch.zeros(2), "rs": torch.zeros(3)}),
        (ValueError, "r", {"bias": torch.zeros(2), "r": torch.zeros(2, device="meta")}),
    ],
)
def test_rest_state_refuses_what_has_no_fixed_point(error: type[Exception], argument: str, given: Any) -> None:
    assert_refused(error, argument, rest_state, **given)


def test_the_rest_of_nan_is_nan() -> None:
    assert rest_state(torch.tensor([-6.0, math.nan])).h.isnan().tolist() == [False, True]
    assert rest_state(torch.full((2,), -6.0, device="meta"), r=2.5).h.device.type == "meta"


def test_a_rho_whose_reciprocal_the_dtype_does_not_hold_is_refused() -> None:
    per_neuron = torch.full((NEURONS,), 0.5)
    per_neuron[2] = 1e-39
    for given in (1e-39, torch.tensor(1e-39), per_neuron):
        assert_refused(ValueError, "rho", src, **make_call(rho=given))
    src(torch.zeros(2, 1, 1, dtype=torch.float64), -6.0, rho=1e-39)
