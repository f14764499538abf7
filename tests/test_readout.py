"""``leaky_readout``, ``LeakyReadout`` and ``count_spikes`` against their definitions, and the counts of an evaluation.

An evaluation's counts are the events, spikes and synaptic operations of an inference.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import LeakyReadout, leaky_readout
from srcell.data import EventLoader, LabelledImages, RateEncoding
from srcell.evaluation import evaluate
from srcell.functional import count_spikes
from srcell.models import SRCClassifier
from support.inputs import BATCH, STEPS, noise
from support.layers import make_spikes
from support.refusals import BAD_LENGTHS, assert_refused

X = torch.zeros(3, 2, 4)


# Bad input


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


@pytest.mark.parametrize(("error", "lengths"), BAD_LENGTHS)
def test_the_readout_refuses_bad_lengths(error: type[Exception], lengths: Any) -> None:
    assert_refused(error, "lengths", leaky_readout, torch.zeros(STEPS, BATCH, 4), 2, lengths=lengths)


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "num_classes", {"num_classes": 2.0}),
        (TypeError, "num_classes", {"num_classes": "2"}),
        (ValueError, "num_classes", {"spikes": torch.zeros(3, 2, 0), "num_classes": 2**63}),
        (TypeError, "alpha", {"alpha": "x"}),
        (TypeError, "inhibition", {"inhibition": None}),
        (ValueError, "inhibition", {"inhibition": math.nan}),
        (ValueError, "inhibition", {"inhibition": -math.inf}),
        (ValueError, "inhibition", {"inhibition": math.inf}),
    ],
)
def test_the_readout_names_what_is_wrong(error: type[Exception], argument: str, given: dict[str, Any]) -> None:
    assert_refused(error, argument, leaky_readout, **{"spikes": X, "num_classes": 2} | given)


def test_bad_arguments_are_named() -> None:
    assert_refused(ValueError, "num_classes", LeakyReadout, 0)
    assert_refused(ValueError, "neurons_per_class", LeakyReadout, 10, 0)
    with pytest.raises(TypeError, match="spikes: expected a floating-point tensor"):
        count_spikes(torch.ones(3, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"spikes: expected shape \(T, B, \.\.\.\), got \(3,\)"):
        count_spikes(torch.ones(3))


# The readout


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
    # On either way each term takes part in about 50 + 12 roundings.
    terms = readout_by_loop(spikes, 3, alpha, abs(inhibition), lengths or [50] * 4)
    made = leaky_readout(spikes, 3, alpha=alpha, inhibition=inhibition, lengths=lengths)
    assert made.shape == (4, 3)
    assert ((made - loop).abs() <= 2 * (50 + 12) * 2**-53 * terms.max()).all()
    assert loop.count_nonzero() > 0


def test_there_may_be_many_classes() -> None:
    spikes = torch.eye(1000)[:, None]
    assert torch.equal(leaky_readout(spikes, 1000, alpha=1.0, inhibition=0.0), torch.ones(1, 1000))


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


def test_spikes_past_the_end_of_a_sample_have_no_vote() -> None:
    spikes = noise(34, 8, 3, 6).abs()
    dirty = spikes.clone()
    dirty[5:, 1], dirty[:, 2] = torch.nan, torch.inf
    dirty.requires_grad_()
    logits = leaky_readout(dirty, 3, lengths=[8, 5, 0])
    assert torch.equal(logits, leaky_readout(spikes, 3, lengths=[8, 5, 0]))
    logits.sum().backward()
    assert dirty.grad[5:, 1].count_nonzero() == dirty.grad[:, 2].count_nonzero() == 0


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


def test_a_readout_brings_its_constants_along() -> None:
    saved, other = LeakyReadout(2, 2, alpha=0.5, inhibition=-0.2, temperature=3.0), LeakyReadout(2, 2)
    spikes = noise(2, 9, 3, 4).abs()
    with pytest.warns(
        UserWarning, match=r"alpha=0\.5 instead of 0\.99, inhibition=-0\.2 .*, temperature=3 instead of 10"
    ):
        other.load_state_dict(saved.state_dict())
    assert torch.equal(other(spikes), saved(spikes))
    assert torch.equal(other(spikes), leaky_readout(spikes, 2, alpha=0.5, inhibition=-0.2) / 3)


# Counts


SHAPES = [(7, 3, 5), (1, 1, 1), (40, 33, 130), (5, 17, 128), (0, 3, 4), (4, 0, 4), (4, 3, 0), (6, 2, 3, 2), (7, 3)]


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


def test_spikes_of_no_neurons_are_counted_on_every_device() -> None:
    for device in ("cpu", "meta"):
        counts = count_spikes(torch.zeros(3, 0, 0, device=device))
        assert counts.events.shape == counts.spikes.shape == (0,)


@pytest.mark.parametrize("binary", [False, True])
def test_an_evaluation_counts_what_an_inference_does(binary: bool) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(64, [32], num_classes=10)
    images = LabelledImages(torch.rand(30, 64), torch.arange(30) % 10)
    evaluation = evaluate(model, EventLoader(images, RateEncoding(), 8), binary=binary)
    (events, labels), *_ = EventLoader(images, RateEncoding(), 30)
    with torch.no_grad():
        outputs = model.layer_spikes(events, binary=binary)
        logits = model.readout(outputs[-1])
    assert evaluation.accuracy == int((logits.argmax(1) == labels).sum()) / 30
    assert evaluation.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
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


def test_sparse_spikes_are_refused_by_name() -> None:
    assert_refused(ValueError, "spikes", leaky_readout, torch.zeros(3, 2, 4).to_sparse(), 2)
    assert_refused(ValueError, "spikes", LeakyReadout(2, 2), torch.zeros(3, 2, 4).to_sparse())
