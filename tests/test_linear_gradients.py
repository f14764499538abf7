"""Gradients of ``src_linear`` beyond test_gradients.py: at the input's events alone, from both methods of the operator,
over many segments, and for every width of a layer.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import SRCState, src, src_linear
from support.calls import NEW_TORCH
from support.gradients import assert_close, assert_equal, make_output_gradients, results
from support.inputs import MODES, PARAMETERS, STATE, Outputs, call, make_layer, make_linear_inputs, noise, with_values
from support.linear import (
    LENGTHS,
    SHAPES,
    densified,
    linear_case,
    mode_options,
    on_dense_at_events,
    on_events,
    reference_on_dense,
)


def test_premise_the_events_include_empty_unsorted_and_repeated_rows() -> None:
    events, _ = linear_case(3)
    counts = events.offsets.diff()
    assert {0, 1, 2, 3} <= set(counts.tolist())
    rows = [row.tolist() for row in events.indices.split(counts.tolist())]
    assert any(row != sorted(row) for row in rows)
    assert any(len(set(row)) < len(row) for row in rows)


@pytest.mark.parametrize("seed", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_at_events_equals_the_reference_there_and_is_0_elsewhere(mode: tuple[str, bool], seed: int) -> None:
    options, inputs = mode_options(mode, LENGTHS[seed]), densified(*linear_case(seed))
    expected = results(reference_on_dense, inputs, seed, **options)
    zeros = inputs["input"] == 0
    assert expected["gradient of input"][zeros].count_nonzero() > 0 or not zeros.any()
    expected["gradient of input"][zeros] = 0
    made = results(on_dense_at_events, inputs, seed, **options)
    assert made["gradient of input"][zeros].count_nonzero() == 0
    assert_close(made, expected)


@pytest.mark.parametrize("method", ["events", "gemm"])
@pytest.mark.parametrize("mode", MODES)
def test_both_methods_of_src_dense_have_the_gradients_of_the_reference(mode: tuple[str, bool], method: str) -> None:
    def operator(input: Tensor, weight: Tensor, bias: Tensor, state: SRCState, **cell: Any) -> Outputs:
        layer = make_layer({"bias": bias, **dict(zip(STATE, state, strict=True)), **cell}, mode, LENGTHS[3])
        spikes, i, h, hs, _, *_ = torch.ops.srcell.src_dense(
            *(input, weight, *layer.forward),
            **layer.options,
            method=method,
            save=True,
            trace_integrator=True,
            input_grad_at_events=False,
        )
        return spikes, SRCState(i, h, hs)

    inputs = densified(*linear_case(3))
    assert_close(results(operator, inputs, 3), results(reference_on_dense, inputs, 3, **mode_options(mode, LENGTHS[3])))


@pytest.mark.parametrize("mode", MODES)
def test_over_many_segments_src_linear_equals_src_on_the_same_currents(mode: tuple[str, bool]) -> None:
    """With weights of few bits, sums of binary events are exact in any order. So the two results may differ only by the
    order in which gradients are summed.
    """
    lengths = [300, 257, 256, 33, 32, 31, 1, 0]
    events, inputs = make_linear_inputs(3, 300, len(lengths), 20, inputs=9)
    inputs["weight"] = (8 * inputs["weight"]).round() / 8
    inputs["values"] = torch.ones_like(inputs["values"])
    options = mode_options(mode, lengths)
    dense = with_values(events, None).to_dense(torch.float64)
    layer = {name: x for name, x in inputs.items() if name not in ("values", "weight")}
    expected = results(src, {"current": dense @ inputs["weight"].T, **layer}, 3, **options)
    made = results(on_events(events), inputs, 3, **options)
    assert (expected["spikes"] > 0.5).sum() > 100
    current = expected.pop("gradient of current")
    of_weight, of_values = made.pop("gradient of weight"), made.pop("gradient of values")
    assert_equal(made, expected)
    # Two sums of at most n products differ by at most 2 n roundings of the sum of their absolute values.
    weight = torch.einsum("tbn,tbk->nk", current, dense)
    sizes = torch.einsum("tbn,tbk->nk", current.abs(), dense.abs())
    assert ((of_weight - weight).abs() <= 2 * 3 * len(lengths) * 300 * 2**-53 * sizes).all()
    row = torch.arange(len(events.offsets) - 1).repeat_interleave(events.offsets.diff())
    sample, step = row // 300, row % 300
    products = current[step, sample] * inputs["weight"].T[events.indices.long()]
    assert ((of_values - products.sum(1)).abs() <= 2 * 20 * 2**-53 * products.abs().sum(1)).all()
    assert of_values[step >= torch.tensor(lengths)[sample]].count_nonzero() == 0


@pytest.mark.parametrize("neurons", [1, 15, 16, 17, 100, 128, 129, 130, 260])
def test_every_width_of_a_layer_equals_its_neurons_one_by_one(neurons: int) -> None:
    """Neurons are independent, and a neuron has the same bits alone and in its layer, because with so few samples the
    order of sums does not depend on the layer's width.
    """
    events, inputs = make_linear_inputs(4, 40, 3, neurons, inputs=6)
    options = mode_options(("straight_through", True), [40, 33, 7])
    grad_outputs = make_output_gradients(4, call(on_events(events), inputs))
    expected = results(on_events(events), inputs, grad_outputs=grad_outputs, **options)
    assert expected["spikes"].count_nonzero() > 0
    del expected["gradient of values"]  # a sum over neurons
    for n in {0, neurons // 2, neurons - 1, *range(15, neurons, 16)}:
        one = {name: x[..., n : n + 1] for name, x in inputs.items() if name in ("bias", *STATE, *PARAMETERS)}
        one = {"values": inputs["values"], "weight": inputs["weight"][n : n + 1], **one}
        made = results(on_events(events), one, grad_outputs=[g[..., n : n + 1] for g in grad_outputs], **options)
        assert torch.equal(made.pop("gradient of weight")[0], expected["gradient of weight"][n])
        for name in made.keys() & expected.keys():
            assert torch.equal(made[name][..., 0], expected[name][..., n]), name


@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 has no vmap of operators of lists")
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_per_sample_gradients_equal_those_of_each_sample(method: str) -> None:
    x = (noise(5, 30, 4, 6) > 0.6).double()
    weight, bias = noise(6, 5, 6), torch.full((5,), -5.0, dtype=torch.float64)

    def total(weight: Tensor, sample: Tensor) -> Tensor:
        return src_linear(sample[:, None], weight, bias, method=method)[0].square().sum()

    made = torch.func.vmap(torch.func.grad(total), (None, 1))(weight, x)
    expected = torch.stack([torch.func.grad(total)(weight, x[:, k]) for k in range(4)])
    assert expected.count_nonzero() > 0
    assert torch.equal(made, expected)
