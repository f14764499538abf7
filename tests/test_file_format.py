"""docs/howto/file-format.md: a reader written from it reads exported files, and refuses what the runtime refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

import srcell
from srcell import IntegerCell, runtime
from support import second_reader
from support.networks import bytes_of
from test_export_networks import NETWORKS, PRODUCTS, input_of, made

Tensors = dict[str, Any]


@pytest.mark.parametrize("name", NETWORKS | PRODUCTS)
def test_a_second_reader_sees_the_same_spikes_and_logits(name: str) -> None:
    """In float64 a spike may begin a step earlier or later, and have another height."""
    network, net = made(name)
    x = input_of(name).numpy()
    spikes, logits = second_reader.Network(bytes_of(network)).run(x.astype(float))
    found = net.spikes(x)
    assert len(spikes) == len(found)
    for ours, theirs in zip(spikes, found, strict=True):
        if name == "integers":
            assert np.array_equal(ours, theirs)
            continue
        fired = (ours > 0) & (theirs > 0)
        assert np.mean((ours > 0) == (theirs > 0)) > 0.999
        assert np.median(abs(ours - theirs)[fired]) < 1e-5
    if net.num_classes:
        assert logits is not None and np.median(abs(logits - net.run(x, every_step=False))) < 1e-3
    else:
        assert logits is None


def spikes_of_both(network: nn.Module, *shape: int) -> tuple[Any, Any]:
    """Of a network of one layer, as the second reader and as the runtime computes them."""
    content, x = bytes_of(network), (np.random.default_rng(0).random(shape) < 0.1).astype(np.float32)
    (ours,), _ = second_reader.Network(content).run(x.astype(float))
    (theirs,) = runtime.Network(content).spikes(x)
    return ours, theirs


@pytest.mark.parametrize("initial_state", ["zeros", "rest"])
@pytest.mark.parametrize("change", [{}, {"i_max": 12}, {"gate_threshold": 363}, {"spike_threshold": 363}])
def test_a_second_reader_computes_integers_exactly(change: dict[str, int], initial_state: str) -> None:
    """363 is a value of h on the way to a spike (docs/integer.md); the weights reach 12."""
    layer = srcell.IntegerSRC(8, 20, weight_bits=6, cell=IntegerCell(**change), initial_state=initial_state)
    ours, theirs = spikes_of_both(layer, 200, 3, 8)
    assert np.array_equal(ours, theirs) and 0.01 < theirs.mean() < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": (2, 1), "kernel_size": (2, 3)},
        {"dilation": (1, 2), "kernel_size": (3, 2), "stride": (1, 2)},
        {"padding": (2, 0), "stride": (2, 1), "kernel_size": 2, "groups": 2},
    ],
)
def test_a_second_reader_computes_the_currents_of_maps(options: dict[str, Any]) -> None:
    """With alpha = 0 and a current that no other input shares, a wrong place would change the spikes."""
    torch.manual_seed(0)
    layer = srcell.SRCConv2d(2, 4, alpha=0.5, zs_hyp=0.3, **options)
    ours, theirs = spikes_of_both(nn.Sequential(nn.Unflatten(2, (2, 6, 7)), srcell.SpikesOnly(layer)), 60, 3, 84)
    assert np.mean((ours > 0) == (theirs > 0)) > 0.999 and theirs.mean() > 0.01


def test_a_second_reader_reads_a_network_that_hears(tmp_path: Path) -> None:
    for threshold, inputs in ((0.0, 6), (0.1, 12)):
        model = srcell.models.SRCClassifier(inputs, [8], 3)
        model.encoder = srcell.data.SoundEncoding(bands=6, threshold=threshold)
        model.export(tmp_path / "net.srcell")
        content = (tmp_path / "net.srcell").read_bytes()
        assert len(second_reader.Network(content).layers) == len(runtime.Network(content).layers)


def altered(name: str, change: Callable[[Tensors, dict[str, str]], object]) -> bytes:
    content = bytes_of(made(name)[0])
    tensors = {key: value.copy() for key, value in safetensors.numpy.load(content).items()}
    size = int.from_bytes(content[:8], "little")
    texts = json.loads(content[8 : 8 + size])["__metadata__"]
    change(tensors, texts)
    return safetensors.numpy.save(tensors, texts)


def put(key: str, place: Any, value: float) -> Callable[[Tensors, dict[str, str]], object]:
    return lambda tensors, texts: tensors[key].__setitem__(place, value)


def drop(key: str) -> Callable[[Tensors, dict[str, str]], object]:
    return lambda tensors, texts: tensors.pop(key)


def say(key: str, text: str) -> Callable[[Tensors, dict[str, str]], object]:
    return lambda tensors, texts: texts.update({key: text})


def add(key: str, value: Any) -> Callable[[Tensors, dict[str, str]], object]:
    return lambda tensors, texts: tensors.update({key: value})


def cast(key: str, dtype: Any) -> Callable[[Tensors, dict[str, str]], object]:
    return lambda tensors, texts: tensors.update({key: tensors[key].astype(dtype)})


def long_delays(tensors: Tensors, texts: dict[str, str]) -> None:
    texts["version"] = "3"
    tensors["layers.0.delays.first"] = np.full((24, 2700), 131_070, np.int32)
    tensors["layers.0.weight"] = np.zeros((33, 24 * 2700), np.float32)


REFUSED = {
    "another format": ("votes", say("format", "other"), "format", "format"),
    "a version of the future": ("votes", say("version", "7"), "version", "version"),
    "an unknown readout": ("votes", say("readout", "loud"), "readout", "readout"),
    "no constant": ("votes", drop("layers.0.rho"), "layers.0.rho", "layers.0.rho"),
    "a tensor that the page lacks": ("votes", add("layers.0.more", np.zeros(1, np.float32)), "tensors", "unknown"),
    "a layer after a gap": ("votes", add("layers.7.weight", np.zeros((1, 1), np.float32)), "tensors", "unknown"),
    "weights of another type": ("votes", cast("layers.1.weight", np.float64), "layers.1.weight", "layers.1.weight"),
    "inputs of another number": (
        "votes",
        add("layers.1.weight", np.zeros((40, 32), np.float32)),
        "layers.1.weight",
        "layers.1.weight",
    ),
    "alpha above 1": ("votes", put("layers.0.alpha", 0, 1.5), "alpha", "alpha"),
    "rho of 0": ("votes", put("layers.0.rho", 0, 0.0), "rho", "rho"),
    "rho without a reciprocal": ("votes", put("layers.0.rho", 0, 1e-40), "rho", "rho"),
    "an infinite constant": ("votes", put("layers.0.rs", 0, np.inf), "layers.0.rs", "finite"),
    "constants for other neurons": (
        "votes",
        add("layers.0.bias", np.full(32, -6, np.float32)),
        "layers.0.bias",
        "layers.0.bias",
    ),
    "a state of two": (
        "stacked",
        add("layers.0.initial", np.zeros((2, 30), np.float32)),
        "layers.0.initial",
        "layers.0.initial",
    ),
    "omega in version 1": ("resonant", say("version", "1"), "omega", "omega"),
    "omega above pi": ("resonant", put("layers.0.omega", 0, 3.2), "omega", "omega"),
    "delays in version 2": ("delayed in the middle", say("version", "2"), "delays", "delays"),
    "a delay of 131,071 steps": ("delayed in the middle", put("layers.1.delays.first", 0, 131_071), "delays", "delays"),
    "an infinite factor": ("two delayed layers", put("layers.1.delays.factors", (0, 0, 0), np.inf), "delays", "delays"),
    "a constant in version 3": ("Linear, recurrence", say("version", "3"), "constant", "constant"),
    "standardised inputs in version 4": ("standardised", say("version", "4"), "input.mean", "input.mean"),
    "a skip connection in version 5": ("a skip connection", say("version", "5"), "readout.skip", "readout.skip"),
    "a skip connection from other inputs": (
        "a skip connection",
        add("readout.skip", np.zeros((3, 23), np.float32)),
        "readout.skip",
        "readout.skip",
    ),
    "a mean without a deviation": ("standardised", drop("input.deviation"), "input.deviation", "input.deviation"),
    "a mean of other inputs": ("standardised", add("input.mean", np.zeros(23, np.float32)), "input.mean", "input.mean"),
    "an infinite mean": ("standardised", put("input.mean", 3, np.inf), "input.mean", "input: finite"),
    "a deviation of 0": ("standardised", put("input.deviation", 3, 0.0), "input.deviation", "input: deviation"),
    "a convolution without channels": ("a map", put("layers.0.convolution", 0, 0), "convolution", "convolution"),
    "a dilation of 0": ("a map", put("layers.0.convolution", 9, 0), "convolution", "convolution"),
    "too wide a map": ("a map", put("layers.0.convolution", 4, 2**20), "convolution", "convolution"),
    "votes of classes that do not divide": ("votes", put("readout.constants", 0, 7), "classes", "classes"),
    "names of other classes": ("votes", say("classes", '["a"]'), "names, one for each class, got 1", "names"),
    "names that are no list": ("votes", say("classes", '{"a": 1}'), "classes: expected '[' at byte 0", "names"),
    "half a class": ("votes", put("readout.constants", 0, 0.5), "classes", "classes"),
    "a temperature of 0": ("votes", put("readout.constants", 3, 0), "temperature", "votes"),
    "a readout's alpha below 0": ("stacked", put("readout.constants", 0, -0.1), "alpha", "alpha"),
    "half a step of window": ("stacked", put("readout.constants", 1, 0.5), "window", "window"),
    "too long a window": ("stacked", put("readout.constants", 1, 2**20 + 1), "window", "window"),
    "a readout of other neurons": (
        "stacked",
        add("readout.weight", np.zeros((5, 29), np.float32)),
        "readout.weight",
        "readout.weight",
    ),
    "a lateral weight for integers": (
        "integers",
        add("layers.0.lateral", np.zeros((30, 30), np.float32)),
        "tensors",
        "unknown",
    ),
    "floats above integers": ("integers", drop("layers.1.constants"), "layers.1.weight", "layers.1.weight"),
    "2^28 numbers on their way": ("votes", long_delays, "on their way", "room"),
    "a leak without a shift": ("integers", put("layers.0.constants", 0, 0), "leak_shift_a", "leak_shift_a"),
    "a bias beyond 16 bits": ("integers", put("layers.0.constants", 11, 32767), "at most 32767", "u, h and hs"),
    "a kernel without columns": (
        "a map",
        add("layers.0.weight", np.zeros((6, 2, 3, 0), np.float32)),
        "layers.0.weight",
        "weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_refuse(case: str) -> None:
    name, change, word, rule = REFUSED[case]
    unchanged = altered(name, lambda tensors, texts: None)
    second_reader.Network(unchanged), runtime.Network(unchanged)
    content = altered(name, change)
    with pytest.raises(ValueError, match=re.escape(word)):
        runtime.Network(content)
    with pytest.raises(second_reader.RefusedError, match=re.escape(rule)):
        second_reader.Network(content)


def header_of(content: bytes, change: Callable[[str], str]) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size].decode()).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:7],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: header_of(content, lambda text: text[:-3]),
        lambda content: header_of(content, lambda text: " " * 2**20 + text),
        lambda content: header_of(content, lambda text: text.replace("layers.0.alpha", "layers.0.bias")),
        lambda content: header_of(content, lambda text: re.sub(r'("layers.0.bias":{[^}]*})', r"\1,\1", text)),
        lambda content: header_of(content, lambda text: re.sub(r'(offsets":\[0),\d+', r"\1,1", text)),
        lambda content: header_of(content, lambda text: text.replace('"F32"', '"F31"', 1)),
        lambda content: header_of(content, lambda text: text.replace('"dtype"', '"more":"x","dtype"', 1)),
        lambda content: header_of(content, lambda text: text.replace('"version":"1"', '"version":1')),
        lambda content: header_of(content, lambda text: text.replace('"shape":[1]', '"shape":[1.0]', 1)),
        lambda content: header_of(content, lambda text: text.replace('"shape":[1]', '"shape":1', 1)),
        lambda content: header_of(content, lambda text: text.replace('"shape":[1]', f'"shape":[{2**64 + 1}]', 1)),
    ],
)
def test_both_refuse_what_is_no_safetensors_file(change: Callable[[bytes], bytes]) -> None:
    content = change(bytes_of(made("votes")[0]))
    with pytest.raises(ValueError):
        runtime.Network(content)
    with pytest.raises(second_reader.RefusedError):
        second_reader.Network(content)
