"""``rest``: the resting point of a neuron.

It is an operator because torch 2.4 takes exponential time to compile the steps of a bisection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._acting import resting
from ._cpu import core
from ._memory import address, contiguous
from ._operator import Operator
from ._table import TABLE, check, declared

rest = Operator(f"rest({declared(TABLE['rest'])}) -> Tensor")


@rest.kernel("CPU")
def forward_cpu(call: Any) -> Tensor:
    """The lowest h with h = tanh(gain h + bias), of float64 tensors of one shape."""
    check("rest", call)
    bias, gain = contiguous(call.bias), contiguous(call.gain)
    h = torch.empty_like(bias)
    core.rest(h.numel(), address(bias), address(gain), address(h))
    return h


@rest.kernel("CompositeExplicitAutograd")
def forward(call: Any) -> Tensor:
    """The same in torch's own operators, for other devices."""
    check("rest", call)
    return resting(call.bias, call.gain)


@rest.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    check("rest", call)
    return torch.empty_like(call.bias, memory_format=torch.contiguous_format)
