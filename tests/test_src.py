"""``src``, ``rest_state``, and the behaviour that ``src_linear`` shares with ``src``: errors that name the argument,
layouts and sizes that must work, padding past a sample's end, half precision. test_linear.py tests the rest of
``src_linear``.
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
from support.gradients import (
    assert_equal,
    make_output_gradients,
    relative_error,
    requiring_grad,
    results,
)
from support.inputs import (
    BATCH,
    NEURONS,
    PARAMETERS,
    STATE,
    STEPS,
    call,
    make_currents,
    make_inputs,
    make_lateral,
    noise,
)
from support.linear import KINDS, OPERATORS, assert_equal_outputs, problem, tensors_of
from support.refusals import BAD_LENGTHS, Refusal, assert_refused, refusals

X = torch.zeros(3, 2, 4)
SIZES = (STEPS, BATCH, NEURONS)

every_operator = pytest.mark.parametrize("kind", OPERATORS)


# Refusals


def assert_call_refused(kind: str, error: type[Exception], argument: str, changes: Any, **options: Any) -> None:
    """Assert that a valid float32 call is refused after some changes."""
    function, _, inputs = problem(kind, 1, SIZES, dtype=torch.float32)
    assert_refused(error, argument, call, function, {**inputs, **changes}, **options)


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TypeError, "0.5"),
        (TypeError, torch.full((NEURONS,), 0.5, dtype=torch.float64)),
        (ValueError, torch.full((NEURONS,), 0.5, device="meta")),
        (ValueError, torch.full((NEURONS + 1,), 0.5)),
        (ValueError, torch.full((BATCH, NEURONS), 0.5)),
        (ValueError, torch.full((0,), 0.5)),
        (ValueError, math.nan),
        (ValueError, math.inf),
        (ValueError, -math.inf),
        (ValueError, torch.tensor(math.nan)),
        (ValueError, torch.tensor([math.inf])),
    ],
)
@pytest.mark.parametrize("name", ["bias", *PARAMETERS])
@every_operator
def test_a_bad_parameter_is_refused(kind: str, name: str, error: type[Exception], value: Any) -> None:
    assert_call_refused(kind, error, name, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", -0.01), ("alpha", 1.01), ("alpha", math.nan), ("rho", 0.0), ("rho", -3.0), ("rho", 1e-39)],
)
@every_operator
def test_a_parameter_out_of_its_domain_is_refused(kind: str, name: str, value: float) -> None:
    """The reciprocal of a rho of 1e-39 overflows float32."""
    per_neuron = torch.full((NEURONS,), 0.5)
    per_neuron[2] = value
    for given in (value, torch.tensor(value), per_neuron):
        assert_call_refused(kind, ValueError, name, {name: given})


def test_a_rho_of_1e_39_is_valid_in_float64() -> None:
    src(X.double(), -6.0, rho=1e-39)


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (ValueError, torch.zeros(BATCH, NEURONS + 1)),
        (ValueError, torch.zeros(1, NEURONS)),
        (ValueError, torch.zeros(NEURONS)),
        (ValueError, torch.zeros(BATCH, NEURONS, device="meta")),
        (TypeError, torch.zeros(BATCH, NEURONS, dtype=torch.float64)),
    ],
)
@pytest.mark.parametrize("name", STATE)
@every_operator
def test_a_bad_state_is_refused(kind: str, name: str, error: type[Exception], value: Any) -> None:
    assert_call_refused(kind, error, f"state.{name[:-1]}", {name: value})


@pytest.mark.parametrize(("error", "lengths"), BAD_LENGTHS)
@every_operator
def test_bad_lengths_are_refused(kind: str, error: type[Exception], lengths: Any) -> None:
    assert_call_refused(kind, error, "lengths", {}, lengths=lengths)


PAIR = (X[0], X[0])


@refusals(
    Refusal("current", lambda: src(torch.zeros(4, 3), -6.0)),
    Refusal("current", lambda: src(torch.zeros(4, 2, 3, dtype=torch.int64), -6.0), TypeError),
    Refusal("current", lambda: src([[[0.0]]], -6.0), TypeError),  # type: ignore[arg-type]
    Refusal("bias", lambda: src(X, 1e300)),  # no float32
    Refusal("bias", lambda: src(X, -1e39)),
    Refusal("state", lambda: src(X, -6.0, ()), TypeError),  # type: ignore[arg-type]
    Refusal("state", lambda: src(X, -6.0, PAIR), TypeError),  # type: ignore[arg-type]
    Refusal("state", lambda: src(X, -6.0, (*PAIR, 0.0)), TypeError),  # type: ignore[arg-type]
    Refusal("state", lambda: src(X, -6.0, torch.zeros(3, 2, 4)), TypeError),  # type: ignore[arg-type]
    Refusal("state.i", lambda: src(torch.zeros(3, 2, 4, 5), -6.0, (torch.zeros(2, 5, 4),) * 3)),
    Refusal("lengths", lambda: SRC(4, 2)(X, lengths=[4, 0])),
    # Lengths that torch cannot convert to a tensor, one for each type of error that it raises
    Refusal("lengths", lambda: src(X, -6.0, lengths="abc"), TypeError),  # type: ignore[arg-type]
    Refusal("lengths", lambda: src(X, -6.0, lengths=[2**70, 2**70]), TypeError),
    Refusal("lengths", lambda: src(X, -6.0, lengths={}), TypeError),  # type: ignore[arg-type]
    Refusal("lengths", lambda: src(X, -6.0, lengths=[[1], [2, 3]]), TypeError),  # type: ignore[list-item]
    Refusal(
        "lengths",
        lambda: src(X[:, :0], -6.0, lengths=torch.quantize_per_tensor(torch.zeros(0), 0.1, 0, torch.qint8)),
        TypeError,
    ),
    Refusal("surrogate", lambda: src(X, -6.0, surrogate="sigmoid")),
    Refusal("surrogate", lambda: SRC(4, 2, surrogate="sigmoid")),
    Refusal("surrogate", lambda: SRCCell(4, 2, surrogate="sigmoid")),
    Refusal("bias", lambda: rest_state("x"), TypeError),  # type: ignore[arg-type]
    Refusal("bias", lambda: rest_state(True), TypeError),
    Refusal("bias", lambda: rest_state(math.nan)),
    Refusal("r", lambda: rest_state(-6.0, r=[1.0]), TypeError),  # type: ignore[arg-type]
    Refusal("r", lambda: rest_state(-6.0, r=math.inf)),
    Refusal("r", lambda: rest_state(torch.zeros(2), r=torch.zeros(3))),
    Refusal("r", lambda: rest_state(torch.zeros(2), r=torch.zeros(2, device="meta"))),
    Refusal("rs", lambda: rest_state(-6.0, rs=torch.zeros(2, dtype=torch.complex64)), TypeError),
    Refusal("rs", lambda: rest_state(-6.0, r=torch.zeros(2), rs=torch.zeros(3))),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize(
    ("dtype", "value", "got"),
    [
        (torch.float32, 1.0000001, "1.0000001"),
        (torch.float64, 1 + 2**-52, "1.0000000000000002"),
        (torch.float32, 1.1, "1.1"),
    ],
)
def test_a_refused_value_is_shown_with_all_its_digits(dtype: torch.dtype, value: float, got: str) -> None:
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


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_may_be_0_or_1(alpha: float) -> None:
    inputs: dict[str, Any] = make_inputs(1, 9, 2, 4) | {"alpha": alpha}
    expected = call(src_reference, inputs)
    assert expected[0].count_nonzero() > 0
    for x, y in zip(tensors_of(call(src, inputs)), tensors_of(expected), strict=True):
        assert relative_error(x, y) <= 1e-12


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
@every_operator
def test_any_memory_layout_gives_the_same_bits(kind: str, layout: str) -> None:
    function, _, inputs = problem(kind, 3, SIZES, dtype=torch.float32)
    options = {"full_gradient": True, "lengths": [30, 4, 17]}
    expected = results(function, inputs, 3, **options)
    leaves = {name: layouts(x)[layout].detach().requires_grad_() for name, x in inputs.items()}
    options["lengths"] = torch.tensor([30, 0, 4, 0, 17, 0], dtype=torch.int32)[::2]
    spikes, state = call(function, leaves, **options)
    grad_outputs = [layouts(g)[layout] for g in make_output_gradients(3, (spikes, state))]
    made = torch.autograd.grad([spikes, *state], [*leaves.values()], grad_outputs)
    of_inputs = {f"gradient of {name}": grad for name, grad in zip(leaves, made, strict=True)}
    assert_equal({"spikes": spikes, **state._asdict(), **of_inputs}, expected)


def test_expanded_inputs_give_the_results_of_their_copies() -> None:
    current = make_currents(4, STEPS, 1, 1, dtype=torch.float32).expand(STEPS, BATCH, NEURONS)
    state = tuple(torch.full((), x).expand(BATCH, NEURONS) for x in (0.1, -0.9, -0.91))
    bias = torch.tensor([-6.0]).expand(NEURONS)
    spikes, after = src(current, bias, state)
    expected, expected_after = src(current.contiguous(), bias.contiguous(), SRCState(*(x.contiguous() for x in state)))
    assert spikes.count_nonzero() > 0
    assert torch.equal(spikes, expected) and all(map(torch.equal, after, expected_after))


# T, B, N and K
EMPTY = [(0, 3, 5, 4), (7, 0, 5, 4), (7, 3, 0, 4), (7, 3, 5, 0), (0, 0, 0, 0), (7, 3, 0, 0)]


@pytest.mark.parametrize("full_gradient", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False], ids=["lengths", "whole"])
@pytest.mark.parametrize("per_neuron", [True, False], ids=["per neuron", "scalar"])
@pytest.mark.parametrize("sizes", EMPTY)
@pytest.mark.parametrize("kind", KINDS)
def test_empty_inputs_work(
    kind: str, sizes: tuple[int, int, int, int], per_neuron: bool, with_lengths: bool, full_gradient: bool
) -> None:
    *shape, width = sizes
    function, reference, inputs = problem(kind, 6, shape, width, per_neuron=per_neuron)
    lengths = torch.full((sizes[1],), sizes[0] // 2) if with_lengths else None
    options = {"lengths": lengths, "full_gradient": full_gradient}
    made = results(function, inputs, 6, **options)
    if sizes[0]:
        expected = results(reference, inputs, 6, **options)
    else:  # the state and its gradient are returned unchanged
        state = SRCState(*(inputs[name] for name in STATE))
        spikes = state.i.new_empty(0, *state.i.shape)
        expected = {"spikes": spikes, **state._asdict()}
        expected |= {f"gradient of {name}": torch.zeros_like(x) for name, x in inputs.items()}
        grad_outputs = make_output_gradients(6, (spikes, state))
        expected |= zip((f"gradient of {name}" for name in STATE), grad_outputs[1:], strict=True)
    assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in expected.items()}
    assert all(relative_error(x, expected[name]) <= 1e-12 for name, x in made.items())


@pytest.mark.parametrize("lateral", [False, True])
def test_features_of_any_rank_are_neurons(lateral: bool) -> None:
    features = (3, 4, 5)
    flat = make_inputs(6, STEPS, 2, 60)
    flat["bias"], flat["alpha"] = flat["bias"][:3].repeat_interleave(20), flat["alpha"][:5].repeat(12)
    shaped = {name: x.view(*x.shape[:-1], *features) for name, x in flat.items()}
    if lateral:
        flat["weight_hh"] = shaped["weight_hh"] = make_lateral(6, 60)
    shaped["bias"], shaped["alpha"] = flat["bias"][::20].view(3, 1, 1).clone(), flat["alpha"][:5].clone()
    expected = results(src, flat, 6)
    grad_outputs = make_output_gradients(6, (expected["spikes"], SRCState(*(expected[x] for x in SRCState._fields))))
    grad_outputs = [g.view(*g.shape[:-1], *features) for g in grad_outputs]
    made = results(src, shaped, grad_outputs=grad_outputs)
    broadcast = {name: (made.pop(name), expected.pop(name)) for name in ("gradient of bias", "gradient of alpha")}
    assert made["spikes"].shape == (STEPS, 2, *features) and made["h"].shape == (2, *features)
    assert_equal({name: x.view(expected[name].shape) for name, x in made.items()}, expected)
    # The two sides sum up to 20 gradients in different orders; no term is larger than the largest element.
    for (x, terms), axes in zip(broadcast.values(), ((1, 2), (0, 1)), strict=True):
        error = (x.flatten() - terms.view(features).sum(axes)).abs().max()
        assert error <= 20 * 20 * 2**-53 * terms.abs().max()
    spikes, state = src(shaped["current"][:, :, 0], -6.0)
    assert spikes.shape == (STEPS, 2, 4, 5) and all(x.shape == (2, 4, 5) for x in state)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["current", *STATE])
def test_nan_and_infinity_stay_in_their_neuron_and_sample(place: str, value: float) -> None:
    inputs = make_inputs(8, STEPS, BATCH, 40, dtype=torch.float32)
    dirty = {name: x.clone() for name, x in inputs.items()}
    dirty[place][(10, 1, 17) if place == "current" else (1, 17)] = value
    clean, made = (results(src, given, 8, full_gradient=True) for given in (inputs, dirty))
    if math.isnan(value):
        begin = 10 if place == "current" else 0
        assert made["spikes"][begin + 2 :, 1, 17].isnan().all()
        assert torch.equal(made["spikes"][:begin, 1, 17], clean["spikes"][:begin, 1, 17])
    other_elements = torch.ones(BATCH, 40, dtype=torch.bool)
    other_elements[1, 17] = False
    for name, x in made.items():
        others = other_elements if x.dim() > 1 else torch.arange(40) != 17
        assert torch.equal(x[..., others], clean[name][..., others]), name


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("padding", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["src", "events", "gemm", "auto"])
def test_data_past_the_end_of_a_sample_changes_nothing(kind: str, padding: float, autocast: bool) -> None:
    """This includes the weight's gradient, where padding is multiplied by a gradient of 0: 0 times NaN is NaN."""
    function, _, inputs = problem(kind, 9, SIZES, 100, dtype=torch.float32)
    options = {"lengths": [30, 0, 17], "full_gradient": True}
    data = next(iter(inputs))
    if kind == "auto":  # so dense that the operator takes the product
        inputs[data] = noise(30, STEPS, BATCH, 100, dtype=torch.float32)
    dirty = inputs | {data: inputs[data].clone()}
    dirty[data][:, 1] = dirty[data][17:, 2] = padding
    with torch.autocast("cpu", enabled=autocast):
        clean, made = (results(function, given, 9, **options) for given in (inputs, dirty))
    assert_equal(made, clean)
    for x in (clean["spikes"], clean[f"gradient of {data}"]):
        assert x[:, 1].count_nonzero() == x[17:, 2].count_nonzero() == 0 < x[:17, 2].count_nonzero()
    assert all(torch.equal(clean[name][1], inputs[f"{name}0"][1]) for name in SRCState._fields)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("shape", [SIZES, (0, BATCH, NEURONS), (1, BATCH, NEURONS), (1, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_output_aliases_an_input_or_another_output(kind: str, shape: tuple[int, int, int], lengths: bool) -> None:
    function, _, inputs = problem(kind, 10, shape)
    leaves = requiring_grad(inputs)
    options = {"lengths": torch.zeros(shape[1], dtype=torch.int64)} if lengths else {}
    outputs = tensors_of(call(function, leaves, **options))
    made = torch.autograd.grad(outputs, [*leaves.values()], [torch.ones_like(x) for x in outputs])
    addresses = [x.untyped_storage().data_ptr() for x in (*leaves.values(), *outputs, *made) if x.numel()]
    assert len(set(addresses)) == len(addresses)


def test_large_outputs_are_right_and_are_not_overwritten() -> None:
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
@every_operator
def test_half_precision_is_computed_in_float32(kind: str, dtype: torch.dtype) -> None:
    function, _, inputs = problem(kind, 10, SIZES, 7, dtype=torch.float32)
    leaves = requiring_grad({name: x if name == "values" else x.to(dtype) for name, x in inputs.items()})
    rounded = {name: x.detach().float() for name, x in leaves.items()}
    expected = call(function, rounded)
    spikes, state = call(function, leaves)
    assert expected[0].count_nonzero() > 0
    assert spikes.dtype == dtype and all(x.dtype == torch.float32 for x in state)
    assert_equal_outputs((spikes, state), (expected[0].to(dtype), expected[1]))
    (spikes.sum() + state.h.sum()).backward()
    assert all(x.grad is not None and x.grad.dtype == x.dtype for x in leaves.values())
    synapse = {name: x for name, x in leaves.items() if name in ("current", "input", "weight")}
    assert call(function, rounded | synapse)[0].dtype == dtype


def test_without_a_gradient_nothing_is_saved_for_backward() -> None:
    saved: list[bool] = []

    class Observed(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            saved.extend(value for name, value in (kwargs or {}).items() if name == "save")
            return function(*args, **(kwargs or {}))

    with Observed():
        src(X, -6.0)
        for input in (X, EventBatch.from_dense(X)):
            src_linear(input, torch.zeros(5, 4), -6.0, method="events")
    assert saved == [False] * 3


def test_without_grad_mode_outputs_are_the_same_and_require_no_gradient() -> None:
    inputs = requiring_grad(make_inputs(16, *SIZES))
    expected = call(src, inputs)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            made = call(src, inputs)
        assert not any(x.requires_grad for x in tensors_of(made))
        assert_equal_outputs(made, expected)


# rest_state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rest_state_is_a_fixed_point(dtype: torch.dtype) -> None:
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


def test_the_rest_state_of_nan_is_nan() -> None:
    assert rest_state(torch.tensor([-6.0, math.nan])).h.isnan().tolist() == [False, True]
    assert rest_state(torch.full((2,), -6.0, device="meta"), r=2.5).h.device.type == "meta"
