"""``rest``: the resting point of a neuron.

It is an operator because torch 2.4 takes exponential time to compile the steps of a bisection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._acting import resting
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
    return resting(*check(call))


@rest.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    bias, _ = check(call)
    return torch.empty_like(bias, memory_format=torch.contiguous_format)
