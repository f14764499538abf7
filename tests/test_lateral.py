"""Lateral weights: outputs and gradients are those of the reference in all modes; silent neurons' weights have no
influence; layers without autapses keep their diagonal; a sequence is the calls of its steps. The same bits everywhere
are in test_bits.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import SRC, EventBatch, SRCCell, SRCState, src, src_linear
from srcell.reference import src_reference
from support.gradients import assert_same_gradients, gradients, make_output_gradients
from support.inputs import MODES, Inputs, Outputs, call, make_inputs, make_lateral, noise
from support.linear import assert_same_outputs, densified, linear_case, on_dense, on_events, reference_on_dense
from support.refusals import assert_refused

LATERAL = ("relu", "straight_through")
# T, B, N: one tile, several, and a last one that is narrower. Short, because differences of rounding grow in each loop.
SHAPES = [(14, 3, 5), (9, 2, 130), (6, 2, 300)]


def lateral_inputs(shape: tuple[int, int, int]) -> Inputs:
    """Inputs of ``src`` of which some neurons are active from the start, so that all hear from the first step on."""
    inputs = make_inputs(23, *shape)
    inputs["h0"] = 0.9 * noise(24, *shape[1:])
    return inputs | {"weight_hh": make_lateral(23, shape[2])}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lateral", LATERAL)
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_are_those_of_the_reference(
    mode: tuple[str, bool], lateral: str, shape: tuple[int, int, int]
) -> None:
    inputs = lateral_inputs(shape)
    options = {"surrogate": mode[0], "recurrent_grad": mode[1], "lateral_surrogate": lateral}
    options["lengths"] = torch.arange(shape[1]) * 3 + shape[0] - 6
    expected = call(src_reference, inputs, **options)
    assert_same_outputs(call(src, inputs, **options), expected)
    arriving: list[Tensor | None] = [*make_output_gradients(23, expected)]
    reference = gradients(src_reference, inputs, arriving, **options)
    assert reference["weight_hh"].count_nonzero() > 0 and reference["h0"].count_nonzero() > 0
    assert_same_gradients(gradients(src, inputs, arriving, **options), reference)


def in_pieces(current: Tensor, bias: Tensor, state: SRCState, **options: Any) -> Outputs:
    """``src`` called on pieces of the sequence, whose ends are not those of the kernels' segments and blocks."""
    spikes = []
    for piece in current.split(21):
        made, state = src(piece, bias, state, **options)
        spikes.append(made)
    return torch.cat(spikes), state


@pytest.mark.parametrize("shape", [(75, 2, 5), (300, 1, 130)])
@pytest.mark.parametrize("lateral", LATERAL)
def test_gradients_of_a_long_sequence_are_those_of_its_pieces(lateral: str, shape: tuple[int, int, int]) -> None:
    inputs = lateral_inputs(shape)
    options = {"surrogate": "straight_through", "recurrent_grad": False, "lateral_surrogate": lateral}
    expected = call(in_pieces, inputs, **options)
    outputs = call(src, inputs, **options)
    for x, expectation in zip((outputs[0], *outputs[1]), (expected[0], *expected[1]), strict=True):
        assert torch.equal(x, expectation)
    arriving: list[Tensor | None] = [*make_output_gradients(23, expected)]
    assert_same_gradients(
        gradients(src, inputs, arriving, **options), gradients(in_pieces, inputs, arriving, **options)
    )


@pytest.mark.parametrize("way", ["EventBatch", "events", "gemm"])
@pytest.mark.parametrize("seed", [10, 6])
@pytest.mark.parametrize("mode", MODES)
def test_behind_a_synapse_as_well(mode: tuple[str, bool], seed: int, way: str) -> None:
    events, inputs = linear_case(seed)
    inputs["weight_hh"] = make_lateral(seed, len(inputs["bias"]))
    options = {"surrogate": mode[0], "recurrent_grad": mode[1]}
    dense = densified(events, inputs)
    expected = call(reference_on_dense, dense, **options)
    given, function = (inputs, on_events(events)) if way == "EventBatch" else (dense, on_dense(way))
    assert_same_outputs(call(function, given, **options), expected)
    arriving: list[Tensor | None] = [*make_output_gradients(seed, expected)]
    reference = gradients(reference_on_dense, dense, arriving, **options)
    made = gradients(function, given, arriving, **options)
    assert_same_gradients(made, {name: x for name, x in reference.items() if name in made})


def test_relu_everywhere_with_recurrence_is_the_derivative_of_the_forward_pass() -> None:
    inputs = lateral_inputs((6, 2, 4))
    names, leaves = list(inputs), [x.clone().requires_grad_() for x in inputs.values()]
    options = {"surrogate": "relu", "recurrent_grad": True, "lateral_surrogate": "relu"}

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        spikes, state = call(src, dict(zip(names, tensors, strict=True)), **options)
        return spikes, *state

    assert torch.autograd.gradcheck(outputs, leaves)


def layer_inputs(density: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """A dense input, its weight and lateral weights, float32."""
    x = (noise(1, 60, 3, 20, dtype=torch.float32) > 1 - 2 * density).float()
    return x, noise(2, 150, 20, dtype=torch.float32), make_lateral(3, 150, torch.float32)


def test_lateral_weights_of_zero_change_no_bit() -> None:
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
    weight[7] = lateral[7] = 0  # neuron 7 gets nothing
    expected, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    lateral[:, 7] = value
    lateral.requires_grad_()
    spikes, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    assert not expected[..., 7].any() and expected.any()
    assert torch.equal(spikes, expected)
    spikes.sum().backward()
    assert lateral.grad is not None and lateral.grad[:, 7].eq(0).all() and lateral.grad.isfinite().all()


def test_nan_stays_within_its_sample() -> None:
    x, weight, lateral = layer_inputs()
    expected, _ = src_linear(x, weight, -6.0, weight_hh=lateral)
    state = [torch.zeros(3, 150) for _ in range(3)]
    state[1][1, 4] = torch.nan
    spikes, _ = src_linear(x, weight, -6.0, (state[0], state[1], state[2]), weight_hh=lateral)
    assert spikes[2:, 1].isnan().all()  # after two steps every neuron has heard it
    assert torch.equal(spikes[:, [0, 2]], expected[:, [0, 2]])


def test_denormal_weights_count() -> None:
    current, lateral = torch.zeros(2, 1, 2), torch.tensor([[0.0, 1e-40], [0.0, 0.0]])
    state = (torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), torch.zeros(1, 2))
    spread, _ = src(current.double(), -6.0, tuple(x.double() for x in state), weight_hh=lateral.double())
    _, after = src(current[:1].double(), -6.0, tuple(x.double() for x in state), weight_hh=lateral.double())
    assert after.i[0, 0] == lateral.double()[0, 1] and spread.shape == (2, 1, 2)


@pytest.mark.parametrize("neurons", [0, 1, 128, 129])
def test_empty_and_odd_sizes(neurons: int) -> None:
    for steps, batch in ((0, 2), (3, 0), (3, 2)):
        lateral = torch.ones(neurons, neurons, requires_grad=True)
        spikes, state = src(torch.ones(steps, batch, neurons), -6.0, weight_hh=lateral)
        assert spikes.shape == (steps, batch, neurons) and state.h.shape == (batch, neurons)
        (spikes.sum() + state.h.sum()).backward()
        assert lateral.grad is not None and lateral.grad.shape == (neurons, neurons)


def test_features_of_several_dimensions_are_flattened() -> None:
    current, lateral = 3 * noise(5, 20, 2, 6, dtype=torch.float32), make_lateral(5, 6, torch.float32)
    flat, _ = src(current, -5.0, weight_hh=lateral)
    shaped, state = src(current.view(20, 2, 2, 3), -5.0, weight_hh=lateral)
    assert flat.any() and torch.equal(shaped.flatten(2), flat) and state.h.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("error", "argument", "options"),
    [
        (TypeError, "weight_hh", {"weight_hh": 1.0}),
        (TypeError, "weight_hh", {"weight_hh": torch.zeros(4, 4, dtype=torch.float64)}),
        (TypeError, "weight_hh", {"weight_hh": torch.zeros(4, 4, dtype=torch.int64)}),
        (ValueError, "weight_hh", {"weight_hh": torch.zeros(4, 5)}),
        (ValueError, "weight_hh", {"weight_hh": torch.zeros(4)}),
        (ValueError, "weight_hh", {"weight_hh": torch.zeros(4, 4).to_sparse()}),
        (ValueError, "lateral_surrogate", {"weight_hh": torch.zeros(4, 4), "lateral_surrogate": "triangle"}),
        (ValueError, "lateral_surrogate", {"lateral_surrogate": 1}),
    ],
)
def test_wrong_lateral_arguments_are_named(error: type[Exception], argument: str, options: dict[str, Any]) -> None:
    assert_refused(error, argument, src, torch.zeros(3, 2, 4), -6.0, **options)
    assert_refused(error, argument, src_linear, torch.zeros(3, 2, 5), torch.zeros(4, 5), -6.0, **options)


# Layers


def spikes_in() -> Tensor:
    return (noise(8, 50, 3, 20, dtype=torch.float32) > 0.5).float()


def test_a_layer_is_the_function_with_its_weights() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, num_layers=2, lateral=True), spikes_in()
    first, _ = src_linear(x, layer.weight_ih_l0, layer.bias_l0, weight_hh=layer.weight_hh_l0)
    second, _ = src_linear(first, layer.weight_ih_l1, layer.bias_l1, weight_hh=layer.weight_hh_l1)
    spikes, _ = layer(x)
    assert spikes.any() and torch.equal(spikes, second)
    spikes.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert "lateral=True" in repr(layer) and "autapses" not in repr(layer)


def test_cells_step_by_step_are_the_layer() -> None:
    torch.manual_seed(0)
    layer, cell, x = SRC(20, 30, lateral=True), SRCCell(20, 30, lateral=True), spikes_in()
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh"):
            getattr(cell, name).copy_(getattr(layer, f"{name}_l0"))
    state, made = None, []
    for now in x:
        spikes, state = cell(now, state)
        made.append(spikes)
    expected, _ = layer(EventBatch.from_dense(x))
    assert expected.any() and torch.equal(torch.stack(made), expected)


def test_without_autapses_the_diagonal_stays_zero() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, lateral=True, autapses=False), spikes_in()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x)[0].sum().backward()
        optimizer.step()
        assert layer.weight_hh_l0.grad.count_nonzero() > 0
    assert not layer.weight_hh_l0.diagonal().any()
    assert layer.weight_hh_l0.count_nonzero() == 30 * 29


def test_a_diagonal_is_refused_on_load_without_autapses() -> None:
    with_autapses, without = SRC(4, 3, lateral=True), SRC(4, 3, lateral=True, autapses=False)
    with pytest.raises(RuntimeError, match=r"weight_hh_l0: expected a diagonal of 0 with autapses=False"):
        without.load_state_dict(with_autapses.state_dict())
    with_autapses.load_state_dict(without.state_dict())


def test_lateral_layers_may_learn_their_initial_state() -> None:
    layer = SRC(20, 30, lateral=True, learn_initial_state=True)
    with torch.no_grad():
        layer.h0_l0.fill_(0.5)
    layer(spikes_in())[0].sum().backward()
    assert layer.h0_l0.grad.count_nonzero() > 0 and not layer.hs0_l0.grad.any()
    assert_refused(ValueError, "learn_initial_state", SRC, 20, 30, learn_initial_state=True)


@pytest.mark.parametrize("cls", [SRC, SRCCell])
def test_wrong_lateral_options_are_named(cls: type) -> None:
    assert_refused(TypeError, "lateral", cls, 4, 3, lateral=1)
    assert_refused(TypeError, "autapses", cls, 4, 3, autapses="no")
    assert_refused(ValueError, "lateral_surrogate", cls, 4, 3, lateral_surrogate="triangle")


def test_new_lateral_weights_have_the_documented_width() -> None:
    torch.manual_seed(0)
    weight = SRC(4, 400, lateral=True).weight_hh_l0
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
    for low, high, argument in ((-0.1, 0.5, "low"), (1.0, 1.0, "low"), (0.5, 0.4, "high"), (0.5, 1.0, "high")):
        assert_refused(ValueError, argument, srcell.spread, low, high)
    assert_refused(TypeError, "low", srcell.spread, "0.5", 0.9)


def test_lateral_layers_compile_export_and_checkpoint() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 30, lateral=True, autapses=False), spikes_in()
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
