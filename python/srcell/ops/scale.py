"""``scale``: a layer's outputs times a factor for each neuron of each sample, in memory that the core reuses.

Torch's own product takes four times as long, because its output lies on fresh pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._layer import WORK, Like, check_tensor
from ._operator import Gradients, Operator

scale = Operator("scale(Tensor spikes, Tensor factors) -> Tensor")


@scale.kernel("CPU", "CUDA")
def forward(spikes: Tensor, factors: Tensor) -> Tensor:
    """``spikes * factors`` of shape (T, B, ...) and (B, ...)."""
    check_tensor("factors", factors, Like("spikes", spikes.dtype, spikes.device), spikes.shape[1:])
    if spikes.device.type != "cpu" or spikes.dtype not in WORK:
        return torch.mul(spikes, factors).contiguous()
    return torch.mul(spikes, factors, out=empty(spikes, *spikes.shape))


@scale.fake
def forward_fake(spikes: Tensor, factors: Tensor) -> Tensor:
    """The output's shape."""
    check_tensor("factors", factors, Like("spikes", spikes.dtype, spikes.device), spikes.shape[1:])
    return spikes.new_empty(spikes.shape)


def save_for_backward(ctx: Any, outputs: Sequence[Tensor], spikes: Tensor, factors: Tensor) -> None:
    """Keep the factors, which get no gradient."""
    ctx.save_for_backward(factors)


@scale.gradient(save_for_backward)
def gradient(ctx: Any, grad: Tensor | None) -> Gradients:
    """The gradients of spikes and factors."""
    (factors,) = ctx.saved_tensors
    return None if grad is None else scale(grad, factors), None
