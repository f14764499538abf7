"""``project``: a linear map of a layer's outputs at every step, and ``project_back``, its gradient.

The gradient is as large as the outputs; it lies in memory that ``srcell._core`` reuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._layer import Like, check_tensor
from ._operator import Gradients, Operator

project = Operator("project(Tensor spikes, Tensor weight) -> Tensor")
project_back = Operator("project_back(Tensor sums, Tensor weight) -> Tensor")


@project.kernel("CPU", "CUDA")
def project_forward(call: Any) -> Tensor:
    """The product of spikes (T, B, N) and a weight (C, N): (T, B, C)."""
    check("spikes", call.spikes, call.weight, 1)
    made: Tensor = torch.nn.functional.linear(call.spikes, call.weight)
    return made


def check(name: str, x: Tensor, weight: Tensor, dimension: int) -> None:
    """Check x (T, B, n) and a weight whose ``dimension`` has n elements against each other."""
    if x.dim() != 3:
        raise ValueError(f"{name}: expected three dimensions, got {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[dimension] != x.shape[2]:
        raise ValueError(f"weight: expected {x.shape[2]} in dimension {dimension}, got {tuple(weight.shape)}")
    check_tensor("weight", weight, Like(name, x.dtype, x.device), weight.shape)


@project.fake
def project_fake(call: Any) -> Tensor:
    """The product's shape."""
    check("spikes", call.spikes, call.weight, 1)
    spikes: Tensor = call.spikes
    return spikes.new_empty((*spikes.shape[:2], len(call.weight)))


@project.gradient(lambda call: {})
def project_gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradients of the spikes and of the weight."""
    (grad,) = grads
    return {
        "spikes": project_back(grad, call.weight) if needs.spikes else None,
        "weight": grad.flatten(0, 1).t() @ call.spikes.flatten(0, 1) if needs.weight else None,
    }


@project_back.kernel("CPU", "CUDA")
def back_forward(call: Any) -> Tensor:
    """The product of sums (T, B, C) and a weight (C, N): (T, B, N)."""
    check("sums", call.sums, call.weight, 0)
    out = empty(call.sums, *call.sums.shape[:2], call.weight.shape[1])
    torch.mm(call.sums.flatten(0, 1), call.weight, out=out.view(-1, out.shape[2]))
    return out


@project_back.fake
def back_fake(call: Any) -> Tensor:
    """The product's shape."""
    check("sums", call.sums, call.weight, 0)
    sums: Tensor = call.sums
    return sums.new_empty((*sums.shape[:2], call.weight.shape[1]))


@project_back.gradient(lambda call: {})
def back_gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradients of the sums and of the weight."""
    (grad,) = grads
    return {
        "sums": project(grad, call.weight) if needs.sums else None,
        "weight": call.sums.flatten(0, 1).t() @ grad.flatten(0, 1) if needs.weight else None,
    }
