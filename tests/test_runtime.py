"""Exported networks without torch: the same bits as the layers, streams, saved states, malformed files."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

import srcell
from fuzz.draws import corrupted
from srcell import SRC, EventBatch, IntegerSRC, SpikesOnly, SRCConv2d, data, export, runtime
from srcell.cli import main
from srcell.evaluation import evaluate
from srcell.models import IntegerClassifier, SRCClassifier
from support.dlpack import Foreign
from support.imports import output_without
from support.networks import bytes_of, exported, joined, split
from support.processes import ISAS, IsaProcess
from support.refusals import Message, Refusal, refusals
from test_bits import SPIKE_TRAINS, digest, random_bits, recorded_inputs

SEQUENCE = {"alpha": srcell.spread(0.5, 0.99), "zs_hyp": 0.5, "initial_state": "rest"}


def learnt_layers() -> SRC:
    """Two layers with all learnable parameters, moved from their initial values as by training."""
    options = {"recurrent": True, "autapses": False, "full_gradient": True, "learn_initial_state": True}
    layer = SRC(20, 30, 2, learnable=("alpha", "r", "rs", "zs_hyp"), surrogate="relu", **options)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        layer.alpha_l0.fill_(1.5)  # acts as 1
    return layer


FREQUENCIES = srcell.spread_frequencies(0.05, 2)


def resonant_layers() -> SRC:
    """Two layers with learnable omega and initial state, moved from their initial values as by training."""
    layer = SRC(
        20, 30, 2, omega=FREQUENCIES, learnable=("omega", "alpha"), full_gradient=True, learn_initial_state=True
    )
    with torch.no_grad():
        layer.omega_l0.add_(0.1)
        layer.omega_l1[3] = 4.0  # acts as pi
        layer.i0_l1.fill_(2.0)
    return layer


def delayed_layers() -> SRC:
    """Two layers with learnt delays of recurrent weights, interpolated over six steps, and an initial state."""
    delay = torch.rand(30, generator=torch.Generator().manual_seed(0)) * 9
    options = {"recurrent": True, "full_gradient": True, "learn_initial_state": True}
    layer = SRC(20, 30, 2, delay_hh=delay, max_delay=9, delay_width=3, learnable=("delay_hh",), **options)
    with torch.no_grad():
        layer.delay_hh_l0[3] = 12.0  # acts as 9
        layer.delay_hh_l1[:10] = 0.0
        layer.h0_l1.fill_(0.3)
    return layer


def standardise(inputs: int) -> srcell.Standardise:
    return srcell.Standardise(0.1 * torch.randn(inputs), 0.5 + torch.rand(inputs))


OTHER_CELL = srcell.IntegerCell(bias=-5500, leak_shift_a=3, spike_threshold=100)
MAKERS: dict[str, Callable[[], Any]] = {
    "784-100": lambda: SRCClassifier(784, [], 10),
    "deep": lambda: SRCClassifier(50, [300, 129, 16], 10, initial_state="rest"),
    "lateral, window": lambda: SRCClassifier(
        28, [256], 10, recurrent=True, readout="linear", readout_window=20, **SEQUENCE
    ),
    "integers": lambda: IntegerClassifier(784, [], 10, weight_bits=9),
    "deep integers": lambda: IntegerClassifier(50, [200, 33], 5, weight_bits=[4, 8, 16], initial_state="rest"),
    "lateral, linear": lambda: SRCClassifier(28, [40], 3, recurrent=True, readout="linear", readout_alpha=0.97),
    "learnt layers": learnt_layers,
    "resonant, lateral": lambda: SRCClassifier(
        28, [140], 10, omega=FREQUENCIES, recurrent=True, readout="linear", **SEQUENCE
    ),
    "resonant, votes": lambda: SRCClassifier(50, [60, 33], 5, omega=0.3),
    "resonant layers, learnt": resonant_layers,
    "delayed inputs": lambda: SRCClassifier(50, [60, 33], 5, input_delay=12, taps=3),
    "delayed, whole": lambda: SRCClassifier(
        28,
        [140],
        10,
        recurrent=True,
        readout="linear",
        input_delay=70,  # longer than the test's samples
        recurrent_delay=20,
        whole_delays=True,
        **SEQUENCE,
    ),
    "delayed, resonant": lambda: SRCClassifier(
        28,
        [40, 20],
        10,
        omega=FREQUENCIES,
        recurrent=True,
        readout="linear",
        input_delay=9,
        recurrent_delay=25,
        **SEQUENCE,
    ),
    "delayed layers, learnt": delayed_layers,
    "delayed scalar": lambda: SRC(20, 30, recurrent=True, delay_hh=3.25, max_delay=4),
    "standardised": lambda: SRCClassifier(28, [140], 10, recurrent=True, standardise=standardise(28)),
    "delayed, standardised": lambda: SRCClassifier(
        28, [40], 10, recurrent=True, input_delay=9, taps=2, standardise=standardise(28)
    ),
    "other integers": lambda: srcell.IntegerSRC(30, 20, weight_bits=6, cell=OTHER_CELL),
}


def make(name: str) -> Any:
    torch.manual_seed(len(name))
    return MAKERS[name]().eval()


@functools.cache
def loaded(name: str) -> runtime.Network:
    return exported(make(name))


@pytest.mark.parametrize("name", ["deep", "integers"])
def test_the_same_network_gives_the_same_file(name: str) -> None:
    assert len({bytes_of(make(name)) for _ in range(8)}) == 1


def events_for(
    net: runtime.Network, batch: int = 5, steps: int = 60, *, graded: bool = True, lengths: bool = True
) -> EventBatch:
    generator = torch.Generator().manual_seed(net.input_size)
    dense = (torch.rand(steps, batch, net.input_size, generator=generator) < 0.1).float()
    if graded and not net.layers[0].integer:
        dense *= 0.5 + torch.rand(dense.shape, generator=generator)
    ends = torch.arange(batch) * steps // max(batch - 1, 1)
    return EventBatch.from_dense(dense, ends if lengths else None)


@torch.no_grad()
def layer_spikes(network: Any, events: EventBatch) -> list[Tensor]:
    """The spikes of a single layer, or of every layer of a classifier, computed from the events of the layer below."""
    spikes: list[Tensor] = []
    standardise, delay = (getattr(network, name, None) for name in ("standardise", "delay"))
    events = events if standardise is None else standardise(events)
    events = events if delay is None else delay(events)[0]
    for layer in network.src_layers() if hasattr(network, "src_layers") else [network]:
        below = events if not spikes else EventBatch.from_dense(spikes[-1], events.lengths)
        spikes.append(layer(below, lengths=None)[0])
    return spikes


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_spikes_are_bit_identical_to_the_layers(name: str, graded: bool) -> None:
    network, net = make(name), loaded(name)
    events = events_for(net, graded=graded)
    expected = layer_spikes(network, events)
    assert all((spikes > 0).any() for spikes in expected)
    for threads in (1, 2):
        found = net.spikes(events, threads=threads)[-len(expected) :]
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, expected, strict=True))
    if net.num_classes:
        with torch.no_grad():
            logits = network.readout(expected[-1], lengths=events.lengths)
        torch.testing.assert_close(torch.from_numpy(net.run(events)), logits, rtol=1e-5, atol=1e-5)
    else:
        assert net.run(events).shape == (5, 0)


def test_integer_networks_take_only_binary_spikes() -> None:
    net = loaded("integers")
    assert net.layers == [(784, 100, False, True, False, 0, None)] and net.nbytes == 2 * 784 * 100
    events = events_for(net)
    ones = EventBatch(
        events.offsets, events.indices, torch.ones(events.num_events), shape=events.shape, lengths=events.lengths
    )
    assert np.array_equal(net.run(ones), net.run(events)) and net.run(events).any()
    stream = net.stream()
    for call in (
        lambda: net.run(np.full((2, 1, 784), 0.5)),
        lambda: stream.step([3, 5], [1.0, 0.5]),
        lambda: stream.step(np.full(784, 0.5)),
    ):
        with pytest.raises(ValueError, match="values: expected 1 for integer neurons"):
            call()
    counts = net.counts(events)
    assert counts[0].synaptic_operations > 0 and counts[0].weight_bytes == 2 * counts[0].synaptic_operations


def test_a_run_in_chunks_gives_the_bits_of_each_sample_alone() -> None:
    net = loaded("784-100")
    events = data.RateEncoding(steps=110, gain=0.5)(torch.rand(400, 784) * (torch.rand(400, 784) < 0.1))
    many = net.run(events)  # more elements than a chunk has
    assert np.array_equal(many[[0, 399]], net.run(events[[0, 399]]))
    assert len({row.tobytes() for row in many}) > 100


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_a_stream_gives_the_bits_of_a_run_and_may_be_saved_and_restored(name: str, batch: int) -> None:
    net = loaded(name)
    events = events_for(net, batch, lengths=False)
    spikes, logits = net.spikes(events)[-1], net.run(events)
    stream, rows = net.stream(batch), events.to_dense().numpy()
    for t, row in enumerate(rows):
        if t == 37:
            saved, stream = stream.save(), net.stream(batch)
            stream.step(rows[0])
            stream.restore(saved)
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
def test_an_invalid_state_is_refused_and_changes_nothing(name: str) -> None:
    net = loaded(name)
    stream, other_weights = net.stream(2), exported(MAKERS[name]()).stream(2)
    stream.step(np.zeros((2, net.input_size)))
    state = stream.save()
    for wrong in (b"", state[:-1], state + b"0", b"x" + state[1:], net.stream(1).save(), other_weights.save()):
        with pytest.raises(
            ValueError, match=r"state: expected \d+ bytes that a stream of this network and batch saved"
        ):
            stream.restore(wrong)
    assert stream.save() == state


@pytest.mark.parametrize("name", MAKERS)
def test_files_have_a_new_version_only_where_a_network_needs_it(name: str) -> None:
    delayed, resonant = name.startswith("delayed"), "resonant" in name
    net, content = loaded(name), bytes_of(make(name))
    version = "5" if "standardised" in name else "3" if delayed else "2" if resonant else "1"
    assert split(content)[0]["__metadata__"]["version"] == version
    assert [layer.resonant for layer in net.layers].count(True) == (resonant and 2 - (name == "resonant, lateral"))
    assert any(layer.max_delay for layer in net.layers) == delayed


@pytest.mark.parametrize("name", [b"srcstate", b"srcstat3", b"srcstat5"])
def test_states_of_other_versions_are_refused(name: bytes) -> None:
    stream = loaded("deep").stream()
    with pytest.raises(ValueError, match=r"^state: expected one that this version of srcell saved, got one of another"):
        stream.restore(name + stream.save()[8:])


def test_a_state_is_restored_only_by_the_network_that_saved_it() -> None:
    """Everything in a file makes another network: each parameter, the readout, the initial state, the encoder."""

    def network(change: str) -> nn.Module:
        options: dict[str, Any] = {"alpha": 0.9, "rho": 3.0, "r": 2.0, "rs": -7.0, "zs_hyp": 0.9, "zs_dep": 0.0}
        options |= {name: value * 0.5 + 0.25 for name, value in options.items() if name == change}
        torch.manual_seed(0)
        layer = SRC(3, 4, **options, **({"initial_state": "rest"} if change == "initial_state" else {}))
        readout = srcell.LinearReadout(4, 2, window=int(change == "window"), alpha=0.5 if change == "readout" else 0.9)
        with torch.no_grad():
            layer.bias_l0[0] -= float(change == "bias")
            readout.linear.bias[1] += float(change == "bias of the readout")
        made = nn.Sequential(SpikesOnly(layer), readout)
        made.encoder = data.RateEncoding(steps=200 + (change == "encoder"))
        return made

    changes = ["alpha", "rho", "r", "rs", "zs_hyp", "zs_dep", "bias", "initial_state"]
    changes += ["window", "readout", "bias of the readout", "encoder"]
    first, again = (exported(network("")).stream() for _ in range(2))
    again.restore(first.save())
    for change in changes:
        with pytest.raises(ValueError, match=r"state: expected \d+ bytes that a stream of this network"):
            first.restore(exported(network(change)).stream().save())


@pytest.mark.parametrize(("part", "value"), [("i", 30001), ("i", -32768), ("h", -1025), ("h", 1024), ("hs", -801)])
def test_a_state_of_integers_is_refused_outside_their_bounds(part: str, value: int) -> None:
    """They would overflow 16 bits at the next step, in a saved state and in the initial state of a file."""
    layer = nn.Sequential(SpikesOnly(IntegerSRC(3, 4)), SpikesOnly(IntegerSRC(4, 4)))
    stream, place = exported(layer).stream(), ["i", "h", "hs"].index(part)
    state = bytearray(stream.save())
    header, size = 32, 3 * 4 * 2
    at = header + size + place * size // 3 + 2  # the second neuron of the second layer
    state[at : at + 2] = np.int16(value).tobytes()
    before = stream.save()
    with pytest.raises(ValueError, match=rf"^state: expected {part} in \[-\d+, \d+\], got {value} in layer 1$"):
        stream.restore(bytes(state))
    assert stream.save() == before
    initial = torch.zeros(3, 4, dtype=torch.int16)
    initial[place, 1] = value
    content = load(bytes_of(layer)) | {"layers.1.initial": initial}
    with pytest.raises(ValueError, match=rf"layers.1.initial: expected {part} in \[-\d+, \d+\], got {value}"):
        runtime.Network(save(content, split(bytes_of(layer))[0]["__metadata__"]))


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("delayed")])
def test_a_delayed_stream_gives_the_bits_of_a_run_wherever_it_is_saved(name: str) -> None:
    net = loaded(name)
    events = events_for(net, 2, lengths=False)
    spikes, rows = net.spikes(events), events.to_dense().numpy()
    assert net.layers[0].max_delay > 2
    stream = net.stream(2)
    for t, row in enumerate(rows):
        saved, stream = stream.save(), net.stream(2)
        stream.step(rows[t // 2])
        stream.restore(saved)
        assert stream.save() == saved
        assert np.array_equal(stream.step(row), spikes[-1][t])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("repeated", [False, True])
@torch.no_grad()
def test_a_stream_of_unsorted_rows_gives_the_bits_of_a_run(repeated: bool, batch: int) -> None:
    network = SRCClassifier(40, [20], 3, input_delay=9, taps=2, readout="linear").eval()
    network.delay.delay[:, 0] = 0
    network.delay.delay[20:, 1] = 0
    net, generator, steps = exported(network), np.random.default_rng(0), 60
    rows = [
        generator.integers(40, size=30) if repeated else generator.permutation(40)[:15] for _ in range(batch * steps)
    ]
    rows[5], rows[7] = np.sort(rows[5]), rows[7][:0]
    values = [generator.normal(size=len(row)).astype(np.float32) for row in rows]
    offsets, indices = np.cumsum([0, *map(len, rows)]), np.concatenate(rows).astype(np.int32)
    events = runtime.Events(offsets, indices, (steps, batch, 40), np.concatenate(values))
    stream, spikes = net.stream(batch), net.spikes(events)[-1]
    assert np.array_equal(spikes, network.layer_spikes(EventBatch(*events[:2], events.values, shape=events.shape))[0])
    for t in range(steps):
        now = [b * steps + t for b in range(batch)]
        row, value = (np.concatenate([x[k] for k in now]) for x in (rows, values))
        assert np.array_equal(stream.step(row, value, offsets=np.cumsum([0, *(len(rows[k]) for k in now)])), spikes[t])
    assert np.count_nonzero(spikes) > 20
    assert np.array_equal(stream.logits(), net.run(events))


def test_a_restored_stream_sums_what_is_on_its_way() -> None:
    net = exported(SRCClassifier(3, [4], 2, input_delay=4, readout="linear", whole_delays=True))
    stream, other = net.stream(), net.stream()
    stream.step([2, 0, 2])
    other.step(np.array([1.0, 0.0, 2.0], np.float32))
    assert stream.save() == other.save()
    stream.restore(stream.save())
    assert all(np.array_equal(stream.step([]), other.step([])) for _ in range(6))


def test_a_stream_takes_rows_with_more_repetitions_than_it_has_terms() -> None:
    net = exported(SRCClassifier(3, [4], 2, input_delay=2, readout="linear"))
    zero = exported(SRCClassifier(3, [4], 2, input_delay=2, readout="linear", whole_delays=True))
    for of in (net, zero):
        stream = of.stream(2)
        stream.step(np.arange(3000, dtype=np.int32) % 3, offsets=[0, 1000, 3000])
        assert stream.step([], offsets=[0, 0, 0]).shape == (2, 4)


def with_readout(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layer = SRC(6, 20, alpha=0.5, bias_init=-4.5, initial_state="rest")
    return nn.Sequential(SpikesOnly(layer), srcell.LinearReadout(20, 3, **options)).eval()


@pytest.mark.parametrize("window", [0, 4])
def test_logits_at_every_step_are_those_of_a_stream(window: int) -> None:
    net = exported(with_readout(window=window, every_step=True))
    x = np.random.default_rng(0).normal(size=(40, 3, 6)).astype(np.float32)
    lengths = np.array([40, 0, 17])
    found, stream = net.run(x, lengths), net.stream(3)
    assert net.every_step and found.shape == (40, 3, 3)
    for t, row in enumerate(x):
        stream.step(row)
        taken = t < lengths
        assert np.array_equal(found[t], np.where(taken[:, None], stream.logits(), 0))
    last = net.run(x, lengths, every_step=False)
    assert np.array_equal(found[lengths - 1, range(3)][[0, 2]], last[[0, 2]]) and len(np.unique(last)) > 6
    with torch.no_grad():
        spikes = torch.from_numpy(net.spikes(x, lengths)[0])
        expected = with_readout(window=window)[1](spikes, torch.from_numpy(lengths), every_step=True)
    assert np.allclose(found, expected, atol=1e-5)


def test_a_network_gives_the_outputs_of_its_readout() -> None:
    """At every step where it was made to, or where its last module is a Linear, which acts at every step."""
    x = np.zeros((5, 2, 6), np.float32)
    at_the_end, always = exported(with_readout()), exported(with_readout(every_step=True))
    linear = exported(nn.Sequential(SpikesOnly(SRC(6, 20)), nn.Linear(20, 3)))
    assert not at_the_end.every_step and at_the_end.run(x).shape == (2, 3)
    assert at_the_end.run(x, every_step=True).shape == always.run(x).shape == linear.run(x).shape == (5, 2, 3)
    assert exported(SRC(6, 20)).run(x, every_step=True).shape == (5, 2, 0)
    assert always.run(x[:0]).shape == (0, 2, 3) and always.run(x[:, :0]).shape == (5, 0, 3)


def test_what_lies_past_the_lengths_has_no_influence_on_a_run() -> None:
    net, x = exported(with_readout()), np.random.default_rng(0).normal(size=(40, 3, 6)).astype(np.float32)
    lengths = [40, 0, 17]
    other = x.copy()
    other[17:, 2], other[:, 1] = np.nan, np.inf
    expected = net.run(EventBatch.from_dense(torch.from_numpy(x), torch.tensor(lengths)))
    for given_lengths in (lengths, np.array(lengths, np.int32), torch.tensor(lengths)):
        assert np.array_equal(net.run(other, given_lengths), expected)
    assert np.array_equal(net.spikes(other, lengths)[0], net.spikes(runtime.Events.from_dense(x, lengths))[0])
    assert net.counts(other, lengths) == net.counts(EventBatch.from_dense(torch.from_numpy(x), torch.tensor(lengths)))
    events = runtime.Events.from_dense(x, lengths)
    assert np.array_equal(net.run(events._replace(lengths=None), lengths), expected)


def test_any_number_of_threads_may_be_asked_for() -> None:
    net, x = loaded("deep"), np.ones((3, 2, 50), np.float32)
    assert np.array_equal(net.run(x, threads=2**62), net.run(x, threads=1))


def test_integers_are_indices_and_never_a_dense_input() -> None:
    net = exported(SRC(6, 5))
    row = np.array([0, 1, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="input: expected indices of the active inputs, got 6 zeros and ones of int64"):
        net.stream().step(row)
    with pytest.raises(TypeError, match="events: expected floats or bools for a dense input, got int64"):
        net.run(np.tile(row, (3, 1, 1)))
    with pytest.raises(TypeError, match="input: expected floats or bools for a dense input, got uint8"):
        runtime.Events.from_dense(np.ones((3, 1, 6), np.uint8))
    with pytest.raises(ValueError, match=r"input: expected indices \(events,\), or floats or bools, got int64 \(1, 6"):
        net.stream().step(row[None])
    dense, listed = net.stream(), net.stream()
    for _ in range(30):
        spikes = dense.step(np.array([3, 3, 0, 0, 0, 0], np.float32))
        assert np.array_equal(listed.step(row, offsets=[0, 6]), spikes)
        assert np.array_equal(dense.step(np.ones(6, bool)), listed.step(np.arange(6)))
    assert exported(SRC(2, 5)).stream().step([0, 1]).shape == (1, 5)


@pytest.mark.parametrize("error", [KeyError("boom"), AssertionError("boom"), OSError("boom"), MemoryError("boom")])
def test_what_an_array_raises_comes_back_with_the_name_of_the_argument(error: Exception) -> None:
    with pytest.raises(TypeError, match=r"^events: expected an array of numbers, got Foreign: '?boom'?$"):
        loaded("deep").run(Foreign(None, error=error))


KINDS: list[dict[str, int]] = [{"input_delay": 4}, {"recurrent_delay": 4}]


def test_networks_with_other_delays_do_not_share_states() -> None:
    one, other = (SRC(3, 2, recurrent=True, delay_hh=delay, max_delay=4) for delay in (1.0, 1.5))
    other.load_state_dict(one.state_dict() | {"delay_hh_l0": torch.tensor(1.5)})
    inputs = [SRCClassifier(3, [2], 2, input_delay=4, readout="linear") for _ in range(2)]
    inputs[1].load_state_dict(inputs[0].state_dict() | {"delay.delay": torch.full((3, 1), 3.5)})
    square = torch.nn.init.normal_(torch.empty(3, 3))
    of_input, recurrent = (SRCClassifier(3, [3], 2, recurrent=True, readout="linear", **delay) for delay in KINDS)
    for network in (of_input, recurrent):  # the same delays in other places
        network.layers[0].weight_ih_l0.data.copy_(square)
        network.layers[0].weight_hh_l0.data.copy_(square)
    of_input.delay.delay.data[:] = 3.5
    recurrent.layers[0].delay_hh_l0.data[:] = 3.5
    for pair in ((one, other), inputs, (of_input, recurrent)):
        streams = [exported(network).stream() for network in pair]
        with pytest.raises(ValueError, match="state: expected"):
            streams[0].restore(streams[1].save())


def exported_trains() -> dict[str, tuple[bytes, EventBatch]]:
    """The spike trains of test_bits.py: exported layers, and events whose values are currents through an identity."""

    def case(
        x: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | float = -6.0,
        *,
        lengths: list[int] | None = None,
        weight_hh: Tensor | None = None,
        **cell: Any,
    ) -> tuple[bytes, EventBatch]:
        weight = torch.eye(x.shape[2]) if weight is None else weight
        neurons, inputs = weight.shape
        layer = SRC(inputs, neurons, recurrent=weight_hh is not None, bias_max=0.0, **cell)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(weight)
            layer.bias_l0.copy_(torch.as_tensor(bias).expand(neurons))
            if weight_hh is not None:
                layer.weight_hh_l0.copy_(weight_hh)
        return bytes_of(layer), EventBatch.from_dense(x, None if lengths is None else torch.tensor(lengths))

    def whole_numbers(seed: int, *shape: int) -> Tensor:
        return torch.from_numpy((random_bits(seed, *shape) % np.uint64(2048)).astype(np.int64)).float()

    current, bias, cell = recorded_inputs(1, (220, 3, 100))
    long_current, long_bias, long_cell = recorded_inputs(2, (1000, 1, 7))
    dense = torch.from_numpy(random_bits(3, 220, 3, 50) % np.uint64(16) == 0).float()
    graded = dense * torch.tensor([1.0, 0.75, 1.25])[:, None]
    weight, weight_hh = whole_numbers(4, 100, 50) / 256 - 3, whole_numbers(5, 100, 100) / 1024 - 1
    omega = torch.from_numpy((random_bits(6, 100) % np.uint64(256)).astype(np.int64)).float() / 128 - 1
    resonance = {"omega": omega, "alpha": torch.tensor(0.96875)}
    return {
        "defaults": case(current),
        "bias per neuron": case(current, bias=bias),
        "parameters per neuron": case(current, bias=bias, **cell),
        "lengths": case(current, bias=bias, lengths=[220, 0, 131]),
        "a thousand steps": case(long_current, bias=long_bias, **long_cell),
        "spontaneous": case(torch.zeros(300, 1, 1), bias=-4.0),
        "graded events": case(graded, weight),
        "lateral": case(graded, weight, weight_hh=weight_hh),
        "delayed, lateral": case(
            graded, weight, weight_hh=weight_hh, delay_hh=whole_numbers(8, 100) % 128 / 8, max_delay=16
        ),
        "resonant": case((whole_numbers(7, 220, 3, 100) - 1024) / 1024, **resonance),
        "resonant, lateral": case(graded, weight, weight_hh=weight_hh, **resonance),
        "events": case(dense, weight, lengths=[220, 0, 131]),
    }


def trains_of_exported_networks() -> dict[str, dict[str, Any]]:
    """Hashes of the spike trains of exported layers."""
    trains = {}
    for name, (layer, events) in exported_trains().items():
        spikes = torch.from_numpy(runtime.Network(layer).spikes(events)[-1])
        trains[name] = {"events": int(spikes.count_nonzero()), "sha256": digest(spikes)}
    return trains


@pytest.mark.parametrize("isa", ISAS)
def test_exported_networks_match_the_recorded_hashes(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    assert isa_processes[isa].call("test_runtime.trains_of_exported_networks") == recorded


def agreeing_counts(network: SRCClassifier, images: Tensor, encoder: data.RateEncoding) -> list[Any]:
    """The counts of an exported network, which are those of the evaluation in torch."""
    loader = data.EventLoader(data.LabelledImages(images, torch.zeros(6, dtype=torch.int64)), encoder, 6)
    counted, found = evaluate(network, loader), exported(network).counts(next(iter(loader))[0])
    assert [count.events for count in found] == pytest.approx([count.events for count in counted.counts])
    assert sum(count.synaptic_operations for count in found) == pytest.approx(counted.synaptic_operations)
    return found


@torch.no_grad()
def test_binary_spikes_through_fractional_delays_are_multiply_adds() -> None:
    network = SRCClassifier(3, [4], 2, recurrent=True, readout="linear", recurrent_delay=5).eval()
    network.layers[0].weight_ih_l0.fill_(2.0)
    events = EventBatch.from_dense(torch.ones(30, 1, 3))
    loader = data.EventLoader(data.LabelledEvents(events, torch.zeros(1, dtype=torch.int64)), None, 1)
    for delay, arrivals in ((1.0, 1), (1.5, 2)):
        network.layers[0].delay_hh_l0.fill_(delay)
        (_, of_layer), spikes = evaluate(network, loader, binary=True).counts, network.layer_spikes(events)[0]
        later = sum(int(spikes[: 30 - steps].count_nonzero()) for steps in (1, 2)[:arrivals])
        assert later > 0 and of_layer.additions + of_layer.multiply_adds == of_layer.events * 2 + later * 4
        assert of_layer.multiply_adds == (later * 4 if delay == 1.5 else 0)


@torch.no_grad()
def test_evaluation_of_recurrent_delays_takes_lengths_and_nan() -> None:
    network = SRCClassifier(3, [4], 2, recurrent=True, readout="linear", recurrent_delay=5).eval()
    events = EventBatch.from_dense(torch.ones(30, 2, 3), torch.tensor([30, 12]))
    loader = data.EventLoader(data.LabelledEvents(events, torch.zeros(2, dtype=torch.int64)), None, 2)
    found = exported(network).counts(events)
    assert evaluate(network, loader).synaptic_operations == sum(count.synaptic_operations for count in found)
    network.layers[0].weight_ih_l0.fill_(torch.nan)
    assert np.isnan(evaluate(network, loader).loss)


@torch.no_grad()
def test_delays_of_float64_are_exported_as_the_layer_computes_with_them() -> None:
    network = make("delayed, resonant")
    network.delay.double()
    network.layers[0].delay_hh_l0 = network.layers[0].delay_hh_l0.double() + 1e-9
    net = exported(network)
    events = events_for(net)
    assert np.array_equal(net.spikes(events)[0], network.layer_spikes(events)[0].numpy())


def test_operations_count_each_arrival() -> None:
    network = SRCClassifier(3, [4], 2, recurrent=True, readout="linear", input_delay=6, taps=2, recurrent_delay=5)
    with torch.no_grad():
        network.delay.delay.copy_(torch.tensor([[0.0, 2.5], [3.0, 4.0], [5.0, 5.5]]))
        network.layers[0].weight_ih_l0.fill_(2.0)
        network.layers[0].delay_hh_l0.fill_(1.5)
    net = exported(network.eval())
    spikes = np.zeros((20, 1, 3), np.float32)
    spikes[[0, 14]] = 1  # arrive after 0, 2 and 3; 3 and 4; 5, 5 and 6 steps, which is too late once
    events = EventBatch.from_dense(torch.from_numpy(spikes))
    own = net.spikes(spikes)[0][:, 0] != 0
    arrivals = own[:19].sum() + own[:18].sum()  # after one further step, and two
    (of_layer, of_readout), steps = net.counts(spikes), len(spikes)
    assert of_layer.events == 6 and of_layer.synaptic_operations == (8 + 7 + arrivals) * 4
    assert of_layer.weight_bytes == 4 * of_layer.synaptic_operations and of_layer.updates == steps * 4
    samples = data.LabelledEvents(events, torch.zeros(1, dtype=torch.int64))
    counted = evaluate(network, data.EventLoader(samples, None, 1))
    assert counted.synaptic_operations == of_layer.synaptic_operations + of_readout.synaptic_operations
    assert counted.counts[0].multiply_adds == 15 * 4 and own.any()


def test_encoders_and_counts_equal_those_of_the_torch_network() -> None:
    images = torch.rand(6, 8, 8) * (torch.rand(6, 8, 8) < 0.5)
    network = SRCClassifier(64, [20], 10).eval()
    thinned = data.RateEncoding(30, 0.9, 5, thinned=True)
    assert thinned(images).indices.numel() < 0.8 * data.RateEncoding(30, 0.9, 5)(images).indices.numel()
    for encoder in (data.RateEncoding(30, 0.3, 5), thinned, data.LatencyEncoding(12, 3)):
        network.encoder = encoder
        net = exported(network)
        expected = encoder(images, torch.arange(6) + 7, seed=3)
        made = net.encode(images.numpy(), np.arange(6) + 7, seed=3)
        assert made.shape == expected.shape and np.array_equal(made.offsets, expected.offsets.numpy())
        assert np.array_equal(made.indices, expected.indices.numpy())
        assert np.array_equal(net.run(made), net.run(expected))
    delays = {"input_delay": 9, "taps": 2, "recurrent": True, "recurrent_delay": 7}
    agreeing_counts(SRCClassifier(64, [20], 10, **delays).eval(), images, data.RateEncoding(30))
    found = agreeing_counts(network, images, data.RateEncoding(30))
    assert found[0].updates == 50 * 20 and found[2].updates == 0  # 30 steps after 20 silent ones
    assert found[0].energy({"synaptic_operations": 2.0, "updates": 10.0}) == pytest.approx(
        2 * found[0].synaptic_operations + 10 * 50 * 20
    )


def test_a_stream_takes_indices_and_dense_steps_of_any_type() -> None:
    net = loaded("lateral, linear")
    stream, other = net.stream(), net.stream()
    spikes = [stream.step(x) for x in ([], [3, 5], np.array([3, 5], np.uint8), torch.tensor([3, 5]))]
    dense = np.zeros(28)
    dense[[3, 5]] = 1
    again = [other.step(x) for x in (np.zeros(28, bool), dense, dense[None], torch.tensor(dense, requires_grad=True))]
    assert np.array_equal(spikes, again)
    odd = np.frombuffer(b"\0" + np.array([3, 5], np.int32).tobytes(), np.int32, offset=1)
    assert np.array_equal(stream.step(odd), other.step([3, 5])) and stream.save() == other.save()
    assert net.stream(2).step([], offsets=[0, 0, 0]).shape == (2, 40)


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("events: expected ascending offsets, and indices", lambda stream, inputs: stream.step([0, inputs])),
        ("events: expected ascending offsets, and indices", lambda stream, inputs: stream.step([-1])),
        ("events: expected ascending offsets, and indices", lambda stream, _: stream.step(np.array([3, 2**32 + 3]))),
        ("input: expected shape", lambda stream, inputs: stream.step(np.zeros(inputs + 1))),
        ("input: expected shape", lambda stream, inputs: stream.step(np.zeros((2, inputs)))),
        ("offsets: expected 2 for a stream of 1 samples", lambda stream, _: stream.step([0, 1], offsets=[0, 1, 2])),
        ("offsets: expected the last to be 2", lambda stream, _: stream.step([0, 1], values=[1.0])),
        ("offsets: expected integers, got float64", lambda stream, _: stream.step([3], offsets=[0, 1.5])),
        ("input: expected indices of the active", lambda stream, inputs: stream.step(np.zeros(inputs), [1.0])),
        ("input: expected indices of the active", lambda stream, inputs: stream.step(np.zeros(inputs), offsets=[0, 1])),
        ("values: expected", lambda stream, inputs: stream.step(np.full(inputs, np.nan))),
        ("values: expected", lambda stream, inputs: stream.step([3], [np.nan])),
    ],
)
def test_a_refused_step_changes_nothing(message: str, step: Callable[[runtime.Stream, int], Any]) -> None:
    for name in MAKERS:
        stream = loaded(name).stream()
        stream.step(np.arange(5))
        state = stream.save()
        with pytest.raises((ValueError, TypeError), match=message):
            step(stream, loaded(name).input_size)
        assert stream.save() == state


def run(**changes: Any) -> Any:
    events = runtime.Events(np.array([0, 1, 1, 1, 2]), np.array([3, 5], np.int32), (2, 2, 28))
    return loaded("lateral, linear").run(events._replace(**changes))


RATE = {"name": "RateEncoding", "steps": 5, "prefix": 0, "gain": 1}


def encode(encoder: Any, pixel: float = 1.0) -> Any:
    content = altered(encoder=encoder if isinstance(encoder, str) else json.dumps(encoder))
    return runtime.Network(content).encode(np.full((1, 28), pixel))


def test_premise_the_unchanged_calls_are_valid() -> None:
    assert run().shape == (2, 3) and encode(RATE).shape == (5, 1, 28)
    net = exported(SRC(1, 3))
    assert net.run(np.zeros((0, 2**40, 1), np.float32)).shape == (2**40, 0)
    assert net.run(np.zeros((3, 1, 1)), threads=2**31 - 1).shape == (1, 0)


def encoder() -> runtime.Network:
    """A network of 50 inputs with an encoder of images."""
    network = make("deep")
    network.encoder = data.RateEncoding()
    return exported(network)


def header_of(size: int) -> bytes:
    """A file whose header has this many bytes."""
    return size.to_bytes(8, "little") + b" " * size


@refusals(
    Message("indices: expected values from 0 to the number of inputs less 1", lambda: run(indices=np.int32([0, 99]))),
    Message("indices: expected values from 0 to the number of inputs less 1", lambda: run(indices=np.array([0, -1]))),
    Message(
        r"indices: expected values in \[0, 2\^31\), got 0 to 1099511627776", lambda: run(indices=np.array([0, 2**40]))
    ),
    Message("offsets: expected values that ascend from 0", lambda: run(offsets=np.array([0, 2, 1, 1, 2]))),
    Message("events: expected 5 offsets and as many values as indices", lambda: run(offsets=np.array([0, 1, 1, 3]))),
    Message("events: expected 5 offsets and as many values as indices", lambda: run(values=np.float32([1]))),
    Message("values: expected no NaN", lambda: run(values=np.array([1.0, np.nan]))),
    Message("lengths: expected one for each of 2 samples, got 3", lambda: run(lengths=np.array([0, 1, 2]))),
    Message("lengths: expected values from 0 to the number of steps", lambda: run(lengths=np.array([3, 0]))),
    Message(
        r"lengths: expected integers below 2\^63, got 9223372036854775811",
        lambda: run(lengths=np.array([3, 2**63 + 3], ">u8")),
    ),
    Message("lengths: expected no event past a sample's length", lambda: run(lengths=np.array([0, 2]))),
    Message(r"events: expected 28 inputs, got shape \(2, 2, 9\)", lambda: run(shape=(2, 2, 9))),
    Message("steps and batch: expected at least 0, and a product below 2", lambda: run(shape=(2**32, 2**32, 28))),
    Message("steps and batch: expected at least 0, and a product below 2", lambda: run(shape=(-1, 1, 28))),
    Message("threads: expected at least 1, got 0", lambda: loaded("deep").run(np.zeros((3, 1, 50)), threads=0)),
    Message("batch: expected at least 1, got 0", lambda: loaded("deep").stream(0)),
    Message("batch: expected at least 1, got -1", lambda: loaded("deep").stream(-1)),
    Message("", lambda: loaded("deep").stream(2**62), MemoryError),
    Message(r"images: expected values in \[0, 1\], got 2.0", lambda: encode(RATE, pixel=2.0)),
    Message("encoder: expected an image encoder, got SoundEncoding", lambda: encode({"name": "SoundEncoding"})),
    Message(r"encoder: expected hold to be an int in \[1, 2\^20\], got None", lambda: encode({"name": "HeldEncoding"})),
    Message("encoder: expected a JSON object with its name and settings", lambda: encode("[1]")),
    Message("encoder: expected a JSON object with its name and settings", lambda: encode("[" * 100_000)),
    Message("encoder: expected steps to be an int in", lambda: encode({"name": "RateEncoding"})),
    Message("encoder: expected steps .* got True", lambda: encode({"name": "LatencyEncoding", "steps": True})),
    Message(
        r"encoder: expected steps to be an int in \[1, 2\^31\), got 0",
        lambda: encode({"name": "LatencyEncoding", "steps": 0, "prefix": 0}),
    ),
    # steps + prefix is positive
    Message("encoder: expected prefix to be an int", lambda: encode({**RATE, "steps": 1000008, "prefix": -1000000})),
    Message("encoder: expected gain to be finite", lambda: encode({**RATE, "gain": np.inf})),
    Message("encoder: expected gain to be finite and at least 0, got None", lambda: encode({**RATE, "gain": None})),
    Message(
        r"images: expected shape .* with 50 pixels each, got \(2, 49\)", lambda: encoder().encode(np.zeros((2, 49)))
    ),
    Message(r"images: expected shape .*, got \(\)", lambda: encoder().encode(0.5)),
    Message(
        r"input: expected shape \(T, B, K\), got \(3, 1, 1, 7, 4\): flatten maps to x.reshape\(T, B, -1\)",
        lambda: loaded("lateral, linear").run(np.zeros((3, 1, 1, 7, 4))),
    ),
    Message("seed: expected an int, got float", lambda: encoder().encode(np.zeros((1, 50)), seed=1.5), TypeError),
    Message(
        "events: expected numbers, got complex128", lambda: encoder().run(np.zeros((3, 1, 50), complex)), TypeError
    ),
    Message("events: expected an array of numbers, got list", lambda: encoder().run([[1.0], [2.0, 3.0]])),
    Message("threads: expected an int, got float", lambda: encoder().run(np.zeros((3, 1, 50)), threads=1.5), TypeError),
    Message("batch: expected an int, got float", lambda: encoder().stream(1.5), TypeError),
    Message("state: expected bytes, got int", lambda: encoder().stream().restore(5), TypeError),
    Message("network: expected layers whose header fits in 1048576 bytes, got", lambda: exported(SRC(1, 1, 1800))),
    Message("header: expected at most 1048576 bytes, got 1048577", lambda: runtime.Network(header_of(2**20 + 1))),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_a_network_can_be_pickled_and_is_its_own_copy() -> None:
    net, x = loaded("deep"), np.ones((20, 2, 50), np.float32)
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.run(x), net.run(x)) and net.run(x).any()
    assert copy.copy(net) is net and copy.deepcopy(net) is net


def test_zero_images_give_a_batch_of_zero_samples() -> None:
    assert encoder().encode(np.zeros((0, 50))).shape[1] == 0


def test_a_state_is_restored_from_any_bytes() -> None:
    stream = loaded("deep").stream()
    expected = [stream.step(np.ones(50, np.float32)) for _ in range(30)][-1]
    for kind in (bytes, bytearray, memoryview):
        again = loaded("deep").stream()
        for _ in range(29):
            again.step(np.ones(50, np.float32))
        state = kind(again.save())
        again.reset()
        again.restore(state)
        assert np.array_equal(again.step(np.ones(50, np.float32)), expected)


def test_logits_are_the_same_where_denormals_are_flushed() -> None:
    net = exported(SRCClassifier(4, [], 2, initial_state="rest", readout_alpha=0.5))
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


def altered(tensors: dict[str, Tensor | None] | None = None, **texts: str | None) -> bytes:
    """The file of a network with other tensors and texts in its metadata; entries of None are left out."""
    whole = bytes_of(make("lateral, linear"))
    new_tensors = {**load(whole), **(tensors or {})}
    new_texts = {**split(whole)[0]["__metadata__"], **texts}
    return save(
        {name: x for name, x in new_tensors.items() if x is not None},
        {name: x for name, x in new_texts.items() if x is not None},
    )


def sharing_bytes() -> bytes:
    header, tensors = split(SMALL)
    header["layers.0.alpha"]["data_offsets"] = header["layers.0.rho"]["data_offsets"]
    return joined(header, tensors)


def delayed_file(first: Tensor, tensors: dict[str, Tensor] | None = None, version: str = "3") -> bytes:
    """The file of a network whose inputs have these delays."""
    return altered({"layers.0.delays.first": first.to(torch.int32), **(tensors or {})}, version=version)


def wide_lateral() -> bytes:
    """The file of a layer of 2,050 neurons whose recurrent weights have long delays."""
    tensors: dict[str, Tensor | None] = {
        "layers.0.weight": torch.zeros(2050, 28),
        "layers.0.lateral": torch.zeros(2050, 2050),
        "layers.0.lateral_delays.first": torch.full((2050, 1), 131000, dtype=torch.int32),
        **{f"layers.0.{name}": torch.full((1,), 0.5) for name in ("bias", "alpha", "zs_hyp", "initial")},
    }
    return altered({**tensors, "layers.0.initial": None}, version="3")


def two_delayed_layers() -> bytes:
    tensors = load(bytes_of(SRC(1100, 1100, 2)))
    first = torch.full((1100, 1), 131070, dtype=torch.int32)
    tensors |= {f"layers.{k}.delays.first": first.clone() for k in range(2)}
    return save(tensors, {"format": "srcell.network", "version": "3", "readout": "none"})


def integers_with_delays() -> bytes:
    content = bytes_of(srcell.IntegerSRC(3, 2))
    first = {"layers.0.delays.first": torch.ones(3, 1, dtype=torch.int32)}
    return save({**load(content), **first}, {**split(content)[0]["__metadata__"], "version": "3"})


def map_file(sizes: list[int] | dict[int, int] | None = None, version: str = "4", **tensors: Tensor) -> bytes:
    """The file of a convolutional layer with other sizes, a list or by their number, and other tensors."""
    content = MAPPED
    numbers = load(content)
    if isinstance(sizes, dict):
        for k, size in sizes.items():
            numbers["layers.0.convolution"][k] = size
    elif sizes is not None:
        numbers["layers.0.convolution"] = torch.tensor(sizes, dtype=torch.int32)
    numbers |= {f"layers.0.{name}": x for name, x in tensors.items()}
    return save(numbers, {**split(content)[0]["__metadata__"], "version": version})


def two_maps(*sizes: list[int]) -> bytes:
    """The file of two layers of one kernel of one weight, with these channels and sizes of the inputs and maps."""
    layer, tensors = load(MAPPED), {}
    del layer["layers.0.initial"]
    for k, of_layer in enumerate(sizes):
        layer["layers.0.weight"] = torch.zeros(1, of_layer[0], 1, 1)
        layer["layers.0.convolution"] = torch.tensor([*of_layer, 1, 1, 0, 0, 1, 1], dtype=torch.int32)
        layer["layers.0.bias"] = torch.zeros(1)
        tensors |= {name.replace(".0.", f".{k}."): x.clone() for name, x in layer.items()}
    return save(tensors, {"format": "srcell.network", "version": "4", "readout": "none"})


SMALL = bytes_of(SRCClassifier(3, [2], 2, recurrent=True, readout="linear"))
RESONANT = bytes_of(SRCClassifier(3, [2], 2, omega=0.3, readout="linear"))
MAPPED = bytes_of(nn.Sequential(nn.Unflatten(2, (2, 4, 4)), SpikesOnly(SRCConv2d(2, 4, 3, initial_state="rest"))))
STANDARDISED = bytes_of(SRCClassifier(3, [2], 2, readout="linear", standardise=standardise(3)))
LINEAR = bytes_of(nn.Sequential(nn.Linear(3, 2), SpikesOnly(SRC(2, 4)), nn.Linear(4, 2)))
DELAYED = bytes_of(
    SRCClassifier(3, [2], 2, recurrent=True, readout="linear", input_delay=5, taps=2, recurrent_delay=300)
)


def test_a_header_may_escape_every_character() -> None:
    header, tensors = split(SMALL)
    names = ["a\x7f\xe9\u2026\uffff", "\U00010000\U0001f600\U0010ffff"]
    header["__metadata__"]["classes"] = json.dumps(names, ensure_ascii=False)
    content = joined(header, tensors)
    assert rb"\ud83d\ude00" in content
    assert runtime.Network(content).classes == names


def constants(alpha: float, window: float) -> dict[str, Tensor | None]:
    return {"readout.constants": torch.tensor([alpha, window], dtype=torch.float64)}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("expected", lambda: b""),
        ("expected", lambda: b"\0" * 7),
        ("expected", lambda: b"\xff" * 100),
        ("expected", lambda: (2**63).to_bytes(8, "little") + b"{}"),
        ("header: expected", lambda: joined({})),
        ("header: expected 'format' among the metadata", lambda: joined({"__metadata__": {"a": "\U0001f600\ud83d"}})),
        ("header: expected tensors that follow one another", sharing_bytes),
        ("header: expected tensors that cover the whole file", lambda: SMALL + b"\0"),
        ("format: expected 'srcell.network'", lambda: altered(format="x")),
        ("version: expected 1, 2, 3, 4, 5 or 6, got '7': written by a newer srcell", lambda: altered(version="7")),
        ("layers.0.omega: expected none in a file of version 1", lambda: altered({"layers.0.omega": torch.ones(1)})),
        ("layers.0.delays: expected none in a file of version 2", lambda: delayed_file(torch.ones(28, 1), version="2")),
        (
            "layers.0.delays: expected none in a file of version 1",
            lambda: altered({"layers.0.lateral_delays.first": torch.ones(40, 1, dtype=torch.int32)}),
        ),
        (r"layers.0.weight: expected F32 \(any, 56\), got F32 \(40, 28\)", lambda: delayed_file(torch.ones(28, 2))),
        (r"layers.0.delays.first: expected I32 \(any, any\), got I32 \(28\)", lambda: delayed_file(torch.ones(28))),
        (
            r"layers.0.delays.first: expected at least one delay, got \(28, 0\)",
            lambda: delayed_file(torch.ones(28, 0)),
        ),
        (
            "layers.0.delays.first: expected delays of at most 131070 steps, got 2147483646",
            lambda: delayed_file(torch.full((28, 1), 2**31 - 2, dtype=torch.int64)),
        ),
        (
            "layers.0.delays.first: expected delays of at most 131070 steps, got -131071",
            lambda: delayed_file(torch.full((28, 1), -131071)),
        ),
        (
            "layers.0.delays: expected at most 268435456 numbers on their way to a sample, .*, got 277213050",
            lambda: delayed_file(torch.full((2050, 1), 131070), {"layers.0.weight": torch.zeros(40, 2050)}),
        ),
        (  # each layer alone would fit
            "layers.1.delays: expected at most 268435456 numbers on their way to a sample, in all layers together",
            two_delayed_layers,
        ),
        (  # few sources, but each row of the delay line marks all of its terms
            "layers.0.delays: expected at most 268435456 numbers on their way to a sample, .*, got 270528480",
            lambda: delayed_file(torch.full((1, 66_000), 131070), {"layers.0.weight": torch.zeros(40, 66_000)}),
        ),
        (
            "layers.0.delays: expected at most 268435456 numbers on their way to a sample, .*, got 277065000",
            wide_lateral,
        ),
        (
            r"layers.0.delays.factors: expected F32 \(28, 1, any\), got F32 \(28, 2\)",
            lambda: delayed_file(torch.ones(28, 1), {"layers.0.delays.factors": torch.ones(28, 2)}),
        ),
        (
            "layers.0.delays.factors: expected at least one factor for each delay, got none",
            lambda: delayed_file(torch.ones(28, 1), {"layers.0.delays.factors": torch.ones(28, 1, 0)}),
        ),
        (
            "layers.0.delays.factors: expected finite values",
            lambda: delayed_file(torch.ones(28, 1), {"layers.0.delays.factors": torch.full((28, 1, 2), torch.inf)}),
        ),
        (
            r"layers.0.lateral_delays.first: expected I32 \(40, 1\), got I32 \(39, 1\)",
            lambda: altered({"layers.0.lateral_delays.first": torch.ones(39, 1, dtype=torch.int32)}, version="3"),
        ),
        ("layers.0.delays: expected none for integer neurons", integers_with_delays),
        (
            r"layers.0.omega: expected values in \[-pi, pi\]",
            lambda: altered({"layers.0.omega": torch.full((40,), 3.2)}, version="2"),
        ),
        (
            "layers.0.omega: expected 1 or 40 values, got 39",
            lambda: altered({"layers.0.omega": torch.ones(39)}, version="2"),
        ),
        ("version: expected 1, 2, 3, 4, 5 or 6", lambda: altered(version="1\n2")),
        ("version: expected 1, 2, 3, 4, 5 or 6", lambda: altered(version="\U0001f600")),
        ("layers.0.convolution: expected none in a file of version 3", lambda: map_file(version="3")),
        (
            "layers.0.constant: expected none in a file of version 3",
            lambda: altered({"layers.0.constant": torch.ones(40)}, version="3"),
        ),
        (
            r"layers.0.constant: expected F32 \(40\), got F32 \(1\)",
            lambda: altered({"layers.0.constant": torch.ones(1)}, version="4"),
        ),
        (r"layers.0.weight: expected F32 \(any, any, any, any\)", lambda: map_file(weight=torch.zeros(4, 2))),
        (r"layers.0.convolution: expected I32 \(11\)", lambda: map_file([1, 4, 4])),
        *(
            (f"layers.0.convolution: expected {name} in {bounds}, got {got}", lambda k=k, got=got: map_file({k: got}))
            for k, name, bounds, got in (
                (0, "channels", r"\[1, 1048576\]", 0),
                (4, "width of the map", r"\[1, 1048576\]", -1),
                (6, "stride_x", r"\[1, 1048576\]", 0),
                (7, "padding_top", r"\[0, 1048576\]", -1),
                (10, "dilation_x", r"\[1, 1048576\]", 2**20 + 1),
            )
        ),
        *(
            (
                r"layers.0.weight: expected \(O, C / groups, height, width\) for C = 2 and O a multiple of groups, got",
                lambda w=w: map_file(weight=w),
            )
            for w in (
                torch.zeros(4, 3, 3, 3),
                torch.zeros(3, 1, 3, 3),
                torch.zeros(4, 0, 3, 3),
                torch.zeros(0, 2, 3, 3),
            )
        ),
        *(
            (
                "layers.0.convolution: expected at most 4194304 inputs, and as many neurons",
                lambda sizes=sizes: map_file(sizes),
            )
            for sizes in ({1: 2**20, 2: 2**20}, {3: 2**20, 4: 2**20}, {3: 2**20, 4: 2**4})
        ),
        (
            r"layers.0.weight: expected a kernel of at most 2\^22 / size of the input rows and columns",
            lambda: map_file({1: 2**19}, weight=torch.zeros(4, 2, 9, 1)),
        ),
        (  # each layer alone would fit
            "layers.1.convolution: expected at most 4194304 neurons in maps, .*in all layers together, got 6291456 and",
            lambda: two_maps([1, 1, 2**20, 3, 2**20], [1, 3, 2**20, 3, 2**20]),
        ),
        (
            "layers.1.convolution: expected the 16 neurons of the layer below as inputs, got 18",
            lambda: two_maps([1, 4, 4, 4, 4], [2, 3, 3, 3, 3]),
        ),
        (
            "layers.0.bias: expected 1 or 4 values, got 16",
            lambda: map_file(bias=torch.zeros(16)),
        ),
        (r"layers.0.initial: expected F32 \(3, 4\)", lambda: map_file(initial=torch.zeros(3, 16))),
        ("header: expected 10 tensors", lambda: map_file(lateral=torch.zeros(4, 4))),
        ("header: expected 'readout' among the metadata", lambda: altered(readout=None)),
        ("readout: expected none, votes or linear, got 'x'", lambda: altered(readout="x")),
        ("readout: expected none, votes or linear", lambda: altered(readout="x\ny" + "z" * 1000)),
        (r"layers.0.bias: expected a tensor \(any\), found none", lambda: altered({"layers.0.bias": None})),
        ("header: expected 12 tensors for 1 layers and the readout", lambda: altered({"more": torch.zeros(1)})),
        (
            r"layers.0.lateral: expected F32 \(40, 40\), got F32 \(40, 39\)",
            lambda: altered({"layers.0.lateral": torch.zeros(40, 39)}),
        ),
        (
            r"layers.0.bias: expected F32 \(any\), got F64 \(40\)",
            lambda: altered({"layers.0.bias": torch.zeros(40, dtype=torch.float64)}),
        ),
        ("layers.0.rs: expected 1 or 40 values, got 7", lambda: altered({"layers.0.rs": torch.zeros(7)})),
        ("layers.0.bias: expected a finite value", lambda: altered({"layers.0.bias": torch.full((40,), torch.nan)})),
        (r"layers.0.alpha: expected values in \[0, 1\]", lambda: altered({"layers.0.alpha": torch.tensor([1.5])})),
        ("layers.0.rho: expected finite values > 0", lambda: altered({"layers.0.rho": torch.zeros(1)})),
        (r"readout.constants: expected an alpha in \[0, 1\]", lambda: altered(constants(2, 2))),
        ("readout.constants: expected a whole number of steps as window", lambda: altered(constants(0.5, 0.5))),
        ("readout.constants: expected .* as window, at most 1048576", lambda: altered(constants(0.5, 2**21))),
        (
            r"layers.0.weight: expected from 1 to 2\^31 neurons and inputs, got \(0, 28\)",
            lambda: altered({"layers.0.weight": torch.zeros(0, 28)}),
        ),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(message: str, content: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "net.srcell"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}") as error:
        runtime.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 200


def test_a_missing_file_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runtime.load(tmp_path / "absent.srcell")


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False))
def test_altered_files_are_refused_in_one_line_or_read(draw: random.Random) -> None:
    try:
        net = runtime.Network(corrupted(draw, draw.choice([SMALL, RESONANT, DELAYED, MAPPED, LINEAR, STANDARDISED])))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    if net.input_size < 100 and not net.layers[0].neurons > 100:
        assert net.run(np.ones((3, 1, net.input_size)), every_step=False).shape[0] == 1


def test_networks_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.srcell"
    with pytest.raises(ValueError, match=r"^network \(Linear\): expected at least one layer of neurons, got none"):
        export(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"expected inputs and neurons in every layer, got \(2, 0\)"):
        export(SRC(0, 2), path)
    with pytest.raises(ValueError, match=r"network \(SRC\): expected weights of torch.float32, got torch.float64"):
        export(SRC(3, 2, dtype=torch.float64), path)
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


def test_without_torch_the_runtime_works_and_the_rest_says_what_it_needs(tmp_path: Path) -> None:
    export(make("lateral, linear"), tmp_path / "net.srcell")
    program = """
        import contextlib
        import numpy as np
        import srcell
        from srcell import runtime
        from srcell.__main__ import main

        net = runtime.load(sys.argv[1])
        steps = np.random.default_rng(0).random((150, 1, net.input_size)) < 0.2
        stream = net.stream()
        spikes = np.stack([stream.step(step) for step in steps])
        assert np.array_equal(spikes, net.spikes(steps)[-1])
        assert srcell.__version__ == runtime.version
        try:
            srcell.SRC
        except ImportError as error:
            print(error)
        with contextlib.redirect_stderr(sys.stdout):
            assert main() == 2
        loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
        assert not loaded & {"torch", "safetensors"}
        print(int((spikes > 0).sum()))
    """
    of_class, of_command, active = output_without(["torch"], program, str(tmp_path / "net.srcell")).splitlines()
    needed = "expected torch 2.4 or newer to be installed, found none: pip install torch"
    assert of_class.startswith(f"srcell.SRC: {needed}") and of_command == f"srcell: {needed}"
    net = loaded("lateral, linear")
    steps = np.random.default_rng(0).random((150, 1, net.input_size)) < 0.2
    assert int(active) == int((net.spikes(steps)[-1] > 0).sum()) > 0
