"""``leaky_readout``, ``LeakyReadout`` and ``count_spikes`` against their definitions, and the counts of an evaluation.

An evaluation's counts are the events, spikes and synaptic operations of an inference.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from srcell import SRC, LeakyReadout, LinearReadout, Sequential, leaky_readout
from srcell.data import EventLoader, LabelledImages, RateEncoding
from srcell.evaluation import evaluate
from srcell.functional import count_spikes
from srcell.functional.readout import discounted_sum
from srcell.models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from support.inputs import BATCH, STEPS, noise
from support.layers import make_spikes
from support.refusals import BAD_LENGTHS, Refusal, refusals

X = torch.zeros(3, 2, 4)


@refusals(
    Refusal("spikes", lambda: leaky_readout(X.long(), 2), TypeError),
    Refusal("spikes", lambda: leaky_readout([[[1.0]]], 2), TypeError),  # type: ignore[arg-type]
    Refusal("spikes", lambda: leaky_readout(X[0], 2)),
    Refusal("spikes", lambda: leaky_readout(X, 3)),
    Refusal("num_classes", lambda: leaky_readout(X, 0)),
    Refusal("num_classes", lambda: leaky_readout(X[..., :0], 2**63)),
    Refusal("num_classes", lambda: leaky_readout(X, 2.0), TypeError),  # type: ignore[arg-type]
    Refusal("alpha", lambda: leaky_readout(X, 2, alpha=1.1)),
    Refusal("alpha", lambda: leaky_readout(X, 2, alpha=math.nan)),
    Refusal("alpha", lambda: leaky_readout(X, 2, alpha="x"), TypeError),  # type: ignore[arg-type]
    Refusal("inhibition", lambda: leaky_readout(X, 2, inhibition=None), TypeError),  # type: ignore[arg-type]
    Refusal("inhibition", lambda: leaky_readout(X, 2, inhibition=math.nan)),
    Refusal("inhibition", lambda: leaky_readout(X, 2, inhibition=-math.inf)),
    Refusal("inhibition", lambda: leaky_readout(X, 2, inhibition=math.inf)),
    *(
        Refusal(
            "lengths", lambda lengths=lengths: leaky_readout(torch.zeros(STEPS, BATCH, 4), 2, lengths=lengths), error
        )
        for error, lengths in BAD_LENGTHS
    ),
    Refusal("num_classes", lambda: LeakyReadout(0)),
    Refusal("num_classes", lambda: LeakyReadout(2.0), TypeError),  # type: ignore[arg-type]
    Refusal("neurons_per_class", lambda: LeakyReadout(10, 0)),
    Refusal("inhibition", lambda: LeakyReadout(2, inhibition=math.nan)),
    Refusal("spikes", lambda: LeakyReadout(2, 2)(None), TypeError),
    Refusal("spikes", lambda: LeakyReadout(2, 2)(X.to_sparse())),
    Refusal("spikes", lambda: LeakyReadout(2, 2)(torch.nested.nested_tensor([torch.zeros(2, 4)]))),
    Refusal("spikes", lambda: count_spikes(X.long()), TypeError),
    Refusal("spikes", lambda: count_spikes(X[0, 0])),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


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
def test_the_readout_equals_its_recurrence(alpha: float, inhibition: float, lengths: list[int] | None) -> None:
    spikes = noise(28, 50, 4, 12).clamp(min=0)
    loop = readout_by_loop(spikes, 3, alpha, inhibition, lengths or [50] * 4)
    # In the readout and in the loop, each term goes through about 50 + 12 roundings.
    terms = readout_by_loop(spikes, 3, alpha, abs(inhibition), lengths or [50] * 4)
    made = leaky_readout(spikes, 3, alpha=alpha, inhibition=inhibition, lengths=lengths)
    assert made.shape == (4, 3)
    assert ((made - loop).abs() <= 2 * (50 + 12) * 2**-53 * terms.max()).all()
    assert loop.count_nonzero() > 0


def test_a_thousand_classes_and_any_finite_inhibition_work() -> None:
    spikes = torch.eye(1000)[:, None]
    assert torch.equal(leaky_readout(spikes, 1000, alpha=1.0, inhibition=0.0), torch.ones(1, 1000))
    assert LeakyReadout(2, 2, inhibition=2**64)(X).shape == (2, 2)


def test_the_defaults_are_the_published_constants() -> None:
    spikes = noise(29, 50, 4, 30).clamp(min=0)
    expected = leaky_readout(spikes, 10, alpha=0.99, inhibition=-0.1)
    assert torch.equal(leaky_readout(spikes, 10), expected)
    module = LeakyReadout(10, neurons_per_class=3)
    assert torch.equal(module(spikes), expected / module.temperature)
    assert not list(module.parameters())
    lengths = [50, 0, 3, 9]
    module = LeakyReadout(10, 3, temperature=1)
    assert torch.equal(module(spikes, lengths), leaky_readout(spikes, 10, lengths=lengths))


def test_the_gradient_is_the_derivative_and_zero_past_the_end() -> None:
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


def test_a_checkpoint_restores_the_readouts_constants() -> None:
    saved, other = LeakyReadout(2, 2, alpha=0.5, inhibition=-0.2, temperature=3.0), LeakyReadout(2, 2)
    spikes = noise(2, 9, 3, 4).abs()
    told = r"alpha=0\.5 instead of 0\.99, inhibition=-0\.2 .*, temperature=3 instead of 10"
    with pytest.warns(UserWarning, match=told):
        other.load_state_dict(saved.state_dict())
    assert torch.equal(other(spikes), saved(spikes))
    assert torch.equal(other(spikes), leaky_readout(spikes, 2, alpha=0.5, inhibition=-0.2) / 3)


SHAPES = [(7, 3, 5), (1, 1, 1), (40, 33, 130), (5, 17, 128), (0, 3, 4), (4, 0, 4), (4, 3, 0), (6, 2, 3, 2), (7, 3)]


def expected_counts(spikes: Tensor) -> tuple[Tensor, Tensor]:
    high = torch.cat([torch.zeros_like(spikes[:1], dtype=torch.bool), spikes > 0.5])
    return (spikes > 0).sum((0, 1)), (high[1:] & ~high[:-1]).sum((0, 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_counts_equal_their_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    spikes = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.4).clamp(min=0).mul(1.8).to(dtype)
    for x in (spikes, spikes.flip(0).transpose(0, 1).contiguous().transpose(0, 1)):
        events, crossings = count_spikes(x)
        expected_events, expected_crossings = expected_counts(x)
        assert events.dtype == crossings.dtype == torch.int64 and events.shape == x.shape[2:]
        assert torch.equal(events, expected_events) and torch.equal(crossings, expected_crossings)


READOUTS = [
    lambda **more: LinearReadout(20, 2, **more),
    lambda **more: LinearReadout(20, 2, window=3, **more),
    lambda **more: LeakyReadout(2, 10, **more),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("make", READOUTS)
def test_readouts_take_what_layers_give_in_half_precision(
    make: Callable[..., nn.Module], every_step: bool, dtype: torch.dtype
) -> None:
    """Regression: a linear readout raised torch's error for the two dtypes, a leaky one gave float32."""
    torch.manual_seed(0)
    net = Sequential(SRC(6, 20), make(every_step=every_step)).to(dtype)
    x = (torch.rand(30, 3, 6) * 4).to(dtype)
    lengths = torch.tensor([30, 7, 0])
    for given in (None, lengths):
        logits = net(x, lengths=given)
        spikes = net[0](x, lengths=given)[0]
        exact = copy.deepcopy(net[1]).float()(spikes.float(), lengths=given)
        assert logits.dtype == spikes.dtype == dtype and spikes.any()
        assert torch.equal(logits, exact.to(dtype))
        logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in net[1].parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert make(every_step=True)(spikes.bfloat16()).dtype == torch.float32
    assert make(every_step=every_step)(spikes).dtype == (dtype if isinstance(net[1], LeakyReadout) else torch.float32)
    streamed = net[1](spikes, every_step=True, return_state=True)
    assert streamed[0].dtype == dtype and streamed[1].dtype == torch.float32


def test_half_and_nan_are_not_above_the_threshold() -> None:
    counts = count_spikes(torch.tensor([0.5, float("nan"), 0.6, float("nan"), 0.6]).view(5, 1, 1))
    assert (counts.events.item(), counts.spikes.item()) == (3, 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_spikes_of_zero_neurons_are_counted(device: str) -> None:
    counts = count_spikes(torch.zeros(3, 0, 0, device=device))
    assert counts.events.shape == counts.spikes.shape == (0,)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("make_model", "fan_outs"),
    [
        (lambda: SRCClassifier(64, [32], num_classes=10), [((64,), 32), ((32,), 100), ((100,), 10)]),
        (lambda: SRCConvClassifier((1, 8, 8), [4], [], num_classes=10), [((64,), 36), ((4, 4, 4), 100), ((100,), 10)]),
        (lambda: IntegerClassifier(64, [32], num_classes=10), [((64,), 32), ((32,), 100), ((100,), 10)]),
    ],
    ids=["linear", "convolution", "integer"],
)
def test_an_evaluation_counts_the_operations_of_an_inference(
    make_model: Callable[[], Classifier], fan_outs: list[tuple[tuple[int, ...], int]], binary: bool
) -> None:
    torch.manual_seed(0)
    model, images = make_model(), LabelledImages(torch.rand(30, 8, 8), torch.arange(30) % 10)
    evaluation = evaluate(model, EventLoader(images, RateEncoding(), 8), binary=binary)
    (events, labels), *_ = EventLoader(images, RateEncoding(), 30)
    with torch.no_grad():
        outputs = model.layer_spikes(events, binary=binary)
        logits = model.readout(outputs[-1])
    assert evaluation.accuracy == int((logits.argmax(1) == labels).sum()) / 30
    assert evaluation.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert evaluation.synaptic_operations == sum(layer.additions + layer.multiply_adds for layer in evaluation.counts)
    assert [(tuple(ways.shape), int(ways.max())) for ways in model.fan_outs()] == fan_outs
    spikes = [events.to_dense(), *outputs]
    assert all(output.any() for output in spikes)
    for k, (counts, output, ways) in enumerate(zip(evaluation.counts, spikes, model.fan_outs(), strict=True)):
        active, crossings = expected_counts(output)
        # The means over 30 samples are sums of integers, divided once.
        assert counts.events == pytest.approx(active.sum().item() / 30, rel=1e-12)
        assert counts.spikes == pytest.approx((crossings if k else active).sum().item() / 30, rel=1e-12)
        operations = (active * ways).sum().item() / 30
        additions = operations if binary or k == 0 or isinstance(model, IntegerClassifier) else 0.0
        assert counts.additions == pytest.approx(additions, rel=1e-12)
        assert counts.multiply_adds == pytest.approx(operations - additions, rel=1e-12)
    for rates, output in zip(evaluation.rates, outputs, strict=True):
        assert rates.shape == output.shape[2:]
        assert torch.allclose(rates, (output > 0).double().mean((0, 1)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("label", [-1, 10])
def test_an_evaluation_names_a_label_that_is_not_a_class(label: int) -> None:
    images = LabelledImages(torch.rand(3, 8, 8), torch.tensor([0, label, 1]))
    with pytest.raises(ValueError, match=rf"^loader: expected labels in \[0, 10\), .*, got {label}$"):
        evaluate(SRCClassifier(64, [], num_classes=10), EventLoader(images, RateEncoding()))


@pytest.mark.parametrize("window", [0, 1, 5, 12, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_for_training_has_the_bits_of_torchs_own(window: int, dtype: torch.dtype) -> None:
    """Where spikes need a gradient, an operator computes the sum; compiled and in forward mode torch's product does."""
    spikes = torch.rand(12, 3, 4, dtype=dtype).requires_grad_()
    read = min(window or 12, 12)
    factors = torch.pow(torch.tensor(0.9, dtype=dtype), torch.arange(read - 1, -1, -1))
    expected = (factors @ spikes[12 - read :].reshape(read, 12)).view(3, 4)
    found = discounted_sum(spikes, 0.9, None, window)
    assert torch.equal(found, expected) and torch.equal(found, discounted_sum(spikes.detach(), 0.9, None, window))
    given = torch.randn(3, 4, dtype=dtype)
    grads = [torch.autograd.grad(x, spikes, given)[0] for x in (found, expected)]
    assert torch.equal(*grads)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda x: discounted_sum(x, 0.9, None, window), spikes)
        assert torch.autograd.gradgradcheck(lambda x: discounted_sum(x, 0.9, None, window).square(), spikes)


def test_a_large_gradient_of_a_sum_is_that_of_a_small_one() -> None:
    """Above four megabytes it lies in memory that is used again."""
    spikes = torch.zeros(20, 100, 700, requires_grad=True)
    for _ in range(2):
        weights = torch.randn(100, 700)
        (grad,) = torch.autograd.grad(discounted_sum(spikes, 0.5, None, 3), spikes, weights)
        assert not grad[:17].any() and torch.equal(grad[17:], torch.tensor([0.25, 0.5, 1])[:, None, None] * weights)
        del grad
