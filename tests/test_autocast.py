"""Layers under autocast: "auto" chooses as without it, torch's products are in the dtype of autocast, forwards and
backwards, and the kernels' sums in float32; however the layer is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from srcell import SRC, SRCConv2d, data, src, src_linear
from srcell.training import resume, train
from support.inputs import noise
from support.layers import make_spikes
from support.runs import TINY, assert_equal_weights, assert_resumes_at

STEPS, BATCH, INPUTS, NEURONS = 40, 3, 96, 16
SPARSE = make_spikes(3, STEPS, BATCH, INPUTS) * (noise(4, STEPS, BATCH, INPUTS) > 0.5).float()
DENSE = 1 + noise(5, STEPS, BATCH, INPUTS, dtype=torch.float32).abs()
GRAD = noise(6, STEPS, BATCH, NEURONS, dtype=torch.float32)
AUTOCAST = torch.autocast("cpu", torch.bfloat16)


def layer() -> SRC:
    torch.manual_seed(2)
    made = SRC(INPUTS, NEURONS, surrogate="straight_through")
    with torch.no_grad():
        made.weight_ih_l0.mul_(2)
    return made


def in_bfloat16(x: Tensor) -> bool:
    return torch.equal(x, x.bfloat16().float()) and bool(x.any())


def passes(call: Callable[[Tensor], Any], network: nn.Module, x: Tensor) -> list[Tensor]:
    """The spikes, and the gradients of the input and of the parameters."""
    network.zero_grad()
    given = x.clone().requires_grad_()
    spikes = call(given)[0]
    spikes.backward(GRAD)
    return [spikes.detach(), given.grad, *(parameter.grad for parameter in network.parameters())]


def test_sparse_inputs_are_summed_by_events_as_without_autocast() -> None:
    network = layer()
    spikes, grad_input, *others = passes(network, network, SPARSE)
    assert spikes.any() and not in_bfloat16(grad_input)
    with AUTOCAST:
        spikes_of_it, grad_of_it, *others_of_it = passes(network, network, SPARSE)
    assert torch.equal(spikes, spikes_of_it)
    for ours, theirs in zip(others_of_it, others, strict=True):
        assert torch.equal(ours, theirs)
    # Of the backward pass the product alone is in bfloat16: of the gradient of the currents and the weight.
    assert in_bfloat16(grad_of_it)
    assert (grad_of_it - grad_input).abs().max() < 2**-6 * grad_input.abs().max()


def test_the_product_and_its_gradients_are_in_the_dtype_of_autocast() -> None:
    network = layer()
    weight, bias = (x.detach() for x in (network.weight_ih_l0, network.bias_l0))
    with AUTOCAST:
        spikes, grad_input, grad_weight, _ = passes(network, network, DENSE)
    current = F.linear(DENSE.bfloat16(), weight.bfloat16()).float().requires_grad_()
    expected, _ = src(current, bias, surrogate="straight_through")
    expected.backward(GRAD)
    assert torch.equal(spikes, expected.detach())
    grad = current.grad.bfloat16()  # type: ignore[union-attr]
    assert torch.equal(grad_input, (grad @ weight.bfloat16()).float())
    assert in_bfloat16(grad_weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
@pytest.mark.parametrize("x", [SPARSE, DENSE], ids=["sparse", "dense"])
def test_every_kind_of_call_has_the_same_bits(x: Tensor, method: str, dtype: torch.dtype) -> None:
    weight = layer().weight_ih_l0
    network = nn.ParameterList([weight])

    def call(input: Tensor) -> Any:
        return src_linear(input, weight, -6.0, method=method)

    torch._dynamo.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype):
        expected = passes(call, network, x)
        for other in (compiled, lambda input: checkpoint(call, input, use_reentrant=False)):
            for ours, theirs in zip(passes(other, network, x), expected, strict=True):
                assert torch.equal(ours, theirs)


def test_autocast_of_the_forward_pass_counts() -> None:
    network, x = layer(), SPARSE.clone().requires_grad_()
    with AUTOCAST:
        spikes, _ = network(x)
        expected = passes(network, network, SPARSE)[1]
    spikes.backward(GRAD)
    assert torch.equal(x.grad, expected)
    plain = SPARSE.clone().requires_grad_()
    spikes, _ = network(plain)
    with AUTOCAST:
        spikes.backward(GRAD)
    assert not in_bfloat16(plain.grad)


def test_float64_is_not_lowered() -> None:
    network = layer().double()
    with AUTOCAST:
        made = passes(network, network, SPARSE.double())
    for ours, theirs in zip(made, passes(network, network, SPARSE.double()), strict=True):
        assert torch.equal(ours, theirs)


def test_maps_are_summed_by_events_too() -> None:
    torch.manual_seed(0)
    network = SRCConv2d(2, 4, 3, padding=1, surrogate="straight_through")
    nn.init.normal_(next(network.parameters()), std=2.0)
    x = (noise(9, 20, 2, 2, 6, 6).abs() < 0.03).float().requires_grad_()
    wanted, _ = network(x)
    with AUTOCAST:
        spikes, _ = network(x)
    assert spikes.any() and torch.equal(spikes, wanted)


def test_a_run_with_amp_records_it_and_resumes_with_the_same_bits(tmp_path: Any) -> None:
    config = replace(TINY, hidden_sizes=(32, 16), surrogate="straight_through", amp=True)
    trained = assert_resumes_at((0, 20), config, data.load("digits"))
    run = train(config, tmp_path / "amp")
    assert_equal_weights(run.model, trained.model)
    assert resume(tmp_path / "amp").history == run.history
    plain = train(replace(config, amp=False), tmp_path / "plain")
    assert any(not torch.equal(x, y) for x, y in zip(plain.model.parameters(), run.model.parameters(), strict=True))
