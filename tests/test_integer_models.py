"""Networks of integer neurons: their layers, training, rounding, evaluation, run folders and settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import srcell
from srcell import IntegerCell, IntegerSRC, integer_src_linear
from srcell.data import EventLoader, LabelledImages, RateEncoding
from srcell.evaluation import evaluate
from srcell.models import IntegerClassifier, SRCClassifier
from srcell.training import RunOptions, TrainingConfig, train
from support.refusals import Message, Refusal, refusals


def make_spikes(steps: int = 60, batch: int = 4, inputs: int = 64) -> torch.Tensor:
    return (torch.rand(steps, batch, inputs, generator=torch.Generator().manual_seed(1)) < 0.2).float()


def test_a_network_equals_its_layers() -> None:
    torch.manual_seed(0)
    network = IntegerClassifier(64, [30], 3, neurons_per_class=4, weight_bits=[6, 9])
    x = make_spikes()
    below, _ = integer_src_linear(x, network.integers()[0])
    above, _ = integer_src_linear(below, network.integers()[1])
    assert above.any()
    spikes = network.layer_spikes(x)
    assert torch.equal(spikes[0].to(torch.uint8), below) and torch.equal(spikes[1].to(torch.uint8), above)
    votes = above.sum(0, dtype=torch.int64).view(4, 4, 3).sum(1)  # neuron n votes for class n % 3
    expected = (1.1 * votes - 0.1 * votes.sum(1, keepdim=True)) / network.readout.temperature
    torch.testing.assert_close(network(x), expected.float())
    assert [ways.tolist()[0] for ways in network.fan_outs()] == [30, 12, 3]
    assert repr(network.layers[1]) == "IntegerSRC(30, 12, weight_bits=9)"


def test_dropout_keeps_spikes_0_or_1() -> None:
    torch.manual_seed(0)
    network = IntegerClassifier(64, [200], 3, dropout=0.5).train()
    (below, above) = network.layer_spikes(make_spikes())
    assert set(below.unique().tolist()) == {0.0, 1.0} and set(above.unique().tolist()) <= {0.0, 1.0}
    sums = [network.layer_spikes(make_spikes())[1].detach() for _ in range(2)]
    assert not torch.equal(*sums)
    above.sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(grad is not None and grad.any() for grad in gradients)


def test_rounding_a_float_network_keeps_its_weights() -> None:
    trained = SRCClassifier(64, [30], 3, initial_state="rest", temperature=4.0, readout_alpha=0.98)
    trained.encoder = RateEncoding(30)
    network = IntegerClassifier.from_float(trained, weight_bits=[5, 4], cell=IntegerCell(bias=-5900))
    assert [layer.weight_bits for layer in network.layers] == [5, 4]
    for integer, layer in zip(network.layers, trained.layers, strict=True):
        assert isinstance(integer, IntegerSRC)
        assert torch.equal(integer.weight_ih_l0, layer.weight_ih_l0)
        assert integer.cell.bias == -5900 and integer.initial_state == "rest"
    assert (network.readout.temperature, network.readout.alpha) == (4.0, 0.98) and network.encoder == RateEncoding(30)


def test_clamping_is_reported() -> None:
    network = IntegerClassifier(64, [], 3, weight_bits=16)
    with torch.no_grad():
        network.layers[0].weight_ih_l0.fill_(1.0)
    images = LabelledImages(torch.ones(4, 8, 8), torch.arange(4) % 3)
    loader = EventLoader(images, RateEncoding(10, 1.0, 5), 3)
    network(torch.ones(1, 1, 64))
    assert network.clamped == 30
    assert evaluate(network, loader).clamped == 4 * 10 * 30
    assert evaluate(SRCClassifier(64, [], 3), loader).clamped == 0


def test_an_integer_run_trains_loads_and_exports(tmp_path: Path) -> None:
    settings: dict[str, Any] = dict(
        integer=True, weight_bits=(5, 4), hidden_sizes=(40,), steps=40, prefix=4, thinned=True, epochs=2, dropout=0.1
    )
    config = TrainingConfig(**settings, batch_size=32, temperature=3.0)
    run = train(config, tmp_path / "run", options=RunOptions())
    assert run.history[1].train_loss < run.history[0].train_loss
    network = srcell.load(tmp_path / "run")
    assert isinstance(network, IntegerClassifier) and network.encoder == RateEncoding(40, 0.5, 4, True)
    assert [layer.weight_bits for layer in network.layers] == [5, 4]
    images = torch.rand(5, 8, 8)
    events = network.encoder(images)
    assert torch.equal(network(events), run.model(events))
    network.export(tmp_path / "net.srcell")
    net = srcell.runtime.load(tmp_path / "net.srcell")
    expected = network.layer_spikes(events)[1].detach().numpy()
    encoded = net.encode(images.numpy())
    assert (encoded.indices == events.indices.numpy()).all() and (encoded.offsets == events.offsets.numpy()).all()
    assert (net.spikes(encoded)[1] == expected).all() and expected.any()
    assert (tmp_path / "run" / "report.html").exists()


rounded: Callable[..., IntegerClassifier] = IntegerClassifier.from_float
config = partial(TrainingConfig, integer=True)


@refusals(
    Message(
        "network: expected readout='votes' and recurrent=F", lambda: rounded(SRCClassifier(64, [9], 3, recurrent=True))
    ),
    Message("network: expected readout='votes'", lambda: rounded(SRCClassifier(64, [9], 3, readout="linear"))),
    Message(
        "network: expected omega=0, because integer neurons do not resonate",
        lambda: rounded(SRCClassifier(64, [9], 3, omega=0.1)),
    ),
    Message(
        "network: expected input_delay=0 and recurrent_delay=0, because",
        lambda: rounded(SRCClassifier(64, [9], 3, input_delay=5)),
    ),
    Message(
        "network: expected input_delay=0 and recurrent_delay=0, because",
        lambda: rounded(SRCClassifier(64, [9], 3, recurrent=True, recurrent_delay=5)),
    ),
    Message("omega: expected 0.0 with integer neurons, got 0.1", lambda: config(omega=0.1)),
    Message("input_delay: expected 0 with integer neurons, got 5", lambda: config(input_delay=5)),
    Message("taps: expected 1 with integer neurons, got 2", lambda: config(taps=2)),
    Message("recurrent_delay: expected 0 with integer neurons, got 5", lambda: config(recurrent_delay=5)),
    Message("learn_delays: expected False with integer neurons, got True", lambda: config(learn_delays=True)),
    Message(r"delay_width: expected \(1,\) with integer neurons", lambda: config(delay_width=(8, 1))),
    Message(
        "network: expected an SRCClassifier, got Integer", lambda: rounded(IntegerClassifier(64, [9], 3)), TypeError
    ),
    Message("recurrent: expected False with integer neurons, got True", lambda: config(recurrent=True)),
    Message("alpha: expected 0.9 with integer neurons", lambda: config(alpha=0.8)),
    Message("readout: expected 'votes' with integer neurons", lambda: config(readout="linear")),
    Message(r"channels: expected \(\) with integer neurons", lambda: config(channels=(4,))),
    Message("dataset: expected spikes or images for .*, got 'jap", lambda: config(dataset="japanese-vowels")),
    Message("weight_bits: expected one .*for each of 2 layers, got 3", lambda: config(weight_bits=(4, 4, 4))),
    Message("weight_bits: expected at least 2 each", lambda: config(weight_bits=(1,))),
    Message(r"weight_bits: expected \(4,\) without integer", lambda: config(integer=False, weight_bits=(5,))),
    Message("thinned: expected False without encoding='rate'", lambda: config(thinned=True, encoding="latency")),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()
