"""Checks a dense input, and chooses for ``method="auto"`` between events and torch's matrix product.

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
# _EVENT_COST is one event, forward and backward; _CURRENT_COST is writing a current after the product and reading it in
# the recurrence. Fitted to the sweep of bench/NOTES.md, where the numbers of neurons and threads cancel out.
_EVENT_COST, _CURRENT_COST = 2.0, 60.0
# Number of rows from which the density is estimated.
_SAMPLED_ROWS = 256
# An event's index is an int32.
_MAX_EVENT_INPUTS = 2**31


def without_looking(method: str, *, half: bool) -> str:
    """The method, with ``"auto"`` resolved where that needs no look at the input: half precision takes the product.

    On a GPU measuring the density would synchronise; there ``src_dense`` takes the product as well.
    """
    return "gemm" if method == "auto" and half else method


def takes_events(input: Tensor, method: str, lengths: Tensor | None) -> bool:
    """Whether a contiguous input (T, B, K) is summed by events; "auto" measures some rows' density on a CPU."""
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
    """Whether summing the weights of K inputs of such a density is expected to beat torch's matrix product."""
    return _EVENT_COST * density * inputs < inputs + _CURRENT_COST


def check_synapse(input: Tensor, weight: Tensor, method: str) -> Like:
    """Check input and weight against each other."""
    like = check_floats("input", input, "T, B, K")
    inputs = input.shape[2]
    check_floats("weight", weight, "N, K")
    check_tensor("weight", weight, like, (weight.shape[0], inputs))
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if inputs > _MAX_EVENT_INPUTS and method != "gemm":
        raise ValueError(f"input: expected K of at most 2^31 for events, got {inputs}")
    return like
