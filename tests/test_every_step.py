"""Readouts at every step: each step against the readout at the end, streams, gradients, and networks."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcell import SRC, EventBatch, LeakyReadout, LinearReadout, SpikesOnly, leaky_readout
from srcell.evaluation import evaluate
from srcell.functional.readout import CHUNK
from srcell.models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from support import inputs
from support.inputs import noise
from support.networks import exported
from support.refusals import BAD_LENGTHS, Message, Refusal, refusals

NEURONS, CLASSES, BATCH = 6, 3, 4
STEPS = 2 * CHUNK + 7  # two whole chunks and a part of one
LENGTHS = [STEPS, 0, 1, CHUNK + 1]
ALPHAS = [0.0, 0.5, 0.99, 1.0]
WINDOWS = [0, 1, 2, 7, CHUNK, STEPS, 2**40]
X = torch.zeros(3, 2, NEURONS)

Readout = LinearReadout | LeakyReadout


def linear(alpha: float = 0.9, window: int = 0) -> LinearReadout:
    torch.manual_seed(0)
    return LinearReadout(NEURONS, CLASSES, alpha=alpha, window=window).double()


def voting(alpha: float = 0.9) -> LeakyReadout:
    return LeakyReadout(CLASSES, NEURONS // CLASSES, alpha=alpha, temperature=2.0)


READOUTS = [
    *(pytest.param(linear(alpha, window), id=f"linear-{alpha}-{window}") for alpha in ALPHAS for window in WINDOWS),
    *(pytest.param(voting(alpha), id=f"votes-{alpha}") for alpha in ALPHAS),
]
# One for each way in which a state is kept and gradients flow.
EXAMPLES = [
    pytest.param(linear(), id="linear"),
    pytest.param(linear(window=5), id="window"),
    pytest.param(linear(window=1), id="window of 1"),
    pytest.param(voting(), id="votes"),
]


def tolerance(readout: Readout, spikes: Tensor) -> float:
    """Bound on the difference of two ways to compute the logits.

    In each of them a summand goes through at most T + N + 10 roundings: N of the sum over neurons, one for each step
    of leak and of the sum over steps, and a few of the powers of alpha, the bias and the temperature. No summand
    exceeds its weight times its spike, because alpha is at most 1.
    """
    counted = spikes.detach().abs().sum(0)
    if isinstance(readout, LinearReadout):
        terms = counted @ readout.linear.weight.detach().abs().T + readout.linear.bias.detach().abs()
    else:
        terms = counted.sum(1) * max(1, abs(readout.inhibition)) * 2 / readout.temperature
    return float(2 * (len(spikes) + spikes.shape[2] + 10) * torch.finfo(spikes.dtype).eps * terms.max())


@pytest.mark.parametrize("readout", READOUTS)
def test_each_step_equals_the_readout_of_the_steps_up_to_it(readout: Readout) -> None:
    spikes = noise(1, STEPS, BATCH, NEURONS)
    logits = readout(spikes, every_step=True)
    expected = torch.stack([readout(spikes[: t + 1]) for t in range(STEPS)])
    assert logits.shape == (STEPS, BATCH, CLASSES) and logits.dtype == torch.float64
    assert (logits - expected).abs().max() <= tolerance(readout, spikes)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_long_sequence_equals_the_recurrence(alpha: float) -> None:
    steps = CHUNK**2 + CHUNK + 1  # chunks of chunks
    spikes, readout = noise(2, steps, 1, NEURONS), linear(alpha)
    sums, expected = torch.zeros(1, NEURONS, dtype=torch.float64), []
    for s in spikes:
        sums = alpha * sums + s
        expected.append(readout.linear(sums))
    logits = readout(spikes, every_step=True)
    assert (logits - torch.stack(expected)).abs().max() <= tolerance(readout, spikes)


@pytest.mark.parametrize("readout", READOUTS)
def test_past_its_length_a_sample_has_logits_of_zero(readout: Readout) -> None:
    spikes = noise(3, STEPS, BATCH, NEURONS)
    logits = readout(spikes, torch.tensor(LENGTHS), every_step=True)
    at_the_end, alone = readout(spikes, LENGTHS), readout(spikes, every_step=True)
    for b, length in enumerate(LENGTHS):
        assert logits[length:, b].count_nonzero() == 0
        assert torch.equal(logits[:length, b], alone[:length, b])
        if length:
            assert (logits[length - 1, b] - at_the_end[b]).abs().max() <= tolerance(readout, spikes)


@pytest.mark.parametrize("readout", EXAMPLES)
def test_spikes_past_the_end_of_a_sample_have_no_influence(readout: Readout) -> None:
    spikes = noise(4, STEPS, BATCH, NEURONS)
    dirty = spikes.clone()
    for b, length in enumerate(LENGTHS):
        dirty[length:, b] = torch.nan
    dirty.requires_grad_()
    logits, state = readout(dirty, LENGTHS, every_step=True, return_state=True)
    expected, of_clean = readout(spikes, LENGTHS, every_step=True, return_state=True)
    assert torch.equal(logits, expected) and torch.equal(state, of_clean)
    grads = torch.autograd.grad(logits.square().sum() + state.sum(), [dirty, *readout.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
    for b, length in enumerate(LENGTHS):
        assert grads[0][length:, b].count_nonzero() == 0


def test_without_leak_the_votes_are_counts_and_with_alpha_0_the_step_counts_alone() -> None:
    spikes = (noise(5, STEPS, BATCH, NEURONS) > 0.5).double()
    options: dict[str, Any] = {"inhibition": 0.0, "every_step": True}
    assert torch.equal(leaky_readout(spikes, NEURONS, alpha=1.0, **options), spikes.cumsum(0))
    assert torch.equal(leaky_readout(spikes, NEURONS, alpha=0.0, **options), spikes)


def in_chunks(readout: Readout, spikes: Tensor, sizes: list[int], lengths: Tensor | None) -> tuple[Tensor, Any]:
    """The logits and the last state of spikes that come in chunks."""
    parts, state, start = [], None, 0
    for part in spikes.split(sizes):
        of_part = None if lengths is None else (lengths - start).clamp(0, len(part))
        logits, state = readout(part, of_part, every_step=True, state=state, return_state=True)
        parts.append(logits)
        start += len(part)
    return torch.cat(parts), state


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("sizes", [[1] * STEPS, [0, 3, 0, CHUNK, 1, STEPS - CHUNK - 4], [STEPS]], ids=len)
@pytest.mark.parametrize("readout", EXAMPLES)
def test_chunks_of_a_stream_give_the_logits_of_the_whole(
    readout: Readout, sizes: list[int], lengths: list[int] | None
) -> None:
    spikes = noise(6, STEPS, BATCH, NEURONS)
    ends = None if lengths is None else torch.tensor(lengths)
    whole, last = readout(spikes, ends, every_step=True, return_state=True)
    logits, state = in_chunks(readout, spikes, sizes, ends)
    assert (logits - whole).abs().max() <= tolerance(readout, spikes)
    assert state.shape == last.shape
    assert not state.numel() or (state - last).abs().max() <= tolerance(readout, spikes)


def test_a_state_shares_no_memory_with_the_logits() -> None:
    for readout in (linear(), linear(window=5), voting()):
        logits, state = readout(noise(7, STEPS, BATCH, NEURONS), every_step=True, return_state=True)
        kept = state.clone()
        logits.zero_()
        assert torch.equal(state, kept)


@pytest.mark.parametrize("lengths", [None, [CHUNK + 2, 3]])
@pytest.mark.parametrize("readout", EXAMPLES)
def test_the_gradient_is_the_derivative(readout: Readout, lengths: list[int] | None) -> None:
    spikes = noise(8, CHUNK + 2, 2, NEURONS).requires_grad_()
    _, state = readout(spikes.detach(), every_step=True, return_state=True)
    state = state.detach().requires_grad_()

    def call(spikes: Tensor, state: Tensor, *parameters: Tensor) -> Any:
        named = dict(zip(dict(readout.named_parameters()), parameters, strict=True))
        options = {"lengths": lengths, "every_step": True, "state": state, "return_state": True}
        return torch.func.functional_call(readout, named, (spikes,), options)

    parameters = (x.detach().requires_grad_() for x in readout.parameters())
    assert torch.autograd.gradcheck(call, (spikes, state, *parameters))


@pytest.mark.parametrize("shape", [(0, 2, NEURONS), (3, 0, NEURONS), (0, 0, NEURONS), (CHUNK + 1, 0, NEURONS)])
@pytest.mark.parametrize("readout", EXAMPLES)
def test_empty_sizes_work(readout: Readout, shape: tuple[int, ...]) -> None:
    spikes = torch.zeros(shape, dtype=torch.float64)
    logits, state = readout(spikes, every_step=True, return_state=True)
    assert logits.shape == (*shape[:2], CLASSES)
    again, same = readout(spikes[:0], every_step=True, state=state, return_state=True)
    assert again.shape == (0, shape[1], CLASSES) and torch.equal(same, state)


@pytest.mark.parametrize("make", [LinearReadout, LeakyReadout])
def test_a_readout_can_take_samples_first_and_give_every_step(make: Any) -> None:
    torch.manual_seed(0)
    spikes, lengths = noise(1, STEPS, BATCH, 6).float(), torch.tensor(LENGTHS)
    sizes = (3, 2) if make is LeakyReadout else (6, 2)
    plain, other = make(*sizes), make(*sizes, batch_first=True, every_step=True)
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other(spikes.transpose(0, 1), every_step=False), plain(spikes))
    expected, state = plain(spikes, lengths, every_step=True, return_state=True)
    logits, same = other(spikes.transpose(0, 1), lengths, return_state=True)
    assert torch.equal(logits, expected.transpose(0, 1)) and torch.equal(state, same)
    assert torch.equal(
        pickle.loads(pickle.dumps(other))(spikes.transpose(0, 1)), plain(spikes, every_step=True).transpose(0, 1)
    )
    assert ", batch_first=True, every_step=True" in repr(other) and "first" not in repr(plain)


def test_samples_first_through_a_whole_network() -> None:
    network = nn.Sequential(
        SpikesOnly(SRC(4, 6, batch_first=True)), LinearReadout(6, 2, batch_first=True, every_step=True)
    )
    x = (noise(2, STEPS, BATCH, 4) > 0).float()
    expected, found = network(x.transpose(0, 1)).detach(), torch.from_numpy(exported(network).run(x))
    assert expected.shape == (BATCH, STEPS, 2) and expected.any()
    torch.testing.assert_close(found.transpose(0, 1), expected)


def test_the_votes_of_no_neurons_are_zero() -> None:
    assert torch.equal(leaky_readout(torch.zeros(3, 2, 0), 4, every_step=True), torch.zeros(3, 2, 4))


@refusals(
    Refusal("every_step", lambda: leaky_readout(X, 2, every_step=1), TypeError),  # type: ignore[arg-type]
    Refusal("spikes", lambda: LinearReadout(NEURONS, 2)(X.long(), every_step=True), TypeError),
    Refusal("spikes", lambda: LeakyReadout(2, 3)(X.long(), every_step=True), TypeError),
    Refusal("spikes", lambda: LinearReadout(NEURONS, 2)(X[0], every_step=True)),
    *(
        Refusal(name, lambda options={name: 1}, readout=readout: readout(X, **options), TypeError)
        for name in ("every_step", "return_state")
        for readout in (LinearReadout(NEURONS, 2), LeakyReadout(2, 3))
    ),
    Refusal("state", lambda: LinearReadout(NEURONS, 2)(X, state=torch.zeros(2, 2))),
    Refusal("return_state", lambda: LinearReadout(NEURONS, 2)(X, return_state=True)),
    Refusal("state", lambda: LeakyReadout(2, 3)(X, state=torch.zeros(2, 2))),
    Refusal("return_state", lambda: LeakyReadout(2, 3)(X, return_state=True)),
    *(
        Refusal("state", lambda state=state, window=window: given(state, window), error)
        for error, state, window in [
            (TypeError, 0.0, 0),
            (TypeError, torch.zeros(2, 2, dtype=torch.float64), 0),
            (ValueError, torch.zeros(2, 3), 0),
            (ValueError, torch.zeros(2, 2), 4),
            (ValueError, torch.zeros(4, 2, 2), 4),
            (ValueError, torch.zeros(2, 2, device="meta"), 0),
        ]
    ),
    *(
        Refusal("lengths", lambda lengths=lengths, make=make: bad_lengths(make, lengths), error)
        for error, lengths in BAD_LENGTHS
        for make in (linear, voting)
    ),
    *(
        Refusal(name, lambda make=make, options={name: 1}: make(NEURONS, 2, **options), TypeError)
        for name in ("every_step", "batch_first")
        for make in (LinearReadout, LeakyReadout)
    ),
    Message(
        r"spikes: expected shape \(B, T, 6\), got \(3, 2, 5\)",
        lambda: LinearReadout(6, 2, batch_first=True)(torch.zeros(3, 2, 5)),
    ),
    Refusal("every_step", lambda: SRCClassifier(4, [3], 2)(torch.zeros(5, 2, 4), every_step="yes"), TypeError),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def given(state: Any, window: int) -> None:
    LinearReadout(NEURONS, 2, window=window)(X, every_step=True, state=state)


def bad_lengths(make: Callable[[], Readout], lengths: Any) -> None:
    make()(torch.zeros(inputs.STEPS, inputs.BATCH, NEURONS, dtype=torch.float64), lengths, every_step=True)


@pytest.mark.parametrize(
    "readout", [linear().float(), linear(window=5).float(), voting()], ids=["linear", "window", "votes"]
)
def test_under_autocast_sums_over_steps_stay_in_float32(readout: Readout) -> None:
    spikes = (noise(9, STEPS, BATCH, NEURONS) > 0.5).float()
    expected = readout(spikes, every_step=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = readout(spikes.bfloat16(), every_step=True, return_state=True)
    assert logits.dtype == state.dtype == torch.float32
    # bfloat16 rounds the weights and the projections to 8 bits; the sums over steps add only float32's roundings.
    counted = float(spikes.sum(0).max())
    assert (logits - expected).abs().max() <= 2 * 2**-8 * counted * NEURONS
    if isinstance(readout, LeakyReadout):
        assert torch.equal(logits, expected)


@pytest.mark.parametrize(
    "readout", [linear().float(), linear(window=5).float(), voting()], ids=["linear", "window", "votes"]
)
def test_a_compiled_readout_gives_the_same_logits(readout: Readout) -> None:
    spikes = noise(10, STEPS, BATCH, NEURONS).float()
    compiled = torch.compile(readout, fullgraph=True, backend="eager")
    for lengths in (None, torch.tensor(LENGTHS)):
        assert torch.equal(compiled(spikes, lengths, every_step=True), readout(spikes, lengths, every_step=True))


@pytest.mark.parametrize("readout", EXAMPLES)
def test_transforms_of_torch_agree_with_plain_calls(readout: Readout) -> None:
    spikes = noise(13, 2, CHUNK + 2, BATCH, NEURONS)

    def call(x: Tensor) -> Tensor:
        logits: Tensor = readout(x, every_step=True)
        return logits

    logits = torch.func.vmap(call)(spikes)
    for mapped, x in zip(logits, spikes, strict=True):
        assert (mapped - call(x)).abs().max() <= tolerance(readout, x)
    # The logits are affine in the spikes, so the derivative along d is the difference of two logits.
    value, along = torch.func.jvp(call, (spikes[0],), (spikes[1],))
    assert (value + along - call(spikes[0] + spikes[1])).abs().max() <= 3 * tolerance(readout, spikes.abs().sum(0))
    meta = LinearReadout(NEURONS, 2).to("meta")(X.to("meta"), every_step=True)
    assert meta.is_meta and meta.shape == (3, 2, 2)


# Networks


def networks() -> dict[str, Callable[[], Classifier]]:
    return {
        "votes": lambda: SRCClassifier(8, [12], 3, initial_state="rest"),
        "linear": lambda: SRCClassifier(8, [12], 3, initial_state="rest", readout="linear", readout_window=20),
        "convolution": lambda: SRCConvClassifier((2, 2, 2), [4], [], 3, initial_state="rest"),
        "integer": lambda: IntegerClassifier(8, [12], 3),
    }


@pytest.mark.parametrize("kind", networks())
def test_a_network_gives_logits_at_every_step(kind: str) -> None:
    torch.manual_seed(1)
    model = networks()[kind]()
    # Few enough for a convolution to take events, whose sums are not torch's.
    dense = (noise(11, 90, 3, 8) > (0.85 if kind == "convolution" else 0.5)).float()
    lengths = torch.tensor([90, 0, 60])
    for input in (dense, EventBatch.from_dense(dense)):
        spikes = model.layer_spikes(input)[-1]
        logits = model(input, every_step=True)
        assert spikes.any() and torch.equal(logits, model.readout(spikes, every_step=True))
        assert (logits[-1] - model(input)).abs().max() <= tolerance(model.readout, spikes)
        of_lengths = model(input, lengths, every_step=True)
        assert torch.equal(of_lengths[60:, 2], torch.zeros(30, 3))
        assert (of_lengths[59, 2] - model(input, lengths)[2]).abs().max() <= tolerance(model.readout, spikes)
    with_lengths = EventBatch.from_dense(dense, lengths=lengths)
    assert torch.equal(model(with_lengths, every_step=True), model(dense, lengths, every_step=True))


@torch.no_grad()
def test_an_evaluation_measures_the_answers_of_the_steps_that_samples_have() -> None:
    torch.manual_seed(2)
    model, lengths = SRCClassifier(5, [20], CLASSES), torch.tensor([30, 0, 12, 1])
    events = EventBatch.from_dense((torch.rand(30, BATCH, 5) < 0.3).float(), lengths)
    labels = torch.randint(0, CLASSES, (BATCH, 30))
    labels[torch.arange(30) >= lengths[:, None]] = -1  # never read
    found = evaluate(model, [(events, labels)])  # type: ignore[arg-type]
    logits, right, loss = model(events, every_step=True), 0, 0.0
    for b, length in enumerate(lengths.tolist()):
        right += int((logits[:length, b].argmax(1) == labels[b, :length]).sum())
        loss += float(F.cross_entropy(logits[:length, b], labels[b, :length], reduction="sum"))
    assert found.accuracy == right / 43 and found.confusion.sum() == 43
    assert found.loss == pytest.approx(loss / 43, rel=1e-6)
    at_the_end = evaluate(model, [(events, torch.zeros(BATCH).long())])  # type: ignore[arg-type]
    assert found.counts == at_the_end.counts
    with pytest.raises(ValueError, match=r"loader: expected labels \(B,\) or \(B, T\) = \(4, 30\), got \(4, 29\)"):
        evaluate(model, [(events, labels[:, 1:])])  # type: ignore[arg-type]


def test_a_network_learns_from_a_loss_at_every_step() -> None:
    torch.manual_seed(2)
    model = SRCClassifier(8, [12], 3, initial_state="rest", readout="linear")
    events, labels = (noise(12, 40, 6, 8) > 0.3).float(), torch.arange(6) % 3
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(8):
        logits = model(events, every_step=True)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(40))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] and math.isfinite(losses[-1])
