"""Finds the first fault in the parts of a batch, on any device, and words the error message."""

from __future__ import annotations

import torch

from .._shared.arguments import has_memory
from ..ops import faults
from .checks import Parts, first, wrong_length


def find_fault(parts: Parts) -> tuple[str, int] | None:
    """The first fault in the parts of a batch and its position; None without fault, or without values to check."""
    offsets, indices, values, shape, lengths = parts
    if not all(has_memory(x) for x in (offsets, indices, values, lengths) if x is not None):
        return None
    if offsets.device.type != "cpu":
        return find_fault_with_torch(parts)
    steps, batch, inputs = shape
    found = faults.find_event_fault(offsets, indices, values, lengths, steps=steps, batch=batch, inputs=inputs)
    number, position = (int(x) for x in found)  # torch 2.4 has no tolist() within torch.func's transforms
    return None if number < 0 else (faults.FAULTS[number], position)


def find_fault_with_torch(parts: Parts) -> tuple[str, int] | None:
    """``find_event_fault`` with torch's own operators, for devices without a kernel."""
    offsets, indices, values, shape, lengths = parts
    steps, batch, inputs = shape
    sample = None if lengths is None else first((lengths < 0) | (lengths > steps))
    if sample is not None:
        return "length", sample
    if int(offsets[0]) != 0:
        return "first offset", 0
    row = first(offsets[1:] < offsets[:-1])
    if row is not None:
        return "descent", row + 1
    if int(offsets[-1]) != len(indices):
        return "last offset", batch * steps
    event = first((indices < 0) | (indices > inputs - 1))
    if event is not None:
        return "index", event
    event = None if values is None else first(values.isnan())
    if event is not None:
        return "nan", event
    if lengths is not None:
        starts = torch.arange(batch + 1, device=offsets.device) * steps
        sample = first(offsets[starts[:-1] + lengths] < offsets[starts[1:]])
    return None if sample is None else ("past length", sample)


def describe_fault(parts: Parts, fault: str, at: int) -> str:
    """The error message for a fault of ``find_fault`` and its position."""
    offsets, indices, _, (steps, _, inputs), lengths = parts
    if fault == "first offset":
        return f"offsets: expected the first to be 0, got {int(offsets[0])}"
    if fault == "descent":
        before, after = offsets[at - 1 : at + 1].tolist()
        return f"offsets: expected ascending values, got {before} and then {after} at position {at}"
    if fault == "last offset":
        last = int(offsets[-1])
        return f"offsets: expected the last to be {len(indices)}, the number of indices, got {last}"
    if fault == "index":
        return f"indices: expected values in [0, {inputs}), got {int(indices[at])} at position {at}"
    if fault == "nan":
        return f"values: expected numbers, got nan at position {at}"
    assert lengths is not None
    length = int(lengths[at])
    if fault == "length":
        return wrong_length(length, at, steps)
    return f"lengths: expected no events past a sample's length, got some past length {length} of sample {at}"
