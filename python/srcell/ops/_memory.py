"""Makes tensors contiguous for kernels and takes their addresses; ``_cpu`` and ``_gpu`` allocate.

Operators and event batches use this. A caller that passes an address on must keep the tensor alive until the kernel has
returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Optionals = Sequence[Tensor | None]


def contiguous(x: Tensor) -> Tensor:
    """The tensor as kernels read it: row-major, aligned to its element size, and without a pending negation."""
    if x.is_neg() or not x.is_contiguous():
        x = x.resolve_neg().contiguous()
    return x.clone() if x.data_ptr() & 7 and x.data_ptr() % x.element_size() else x


def or_contiguous(x: Tensor | None) -> Tensor | None:
    """``contiguous``, or None for None."""
    return None if x is None else contiguous(x)


def address(x: Tensor | None) -> int:
    """The address of a tensor's first element, 0 for None."""
    if x is None:
        return 0
    first = x.data_ptr()
    if first == 0 and x.numel():
        raise RuntimeError(f"srcell: expected tensors that lie in memory, got a {type(x).__name__} on {x.device}")
    return first


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """The tensor (T, B, ...) with zeros past the samples' lengths (B,)."""
    past = torch.arange(x.shape[0], device=x.device)[:, None] >= lengths
    return x.masked_fill(past.view(*x.shape[:2], *[1] * (x.dim() - 2)), 0)
