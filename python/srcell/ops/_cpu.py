"""The compiled module of the CPU, memory on huge pages, and the rows of events.

Operators use it. No other file imports ``srcell._core``, but for ``srcell._shared.parameters``, which reads a table,
and ``srcell.runtime``, which needs no torch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from ._memory import address, contiguous, or_contiguous

core = _core
core.find_threads()  # of the OpenMP runtime that torch loaded: srcell.runtime may have run without it

# Allocations of at least this size lie on huge pages and are reused; below it torch's own allocator is faster.
BLOCK_BYTES = 4 << 20


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised contiguous tensor on the device of ``like``, of its dtype unless another is given."""
    dtype = dtype or like.dtype
    size = math.prod(shape) * dtype.itemsize
    if size < BLOCK_BYTES or like.device.type != "cpu":
        return like.new_empty(shape, dtype=dtype)
    if size >= 2**63:
        raise MemoryError(f"srcell: {' * '.join(map(str, shape))} elements of {dtype}")
    words = torch.from_numpy(core.empty((-(-size // 4),), False))
    # Detached, it is no view to autograd, and may be changed in place.
    return words.view(dtype)[: math.prod(shape)].view(shape).detach()


class EventRows(NamedTuple):
    """The events of a call, as in an EventBatch, contiguous."""

    offsets: Tensor
    indices: Tensor
    values: Tensor | None

    def for_kernels(self, inputs: int) -> core.EventRows:
        """The struct that kernels take; the caller must keep this object alive while they run."""
        count = self.indices.shape[0]
        return core.EventRows(address(self.offsets), address(self.indices), address(self.values), count, inputs)


def rows_of(call: Any) -> EventRows:
    """The checked events of a call; an operator without values takes events of 1."""
    return EventRows(contiguous(call.offsets), contiguous(call.indices), or_contiguous(getattr(call, "values", None)))


def mask_shape(input: Tensor) -> tuple[int, int]:
    """Shape of the mask: a row for each step of each sample, a bit for each input, in 64-bit words."""
    steps, batch, inputs = input.shape
    return batch * steps, -(-inputs // 64)
