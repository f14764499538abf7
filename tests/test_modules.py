"""What a layer computes with is what was asked for, what it shows and what its state_dict carries: cell parameters in
its own precision, constants that a checkpoint brings along, learnable parameters that act where the cell is defined.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import PARAMETERS, assert_refused, noise
from srcell import SRC, LeakyReadout, SRCCell, SRCConv2d, leaky_readout, src_linear

LAYERS: dict[str, Callable[..., Any]] = {
    "SRC": lambda **options: SRC(3, 4, **options),
    "SRCCell": lambda **options: SRCCell(3, 4, **options),
    "SRCConv2d": lambda **options: SRCConv2d(3, 4, 1, **options),
}


def make(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return LAYERS[kind](**options)


def spikes_of(layer: Any) -> Tensor:
    x = (noise(1, 40, 2, 3) > 0).to(layer.get_parameter(next(iter(dict(layer.named_parameters())))).dtype)
    if isinstance(layer, SRCCell):
        state, spikes = None, []
        for step in x:
            s, state = layer(step, state)
            spikes.append(s)
        return torch.stack(spikes)
    return layer(x[..., None, None] if isinstance(layer, SRCConv2d) else x)[0]


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


# What is given is checked, copied and can be returned to.


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


def test_a_refused_value_is_shown_with_all_its_digits() -> None:
    with pytest.raises(ValueError, match=r"got 1\.0000001$"):
        SRC(3, 4, alpha=1.0000001)


@pytest.mark.parametrize("kind", LAYERS)
def test_values_are_copied(kind: str) -> None:
    alpha, scale = torch.full((4,), 0.5), torch.ones((), requires_grad=True)
    layer = make(kind, alpha=alpha * scale)
    alpha.fill_(0.1)
    (kept,) = layer.buffers()
    assert kept.tolist() == [0.5] * 4 and not kept.requires_grad
    assert torch.equal(spikes_of(copy.deepcopy(layer)), spikes_of(layer))


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


# What a layer shows


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


# What a state_dict carries

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


def test_a_readout_brings_its_constants_along() -> None:
    saved, other = LeakyReadout(2, 2, alpha=0.5, inhibition=-0.2, temperature=3.0), LeakyReadout(2, 2)
    spikes = noise(2, 9, 3, 4).abs()
    with pytest.warns(
        UserWarning, match=r"alpha=0\.5 instead of 0\.99, inhibition=-0\.2 .*, temperature=3 instead of 10"
    ):
        other.load_state_dict(saved.state_dict())
    assert torch.equal(other(spikes), saved(spikes))
    assert torch.equal(other(spikes), leaky_readout(spikes, 2, alpha=0.5, inhibition=-0.2) / 3)


# Learnable parameters


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
    """Without constrain_(); once alpha: expected values in [0, 1], got 419.6."""
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


def test_bounded_parameters_compile_whole() -> None:
    layer = make("SRC", learnable=["alpha", "rho"])
    nn.init.constant_(layer.alpha_l0, 1.25)
    x = (noise(5, 20, 2, 3) > 0).float()
    layer(x)[0].sum().backward()
    expected = layer.alpha_l0.grad.clone()
    layer.zero_grad()
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0].sum().backward()
    assert torch.equal(layer.alpha_l0.grad, expected)
