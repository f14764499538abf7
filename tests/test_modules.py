"""The layers: options, errors, repr and state_dict, and the same results as the functions that they call."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from functools import partial
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
from srcell import SRC, EventBatch, IntegerSRC, LeakyReadout, SpikesOnly, SRCCell, SRCConv2d, SRCState
from srcell.functional import rest_state, src, src_linear
from support.inputs import BATCH, PARAMETERS, STATE, STEPS, noise
from support.layers import LAYERS, make, make_layer, make_spikes, of_cell, stepped
from support.refusals import Message, Refusal, assert_refused, refusals

X = torch.zeros(3, 2, 4)


def spikes_of(layer: Any) -> Tensor:
    x = (noise(1, 40, 2, 3) > 0).to(next(layer.parameters()).dtype)
    if isinstance(layer, SRCCell):
        return stepped(layer, x)[0]
    return layer(x[..., None, None] if isinstance(layer, SRCConv2d) else x)[0]


def same_outputs(a: tuple[Tensor, Any], b: tuple[Tensor, Any]) -> bool:
    """Whether spikes and states are equal."""
    return torch.equal(a[0], b[0]) and all(map(torch.equal, a[1], b[1]))


def src_layer(**options: Any) -> SRC:
    return SRC(**{"input_size": 4, "hidden_size": 3} | options)


def state_with(*shape: int) -> SRCState:
    """A state of two layers of three neurons, whose h has another shape."""
    return SRCState(torch.zeros(2, 2, 3), torch.zeros(shape), torch.zeros(2, 2, 3))


@refusals(
    Message(
        "input: expected an EventBatch or a tensor .*, got PackedSequence: pass the padded tensor, and lengths",
        lambda: src_layer()(nn.utils.rnn.pack_sequence([torch.ones(3, 4)])),
    ),
    Refusal("input_size", lambda: src_layer(input_size="3"), TypeError),
    Refusal("hidden_size", lambda: src_layer(hidden_size=-2)),
    Refusal("hidden_size", lambda: src_layer(hidden_size=2**63)),
    Refusal("num_layers", lambda: src_layer(num_layers=0)),
    Refusal("batch_first", lambda: src_layer(batch_first=torch.zeros(0)), TypeError),
    Refusal("dropout", lambda: src_layer(dropout=1.5)),
    Refusal("dropout", lambda: src_layer(dropout=math.nan)),
    Refusal("learn_bias", lambda: src_layer(learn_bias=np.zeros(3)), TypeError),
    Refusal("bias_init", lambda: src_layer(bias_init=1e39)),
    *(Refusal("bias_max", lambda x=x: src_layer(bias_max=x)) for x in (10**400, -1e39, -math.inf, math.nan)),
    Message(r"bias_init: expected at most bias_max \(-7\)", lambda: src_layer(bias_max=-7.0)),
    Refusal("dtype", lambda: src_layer(dtype="x"), TypeError),
    Refusal("dtype", lambda: src_layer(dtype=torch.int32), TypeError),
    Refusal("device", lambda: src_layer(device="x")),
    Refusal("surrogate", lambda: src_layer(surrogate=np.array(["relu", "x"]))),
    Refusal("full_gradient", lambda: src_layer(full_gradient=1), TypeError),
    Refusal("initial_state", lambda: src_layer(initial_state="random")),
    Refusal("learn_initial_state", lambda: src_layer(learn_initial_state=True)),
    Refusal("learn_initial_state", lambda: src_layer(learn_initial_state=torch.zeros(0)), TypeError),
    Refusal("learnable", lambda: src_layer(learnable=["alpha", "beta"])),
    Refusal("learnable", lambda: src_layer(learnable=["zs_hyp"])),
    Refusal("learnable", lambda: src_layer(learnable=["zs_dep"], full_gradient=False)),
    Refusal("learnable", lambda: src_layer(learnable=[[]])),
    Refusal("learnable", lambda: src_layer(learnable="r"), TypeError),
    Refusal("learnable", lambda: src_layer(learnable=torch.zeros(())), TypeError),
    Message(r"alpha: .*, got 1\.0000001$", lambda: src_layer(alpha=1.0000001)),
    Refusal("alpha", lambda: src_layer(alpha=math.nan)),
    Refusal("alpha", lambda: src_layer(alpha=torch.tensor([0.1, 0.2, -0.4]))),
    Refusal("alpha", lambda: src_layer(alpha=nn.Parameter(torch.tensor(0.5)))),
    Refusal("alpha", lambda: src_layer(alpha="x"), TypeError),
    Refusal("rho", lambda: src_layer(rho=0.0)),
    Refusal("rho", lambda: src_layer(rho=math.inf)),
    Refusal("rho", lambda: src_layer(rho=1e-39)),
    Refusal("rho", lambda: src_layer(rho=1e-4, learnable=["rho"])),
    Refusal("r", lambda: src_layer(r=math.inf)),
    Refusal("r", lambda: src_layer(r=1e39, learnable=["r"])),
    Refusal("r", lambda: src_layer(r=torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)), TypeError),
    Message(
        "rs: expected a tensor that holds values, got one on meta", lambda: src_layer(rs=torch.empty(3, device="meta"))
    ),
    Refusal("rs", lambda: src_layer(rs=torch.zeros(3).to_sparse())),
    Refusal("zs_dep", lambda: src_layer(zs_dep=-0.1, learnable=["zs_dep"], full_gradient=True)),
    *(Refusal("alpha", lambda kind=kind: make(kind, alpha=torch.zeros(3))) for kind in LAYERS),
    *(
        Refusal("memory", lambda x=x: SRC.for_sequences(4, 3, memory=x))
        for x in (1.9, math.nan, math.inf, 2.0**54, 1e300)
    ),
    Refusal("memory", lambda: SRC.for_sequences(4, 3, memory="x"), TypeError),
    Refusal("input_gain", lambda: SRC.for_sequences(4, 3, input_gain="x"), TypeError),
    *(
        Refusal("input_gain", lambda x=x: SRC.for_sequences(4, 3, input_gain=x))
        for x in (0.0, -1, math.nan, math.inf, 4e36, 1e300, 10**400)
    ),
    Refusal("input_gain", lambda: SRC.for_sequences(4, 3, input_gain=700.0, dtype=torch.float16)),
    Refusal("input", lambda: src_layer()(torch.zeros(4))),
    Refusal("input", lambda: src_layer()(torch.zeros(STEPS, 5))),
    Refusal("input", lambda: src_layer()(torch.zeros(STEPS, BATCH, 5))),
    Refusal("input", lambda: src_layer()(X.to("meta"))),
    Refusal("input", lambda: src_layer()(X.double()), TypeError),
    Refusal("input", lambda: src_layer()(X.to(torch.complex64)), TypeError),
    Refusal("input", lambda: src_layer()(X.to_sparse())),
    Refusal("input", lambda: src_layer()(torch.nested.nested_tensor([torch.zeros(2, 4)]))),
    Refusal("input", lambda: SRCCell(4, 3)(X[0].to_sparse())),
    Message("input: .*, got list$", lambda: src_layer()([1.0])),
    Message("input: .*, got NoneType$", lambda: src_layer()(None)),
    Message(r"input: .*, got \(1, 3, 2, 4\)$", lambda: src_layer()(X[None])),
    Message("lengths: expected None beside an input", lambda: src_layer()(X[0], lengths=[3])),
    Message("lengths: expected None beside an input", lambda: IntegerSRC(4, 3)(X[0], lengths=[3])),
    Message(
        r"state\.i: expected shape \(1, 3\), as the input has no batch", lambda: src_layer()(X[0], SRCState(X, X, X))
    ),
    Refusal("state", lambda: src_layer()(X, (1, 2, 3)), TypeError),
    *(
        Refusal("state.h", lambda shape=shape: src_layer(num_layers=2)(X, state_with(*shape)))
        for shape in [(2, 3), (1, 2, 3), (2, 3, 3), (2, 2, 4)]
    ),
    *(
        Refusal("layer", lambda module=module: SpikesOnly(module), TypeError)
        for module in (nn.Linear(3, 2), SRCCell(3, 2), None)
    ),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0, "rho": 0.5},
        {"alpha": 1.0, "rho": 1e-3, "learnable": ["alpha", "rho"]},
        {"zs_hyp": 1.0, "zs_dep": 0.0, "learnable": ["zs_hyp", "zs_dep"], "full_gradient": True},
    ],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_cell_parameters_may_lie_on_the_edge_of_their_domains(kind: str, options: dict[str, Any]) -> None:
    layer = make(kind, **options)
    begin = {name: x.clone() for name, x in layer.state_dict().items()}
    layer.constrain_()
    assert all(torch.equal(x, begin[name]) for name, x in layer.state_dict().items())


@pytest.mark.parametrize("lengths", [torch.tensor([30, 0, 17]), None])
def test_src_is_a_stack_of_linear_synapses_and_recurrences(lengths: Tensor | None) -> None:
    alpha = torch.linspace(0.8, 0.95, 8)
    layer = make_layer(6, 8, 2, alpha=alpha, learnable=["rs"])
    with torch.no_grad():
        # Each neuron reads one neuron: the bits of torch's product of other weights depend on the order of its sums,
        # which differs between processors.
        layer.weight_ih_l1.copy_(3 * torch.eye(8).roll(1, 0))
    x = make_spikes(21, STEPS, BATCH, 6)
    outputs, ended = layer(x, lengths=lengths), []
    for k in range(2):
        weight, bias, rs = (getattr(layer, f"{name}_l{k}") for name in ("weight_ih", "bias", "rs"))
        options = {"alpha": alpha, "rs": rs, "lengths": lengths}
        expected = src(x @ weight.T, bias, **options)
        for method in ("auto", "gemm") if k == 0 else ("auto",):
            assert same_outputs(src_linear(x, weight, bias, method=method, **options), expected)
        x = expected[0]
        assert x.count_nonzero() > 0
        ended.append(expected[1])
    assert same_outputs(outputs, (x, map(torch.stack, zip(*ended, strict=True))))


@pytest.mark.parametrize("full_gradient", [True, False])
def test_src_cell_step_by_step_equals_src(full_gradient: bool) -> None:
    options = OPTIONS | {"full_gradient": full_gradient}
    if not full_gradient:
        options |= {"learnable": ["alpha"], "learn_initial_state": False}
    layer, cell = make_layer(6, 8, **options), SRCCell(6, 8, **options)
    cell.load_state_dict(of_cell(layer))
    x = make_spikes(27, STEPS, BATCH, 6)
    expected, expected_state = layer(x)
    assert expected.count_nonzero() > 0
    spikes, state = stepped(cell, x)
    assert same_outputs((spikes, state), (expected, [s[0] for s in expected_state]))
    spikes.sum().backward()
    expected.sum().backward()
    # The cell and the layer sum over 30 steps and 3 samples in different orders, in float32.
    for ours, theirs in zip(cell.parameters(), layer.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 90 * 2**-23 * max(1, theirs.grad.abs().max().item())


@pytest.mark.parametrize(
    ("run", "batch_dim"),
    [
        (make_layer(6, 8, 2), 1),
        (make_layer(6, 8, 2, batch_first=True), 0),
        (partial(stepped, make_layer(6, 8, cls=SRCCell)), 1),
        (make_layer(6, 8, cls=IntegerSRC), 1),
    ],
    ids=["SRC", "batch_first", "SRCCell", "IntegerSRC"],
)
def test_a_sample_without_batch_is_a_batch_of_one(run: Callable[..., Any], batch_dim: int) -> None:
    x = make_spikes(36, STEPS, 6)
    whole, ended = run(x)
    assert whole.shape == (STEPS, 8) and whole.count_nonzero() > 0
    batched, expected = run(x.unsqueeze(batch_dim))
    assert same_outputs((whole, ended), (batched.squeeze(batch_dim), [s.squeeze(-2) for s in expected]))
    first, state = run(x[:9])
    second, state = run(x[9:], state)
    assert same_outputs((torch.cat([first, second]), state), (whole, ended))


def test_batch_first_inputs_are_refused_with_their_own_shape() -> None:
    """Regression: the message had the transposed shape."""
    with pytest.raises(ValueError, match=r"input: expected shape \(B, T, 8\), got \(4, 20, 5\)"):
        SRC(8, 3, batch_first=True)(torch.zeros(4, 20, 5))


def test_batch_first_transposes_only_input_and_output() -> None:
    layer, x = make_layer(6, 8, 2), make_spikes(23, STEPS, BATCH, 6)
    swapped = SRC(6, 8, 2, batch_first=True)
    swapped.load_state_dict(layer.state_dict())
    spikes, state = swapped(x.transpose(0, 1), lengths=[30, 0, 17])
    assert same_outputs((spikes.transpose(0, 1), state), layer(x, lengths=[30, 0, 17]))


def test_dropout_acts_between_layers_during_training() -> None:
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
    "full_gradient": True,
    "rho": torch.linspace(2.5, 3.5, 8),
    "initial_state": "rest",
    "learn_initial_state": True,
}


@pytest.mark.parametrize("initial_state", ["zeros", "rest"])
@pytest.mark.parametrize("learnt", [True, False])
def test_a_layer_starts_from_its_initial_state(initial_state: str, learnt: bool) -> None:
    layer = make_layer(6, 8, initial_state=initial_state, learn_initial_state=learnt, full_gradient=learnt)
    x = make_spikes(25, STEPS, BATCH, 6)
    expected_start = rest_state(layer.bias_l0) if initial_state == "rest" else SRCState(*[torch.zeros(8)] * 3)
    start = SRCState(*(s.expand(1, BATCH, 8) for s in expected_start))
    spikes, state = layer(x)
    assert same_outputs((spikes, state), layer(x, start))
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


@pytest.mark.parametrize("kind", LAYERS)
def test_without_bias_the_excitability_stays_fixed(kind: str) -> None:
    layer, learnt = make(kind, learn_bias=False, bias_init=-5.5), make(kind, bias_init=-5.5)
    assert [name[:6] for name, _ in layer.named_parameters()] == ["weight"]
    assert [name[:6] for name in layer.state_dict()] == ["weight", "_extra"]
    assert [x.tolist() for x in layer.buffers()] == [[-5.5] * 4]
    expected = spikes_of(learnt)
    assert expected.count_nonzero() > 0 and torch.equal(spikes_of(layer), expected)
    layer.constrain_()
    assert torch.equal(spikes_of(layer), expected)


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (0, 0)])
def test_layers_without_inputs_or_neurons_work(sizes: tuple[int, int]) -> None:
    spikes, state = SRC(*sizes, 2)(torch.zeros(6, 2, sizes[0]))
    assert spikes.shape == (6, 2, sizes[1])
    assert state.h.shape == (2, 2, sizes[1])


def test_detach_and_to_apply_to_all_tensors_of_a_state() -> None:
    _, state = make_layer(6, 8)(make_spikes(39, STEPS, BATCH, 6))
    assert all(x.requires_grad for x in state)
    cut = state.detach()
    assert isinstance(cut, SRCState) and not any(x.requires_grad for x in cut) and all(map(torch.equal, cut, state))
    moved = state.to(torch.float64)
    assert isinstance(moved, SRCState) and all(x.dtype == torch.float64 for x in moved)
    assert all(x.is_meta for x in state.to("meta"))


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_in_float64_has_its_parameters_and_outputs_in_float64(kind: str, default: torch.dtype) -> None:
    options = {"initial_state": "rest", "learn_initial_state": True, "full_gradient": True, "dtype": torch.float64}
    torch.set_default_dtype(default)
    try:
        layer = make(kind, learnable=["alpha"], **options)
        given = make(kind, rho=torch.full((4,), 3.1, dtype=torch.float64), **options)
    finally:
        torch.set_default_dtype(torch.float32)
    (alpha,) = (x for name, x in layer.named_parameters() if name.startswith("alpha"))
    (rho,) = given.buffers()
    assert alpha.item() == 0.9
    assert rho.tolist() == [3.1] * 4
    assert {x.dtype for x in layer.state_dict().values()} == {torch.float64}
    for double in (layer, given, make(kind, initial_state="rest").to(torch.float64)):
        assert spikes_of(double).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bools_and_integers_are_spike_counts(dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    x = (2 * make_spikes(38, STEPS, BATCH, 8)).to(dtype)
    for layer, given in (
        (make_layer(8, 5).to(weight_dtype), x),
        (make_layer(8, 5, cls=SRCCell).to(weight_dtype), x[0]),
        (make_layer(2, 5, 1, cls=SRCConv2d).to(weight_dtype), x.view(STEPS, BATCH, 2, 2, 2)),
    ):
        assert same_outputs(layer(given), layer(given.to(weight_dtype)))
        with torch.autocast("cpu"):
            assert torch.equal(layer(given)[0], layer(given.to(weight_dtype))[0])


@pytest.mark.parametrize("kind", ["SRC", "SRCConv2d"])
def test_under_autocast_the_synapse_is_in_bfloat16_and_the_cell_in_float32(kind: str) -> None:
    x = 1 - make_spikes(15, STEPS, BATCH, 80) / 2  # so dense that "auto" chooses the product
    layer, given = make_layer(80, 5), x
    if kind == "SRCConv2d":
        x = x[..., :8]
        layer, given = make_layer(2, 5, 2, cls=SRCConv2d), x.reshape(STEPS, BATCH, 2, 2, 2)
    weight, bias = layer.parameters()
    with torch.autocast("cpu", torch.bfloat16):
        spikes, state = layer(given)
        current = F.linear(x, weight) if kind == "SRC" else F.conv2d(given.flatten(0, 1), weight).view(STEPS, BATCH, 5)
    spikes.sum().backward()
    assert current.dtype == torch.bfloat16
    assert spikes.dtype == state.h.dtype == torch.float32
    expected, expected_state = src(current.float(), bias)
    assert spikes.count_nonzero() > 0
    assert torch.equal(spikes.flatten(2), expected)
    assert torch.equal(state.h.view(BATCH, 5), expected_state.h)
    assert weight.grad.dtype == torch.float32
    assert weight.grad.count_nonzero() > 0


@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_layers_are_copied(kind: str) -> None:
    alpha = 1 * torch.full((4,), 0.5, requires_grad=True)
    layer = make(kind, alpha=alpha, learnable=["rs"])
    alpha.detach().fill_(0.1)
    layer.reset_parameters()
    (kept,) = layer.buffers()
    assert kept.tolist() == [0.5] * 4 and not kept.requires_grad
    expected = spikes_of(layer)
    expected.sum().backward()
    twin = copy.deepcopy(layer)
    assert expected.count_nonzero() > 0 and torch.equal(spikes_of(twin), expected)
    with torch.no_grad():
        for x in [*twin.parameters(), *twin.buffers()]:
            x.mul_(0.9)
    assert torch.equal(spikes_of(layer), expected)
    assert not torch.equal(spikes_of(twin), expected)


def test_weights_start_with_the_documented_width_and_upper_layers_as_relays() -> None:
    torch.manual_seed(0)
    first, second = (weight for name, weight in SRC(200, 100, 2).named_parameters() if name.startswith("weight"))
    for weight in (first, SRCConv2d(16, 64, 5, groups=2).weight):  # 200 inputs each
        assert weight.std().item() == pytest.approx(3 / 200**0.5, rel=5 / (2 * weight.numel()) ** 0.5)
    assert torch.equal(second > 1.5, torch.eye(100, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_gain_and_memory_of_a_layer_for_sequences_give_finite_weights(dtype: torch.dtype) -> None:
    gain = torch.finfo(dtype).max / 100
    layer = SRC.for_sequences(1, 10_000, input_gain=gain, memory=2.0**53, recurrent=False, dtype=dtype)
    assert layer.weight_ih_l0.isfinite().all() and layer.weight_ih_l0.abs().max().item() > gain
    assert layer.alpha_l0.max().item() <= 1 and layer.omega_l0.isfinite().all()


def test_a_layer_on_meta_gives_shapes() -> None:
    spikes, state = SRC(6, 8, 2, device="meta")(torch.zeros(STEPS, BATCH, 6, device="meta"))
    assert (spikes.device.type, spikes.shape, state.h.shape) == ("meta", (STEPS, BATCH, 8), (2, BATCH, 8))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    "options",
    [
        {"alpha": torch.tensor([0.2, 0.4, 0.6, 0.8]), "rs": -6.5},
        {"alpha": torch.tensor([0.2, 0.4, 0.6, 0.8]), "rs": -6.5, "learnable": ("alpha",)},
        {"learnable": ("zs_hyp",), "full_gradient": True, "initial_state": "rest", "learn_initial_state": True},
    ],
)
def test_reset_parameters_restores_all_initial_values(kind: str, options: dict[str, Any]) -> None:
    options = options | ({"num_layers": 2} if kind == "SRC" else {})
    layer = make(kind, **options, device="meta").to_empty(device="cpu")
    for x in [*layer.parameters(), *layer.buffers()]:
        nn.init.constant_(x, math.nan)
    torch.manual_seed(0)
    layer.reset_parameters()
    expected = make(kind, **options).state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in layer.state_dict().items())


# Each is built again by its own text.
BUILT: dict[str, Callable[[], nn.Module]] = {
    "a layer": lambda: SRC(3, 4, 2, batch_first=True, dropout=0.25, surrogate="relu", full_gradient=True),
    "learnt": lambda: SRC(3, 4, alpha=0.8, rho=torch.tensor([1.0, 2, 3, 4]), learnable=["alpha", "rho"]),
    "spread": lambda: SRC(
        3, 40, alpha=srcell.spread(0.5, 0.99), omega=srcell.spread_frequencies(0.01, 1), learnable=["omega"]
    ),
    "for sequences": lambda: SRC.for_sequences(3, 40, memory=50, input_gain=2.0),
    "recurrent": lambda: SRC(3, 4, recurrent=True, recurrent_surrogate="straight_through", autapses=False),
    "delayed": lambda: SRC(3, 4, recurrent=True, delay_hh=2.5, max_delay=9, delay_width=3, learnable=["delay_hh"]),
    "a cell": lambda: SRCCell(3, 4, learn_bias=False, bias_init=-5.0, bias_max=-4.5, initial_state="rest"),
    "a convolution": lambda: SRCConv2d(
        2, 4, (3, 2), stride=2, padding=1, groups=2, r=torch.tensor(1.5), input_gain=0.5
    ),
    "integers": lambda: srcell.IntegerSRC(3, 4, weight_bits=4),
    "delays": lambda: srcell.Delay(3, 5, taps=2, learnable=False, delay_width=2),
    "votes": lambda: srcell.LeakyReadout(3, 5, 0.9, temperature=3.0),
}


@pytest.mark.parametrize("kind", BUILT)
def test_the_repr_of_a_module_builds_it_again(kind: str) -> None:
    torch.manual_seed(0)
    module = BUILT[kind]()
    torch.manual_seed(0)
    again = eval(repr(module), {**vars(srcell), "tensor": torch.tensor})
    assert type(again) is type(module) and repr(again) == repr(module)
    expected = module.state_dict()
    assert list(expected) == [name for name, x in again.state_dict().items() if torch.equal(x, expected[name])]


def test_repr_shows_the_options_that_differ_from_the_defaults() -> None:
    alpha = torch.linspace(0.5, 0.75, 16)
    loaded = SRC(20, 2, 2, alpha=torch.zeros(2))
    loaded.load_state_dict(SRC(20, 2, 2, alpha=torch.tensor([0.25, 0.5])).state_dict())
    sizes = "kernel_size=(5, 3), stride=(2, 2), padding=(1, 1)"
    strided = SRCConv2d(2, 8, (5, 3), stride=2, padding=1, groups=2, learn_bias=False, surrogate="relu")
    for layer, text in (
        (SRC(20, 16), "SRC(20, 16)"),
        (SRC(20, 16, alpha=0.5, rs=-6.5), "SRC(20, 16, alpha=0.5, rs=-6.5)"),
        (SRCCell(20, 16, alpha=alpha), "SRCCell(20, 16, alpha=tensor(16 values, 0.5 to 0.75))"),
        (SRCConv2d(1, 8, 5), "SRCConv2d(1, 8, kernel_size=(5, 5))"),
        (SRCConv2d(1, 2, 3, rho=2.0), "SRCConv2d(1, 2, kernel_size=(3, 3), rho=2.0)"),
        (strided, f"SRCConv2d(2, 8, {sizes}, groups=2, learn_bias=False, surrogate='relu')"),
        (loaded, "SRC(20, 2, alpha=tensor([0.25, 0.5]), num_layers=2)"),
        (SRC(2, 3, alpha=torch.empty(3, device="meta"), device="meta"), "SRC(2, 3, alpha=tensor(3 values))"),
    ):
        assert repr(layer) == text


def test_state_dict_holds_parameters_and_no_run_state() -> None:
    layer = make_layer(6, 8, 2, **OPTIONS)
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    per_layer = {"weight_ih", "bias", "alpha", "zs_hyp", "rho", "i0", "h0", "hs0"}
    assert set(before) == {f"{name}_l{k}" for name in per_layer for k in (0, 1)} | {"_extra_state"}
    assert {name for name, _ in layer.named_parameters()} == {n for n in before if not n.startswith(("rho", "_"))}
    layer(make_spikes(17, STEPS, BATCH, 6))
    assert set(layer.state_dict()) == set(before)
    assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())


CONSTANTS: list[tuple[dict[str, Any], str]] = [
    ({"alpha": 0.5}, "alpha=0.5 instead of 0.9"),
    ({"rs": -6.5, "r": 2.5}, "r=2.5 instead of 2, rs=-6.5 instead of -7"),
    ({"initial_state": "rest"}, "initial_state=1 instead of 0"),
    ({"learn_bias": False, "bias_init": -5.0}, "bias_init=-5 instead of -6"),
    ({"bias_max": -4.5}, "bias_max=-4.5 instead of -4"),
]


@pytest.mark.parametrize(("options", "told"), CONSTANTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_checkpoint_restores_the_constants(kind: str, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    saved = make(kind, **options)
    safetensors.torch.save_file(saved.state_dict(), tmp_path / "layer.safetensors")
    other = LAYERS[kind](learn_bias=options.get("learn_bias", True))
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
def test_equal_constants_load_without_a_warning(kind: str) -> None:
    layer = make(kind, alpha=0.3, rho=torch.full((4,), 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LAYERS[kind](alpha=0.3, rho=torch.full((4,), 5.0)).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_dict_without_constants_loads_with_a_warning(strict: bool) -> None:
    """Weights of other programs have none."""
    layer, other = make("SRC", alpha=0.5), SRC(3, 4, alpha=0.5)
    weights = {name: x for name, x in layer.state_dict().items() if name != "_extra_state"}
    with pytest.warns(UserWarning, match=r"^the state_dict has no constants \(_extra_state\): SRC keeps its own$"):
        other.load_state_dict(weights, strict=strict)
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
def test_a_checkpoint_with_invalid_constants_is_refused(state: Any) -> None:
    layer = make("SRC")
    weights = {**make("SRC").state_dict(), "_extra_state": state}
    with pytest.raises(RuntimeError, match="in loading state_dict for SRC"):
        layer.load_state_dict(weights)
    assert repr(layer) == "SRC(3, 4)"


def test_a_checkpoint_with_other_learnable_parameters_is_refused() -> None:
    with pytest.raises(
        RuntimeError, match=r"_extra_state of SRC: alpha: expected one number, .*; rho: expected a tensor"
    ):
        SRC(3, 4, learnable=["rho"]).load_state_dict(SRC(3, 4, learnable=["alpha"]).state_dict(), strict=False)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_into_a_layer_on_meta_fills_its_fixed_bias(assign: bool) -> None:
    layer, saved = make("SRC", learn_bias=False, device="meta"), make("SRC", learn_bias=False)
    if not assign:
        layer = layer.to_empty(device="cpu")
        layer.bias_l0.fill_(math.nan)
    layer.load_state_dict(saved.state_dict(), assign=assign)
    assert torch.equal(spikes_of(layer), spikes_of(saved))


def test_a_state_dict_on_meta_loads_into_a_layer_on_meta() -> None:
    layer = make("SRC", device="meta")
    layer.load_state_dict({name: x.to("meta") for name, x in make("SRC").state_dict().items()}, assign=True)
    assert all(x.is_meta for x in layer.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True):
        SRC(3, 4).load_state_dict(SRC(3, 4).state_dict())


@pytest.mark.parametrize("full_gradient", [True, False])
def test_every_learnable_parameter_gets_a_gradient(full_gradient: bool) -> None:
    reached = PARAMETERS if full_gradient else PARAMETERS[:4]
    layer = SRC(4, 6, learnable=reached, full_gradient=full_gradient, initial_state="rest")
    spikes, _ = layer(make_spikes(2, 60, 3, 4))
    spikes.sum().backward()
    for name in reached:
        grad = getattr(layer, f"{name}_l0").grad
        assert grad.count_nonzero() == grad.numel() > 0, name


@pytest.mark.parametrize("bias_max", [-4.0, -5.0])
def test_constrain_clamps_to_the_domains_in_place(bias_max: float) -> None:
    layer = SRC(6, 8, 2, learnable=PARAMETERS, full_gradient=True, bias_max=bias_max)
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
@pytest.mark.parametrize("outside", [-419.6, 419.6])
def test_learnable_parameters_are_clamped_to_their_domains_in_every_call(kind: str, outside: float) -> None:
    """Regression: training with too high a learning rate raised "alpha: expected values in [0, 1], got 419.6"."""
    layer = make(kind, learnable=PARAMETERS, full_gradient=True)
    for name, parameter in layer.named_parameters():
        if name.startswith(("alpha", "rho", "zs_hyp", "zs_dep")):
            nn.init.constant_(parameter, outside)
    bounded = copy.deepcopy(layer)
    bounded.constrain_()
    assert torch.equal(spikes_of(layer), spikes_of(bounded))


@pytest.mark.parametrize(("value", "bound"), [(1.25, 1.0), (-0.25, 0.0), (0.9, 0.9)])
def test_a_clamped_value_has_no_gradient_that_leads_further_out(value: float, bound: float) -> None:
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


def test_lengths_come_from_the_batch_or_from_the_call() -> None:
    torch.manual_seed(0)
    layer, dense = SRC(4, 30, num_layers=2), torch.ones(60, 2, 4)
    lengths = torch.tensor([60, 11])
    expected = layer(dense, lengths=lengths)[0]
    assert torch.equal(layer(EventBatch.from_dense(dense), lengths=lengths)[0], expected)
    assert torch.equal(layer(EventBatch.from_dense(dense, lengths))[0], expected)
    assert expected[11:, 1].count_nonzero() == 0 and layer(EventBatch.from_dense(dense))[0][11:, 1].count_nonzero() > 0
    assert_refused(ValueError, "lengths", layer, EventBatch.from_dense(dense, lengths), lengths=lengths)


def test_constants_are_saved_on_the_cpu_under_any_default_device() -> None:
    with torch.device("meta"):
        constants = SRC(4, 3, alpha=0.7, device="cpu").get_extra_state()
    assert constants.device.type == "cpu" and constants[1] == 0.7


def test_the_constants_have_the_layout_of_the_file_format() -> None:
    """A bit mask of the constants that are tensors, then all constants in order: files outlive the code."""
    plain = SRC(3, 2, alpha=0.8, learn_bias=False, bias_init=-5.0, initial_state="rest").get_extra_state()
    assert plain.tolist() == [0, 0.8, 3.0, 2.0, -7.0, 0.9, 0.0, -5.0, 1]
    resonant = SRC(3, 2, omega=0.3).get_extra_state()
    assert resonant.tolist() == [64, 0.9, 3.0, 2.0, -7.0, 0.9, 0.0, 0, 0, 0.3]
    held = SRC(3, 2, learnable=["rho", "rs"], full_gradient=True, learn_initial_state=True).get_extra_state()
    assert held.tolist() == [2 + 8 + 64 + 128, 0.9, 0, 2.0, 0, 0.9, 0.0, 0, 0]
    bounded = SRC(3, 2, bias_max=-4.5).get_extra_state()
    assert bounded.tolist() == [64, 0.9, 3.0, 2.0, -7.0, 0.9, 0.0, 0, 0, 0.0, -4.5]


@pytest.mark.parametrize("events", [False, True])
def test_spikes_only_returns_the_spikes_of_its_layer(events: bool) -> None:
    layer = SRC(6, 4, num_layers=2)
    x = (noise(8, 30, 2, 6, dtype=torch.float32) > 0.5).float()
    input = EventBatch.from_dense(x) if events else x
    alone = SpikesOnly(layer)
    assert layer(input)[0].any() and torch.equal(alone(input), layer(input)[0])
    assert torch.equal(alone(input), alone(input))  # each call starts anew
    assert alone.state_dict().keys() == {f"layer.{name}" for name in layer.state_dict()}


def test_sequential_gives_the_output_of_the_same_calls() -> None:
    convolution, layer, readout = SRCConv2d(1, 3, 3), SRC(3 * 4 * 4, 20), LeakyReadout(5, neurons_per_class=4)
    net = nn.Sequential(SpikesOnly(convolution), nn.Flatten(2), SpikesOnly(layer), readout)
    maps = (noise(8, 40, 2, 1, 6, 6, dtype=torch.float32) > 0.2).float()
    spikes = layer(convolution(maps)[0].flatten(2))[0]
    assert spikes.any() and torch.equal(net(maps), readout(spikes))
    net(maps).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
