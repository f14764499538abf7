"""docs/howto/file-format.md: a reader written from it reads exported files, and refuses what the runtime refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import srcell
from srcell import runtime
from support import second_reader
from test_export_networks import NETWORKS, PRODUCTS, input_of, made
from test_runtime import bytes_of

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
        fired = (ours > 0) & (theirs > 0)
        assert np.mean((ours > 0) == (theirs > 0)) > 0.999
        assert np.median(abs(ours - theirs)[fired]) < 1e-5
    if net.num_classes:
        assert logits is not None and np.median(abs(logits - net.run(x))) < 1e-3
    else:
        assert logits is None


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
    "another format": ("votes", say("format", "other")),
    "a version of the future": ("votes", say("version", "5")),
    "an unknown readout": ("votes", say("readout", "loud")),
    "no constant": ("votes", drop("layers.0.rho")),
    "a tensor that the page lacks": ("votes", add("layers.0.more", np.zeros(1, np.float32))),
    "a layer after a gap": ("votes", add("layers.7.weight", np.zeros((1, 1), np.float32))),
    "weights of another type": ("votes", cast("layers.1.weight", np.float64)),
    "inputs of another number": ("votes", add("layers.1.weight", np.zeros((40, 32), np.float32))),
    "alpha above 1": ("votes", put("layers.0.alpha", 0, 1.5)),
    "rho of 0": ("votes", put("layers.0.rho", 0, 0.0)),
    "rho without a reciprocal": ("votes", put("layers.0.rho", 0, 1e-40)),
    "an infinite constant": ("votes", put("layers.0.rs", 0, np.inf)),
    "constants for other neurons": ("votes", add("layers.0.bias", np.full(32, -6, np.float32))),
    "a state of two": ("stacked", add("layers.0.initial", np.zeros((2, 30), np.float32))),
    "omega in version 1": ("resonant", say("version", "1")),
    "omega above pi": ("resonant", put("layers.0.omega", 0, 3.2)),
    "delays in version 2": ("delayed in the middle", say("version", "2")),
    "a delay of 131,071 steps": ("delayed in the middle", put("layers.1.delays.first", 0, 131_071)),
    "an infinite factor": ("two delayed layers", put("layers.1.delays.factors", (0, 0, 0), np.inf)),
    "a constant in version 3": ("Linear, recurrence", say("version", "3")),
    "a convolution without channels": ("a map", put("layers.0.convolution", 0, 0)),
    "a dilation of 0": ("a map", put("layers.0.convolution", 9, 0)),
    "too wide a map": ("a map", put("layers.0.convolution", 4, 2**20)),
    "votes of classes that do not divide": ("votes", put("readout.constants", 0, 7)),
    "half a class": ("votes", put("readout.constants", 0, 0.5)),
    "a temperature of 0": ("votes", put("readout.constants", 3, 0)),
    "a readout's alpha below 0": ("stacked", put("readout.constants", 0, -0.1)),
    "half a step of window": ("stacked", put("readout.constants", 1, 0.5)),
    "too long a window": ("stacked", put("readout.constants", 1, 2**20 + 1)),
    "a readout of other neurons": ("stacked", add("readout.weight", np.zeros((5, 29), np.float32))),
    "a lateral weight for integers": ("integers", add("layers.0.lateral", np.zeros((30, 30), np.float32))),
    "floats above integers": ("integers", drop("layers.1.constants")),
    "2^28 numbers on their way": ("votes", long_delays),
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_refuse(case: str) -> None:
    name, change = REFUSED[case]
    unchanged = altered(name, lambda tensors, texts: None)
    second_reader.Network(unchanged), runtime.Network(unchanged)
    content = altered(name, change)
    with pytest.raises(ValueError):
        runtime.Network(content)
    with pytest.raises(second_reader.RefusedError):
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
        lambda content: header_of(content, lambda text: text.replace('"F32"', '"F31"', 1)),
    ],
)
def test_both_refuse_what_is_no_safetensors_file(change: Callable[[bytes], bytes]) -> None:
    content = change(bytes_of(made("votes")[0]))
    with pytest.raises(ValueError):
        runtime.Network(content)
    with pytest.raises(second_reader.RefusedError):
        second_reader.Network(content)
