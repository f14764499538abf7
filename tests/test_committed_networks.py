"""The trained networks of experiments/results: all that they can be exported to is made anew and gives their
answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srcell
from srcell import EventBatch, data, runtime
from srcell.models import IntegerClassifier
from srcell.training import make_encoding
from support import second_reader
from support.calls import EXPORTS_ONNX, NEW_TORCH

pytestmark = pytest.mark.release

RESULTS = Path(__file__).resolve().parent.parent / "experiments" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/model.safetensors"))
FILES = sorted(RESULTS.glob("*/*.srcell"))


def events_for(model: Any) -> EventBatch:
    """scikit-learn's digits, enlarged to the size of MNIST's, as the network's own encoder encodes them."""
    encoding = make_encoding(model.config)
    digits = data.load("digits").test.images[: 20 if isinstance(encoding, data.HeldEncoding) else 100]
    images = torch.zeros(len(digits), 28, 28)
    images[:, 2:26, 2:26] = digits.repeat_interleave(3, 1).repeat_interleave(3, 2)
    if isinstance(encoding, data.HeldEncoding):
        elements = images.reshape(len(digits), -1, math.prod(model.input_shape))
        samples = data.LabelledSequences(elements, torch.zeros(len(digits), dtype=torch.int64))
        made, _ = next(iter(data.EventLoader(samples, encoding, len(digits))))
    else:
        made = encoding(images, seed=0)
    assert isinstance(made, EventBatch) and made.num_events > 0
    return made


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def network(request: pytest.FixtureRequest) -> tuple[Any, EventBatch, Tensor]:
    """A network, events for it, and its logits."""
    model = srcell.load(request.param).eval()
    events = events_for(model)
    with torch.no_grad():
        return model, events, model(events)


def test_the_exported_file(network: Any, tmp_path: Path) -> None:
    model, events, logits = network
    model.export(tmp_path / "net.srcell")
    net = runtime.load(tmp_path / "net.srcell")
    with torch.no_grad():
        expected = model.layer_spikes(events)
    for ours, theirs in zip(net.spikes(events), expected, strict=True):
        assert np.array_equal(ours, theirs.numpy()) and ours.any()
    assert np.array_equal(net.run(events).argmax(1), logits.argmax(1).numpy())
    spikes, _ = second_reader.Network((tmp_path / "net.srcell").read_bytes()).run(events.to_dense().double().numpy())
    for ours, theirs in zip(spikes, expected, strict=True):
        assert np.mean((ours > 0) == (theirs.numpy() > 0)) > 0.99


def test_the_saved_program(network: Any, tmp_path: Path) -> None:
    model, events, _ = network
    if isinstance(model, IntegerClassifier) and not NEW_TORCH:
        pytest.skip("torch 2.4 exports no module that changes a buffer")
    x = events.to_dense()
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / "net.pt2")
    with torch.no_grad():
        assert torch.equal(torch.export.load(tmp_path / "net.pt2").module()(x), model(x))


@pytest.mark.skipif(not EXPORTS_ONNX, reason="needs torch 2.6")
def test_onnx(network: Any, tmp_path: Path) -> None:
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    from srcell.onnx import export

    model, events, logits = network
    export(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    found = session.run(None, {name: events.to_dense().numpy()})[0]
    equal = np.mean(found.argmax(1) == logits.argmax(1).numpy())
    assert equal == 1 if isinstance(model, IntegerClassifier) else equal >= 0.95


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_read_by_a_second_reader(path: Path) -> None:
    net = runtime.load(path)
    x = (np.random.default_rng(0).random((60, 2, net.input_size)) < 0.1).astype(np.float32)
    spikes, _ = second_reader.Network(path.read_bytes()).run(x.astype(float))
    for ours, theirs in zip(spikes, net.spikes(x), strict=True):
        assert np.mean((ours > 0) == (theirs > 0)) > 0.99 and theirs.any()
