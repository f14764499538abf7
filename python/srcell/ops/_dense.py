"""Checks a dense input and, for ``method="auto"``, chooses between events and torch's matrix product.

``src_dense`` and ``srcell.functional`` use it; ``events_are_faster`` of csrc/bindings/layer.cpp has the cost model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _gpu
from ._cpu import core
from ._layer import Like, check_floats, check_tensor
from ._memory import address, contiguous

METHODS = ("auto", "events", "gemm")

# An event's index is an int32.
_MAX_EVENT_INPUTS = 2**31


def takes_events(input: Tensor, method: str, lengths: Tensor | None) -> bool:
    """Whether to sum a contiguous input (T, B, K) by events; on a CPU "auto" measures the density of some rows."""
    if method != "auto" or _gpu.is_gpu(input.device):
        return method == "events"
    ends = None if lengths is None else contiguous(lengths.to(torch.int64))
    return core.takes_events(input.dtype == torch.float64, input.shape, address(ends), address(input))


def check_dense_synapse(input: Tensor, weight: Tensor, method: str) -> Like:
    """Check the method, and input and weight against each other."""
    like = check_floats("input", input, "T, B, K")
    inputs = input.shape[2]
    check_floats("weight", weight, "N, K")
    check_tensor("weight", weight, like, (weight.shape[0], inputs))
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if inputs > _MAX_EVENT_INPUTS and method != "gemm":
        raise ValueError(f"input: expected K of at most 2^31 for events, got {inputs}")
    return like
