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
from ._table import TABLE, Checked, declared

scale = Operator(f"scale({declared(TABLE['scale'])}) -> Tensor")


@scale.kernel("CPU", "CUDA")
def forward(call: Any) -> Tensor:
    """``spikes * factors`` of shape (T, B, ...) and (B, ...)."""
    spikes, factors = check(call)
    return torch.mul(spikes, factors, out=empty(spikes, *spikes.shape))


def check(call: Any) -> tuple[Tensor, Tensor]:
    """Check spikes and factors against each other and return them."""
    Checked().rows(TABLE["scale"], call)
    return call.spikes, call.factors


@scale.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    spikes, _ = check(call)
    return spikes.new_empty(spikes.shape)


@scale.gradient(lambda call: {"spikes": None})
def gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradient of spikes; the factors get none."""
    return {"spikes": scale(grads[0], call.factors)}
