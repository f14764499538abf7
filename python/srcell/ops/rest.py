"""``rest``: the resting point of a neuron.

It is an operator because torch 2.4 takes exponential time to compile the steps of a bisection.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._cpu import core
from ._layer import Like, check_tensor
from ._memory import address, contiguous
from ._operator import Operator

rest = Operator("rest(Tensor bias, Tensor gain) -> Tensor")


@rest.kernel("CPU")
def forward_cpu(call: Any) -> Tensor:
    """The lowest h with h = tanh(gain h + bias), of float64 tensors of one shape."""
    bias, gain = (contiguous(x) for x in check(call))
    h = torch.empty_like(bias)
    core.rest(h.numel(), address(bias), address(gain), address(h))
    return h


def check(call: Any) -> tuple[Tensor, Tensor]:
    """Check bias and gain against each other and return them."""
    bias, gain = call
    of_doubles = Like("bias", torch.float64, bias.device)
    return check_tensor("bias", bias, of_doubles, bias.shape), check_tensor("gain", gain, of_doubles, bias.shape)


@rest.kernel("CompositeExplicitAutograd")
def forward(call: Any) -> Tensor:
    """The same in torch's own operators, for other devices."""
    bias, gain = check(call)
    # h - tanh(gain h + b) is negative at -1 and increases from there to the lowest root, or to its first turning point.
    turning = ((-gain.clamp(min=1).sqrt().acosh() - bias) / gain).clamp(-1, 1)
    rising = (gain > 1) & (turning > torch.tanh(gain * turning + bias))
    low, high = torch.full_like(bias, -1), torch.where(rising, turning, torch.ones_like(bias))
    for _ in range(60):
        middle = (low + high) / 2
        below = middle < torch.tanh(gain * middle + bias)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where((gain + bias).isnan(), math.nan, (low + high) / 2).contiguous()


@rest.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    bias, _ = check(call)
    return torch.empty_like(bias, memory_format=torch.contiguous_format)
