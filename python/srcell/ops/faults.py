"""``find_event_fault``: the first fault in the tensors of an EventBatch, and its position.

It is an operator so that torch.compile keeps the tensors alive while their addresses are read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu import core, rows_of
from ._memory import address, or_contiguous
from ._operator import Operator
from ._table import TABLE, Checked, declared

FAULTS = ("length", "first offset", "descent", "last offset", "index", "nan", "past length")

find_event_fault = Operator(
    f"find_event_fault({declared(TABLE['find_event_fault'])}, *, SymInt steps, SymInt batch, SymInt inputs) -> Tensor",
    differentiable=False,
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
    sizes = call.steps, call.batch, call.inputs
    if any(size < 0 for size in sizes):
        raise ValueError(f"steps: expected sizes of at least 0, got {sizes}")
    Checked(T=call.steps, B=call.batch).rows(TABLE["find_event_fault"], call)


@find_event_fault.fake
def forward_fake(call: Any) -> Tensor:
    """The output's shape."""
    check_parts(call)
    return torch.empty(2, dtype=torch.int64, device=call.offsets.device)
