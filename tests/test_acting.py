"""Layers that compute with something else than their arguments hold: clamped parameters, those of channels, recurrent
weights without autapses, a start at rest. C++ does what torch's operators do on a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import SRC, rest_state
from srcell._shared.parameters import PARAMETERS, TABLE
from srcell.ops._acting import acting, of_arguments, resting
from srcell.ops._layer import GRADIENTS, STATE, LayerArguments
from srcell.ops.src import src
from support.inputs import noise

STEPS, BATCH, CHANNELS, COPIES = 30, 3, 4, 5
NEURONS = CHANNELS * COPIES
OUTSIDE = {"alpha": (-0.2, 1.3), "rho": (-1.0, 5.0), "zs_hyp": (-0.5, 1.5), "zs_dep": (-0.5, 1.5), "omega": (-4.0, 4.0)}
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def values(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Values of a parameter, some of them outside its domain."""
    low, high = OUTSIDE.get(name, (TABLE[name].standard - 0.5, TABLE[name].standard + 0.5))
    x = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(len(name) + ord(name[-1])))
    return x * (high - low) + low


def layer_with(shape: tuple[int, ...], dtype: torch.dtype, *, resonant: bool, **options: Any) -> LayerArguments:
    """A layer whose learnt parameters have that shape."""
    names = PARAMETERS if resonant else PARAMETERS[:-1]
    cell = [values(name, shape, dtype).requires_grad_() for name in names]
    bias = torch.linspace(-7, -3, shape[0] if shape else 1, dtype=dtype).reshape(shape).requires_grad_()
    numbers = [TABLE[name].standard for name in names]
    given = {"bias": bias, "cell": cell, "state": [], "lengths": None, "first_hh": None, "factors_hh": None}
    given |= {"weight_hh": None, "constants": numbers, "surrogate": "relu", "recurrent_grad": True}
    given |= {"lateral_surrogate": "relu", "past_steps": 0, "bias_max": -3.5, "clamped": [True] * len(names)}
    return LayerArguments(**{**given, **options})


def run(layer: LayerArguments, current: Tensor) -> list[Tensor]:
    """The spikes and the state."""
    made = src(current, layer, save=False, trace_integrator=False, half_spikes=False)
    return [x for x in made[: 1 + len(STATE)] if x is not None and x.numel()]


def compare(layer: LayerArguments, current: Tensor, *, tolerance: float = 0.0) -> list[Tensor | None]:
    """Compare what C++ makes of a layer with what torch's operators make; return the gradients, as GRADIENTS."""
    leaves = [x for x in (layer.weight_hh, layer.bias, *layer.cell) if x is not None]
    made = run(layer, current)
    wanted = torch.randn(made[0].shape, dtype=current.dtype, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(made[0], leaves, wanted)

    stand = acting(
        layer._replace(bias=layer.bias.detach(), cell=[x.detach() for x in layer.cell]), current.shape, at_rest=True
    )
    acted = [stand.bias.requires_grad_(), *(x.requires_grad_() for x in stand.cell)]
    lateral = None if layer.weight_hh is None else stand.weight_hh.detach().requires_grad_()
    plain = stand._replace(bias=acted[0], cell=acted[1:], weight_hh=lateral, clamped=[], autapses=True, start="zeros")
    expected = run(plain, current)
    assert all(map(torch.equal, made, expected))
    assert expected[0].any() or len(layer.bias.shape) == 0  # a neuron with such a parameter may be silent

    each = torch.autograd.grad(expected[0], [x for x in (lateral, *acted) if x is not None], wanted)
    gradients: list[Tensor | None] = [each[0] if lateral is not None else None, *[None] * (1 + len(STATE))]
    gradients += [*each[lateral is not None :], *[None] * (len(PARAMETERS) - len(layer.cell))]
    assert len(gradients) == len(GRADIENTS)
    gradients = of_arguments(layer, gradients)
    for x, y in zip(found, [g for g in gradients if g is not None], strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance * float(y.abs().max()))
    return gradients


def outside(name: str, x: Tensor) -> Tensor:
    return (x < TABLE[name].least_learnt) | (x > TABLE[name].most_learnt)


@FLOATS
@pytest.mark.parametrize("resonant", [False, True])
def test_parameters_act_clamped(resonant: bool, dtype: torch.dtype) -> None:
    """Their gradients are 0 or not outside the domain, by the way that a step would take."""
    held = passed = 0
    for seed in range(4):
        layer = layer_with((NEURONS,), dtype, resonant=resonant)
        gradients = compare(layer, 6 * noise(seed, STEPS, BATCH, NEURONS, dtype=dtype))
        for name, x, grad in zip(PARAMETERS, layer.cell, gradients[-len(PARAMETERS) :], strict=False):
            assert grad is not None
            held += int(((grad == 0) & outside(name, x)).sum())
            passed += int(((grad != 0) & outside(name, x)).sum())
    assert held > 10 and passed > 10


@FLOATS
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_parameter_of_all_neurons_acts_clamped(name: str, dtype: torch.dtype) -> None:
    for side in (0, 1):
        cell = [torch.tensor(TABLE[each].standard, dtype=dtype).requires_grad_() for each in PARAMETERS]
        cell[PARAMETERS.index(name)] = torch.tensor(OUTSIDE[name][side], dtype=dtype).requires_grad_()
        layer = layer_with((), dtype, resonant=True, cell=cell)
        compare(layer, 6 * noise(1, STEPS, BATCH, NEURONS, dtype=dtype))


@FLOATS
@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("channels", [1, CHANNELS, NEURONS])
def test_channels_share_their_parameters(channels: int, expanded: bool, dtype: torch.dtype) -> None:
    """The gradient of a channel is the sum of its neurons', and so is its sign."""
    layer = layer_with((channels,), dtype, resonant=True, channels=channels)
    if expanded:
        copies = NEURONS // channels
        each = [x.detach().repeat_interleave(copies).requires_grad_() for x in (layer.bias, *layer.cell)]
        layer = layer._replace(bias=each[0], cell=each[1:])
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12  # sums in another order
    gradients = compare(layer, 6 * noise(3, STEPS, BATCH, NEURONS, dtype=dtype), tolerance=tolerance)
    expected = (NEURONS,) if expanded else (channels,)
    assert all(grad is not None and grad.shape == expected for grad in gradients[-1 - len(PARAMETERS) :])


@FLOATS
def test_autapses_are_left_out(dtype: torch.dtype) -> None:
    weight = (5 * noise(8, NEURONS, NEURONS, dtype=dtype)).requires_grad_()
    layer = layer_with((NEURONS,), dtype, resonant=False, weight_hh=weight, autapses=False)
    grad = compare(layer, 6 * noise(4, STEPS, BATCH, NEURONS, dtype=dtype))[0]
    assert grad is not None and not grad.diagonal().any() and grad.any()


@FLOATS
@pytest.mark.parametrize("resonant", [False, True])
def test_a_layer_starts_at_rest(resonant: bool, dtype: torch.dtype) -> None:
    current = 6 * noise(6, STEPS, BATCH, NEURONS, dtype=dtype)
    for layer in (
        layer_with((NEURONS,), dtype, resonant=resonant, start="rest"),
        layer_with((CHANNELS,), dtype, resonant=resonant, start="rest", channels=CHANNELS),
    ):
        compare(layer, current, tolerance=1e-4 if dtype == torch.float32 else 1e-12)
        with torch.no_grad():
            _, *state = run(layer._replace(lengths=torch.zeros(BATCH, dtype=torch.int64)), current)
            bias, r, rs = (x.repeat_interleave(NEURONS // len(x)) for x in (layer.bias, *layer.cell[2:4]))
            expected = rest_state(bias.clamp(max=-3.5), r=r, rs=rs).h.expand(BATCH, -1)
            assert torch.equal(state[1], expected) and torch.equal(state[2], expected) and not state[0].any()
            given = [torch.zeros(BATCH, NEURONS, dtype=dtype)] * (3 + resonant)
            assert torch.equal(
                run(layer._replace(state=given), current)[0], run(layer._replace(start="zeros"), current)[0]
            )


def test_one_bisection_is_that_of_torch() -> None:
    bias, gain = torch.linspace(-9, 3, 500).double(), torch.linspace(-9, 4, 500).double()
    given = torch.ops.srcell.rest(bias, gain)
    torch.testing.assert_close(given, resting(bias, gain), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "resting"}, "start: expected one of zeros, rest, got 'resting'"),
        ({"clamped": [True] * 9}, "clamped: expected at most 7 flags, got 9"),
    ],
)
def test_other_options_are_refused(changes: dict[str, Any], message: str) -> None:
    layer = layer_with((NEURONS,), torch.float64, resonant=True, **changes)
    with pytest.raises(ValueError, match=message):
        run(layer, torch.zeros(STEPS, BATCH, NEURONS, dtype=torch.float64))


def test_the_layer_of_a_sequence_computes_what_its_parameters_say() -> None:
    """Every parameter is read in each call: nothing of them is kept from one call to the next."""
    layer, x = SRC.for_sequences(3, NEURONS, learnable=["omega", "alpha"]), torch.rand(STEPS, 2, 3) * 4
    before, _ = layer(x)
    with torch.no_grad():
        layer.bias_l0.data -= 1
        layer.alpha_l0.data.fill_(2.0)  # acts as 1
        layer.weight_hh_l0.data += 0.5
    after, _ = layer(x)
    fresh = SRC.for_sequences(3, NEURONS, learnable=["omega", "alpha"])
    fresh.load_state_dict(layer.state_dict())
    assert not torch.equal(before, after) and torch.equal(fresh(x)[0], after)
    (grad,) = torch.autograd.grad(after.sum(), layer.alpha_l0)
    assert (grad >= 0).all()
