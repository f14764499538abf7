"""``sum_over_time``: a weighted sum of a layer's outputs over their last steps, and ``spread_over_time``, its gradient.

The gradient is as large as the outputs; it lies in memory that ``srcell._core`` reuses. torch's own gradient takes four
times as long, because it lies on fresh pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._cpu import empty
from ._operator import Gradients, Operator
from ._table import TABLE, check, declared

sum_over_time = Operator(f"sum_over_time({declared(TABLE['sum_over_time'])}) -> Tensor")
spread_over_time = Operator(f"spread_over_time({declared(TABLE['spread_over_time'])}, *, int steps) -> Tensor")


@sum_over_time.kernel("CPU", "CUDA")
def sum_forward(call: Any) -> Tensor:
    """The sum over the last W steps of ``factors[w] * spikes[T - W + w]``, of shapes (W,) and (T, B, N): (B, N).

    Factors (W, B) are those of each sample.
    """
    spikes, factors = check_sum(call)
    last = spikes[len(spikes) - len(factors) :]
    if factors.dim() == 2:
        return torch.bmm(factors.t().contiguous()[:, None], last.transpose(0, 1)).squeeze(1)
    return (factors @ last.reshape(len(factors), spikes[0].numel())).view(spikes.shape[1:])


def check_sum(call: Any) -> tuple[Tensor, Tensor]:
    """Check spikes and factors against each other and return them."""
    check("sum_over_time", call)
    check_steps("spikes", call.spikes.shape[0], call.factors)
    return call.spikes, call.factors


def check_steps(name: str, steps: int, factors: Tensor) -> None:
    """Raise unless there are steps, and no fewer than factors."""
    if steps < 1:
        raise ValueError(f"{name}: expected at least one step, got {steps}")
    if factors.shape[0] > steps:
        raise ValueError(f"factors: expected W at most {steps}, got {factors.shape[0]}")


@sum_over_time.fake
def sum_fake(call: Any) -> Tensor:
    """The sums' shape."""
    spikes, _ = check_sum(call)
    return spikes.new_empty(spikes.shape[1:])


def keep_sum(call: Any) -> dict[str, Any]:
    """Keep the factors, and of the spikes only their number of steps."""
    return {"spikes": call.spikes.new_empty(0).expand(call.spikes.shape[0], 0)}


@sum_over_time.gradient(keep_sum)
def sum_gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradient of spikes; the factors get none."""
    return {"spikes": spread_over_time(grads[0], call.factors, steps=call.spikes.shape[0])}


@spread_over_time.kernel("CPU", "CUDA")
def spread_forward(call: Any) -> Tensor:
    """``factors[w] * sums`` at the step T - W + w, and 0 before: (T, B, N)."""
    sums, factors = check_spread(call)
    out = empty(sums, call.steps, *sums.shape)
    first = call.steps - len(factors)
    out[:first].zero_()
    torch.mul(factors.view(len(factors), -1, 1), sums, out=out[first:])
    return out


def check_spread(call: Any) -> tuple[Tensor, Tensor]:
    """Check sums and factors against each other and return them."""
    check("spread_over_time", call)
    check_steps("steps", call.steps, call.factors)
    return call.sums, call.factors


@spread_over_time.fake
def spread_fake(call: Any) -> Tensor:
    """The output's shape."""
    sums, _ = check_spread(call)
    return sums.new_empty((call.steps, *sums.shape))


@spread_over_time.gradient(lambda call: {"sums": None})
def spread_gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradient of the sums; the factors get none."""
    return {"sums": sum_over_time(grads[0], call.factors)}
