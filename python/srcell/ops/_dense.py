"""Checks a dense input and, for ``method="auto"``, chooses between events and torch's matrix product.

``src_dense`` and ``srcell.functional`` use it; everything that the choice depends on is in this file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _gpu
from ._cpu import core
from ._layer import Like, check_floats, check_tensor
from ._memory import address

METHODS = ("auto", "events", "gemm")

# The cost model of events_are_faster(); the unit is one multiply-add of torch's product per neuron and row.
# _EVENT_COST is the cost of one event, forward and backward; _CURRENT_COST is the cost of writing a current after the
# product and reading it in the recurrence. Fitted to the sweep of bench/NOTES.md, where the numbers of neurons and
# threads cancel out.
_EVENT_COST, _CURRENT_COST = 2.0, 60.0
# Number of rows from which the density is estimated.
_SAMPLED_ROWS = 256
# An event's index is an int32.
_MAX_EVENT_INPUTS = 2**31


def without_looking(method: str, *, half: bool) -> str:
    """Resolve ``"auto"`` where that needs no look at the input's values: half precision uses the product.

    On a GPU ``src_dense`` uses the product as well, because measuring the density would synchronise.
    """
    return "gemm" if method == "auto" and half else method


def takes_events(input: Tensor, method: str, lengths: Tensor | None) -> bool:
    """Whether to sum a contiguous input (T, B, K) by events; on a CPU "auto" measures the density of some rows."""
    if method != "auto" or _gpu.is_gpu(input.device):
        return method == "events"
    if input.numel() == 0:
        return True
    steps, batch, inputs = input.shape
    rows = steps * batch
    stride = max(1, rows // _SAMPLED_ROWS)
    if lengths is None:
        of_doubles, count = input.dtype == torch.float64, -(-rows // stride) * inputs
        active = core.count_nonzero(of_doubles, address(input), rows, inputs, stride)
    else:
        row = torch.arange(0, rows, stride)
        sampled = input.view(rows, inputs)[::stride][row // batch < lengths[row % batch]]
        active, count = int(sampled.count_nonzero()), sampled.numel()
    return events_are_faster(inputs, active / max(count, 1))


def events_are_faster(inputs: int, density: float) -> bool:
    """Whether summing by events is expected to beat torch's matrix product, for K inputs of this density."""
    return _EVENT_COST * density * inputs < inputs + _CURRENT_COST


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
