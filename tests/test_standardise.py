"""``Standardise``: the module, networks with it, their files, and streams that take the elements of sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, Delay, EventBatch, IntegerSRC, LinearReadout, Sequential, SpikesOnly, Standardise, data, runtime
from srcell.models import Classifier, IntegerClassifier, SRCClassifier
from support.networks import bytes_of, exported, split
from support.refusals import Message, Refusal, refusals

INPUTS, BATCH, ELEMENTS = 5, 3, 8
MEAN, DEVIATION = torch.tensor([0.0, 1.5, -2.0, 100.0, 1e-3]), torch.tensor([1.0, 0.1, 3.0, 25.0, 7e-4])
LENGTHS = torch.tensor([8, 0, 5])


def sequences(*shape: int) -> Tensor:
    """Values (B, S, K) around the means, some of them 0."""
    drawn = torch.randn(*(shape or (BATCH, ELEMENTS)), INPUTS, generator=torch.Generator().manual_seed(4))
    return torch.where(drawn.abs() < 0.2, 0, MEAN + drawn * DEVIATION)


def in_numpy(x: Any) -> Any:
    """The definition, in float32."""
    return (np.asarray(x) - MEAN.numpy()) / DEVIATION.numpy()


def test_of_measures_the_elements_up_to_the_lengths() -> None:
    values = sequences()
    values[:, :, 2] = 0.1  # constant
    elements = torch.cat([values[0], values[2, :5]]).double()
    padded = values.clone()
    padded[1], padded[2, 5:] = torch.nan, 1e30
    for given, lengths in ((padded, LENGTHS), (padded.numpy(), LENGTHS.tolist()), (padded.double(), LENGTHS.int())):
        made = Standardise.of(given, lengths)
        deviation = ((elements - elements.mean(0)) ** 2).mean(0).sqrt()
        deviation[2] = 1
        torch.testing.assert_close(made.mean, elements.mean(0).float(), rtol=2**-23, atol=0)
        torch.testing.assert_close(made.deviation, deviation.float(), rtol=2**-23, atol=0)
    whole = Standardise.of(values)
    z = whole(values).flatten(0, 1)
    torch.testing.assert_close(z.mean(0), torch.zeros(INPUTS), rtol=0, atol=1e-5)
    assert torch.allclose(z.std(0, correction=0), torch.tensor([1.0, 1, 0, 1, 1]))
    maps = Standardise.of(values[..., :4].unflatten(2, (1, 2, 2)))
    assert torch.equal(maps.mean.flatten(), whole.mean[:4]) and torch.equal(
        maps.deviation.flatten(), whole.deviation[:4]
    )


def test_of_an_input_that_hardly_varies_stays_finite() -> None:
    values = torch.tensor([[[1.0, 1e-60], [1.0, 2e-60]]], dtype=torch.float64)
    assert Standardise.of(values).deviation.tolist() == [1, 1]  # 5e-61 is 0 in float32
    assert Standardise.of(values[:, :1]).deviation.tolist() == [1, 1]


def test_a_call_is_a_difference_and_a_quotient_of_the_dtype_of_the_input() -> None:
    standardise, x = Standardise(MEAN, DEVIATION), sequences()
    assert np.array_equal(standardise(x), in_numpy(x)) and standardise(x).any()
    double = (x.double() - MEAN.double()) / DEVIATION.double()
    assert torch.equal(standardise(x.double()), double) and torch.equal(standardise.double()(x.double()), double)
    assert standardise(x.half()).dtype == torch.float16


def test_gradients_reach_a_dense_input() -> None:
    x = sequences().requires_grad_()
    Standardise(MEAN, DEVIATION)(x, lengths=[3, 0, 2, 3, 3, 1, 0, 2]).sum().backward()
    assert x.grad is not None
    taken = torch.arange(BATCH)[:, None] < torch.tensor([3, 0, 2, 3, 3, 1, 0, 2])
    assert torch.equal(x.grad, taken[..., None] / DEVIATION)


def test_past_the_lengths_it_is_zero() -> None:
    by_sample, x = Standardise(MEAN, DEVIATION, batch_first=True), sequences()
    x[1], x[2, 5:] = torch.nan, torch.inf
    expected = np.nan_to_num(in_numpy(x), nan=0, posinf=0)
    assert np.array_equal(by_sample(x, lengths=LENGTHS), expected)
    by_step = Standardise(MEAN, DEVIATION)(x.transpose(0, 1), lengths=LENGTHS)
    assert np.array_equal(by_step.transpose(0, 1), expected) and expected.any()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_events_are_standardised_as_their_dense_tensor(lengths: Tensor | None) -> None:
    """An absent event is 0, an event without a value 1, and events of one input add up."""
    standardise = Standardise(MEAN, DEVIATION)
    steps = sequences().transpose(0, 1)
    events = EventBatch.from_dense(steps, lengths)
    found = standardise(events)
    taken = (
        steps if lengths is None else torch.where(torch.arange(ELEMENTS)[:, None, None] < lengths[:, None], steps, 0)
    )
    expected = torch.from_numpy(in_numpy(taken))
    assert found == EventBatch.from_dense(expected, lengths) and found.num_events
    rows, ones = torch.tensor([0, 3, 4, 4]), torch.tensor([3, 0, 3, 1], dtype=torch.int32)
    made = standardise(EventBatch(rows, ones, shape=(3, 1, INPUTS)))
    assert np.array_equal(made.to_dense()[:, 0], in_numpy(np.float32([[1, 0, 0, 2, 0], [0, 1, 0, 0, 0], [0] * 5])))
    parts = torch.tensor([0.1, 0.7, 0.2, 5.0], dtype=torch.float64)
    made = standardise(EventBatch(rows, ones, parts, shape=(3, 1, INPUTS)))
    assert made.values is not None and made.values.dtype == torch.float64
    assert made.to_dense(torch.float64)[0, 0, 3] == (0.1 + 0.2 - 100) / 25


def test_an_event_of_value_and_mean_is_no_event() -> None:
    standardise = Standardise([0.5, 0.0], [2.0, 1.0])
    found = standardise(EventBatch.from_dense(torch.tensor([[[0.5, 0.0]], [[0.0, 2.0]]])))
    assert found.indices.tolist() == [0, 1] and found.offsets.tolist() == [0, 0, 2]


def test_it_may_be_traced_and_copied_and_shows_its_sizes() -> None:
    standardise, x = Standardise(MEAN, DEVIATION), sequences()
    network = Sequential(standardise, SRC(INPUTS, 4))
    program = torch.export.export(network, (x,), dynamic_shapes={"input": {0: torch.export.Dim("steps", min=2)}})
    assert torch.equal(program.module()(x[:2]), network(x[:2])) and network(x[:2]).shape == (2, ELEMENTS, 4)
    assert repr(standardise) == "Standardise(5)"
    maps = Standardise(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), batch_first=True)
    assert repr(maps) == "Standardise((1, 2, 3), batch_first=True)"
    other = Standardise(torch.zeros(5), torch.ones(5))
    other.load_state_dict(standardise.state_dict())
    assert torch.equal(other(x), standardise(x))


def test_it_keeps_numbers_of_its_own() -> None:
    mean = MEAN.clone()
    standardise = Standardise(mean, DEVIATION.numpy())
    mean.zero_()
    assert torch.equal(standardise.mean, MEAN) and not standardise.mean.requires_grad


@refusals(
    Refusal("mean", lambda: Standardise("x", [1.0]), TypeError),
    Refusal("mean", lambda: Standardise([1, 2], [1.0, 1.0]), TypeError),
    Refusal("mean", lambda: Standardise(torch.zeros(2, 2), torch.ones(2, 2))),
    Refusal("mean", lambda: Standardise([], [])),
    Refusal("mean", lambda: Standardise(torch.zeros(2).to_sparse(), torch.ones(2))),
    Refusal("mean", lambda: Standardise(torch.zeros(2, device="meta"), torch.ones(2))),
    Message("mean: expected finite numbers, got inf", lambda: Standardise(np.array([1e39]), [1.0])),
    Message("mean: expected finite numbers, got nan", lambda: Standardise([0.0, torch.nan], [1.0, 1.0])),
    Message(r"deviation: expected shape \(2,\), as mean has, got \(1,\)", lambda: Standardise([0.0, 1.0], [1.0])),
    Message("deviation: expected values > 0, got 0.0", lambda: Standardise([0.0, 1.0], [1.0, 0.0])),
    Message("deviation: expected values > 0, got -1.0", lambda: Standardise([0.0], [-1.0])),
    Message("deviation: expected values > 0, got 0.0", lambda: Standardise([0.0], np.array([1e-60]))),
    Message("deviation: expected finite numbers, got inf", lambda: Standardise([0.0], [torch.inf])),
    Refusal("batch_first", lambda: Standardise([0.0], [1.0], batch_first=1), TypeError),  # type: ignore[arg-type]
    Refusal("values", lambda: Standardise.of(torch.zeros(2, 3, 4, dtype=torch.int64)), TypeError),
    Refusal("values", lambda: Standardise.of(torch.zeros(2, 3))),
    Refusal("values", lambda: Standardise.of(torch.zeros(2, 3, 0))),
    Message("values: expected at least one element and input, got", lambda: Standardise.of(sequences(), [0, 0, 0])),
    Message("values: expected finite numbers, got nan", lambda: Standardise.of(torch.full((1, 1, 1), torch.nan))),
    Refusal("lengths", lambda: Standardise.of(sequences(), [9, 0, 0])),
    Refusal("lengths", lambda: Standardise.of(sequences(), [1, 1])),
    Refusal("input", lambda: Standardise(MEAN, DEVIATION)(torch.zeros(3, 2, 4))),
    Refusal("input", lambda: Standardise(MEAN, DEVIATION)(torch.zeros(5))),
    Refusal("input", lambda: Standardise(MEAN, DEVIATION)(torch.zeros(3, 2, 5, dtype=torch.int64)), TypeError),
    Refusal("input", lambda: Standardise(MEAN, DEVIATION)(EventBatch.from_dense(torch.zeros(3, 2, 4)))),
    Refusal("lengths", lambda: Standardise(MEAN, DEVIATION)(torch.zeros(3, 2, 5), [4, 0])),
    Refusal("lengths", lambda: Standardise(MEAN, DEVIATION)(EventBatch.from_dense(torch.zeros(3, 2, 5)), [4, 0])),
    Refusal(
        "lengths",
        lambda: Standardise(MEAN, DEVIATION)(EventBatch.from_dense(torch.zeros(3, 2, 5), torch.tensor([3, 0])), [3, 0]),
    ),
    Refusal("standardise", lambda: SRCClassifier(4, [3], 2, standardise=Standardise(MEAN, DEVIATION))),
    Refusal("standardise", lambda: SRCClassifier(4, [3], 2, standardise=nn.Identity()), TypeError),  # type: ignore[arg-type]
    Refusal(
        "standardise",
        lambda: SRCClassifier(5, [3], 2, standardise=Standardise(MEAN, DEVIATION, batch_first=True)),
    ),
    Refusal("network", lambda: IntegerClassifier.from_float(classifier())),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def classifier(**options: Any) -> SRCClassifier:
    torch.manual_seed(3)
    standardise = Standardise(MEAN, DEVIATION)
    return SRCClassifier(INPUTS, [20], 3, standardise=standardise, alpha=0.95, **options).eval()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"input_delay": 4, "taps": 2}])
def test_a_classifier_standardises_its_input_first(options: dict[str, Any]) -> None:
    network, plain = classifier(**options), classifier(**options)
    plain.standardise = None
    assert {*network.state_dict()} - {*plain.state_dict()} == {"standardise.mean", "standardise.deviation"}
    assert network.export_parts()[0] is network.standardise
    assert [type(part) for part in plain.export_parts()] == [type(part) for part in network.export_parts()[1:]]
    x = sequences().transpose(0, 1).repeat_interleave(5, 0)
    z = torch.from_numpy(in_numpy(x))
    ends = 5 * LENGTHS
    for given, lengths, standardised in (
        (x, None, z),
        (x, ends, z),
        (EventBatch.from_dense(x), None, EventBatch.from_dense(z)),
        (EventBatch.from_dense(x, ends), None, EventBatch.from_dense(z, ends)),
    ):
        found, expected = network.layer_spikes(given, lengths), plain.layer_spikes(standardised, lengths)
        assert all(torch.equal(ours, theirs) and theirs.any() for ours, theirs in zip(found, expected, strict=True))
        assert torch.equal(network(given, lengths), plain(standardised, lengths))
    if not options:
        without = EventBatch.from_dense(x, ends)
        events = EventBatch(without.offsets, without.indices, without.values, shape=without.shape)
        assert torch.equal(network(events, ends), network(without))


@torch.no_grad()
def test_nan_past_the_lengths_changes_nothing_in_a_sequential() -> None:
    torch.manual_seed(0)
    network = Sequential(Standardise(MEAN, DEVIATION), nn.Linear(INPUTS, 8), SRC(8, 20), LinearReadout(20, 3))
    x = sequences(BATCH, 40).transpose(0, 1)
    ends = torch.tensor([40, 0, 23])
    other = x.clone()
    other[23:, 2], other[:, 1] = torch.nan, torch.inf
    assert torch.equal(network(other, ends), network(x, ends)) and len(network(x, ends).unique()) > 3


# Files and the runtime


HELD = data.HeldEncoding(hold=3, prefix=4)


def with_encoder(network: Any, encoder: Any = HELD) -> Any:
    network.encoder = encoder
    return network


NETWORKS: dict[str, Callable[[], Any]] = {
    "a classifier": lambda: with_encoder(classifier(recurrent=True)),
    "delays": lambda: with_encoder(classifier(recurrent=True, input_delay=5, taps=2, recurrent_delay=4)),
    "Linear": lambda: with_encoder(
        Sequential(Standardise(MEAN, DEVIATION), nn.Linear(INPUTS, 8), SRC(8, 20), LinearReadout(20, 3))
    ),
    "no readout": lambda: with_encoder(nn.Sequential(Standardise(MEAN, DEVIATION), SpikesOnly(SRC(INPUTS, 20)))),
    "no standardisation": lambda: with_encoder(SRC(INPUTS, 20, alpha=0.95)),
    "no prefix": lambda: with_encoder(classifier(), data.HeldEncoding(2)),
}


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", NETWORKS)
def test_sequences_are_encoded_as_the_encoder_does(name: str, lengths: Tensor | None) -> None:
    network = NETWORKS[name]()
    found = exported(network).encode(sequences(), lengths=lengths)
    expected = network.encoder(sequences(), lengths=lengths)
    assert found.shape == expected.shape and found.values is not None and found.values.any()
    for key in ("offsets", "indices", "values", "lengths"):
        ours, theirs = getattr(found, key), getattr(expected, key)
        assert (ours is None and theirs is None) or np.array_equal(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("name", ["a classifier", "delays", "no prefix"])
def test_a_file_has_the_bits_of_the_layers_on_standardised_events(name: str) -> None:
    network = NETWORKS[name]()
    net = exported(network)
    for lengths in (None, LENGTHS):
        events = network.encoder(sequences(), lengths=lengths)
        below = network.standardise(events)
        if network.delay is not None:
            below, _ = network.delay(below)
        for layer, found in zip(network.layers, net.spikes(events), strict=True):
            spikes, _ = layer(below)
            assert spikes.any() and np.array_equal(found, spikes.numpy())
            below = EventBatch.from_dense(spikes, events.lengths)
        torch.testing.assert_close(torch.from_numpy(net.run(events)), network(events), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_elements_are_steps_also_after_a_restored_state(name: str) -> None:
    network = NETWORKS[name]()
    net, values = exported(network), sequences().numpy()
    events = net.encode(values)
    spikes, logits = net.spikes(events)[-1], net.run(events, every_step=True)
    hold, prefix = network.encoder.hold, network.encoder.prefix
    stream = net.stream(BATCH)
    for element in range(ELEMENTS):
        if element in (0, 1, 5):  # before and after the prefix
            state, stream = stream.save(), net.stream(BATCH)
            stream.feed(values[:, 7 - element])
            stream.restore(state)
        assert stream.feed(values[:, element]) == hold + (0 if element else prefix)
        now = prefix + hold * (element + 1) - 1
        assert np.array_equal(stream.logits(), logits[now])
    stream.reset()
    assert stream.feed(values[:, 0]) == prefix + hold
    assert np.array_equal(stream.logits(), logits[prefix + hold - 1]) and spikes.any()
    alone = net.stream()
    assert alone.feed(values[2, 0]) == alone.feed(values[2, :1]) + prefix


def test_a_refused_element_takes_no_step() -> None:
    stream = exported(with_encoder(srcell.IntegerSRC(4, 3), data.HeldEncoding(hold=2, prefix=3))).stream()
    state = stream.save()
    with pytest.raises(ValueError, match="values: expected 0 or 1 for integer neurons"):
        stream.feed(np.full(4, 0.5))
    assert stream.save() == state and stream.feed(np.ones(4)) == 5


def test_without_an_encoder_an_element_is_a_step() -> None:
    net = exported(with_encoder(classifier(), None))
    fed, stepped = net.stream(BATCH), net.stream(BATCH)
    for values in sequences().transpose(0, 1).numpy():
        assert fed.feed(values) == 1
        stepped.step(values)
        assert fed.save() == stepped.save()


def test_rows_of_events_that_repeat_are_sums_before_they_are_standardised() -> None:
    net = exported(classifier())
    indices, values = np.array([3, 0, 3, 1], np.int32), np.float32([0.1, 2, 0.2, 1.5])
    dense = np.float32([2, 1.5, 0, np.float32(0.1) + np.float32(0.2), 0])
    given, summed, run = net.stream(), net.stream(), net.stream()
    for _ in range(30):
        assert np.array_equal(given.step(indices, values), summed.step(dense))
    offsets = np.arange(31) * 4
    events = runtime.Events(offsets, np.tile(indices, 30), (30, 1, INPUTS), np.tile(values, 30))
    assert np.array_equal(net.run(events), given.logits()) and given.logits().any()
    silent = net.spikes(runtime.Events(np.zeros(31, np.int64), np.int32([]), (30, 1, INPUTS)))[-1]
    assert np.array_equal(silent[:, 0], [run.step([])[0] for _ in range(30)])
    assert not np.array_equal(silent, net.spikes(np.zeros((30, 1, INPUTS)) + MEAN.numpy())[-1])


def test_counts_are_of_the_standardised_events() -> None:
    net = exported(classifier())
    at_mean = np.zeros((10, 2, INPUTS), np.float32)
    at_mean[:] = MEAN.numpy()
    at_mean[:4, 0, 1] = 0
    assert net.counts(at_mean)[0].events == 4 / 2 and net.counts(np.zeros((10, 2, INPUTS)))[0].events == 10 * 4
    assert net.counts(np.zeros((10, 2, INPUTS)), [10, 0])[0].events == 5 * 4  # the first mean is 0
    assert net.nbytes - exported(with_encoder(plain(), None)).nbytes == 2 * 4 * INPUTS


def plain() -> SRCClassifier:
    network = classifier()
    network.standardise = None
    return network


def test_what_lies_past_the_lengths_has_no_influence() -> None:
    net = exported(classifier())
    x = sequences(BATCH, 30).transpose(0, 1).numpy()
    ends = [30, 0, 17]
    other = x.copy()
    other[17:, 2], other[:, 1] = np.nan, np.inf
    assert np.array_equal(net.run(other, ends), net.run(x, ends))
    spikes = net.spikes(other, ends)
    assert not any(layer[17:, 2].any() or layer[:, 1].any() for layer in spikes) and spikes[-1].any()


def test_a_run_in_chunks_gives_the_bits_of_each_sample_alone() -> None:
    torch.manual_seed(0)
    wide = Sequential(
        Standardise(torch.randn(900), 0.5 + torch.rand(900)), SRC(900, 4, alpha=0.97), LinearReadout(4, 2)
    )
    net, x = exported(wide), np.random.default_rng(0).normal(size=(50, 120, 900)).astype(np.float32)
    many = net.run(x)  # more elements than a chunk has
    assert np.array_equal(many[[0, 119]], net.run(x[:, [0, 119]])) and len({row.tobytes() for row in many}) > 100
    assert np.array_equal(many, net.run(x, threads=2))


def test_only_files_with_a_standardisation_have_its_version_and_tensors() -> None:
    content, without = bytes_of(classifier()), bytes_of(plain())
    tensors = safetensors.torch.load(content)
    assert split(content)[0]["__metadata__"]["version"] == "5"
    assert split(without)[0]["__metadata__"]["version"] == "1"
    assert {*tensors} - {*safetensors.torch.load(without)} == {"input.mean", "input.deviation"}
    assert torch.equal(tensors["input.mean"], MEAN) and torch.equal(tensors["input.deviation"], DEVIATION)


def test_a_classifier_and_its_modules_give_the_same_file() -> None:
    network = classifier(input_delay=4)
    modules = [network.standardise, network.delay, *network.layers, network.readout]
    assert bytes_of(Sequential(*modules)) == bytes_of(network) == bytes_of(nn.Sequential(nn.Dropout(), network))
    maps = Standardise(torch.rand(2, 4, 4), 1 + torch.rand(2, 4, 4))
    conv = srcell.SRCConv2d(2, 3, 3)
    upper = SRC(12, 4)
    content = bytes_of(Sequential(maps, conv, nn.Flatten(2), upper))
    unflattened = Sequential(nn.Unflatten(2, (2, 4, 4)), maps, conv, nn.Flatten(2), upper)
    assert content == bytes_of(unflattened)
    assert runtime.Network(content).layers[0].map == (3, 2, 2)
    by_conv = Classifier((2, 4, 4), [conv], LinearReadout(12, 2), standardise=maps)
    assert runtime.Network(bytes_of(by_conv)).input_size == 32


def refused(*modules: nn.Module) -> Callable[[], None]:
    return lambda: srcell.export(Sequential(*modules), "/nowhere/net.srcell")


FIRST = Standardise(MEAN, DEVIATION)


@refusals(
    Message(
        r"network.1 \(Standardise\): expected no module before it, because it standardises the network's inputs, got "
        r"network.0 \(SRC\)",
        refused(SRC(2, 5), FIRST, SRC(5, 3)),
    ),
    Message(
        r"network.1 \(Standardise\): expected no module before it, .* got network.0 \(Linear\)",
        refused(nn.Linear(2, 5), FIRST, SRC(5, 3)),
    ),
    Message(
        r"network.1 \(Standardise\): expected no module before it, .* got network.0 \(Delay\)",
        refused(Delay(5, 2), FIRST, SRC(5, 3)),
    ),
    Message(r"network.1 \(Standardise\): expected no module before it", refused(FIRST, FIRST, SRC(5, 3))),
    Message(
        r"network.0 \(Standardise\): expected float neurons after it, because integer neurons take spikes, got "
        r"network.1 \(IntegerSRC\)",
        refused(FIRST, IntegerSRC(5, 3)),
    ),
    Message(
        r"network.1 \(SRC\): expected 5 inputs, as network.0 \(Standardise\) gives, got 4",
        refused(FIRST, SRC(4, 3)),
    ),
    Message(
        r"network.1 \(Standardise\): expected maps \(2, 4, 4\), as network.0 \(Unflatten\) gives, got \(2, 2, 8\)",
        refused(
            nn.Unflatten(2, (2, 4, 4)),
            Standardise(torch.zeros(2, 2, 8), torch.ones(2, 2, 8)),
            srcell.SRCConv2d(2, 3, 3),
        ),
    ),
    Message(
        r"network.0 \(Standardise\): expected batch_first=False beside network.1 \(SRC\), .*, got True",
        refused(Standardise(MEAN, DEVIATION, batch_first=True), SRC(5, 3)),
    ),
    Message(r"network \(Sequential\): expected at least one layer", refused(FIRST)),
    *(
        Message(
            rf"network.0 \({type(module).__name__}\): expected modules that compute each step on its own, because the "
            "network in a file gets the input of one step at a time: compute it before the network, or use "
            "srcell.Delay with taps in front of a layer, which is a convolution over time",
            refused(module, SRC(5, 3)),
            TypeError,
        )
        for module in (nn.Conv1d(5, 5, 3), nn.ConvTranspose1d(5, 5, 3), nn.AvgPool1d(2), nn.MaxPool1d(2))
    ),
)
def test_what_cannot_be_exported_is_refused_by_its_place(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize(
    ("buffer", "value", "message"),
    [
        ("mean", torch.nan, r"network.0 \(Standardise\): expected finite numbers in mean, got nan"),
        ("deviation", -1.0, r"network.0 \(Standardise\): input.deviation: expected finite values > 0"),
    ],
)
def test_numbers_that_were_altered_are_not_written(buffer: str, value: float, message: str) -> None:
    network = Sequential(Standardise(MEAN, DEVIATION), SRC(5, 3))
    getattr(network[0], buffer)[1] = value
    with pytest.raises(ValueError, match=f"^{message}"):
        bytes_of(network)


def altered(tensors: dict[str, Tensor | None] | None = None, network: Any = None, **texts: str) -> bytes:
    content = bytes_of(classifier() if network is None else network)
    kept = {**safetensors.torch.load(content), **(tensors or {})}
    return safetensors.torch.save(
        {name: x for name, x in kept.items() if x is not None}, {**split(content)[0]["__metadata__"], **texts}
    )


@refusals(
    Message("input.mean: expected none in a file of version 4", lambda: read(version="4")),
    Message(r"input.mean: expected a tensor \(5\), found none", lambda: read({"input.mean": None})),
    Message(r"input.deviation: expected a tensor \(5\), found none", lambda: read({"input.deviation": None})),
    Message(r"input.mean: expected F32 \(5\), got F32 \(4\)", lambda: read({"input.mean": torch.zeros(4)})),
    Message(r"input.mean: expected F32 \(5\), got F64", lambda: read({"input.mean": torch.zeros(5).double()})),
    Message("input.mean: expected finite values", lambda: read({"input.mean": torch.full((5,), torch.inf)})),
    *(
        Message(
            "input.deviation: expected finite values > 0",
            lambda value=value: read({"input.deviation": torch.full((5,), value)}),
        )
        for value in (0.0, -0.0, -1.0, torch.nan, torch.inf)
    ),
    Message(
        "input.mean: expected none for integer neurons, which take no currents",
        lambda: read({"input.mean": MEAN, "input.deviation": DEVIATION}, IntegerSRC(5, 3), version="5"),
    ),
)
def test_a_malformed_file_is_refused(refusal: Refusal) -> None:
    refusal.check()


def read(*given: Any, **texts: str) -> runtime.Network:
    return runtime.Network(altered(*given, **texts))


def test_a_refused_step_changes_nothing() -> None:
    stream = exported(NETWORKS["a classifier"]()).stream()
    stream.feed(MEAN + 1)
    state = stream.save()
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("values: expected no NaN", lambda: stream.feed(np.full(5, np.nan))),
        (r"values: expected shape \(1, 5\), got \(4,\)", lambda: stream.feed(np.zeros(4))),
        (r"values: expected shape \(1, 5\), got \(2, 5\)", lambda: stream.feed(np.zeros((2, 5)))),
        ("values: expected floats or bools for a dense input, got int64", lambda: stream.feed(np.zeros(5, int))),
        ("values: expected no NaN", lambda: stream.step(np.full(5, np.nan))),
        ("values: expected no NaN", lambda: stream.step([3, 3], [np.inf, -np.inf])),
        ("events: expected ascending offsets, and indices", lambda: stream.step([0, 5])),
        ("events: expected ascending offsets, and indices", lambda: stream.step([-1])),
    ]
    for message, call in calls:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call()
        assert stream.save() == state
    with pytest.raises(ValueError, match=r"^values: expected no NaN"):
        exported(classifier()).run(
            runtime.Events(np.array([0, 2]), np.int32([3, 3]), (1, 1, 5), np.float32([np.inf, -np.inf]))
        )


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "RateEncoding", "steps": 3}, "encoder: expected a HeldEncoding, or none, got 'RateEncoding'"),
        ({"name": ["HeldEncoding"]}, "encoder: expected a HeldEncoding, or none, got ''"),
        ({"name": "Held\\Encoding"}, "encoder: expected a HeldEncoding, or none, got ''"),
        *(
            ({"name": "HeldEncoding", **steps}, "encoder: expected a HeldEncoding with hold in .1, 2^20. and prefix in")
            for steps in (
                {"hold": 0, "prefix": 0},
                {"hold": 1},
                {"hold": -1, "prefix": 0},
                {"hold": 1.5, "prefix": 0},
                {"hold": True, "prefix": 0},
                {"hold": "", "prefix": 0},
                {"hold": 1, "prefix": 2**20 + 1},
                {"hold": 10**30, "prefix": 0},
            )
        ),
    ],
)
def test_a_network_with_another_encoder_takes_no_sequences(encoder: dict[str, Any], message: str) -> None:
    net = read(encoder=json.dumps(encoder))
    stream = net.stream()
    with pytest.raises(ValueError, match=f"^{message.replace('^', '.')}"):
        stream.feed(MEAN)
    with pytest.raises(ValueError, match=r"^encoder: expected "):
        net.encode(np.zeros((1, 1, 5)))


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"HeldEncoding","prefix":2,"hold":3}',
        '\n{ "hold" : 3 ,"prefix": 2,"name":\t"HeldEncoding" , "more": [1]}',
    ],
)
def test_the_encoder_may_be_written_in_any_json(text: str) -> None:
    net = read(encoder=text)
    assert net.stream().feed(MEAN) == 5 and net.encode(np.zeros((1, 1, 5))).shape == (5, 1, 5)


@refusals(
    Message(
        "lengths: expected None for an encoder of images, got lengths", lambda: encode("RateEncoding", lengths=[1])
    ),
    Message(r"images: expected sequences \(B, S, 5\) for a HeldEncoding, got \(3, 5\)", lambda: encode(values=(3, 5))),
    Message(r"images: expected sequences \(B, S, 5\) .*, got \(2, 3, 4\)", lambda: encode(values=(2, 3, 4))),
    Message(r"lengths: expected shape \(2,\), got \(1,\)", lambda: encode(lengths=[1])),
    Message(r"lengths: expected values in \[0, 3\], got 0 to 4", lambda: encode(lengths=[0, 4])),
)
def test_what_is_no_sequence_is_refused(refusal: Refusal) -> None:
    refusal.check()


def encode(name: str = "HeldEncoding", values: Any = (2, 3, 5), lengths: Any = None) -> runtime.Events:
    encoder = {"name": name, "hold": 2, "prefix": 1, "steps": 2, "gain": 1.0}
    return read(encoder=json.dumps(encoder)).encode(np.zeros(values), lengths=lengths)
