"""``find_event_fault``: the first fault in the tensors of an EventBatch, and its position.

It is an operator so that torch.compile keeps the tensors alive while their addresses are read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._cpu import EventRows, core
from ._layer import Like, check_floats, check_integers, check_optional
from ._memory import address, contiguous
from ._operator import Operator

FAULTS = ("length", "first offset", "descent", "last offset", "index", "nan", "past length")

find_event_fault = Operator(
    "find_event_fault(Tensor offsets, Tensor indices, Tensor? values, Tensor? lengths, *, SymInt steps, SymInt batch,"
    " SymInt inputs) -> Tensor"
)


@find_event_fault.kernel("CPU")
def forward(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    lengths: Tensor | None,
    *,
    steps: int,
    batch: int,
    inputs: int,
) -> Tensor:
    """Two int64: the fault's index in FAULTS, -1 for none, and its position."""
    is_double = values is not None and values.dtype == torch.float64
    check_parts(offsets, indices, values, lengths, steps, batch, inputs)
    values = None if values is None else contiguous(values)
    lengths = None if lengths is None else contiguous(lengths)
    rows = EventRows(contiguous(offsets), contiguous(indices), values)
    found = core.find_event_fault(
        is_double, (steps, batch, inputs), rows.for_kernels(inputs), address(lengths), torch.get_num_threads()
    )
    number, position = (-1, 0) if found is None else (FAULTS.index(found[0]), found[1])
    return torch.tensor([number, position], device="cpu")


def check_parts(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    lengths: Tensor | None,
    steps: int,
    batch: int,
    inputs: int,
) -> None:
    """Check the tensors' shapes, dtypes and devices, but not their values."""
    if any(size < 0 for size in (steps, batch, inputs)):
        raise ValueError(f"steps: expected sizes of at least 0, got {(steps, batch, inputs)}")
    if values is not None:
        check_floats("values", values, "events")
    like = Like("offsets", torch.float32 if values is None else values.dtype, offsets.device)
    check_integers("offsets", offsets, torch.int64, steps * batch + 1, like)
    check_integers("indices", indices, torch.int32, indices.numel(), like)
    check_optional("values", values, like, (indices.numel(),))
    if lengths is not None:
        check_integers("lengths", lengths, torch.int64, batch, like)


@find_event_fault.fake
def forward_fake(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    lengths: Tensor | None,
    *,
    steps: int,
    batch: int,
    inputs: int,
) -> Tensor:
    """The output's shape."""
    check_parts(offsets, indices, values, lengths, steps, batch, inputs)
    return offsets.new_empty(2, dtype=torch.int64)
