"""``Sequential``: the lengths of samples reach every layer and readout, and ``nn.Sequential`` never drops them."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import (
    SRC,
    Delay,
    EventBatch,
    IntegerSRC,
    LeakyReadout,
    LinearReadout,
    Sequential,
    SpikesOnly,
    SRCConv2d,
)
from srcell.models import SRCClassifier
from support.networks import exported
from support.refusals import Message, refusals

STEPS, BATCH, INPUTS = 60, 4, 8
LENGTHS = torch.tensor([60, 0, 17, 42])


def dense(past: float = 0.0, density: float = 0.3) -> Tensor:
    """Spikes (T, B, K), and another number past the lengths."""
    x = (torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(3)) < density).float()
    return torch.where(torch.arange(STEPS)[:, None, None] < LENGTHS[:, None], x, past)


def events() -> EventBatch:
    return EventBatch.from_dense(dense(), LENGTHS)


class Case:
    """A network, and the same calls written by hand, with the lengths given to each module that takes them."""

    def __init__(self, *modules: nn.Module, by_hand: Callable[..., Any]) -> None:
        self.network, self._by_hand = Sequential(*modules), by_hand

    def by_hand(self, x: Tensor | EventBatch, lengths: Any) -> Tensor:
        made: Tensor = self._by_hand(*self.network, x, lengths)
        return made


def two_layers(layer: SRC, _: nn.Module, linear: nn.Linear, last: SRC, readout: Any, x: Any, lengths: Any) -> Tensor:
    own = None if isinstance(x, EventBatch) else lengths
    logits: Tensor = readout(last(linear(layer(x, lengths=own)[0]), lengths=lengths)[0], lengths=lengths)
    return logits


def delayed(delay: Delay, layer: SRC, again: Delay, last: SRC, x: Any, lengths: Any) -> Tensor:
    own = None if isinstance(x, EventBatch) else lengths
    spikes = layer(delay(x, lengths=own)[0], lengths=own)[0]
    out: Tensor = last(again(spikes, lengths=lengths)[0], lengths=lengths)[0]
    return out


def integers(first: IntegerSRC, second: SpikesOnly, readout: LeakyReadout, x: Any, lengths: Any) -> Tensor:
    own = None if isinstance(x, EventBatch) else lengths
    assert isinstance(second.layer, IntegerSRC)
    logits = readout(second.layer(first(x, lengths=own)[0], lengths=lengths)[0], lengths=lengths)
    assert isinstance(logits, Tensor)
    return logits


def nested(inner: nn.Sequential, outer: Sequential, readout: LinearReadout, x: Any, lengths: Any) -> Tensor:
    own = None if isinstance(x, EventBatch) else lengths
    (wrapped, linear), (layer,) = inner, outer
    assert isinstance(wrapped, SpikesOnly) and isinstance(wrapped.layer, SRC) and isinstance(layer, SRC)
    below = linear(wrapped.layer(x, lengths=own)[0])
    logits = readout(layer(below, lengths=lengths)[0], lengths=lengths, every_step=True)
    assert isinstance(logits, Tensor)
    return logits


CASES: dict[str, Callable[[], Case]] = {
    "layers, nn.Linear": lambda: Case(
        SRC(INPUTS, 20, 2, recurrent=True, zs_hyp=0.5),
        nn.Dropout(0.2).eval(),
        nn.Linear(20, 12),
        SRC(12, 20, initial_state="rest"),
        LeakyReadout(4, 5),
        by_hand=two_layers,
    ),
    "every step": lambda: Case(
        SRC(INPUTS, 20),
        nn.Identity(),
        nn.Linear(20, 12),
        SRC(12, 20),
        LeakyReadout(4, 5, every_step=True),
        by_hand=two_layers,
    ),
    "delays": lambda: Case(
        Delay(INPUTS, 5, taps=2), SRC(2 * INPUTS, 20), Delay(20, 3), SRC(20, 15, omega=0.2), by_hand=delayed
    ),
    "integers": lambda: Case(
        IntegerSRC(INPUTS, 20, weight_bits=8), SpikesOnly(IntegerSRC(20, 15)), LeakyReadout(3, 5), by_hand=integers
    ),
    "nested": lambda: Case(
        nn.Sequential(SpikesOnly(SRC(INPUTS, 20)), nn.Linear(20, 10)),
        Sequential(SRC(10, 20)),
        LinearReadout(20, 3, window=7, every_step=True),
        by_hand=nested,
    ),
}


def made(name: str) -> Case:
    torch.manual_seed(len(name))
    return CASES[name]()


@pytest.mark.parametrize("given", ["events", "tensor", "list"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_calls_with_the_lengths(name: str, given: str) -> None:
    case = made(name)
    x: Any = events() if given == "events" else dense()
    lengths = None if given == "events" else LENGTHS if given == "tensor" else LENGTHS.tolist()
    output = case.network(x) if lengths is None else case.network(x, lengths)
    expected = case.by_hand(x, LENGTHS)
    assert expected.any() and torch.equal(output, expected)
    assert not torch.equal(output, case.network(dense(1.0)))  # the lengths matter
    parameters = [*case.network.parameters()]
    factors = torch.linspace(0.5, 1.5, output.numel()).view(output.shape)
    gradients = torch.autograd.grad((output * factors).sum(), parameters)
    wanted = torch.autograd.grad((expected * factors).sum(), parameters)
    assert any(gradient.any() for gradient in gradients) and all(map(torch.equal, gradients, wanted))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"integers"}))
def test_nan_past_the_lengths_changes_nothing(name: str) -> None:
    network = made(name).network
    found = []
    for past in (0.0, torch.nan):
        output = network(dense(past), LENGTHS)
        found.append([output, *torch.autograd.grad(output.sum(), [*network.parameters()])])
    assert all(x.isfinite().all() for x in found[0]) and all(map(torch.equal, *found))


def test_maps_have_the_lengths() -> None:
    torch.manual_seed(0)
    convolution, layer, readout = SRCConv2d(2, 4, 2, zs_hyp=0.5), SRC(4 * 3, 10), LeakyReadout(2, 5)
    network = Sequential(nn.Unflatten(2, (2, 2, 4)), convolution, nn.Flatten(2), layer, readout)
    x = dense(density=0.5).repeat(1, 1, 2)
    maps = convolution(x.unflatten(2, (2, 2, 4)), lengths=LENGTHS)[0]
    expected = readout(layer(maps.flatten(2), lengths=LENGTHS)[0], lengths=LENGTHS)
    assert expected.any() and torch.equal(network(x, LENGTHS), expected)


@pytest.mark.parametrize("wrap", [lambda layer: layer, SpikesOnly], ids=["bare", "SpikesOnly"])
def test_samples_come_first_with_batch_first(wrap: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    layers = [SRC(INPUTS, 20, batch_first=True), SRC(20, 10, batch_first=True)]
    network = Sequential(*map(wrap, layers), LinearReadout(10, 3, batch_first=True, every_step=True))
    x, spikes = dense(), dense().transpose(0, 1)
    for layer in layers:
        spikes = layer(spikes, lengths=LENGTHS)[0]
    expected = network[-1](spikes, lengths=LENGTHS)
    assert expected.any() and torch.equal(network(x.transpose(0, 1), LENGTHS), expected)
    torch.testing.assert_close(network(events()), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["layers, nn.Linear", "integers"])
def test_the_runtime_gives_the_logits_of_samples_with_lengths(name: str) -> None:
    network = made(name).network
    if name == "layers, nn.Linear":
        del network[2]
        network[2] = SRC(20, 20)
    found = exported(network).run(events())
    logits = network(events())
    assert logits.any()
    torch.testing.assert_close(torch.from_numpy(found), logits, rtol=1e-5, atol=1e-5)


def test_without_lengths_it_computes_as_torchs_sequential() -> None:
    torch.manual_seed(0)
    modules = [SpikesOnly(SRC(INPUTS, 20)), nn.Dropout(0.3), SpikesOnly(SRC(20, 20)), LeakyReadout(4, 5)]
    network, plain = Sequential(*modules), nn.Sequential(*modules)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert repr(network) == repr(plain)
    for x in (dense(), EventBatch.from_dense(dense())):
        torch.manual_seed(1)
        expected = plain(x)
        torch.manual_seed(1)
        assert expected.any() and torch.equal(network(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, torch.full((BATCH,), STEPS)], ids=["shorter", "all of T steps"])
@pytest.mark.parametrize(
    "modules",
    [
        lambda: [SpikesOnly(SRC(INPUTS, 20)), LeakyReadout(4, 5)],
        lambda: [nn.Identity(), SpikesOnly(Delay(INPUTS, 3)), nn.Sequential(SpikesOnly(SRC(INPUTS, 20)))],
        lambda: [SpikesOnly(IntegerSRC(INPUTS, 20))],
    ],
    ids=["readout", "delay", "alone"],
)
def test_torchs_sequential_refuses_events_whose_lengths_it_would_drop(
    modules: Callable[[], list[nn.Module]], lengths: Tensor, training: bool
) -> None:
    network, x = nn.Sequential(*modules()).train(training), EventBatch.from_dense(dense(), lengths)
    with pytest.raises(ValueError, match=r"^input: expected an EventBatch without lengths, .*: use srcell.Sequential"):
        network(x)
    assert Sequential(*network)(x).shape[-1] in (4, 20)


def test_spikes_only_takes_the_lengths_of_its_events_from_a_caller_that_passes_them_on() -> None:
    torch.manual_seed(0)
    layer, x = SRC(INPUTS, 20), events()
    assert torch.equal(SpikesOnly(layer)(x, x.lengths), layer(x)[0])
    assert torch.equal(SpikesOnly(layer)(dense(), LENGTHS), layer(dense(), lengths=LENGTHS)[0])
    delayed = SpikesOnly(Delay(INPUTS, 3))(x)
    assert isinstance(delayed, EventBatch) and delayed.lengths is not None
    assert torch.equal(delayed.lengths, LENGTHS)


class Residual(nn.Module):
    """A module of a user's that takes lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = SRC(INPUTS, INPUTS)

    def forward(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        spikes: Tensor = self.layer(x, lengths=lengths)[0]
        return x + spikes


class WithoutLengths(Residual):
    """A module of a user's that would drop them."""

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return self.layer(x)[0]


class Encoder(nn.Module):
    """A module that makes events with lengths."""

    def forward(self, x: Tensor) -> EventBatch:
        return EventBatch.from_dense(x, LENGTHS)


class AsEvents(nn.Module):
    """A module that passes spikes on as events with their lengths."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> EventBatch:
        return EventBatch.from_dense(x, lengths)


def test_modules_of_the_users_get_the_lengths_and_may_make_some() -> None:
    torch.manual_seed(0)
    residual, layer, readout = Residual(), SRC(INPUTS, 20), LeakyReadout(4, 5)
    spikes = layer(residual(dense(), lengths=LENGTHS), lengths=LENGTHS)[0]
    expected = readout(spikes, lengths=LENGTHS)
    assert expected.any() and torch.equal(Sequential(residual, layer, readout)(dense(), LENGTHS), expected)
    alone = readout(layer(events())[0], lengths=LENGTHS)
    assert torch.equal(Sequential(Encoder(), layer, readout)(dense(1.0)), alone)
    again = EventBatch.from_dense(layer(events())[0], LENGTHS)
    last = SRC(20, 20)
    assert torch.equal(Sequential(layer, AsEvents(), last, readout)(events()), readout(last(again)[0], LENGTHS))
    classifier = SRCClassifier(20, [10], 3)
    assert torch.equal(Sequential(layer, classifier)(events()), classifier(layer(events())[0], LENGTHS))
    first = SRCClassifier(INPUTS, [10], 3)
    assert torch.equal(Sequential(first)(events()), first(events()))


def hooked() -> nn.Sequential:
    network = nn.Sequential(SpikesOnly(SRC(INPUTS, 5)))
    network.register_forward_hook(lambda *_: None)
    return network


@refusals(
    Message("lengths: expected None beside an EventBatch that has", lambda: Sequential(SRC(8, 4))(events(), LENGTHS)),
    Message(
        r"lengths: expected input.lengths for an EventBatch that has lengths, got others",
        lambda: SpikesOnly(SRC(8, 4))(events(), LENGTHS.clone()),
    ),
    Message(
        r"module 1 \(WithoutLengths\): expected a forward with an argument lengths, because layers inside it",
        lambda: Sequential(SRC(8, 8), WithoutLengths())(events()),
        TypeError,
    ),
    Message(
        r"module 0 \(Sequential\): expected a forward with an argument lengths",
        lambda: Sequential(hooked())(dense(), LENGTHS),
        TypeError,
    ),
    Message(r"lengths: ", lambda: Sequential(SRC(8, 4))(dense(), LENGTHS + 1)),
    Message(r"lengths: expected shape", lambda: Sequential(SRC(8, 4), LeakyReadout(2, 2))(dense(), LENGTHS[:2])),
)
def test_what_would_lose_lengths_is_refused(refusal: Message) -> None:
    refusal.check()


def test_hooks_of_a_nested_sequential_are_called_and_one_without_layers_needs_no_lengths() -> None:
    seen: list[str] = []
    plain = nn.Sequential(nn.Linear(20, 20), nn.Dropout(0.0))
    plain.register_forward_hook(lambda *_: seen.append("plain"))
    own = Sequential(SRC(20, 10))
    own.register_forward_hook(lambda *_: seen.append("own"))
    network = Sequential(SRC(INPUTS, 20), plain, own)
    network(events())
    network(dense(), LENGTHS)
    assert seen == ["plain", "own"] * 2


def test_slices_sums_and_copies_are_of_the_class() -> None:
    network = Sequential(SRC(4, 4), nn.Dropout(), SRC(4, 4))
    plain = nn.Sequential(nn.Identity())
    for made_ in (network[1:], network + plain, plain + network, 2 * network, network * 2, copy.deepcopy(network)):
        assert type(made_) is Sequential
    assert [type(module).__name__ for module in plain + network] == ["Identity", "SRC", "Dropout", "SRC"]
    assert [type(module).__name__ for module in network + plain] == ["SRC", "Dropout", "SRC", "Identity"]
    assert len(2 * network) == 6 and len(network) == 3
    assert type(pickle.loads(pickle.dumps(network))) is Sequential
    assert next(iter(Sequential(OrderedDict(a=SRC(4, 4)))[:1].state_dict())).startswith("a.")
    network.append(nn.Identity()).insert(0, nn.Flatten(2)).extend([LeakyReadout(2, 2)])
    assert type(network) is Sequential
    assert [*network.state_dict()] == [*nn.Sequential(*network).state_dict()]


def test_diagnose_and_record_measure_up_to_the_lengths() -> None:
    torch.manual_seed(0)
    network = Sequential(SRC(INPUTS, 20), nn.Linear(20, 20), SRC(20, 20), LeakyReadout(4, 5))
    targets = torch.arange(BATCH) % 4
    of_events = srcell.diagnose(network, events(), targets)
    of_dense = srcell.diagnose(network, dense(), targets, lengths=LENGTHS)
    assert [layer.rate for layer in of_events.layers] == [layer.rate for layer in of_dense.layers]
    with srcell.record(network) as recording:
        network(events())
    spikes = recording["2"].spikes
    valid = int((spikes > 0).sum()) / int(LENGTHS.sum() * 20)
    assert of_events.layers[1].rate == pytest.approx(valid) and valid > 0
