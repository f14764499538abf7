"""``project``: a linear map of a layer's outputs at every step, and ``project_back``, its gradient.

The gradient is as large as the outputs; it lies in memory that ``srcell._core`` reuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._operator import Gradients, Operator
from ._table import TABLE, check, declared

project = Operator(f"project({declared(TABLE['project'])}) -> Tensor")
project_back = Operator(f"project_back({declared(TABLE['project_back'])}) -> Tensor")


@project.kernel("CPU", "CUDA")
def project_forward(call: Any) -> Tensor:
    """The product of spikes (T, B, N) and a weight (C, N): (T, B, C)."""
    check("project", call)
    made: Tensor = torch.nn.functional.linear(call.spikes, call.weight)
    return made


@project.fake
def project_fake(call: Any) -> Tensor:
    """The product's shape."""
    check("project", call)
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
    check("project_back", call)
    out = empty(call.sums, *call.sums.shape[:2], call.weight.shape[1])
    torch.mm(call.sums.flatten(0, 1), call.weight, out=out.view(-1, out.shape[2]))
    return out


@project_back.fake
def back_fake(call: Any) -> Tensor:
    """The product's shape."""
    check("project_back", call)
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
