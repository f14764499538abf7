"""Functions and layers as calls on tensors alone, for tests of torch's modes and compiler."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from srcell import (
    SRC,
    EventBatch,
    IntegerSRC,
    SRCConv2d,
    integer_src_linear,
    latency_encode,
    leaky_readout,
    rate_encode,
    src,
    src_linear,
)
from srcell.functional import count_spikes
from srcell.functional.readout import scale_neurons
from support.inputs import noise

# Torch 2.4 breaks graphs at class instances, and cannot run operators with list arguments under vmap.
NEW_TORCH = hasattr(torch.library, "register_vmap")
# From torch 2.6 on its exporter takes a table of translations.
EXPORTS_ONNX = "custom_translation_table" in inspect.signature(torch.onnx.export).parameters


def images() -> Tensor:
    return noise(1, 3, 6, dtype=torch.float32).abs()


def spikes() -> Tensor:
    return (noise(2, 30, 2, 6, dtype=torch.float32) > 0.5).float()


def make_batch(offsets: Tensor, indices: Tensor) -> EventBatch:
    return EventBatch(offsets, indices, shape=(2, 1, 3))


# Functions that run no layer.
OUTSIDE_LAYERS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "rate_encode": (lambda x: rate_encode(x, seed=1), (images(),)),
    "latency_encode": (latency_encode, (images(),)),
    "count_spikes": (count_spikes, (spikes(),)),
    "scale_neurons": (scale_neurons, (spikes(), torch.tensor([[0.0, 2.0, 1.0, 0.5, 1.0, 1.0]] * 2))),
    "EventBatch": (make_batch, (torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32))),
}
# Calls that run a layer; the weights are made before any mode is entered.
_LAYER, _MAPS, _INTEGERS = SRC(6, 4), SRCConv2d(1, 2, 3), IntegerSRC(6, 4)
OF_LAYERS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "src": (lambda x: src(x, -6.0), (spikes(),)),
    "src_linear": (lambda x, w: src_linear(x, w, -6.0, method="events"), (spikes(), noise(3, 4, 6).float())),
    "SRC": (_LAYER, (spikes(),)),
    "SRCConv2d": (lambda x: _MAPS(x.view(30, 2, 1, 2, 3).repeat(1, 1, 1, 2, 2)), (spikes(),)),
    "integer_src_linear": (integer_src_linear, (spikes(), (300 * noise(4, 4, 6)).to(torch.int16))),
    "IntegerSRC": (_INTEGERS, (spikes(),)),
    "leaky_readout": (lambda x: leaky_readout(x, 3, lengths=[30, 17]), (spikes(),)),
}
CALLS = OUTSIDE_LAYERS | OF_LAYERS


def parts(result: Any) -> list[Tensor]:
    return list(pytree.tree_leaves(result))


def assert_same(result: Any, expected: Any) -> None:
    assert type(result) is type(expected)
    assert len(parts(result)) == len(parts(expected)) > 0
    assert all(map(torch.equal, parts(result), parts(expected)))


def in_process(code: str, *arguments: str) -> str:
    """The output of code run in a process of its own, so that a crash does not end the tests."""
    made = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, f"status {made.returncode}\n{made.stderr[-2000:]}"
    return made.stdout.strip()
