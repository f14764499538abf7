"""Counts of events and spikes: the kernel against torch, and what an inference costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srcell.data import EventLoader, LabelledImages, RateEncoding
from srcell.evaluation import evaluate
from srcell.functional import count_spikes
from srcell.models import SRCClassifier

SHAPES = [(7, 3, 5), (1, 1, 1), (40, 33, 130), (5, 17, 128), (0, 3, 4), (4, 0, 4), (4, 3, 0), (6, 2, 3, 2)]


def expected_counts(spikes: Tensor) -> tuple[Tensor, Tensor]:
    high = torch.cat([torch.zeros_like(spikes[:1], dtype=torch.bool), spikes > 0.5])
    return (spikes > 0).sum((0, 1)), (high[1:] & ~high[:-1]).sum((0, 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_counts_are_those_of_the_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    spikes = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.4).clamp(min=0).mul(1.8).to(dtype)
    for x in (spikes, spikes.flip(0).transpose(0, 1).contiguous().transpose(0, 1)):
        events, crossings = count_spikes(x)
        expected_events, expected_crossings = expected_counts(x)
        assert events.dtype == crossings.dtype == torch.int64 and events.shape == x.shape[2:]
        assert torch.equal(events, expected_events) and torch.equal(crossings, expected_crossings)


def test_what_is_half_or_nan_is_not_above_it() -> None:
    counts = count_spikes(torch.tensor([0.5, float("nan"), 0.6, float("nan"), 0.6]).view(5, 1, 1))
    assert (counts.events.item(), counts.spikes.item()) == (3, 2)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="spikes: expected a floating-point tensor"):
        count_spikes(torch.ones(3, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"spikes: expected shape \(T, B, \.\.\.\), got \(3,\)"):
        count_spikes(torch.ones(3))


@pytest.mark.parametrize("binary", [False, True])
def test_an_evaluation_counts_what_an_inference_does(binary: bool) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(64, [32], num_classes=10)
    images = LabelledImages(torch.rand(30, 64), torch.arange(30) % 10)
    evaluation = evaluate(model, EventLoader(images, RateEncoding(), 8), binary=binary)
    (events, labels), *_ = EventLoader(images, RateEncoding(), 30)
    with torch.no_grad():
        outputs = model.layer_spikes(events, binary=binary)
        answers = model.readout(outputs[-1]).argmax(1)
    assert evaluation.accuracy == int((answers == labels).sum()) / 30
    assert evaluation.synaptic_operations == sum(layer.additions + layer.multiply_adds for layer in evaluation.counts)
    fan_outs = (32, 100, 10)
    for k, (counts, output) in enumerate(zip(evaluation.counts, [events.to_dense(), *outputs], strict=True)):
        active, crossings = (counted.sum().item() / 30 for counted in expected_counts(output))
        operations = active * fan_outs[k]
        # The means over 30 samples are sums of integers, divided once.
        assert counts.events == pytest.approx(active, rel=1e-12)
        assert counts.spikes == pytest.approx(crossings if k else active, rel=1e-12)
        additions = operations if binary or k == 0 else 0.0
        assert counts.additions == pytest.approx(additions, rel=1e-12)
        assert counts.multiply_adds == pytest.approx(operations - additions, rel=1e-12)
    for rates, output in zip(evaluation.rates, outputs, strict=True):
        assert torch.allclose(rates, (output > 0).double().mean((0, 1)), rtol=1e-12, atol=0)
