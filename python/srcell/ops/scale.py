"""``scale``: a layer's outputs times a factor for each neuron of each sample, in memory that ``srcell._core`` reuses.

torch's own product takes four times as long, because its output lies on fresh pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._layer import Like, check_tensor
from ._operator import Gradients, Operator

scale = Operator("scale(Tensor spikes, Tensor factors) -> Tensor")


@scale.kernel("CPU", "CUDA")
def forward(call: Any) -> Tensor:
    """``spikes * factors`` of shape (T, B, ...) and (B, ...)."""
    spikes, factors = check(call)
    return torch.mul(spikes, factors, out=empty(spikes, *spikes.shape))


def check(call: Any) -> tuple[Tensor, Tensor]:
    """Check spikes and factors against each other and return them."""
    spikes, factors = call
    check_tensor("factors", factors, Like("spikes", spikes.dtype, spikes.device), spikes.shape[1:])
    return spikes, factors


@scale.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    spikes, _ = check(call)
    return spikes.new_empty(spikes.shape)


@scale.gradient(lambda call: {"spikes": None})
def gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradient of spikes; the factors get none."""
    return {"spikes": scale(grads[0], call.factors)}
