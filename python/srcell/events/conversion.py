"""Converts dense and sparse tensors to events, and events back to tensors.

``EventBatch`` calls these functions and documents them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import require_values
from .checks import Array, Parts, as_tensor, check_float_dtype, check_lengths, check_shape, first, offsets_of


def from_dense(x: Array, lengths: Array | None) -> Parts:
    """The parts of ``EventBatch.from_dense``."""
    x = as_tensor("x", x)
    require_values("x", x)
    if x.dtype not in (torch.bool, torch.float32, torch.float64):
        raise TypeError(f"x: expected dtype bool, float32 or float64, got {x.dtype}")
    if x.dim() != 3:
        one = ": of a single sample pass x[:, None]" if x.dim() == 2 else ""
        raise ValueError(f"x: expected shape (T, B, K), got {tuple(x.shape)}{one}")
    shape = check_shape(x.shape, "x")
    sample_major = x.transpose(0, 1)
    fires = sample_major != 0
    if lengths is not None:
        lengths = check_lengths(lengths, shape, x.device)
        fires &= (torch.arange(shape[0], device=x.device) < lengths[:, None])[:, :, None]
    offsets = offsets_of(fires.sum(2).flatten())
    sample, step, index = fires.nonzero(as_tuple=True)
    values: Tensor | None = None
    if x.dtype != torch.bool:
        values = sample_major[sample, step, index]
        event = first(values.isnan())
        if event is not None:
            where = (int(step[event]), int(sample[event]), int(index[event]))
            raise ValueError(f"x: expected numbers, got nan at {where}")
        if not values.requires_grad and bool((values == 1).all()):
            values = None
    return Parts(offsets, index.to(torch.int32), values, shape, lengths)


def from_sparse_csr(csr: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Offsets, indices and values for ``EventBatch.from_sparse_csr``, which validates them."""
    steps, batch, inputs = check_shape(shape)
    if not isinstance(csr, Tensor):
        raise TypeError(f"csr: expected a tensor, got {type(csr).__name__}")
    if csr.layout != torch.sparse_csr:
        raise ValueError(f"csr: expected layout torch.sparse_csr, got {csr.layout}")
    require_values("csr", csr.values())
    if csr.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"csr: expected dtype torch.float32 or torch.float64, got {csr.dtype}")
    if tuple(csr.shape) != (batch * steps, inputs):
        raise ValueError(f"csr: expected shape (B*T, K) = {(batch * steps, inputs)}, got {tuple(csr.shape)}")
    offsets, indices, values = csr.crow_indices(), csr.col_indices(), csr.values()
    try:
        torch.sparse_csr_tensor(offsets, indices, values.detach(), csr.shape, check_invariants=True)
    except RuntimeError as error:
        raise ValueError(f"csr: expected a valid CSR tensor, got one for which {error}") from None
    kept = values if values.requires_grad or not bool((values == 1).all()) else None
    return offsets.to(torch.int64), indices.to(torch.int32), kept


def to_dense(events: Parts, dtype: torch.dtype) -> Tensor:
    """``EventBatch.to_dense``."""
    check_float_dtype(dtype)
    steps, batch, inputs = events.shape
    dense_rows = torch.arange(steps * batch, device=events.device).view(steps, batch).t().flatten()
    elements = dense_rows.repeat_interleave(events.offsets.diff()) * inputs + events.indices
    dense = torch.zeros(steps * batch * inputs, dtype=dtype, device=events.device)
    return dense.index_add(0, elements, values_or_ones(events, dtype).to(dtype)).view(events.shape)


def to_sparse_csr(events: Parts, dtype: torch.dtype) -> Tensor:
    """``EventBatch.to_sparse_csr``."""
    check_float_dtype(dtype)
    steps, batch, inputs = events.shape
    rows = torch.arange(steps * batch, device=events.device).repeat_interleave(events.offsets.diff())
    ascends = bool(((events.indices[1:] > events.indices[:-1]) | (rows[1:] > rows[:-1])).all())
    coo = torch.sparse_coo_tensor(
        torch.stack([rows, events.indices.to(torch.int64)]),
        values_or_ones(events, dtype).to(dtype),
        (steps * batch, inputs),
        check_invariants=False,
        is_coalesced=ascends,
    )
    return coo.coalesce().to_sparse_csr()


def values_or_ones(events: Parts, dtype: torch.dtype) -> Tensor:
    """The value of each event, 1 if the batch has no values."""
    if events.values is not None:
        return events.values
    return torch.ones(events.indices.numel(), dtype=dtype, device=events.device)
