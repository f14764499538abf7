"""Exported networks without torch: the bits of the layers they came from, streams, saved states, malformed files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import srcell
from srcell import EventBatch, data, runtime
from srcell.cli import main
from srcell.evaluation import evaluate
from srcell.export import export
from srcell.models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from support.processes import ISAS, IsaProcess
from test_bits import SPIKE_TRAINS, digest, random_bits, recorded_inputs

SEQUENCE = {"alpha": srcell.spread(0.5, 0.99), "zs_hyp": 0.5, "initial_state": "rest"}
MAKERS: dict[str, Callable[[], Classifier]] = {
    "784-100": lambda: SRCClassifier(784, [], 10),
    "deep": lambda: SRCClassifier(50, [300, 129, 16], 10, initial_state="rest"),
    "lateral, window": lambda: SRCClassifier(
        28, [256], 10, lateral=True, readout="linear", readout_window=20, **SEQUENCE
    ),
    "integers": lambda: IntegerClassifier(784, [], 10, weight_bits=9),
    "deep integers": lambda: IntegerClassifier(50, [200, 33], 5, weight_bits=[4, 8, 16], initial_state="rest"),
    "lateral, linear": lambda: SRCClassifier(28, [40], 3, lateral=True, readout="linear", readout_alpha=0.97),
}


def make(name: str) -> Classifier:
    torch.manual_seed(len(name))
    return MAKERS[name]().eval()


def exported(network: Any, folder: Path) -> runtime.Network:
    export(network, folder / "net.srcell")
    return runtime.load(folder / "net.srcell")


@pytest.mark.parametrize("name", ["deep", "integers"])
def test_the_same_network_gives_the_same_file(name: str, tmp_path: Path) -> None:
    for k in range(8):
        export(make(name), tmp_path / f"{k}.srcell")
    first, *others = (path.read_bytes() for path in tmp_path.iterdir())
    assert others == [first] * 7


def events_for(
    inputs: int, batch: int = 5, steps: int = 60, *, graded: bool = True, lengths: bool = True
) -> EventBatch:
    generator = torch.Generator().manual_seed(inputs)
    dense = (torch.rand(steps, batch, inputs, generator=generator) < 0.1).float()
    if graded:
        dense *= 0.5 + torch.rand(dense.shape, generator=generator)
    ends = torch.arange(batch) * steps // max(batch - 1, 1)
    return EventBatch.from_dense(dense, ends if lengths else None)


def layer_spikes(network: Classifier, events: EventBatch) -> list[Tensor]:
    """The spikes of every layer, each computed from the events of the one below."""
    spikes: list[Tensor] = []
    with torch.no_grad():
        for layer in network.src_layers():
            below = events if not spikes else EventBatch.from_dense(spikes[-1], events.lengths)
            spikes.append(layer(below, lengths=None)[0])
    return spikes


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_spikes_are_bit_for_bit_those_of_the_layers(name: str, graded: bool, tmp_path: Path) -> None:
    network = make(name)
    net = exported(network, tmp_path)
    events = events_for(net.input_size, graded=graded and not net.layers[0].integer)
    expected = layer_spikes(network, events)
    assert all((spikes > 0).any() for spikes in expected)
    for threads in (1, 2):
        found = net.spikes(events, threads=threads)
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, expected, strict=True))
    with torch.no_grad():
        logits = network.readout(expected[-1], lengths=events.lengths)
    torch.testing.assert_close(torch.from_numpy(net.run(events)), logits, rtol=1e-5, atol=1e-5)


def test_integer_networks_take_spikes_alone(tmp_path: Path) -> None:
    network = make("integers")
    net = exported(network, tmp_path)
    assert net.layers == [(784, 100, False, True)] and net.nbytes == 2 * 784 * 100
    events, graded = events_for(784, graded=False), events_for(784)
    ones = EventBatch(
        events.offsets, events.indices, torch.ones(events.num_events), shape=events.shape, lengths=events.lengths
    )
    assert np.array_equal(net.run(ones), net.run(events)) and net.run(events).any()
    stream = net.stream()
    for step in (
        lambda: net.run(graded),
        lambda: stream.step(np.array([3, 5], np.int32), np.array([1.0, 0.5], np.float32)),
        lambda: stream.step(np.full(784, 0.5, np.float32)),
    ):
        with pytest.raises(ValueError, match="values: expected 1 for integer neurons"):
            step()
    counts = net.counts(events)
    assert counts[0].synaptic_operations > 0 and counts[0].weight_bytes == 2 * counts[0].synaptic_operations


def test_other_constants_come_along(tmp_path: Path) -> None:
    cell = srcell.IntegerCell(bias=-5500, leak_shift_a=3, spike_threshold=100)
    layer = srcell.IntegerSRC(30, 20, weight_bits=6, cell=cell)
    events = events_for(30, graded=False)
    expected, _ = layer(events)
    net = exported(layer, tmp_path)
    assert expected.any() and np.array_equal(net.spikes(events)[0], expected.detach().numpy())


def test_learnt_constants_and_states_come_along(tmp_path: Path) -> None:
    options = {"lateral": True, "autapses": False, "recurrent_grad": True, "learn_initial_state": True}
    layer = srcell.SRC(20, 30, 2, learnable=("alpha", "r", "rs", "zs_hyp"), surrogate="relu", **options)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        layer.alpha_l0.fill_(1.5)  # acts as 1
    events = events_for(20)
    with torch.no_grad():
        expected, _ = layer(events)
    assert (expected > 0).any()
    net = exported(layer, tmp_path)
    assert [size.lateral for size in net.layers] == [True, True] and net.num_classes == 0
    assert np.array_equal(net.spikes(events)[-1], expected.numpy()) and net.run(events).shape == (5, 0)


def test_a_run_in_chunks_gives_the_bits_of_each_sample_alone(tmp_path: Path) -> None:
    net = exported(make("784-100"), tmp_path)
    events = data.RateEncoding(steps=110, gain=0.5)(torch.rand(400, 784) * (torch.rand(400, 784) < 0.1))
    many = net.run(events)  # more elements than a chunk has
    assert np.array_equal(many[[0, 399]], net.run(events[[0, 399]]))
    assert len({row.tobytes() for row in many}) > 100


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_a_stream_gives_the_bits_of_a_run(name: str, batch: int, tmp_path: Path) -> None:
    net = exported(make(name), tmp_path)
    events = events_for(net.input_size, batch, graded=not net.layers[0].integer, lengths=False)
    spikes, logits = net.spikes(events)[-1], net.run(events)
    stream, rows = net.stream(batch), events.to_dense().numpy()
    for t, row in enumerate(rows):
        if t % 2:
            stepped = stream.step(row if batch > 1 else row[0])
        else:
            active = [sample.nonzero()[0] for sample in row]
            offsets = np.cumsum([0, *map(len, active)])
            values = np.concatenate([sample[k] for sample, k in zip(row, active, strict=True)])
            stepped = stream.step(np.concatenate(active), values, offsets=offsets if batch > 1 else None)
        assert np.array_equal(stepped, spikes[t])
    assert np.array_equal(stream.logits(), logits)
    stream.reset()
    again = np.stack([stream.step(row) for row in rows])
    assert np.array_equal(again, spikes) and np.array_equal(stream.logits(), logits)


@pytest.mark.parametrize("name", MAKERS)
def test_a_saved_state_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    net = exported(make(name), tmp_path)
    rows = events_for(net.input_size, 2, graded=not net.layers[0].integer, lengths=False).to_dense().numpy()
    stream, other = net.stream(2), net.stream(2)
    for row in rows[:37]:
        stream.step(row)
    other.step(rows[0])
    other.restore(stream.save())
    for row in rows[37:]:
        assert np.array_equal(stream.step(row), other.step(row))
    assert np.array_equal(stream.logits(), other.logits())
    state = stream.save()
    for wrong in (b"", state[:-1], state + b"0", b"x" + state[1:], net.stream(1).save()):
        with pytest.raises(
            ValueError, match=r"state: expected \d+ bytes that a stream of this network and batch saved"
        ):
            stream.restore(wrong)
    assert stream.save() == state


def exported_trains() -> dict[str, tuple[bytes, EventBatch]]:
    """The spike trains of test_bits.py: exported layers, and events whose values are currents through an identity."""
    found: dict[str, tuple[bytes, EventBatch]] = {}

    def on_currents(
        current: Tensor, bias: Tensor | float, lengths: list[int] | None = None, **cell: Tensor
    ) -> tuple[bytes, EventBatch]:
        layer = srcell.SRC(current.shape[2], current.shape[2], bias_max=0.0, **cell)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(torch.eye(current.shape[2]))
            layer.bias_l0.copy_(torch.as_tensor(bias).expand(current.shape[2]))
        events = EventBatch.from_dense(current, None if lengths is None else torch.tensor(lengths))
        return bytes_of(layer), events

    current, bias, cell = recorded_inputs(1, (220, 3, 100))
    found["defaults"] = on_currents(current, -6.0)
    found["bias per neuron"] = on_currents(current, bias)
    found["parameters per neuron"] = on_currents(current, bias, **cell)
    found["lengths"] = on_currents(current, bias, [220, 0, 131])
    current, bias, cell = recorded_inputs(2, (1000, 1, 7))
    found["a thousand steps"] = on_currents(current, bias, **cell)
    found["spontaneous"] = on_currents(torch.zeros(300, 1, 1), -4.0)
    fires = random_bits(3, 220, 3, 50) % np.uint64(16) == 0
    dense = torch.from_numpy(fires).float()
    weight = torch.from_numpy((random_bits(4, 100, 50) % np.uint64(2048)).astype(np.int64)).float() / 256 - 3
    lateral = torch.from_numpy((random_bits(5, 100, 100) % np.uint64(2048)).astype(np.int64)).float() / 1024 - 1
    graded = EventBatch.from_dense(dense * torch.tensor([1.0, 0.75, 1.25])[:, None])
    for name, events, hears in (
        ("graded events", graded, False),
        ("lateral", graded, True),
        ("events", EventBatch.from_dense(dense, torch.tensor([220, 0, 131])), False),
    ):
        layer = srcell.SRC(50, 100, lateral=hears)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(weight)
            if hears:
                layer.weight_hh_l0.copy_(lateral)
        found[name] = bytes_of(layer), events
    return found


def trains_of_exported_networks() -> dict[str, dict[str, Any]]:
    """Hashes of the spike trains of exported layers."""
    trains = {}
    for name, (layer, events) in exported_trains().items():
        spikes = torch.from_numpy(runtime.Network(layer).spikes(events)[-1])
        trains[name] = {"events": int(spikes.count_nonzero()), "sha256": digest(spikes)}
    return trains


def bytes_of(network: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        export(network, Path(folder) / "net.srcell")
        return (Path(folder) / "net.srcell").read_bytes()


@pytest.mark.parametrize("isa", ISAS)
def test_exported_networks_give_the_spike_trains_that_were_written_down(
    isa: str, isa_processes: dict[str, IsaProcess]
) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    assert isa_processes[isa].call("test_runtime.trains_of_exported_networks") == recorded


def test_encoders_and_counts_are_those_of_torch(tmp_path: Path) -> None:
    images = torch.rand(6, 8, 8) * (torch.rand(6, 8, 8) < 0.5)
    network = make("784-100")
    network = SRCClassifier(64, [20], 10).eval()
    thinned = data.RateEncoding(30, 0.9, 5, thinned=True)
    assert thinned(images).indices.numel() < 0.8 * data.RateEncoding(30, 0.9, 5)(images).indices.numel()
    for encoder in (data.RateEncoding(30, 0.3, 5), thinned, data.LatencyEncoding(12, 3)):
        network.encoder = encoder
        net = exported(network, tmp_path)
        expected = encoder(images, torch.arange(6) + 7, seed=3)
        made = net.encode(images.numpy(), np.arange(6) + 7, seed=3)
        assert made.shape == expected.shape and np.array_equal(made.offsets, expected.offsets.numpy())
        assert np.array_equal(made.indices, expected.indices.numpy())
        assert np.array_equal(net.run(made), net.run(expected))
    network.encoder = data.RateEncoding(30)
    net = exported(network, tmp_path)
    loader = data.EventLoader(data.LabelledImages(images, torch.zeros(6, dtype=torch.int64)), network.encoder, 6)
    counted = evaluate(network, loader)
    found = net.counts(next(iter(loader))[0])
    assert [count.events for count in found] == pytest.approx([count.events for count in counted.counts])
    assert sum(count.synaptic_operations for count in found) == pytest.approx(counted.synaptic_operations)
    assert found[0].updates == 50 * 20 and found[2].updates == 0  # 30 steps after 20 silent ones
    assert found[0].energy({"synaptic_operations": 2.0, "updates": 10.0}) == pytest.approx(
        2 * found[0].synaptic_operations + 10 * 50 * 20
    )
    with pytest.raises(ValueError, match="encoder: expected that of images, got HeldEncoding"):
        network.encoder = data.HeldEncoding()
        exported(network, tmp_path).encode(images.numpy())
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\], got 2.0"):
        net.encode(np.full((1, 64), 2.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.array([0, 99], np.int32)}, "indices: expected values from 0 to the number of inputs less 1"),
        ({"indices": np.array([0, -1])}, "indices: expected values from 0 to the number of inputs less 1"),
        ({"indices": np.array([0, 2**40])}, "indices: expected numbers of inputs, got 0 to 1099511627776"),
        ({"offsets": np.array([0, 2, 1, 1, 2])}, "offsets: expected values that ascend from 0"),
        ({"offsets": np.array([0, 1, 1, 3])}, "events: expected 5 offsets and as many values as indices"),
        ({"values": np.array([1.0], np.float32)}, "events: expected 5 offsets and as many values as indices"),
        ({"values": np.array([1.0, np.nan])}, "values: expected no NaN"),
        ({"lengths": np.array([3, 0])}, "lengths: expected values from 0 to the number of steps"),
        ({"lengths": np.array([0, 2])}, "lengths: expected no event past a sample's length"),
        ({"shape": (2, 2, 9)}, r"events: expected 28 inputs, got shape \(2, 2, 9\)"),
    ],
)
def test_events_that_are_not_valid_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    net = exported(make("lateral, linear"), tmp_path)
    good = runtime.Events(np.array([0, 1, 1, 1, 2]), np.array([3, 5], np.int32), (2, 2, 28))
    assert net.run(good).shape == (2, 3)
    with pytest.raises(ValueError, match=message):
        net.run(good._replace(**change))


def test_a_step_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    for name in MAKERS:
        net = exported(make(name), tmp_path)
        stream = net.stream()
        stream.step(np.arange(5))
        state = stream.save()
        for wrong in ([0, net.input_size], [-1], np.zeros(net.input_size + 1), np.zeros((2, net.input_size))):
            with pytest.raises(ValueError, match=r"(events|input|indices): expected"):
                stream.step(wrong)
        with pytest.raises(ValueError, match="offsets: expected 2 for a stream of 1 samples"):
            stream.step([0, 1], offsets=[0, 1, 2])
        with pytest.raises(ValueError, match="offsets: expected the last to be 2"):
            stream.step([0, 1], values=[1.0])
        assert stream.save() == state
        with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
            net.stream(0)


def test_what_a_stream_takes(tmp_path: Path) -> None:
    net = exported(make("lateral, linear"), tmp_path)
    stream, other = net.stream(), net.stream()
    spikes = [stream.step(x) for x in ([], [3, 5], np.array([3, 5], np.uint8), torch.tensor([3, 5]))]
    dense = np.zeros(28)
    dense[[3, 5]] = 1
    again = [other.step(x) for x in (np.zeros(28, bool), dense, dense[None], torch.tensor(dense, requires_grad=True))]
    assert np.array_equal(spikes, again)
    odd = np.frombuffer(b"\0" + np.array([3, 5], np.int32).tobytes(), np.int32, offset=1)
    assert np.array_equal(stream.step(odd), other.step([3, 5])) and stream.save() == other.save()
    assert net.stream(2).step([], offsets=[0, 0, 0]).shape == (2, 40)
    state = stream.save()
    for wrong in ({"values": [1.0]}, {"offsets": [0, 1]}):
        with pytest.raises(ValueError, match="input: expected numbers of the active inputs beside values or offsets"):
            stream.step(dense, **wrong)
    with pytest.raises(TypeError, match="offsets: expected integers, got float64"):
        stream.step([3], offsets=[0, 1.5])
    for not_a_number in (np.full(28, np.nan), [3]):
        with pytest.raises(ValueError, match="values: expected no NaN"):
            stream.step(not_a_number, *[[np.nan]] * (len(not_a_number) == 1))
    assert stream.save() == state
    with pytest.raises(ValueError, match=r"input: expected shape \(2, 28\), got \(28, 2\)"):
        net.stream(2).step(np.zeros((28, 2)))


def test_sizes_without_end_are_refused(tmp_path: Path) -> None:
    net = exported(srcell.SRC(1, 3), tmp_path)
    for shape in ((2**32, 2**32, 1), (2**62, 4, 1), (-1, 1, 1)):
        with pytest.raises(ValueError, match="steps and batch: expected at least 0, and a product below 2"):
            net.run(runtime.Events(np.array([0]), np.array([], np.int32), shape))
    assert net.run(np.zeros((0, 2**40, 1), np.float32)).shape == (2**40, 0)
    for threads in (0, -5):
        with pytest.raises(ValueError, match=f"threads: expected at least 1, got {threads}"):
            net.run(np.zeros((3, 1, 1)), threads=threads)
    assert net.run(np.zeros((3, 1, 1)), threads=2**31 - 1).shape == (1, 0)
    for batch, error in ((0, ValueError), (-1, ValueError), (2**62, MemoryError)):
        with pytest.raises(error):
            net.stream(batch)


def test_a_state_is_of_one_network(tmp_path: Path) -> None:
    streams = [exported(srcell.SRC(*sizes), tmp_path).stream() for sizes in ((3, 4, 2), (3, 4, 2))]
    with pytest.raises(ValueError, match="that a stream of this network and batch saved"):
        streams[0].restore(streams[1].save())


def test_logits_are_the_same_where_denormals_are_flushed(tmp_path: Path) -> None:
    network = SRCClassifier(4, [], 2, initial_state="rest", readout_alpha=0.5)
    net = exported(network, tmp_path)
    steps = np.zeros((145, 1, 4), np.float32)
    steps[:10] = 1
    try:
        assert torch.set_flush_denormal(True)
        stream = net.stream()
        for step in steps:
            stream.step(step)
        flushed = stream.logits()
    finally:
        torch.set_flush_denormal(False)
    assert np.array_equal(flushed, net.run(steps)) and (flushed != 0).any()


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ('{"name": "LatencyEncoding", "steps": 0, "prefix": 0}', r"expected steps to be an int in \[1, 2\^31\), got 0"),
        ('{"name": "RateEncoding", "steps": 1000008, "prefix": -1000000, "gain": 1}', "expected prefix to be an int"),
        ('{"name": "RateEncoding", "steps": 5, "prefix": 0, "gain": 1e999}', "expected gain to be finite"),
        ('{"name": "RateEncoding", "steps": null, "prefix": 0}', "expected steps to be an int in"),
        ('{"name": "RateEncoding"}', "expected steps to be an int in"),
        ('{"name": "RateEncoding", "steps": 5, "prefix": 0}', "expected gain to be finite and at least 0, got None"),
        ("{}", "expected that of images, got None"),
        ("[1]", "expected a JSON object of its name and settings"),
        ("[" * 100_000, "expected a JSON object of its name and settings"),
    ],
)
def test_an_encoder_of_a_file_is_checked(encoder: str, message: str) -> None:
    content = changed_file(lambda _, texts: texts.update(encoder=encoder))
    with pytest.raises(ValueError, match=f"encoder: {message}"):
        runtime.Network(content).encode(np.ones((1, 28)))


def test_texts_of_a_file_make_messages_of_one_line() -> None:
    for key, text in (("version", "1\n2"), ("readout", "x\ny" + "z" * 1000), ("version", "\U0001f600")):
        with pytest.raises(ValueError, match=r"^\w+: expected") as error:
            runtime.Network(changed_file(lambda _, texts, key=key, text=text: texts.update({key: text})))
        assert "\n" not in str(error.value) and len(str(error.value)) < 200
    escaped = json.dumps({"__metadata__": {"a": "\U0001f600\ud83d"}}).encode()
    with pytest.raises(ValueError, match="header: expected 'format' among the metadata"):
        runtime.Network(len(escaped).to_bytes(8, "little") + escaped)


def test_tensors_that_share_bytes_are_refused() -> None:
    length = int.from_bytes(SMALL[:8], "little")
    header = json.loads(SMALL[8 : 8 + length])
    header["layers.0.alpha"]["data_offsets"] = header["layers.0.rho"]["data_offsets"]
    text = json.dumps(header).encode()
    with pytest.raises(ValueError, match="header: expected tensors that follow one another"):
        runtime.Network(len(text).to_bytes(8, "little") + text + SMALL[8 + length :])
    with pytest.raises(ValueError, match="header: expected tensors that cover the whole file"):
        runtime.Network(SMALL + b"\0")


def changed_file(change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> bytes:
    from safetensors.torch import load, save

    whole = bytes_of(make("lateral, linear"))
    length = int.from_bytes(whole[:8], "little")
    texts = json.loads(whole[8 : 8 + length])["__metadata__"]
    tensors = load(whole)
    change(tensors, texts)
    return bytes(save(tensors, texts))


CHANGES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "format": (lambda _, texts: texts.update(format="x"), "format: expected 'srcell.network'"),
    "version": (lambda _, texts: texts.update(version="2"), "version: expected 1, got '2': written by a newer srcell"),
    "no readout": (lambda _, texts: texts.pop("readout"), "header: expected 'readout' among the metadata"),
    "other readout": (lambda _, texts: texts.update(readout="x"), "readout: expected none, votes or linear, got 'x'"),
    "no bias": (lambda t, _: t.pop("layers.0.bias"), r"layers.0.bias: expected a tensor \(any\), found none"),
    "more": (lambda t, _: t.update(more=torch.zeros(1)), "header: expected 12 tensors for 1 layers and the readout"),
    "lateral": (
        lambda t, _: t.update({"layers.0.lateral": torch.zeros(40, 39)}),
        r"layers.0.lateral: expected F32 \(40, 40\), got F32 \(40, 39\)",
    ),
    "double": (
        lambda t, _: t.update({"layers.0.bias": torch.zeros(40, dtype=torch.float64)}),
        r"layers.0.bias: expected F32 \(any\), got F64 \(40\)",
    ),
    "values": (lambda t, _: t.update({"layers.0.rs": torch.zeros(7)}), "layers.0.rs: expected 1 or 40 values, got 7"),
    "nan": (lambda t, _: t["layers.0.bias"].fill_(torch.nan), "layers.0.bias: expected finite values"),
    "alpha": (lambda t, _: t["layers.0.alpha"].fill_(1.5), r"layers.0.alpha: expected values in \[0, 1\]"),
    "rho": (lambda t, _: t["layers.0.rho"].fill_(0), "layers.0.rho: expected finite values > 0"),
    "leak": (lambda t, _: t["readout.constants"].fill_(2), r"readout.constants: expected an alpha in \[0, 1\]"),
    "window": (lambda t, _: t["readout.constants"].fill_(0.5), "expected a whole number of steps as window"),
    "long window": (
        lambda t, _: t["readout.constants"].copy_(torch.tensor([0.5, 2.0**21])),
        "expected a whole number of steps as window, at most 1048576",
    ),
    "no neurons": (
        lambda t, _: t.update({"layers.0.weight": torch.zeros(0, 28)}),
        r"layers.0.weight: expected from 1 to 2\^31 neurons and inputs, got \(0, 28\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_of_something_else_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    path = tmp_path / "net.srcell"
    path.write_bytes(changed_file(change))
    with pytest.raises(ValueError, match=message) as error:
        runtime.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runtime.load(tmp_path / "absent.srcell")
    for content in (b"", b"\0" * 7, b"\xff" * 100, (2**63).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}"):
        with pytest.raises(ValueError, match=r"^(header: )?expected"):
            runtime.Network(content)


SMALL = bytes_of(SRCClassifier(3, [2], 2, lateral=True, readout="linear"))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_change_of_a_file_does_more_than_a_value_error(draw: st.DataObject) -> None:
    changed = bytearray(SMALL)
    for _ in range(draw.draw(st.integers(1, 4))):
        where = draw.draw(st.integers(0, len(changed) - 1))
        kind = draw.draw(st.sampled_from(["set", "cut", "insert"]))
        if kind == "set":
            changed[where] = draw.draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[where : where + draw.draw(st.integers(1, 20))]
        else:
            changed[where:where] = draw.draw(st.binary(max_size=8))
        if not changed:
            break
    try:
        net = runtime.Network(bytes(changed))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    if net.input_size < 100 and not net.layers[0].neurons > 100:
        assert np.isfinite(net.run(np.ones((3, 1, net.input_size)))).shape[0] == 1


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.srcell"
    with pytest.raises(TypeError, match="network: expected an SRC, an IntegerSRC or a classifier, got"):
        export(torch.nn.Linear(2, 2), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected inputs and neurons in every layer, got \(2, 0\)"):
        export(srcell.SRC(0, 2), path)
    with pytest.raises(ValueError, match="convolutions cannot be exported yet"):
        export(SRCConvClassifier((1, 8, 8), [2], [4], 2), path)
    with pytest.raises(ValueError, match=r"network: expected weights of torch.float32, got torch.float64"):
        export(srcell.SRC(3, 2, dtype=torch.float64), path)
    assert not list(tmp_path.iterdir())


def test_export_from_the_command_line(out: Path, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.srcell"
    assert main(["export", str(out), str(path)]) == 0
    network, net = srcell.load(out), runtime.load(path)
    sizes = "-".join(str(layer.neurons) for layer in net.layers)
    assert capsys.readouterr().out == f"{path}: 64-{sizes}, 10 classes, {path.stat().st_size:,} bytes\n"
    digits = data.load("digits").test
    events = network.encoder(digits.images) if network.encoder else None
    assert events is not None
    with torch.no_grad():
        expected = network(events).argmax(1)
    assert np.array_equal(net.run(events).argmax(1), expected.numpy())
    assert main(["export", str(tmp_path / "absent"), str(path)]) == 2


WITHOUT_TORCH = """
    import importlib.abc, importlib.util, sys

    class NoTorch(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
    sys.meta_path.insert(0, NoTorch())
    import numpy as np
    import srcell
    from srcell import runtime

    net = runtime.load(sys.argv[1])
    steps = np.random.default_rng(0).random((150, 1, net.input_size)) < 0.2
    stream = net.stream()
    spikes = np.stack([stream.step(step) for step in steps])
    assert np.array_equal(spikes, net.spikes(steps)[-1]) and spikes.any()
    assert srcell.__version__ == runtime.version
    try:
        srcell.SRC
    except ImportError as error:
        print(error)
    from srcell.__main__ import main
    assert main() == 2
    assert not any(name.partition(".")[0] in ("torch", "safetensors") for name in sys.modules)
    print(int((spikes > 0).sum()))
"""


def test_without_torch_the_runtime_works_and_the_rest_says_what_it_needs(tmp_path: Path) -> None:
    net = exported(make("lateral, linear"), tmp_path)
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), str(tmp_path / "net.srcell")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    line, active = made.stdout.splitlines()
    assert line.startswith("srcell.SRC: expected torch 2.4 or newer to be installed, found none: pip install torch")
    steps = np.random.default_rng(0).random((150, 1, net.input_size)) < 0.2
    assert int(active) == int((net.spikes(steps)[-1] > 0).sum())
    assert made.stderr == "srcell: expected torch 2.4 or newer to be installed, found none: pip install torch\n"
