"""``find_event_fault``: the first fault in the tensors of an EventBatch, and its position.

It is an operator so that torch.compile keeps the tensors alive while their addresses are read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu import core, rows_of
from ._layer import Like, check_events, check_floats, check_integers
from ._memory import address, or_contiguous
from ._operator import Operator

FAULTS = ("length", "first offset", "descent", "last offset", "index", "nan", "past length")

find_event_fault = Operator(
    "find_event_fault(Tensor offsets, Tensor indices, Tensor? values, Tensor? lengths, *, SymInt steps, SymInt batch,"
    " SymInt inputs) -> Tensor"
)


@find_event_fault.kernel("CPU")
def forward(call: Any) -> Tensor:
    """Two int64: the fault's index in FAULTS, -1 for none, and its position."""
    check_parts(call)
    is_double = call.values is not None and call.values.dtype == torch.float64
    rows, lengths = rows_of(call), or_contiguous(call.lengths)
    sizes = (call.steps, call.batch, call.inputs)
    found = core.find_event_fault(
        is_double, sizes, rows.for_kernels(call.inputs), address(lengths), torch.get_num_threads()
    )
    number, position = (-1, 0) if found is None else (FAULTS.index(found[0]), found[1])
    return torch.tensor([number, position], device="cpu")


def check_parts(call: Any) -> None:
    """Check the tensors' shapes, dtypes and devices, but not their values."""
    sizes, values = (call.steps, call.batch, call.inputs), call.values
    if any(size < 0 for size in sizes):
        raise ValueError(f"steps: expected sizes of at least 0, got {sizes}")
    if values is not None:
        check_floats("values", values, "events")
    like = Like("offsets", torch.float32 if values is None else values.dtype, call.offsets.device)
    check_events(call, like)
    check_integers("lengths", call.lengths, torch.int64, call.batch, like)


@find_event_fault.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    check_parts(call)
    return torch.empty(2, dtype=torch.int64, device=call.offsets.device)
