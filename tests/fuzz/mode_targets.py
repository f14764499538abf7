"""Fuzz targets on torch's modes and on padding past the samples' lengths.

``support.modes`` defines what a call in a mode must return. Padding past a sample's length has no influence on outputs
and gradients. Targets have the form that ``op_targets`` describes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fuzz.draws import FLOATS, Draw
from srcell import SRC, EventBatch, IntegerSRC, SRCCell, SRCConv2d, leaky_readout, spread_frequencies, src, src_linear
from support.calls import NEW_TORCH, Call, assert_same_when_loaded, calls_of_layers, calls_outside_layers
from support.modes import MODES, runs_in

Runs = Callable[[Tensor], list[Tensor | None]]


def drawn_call(draw: Draw) -> Call:
    """A function of tensors alone, and valid arguments."""
    steps, batch, inputs, neurons = draw.size(), draw.size(), draw.size(), draw.size()
    dtype, method = draw.pick(*FLOATS), draw.pick("events", "gemm", "auto")
    x = draw.spikes(steps, batch, inputs, dtype=dtype)
    lengths = draw.lengths(steps, batch) if draw.chance(50) else None
    pixels = draw.floats(batch, inputs).sigmoid()
    weight = draw.floats(neurons, inputs, dtype=dtype, scale=3)
    prefix, seed = draw.pick(0, 2), draw.getrandbits(64)
    calls = calls_outside_layers(x, pixels, lengths, 7, prefix, seed) | calls_of_layers(x, weight, lengths, method)
    return calls[draw.pick(*calls)]


def modes(draw: Draw) -> bool:
    """A default device, fake, functional and wrapping tensors, checkpointing, inference."""
    return runs_in(draw.pick(*MODES.values()), drawn_call(draw))


def programs(draw: Draw) -> None:
    """Layers exported, saved and loaded."""
    # Torch 2.4 refuses some programs of layers at rest, because it mixes up their outputs.
    options: dict[str, Any] = {"initial_state": draw.pick("zeros", "rest") if NEW_TORCH else "zeros"}
    kinds = (SRC, SRCCell, SRCConv2d, *((IntegerSRC,) if NEW_TORCH else ()))  # torch 2.4 exports no changed buffer
    kind, inputs = draw.pick(*kinds), 4
    if kind is not IntegerSRC:
        options |= {"learnable": draw.pick((), ("rho",), ("alpha", "rho", "r")), "learn_bias": draw.chance(70)}
        options |= {"recurrent": True} if kind is SRC and draw.chance(40) else {}
        options |= {"delay_hh": draw.pick(2.5, 1.0)} if "recurrent" in options and draw.chance(40) else {}
        options |= {"omega": draw.pick(0.3, spread_frequencies(0.1, 1))} if draw.chance(30) else {}
    layer: torch.nn.Module = SRCConv2d(1, 2, 2, **options) if kind is SRCConv2d else kind(inputs, 3, **options)
    before = [draw.size()] if kind is SRCCell else [draw.size(), draw.size()]
    x = (draw.spikes(*before, *((1, 2, 2) if kind is SRCConv2d else (inputs,))) != 0).float()

    assert_same_when_loaded(layer, x)


def padded_call(draw: Draw, lengths: list[int], sizes: tuple[int, int], dtype: torch.dtype) -> Runs:
    """A function from an input with these lengths to its outputs and all gradients."""
    inputs, neurons = sizes
    autocast = torch.autocast("cpu") if dtype == torch.float32 and draw.chance(25) else nullcontext()
    weight = draw.floats(neurons, inputs, dtype=dtype, scale=3)
    layer, convolution = SRC(inputs, neurons, 2, dtype=dtype), SRCConv2d(1, 2, 1, dtype=dtype)
    method = draw.pick("events", "gemm", "auto")
    call: Callable[[Tensor, Tensor, Tensor], Any] = draw.pick(
        lambda x, w, a: src(x, -6.0, alpha=a, lengths=lengths),
        lambda x, w, a: src_linear(x, w, -6.0, alpha=a, lengths=lengths, method=method),
        lambda x, w, a: layer(x, lengths=lengths),
        lambda x, w, a: convolution(x[:, :, None, :, None], lengths=lengths) if inputs else x[:0] * 0,
        lambda x, w, a: leaky_readout(x, max(inputs, 1), lengths=lengths),
        lambda x, w, a: EventBatch.from_dense(x, torch.tensor(lengths, dtype=torch.int64)).to_dense(dtype),
    )

    def run(x: Tensor) -> list[Tensor | None]:
        parameters = [*layer.parameters(), *convolution.parameters()]
        leaves = [y.clone().requires_grad_() for y in (x, weight, torch.full((), 0.9, dtype=dtype))]
        with autocast:
            outputs = pytree.tree_leaves(call(*leaves))
        total = torch.stack([y.sum().to(torch.float64) for y in outputs]).sum()
        grads = torch.autograd.grad(total, [*leaves, *parameters], allow_unused=True)
        return [*outputs, *grads]

    return run


def padding(draw: Draw) -> None:
    """NaN, infinities and other values past the samples' lengths, with every layer and method."""
    steps, batch, inputs, neurons = draw.size(), draw.size(), draw.size(), draw.size()
    dtype, ends = draw.pick(*FLOATS), draw.lengths(steps, batch)
    run = padded_call(draw, ends.tolist(), (inputs, neurons), dtype)
    x = draw.spikes(steps, batch, inputs, dtype=dtype)
    past = (torch.arange(steps)[:, None] >= ends)[:, :, None]
    filling = draw.floats(steps, batch, inputs, dtype=dtype, wild=100)
    filling = torch.full_like(x, draw.pick(torch.nan, torch.inf, -torch.inf)) if draw.chance(60) else filling

    expected, made = run(x.masked_fill(past, 0)), run(torch.where(past, filling, x))

    for a, b in zip(made, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a, b)
