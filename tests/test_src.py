"""``src``, ``leaky_readout`` and the modules as a user meets them: errors that name the argument, layouts and sizes
that must work, what torch does with functions and modules (compile, autocast, no_grad, deepcopy, state_dict, to), and
that the modules are what they are made of.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import srcell
from conftest import (
    PARAMETERS,
    STATE,
    assert_refused,
    call,
    gradients,
    make_currents,
    make_inputs,
    make_output_gradients,
    noise,
)
from srcell import SRC, LeakyReadout, SRCCell, SRCConv2d, SRCState, leaky_readout, rest_state, src, src_linear
from srcell.reference import src_reference

STEPS, BATCH, NEURONS = 30, 3, 5


def make_call(**changes: Any) -> dict[str, Any]:
    """Good float32 arguments of ``src``, some of them replaced."""
    inputs = make_inputs(1, STEPS, BATCH, NEURONS, dtype=torch.float32)
    state = SRCState(*(inputs.pop(name) for name in STATE))
    return {**inputs, "state": state, "lengths": [30, 0, 17], **changes}


def make_layer(*sizes: int, cls: type = SRC, **options: Any) -> Any:
    """A layer whose weights are multiples of 2^-6: products with 0 and 1 are summed exactly, in any order."""
    layer = cls(*sizes, **options)
    with torch.no_grad():
        for k, (name, weight) in enumerate(layer.named_parameters()):
            if name.startswith("weight"):
                weight.copy_((64 * 3 * noise(50 + k, *weight.shape)).round() / 64)
    return layer


def make_spikes(seed: int, *shape: int) -> Tensor:
    return (noise(seed, *shape) > 0.5).float()


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


@pytest.mark.parametrize("call", [lambda x, w: src(x, -6.0), lambda x, w: src_linear(x, w, -6.0)])
def test_a_device_without_kernels_is_named(call: Callable[..., Any]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, weight = torch.empty(4, 2, 3, device="mps"), torch.empty(5, 3, device="mps")
    with pytest.raises(ValueError, match=r": expected a tensor on a CPU or a CUDA device, got one on mps"):
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


BAD_LENGTHS = [
    (ValueError, [STEPS + 1, 0, 0]),
    (ValueError, [STEPS, -1, 0]),
    (ValueError, torch.tensor([0, 0, STEPS + 1], dtype=torch.int32)),
    (ValueError, [STEPS, STEPS]),
    (ValueError, torch.zeros(1, BATCH, dtype=torch.int64)),
    (ValueError, torch.zeros(BATCH, dtype=torch.int64, device="meta")),
    (TypeError, [1.0, 2.0, 3.0]),
    (TypeError, torch.ones(BATCH, dtype=torch.bool)),
]


@pytest.mark.parametrize(("error", "lengths"), BAD_LENGTHS)
def test_bad_lengths_are_refused(error: type[Exception], lengths: Any) -> None:
    assert_refused(error, "lengths", src, **make_call(lengths=lengths))
    assert_refused(error, "lengths", SRC(4, 2), torch.zeros(STEPS, BATCH, 4), lengths=lengths)


@pytest.mark.parametrize(("error", "lengths"), BAD_LENGTHS)
def test_the_readout_refuses_bad_lengths(error: type[Exception], lengths: Any) -> None:
    assert_refused(error, "lengths", leaky_readout, torch.zeros(STEPS, BATCH, 4), 2, lengths=lengths)


@pytest.mark.parametrize("surrogate", ["sigmoid", "", None])
def test_an_unknown_surrogate_is_refused(surrogate: Any) -> None:
    assert_refused(ValueError, "surrogate", src, **make_call(surrogate=surrogate))
    assert_refused(ValueError, "surrogate", SRC, 4, 2, surrogate=surrogate)
    assert_refused(ValueError, "surrogate", SRCCell, 4, 2, surrogate=surrogate)


@pytest.mark.parametrize("cls", [SRC, SRCCell])
@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("learnable", {"learnable": ["bias"]}),
        ("learnable", {"learnable": ["alpha", "beta"]}),
        ("learnable", {"learnable": ["zs_hyp"]}),
        ("learnable", {"learnable": ["zs_dep"], "recurrent_grad": False}),
        ("learn_initial_state", {"learn_initial_state": True}),
        ("initial_state", {"initial_state": "random"}),
        ("alpha", {"alpha": torch.zeros(3)}),
    ],
)
def test_a_module_refuses_what_it_cannot_do(cls: type, argument: str, options: dict[str, Any]) -> None:
    assert_refused(ValueError, argument, cls, 4, 2, **options)


@pytest.mark.parametrize(
    ("argument", "args", "options"),
    [
        ("input_size", (-1, 2), {}),
        ("hidden_size", (4, -2), {}),
        ("num_layers", (4, 2, 0), {}),
        ("dropout", (4, 2, 2), {"dropout": 1.5}),
        ("dropout", (4, 2, 2), {"dropout": float("nan")}),
    ],
)
def test_src_refuses_sizes_that_make_no_layer(argument: str, args: tuple[int, ...], options: dict[str, Any]) -> None:
    assert_refused(ValueError, argument, SRC, *args, **options)


@pytest.mark.parametrize("recurrent_grad", [True, False])
def test_every_parameter_that_the_mode_reaches_can_be_learnt(recurrent_grad: bool) -> None:
    reached = PARAMETERS if recurrent_grad else PARAMETERS[:4]
    layer = SRC(4, 6, learnable=reached, recurrent_grad=recurrent_grad, initial_state="rest")
    spikes, _ = layer(make_spikes(2, 60, 3, 4))
    spikes.sum().backward()
    for name in reached:
        grad = getattr(layer, f"{name}_l0").grad
        assert grad.count_nonzero() == grad.numel() > 0, name


@pytest.mark.parametrize(
    ("error", "input"),
    [
        (ValueError, torch.zeros(4)),
        (ValueError, torch.zeros(STEPS, 5)),
        (ValueError, torch.zeros(STEPS, BATCH, 5)),
        (ValueError, torch.zeros(STEPS, BATCH, 4, device="meta")),
        (TypeError, torch.zeros(STEPS, BATCH, 4, dtype=torch.float64)),
        (TypeError, torch.zeros(STEPS, BATCH, 4, dtype=torch.complex64)),
    ],
)
def test_src_refuses_a_bad_input(error: type[Exception], input: Tensor) -> None:
    assert_refused(error, "input", SRC(4, 2), input)


@pytest.mark.parametrize(
    "shape",
    [(BATCH, 2), (1, BATCH, 2), (2, BATCH + 1, 2), (2, BATCH, 3)],
)
def test_src_refuses_a_state_of_wrong_shape(shape: tuple[int, ...]) -> None:
    state = (torch.zeros(2, BATCH, 2), torch.zeros(shape), torch.zeros(2, BATCH, 2))
    assert_refused(ValueError, "state", SRC(4, 2, 2), torch.zeros(STEPS, BATCH, 4), state)


@pytest.mark.parametrize(
    ("error", "argument", "spikes", "num_classes", "alpha"),
    [
        (TypeError, "spikes", torch.zeros(4, 2, 6, dtype=torch.int64), 3, 0.9),
        (TypeError, "spikes", [[[1.0]]], 3, 0.9),
        (ValueError, "spikes", torch.zeros(4, 6), 3, 0.9),
        (ValueError, "spikes", torch.zeros(4, 2, 7), 3, 0.9),
        (ValueError, "num_classes", torch.zeros(4, 2, 6), 0, 0.9),
        (ValueError, "alpha", torch.zeros(4, 2, 6), 3, 1.1),
        (ValueError, "alpha", torch.zeros(4, 2, 6), 3, float("nan")),
    ],
)
def test_the_readout_refuses_bad_input(
    error: type[Exception], argument: str, spikes: Any, num_classes: int, alpha: float
) -> None:
    assert_refused(error, argument, leaky_readout, spikes, num_classes, alpha=alpha)


@pytest.mark.parametrize("isa", ["mmx", "AVX2 ", "0"])
def test_an_unknown_instruction_set_is_an_error_at_import(isa: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import srcell"], env={**os.environ, "SRCELL_ISA": isa}, capture_output=True, text=True
    )
    assert made.returncode == 1
    last = made.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: SRCELL_ISA: expected ") and last.endswith(f"got {isa!r}")


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


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (0, 0)])
def test_layers_without_inputs_or_neurons_work(sizes: tuple[int, int]) -> None:
    spikes, state = SRC(*sizes, 2)(torch.zeros(6, 2, sizes[0]))
    assert spikes.shape == (6, 2, sizes[1])
    assert state.h.shape == (2, 2, sizes[1])


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
    assert all(torch.equal(x.reshape(2, 60), y) for x, y in zip(after, flat_after, strict=True))
    assert torch.equal(made[0].reshape(flat.shape), expected[0])
    # Sums of up to 20 gradients in another order; none of the terms is larger than the largest element.
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


@pytest.mark.parametrize("padding", [math.nan, math.inf])
@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
@pytest.mark.parametrize("autocast", [False, True])
def test_an_input_past_the_end_of_a_sample_changes_nothing(padding: float, method: str, autocast: bool) -> None:
    """Not even the gradient of a weight, in which it would meet a gradient of 0."""

    def run(padding: float) -> list[Tensor]:
        x, weight = noise(30, 10, 2, 784, dtype=torch.float32), 0.1 * noise(31, 5, 784, dtype=torch.float32)
        x[6:, 1] = padding
        x.requires_grad_(), weight.requires_grad_()
        with torch.autocast("cpu", enabled=autocast):
            spikes, state = src_linear(x, weight, -6.0, lengths=[10, 6], method=method)
        (spikes.sum() + state.i.sum()).backward()
        return [spikes, *state, x.grad, weight.grad]

    expected = run(0.0)
    assert expected[-1].count_nonzero() > 0
    assert all(map(torch.equal, run(padding), expected))


def test_the_way_that_auto_takes_does_not_depend_on_what_stands_past_the_ends() -> None:
    """Of a density of 3 % with dense padding: the bits of events, not those of the product."""
    x = (noise(32, 40, 4, 200, dtype=torch.float32) > 0.94).float()
    weight, lengths = noise(33, 16, 200, dtype=torch.float32), [40, 4, 4, 4]
    x[4:, 1:] = 1
    by_events = src_linear(x, weight, -6.0, lengths=lengths, method="events")
    assert by_events[1].i.count_nonzero() > 0
    assert torch.equal(src_linear(x, weight, -6.0, lengths=lengths)[1].i, by_events[1].i)
    assert not torch.equal(src_linear(x, weight, -6.0, lengths=lengths, method="gemm")[1].i, by_events[1].i)


def test_spikes_past_the_end_of_a_sample_have_no_vote() -> None:
    spikes = noise(34, 8, 3, 6).abs()
    dirty = spikes.clone()
    dirty[5:, 1], dirty[:, 2] = torch.nan, torch.inf
    dirty.requires_grad_()
    logits = leaky_readout(dirty, 3, lengths=[8, 5, 0])
    assert torch.equal(logits, leaky_readout(spikes, 3, lengths=[8, 5, 0]))
    logits.sum().backward()
    assert dirty.grad[5:, 1].count_nonzero() == dirty.grad[:, 2].count_nonzero() == 0


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
    """From some megabytes on, outputs lie on blocks of memory that are used again."""
    current = make_currents(11, 300, 60, 100, dtype=torch.float32)
    expected = torch.cat([src(part, -6.0)[0] for part in current.split(10, 1)], 1)
    first, _ = src(current, -6.0)
    second, _ = src(current.flip(1), -6.0)
    assert torch.equal(first, expected)
    del first
    third, _ = src(current, -6.0)
    assert torch.equal(second, expected.flip(1))
    assert torch.equal(third, expected)


# What torch does with functions and modules


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("with_all", [True, False])
def test_compiled_as_a_full_graph_src_is_what_it_is_in_eager_mode(
    backend: str, with_all: bool, request: pytest.FixtureRequest
) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    inputs = make_inputs(12, STEPS, BATCH, NEURONS, dtype=torch.float32)
    arriving = [*make_output_gradients(12, call(src, inputs))]
    lengths = torch.tensor([30, 0, 17])

    def full(*tensors: Tensor) -> tuple[Tensor, SRCState]:
        return call(src, dict(zip(inputs, tensors, strict=True)), recurrent_grad=True, lengths=lengths)

    def plain(*tensors: Tensor) -> tuple[Tensor, SRCState]:
        return src(tensors[0], tensors[1])

    function = full if with_all else plain
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    results = []
    for f in (function, compiled):
        leaves = [x.clone().requires_grad_() for x in inputs.values()]
        spikes, state = f(*leaves)
        used = leaves if with_all else leaves[:2]
        results.append([spikes, *state, *torch.autograd.grad([spikes, *state], used, arriving)])
        with torch.no_grad():
            results[-1].append(f(*inputs.values())[0])
    for eager, made in zip(*results, strict=True):
        assert torch.equal(made, eager)
        assert made.stride() == eager.stride()


def test_a_compiled_module_is_the_module() -> None:
    torch._dynamo.reset()
    layer = make_layer(6, 8, 2, initial_state="rest")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = make_spikes(13, STEPS, BATCH, 6)
    results = []
    for module in (layer, compiled):
        layer.zero_grad()
        spikes, state = module(x, lengths=torch.tensor([30, 0, 17]))
        (spikes.sum() + state.i.sum()).backward()
        results.append([spikes, *state, *(p.grad.clone() for p in layer.parameters())])
    assert results[0][0].count_nonzero() > 0
    assert all(map(torch.equal, *results))


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


@pytest.mark.parametrize("lengths", [None, [30, 0, 17]])
def test_under_autocast_the_readout_stays_in_float32(lengths: list[int] | None) -> None:
    spikes = make_spikes(35, STEPS, BATCH, 6).requires_grad_()
    expected = leaky_readout(spikes, 3, lengths=lengths)
    with torch.autocast("cpu", torch.bfloat16):
        logits = leaky_readout(spikes, 3, lengths=lengths)
        compiled = torch.compile(leaky_readout, fullgraph=True, backend="eager")(spikes, 3, lengths=lengths)
        of_half = leaky_readout(spikes.bfloat16(), 3, lengths=lengths)
    assert logits.dtype == compiled.dtype == of_half.dtype == torch.float32
    assert torch.equal(logits, expected) and torch.equal(compiled, expected) and torch.equal(of_half, expected)


def test_under_autocast_the_synapse_is_in_bfloat16_and_the_cell_in_float32() -> None:
    layer = make_layer(6, 8)
    x = make_spikes(15, STEPS, BATCH, 6)
    with torch.autocast("cpu", torch.bfloat16):
        spikes, state = layer(x)
        current = F.linear(x, layer.weight_ih_l0)
    spikes.sum().backward()
    assert current.dtype == torch.bfloat16
    assert spikes.dtype == state.h.dtype == torch.float32
    expected, expected_state = src(current.float(), layer.bias_l0)
    assert spikes.count_nonzero() > 0
    assert torch.equal(spikes, expected)
    assert torch.equal(state.h[0], expected_state.h)
    assert layer.weight_ih_l0.grad.dtype == torch.float32
    assert layer.weight_ih_l0.grad.count_nonzero() > 0


def test_without_grad_mode_outputs_are_the_same_and_need_none() -> None:
    inputs = {name: x.requires_grad_() for name, x in make_inputs(16, STEPS, BATCH, NEURONS).items()}
    expected, expected_state = call(src, inputs)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            spikes, state = call(src, inputs)
        assert not spikes.requires_grad and not any(x.requires_grad for x in state)
        assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))


OPTIONS: dict[str, Any] = {
    "learnable": ["alpha", "zs_hyp"],
    "recurrent_grad": True,
    "rho": torch.linspace(2.5, 3.5, 8),
    "initial_state": "rest",
    "learn_initial_state": True,
}


def test_state_dict_holds_parameters_and_no_run_state() -> None:
    layer = make_layer(6, 8, 2, **OPTIONS)
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    per_layer = {"weight_ih", "bias", "alpha", "zs_hyp", "rho", "i0", "h0", "hs0"}
    assert set(before) == {f"{name}_l{k}" for name in per_layer for k in (0, 1)} | {"_extra_state"}
    assert {name for name, _ in layer.named_parameters()} == {n for n in before if not n.startswith(("rho", "_"))}
    spikes, _ = layer(make_spikes(17, STEPS, BATCH, 6))
    assert set(layer.state_dict()) == set(before)
    assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())
    other = SRC(6, 8, 2, **OPTIONS)
    other.load_state_dict(before)
    assert torch.equal(other(make_spikes(17, STEPS, BATCH, 6))[0], spikes)


def test_a_deep_copy_is_equal_and_independent() -> None:
    layer = make_layer(6, 8, 2, **OPTIONS)
    x = make_spikes(18, STEPS, BATCH, 6)
    layer(x)[0].sum().backward()
    twin = copy.deepcopy(layer)
    expected = layer(x)[0]
    assert expected.count_nonzero() > 0
    assert torch.equal(twin(x)[0], expected)
    with torch.no_grad():
        twin.bias_l0.fill_(-4.0)
        twin.rho_l0.fill_(5.0)
    assert torch.equal(layer(x)[0], expected)
    assert not torch.equal(twin(x)[0], expected)


@pytest.mark.parametrize("cls", [SRC, SRCCell])
def test_a_module_in_float64_computes_in_float64(cls: type) -> None:
    layer = cls(6, 8, **OPTIONS).to(torch.float64)
    made = cls(6, 8, **OPTIONS, dtype=torch.float64)
    assert {name: x.dtype for name, x in made.state_dict().items()} == dict.fromkeys(layer.state_dict(), torch.float64)
    spikes, state = layer(make_spikes(19, *((BATCH, 6) if cls is SRCCell else (STEPS, BATCH, 6))).double())
    assert spikes.dtype == state.i.dtype == torch.float64


def test_a_module_on_the_meta_device_tells_its_shapes() -> None:
    spikes, state = SRC(6, 8, 2, device="meta")(torch.zeros(STEPS, BATCH, 6, device="meta"))
    assert (spikes.device.type, spikes.shape, state.h.shape) == ("meta", (STEPS, BATCH, 8), (2, BATCH, 8))


def run_in_child(sender: Connection, current: Tensor) -> None:
    torch.set_num_threads(2)
    with torch.no_grad():
        sender.send_bytes(src(current, -6.0)[0].numpy().tobytes())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_runs_with_threads_after_its_parent_did(method: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.ones(1000, 1000).sin()
        current = make_currents(20, 20, 4, 300, dtype=torch.float32)
        expected = src(current, -6.0)[0].numpy().tobytes()
        context = multiprocessing.get_context(method)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=run_in_child, args=(sender, current), daemon=True)
        child.start()
        sender.close()
        try:
            assert receiver.poll(60), "the child does not answer"
            assert receiver.recv_bytes() == expected
            child.join(60)
            assert child.exitcode == 0
        finally:
            child.kill()
        assert src(current, -6.0)[0].numpy().tobytes() == expected
    finally:
        torch.set_num_threads(before)


# The modules are what they are made of


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sample_without_batch_is_a_batch_of_one(batch_first: bool) -> None:
    layer = make_layer(6, 8, 2, batch_first=batch_first)
    x = make_spikes(36, STEPS, 6)
    whole, ended = layer(x)
    assert whole.shape == (STEPS, 8) and ended.h.shape == (2, 8) and whole.count_nonzero() > 0
    batched, expected = layer(x[None] if batch_first else x[:, None])
    assert torch.equal(whole, batched.view(STEPS, 8)) and all(map(torch.equal, ended, (s[:, 0] for s in expected)))
    first, state = layer(x[:9])
    second, state = layer(x[9:], state)
    assert torch.equal(torch.cat([first, second]), whole) and all(map(torch.equal, state, ended))
    with pytest.raises(ValueError, match="lengths: expected None beside an input"):
        layer(x, lengths=[3])
    with pytest.raises(ValueError, match=r"state\.i: expected shape \(2, 8\), as the input has no batch"):
        layer(x, expected)


def test_a_cell_takes_a_sample_without_batch() -> None:
    cell = make_layer(6, 8, cls=SRCCell)
    steps, batched, single = make_spikes(37, STEPS, 6), None, None
    for x in steps:
        expected, batched = cell(x[None], batched)
        spikes, single = cell(x, single)
        assert spikes.shape == (8,) and torch.equal(spikes, expected[0])
    assert all(torch.equal(a, b[0]) for a, b in zip(single, batched, strict=True))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bools_and_integers_are_numbers_of_spikes(dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    x = (2 * make_spikes(38, STEPS, BATCH, 8)).to(dtype)
    for layer, given in (
        (make_layer(8, 5).to(weight_dtype), x),
        (make_layer(8, 5, cls=SRCCell).to(weight_dtype), x[0]),
        (make_layer(2, 5, 1, cls=SRCConv2d).to(weight_dtype), x.view(STEPS, BATCH, 2, 2, 2)),
    ):
        spikes, state = layer(given)
        expected, expected_state = layer(given.to(weight_dtype))
        assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))
        with torch.autocast("cpu"):
            assert torch.equal(layer(given)[0], layer(given.to(weight_dtype))[0])


def test_a_state_is_detached_and_moved_whole() -> None:
    _, state = make_layer(6, 8)(make_spikes(39, STEPS, BATCH, 6))
    assert all(x.requires_grad for x in state)
    cut = state.detach()
    assert isinstance(cut, SRCState) and not any(x.requires_grad for x in cut) and all(map(torch.equal, cut, state))
    moved = state.to(torch.float64)
    assert isinstance(moved, SRCState) and all(x.dtype == torch.float64 for x in moved)
    assert all(x.is_meta for x in state.to("meta"))


@pytest.mark.parametrize("with_lengths", [True, False])
def test_src_is_a_stack_of_linear_synapses_and_cells(with_lengths: bool) -> None:
    alpha = torch.linspace(0.8, 0.95, 8)
    layer = make_layer(6, 8, 2, alpha=alpha, learnable=["rs"])
    x, lengths = make_spikes(21, STEPS, BATCH, 6), torch.tensor([30, 0, 17]) if with_lengths else None
    spikes, state = layer(x, lengths=lengths)
    ended = []
    for k in range(2):
        weight, bias, rs = (getattr(layer, f"{name}_l{k}") for name in ("weight_ih", "bias", "rs"))
        x, after = src_linear(x, weight, bias, alpha=alpha, rs=rs, lengths=lengths)
        assert x.count_nonzero() > 0
        ended.append(after)
    assert torch.equal(spikes, x)
    assert all(map(torch.equal, state, map(torch.stack, zip(*ended, strict=True))))


def test_src_linear_is_src_on_the_product() -> None:
    weight, x = make_layer(6, 8).weight_ih_l0, make_spikes(22, STEPS, BATCH, 6)
    expected, expected_state = src(x @ weight.T, -6.0)
    for method in ("auto", "gemm"):
        spikes, state = src_linear(x, weight, -6.0, method=method)
        assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))


def test_batch_first_swaps_input_and_output_alone() -> None:
    layer, x = make_layer(6, 8, 2), make_spikes(23, STEPS, BATCH, 6)
    swapped = SRC(6, 8, 2, batch_first=True)
    swapped.load_state_dict(layer.state_dict())
    expected, expected_state = layer(x, lengths=[30, 0, 17])
    spikes, state = swapped(x.transpose(0, 1), lengths=[30, 0, 17])
    assert torch.equal(spikes.transpose(0, 1), expected) and all(map(torch.equal, state, expected_state))


def test_dropout_acts_between_layers_and_in_training_alone() -> None:
    plain, x = make_layer(6, 8, 2), make_spikes(24, STEPS, BATCH, 6)
    expected, expected_state = plain(x)
    assert expected.count_nonzero() > 0
    for dropout in (0.5, 1.0):
        layer = SRC(6, 8, 2, dropout=dropout)
        layer.load_state_dict(plain.state_dict())
        _, state = layer(x)
        assert torch.equal(state.i[0], expected_state.i[0])
        assert not torch.equal(state.i[1], expected_state.i[1])
        assert (state.i[1].count_nonzero() == 0) == (dropout == 1)
        assert torch.equal(layer.eval()(x)[0], expected)
    single = SRC(6, 8, 1, dropout=1.0)
    assert torch.equal(single(x)[0], copy.deepcopy(single).eval()(x)[0])


@pytest.mark.parametrize("initial_state", ["zeros", "rest"])
@pytest.mark.parametrize("learnt", [True, False])
def test_a_layer_starts_from_its_initial_state(initial_state: str, learnt: bool) -> None:
    layer = make_layer(6, 8, initial_state=initial_state, learn_initial_state=learnt, recurrent_grad=learnt)
    x = make_spikes(25, STEPS, BATCH, 6)
    spikes, state = layer(x)
    expected_start = rest_state(layer.bias_l0) if initial_state == "rest" else SRCState(*[torch.zeros(8)] * 3)
    start = SRCState(*(s.expand(1, BATCH, 8) for s in expected_start))
    expected, expected_state = layer(x, start)
    assert torch.equal(spikes, expected) and all(map(torch.equal, state, expected_state))
    if not learnt:
        return
    (spikes.sum() + sum(s.sum() for s in state)).backward()
    for name in STATE:
        parameter = getattr(layer, f"{name}_l0")
        assert parameter.grad.count_nonzero() == 8, name
        with torch.no_grad():
            parameter.add_(0.125)
    moved = SRCState(*(s + 0.125 for s in start))
    assert torch.equal(layer(x)[0], layer(x, moved)[0])


def test_without_bias_the_excitability_stays_fixed() -> None:
    layer = make_layer(6, 8, bias=False, bias_init=-5.5)
    assert [name for name, _ in layer.named_parameters()] == ["weight_ih_l0"]
    assert "bias_l0" not in layer.state_dict()
    x = make_spikes(26, STEPS, BATCH, 6)
    assert torch.equal(layer(x)[0], src_linear(x, layer.weight_ih_l0, -5.5)[0])
    layer.constrain_()
    assert torch.equal(layer(x)[0], src_linear(x, layer.weight_ih_l0, -5.5)[0])


@pytest.mark.parametrize("bias_max", [-4.0, -5.0])
def test_constrain_projects_into_the_domains_in_place(bias_max: float) -> None:
    layer = SRC(6, 8, 2, learnable=PARAMETERS, recurrent_grad=True, bias_max=bias_max)
    outside = {"alpha": [-0.5, 1.5, 0.5], "zs_hyp": [-0.5, 1.5, 0.5], "zs_dep": [-0.5, 1.5, 0.5], "rho": [-1.0, 0.0, 2]}
    allowed = {"alpha": [0, 1, 0.5], "zs_hyp": [0, 1, 0.5], "zs_dep": [0, 1, 0.5], "rho": [1e-3, 1e-3, 2]}
    for k in (0, 1):
        bias = getattr(layer, f"bias_l{k}")
        for case in range(3):
            with torch.no_grad():
                bias.copy_(torch.linspace(-8, 0, 8))
                for name, values in outside.items():
                    getattr(layer, f"{name}_l{k}").fill_(values[case])
                layer.get_parameter(f"r_l{k}").fill_(-9.0)
            layer.constrain_()
            assert getattr(layer, f"bias_l{k}") is bias
            assert torch.equal(bias, torch.linspace(-8, 0, 8).clamp(max=bias_max))
            for name, values in allowed.items():
                assert getattr(layer, f"{name}_l{k}").item() == torch.tensor(values[case]).item(), name
            assert layer.get_parameter(f"r_l{k}").item() == -9.0


def test_reset_parameters_is_where_a_layer_begins() -> None:
    torch.manual_seed(0)
    layer = SRC(6, 8, 2, **OPTIONS)
    begin = {name: x.clone() for name, x in layer.state_dict().items()}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.01)
    torch.manual_seed(0)
    layer.reset_parameters()
    assert all(torch.equal(x, begin[name]) for name, x in layer.state_dict().items())


@pytest.mark.parametrize("recurrent_grad", [True, False])
def test_src_cell_stepped_is_src(recurrent_grad: bool) -> None:
    options = OPTIONS | {"recurrent_grad": recurrent_grad}
    if not recurrent_grad:
        options |= {"learnable": ["alpha"], "learn_initial_state": False}
    layer = make_layer(6, 8, **options)
    cell = SRCCell(6, 8, **options)
    cell.load_state_dict(
        {("bias_ih" if n == "bias_l0" else n.removesuffix("_l0")): x for n, x in layer.state_dict().items()}
    )
    x = make_spikes(27, STEPS, BATCH, 6)
    expected, expected_state = layer(x)
    assert expected.count_nonzero() > 0
    spikes, state = [], None
    for x_now in x:
        s, state = cell(x_now, state)
        assert s.shape == state.h.shape == (BATCH, 8)
        spikes.append(s)
    assert torch.equal(torch.stack(spikes), expected)
    assert all(map(torch.equal, state, (s[0] for s in expected_state)))
    torch.stack(spikes).sum().backward()
    expected.sum().backward()
    # Sums over 30 steps and 3 samples in another order, in float32.
    for ours, theirs in zip(cell.parameters(), layer.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 90 * 2**-23 * max(1, theirs.grad.abs().max().item())


def readout_by_loop(spikes: Tensor, classes: int, alpha: float, inhibition: float, lengths: list[int]) -> Tensor:
    steps, batch, neurons = spikes.shape
    votes = torch.full((classes, neurons), inhibition, dtype=spikes.dtype)
    for n in range(neurons):
        votes[n % classes, n] = 1
    o = torch.zeros(batch, classes, dtype=spikes.dtype)
    for t in range(steps):
        for b in range(batch):
            if t < lengths[b]:
                o[b] = alpha * o[b] + votes @ spikes[t, b]
    return o


@pytest.mark.parametrize("lengths", [None, [50, 0, 23, 1]])
@pytest.mark.parametrize(("alpha", "inhibition"), [(0.99, -0.1), (0.5, 0.0), (1.0, -1.0), (0.0, -0.1)])
def test_the_readout_is_its_recurrence(alpha: float, inhibition: float, lengths: list[int] | None) -> None:
    spikes = noise(28, 50, 4, 12).clamp(min=0)
    loop = readout_by_loop(spikes, 3, alpha, inhibition, lengths or [50] * 4)
    # Each term takes part in some 50 + 12 roundings on either way.
    terms = readout_by_loop(spikes, 3, alpha, abs(inhibition), lengths or [50] * 4)
    made = leaky_readout(spikes, 3, alpha=alpha, inhibition=inhibition, lengths=lengths)
    assert made.shape == (4, 3)
    assert ((made - loop).abs() <= 2 * (50 + 12) * 2**-53 * terms.max()).all()
    assert loop.count_nonzero() > 0


def test_the_readouts_defaults_are_the_published_ones() -> None:
    spikes = noise(29, 50, 4, 30).clamp(min=0)
    expected = leaky_readout(spikes, 10, alpha=0.99, inhibition=-0.1)
    assert torch.equal(leaky_readout(spikes, 10), expected)
    module = LeakyReadout(10, neurons_per_class=3)
    assert torch.equal(module(spikes), expected / module.temperature)
    assert not list(module.parameters())
    assert torch.equal(
        LeakyReadout(10, 3, temperature=1)(spikes, [50, 0, 3, 9]), leaky_readout(spikes, 10, lengths=[50, 0, 3, 9])
    )


def test_the_readouts_gradient_is_its_derivative_and_zero_past_the_end() -> None:
    spikes = noise(30, 8, 3, 6).clamp(min=0).requires_grad_()
    lengths = torch.tensor([8, 0, 5])
    assert torch.autograd.gradcheck(lambda s: leaky_readout(s, 3, lengths=lengths), spikes)
    (grad,) = torch.autograd.grad(leaky_readout(spikes, 3, lengths=lengths)[:, 0].sum(), spikes)
    assert grad[:, 1].count_nonzero() == grad[5:, 2].count_nonzero() == 0
    assert grad[:, 0].count_nonzero() == grad[:, 0].numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rest_state_stays_where_it_is(dtype: torch.dtype) -> None:
    bias = torch.tensor([-8.0, -6.0, -5.2], dtype=dtype, requires_grad=True)
    rest = rest_state(bias)
    assert all(x.dtype == dtype and x.shape == (3,) and not x.requires_grad for x in rest)
    assert torch.equal(rest.h, rest.hs) and rest.i.count_nonzero() == 0
    _, state = src(torch.zeros(100, 1, 3, dtype=dtype), bias, SRCState(*(x[None] for x in rest)))
    # u = (r + rs) h + b is below 16 and rounded three times, hs twice; the dynamics at rest amplify that by at most 10.
    eps = torch.finfo(dtype).eps
    assert (state.h[0] - rest.h).abs().max() <= 10 * (3 * 8 + 2) * eps
    varied = rest_state(bias, r=torch.tensor([1.0, 2.0, 2.5]), rs=-6.0)
    assert torch.allclose(varied.h, torch.tanh((torch.tensor([1.0, 2.0, 2.5]) - 6.0) * varied.h + bias), atol=26 * eps)


def test_info_says_what_runs() -> None:
    info = srcell.info()
    assert info["version"] == srcell.__version__
    assert info["isa"] in info["isas"] and info["isas"][0] == "scalar"
    assert info["torch"] == torch.__version__
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert srcell.info()["threads"] == 3
    finally:
        torch.set_num_threads(before)


def test_lengths_beside_an_event_batch_that_has_its_own_are_refused() -> None:
    events = srcell.EventBatch.from_dense(torch.ones(5, 2, 3), lengths=torch.tensor([5, 2]))
    assert_refused(ValueError, "lengths", SRC(3, 4, num_layers=2), events, lengths=[5, 5])
