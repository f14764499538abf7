"""The layers: options and errors, repr and state_dict, and equality with the functions that they are made of."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import srcell
from srcell import (
    SRC,
    EventBatch,
    LeakyReadout,
    SpikesOnly,
    SRCCell,
    SRCConv2d,
    SRCState,
    rest_state,
    src,
    src_linear,
)
from support.inputs import BATCH, PARAMETERS, STATE, STEPS, noise
from support.layers import LAYERS, make, make_layer, make_spikes
from support.refusals import assert_refused

X = torch.zeros(3, 2, 4)


def spikes_of(layer: Any) -> Tensor:
    x = (noise(1, 40, 2, 3) > 0).to(layer.get_parameter(next(iter(dict(layer.named_parameters())))).dtype)
    if isinstance(layer, SRCCell):
        state, spikes = None, []
        for step in x:
            s, state = layer(step, state)
            spikes.append(s)
        return torch.stack(spikes)
    return layer(x[..., None, None] if isinstance(layer, SRCConv2d) else x)[0]


# Refused arguments


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


def test_lengths_beside_an_event_batch_that_has_its_own_are_refused() -> None:
    events = srcell.EventBatch.from_dense(torch.ones(5, 2, 3), lengths=torch.tensor([5, 2]))
    assert_refused(ValueError, "lengths", SRC(3, 4, num_layers=2), events, lengths=[5, 5])


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("alpha", {"alpha": 1.5}),
        ("alpha", {"alpha": 1.0000001}),
        ("alpha", {"alpha": math.nan}),
        ("alpha", {"alpha": torch.tensor([0.1, 0.2, 0.3, -0.4])}),
        ("rho", {"rho": 0.0}),
        ("rho", {"rho": math.inf}),
        ("rho", {"rho": 1e-39}),
        ("rho", {"rho": 1e-4, "learnable": ["rho"]}),
        ("r", {"r": math.inf}),
        ("r", {"r": 1e39, "learnable": ["r"]}),
        ("rs", {"rs": torch.empty(4, device="meta")}),
        ("zs_dep", {"zs_dep": -0.1, "learnable": ["zs_dep"], "recurrent_grad": True}),
        ("alpha", {"alpha": nn.Parameter(torch.tensor(0.5))}),
    ],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_cell_parameter_with_which_nothing_can_run_is_refused_at_once(
    kind: str, argument: str, options: dict[str, Any]
) -> None:
    assert_refused(ValueError, argument, make, kind, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"rho": 0.5},
        {"rho": 1e-3, "learnable": ["rho"]},
        {"zs_hyp": 1.0, "zs_dep": 0.0, "learnable": ["zs_hyp", "zs_dep"], "recurrent_grad": True},
    ],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_cell_parameter_at_the_edge_of_its_domain_is_taken(kind: str, options: dict[str, Any]) -> None:
    layer = make(kind, **options)
    begin = {name: x.clone() for name, x in layer.state_dict().items()}
    layer.constrain_()
    assert all(torch.equal(x, begin[name]) for name, x in layer.state_dict().items())


def test_a_refused_value_is_shown_with_all_its_digits() -> None:
    with pytest.raises(ValueError, match=r"got 1\.0000001$"):
        SRC(3, 4, alpha=1.0000001)


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "input_size", {"input_size": "3"}),
        (ValueError, "hidden_size", {"hidden_size": 2**63}),
        (TypeError, "num_layers", {"num_layers": 1.0}),
        (TypeError, "bias", {"bias": np.zeros(3)}),
        (TypeError, "batch_first", {"batch_first": torch.zeros(0)}),
        (TypeError, "dropout", {"dropout": "x"}),
        (TypeError, "alpha", {"alpha": "x"}),
        (TypeError, "r", {"r": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}),
        (ValueError, "rs", {"rs": torch.zeros(3).to_sparse()}),
        (TypeError, "learnable", {"learnable": torch.zeros(())}),
        (ValueError, "learnable", {"learnable": [[]]}),
        (ValueError, "surrogate", {"surrogate": np.array(["relu", "x"])}),
        (TypeError, "recurrent_grad", {"recurrent_grad": 1}),
        (ValueError, "initial_state", {"initial_state": np.array(["rest", "x"])}),
        (TypeError, "learn_initial_state", {"learn_initial_state": torch.zeros(0)}),
        (ValueError, "bias_init", {"bias_init": 1e39}),
        (ValueError, "bias_max", {"bias_max": 10**400}),
    ],
)
def test_a_layer_names_what_it_is_not_made_of(error: type[Exception], argument: str, given: dict[str, Any]) -> None:
    assert_refused(error, argument, SRC, **{"input_size": 4, "hidden_size": 3} | given)


def test_a_layer_names_what_it_does_not_run_on() -> None:
    maps, nested = torch.zeros(3, 2, 1, 5, 5), torch.nested.nested_tensor([torch.zeros(2, 4)])
    for x in (X.to_sparse(), nested):
        assert_refused(ValueError, "input", SRC(4, 3), x)
        assert_refused(ValueError, "spikes", LeakyReadout(2), x)
    assert_refused(ValueError, "input", SRCCell(4, 3), X[0].to_sparse())
    assert_refused(ValueError, "input", SRCConv2d(1, 2, 3), maps.to_sparse())
    assert_refused(TypeError, "state", SRC(4, 3), X, (1, 2, 3))
    assert_refused(TypeError, "spikes", LeakyReadout(2), None)
    assert_refused(TypeError, "num_classes", LeakyReadout, 2.0)
    assert_refused(ValueError, "inhibition", LeakyReadout, 2, inhibition=math.nan)
    assert LeakyReadout(2, 2, inhibition=2**64)(X).shape == (2, 2)


# Equality with the functions


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
    # Sums over 30 steps and 3 samples in another order, in float32
    for ours, theirs in zip(cell.parameters(), layer.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 90 * 2**-23 * max(1, theirs.grad.abs().max().item())


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


OPTIONS: dict[str, Any] = {
    "learnable": ["alpha", "zs_hyp"],
    "recurrent_grad": True,
    "rho": torch.linspace(2.5, 3.5, 8),
    "initial_state": "rest",
    "learn_initial_state": True,
}


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


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (0, 0)])
def test_layers_without_inputs_or_neurons_work(sizes: tuple[int, int]) -> None:
    spikes, state = SRC(*sizes, 2)(torch.zeros(6, 2, sizes[0]))
    assert spikes.shape == (6, 2, sizes[1])
    assert state.h.shape == (2, 2, sizes[1])


def test_a_state_is_detached_and_moved_whole() -> None:
    _, state = make_layer(6, 8)(make_spikes(39, STEPS, BATCH, 6))
    assert all(x.requires_grad for x in state)
    cut = state.detach()
    assert isinstance(cut, SRCState) and not any(x.requires_grad for x in cut) and all(map(torch.equal, cut, state))
    moved = state.to(torch.float64)
    assert isinstance(moved, SRCState) and all(x.dtype == torch.float64 for x in moved)
    assert all(x.is_meta for x in state.to("meta"))


# Precision


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_cell_parameters_have_the_precision_of_the_layer(kind: str, default: torch.dtype) -> None:
    torch.set_default_dtype(default)
    try:
        layer = make(kind, learnable=["alpha"], dtype=torch.float64)
        given = make(kind, rho=torch.full((4,), 3.1, dtype=torch.float64), dtype=torch.float64)
    finally:
        torch.set_default_dtype(torch.float32)
    (alpha,) = (x for name, x in layer.named_parameters() if name.startswith("alpha"))
    (rho,) = given.buffers()
    assert alpha.item() == 0.9
    assert rho.tolist() == [3.1] * 4


@pytest.mark.parametrize("cls", [SRC, SRCCell])
def test_a_module_in_float64_computes_in_float64(cls: type) -> None:
    layer = cls(6, 8, **OPTIONS).to(torch.float64)
    made = cls(6, 8, **OPTIONS, dtype=torch.float64)
    assert {name: x.dtype for name, x in made.state_dict().items()} == dict.fromkeys(layer.state_dict(), torch.float64)
    spikes, state = layer(make_spikes(19, *((BATCH, 6) if cls is SRCCell else (STEPS, BATCH, 6))).double())
    assert spikes.dtype == state.i.dtype == torch.float64


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


# Values are copied, and reset_parameters() restores them


@pytest.mark.parametrize("kind", LAYERS)
def test_values_are_copied(kind: str) -> None:
    alpha, scale = torch.full((4,), 0.5), torch.ones((), requires_grad=True)
    layer = make(kind, alpha=alpha * scale)
    alpha.fill_(0.1)
    (kept,) = layer.buffers()
    assert kept.tolist() == [0.5] * 4 and not kept.requires_grad
    assert torch.equal(spikes_of(copy.deepcopy(layer)), spikes_of(layer))


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


def test_a_stack_begins_with_wide_weights_and_relays_above_them() -> None:
    torch.manual_seed(0)
    first, second = (weight for name, weight in SRC(200, 100, 2).named_parameters() if name.startswith("weight"))
    assert first.std().item() == pytest.approx(3 / 200**0.5, rel=5 / (2 * first.numel()) ** 0.5)
    assert torch.equal(second > 1.5, torch.eye(100, dtype=torch.bool))


def test_a_module_on_the_meta_device_tells_its_shapes() -> None:
    spikes, state = SRC(6, 8, 2, device="meta")(torch.zeros(STEPS, BATCH, 6, device="meta"))
    assert (spikes.device.type, spikes.shape, state.h.shape) == ("meta", (STEPS, BATCH, 8), (2, BATCH, 8))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("learnable", [(), ("alpha",)])
def test_a_layer_made_on_meta_and_filled_is_one_made_at_once(kind: str, learnable: tuple[str, ...]) -> None:
    options = {"alpha": torch.tensor([0.2, 0.4, 0.6, 0.8]), "rs": -6.5, "learnable": learnable}
    layer = make(kind, **options, device="meta").to_empty(device="cpu")
    for x in layer.state_dict().values():
        if len(x.shape) == 1 and x.dtype == torch.float32:
            x.fill_(math.nan)
    torch.manual_seed(0)
    layer.reset_parameters()
    expected = make(kind, **options).state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in layer.state_dict().items())


def test_values_that_there_are_not_cannot_be_returned_to() -> None:
    layer = SRC(3, 4, alpha=torch.empty(4, device="meta"), device="meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match="alpha: expected a tensor that holds values, got one on meta"):
        layer.reset_parameters()


# repr


def test_constants_that_differ_from_the_defaults_are_shown() -> None:
    assert repr(SRC(20, 16)) == "SRC(20, 16)"
    assert repr(SRC(20, 16, alpha=0.5, rs=-6.5)) == "SRC(20, 16, alpha=0.5, rs=-6.5)"
    alpha = torch.linspace(0.5, 0.75, 16)
    assert repr(SRCCell(20, 16, alpha=alpha)) == "SRCCell(20, 16, alpha=tensor(16 values, 0.5 to 0.75))"
    assert repr(SRCConv2d(1, 2, 3, rho=2.0)) == "SRCConv2d(1, 2, kernel_size=(3, 3), rho=2.0)"
    layer = SRC(20, 2, 2, alpha=torch.zeros(2))
    layer.load_state_dict(SRC(20, 2, 2, alpha=torch.tensor([0.25, 0.5])).state_dict())
    assert repr(layer) == "SRC(20, 2, alpha=tensor(2 values, 0.25 to 0.5), num_layers=2)"
    assert repr(SRC(2, 3, alpha=torch.empty(3, device="meta"), device="meta")).endswith("alpha=tensor(3 values))")


# state_dict


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


CONSTANTS: list[tuple[dict[str, Any], str]] = [
    ({"alpha": 0.5}, "alpha=0.5 instead of 0.9"),
    ({"rs": -6.5, "r": 2.5}, "r=2.5 instead of 2, rs=-6.5 instead of -7"),
    ({"initial_state": "rest"}, "initial_state=1 instead of 0"),
    ({"bias": False, "bias_init": -5.0}, "bias_init=-5 instead of -6"),
]


@pytest.mark.parametrize(("options", "told"), CONSTANTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_checkpoint_brings_its_constants_along(kind: str, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    saved = make(kind, **options)
    safetensors.torch.save_file(saved.state_dict(), tmp_path / "layer.safetensors")
    other = LAYERS[kind](bias=options.get("bias", True))
    with pytest.warns(UserWarning, match=f"took over from the checkpoint: {told}$"):
        result = other.load_state_dict(safetensors.torch.load_file(tmp_path / "layer.safetensors"))
    assert not result.missing_keys and not result.unexpected_keys
    expected = spikes_of(saved)
    assert expected.count_nonzero() > 0
    assert torch.equal(spikes_of(other), expected)
    assert repr(other) == repr(saved)
    torch.manual_seed(0)
    other.reset_parameters()
    assert all(map(torch.equal, other.state_dict().values(), saved.state_dict().values()))


@pytest.mark.parametrize("kind", LAYERS)
def test_equal_constants_load_without_a_word(kind: str) -> None:
    layer = make(kind, alpha=0.3, rho=torch.full((4,), 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LAYERS[kind](alpha=0.3, rho=torch.full((4,), 5.0)).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_0_1_loads_with_a_warning(strict: bool) -> None:
    layer, other = make("SRC", alpha=0.5), SRC(3, 4, alpha=0.5)
    old = {name: x for name, x in layer.state_dict().items() if name != "_extra_state"}
    with pytest.warns(UserWarning, match=r"no constants .* as those of srcell 0\.1: SRC keeps its own"):
        other.load_state_dict(old, strict=strict)
    assert torch.equal(spikes_of(other), spikes_of(layer))


@pytest.mark.parametrize(
    "state",
    [
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(9, dtype=torch.int64),
        torch.tensor([64, 1.5, 3, 2, -7, 0.9, 0, 0, 0]),
        torch.tensor([64, 0.9, 3, 2, -7, 0.9, 0, 0, 2]),
        torch.tensor([0, 0.9, 3, 2, -7, 0.9, 0, -6, 0]),
        torch.tensor([65, 0, 3, 2, -7, 0.9, 0, 0, 0]),
        torch.full((9,), math.nan),
        None,
    ],
)
def test_constants_of_no_layer_are_refused(state: Any) -> None:
    layer = make("SRC")
    weights = {**make("SRC").state_dict(), "_extra_state": state}
    with pytest.raises(RuntimeError, match="in loading state_dict for SRC"):
        layer.load_state_dict(weights)
    assert repr(layer) == "SRC(3, 4)"


def test_what_is_learnt_is_not_taken_for_a_constant() -> None:
    with pytest.raises(RuntimeError, match="_extra_state of SRC: expected numbers for just alpha, r, rs"):
        SRC(3, 4, learnable=["rho"]).load_state_dict(SRC(3, 4, learnable=["alpha"]).state_dict(), strict=False)


@pytest.mark.parametrize("assign", [False, True])
def test_a_fixed_bias_is_there_after_a_layer_on_meta_is_loaded(assign: bool) -> None:
    layer, saved = make("SRC", bias=False, device="meta"), make("SRC", bias=False)
    if not assign:
        layer = layer.to_empty(device="cpu")
        layer.bias_l0.fill_(math.nan)
    layer.load_state_dict(saved.state_dict(), assign=assign)
    assert torch.equal(spikes_of(layer), spikes_of(saved))


def test_a_state_dict_without_values_loads_where_none_are_needed() -> None:
    layer = make("SRC", device="meta")
    layer.load_state_dict({name: x.to("meta") for name, x in make("SRC").state_dict().items()}, assign=True)
    assert all(x.is_meta for x in layer.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True):
        SRC(3, 4).load_state_dict(SRC(3, 4).state_dict())


# Learnable parameters


@pytest.mark.parametrize("recurrent_grad", [True, False])
def test_every_parameter_that_the_mode_reaches_can_be_learnt(recurrent_grad: bool) -> None:
    reached = PARAMETERS if recurrent_grad else PARAMETERS[:4]
    layer = SRC(4, 6, learnable=reached, recurrent_grad=recurrent_grad, initial_state="rest")
    spikes, _ = layer(make_spikes(2, 60, 3, 4))
    spikes.sum().backward()
    for name in reached:
        grad = getattr(layer, f"{name}_l0").grad
        assert grad.count_nonzero() == grad.numel() > 0, name


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


@pytest.mark.parametrize("kind", LAYERS)
def test_learnable_parameters_act_within_their_domains_wherever_an_optimiser_takes_them(kind: str) -> None:
    layer = make(kind, learnable=PARAMETERS, recurrent_grad=True)
    bounds = {"alpha": (0.0, 1.0), "rho": (1e-3, 419.6), "zs_hyp": (0.0, 1.0), "zs_dep": (0.0, 1.0)}
    for end, outside in ((0, -419.6), (1, 419.6)):
        for name, parameter in layer.named_parameters():
            bound = next((b[end] for key, b in bounds.items() if name.startswith(key)), None)
            if bound is not None:
                nn.init.constant_(parameter, outside)
        bounded = copy.deepcopy(layer)
        bounded.constrain_()
        assert torch.equal(spikes_of(layer), spikes_of(bounded))


def test_a_training_whose_rate_is_too_high_goes_on() -> None:
    """Without constrain_(). Regression: it raised "alpha: expected values in [0, 1], got 419.6"."""
    layer = make("SRC", learnable=["alpha", "rho"])
    optimizer = torch.optim.Adam(layer.parameters(), lr=50.0)
    for _ in range(4):
        optimizer.zero_grad()
        spikes_of(layer).sum().backward()
        optimizer.step()
    assert not 0 <= layer.alpha_l0.item() <= 1
    assert spikes_of(layer).isfinite().all()


@pytest.mark.parametrize(("value", "bound"), [(1.25, 1.0), (-0.25, 0.0), (0.9, 0.9)])
def test_the_gradient_is_that_of_the_bounded_value_unless_it_leads_further_out(value: float, bound: float) -> None:
    x, weight = (noise(3, 40, 2, 3) > 0).double(), 3 * noise(4, 5, 3)
    for sign in (1, -1):
        layer = SRC(3, 5, learnable=["alpha"], dtype=torch.float64)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(weight)
            layer.alpha_l0.fill_(value)
        (sign * layer(x)[0].sum()).backward()
        alpha = torch.tensor(bound, dtype=torch.float64, requires_grad=True)
        (sign * src_linear(x, weight, -6.0, alpha=alpha)[0].sum()).backward()
        assert alpha.grad is not None and alpha.grad != 0
        outward = (value > 1 and alpha.grad < 0) or (value < 0 and alpha.grad > 0)
        assert layer.alpha_l0.grad == (0 if outward else alpha.grad)


def test_a_stack_takes_lengths_from_the_batch_or_beside_it() -> None:
    torch.manual_seed(0)
    layer, dense = SRC(4, 30, num_layers=2), torch.ones(60, 2, 4)
    lengths = torch.tensor([60, 11])
    expected = layer(dense, lengths=lengths)[0]
    assert torch.equal(layer(EventBatch.from_dense(dense), lengths=lengths)[0], expected)
    assert torch.equal(layer(EventBatch.from_dense(dense, lengths))[0], expected)
    assert expected[11:, 1].count_nonzero() == 0 and layer(EventBatch.from_dense(dense))[0][11:, 1].count_nonzero() > 0
    assert_refused(ValueError, "lengths", layer, EventBatch.from_dense(dense, lengths), lengths=lengths)


def test_constants_are_on_the_cpu_whatever_the_default_device() -> None:
    with torch.device("meta"):
        constants = SRC(4, 3, alpha=0.7, device="cpu").get_extra_state()
    assert constants.device.type == "cpu" and constants[1] == 0.7


def test_the_constants_of_a_state_dict_are_laid_out_as_the_format_says() -> None:
    """A bit mask of the constants that have tensors, then all constants in order: files outlive the code."""
    plain = SRC(3, 2, alpha=0.8, bias=False, bias_init=-5.0, initial_state="rest").get_extra_state()
    assert plain.tolist() == [0, 0.8, 3.0, 2.0, -7.0, 0.9, 0.0, -5.0, 1]
    held = SRC(3, 2, learnable=["rho", "rs"], recurrent_grad=True, learn_initial_state=True).get_extra_state()
    assert held.tolist() == [2 + 8 + 64 + 128, 0.9, 0, 2.0, 0, 0.9, 0.0, 0, 0]


@pytest.mark.parametrize("given", [[1.0], None, "x"])
def test_what_is_no_input_is_named_by_its_type(given: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^input: expected an EventBatch or a tensor .*, got {type(given).__name__}$"
    ):
        SRC(3, 2)(given)
    with pytest.raises(ValueError, match=r"^input: .*, got \(2, 3, 4, 5\)$"):
        SRC(3, 2)(torch.zeros(2, 3, 4, 5))


# In nn.Sequential


@pytest.mark.parametrize("events", [False, True])
def test_spikes_only_is_the_layer_without_its_state(events: bool) -> None:
    layer = SRC(6, 4, num_layers=2)
    x = (noise(8, 30, 2, 6, dtype=torch.float32) > 0.5).float()
    input = EventBatch.from_dense(x) if events else x
    alone = SpikesOnly(layer)
    assert layer(input)[0].any() and torch.equal(alone(input), layer(input)[0])
    assert torch.equal(alone(input), alone(input))  # each call starts anew
    assert alone.state_dict().keys() == {f"layer.{name}" for name in layer.state_dict()}


def test_layers_in_sequential_are_the_same_calls() -> None:
    convolution, layer, readout = SRCConv2d(1, 3, 3), SRC(3 * 4 * 4, 20), LeakyReadout(5, neurons_per_class=4)
    net = nn.Sequential(SpikesOnly(convolution), nn.Flatten(2), SpikesOnly(layer), readout)
    maps = (noise(8, 40, 2, 1, 6, 6, dtype=torch.float32) > 0.2).float()
    spikes = layer(convolution(maps)[0].flatten(2))[0]
    assert spikes.any() and torch.equal(net(maps), readout(spikes))
    net(maps).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_spikes_only_refuses_what_is_no_layer() -> None:
    for module in (nn.Linear(3, 2), SRCCell(3, 2), None):
        assert_refused(TypeError, "layer", SpikesOnly, module)
