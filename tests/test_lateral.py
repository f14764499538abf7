"""Recurrent weights (``weight_hh``): outputs and gradients equal the reference in all modes; the weights of silent
neurons have no influence; layers without autapses keep a diagonal of 0; a sequence equals the calls of its steps.
test_bits.py tests that the bits are the same everywhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import SRC, EventBatch, SRCCell, SRCState, src, src_linear
from srcell.reference import src_reference
from support.gradients import assert_close, in_pieces, requiring_grad, results
from support.inputs import MODES, Inputs, call, make_inputs, make_lateral, noise
from support.layers import of_cell, stepped
from support.linear import KINDS, mode_options, tensors_of, trace
from support.refusals import Refusal, refusals

LATERAL = ("relu", "straight_through")
# T, B, N: one tile (of at most 128 neurons), several tiles, and a narrower last tile. T is small because rounding
# differences grow each time round the recurrent loop.
SHAPES = [(14, 3, 5), (9, 2, 130), (6, 2, 300)]


def lateral_inputs(shape: tuple[int, int, int]) -> Inputs:
    """Inputs of ``src`` with some neurons active from the start: recurrent weights act from the first step on."""
    inputs = make_inputs(23, *shape)
    inputs["h0"] = 0.9 * noise(24, *shape[1:])
    return inputs | {"weight_hh": make_lateral(23, shape[2])}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lateral", LATERAL)
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_equal_the_reference(
    mode: tuple[str, bool], lateral: str, shape: tuple[int, int, int]
) -> None:
    inputs = lateral_inputs(shape)
    lengths = [3 * b + shape[0] - 6 for b in range(shape[1])]
    options = mode_options(mode, lengths) | {"recurrent_surrogate": lateral}
    expected = results(src_reference, inputs, 23, **options)
    assert all(expected[f"gradient of {name}"].count_nonzero() > 0 for name in ("weight_hh", "h0"))
    assert_close(results(src, inputs, 23, **options), expected)


@pytest.mark.parametrize("shape", [(75, 2, 5), (300, 1, 130)])
@pytest.mark.parametrize("lateral", LATERAL)
def test_a_long_sequence_equals_its_pieces(lateral: str, shape: tuple[int, int, int]) -> None:
    """The pieces do not end where the kernels' segments and blocks do."""
    steps, batch, _ = shape
    inputs, ends = lateral_inputs(shape), [*range(21, steps, 21), steps]
    options = {"recurrent_surrogate": lateral, "lengths": torch.full((batch,), steps)}
    expected, made = (results(f, inputs, 23, **options) for f in (in_pieces(src, ends), src))
    assert all(torch.equal(made[name], expected[name]) for name in ("spikes", *SRCState._fields))
    assert_close(made, expected)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("seed", [3, 2])
@pytest.mark.parametrize("mode", MODES)
def test_src_linear_equals_the_reference(mode: tuple[str, bool], seed: int, kind: str) -> None:
    function, reference, inputs = trace(kind, seed)
    inputs["weight_hh"] = make_lateral(seed, len(inputs["bias"]))
    expected, made = (results(f, inputs, seed, **mode_options(mode, None)) for f in (reference, function))
    assert_close(made, expected)


def test_relu_everywhere_with_recurrence_is_the_exact_derivative() -> None:
    inputs = lateral_inputs((6, 2, 4))
    options = {"surrogate": "relu", "full_gradient": True, "recurrent_surrogate": "relu"}

    def outputs(*tensors: Tensor) -> list[Tensor]:
        return tensors_of(call(src, dict(zip(inputs, tensors, strict=True)), **options))

    assert torch.autograd.gradcheck(outputs, tuple(requiring_grad(inputs).values()))


def layer_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """A dense input, its weight and recurrent weights, float32."""
    x = (noise(1, 60, 3, 20, dtype=torch.float32) > 0.8).float()
    return x, noise(2, 150, 20, dtype=torch.float32), make_lateral(3, 150, torch.float32)


def test_recurrent_weights_of_zero_change_no_bit() -> None:
    x, weight, _ = layer_inputs()

    def run(**options: Any) -> list[Tensor]:
        w = weight.clone().requires_grad_()
        spikes, state = src_linear(x, w, -6.0, method="events", **options)
        (spikes * noise(4, *spikes.shape)).sum().backward()
        assert spikes.any() and w.grad is not None
        return [spikes, *state, w.grad]

    assert all(map(torch.equal, run(weight_hh=torch.zeros(150, 150)), run()))


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e-40])
def test_the_weights_of_a_neuron_that_stays_silent_have_no_influence(value: float) -> None:
    x, weight, lateral = layer_inputs()
    weight[7] = lateral[7] = 0  # neuron 7 has no input
    expected, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    lateral[:, 7] = value
    lateral.requires_grad_()
    spikes, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    assert not expected[..., 7].any() and expected.any()
    assert torch.equal(spikes, expected)
    spikes.sum().backward()
    assert lateral.grad is not None and lateral.grad[:, 7].eq(0).all() and lateral.grad.isfinite().all()


def test_nan_stays_in_its_sample() -> None:
    x, weight, lateral = layer_inputs()
    expected, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    state = [torch.zeros(3, 150) for _ in range(3)]
    state[1][1, 4] = torch.nan
    spikes, _ = src_linear(x, weight, -6.0, (state[0], state[1], state[2]), weight_hh=lateral)
    assert spikes[2:, 1].isnan().all()  # two steps later NaN has reached every neuron
    assert torch.equal(spikes[:, [0, 2]], expected[:, [0, 2]])


def test_denormal_weights_act_in_float64() -> None:
    """In float32 the cell's definition replaces currents below 2^-100 by 0."""
    weight_hh, zeros = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    weight_hh[0, 1] = 1e-310
    h = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    _, state = src(zeros[None], -6.0, (zeros, h, zeros), weight_hh=weight_hh)
    assert state.i[0, 0] == weight_hh[0, 1] != 0


@pytest.mark.parametrize("neurons", [0, 1, 128, 129])
def test_empty_and_odd_sizes(neurons: int) -> None:
    for steps, batch in ((0, 2), (3, 0), (3, 2)):
        lateral = torch.ones(neurons, neurons, requires_grad=True)
        spikes, state = src(torch.ones(steps, batch, neurons), -6.0, weight_hh=lateral)
        assert spikes.shape == (steps, batch, neurons) and state.h.shape == (batch, neurons)
        (spikes.sum() + state.h.sum()).backward()
        assert lateral.grad is not None and lateral.grad.shape == (neurons, neurons)


CURRENT = torch.zeros(3, 2, 4)


@refusals(
    *(
        Refusal(argument, lambda run=run, options=options: run(**options), error)
        for run in (partial(src, CURRENT, -6.0), partial(src_linear, CURRENT, torch.zeros(4, 4), -6.0))
        for error, argument, options in (
            (TypeError, "weight_hh", {"weight_hh": 1.0}),
            (TypeError, "weight_hh", {"weight_hh": torch.zeros(4, 4, dtype=torch.float64)}),
            (ValueError, "weight_hh", {"weight_hh": torch.zeros(4, 5)}),
            (ValueError, "weight_hh", {"weight_hh": torch.zeros(4, 4).to_sparse()}),
            (ValueError, "recurrent_surrogate", {"weight_hh": torch.zeros(4, 4), "recurrent_surrogate": "triangle"}),
            (ValueError, "recurrent_surrogate", {"recurrent_surrogate": 1}),
        )
    ),
    *(
        Refusal(argument, lambda cls=cls, options=options: cls(4, 3, **options), error)
        for cls in (SRC, SRCCell)
        for error, argument, options in (
            (TypeError, "recurrent", {"recurrent": 1}),
            (TypeError, "autapses", {"autapses": "no"}),
            (ValueError, "recurrent_surrogate", {"recurrent_surrogate": "triangle"}),
        )
    ),
    Refusal("learn_initial_state", lambda: SRC(20, 30, learn_initial_state=True)),
    Refusal("low", lambda: srcell.spread(-0.1, 0.5)),
    Refusal("low", lambda: srcell.spread(1.0, 1.0)),
    Refusal("low", lambda: srcell.spread("0.5", 0.9), TypeError),  # type: ignore[arg-type]
    Refusal("high", lambda: srcell.spread(0.5, 0.4)),
    Refusal("high", lambda: srcell.spread(0.5, 1.0)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


# Layers


def spikes_in() -> Tensor:
    return (noise(8, 50, 3, 20, dtype=torch.float32) > 0.5).float()


def test_a_layer_equals_the_function_with_its_weights() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, num_layers=2, recurrent=True), spikes_in()
    first, _ = src_linear(x, layer.weight_ih_l0, layer.bias_l0, weight_hh=layer.weight_hh_l0)
    second, _ = src_linear(first, layer.weight_ih_l1, layer.bias_l1, weight_hh=layer.weight_hh_l1)
    spikes, _ = layer(x)
    assert spikes.any() and torch.equal(spikes, second)
    spikes.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert "recurrent=True" in repr(layer) and "autapses" not in repr(layer)


def test_a_cell_called_step_by_step_equals_the_layer() -> None:
    torch.manual_seed(0)
    layer, cell, x = SRC(20, 30, recurrent=True), SRCCell(20, 30, recurrent=True), spikes_in()
    cell.load_state_dict(of_cell(layer))
    expected, _ = layer(EventBatch.from_dense(x))
    assert expected.any() and torch.equal(stepped(cell, x)[0], expected)


def test_without_autapses_the_diagonal_stays_zero() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, recurrent=True, autapses=False), spikes_in()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x)[0].sum().backward()
        optimizer.step()
        assert layer.weight_hh_l0.grad.count_nonzero() > 0
    assert not layer.weight_hh_l0.diagonal().any()
    assert layer.weight_hh_l0.count_nonzero() == 30 * 29


def test_a_diagonal_is_refused_on_load_without_autapses() -> None:
    with_autapses, without = SRC(4, 3, recurrent=True), SRC(4, 3, recurrent=True, autapses=False)
    with pytest.raises(RuntimeError, match=r"weight_hh_l0: expected a diagonal of 0 with autapses=False"):
        without.load_state_dict(with_autapses.state_dict())
    with_autapses.load_state_dict(without.state_dict())


def test_lateral_layers_can_learn_their_initial_state() -> None:
    layer = SRC(20, 30, recurrent=True, learn_initial_state=True)
    with torch.no_grad():
        layer.h0_l0.fill_(0.5)
    layer(spikes_in())[0].sum().backward()
    assert layer.h0_l0.grad.count_nonzero() > 0 and not layer.hs0_l0.grad.any()


def test_new_recurrent_weights_have_the_documented_standard_deviation() -> None:
    torch.manual_seed(0)
    weight = SRC(4, 400, recurrent=True).weight_hh_l0
    # The standard deviation of 160,000 normal numbers errs by 0.2 %.
    assert float(weight.detach().std() * 400**0.5) == pytest.approx(1.0, rel=0.01)


def test_spread_spaces_time_constants_evenly_in_their_logarithm() -> None:
    layer = SRC(4, 5, alpha=srcell.spread(0.5, 0.99), zs_hyp=srcell.spread(0.5, 0.5), dtype=torch.float64)
    times = 1 / (1 - layer.alpha_l0)
    assert times[[0, -1]].tolist() == pytest.approx([2, 100])
    assert times.log().diff().tolist() == pytest.approx([float((times[-1] / times[0]).log()) / 4] * 4)
    assert layer.zs_hyp_l0.tolist() == [0.5] * 5
    assert SRC(4, 1, alpha=srcell.spread(0.5, 0.99)).alpha_l0.tolist() == [0.5]
    learnt = SRC(4, 5, alpha=srcell.spread(0.5, 0.99), learnable=["alpha"])
    assert isinstance(learnt.alpha_l0, torch.nn.Parameter)


def test_lateral_layers_compile_export_and_checkpoint() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, recurrent=True, autapses=False), spikes_in()
    expected, _ = layer(x)
    expected.sum().backward()
    wanted = layer.weight_hh_l0.grad.clone()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(layer, (x,)).module()
    assert torch.equal(exported(x)[0], expected)
    for run in (
        lambda: compiled(x)[0],
        lambda: torch.utils.checkpoint.checkpoint(lambda: layer(x)[0], use_reentrant=False),
    ):
        layer.zero_grad()
        spikes = run()
        spikes.sum().backward()
        assert torch.equal(spikes, expected) and torch.equal(layer.weight_hh_l0.grad, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x)[0].dtype == torch.float32
    assert layer.bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16
