"""``count_spikes``: active elements and spikes of each neuron, over all steps and samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu import core
from ._memory import contiguous
from ._operator import Operator
from ._table import TABLE, check, declared

count_spikes = Operator(f"count_spikes({declared(TABLE['count_spikes'])}) -> Tensor", differentiable=False)


@count_spikes.kernel("CPU")
def forward_cpu(call: Any) -> Tensor:
    """(2, N) int64 of (T, B, N), float32 or float64: active elements and upward crossings of 0.5 of each neuron."""
    spikes = call.spikes
    check("count_spikes", call)
    if spikes.numel() == 0:  # T may still be huge, and the kernel loops over it
        return torch.zeros(2, spikes.shape[2], dtype=torch.int64, device="cpu")
    return torch.from_numpy(core.count_spikes(contiguous(spikes).detach().numpy(), torch.get_num_threads()))


@count_spikes.kernel("CompositeExplicitAutograd")
def forward(call: Any) -> Tensor:
    """The same in torch's own operators, for other devices."""
    check("count_spikes", call)
    high = call.spikes > 0.5
    crossings = high[:1].sum((0, 1)) + (high[1:] & ~high[:-1]).sum((0, 1))
    return torch.stack([(call.spikes > 0).sum((0, 1)), crossings])


@count_spikes.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    spikes = call.spikes
    check("count_spikes", call)
    return torch.empty(2, spikes.shape[2], dtype=torch.int64, device=spikes.device)
