"""On a GPU: the values that a layer computes with where its arguments hold others, and the arguments' gradients.

Parameters may be clamped to their domains or be those of channels, recurrent weights may be without autapses, and a
layer may start at rest. On a CPU csrc/bindings/acting.h does the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._shared.parameters import PARAMETERS, TABLE

_BIAS = -1 - len(PARAMETERS)  # its place among a layer's gradients


def acting(layer: Any, sizes: Sequence[int], *, at_rest: bool) -> Any:
    """The layer with the values that its neurons compute with; with ``at_rest`` a start at rest becomes a state."""
    _, batch, neurons = sizes
    bias, *cell = (_expanded(x, layer, neurons) for x in (layer.bias, *layer.cell))
    for k, (low, high) in _domains(layer):
        cell[k] = cell[k].clamp(low, high)
    weight, state = layer.weight_hh, layer.state
    if weight is not None and not layer.autapses:
        weight = without_autapses(weight)
    if at_rest and layer.start == "rest" and not len(state):
        r, rs = (cell[k] if cell else bias.new_tensor(layer.constants[k]) for k in map(PARAMETERS.index, ("r", "rs")))
        bound = math.inf if layer.bias_max is None else layer.bias_max
        bias64, gain = torch.broadcast_tensors(bias.clamp(max=bound).double(), r.double() + rs.double())
        h = resting(bias64, gain).to(bias.dtype).expand(batch, neurons)
        still = [torch.zeros_like(h)] * (1 + (len(layer.constants) == len(PARAMETERS)))
        state = [still[0], h, h, *still[1:]]
    return layer._replace(bias=bias, cell=cell, weight_hh=weight, state=state)


def of_arguments(layer: Any, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of a layer's arguments, from those of what it computed with."""
    made = [*gradients]
    for k, x in enumerate((layer.bias, *layer.cell), start=len(made) + _BIAS):
        grad = made[k]
        if grad is not None and grad.shape != x.shape:
            made[k] = grad.view(*x.shape, -1).sum(-1)
    for k, (low, high) in _domains(layer):
        x, grad = layer.cell[k], made[len(made) + _BIAS + 1 + k]
        if grad is None:
            continue
        sums = grad
        if layer.channels and x.numel() not in (1, layer.channels):  # neighbours are the same parameter
            alike = grad.numel() // layer.channels
            sums = grad.view(-1, alike).sum(1).repeat_interleave(alike)
        made[len(made) + _BIAS + 1 + k] = grad.masked_fill(outward(x, sums, low, high), 0)
    if made[0] is not None and not layer.autapses:
        made[0] = without_autapses(made[0])
    return made


def _expanded(x: Tensor, layer: Any, neurons: int) -> Tensor:
    """A parameter of one element or of N."""
    if not x.dim() or not layer.channels or x.numel() != layer.channels:
        return x
    return x.repeat_interleave(neurons // layer.channels)


def _domains(layer: Any) -> list[tuple[int, tuple[float, float]]]:
    """The parameters that are clamped, by their place among PARAMETERS, with their bounds."""
    pairs = zip(PARAMETERS, layer.clamped, strict=False)
    rows = [(k, TABLE[name]) for k, (name, clamped) in enumerate(pairs) if clamped and len(layer.cell)]
    return [(k, (row.least_learnt, row.most_learnt)) for k, row in rows]


def outward(x: Tensor, grad: Tensor, low: float, high: float) -> Tensor:
    """Where a value lies outside its domain and a descent step would move it further out."""
    return ((x > high) & (grad < 0)) | ((x < low) & (grad > 0))


def without_autapses(weight: Tensor) -> Tensor:
    """Recurrent weights, or their gradient, with a diagonal of 0."""
    return weight.masked_fill(torch.eye(len(weight), dtype=torch.bool, device=weight.device), 0)


def resting(bias: Tensor, gain: Tensor) -> Tensor:
    """The lowest h with h = tanh(gain h + bias), of float64 tensors of one shape, by bisection."""
    # h - tanh(gain h + b) is negative at -1 and increases from there to the lowest root, or to its first turning point.
    turning = ((-gain.clamp(min=1).sqrt().acosh() - bias) / gain).clamp(-1, 1)
    rising = (gain > 1) & (turning > torch.tanh(gain * turning + bias))
    low, high = torch.full_like(bias, -1), torch.where(rising, turning, torch.ones_like(bias))
    for _ in range(60):
        middle = (low + high) / 2
        below = middle < torch.tanh(gain * middle + bias)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where((gain + bias).isnan(), math.nan, (low + high) / 2).contiguous()
