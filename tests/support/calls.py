"""Functions and layers as calls on tensors alone, for tests of torch's modes and compiler."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from srcell import (
    SRC,
    Delay,
    EventBatch,
    IntegerSRC,
    SRCConv2d,
    camera_encode,
    delay,
    integer_src_linear,
    latency_encode,
    leaky_readout,
    rate_encode,
    src,
    src_conv2d,
    src_linear,
)
from srcell.data import CameraEncoding
from srcell.functional import count_spikes
from srcell.functional.readout import scale_neurons
from support.inputs import noise

# Torch 2.4 breaks graphs at class instances, and cannot run operators with list arguments under vmap.
NEW_TORCH = hasattr(torch.library, "register_vmap")
# From torch 2.6 on its exporter takes a table of translations.
EXPORTS_ONNX = "custom_translation_table" in inspect.signature(torch.onnx.export).parameters

Call = tuple[Callable[..., Any], Sequence[Tensor]]
ENCODERS = (
    "rate_encode",
    "latency_encode",
    "camera_encode",
    "CameraEncoding",
    "delay of events",
)  # the number of events depends on the data


def images() -> Tensor:
    return noise(1, 3, 6, dtype=torch.float32).abs()


def spikes() -> Tensor:
    return (noise(2, 30, 2, 6, dtype=torch.float32) > 0.5).float()


def calls_outside_layers(
    x: Tensor, pixels: Tensor, lengths: Tensor | None = None, steps: int = 100, prefix: int = 0, seed: int = 1
) -> dict[str, Call]:
    """Functions that run no layer, on spikes (T, B, K) and images."""
    events = EventBatch.from_dense(x, lengths)
    parts = [events.offsets, events.indices] + (
        [events.values] if events.values is not None and lengths is None else []
    )
    delays = 4 * noise(9, x.shape[2]).float() + 4.5
    return {
        "rate_encode": (lambda p: rate_encode(p, steps, prefix=prefix, seed=seed), [pixels]),
        "latency_encode": (lambda p: latency_encode(p, steps, prefix=prefix), [pixels]),
        "camera_encode": (lambda a: camera_encode((a != 0).float()[:, :, None], seed=seed), [x]),
        "CameraEncoding": (lambda p: CameraEncoding(9, (9, 9))(p[:, None], seed=seed), [pixels]),
        "count_spikes": (count_spikes, [x]),
        "scale_neurons": (scale_neurons, [x, 2 * x.sum(0)]),
        "EventBatch": (lambda *p: EventBatch(*p, shape=events.shape), parts),
        "delay": (lambda a, d: delay(a, d, max_delay=9), [x, delays]),
        "delay of events": (
            lambda d, *p: delay(EventBatch(*p, shape=events.shape), d, max_delay=9),
            [delays, *parts],
        ),
    }


def calls_of_layers(
    x: Tensor, weight: Tensor, lengths: Tensor | None = None, method: str = "events"
) -> dict[str, Call]:
    """Functions that run a layer, on spikes (T, B, K) and a weight (N, K)."""
    parts, tree = pytree.tree_flatten(EventBatch.from_dense(x, lengths))
    integers = (300 * weight).clamp(-512, 511).to(torch.int16)
    classes = max(x.shape[2], 1)
    return {
        "src": (lambda a: src(a, -6.0, lengths=lengths), [x]),
        "src_linear": (lambda a, w: src_linear(a, w, -6.0, lengths=lengths, method=method), [x, weight]),
        "src_linear on events": (lambda w, *p: src_linear(pytree.tree_unflatten(p, tree), w, -6.0), [weight, *parts]),
        "integer_src_linear": (lambda a, w: integer_src_linear(a, w, lengths=lengths), [x != 0, integers]),
        "leaky_readout": (lambda a: leaky_readout(a, classes, lengths=lengths), [x]),
    }


def calls_of_maps(x: Tensor, weight: Tensor, lengths: Tensor | None = None) -> dict[str, Call]:
    """``src_conv2d`` by each method, on maps of two rows (T, B, K) and a weight (O, 1, height, width)."""
    parts, tree = pytree.tree_flatten(EventBatch.from_dense(x, lengths))
    sizes = 2, x.shape[2] // 2
    made: dict[str, Call] = {
        f"src_conv2d by {method}": (
            lambda a, w, method=method: src_conv2d(
                a.unflatten(2, (1, *sizes)), w, -6.0, lengths=lengths, method=method
            ),
            [x, weight],
        )
        for method in ("events", "dense")
    }
    made["src_conv2d on events"] = (
        lambda w, *p: src_conv2d(pytree.tree_unflatten(p, tree), w, -6.0, input_size=sizes),
        [weight, *parts],
    )
    return made


OUTSIDE_LAYERS = calls_outside_layers(spikes(), images())
# The weights are made before any mode is entered.
_LAYER, _MAPS, _INTEGERS, _DELAY = SRC(6, 4), SRCConv2d(1, 2, 3), IntegerSRC(6, 4), Delay(6, 9)
_DELAYED = SRC(6, 4, recurrent=True, delay_hh=2.0 * torch.arange(4) + 0.5, max_delay=9)
CALLS: dict[str, Call] = {
    **OUTSIDE_LAYERS,
    **calls_of_layers(spikes(), noise(3, 4, 6).float(), torch.tensor([30, 17])),
    "SRC": (_LAYER, [spikes()]),
    "SRC with delays": (_DELAYED, [spikes()]),
    "SRCConv2d": (lambda x: _MAPS(x.view(30, 2, 1, 2, 3).repeat(1, 1, 1, 2, 2)), [spikes()]),
    **calls_of_maps(spikes(), noise(4, 2, 1, 2, 2).float(), torch.tensor([30, 17])),
    "IntegerSRC": (_INTEGERS, [spikes()]),
    "Delay": (_DELAY, [spikes()]),
}


def assert_same(result: Any, expected: Any) -> None:
    """Assert that two results have the same types and tensors."""
    (made, form), (tensors, expected_form) = pytree.tree_flatten(result), pytree.tree_flatten(expected)
    assert form == expected_form and tensors
    assert all(map(torch.equal, made, tensors))


def assert_same_when_loaded(layer: nn.Module, x: Tensor) -> None:
    """Assert that a layer's exported program, saved and loaded, gives the layer's result."""
    file = io.BytesIO()
    torch.export.save(torch.export.export(layer, (x,)), file)
    file.seek(0)
    assert_same(torch.export.load(file).module()(x), layer(x))


def with_gradients(function: Callable[..., Any], args: Sequence[Any], others: Sequence[Tensor] = ()) -> list[Tensor]:
    """The outputs of a function, the gradients of its floating-point tensors and of ``others`` (parameters), and the
    outputs without gradients.
    """

    def leaf(x: Any) -> Any:
        return x.detach().clone().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x

    leaves = pytree.tree_map(leaf, list(args))
    outputs = pytree.tree_leaves(function(*leaves))
    wanted = [x for x in (*pytree.tree_leaves(leaves), *others) if isinstance(x, Tensor) and x.requires_grad]
    differentiable = [x for x in outputs if x.requires_grad]
    grad_outputs = [noise(40 + k, *x.shape, dtype=x.dtype) for k, x in enumerate(differentiable)]
    gradients = torch.autograd.grad(differentiable, wanted, grad_outputs)
    with torch.no_grad():
        return [*outputs, *gradients, *pytree.tree_leaves(function(*args))]


def in_process(code: str, **environment: str) -> str:
    """The output of code run in a separate process, so that a crash does not end the tests."""
    variables = {**os.environ, **environment}
    made = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, f"status {made.returncode}\n{made.stderr[-2000:]}"
    return made.stdout.strip()
