"""``scale``: a layer's outputs times a factor for each neuron of each sample, in memory that ``srcell._core`` reuses.

torch's own product takes four times as long, because its output lies on fresh pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._operator import Gradients, Operator
from ._table import TABLE, check, declared

scale = Operator(f"scale({declared(TABLE['scale'])}) -> Tensor")


@scale.kernel("CPU", "CUDA")
def forward(call: Any) -> Tensor:
    """``spikes * factors`` of shape (T, B, ...) and (B, ...)."""
    check("scale", call)
    return torch.mul(call.spikes, call.factors, out=empty(call.spikes, *call.spikes.shape))


@scale.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    check("scale", call)
    spikes: Tensor = call.spikes
    return spikes.new_empty(spikes.shape)


@scale.gradient(lambda call: {"spikes": None})
def gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradient of spikes; the factors get none."""
    return {"spikes": scale(grads[0], call.factors)}
