"""Export of the networks that users build from modules: the bits of their layers, and refusals that name the place."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import srcell
from srcell import (
    SRC,
    Delay,
    EventBatch,
    IntegerSRC,
    LeakyReadout,
    Sequential,
    SpikesOnly,
    SRCConv2d,
    data,
    export,
    runtime,
)
from srcell.layers import LinearReadout
from srcell.models import Classifier, SRCClassifier, SRCConvClassifier
from support.calls import EXPORTS_ONNX
from support.networks import bytes_of, exported
from support.refusals import Message, Refusal, refusals

STEPS, BATCH, INPUTS, MAP = 60, 4, 24, (2, 3, 4)
SEQUENCE: dict[str, Any] = {"alpha": srcell.spread(0.5, 0.99), "zs_hyp": 0.5, "initial_state": "rest"}


class Skips(nn.Module):
    """A user's module that calls its layers itself, with a second layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = SRC(INPUTS, 5)
        self.delay, self.lower = Delay(INPUTS, 6), SRC(INPUTS, 30)
        self.upper = nn.Sequential(SpikesOnly(SRC(30, 20)), nn.Dropout())

    def export_parts(self) -> list[nn.Module]:
        return [self.delay, self.lower, self.upper]

    def forward(self, input: Tensor | EventBatch) -> Tensor:
        delayed, _ = self.delay(input)
        below, _ = self.lower(delayed)
        spikes: Tensor = self.upper(below)
        return spikes


class AsEvents(nn.Module):
    """Passes spikes on as events, which a ``Delay`` delays as the runtime does."""

    def export_parts(self) -> list[nn.Module]:
        return []

    def forward(self, spikes: Tensor) -> EventBatch:
        return EventBatch.from_dense(spikes)


def shared() -> nn.Sequential:
    again = SpikesOnly(SRC(INPUTS, INPUTS, recurrent=True))
    return nn.Sequential(again, nn.Identity(), again, LinearReadout(INPUTS, 3))


def named() -> nn.Sequential:
    hidden = nn.Sequential(OrderedDict(spikes=SpikesOnly(SRC(INPUTS, 40)), dropout=nn.Dropout(0.3)))
    return nn.Sequential(
        OrderedDict(hidden=hidden, more=nn.AlphaDropout(0.2), last=SpikesOnly(SRC(40, 20)), votes=LeakyReadout(4, 5))
    )


def delayed_recurrence() -> nn.Sequential:
    delays = 8 * torch.rand(30)
    layer = SRC(INPUTS, 30, 2, recurrent=True, delay_hh=delays, max_delay=8, delay_width=2, learnable=("delay_hh",))
    return nn.Sequential(SpikesOnly(layer), LinearReadout(30, 5, alpha=0.9))


def standardise(*shape: int) -> srcell.Standardise:
    return srcell.Standardise(0.1 * torch.randn(shape), 0.5 + torch.rand(shape))


def drawn(network: nn.Module) -> nn.Module:
    """The network with weights of skip connections, which begin at 0."""
    for readout in network.modules():
        if isinstance(readout, LinearReadout) and readout.skip is not None:
            nn.init.normal_(readout.skip.weight)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "votes": lambda: nn.Sequential(SpikesOnly(SRC(INPUTS, 33)), SpikesOnly(SRC(33, 40)), LeakyReadout(4)),
    "stacked": lambda: nn.Sequential(
        SpikesOnly(SRC(INPUTS, 30, 3, dropout=0.5, initial_state="rest")), LinearReadout(30, 5, window=7)
    ),
    "delayed in the middle": lambda: nn.Sequential(
        SpikesOnly(SRC(INPUTS, 30)), SpikesOnly(Delay(30, 9)), SpikesOnly(SRC(30, 20, 2)), LinearReadout(20, 3)
    ),
    "two delayed layers": lambda: nn.Sequential(
        SpikesOnly(Delay(INPUTS, 12, taps=3)),
        SpikesOnly(SRC(INPUTS * 3, 30)),
        AsEvents(),
        SpikesOnly(Delay(30, 7, delay_width=2, learnable=False)),
        SpikesOnly(SRC(30, 20)),
        LeakyReadout(2),
    ),
    "delayed recurrence": delayed_recurrence,
    "resonant": lambda: nn.Sequential(
        SpikesOnly(SRC(INPUTS, 50, omega=srcell.spread_frequencies(0.05, 2), recurrent=True, **SEQUENCE)),
        SpikesOnly(SRC(50, 20)),
        LeakyReadout(2),
    ),
    "bare layers": lambda: Sequential(
        Delay(INPUTS, 6), SRC(INPUTS, 30, 2), nn.Sequential(nn.Dropout(), SpikesOnly(SRC(30, 20))), LeakyReadout(4, 5)
    ),
    "no readout": lambda: nn.Sequential(SpikesOnly(SRC(INPUTS, 30)), SpikesOnly(SRC(30, 20, recurrent=True))),
    "maps": lambda: nn.Sequential(nn.Flatten(2), SpikesOnly(SRC(INPUTS, 30)), LinearReadout(30, 5)),
    "named and nested": named,
    "integers": lambda: nn.Sequential(
        SpikesOnly(IntegerSRC(INPUTS, 30, weight_bits=8)),
        nn.Dropout(0.2),
        SpikesOnly(IntegerSRC(30, 20, weight_bits=6, initial_state="rest")),
        LeakyReadout(2),
    ),
    "a module of the user's": lambda: nn.Sequential(Skips(), SpikesOnly(SRC(20, 30)), LinearReadout(30, 4)),
    "the same layer twice": shared,
    "a classifier": lambda: nn.Sequential(SpikesOnly(SRC(INPUTS, 30)), SRCClassifier(30, [20], 4, input_delay=5)),
    "standardised": lambda: Sequential(
        standardise(INPUTS), SRC(INPUTS, 30, recurrent=True), nn.Dropout(), SRC(30, 20), LinearReadout(20, 3)
    ),
    "standardised, delayed": lambda: nn.Sequential(
        standardise(INPUTS), SpikesOnly(Delay(INPUTS, 6, taps=2)), SpikesOnly(SRC(2 * INPUTS, 20)), LeakyReadout(2)
    ),
    "a skip connection": lambda: drawn(Sequential(SRC(INPUTS, 30), nn.Dropout(), LinearReadout(30, 3, skip=INPUTS))),
    "a skip connection behind Standardise": lambda: drawn(
        Sequential(standardise(INPUTS), Delay(INPUTS, 5), SRC(INPUTS, 30), LinearReadout(30, 3, window=7, skip=INPUTS))
    ),
    "a classifier with a skip connection": lambda: drawn(
        SRCClassifier(INPUTS, [30], 3, readout="linear", skip=True, standardise=standardise(INPUTS), input_delay=4)
    ),
    "samples first": lambda: nn.Sequential(
        SpikesOnly(SRC(INPUTS, 30, batch_first=True)), SpikesOnly(SRC(30, 20, batch_first=True))
    ),
}
# What torch multiplies and adds in an order of its own, so that only the runtime's order gives the runtime's bits.
PRODUCTS: dict[str, Callable[[], nn.Module]] = {
    "a map": lambda: nn.Sequential(
        nn.Unflatten(2, MAP),
        SpikesOnly(SRCConv2d(2, 6, 3, padding=1, **SEQUENCE)),
        nn.Flatten(2),
        SpikesOnly(SRC(72, 20)),
        LinearReadout(20, 3),
    ),
    "maps with strides, groups and dilation": lambda: nn.Sequential(
        nn.Unflatten(2, (2, 4, 3)),
        SpikesOnly(SRCConv2d(2, 6, (3, 2), stride=(2, 1), padding=(2, 1), groups=2, zs_hyp=0.5)),
        nn.Dropout(0.2),
        SpikesOnly(SRCConv2d(6, 4, (2, 4), padding="same", dilation=(2, 2), learn_bias=False, initial_state="rest")),
        SpikesOnly(SRCConv2d(4, 5, 2, omega=srcell.spread_frequencies(0.05, 2), **SEQUENCE)),
        nn.Flatten(2),
        LinearReadout(30, 3, alpha=0.9),
    ),
    "a classifier of maps": lambda: SRCConvClassifier((2, 12, 1), [4, 6], [30], 5, alpha=0.95),
    "Linear, recurrence": lambda: nn.Sequential(
        nn.Linear(INPUTS, 16), SpikesOnly(SRC(16, 30, recurrent=True, **SEQUENCE)), nn.Linear(30, 4)
    ),
    "Delay, Linear, Linear": lambda: nn.Sequential(
        SpikesOnly(Delay(INPUTS, 6, taps=2)),
        nn.Linear(2 * INPUTS, 16),
        nn.Linear(16, 12, bias=False),
        SpikesOnly(SRC(12, 30, 2)),
        nn.Linear(30, 20, bias=False),
        LinearReadout(20, 4, window=9),
    ),
    "a standardised map": lambda: nn.Sequential(
        nn.Unflatten(2, MAP),
        standardise(*MAP),
        SpikesOnly(SRCConv2d(2, 4, 2)),
        nn.Flatten(2),
        SpikesOnly(SRC(24, 10)),
        LinearReadout(10, 3),
    ),
    "standardised, Linear": lambda: Sequential(
        nn.Flatten(2), standardise(INPUTS), nn.Linear(INPUTS, 16), SRC(16, 20), nn.Linear(20, 4)
    ),
    "map, Linear": lambda: nn.Sequential(
        nn.Unflatten(2, MAP),
        SpikesOnly(SRCConv2d(2, 4, 2)),
        nn.Flatten(2),
        nn.Linear(24, 10),
        SpikesOnly(SRC(10, 30)),
        nn.Linear(30, 20, bias=False),
        LinearReadout(20, 3, alpha=0.0),
    ),
}
# Here a Delay gets dense spikes: it then adds the two parts of a spike to those of its neighbours in time, and the next
# layer sums in another order than the runtime, which has events.
DENSE_DELAYS = ("delayed in the middle", "a classifier")


def composed() -> dict[str, tuple[bytes, EventBatch]]:
    """The files of all networks above, each with events for it."""
    return {name: (bytes_of(made(name)[0]), EventBatch.from_dense(input_of(name))) for name in (*NETWORKS, *PRODUCTS)}


@functools.cache
def made(name: str) -> tuple[nn.Module, runtime.Network]:
    torch.manual_seed(len(name))
    network = (NETWORKS | PRODUCTS)[name]().eval()
    return network, exported(network)


def input_of(name: str) -> Tensor:
    spikes = (torch.rand(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(1)) < 0.1).float()
    graded = 0.5 + torch.rand(spikes.shape, generator=torch.Generator().manual_seed(2))
    return spikes if name == "integers" else spikes * graded


def given_to(name: str, x: Tensor) -> Tensor | EventBatch:
    """An input (T, B, K) as the network takes it."""
    if name == "maps":
        return x.unflatten(2, MAP)
    if name in PRODUCTS:
        return x.unflatten(2, (2, 12, 1)) if name == "a classifier of maps" else x
    return x.transpose(0, 1) if name == "samples first" else EventBatch.from_dense(x)


@contextmanager
def calls_on_events(network: nn.Module) -> Iterator[list[Tensor]]:
    """Give each layer and delay its input as events, as the runtime does; yields the list of the layers' spikes."""
    spikes: list[Tensor] = []

    def as_events(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        (x,) = arguments
        return (EventBatch.from_dense(x) if isinstance(x, Tensor) and not getattr(module, "batch_first", False) else x,)

    handles = []
    for module in network.modules():
        if isinstance(module, SRC | IntegerSRC | Delay):
            handles.append(module.register_forward_pre_hook(as_events))
        if isinstance(module, SRC | IntegerSRC):
            handles.append(module.register_forward_hook(lambda module, _, output: spikes.append(output[0])))
    yield spikes
    for handle in handles:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_spikes_are_those_of_the_layers_bit_for_bit_and_logits_agree(name: str) -> None:
    network, net = made(name)
    x = input_of(name)
    with calls_on_events(network) as spikes:
        output = network(given_to(name, x))
    last = spikes[-1].transpose(0, 1) if name == "samples first" else spikes[-1]
    found = net.spikes(x)
    assert all((layer > 0).any() for layer in found) and np.array_equal(found[-1], last.numpy())
    if net.num_classes:
        assert output.any()
        torch.testing.assert_close(torch.from_numpy(net.run(x)), output, rtol=1e-5, atol=1e-5)
    if name not in DENSE_DELAYS:
        torch.testing.assert_close(network(given_to(name, x)), output, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_in_another_order_give_nearly_the_same_spikes_and_logits(name: str) -> None:
    network, net = made(name)
    x = input_of(name)
    spikes: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, SRC | SRCConv2d):
            module.register_forward_hook(lambda module, _, output: spikes.append(output[0].flatten(2)))
    output = network(given_to(name, x))
    found = net.spikes(x)
    assert all((layer > 0).any() for layer in found)
    assert np.mean((found[-1] > 0) == (spikes[-1].numpy() > 0)) > 0.999
    torch.testing.assert_close(torch.from_numpy(net.run(x)), output, rtol=1e-3, atol=1e-3)


def currents_of(layer: SRCConv2d, events: Tensor) -> Tensor:
    """The currents of maps (T, B, C, H, W), one event after the other, each product rounded before it is added."""
    _, _, _, height, width, *rest = layer.geometry(*events.shape[3:])
    (down, across, top, left, far_down, far_across), x = rest, events.numpy()
    weight, in_group = layer.weight.detach().numpy(), layer.weight.shape[1]
    of_group = layer.out_channels // layer.groups
    made = np.zeros((*x.shape[:2], layer.out_channels, height, width), np.float32)
    for t, b, c, y, x_ in zip(*x.nonzero(), strict=True):
        channels = slice(c // in_group * of_group, (c // in_group + 1) * of_group)
        for ky, kx in np.ndindex(*weight.shape[2:]):
            to_y, to_x = y + top - ky * far_down, x_ + left - kx * far_across
            if 0 <= to_y < height * down and 0 <= to_x < width * across and not (to_y % down or to_x % across):
                place = (t, b, channels, to_y // down, to_x // across)
                made[place] += weight[channels, c % in_group, ky, kx] * x[t, b, c, y, x_]
    return torch.from_numpy(made)


@torch.no_grad()
@pytest.mark.parametrize("name", ["a map", "maps with strides, groups and dilation", "a classifier of maps"])
def test_a_convolution_has_the_bits_of_its_events_in_their_order(name: str) -> None:
    network, net = made(name)
    x = input_of(name)[:30]
    below = given_to(name, x)
    assert isinstance(below, Tensor)
    below = below.unflatten(2, network[0].unflattened_size) if name != "a classifier of maps" else below  # type: ignore[index]
    layers = [module for module in network.modules() if isinstance(module, SRCConv2d)]
    for layer, found in zip(layers, net.spikes(x), strict=False):
        current = currents_of(layer, below)
        start, cell = layer._initial_state("", BATCH, *current.shape[3:]), layer._cell_over_space("", 2)
        expected, _ = srcell.src(current, layer.bias.view(-1, 1, 1), start, **cell)
        below, _ = with_method(layer, "events")(below)
        assert below.any() and np.array_equal(found, below.flatten(2).numpy()) and torch.equal(below, expected)


@torch.no_grad()
def test_a_convolution_that_knows_its_maps_takes_events_and_is_exported() -> None:
    torch.manual_seed(1)
    layer = SRCConv2d(2, 6, 3, padding=1, input_size=(4, 3), **SEQUENCE)
    network = Sequential(layer, nn.Flatten(2), SRC(72, 20), LinearReadout(20, 3)).eval()
    net, events = exported(network), EventBatch.from_dense(input_of("a map"))
    spikes, _ = layer(events)
    assert spikes.any() and np.array_equal(net.spikes(input_of("a map"))[0], spikes.flatten(2).numpy())
    torch.testing.assert_close(torch.from_numpy(net.run(input_of("a map"))), network(events))


def with_method(layer: SRCConv2d, method: str) -> SRCConv2d:
    made = copy.copy(layer)
    made.method = method
    return made


@torch.no_grad()
def test_a_linear_is_multiplied_into_the_layer_and_its_bias_is_an_input_that_is_always_active() -> None:
    network, net = made("Linear, recurrence")
    linear, layer = network[0], network[1].layer  # type: ignore[index]
    x, lengths = input_of("Linear, recurrence"), torch.tensor([60, 0, 17, 42])
    alone = copy.deepcopy(layer)
    weight = layer.weight_ih_l0.double()
    constant = weight @ linear.bias.double()
    alone.weight_ih_l0 = nn.Parameter(torch.cat([weight @ linear.weight.double(), constant[:, None]], 1).float())
    alone.input_size += 1
    given = torch.cat([x, torch.ones(STEPS, BATCH, 1)], 2)
    for ends in (None, lengths):
        expected, _ = alone(EventBatch.from_dense(given, ends))
        found = net.spikes(EventBatch.from_dense(x, ends))[0]
        assert expected.any() and np.array_equal(found, expected.numpy())
    (of_layer, _) = net.counts(x)
    assert of_layer.events == np.count_nonzero(x) / BATCH
    active = np.count_nonzero(net.spikes(x)[0]) / BATCH
    assert of_layer.synaptic_operations == (of_layer.events + STEPS + active) * 30


def test_operations_of_a_convolution_are_the_weights_through_which_events_pass() -> None:
    network, net = made("a classifier of maps")
    x = (input_of("a classifier of maps") != 0).float()
    found = net.counts(x)
    assert isinstance(network, Classifier)
    for counts, ways, spikes in zip(found, network.fan_outs(), [x.numpy(), *net.spikes(x)], strict=True):
        assert counts.synaptic_operations == np.einsum("tbk,k->", spikes != 0, ways.flatten().numpy()) / BATCH
        assert counts.weight_bytes == 4 * counts.synaptic_operations
    assert [layer.map for layer in net.layers] == [(4, 6, 1), (6, 3, 1), None, None]
    floats = (x for x in safetensors.torch.load(bytes_of(network)).values() if x.dtype == torch.float32)
    assert net.nbytes == 4 * sum(x.numel() for x in floats)


def test_a_classifier_and_its_modules_give_the_same_file_of_maps() -> None:
    torch.manual_seed(5)
    classifier = SRCConvClassifier(MAP, [4], [20], 5)
    layers = [SpikesOnly(layer) for layer in classifier.layers]
    network = nn.Sequential(*layers, classifier.readout)
    unflattened = nn.Sequential(nn.Unflatten(2, MAP), *layers, classifier.readout)
    content = bytes_of(classifier)
    assert content == bytes_of(unflattened) == bytes_of(nn.Sequential(nn.Dropout(), classifier))
    assert content == bytes_of(network, MAP)


@pytest.mark.parametrize("name", NETWORKS | PRODUCTS)
def test_a_stream_gives_the_bits_of_a_run_and_may_be_saved_and_restored(name: str) -> None:
    net, x = made(name)[1], input_of(name).numpy()
    spikes, logits = net.spikes(x)[-1], net.run(x, every_step=False)
    stream = net.stream(BATCH)
    for t, row in enumerate(x):
        if t % 13 == 5:
            saved, stream = stream.save(), net.stream(BATCH)
            stream.step(x[0])
            stream.restore(saved)
        assert np.array_equal(stream.step(row), spikes[t])
    assert np.array_equal(stream.logits(), logits)


@pytest.mark.parametrize("name", NETWORKS | PRODUCTS)
def test_the_mode_does_not_change_the_file(name: str) -> None:
    network, net = made(name)
    assert bytes_of(network.train()) == bytes_of(network.eval())
    assert [layer.neurons for layer in exported(network).layers] == [layer.neurons for layer in net.layers]


@pytest.mark.release
@pytest.mark.skipif(not EXPORTS_ONNX, reason="needs torch 2.6")
@pytest.mark.parametrize("name", [name for name in (*NETWORKS, *PRODUCTS) if name != "two delayed layers"])
def test_onnxruntime_gives_nearly_the_same_spikes_or_logits(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason='pip install "srcell[test]"')
    from srcell.onnx import export as export_onnx

    network, x = made(name)[0], given_to(name, input_of(name))
    x = x.to_dense() if isinstance(x, EventBatch) else x  # where a module makes events of it, ONNX has no operator
    export_onnx(network, tmp_path / "net.onnx", x)
    (found,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"input": x.numpy()})
    with torch.no_grad():
        wanted = network(x).numpy()
    assert wanted.any() and np.mean((found > 0) == (wanted > 0)) > 0.999
    np.testing.assert_allclose(found, wanted, rtol=0.01, atol=0.01)


def test_delays_belong_to_the_first_layer_above_them() -> None:
    most = [layer.max_delay for layer in made("delayed in the middle")[1].layers]
    assert most[0] == most[2] == 0 and 0 < most[1] <= 10
    first, second = (layer.max_delay for layer in made("two delayed layers")[1].layers)
    assert first > second > 2  # of a width of 2, one step longer


@torch.no_grad()
def test_with_lengths_logits_are_those_of_each_sample_s_last_step() -> None:
    network, net = made("votes")
    x, lengths = input_of("votes"), torch.tensor([60, 0, 17, 42])
    first, second, readout = network[0].layer, network[1].layer, network[2]  # type: ignore[index]
    below, _ = first(x, lengths=lengths)
    spikes, _ = second(below, lengths=lengths)
    events = EventBatch.from_dense(x, lengths)
    assert np.array_equal(net.spikes(events)[-1], spikes.numpy())
    expected = readout(spikes, lengths=lengths)
    torch.testing.assert_close(torch.from_numpy(net.run(events)), expected, rtol=1e-5, atol=1e-5)


def test_a_sequential_network_and_a_classifier_of_the_same_modules_give_the_same_file() -> None:
    classifier = SRCClassifier(INPUTS, [30], 4, input_delay=5)
    modules = [classifier.delay, *classifier.layers, classifier.readout]
    wrapped = [x if isinstance(x, LeakyReadout) else SpikesOnly(x) for x in modules]
    network = nn.Sequential(*wrapped)
    assert bytes_of(network) == bytes_of(classifier) == bytes_of(nn.Sequential(classifier))
    classifier.encoder = network.encoder = data.RateEncoding(steps=7)  # type: ignore[assignment]
    assert bytes_of(network) == bytes_of(classifier) != bytes_of(nn.Sequential(classifier))
    encoder = exported(network).encoder
    assert encoder is not None and (encoder["name"], encoder["steps"]) == ("RateEncoding", 7)


def test_an_encoder_that_is_a_module_is_not_written() -> None:
    network = Skips()
    network.encoder = nn.Linear(2, 2)
    assert exported(network).encoder is None


class Mixed(nn.Sequential):
    """A subclass whose forward does something else."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input) * 2
        return output


class Offers(nn.Module):
    """Offers anything as its parts."""

    def __init__(self, parts: Any) -> None:
        super().__init__()
        self.layer, self.parts = SRC(3, 4), parts

    def export_parts(self) -> Any:
        return [self if part == "self" else part for part in self.parts] if isinstance(self.parts, list) else self.parts


def refused(*modules: Any) -> Callable[[], None]:
    return lambda: export(nn.Sequential(*modules), "/nowhere/net.srcell")


def hooked(hook: Callable[[nn.Module], object]) -> None:
    linear = nn.Linear(4, 3)
    hook(linear)
    refused(LAYER, linear)()


def replaced_forward() -> None:
    linear = nn.Linear(3, 3)
    linear.forward = lambda x: 2 * x  # type: ignore[method-assign]
    refused(linear, LAYER)()


def refused_alone(network: Any) -> Callable[[], None]:
    return lambda: export(network, "/nowhere/net.srcell")


LAYER, VOTES = SpikesOnly(SRC(3, 4)), LeakyReadout(2, 2)
CONV = SpikesOnly(SRCConv2d(2, 4, 3))
OTHER = "expected a layer, a readout, .* or a module with export_parts.*: leave it out, or let export_parts"


@refusals(
    Message(rf"network \(GRU\): {OTHER}", refused_alone(nn.GRU(2, 2)), TypeError),
    Message(rf"network \(str\): {OTHER}", refused_alone("net"), TypeError),
    Message(rf"network.1 \(ReLU\): {OTHER}", refused(LAYER, nn.ReLU()), TypeError),
    Message(rf"network.1.0 \(Mixed\): {OTHER}", refused(LAYER, nn.Sequential(Mixed(LAYER))), TypeError),
    Message(rf"network.0 \(SRCCell\): {OTHER}", refused(srcell.SRCCell(3, 4)), TypeError),
    *(
        Message(
            rf"network.1 \(Linear\): expected an SRC, a LinearReadout or nothing after it, .*, got network.2{name}",
            refused(first, nn.Linear(4, 4), after),
        )
        for first, after, name in (
            (LAYER, SpikesOnly(Delay(4, 3)), r".layer \(Delay\)"),
            (LAYER, VOTES, r" \(LeakyReadout\)"),
            (SpikesOnly(IntegerSRC(3, 4)), SpikesOnly(IntegerSRC(4, 4)), r".layer \(IntegerSRC\)"),
            (LAYER, SpikesOnly(SRCConv2d(1, 4, 2)), r".layer \(SRCConv2d\)"),
        )
    ),
    Message(
        r"network.2 \(Linear\): expected no bias before network.3 \(LinearReadout\), in any nn.Linear, got one",
        refused(LAYER, nn.Linear(4, 3), nn.Linear(3, 3, bias=False), LinearReadout(3, 2)),
    ),
    *(
        Message(
            r"network.1.layer \(Delay\): expected an SRC after it, whose inputs it delays, got " + got,
            refused(LAYER, SpikesOnly(Delay(4, 3)), nn.Linear(4, 3, bias=False), *after),
        )
        for got, after in (("nothing", []), (r"network.3 \(LinearReadout\)", [LinearReadout(3, 2)]))
    ),
    Message(
        r"network.2.layer \(SRC\): expected integer neurons as in network.0.layer \(IntegerSRC\), .*, got float",
        refused(SpikesOnly(IntegerSRC(3, 4)), nn.Linear(4, 4), SpikesOnly(SRC(4, 4))),
    ),
    *(
        Message(
            rf"network.1 \(Linear\): expected weights of its own, got a hook .*{name}", lambda hook=hook: hooked(hook)
        )
        for name, hook in (
            ("WeightNorm", nn.utils.weight_norm),
            ("SpectralNorm", nn.utils.spectral_norm),
            ("RandomUnstructured", lambda linear: nn.utils.prune.random_unstructured(linear, "weight", 0.5)),
        )
    ),
    Message(rf"network.0 \(Linear\): {OTHER}", lambda: replaced_forward(), TypeError),
    Message(
        r"network.1 \(Linear\): expected at most 2\^28 weights in its product with those behind it, got 20000 x 20000",
        refused(SpikesOnly(SRC(1, 20000)), nn.Linear(20000, 1), SpikesOnly(SRC(1, 20000))),
    ),
    Message(
        r"network.1 \(Flatten\): expected end_dim=-1, which leaves no dimension, got 3", refused(CONV, nn.Flatten(2, 3))
    ),
    Message(
        r"network.3.layer \(SRCConv2d\): expected nn.Unflatten\(2, \(C, H, W\)\) or maps before it, got 36 inputs",
        refused(nn.Unflatten(2, (2, 5, 5)), CONV, nn.Flatten(2), SpikesOnly(SRCConv2d(4, 2, 3))),
    ),
    Message(
        r"network.export_parts\(\)\[0\] \(Unflatten\): expected \(8, 8, 1\), as input_shape .* gives, got \(1, 8, 8\)",
        lambda: export(SRCConvClassifier((1, 8, 8), [2], [4], 2), "/nowhere/net.srcell", (8, 8, 1)),
    ),
    Message(
        r"network.2.layer \(SRCConv2d\): expected at most 4194304 neurons in maps, .*, got 6291456 and ",
        refused(nn.Unflatten(2, (1, 1024, 1024)), *(SpikesOnly(SRCConv2d(c, 3, 1)) for c in (1, 3))),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): expected at most 4194304 neurons in maps, .*, got \d+ and 8392705",
        refused(nn.Unflatten(2, (1, 4096, 1)), SpikesOnly(SRCConv2d(1, 1, (2049, 1)))),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): .*, and sizes and strides up to 1048576, got",
        refused(nn.Unflatten(2, (1, 4, 4)), SpikesOnly(SRCConv2d(1, 1, 1, stride=2**31))),
    ),
    Message(
        r"network.0 \(Unflatten\): expected nn.Unflatten\(2, \(C, H, W\)\), got",
        refused(nn.Unflatten(2, (2, -1, 4)), CONV),
    ),
    Message(
        r"network.1 \(Linear\): expected 4 inputs, as network.0.layer \(SRC\) gives, got 5",
        refused(LAYER, nn.Linear(5, 3)),
    ),
    Message(
        r"network.2.layer \(SRC\): expected 3 inputs, as network.1 \(Linear\) gives, got 4",
        refused(LAYER, nn.Linear(4, 3), SpikesOnly(SRC(4, 4))),
    ),
    Message(
        r"network.1 \(Linear\): expected weights of torch.float32, got torch.float64",
        refused(LAYER, nn.Linear(4, 3, dtype=torch.float64)),
    ),
    Message(
        r"network.2.layer \(SRC\): expected batch_first=False beside network.0.layer \(Delay\), .*, got True",
        refused(SpikesOnly(Delay(3, 2)), nn.Linear(3, 4), SpikesOnly(SRC(4, 4, batch_first=True))),
    ),
    Message(
        r"network.0.layer \(SRCConv2d\): expected nn.Unflatten\(2, \(C, H, W\)\) or maps before it, got an input of "
        "any shape: pass input_shape",
        refused(CONV, nn.Flatten(2)),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): expected nn.Unflatten\(2, \(C, H, W\)\) or maps .*, got 4 inputs",
        refused(LAYER, CONV),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): expected 3 channels, as network.0 \(Unflatten\) gives, got 2",
        refused(nn.Unflatten(2, (3, 5, 5)), CONV),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): expected from 1 to .* inputs and neurons, .* got a map \(4, 3, 0\) of an "
        r"input \(2, 5, 2\)",
        refused(nn.Unflatten(2, (2, 5, 2)), CONV),
    ),
    Message(
        r"network.1.layer \(SRCConv2d\): expected from 1 to 4194304 inputs and neurons, and sizes .*, got "
        r"a map \(4, 2998, 2998\)",
        refused(nn.Unflatten(2, (2, 3000, 3000)), CONV),
    ),
    Message(
        r"network.2.layer \(SRC\): expected 36 inputs, as network.1.layer \(SRCConv2d\) gives, got 4",
        refused(nn.Unflatten(2, (2, 5, 5)), CONV, SpikesOnly(SRC(4, 4))),
    ),
    Message(
        r"network.0 \(Unflatten\): expected nn.Unflatten\(2, \(C, H, W\)\), got Unflatten\(dim=1",
        refused(nn.Unflatten(1, (2, 5, 5)), CONV),
    ),
    Message(
        r"network.0 \(Unflatten\): expected nn.Unflatten\(2, \(C, H, W\)\), got",
        refused(nn.Unflatten(2, (10, 5)), CONV),
    ),
    *(
        Message(expected, lambda shape=shape: export(nn.Sequential(CONV), "/nowhere/net.srcell", shape), kind)
        for expected, shape, kind in (
            (r"input_shape: expected \(C, H, W\), got \(2, 5\)", (2, 5), ValueError),
            (r"input_shape: expected \(C, H, W\), got 25", 25, ValueError),
            (r"input_shape: .*got float", (2, 5.0, 5), TypeError),
            (r"input_shape: expected an int in \[1, 1048576\], got 0", (2, 0, 5), ValueError),
            (
                r"network.0.layer \(SRCConv2d\): expected 3 channels, as input_shape .* gives, got 2",
                (3, 5, 5),
                ValueError,
            ),
        )
    ),
    *(
        Message(
            rf"network.1 \({type(layer).__name__}\): expected SpikesOnly around it, because it returns",
            refused(LAYER, layer),
            TypeError,
        )
        for layer in (SRC(4, 4), IntegerSRC(4, 4), Delay(4, 3))
    ),
    Message(
        r"network.1.0 \(SRC\): expected SpikesOnly around it, .*, or srcell.Sequential",
        lambda: export(Sequential(SRC(3, 4), nn.Sequential(SRC(4, 4))), "/nowhere/net.srcell"),
        TypeError,
    ),
    Message(
        r"network.0 \(Flatten\): expected start_dim=2, which keeps steps and samples, got 1",
        refused(nn.Flatten(), LAYER),
    ),
    Message(
        r"network.1.layer \(Delay\): expected an SRC after it, .*, got network.2.layer \(Delay\)",
        refused(LAYER, SpikesOnly(Delay(4, 3)), SpikesOnly(Delay(4, 3)), SpikesOnly(SRC(4, 4))),
    ),
    Message(
        r"network.1.layer \(Delay\): expected an SRC after it, whose inputs it delays, got nothing",
        refused(LAYER, SpikesOnly(Delay(4, 3)), nn.Dropout()),
    ),
    Message(
        r"network.1.layer \(Delay\): expected an SRC after it, .*, got network.2 \(LeakyReadout\)",
        refused(LAYER, SpikesOnly(Delay(4, 3)), VOTES),
    ),
    Message(
        r"network.0.layer \(Delay\): expected an SRC after it, .*, got network.1.layer \(IntegerSRC\)",
        refused(SpikesOnly(Delay(3, 3)), SpikesOnly(IntegerSRC(3, 4))),
    ),
    Message(r"network \(Delay\): expected an SRC after it, .*, got nothing", refused_alone(Delay(3, 3))),
    Message(
        r"network.1 \(LeakyReadout\): expected a readout at the end of the network, got network.2.layer \(SRC\) after",
        refused(LAYER, VOTES, LAYER),
    ),
    Message(
        r"network.1.layer \(IntegerSRC\): expected float neurons as in network.0.layer \(SRC\), .*, got integer",
        refused(LAYER, SpikesOnly(IntegerSRC(4, 4))),
    ),
    Message(
        r"network.1.layer \(Delay\): expected integer neurons .*, got a Delay, which only float neurons take",
        refused(SpikesOnly(IntegerSRC(3, 4)), SpikesOnly(Delay(4, 2)), SpikesOnly(SRC(4, 4))),
    ),
    Message(
        r"network.0.layer \(SRC\): expected batch_first=False beside network.1 \(LeakyReadout\), .*, got True",
        refused(SpikesOnly(SRC(3, 4, batch_first=True)), VOTES),
    ),
    Message(
        r"network.1.layer \(SRC\): expected batch_first=False beside network.0.layer \(Delay\), .*, got True",
        refused(SpikesOnly(Delay(3, 2)), SpikesOnly(SRC(3, 4, batch_first=True))),
    ),
    Message(
        r"network.2.layer \(SRC\): expected 4 inputs, as network.0.layer \(SRC\) gives, got 5",
        refused(LAYER, nn.Dropout(), SpikesOnly(SRC(5, 4))),
    ),
    Message(
        r"network.1.layer \(SRC\): expected 6 inputs, as network.0.layer \(Delay\) gives, got 3",
        refused(SpikesOnly(Delay(3, 4, taps=2)), LAYER),
    ),
    Message(
        r"network.1 \(LeakyReadout\): expected 4 inputs, as network.0.layer \(SRC\) gives, got 20",
        refused(LAYER, LeakyReadout(2)),
    ),
    Message(
        r"network.1 \(LinearReadout\): expected 4 inputs, as network.0.layer \(SRC\) gives, got 5",
        refused(LAYER, LinearReadout(5, 2)),
    ),
    Message(
        r"network.1 \(LinearReadout\): expected a window of at most 1048576 steps for 4 neurons, got 1048577",
        refused(LAYER, LinearReadout(4, 2, window=2**20 + 1)),
    ),
    Message(
        r"network.1 \(LinearReadout\): expected a window of at most 131072 steps for 2048 neurons, got 131073",
        refused(SpikesOnly(SRC(1, 2048)), LinearReadout(2048, 2, window=2**17 + 1)),
    ),
    Message(r"network \(Sequential\): expected at least one layer of neurons, got none", refused(nn.Identity())),
    Message(r"network \(LeakyReadout\): expected at least one layer", refused_alone(VOTES)),
    Message(
        r"network.1.layer \(SRC\): expected inputs and neurons in every layer, got \(0, 4\)",
        refused(LAYER, SpikesOnly(SRC(4, 0))),
    ),
    Message(
        r"network.1.layer \(SRC\): expected weights of torch.float32, got torch.float64",
        refused(LAYER, SpikesOnly(SRC(4, 4, dtype=torch.float64))),
    ),
    Message(r"network.0.export_parts\(\): expected a sequence of modules, got int", refused(Offers(3)), TypeError),
    Message(rf"network.export_parts\(\)\[0\] \(int\): {OTHER}", refused_alone(Offers([3])), TypeError),
    Message(
        r"network.export_parts\(\)\[0\] \(Offers\): expected the modules inside .*, got the module itself",
        refused_alone(Offers(["self"])),
    ),
)
def test_what_cannot_be_exported_is_refused_by_its_place(refusal: Refusal) -> None:
    refusal.check()


def test_a_refusal_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 4 inputs"):
        export(nn.Sequential(LAYER, LAYER), tmp_path / "net.srcell")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def broken(module: nn.Module, name: str, value: float) -> None:
    """Put a number into a parameter or buffer, as training or a user may."""
    tensor = {**dict(module.named_parameters()), **dict(module.named_buffers())}[name]
    tensor.view(-1)[-1] = value


OF_LAYER: dict[str, Any] = {
    "recurrent": True,
    "delay_hh": torch.ones(4),
    "max_delay": 2,
    "learnable": ["delay_hh", "rho"],
}
NOT_FINITE: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    **{
        name: (lambda: Sequential(SRC(3, 4, 2, omega=0.2, **OF_LAYER), LeakyReadout(2, 2)), f"0.{name}_l1", value)
        for name, value in (("delay_hh", torch.nan), ("bias", torch.inf), ("weight_ih", torch.nan), ("rho", torch.inf))
    },
    "weight_hh": (lambda: nn.Sequential(SpikesOnly(SRC(3, 4, **OF_LAYER))), "0.layer.weight_hh_l0", -torch.inf),
    "an initial state": (
        lambda: Sequential(SRC(3, 4, recurrent=True, learn_initial_state=True)), "0.h0_l0", torch.nan
    ),
    "a delay": (lambda: Sequential(Delay(3, 4), SRC(3, 4)), "0.delay", torch.nan),
    "a map": (lambda: Sequential(nn.Unflatten(2, (1, 3, 3)), SRCConv2d(1, 2, 2)), "1.bias", torch.nan),
    "integers": (lambda: Sequential(IntegerSRC(3, 4), IntegerSRC(4, 4)), "1.weight_ih_l0", torch.nan),
    "nn.Linear": (lambda: Sequential(nn.Linear(3, 3), SRC(3, 4)), "0.bias", torch.nan),
    "a readout": (lambda: Sequential(SRC(3, 4), LinearReadout(4, 2)), "1.linear.weight", torch.nan),
    "a classifier": (lambda: SRCClassifier(3, [4], 2, alpha=srcell.spread(0.5, 0.9)), "layers.0.alpha_l0", torch.nan),
}  # fmt: skip
OUTSIDE: dict[str, tuple[Callable[[], nn.Module], str, float, str]] = {
    "alpha": (
        lambda: Sequential(SRC(3, 4), SRC(4, 4, 2, alpha=srcell.spread(0.5, 0.9))), "1.alpha_l1", 1.5,
        r"network.1 \(SRC\): layers.2.alpha: expected",
    ),
    "rho": (lambda: SRC(3, 4, rho=torch.ones(4)), "rho_l0", 0.0, r"network \(SRC\): layers.0.rho: expected"),
    "a product": (
        lambda: Sequential(nn.Linear(3, 3), SRC(3, 4), LinearReadout(4, 2)), "1.weight_ih_l0", 3e38,
        r"network.1 \(SRC\): layers.0.weight: expected finite numbers",
    ),
}  # fmt: skip


def check_kept(network: nn.Module, name: str, value: float, message: str) -> None:
    """Assert that a network is refused once a tensor holds a value, and that the older file stays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.srcell"
        export(network, path)
        before = path.read_bytes()
        runtime.Network(before)
        broken(network, name, value)
        with pytest.raises(ValueError, match=f"^{message}"):
            export(network, path)
        assert path.read_bytes() == before and [*Path(folder).iterdir()] == [path]


@pytest.mark.parametrize("name", NOT_FINITE)
def test_numbers_that_are_not_finite_are_refused_and_keep_the_older_file(name: str) -> None:
    make, tensor, value = NOT_FINITE[name]
    place, parameter = tensor.rsplit(".", 1) if name != "a readout" else ("1", "linear.weight")
    check_kept(make(), tensor, value, rf"network.{place} \(\w+\): expected finite numbers in {parameter}, got {value}")


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_the_runtime_would_refuse_is_not_written(name: str) -> None:
    make, tensor, value, message = OUTSIDE[name]
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            if name == "a product" and parameter.dim() == 2:
                parameter.fill_(2.0)
    check_kept(network, tensor, value, message)


def test_a_readout_or_an_encoder_outside_its_domain_is_not_written() -> None:
    network = Sequential(SRC(3, 4), LinearReadout(4, 2))
    network[1].alpha = 2.0
    with pytest.raises(ValueError, match=r"^network.1 \(LinearReadout\): readout.constants: expected an alpha"):
        export(network, "/nowhere/net.srcell")
    encoding = data.SoundEncoding(bands=4, threshold=0.1)
    network = Sequential(SRC(encoding.inputs, 4))
    network.encoder = encoding  # type: ignore[assignment]
    object.__setattr__(encoding, "threshold", -1.0)
    with pytest.raises(ValueError, match=r"^network: sound.constants: expected a finite threshold"):
        export(network, "/nowhere/net.srcell")
