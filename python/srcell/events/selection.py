"""Indexes, truncates and joins event batches.

``EventBatch`` calls these functions and documents them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._arguments import as_int
from .checks import MAX_SIZE, Array, Parts, as_integers, check_shape, first, offsets_of
from .conversion import values_or_ones


def joined(batches: Sequence[Parts], steps: int | None) -> Parts:
    """The parts of ``EventBatch.cat``."""
    (first_steps, _, inputs), device = batches[0].shape, batches[0].device
    shortest, steps = (first_steps, first_steps) if steps is None else (0, as_int("steps", steps, MAX_SIZE))
    for k, batch in enumerate(batches):
        if not shortest <= batch.shape[0] <= steps or batch.shape[2] != inputs:
            expected = f"T = {steps}" if shortest == steps else f"T of at most {steps}"
            raise ValueError(
                f"batches: expected {expected} and K = {inputs}, as the first has, got shape {batch.shape} at {k}"
            )
        if batch.device != device:
            raise ValueError(f"batches: expected device {device}, as the first has, got {batch.device} at {k}")
    values = lengths = None
    if any(batch.values is not None for batch in batches):
        values = torch.cat([values_or_ones(batch, torch.float32) for batch in batches])
    if any(batch.lengths is not None or batch.shape[0] < steps for batch in batches):
        lengths = torch.cat([lengths_or_steps(batch) for batch in batches])
    offsets = offsets_of(torch.cat([_counts(batch, steps) for batch in batches]))
    indices = torch.cat([batch.indices for batch in batches])
    shape = check_shape((steps, sum(batch.shape[1] for batch in batches), inputs), "batches")
    return Parts(offsets, indices, values, shape, lengths)


def followed_by(past: Parts, batch: Parts) -> Parts:
    """Each sample of ``past``, whose samples have all steps, followed by the same sample of ``batch``."""
    (before, samples, inputs), steps = past.shape, batch.shape[0]
    both = past, batch
    counts = [x.offsets.diff().view(samples, x.shape[0]) for x in both]
    owner = torch.arange(samples, device=batch.device)
    parts = [2 * owner.repeat_interleave(count.sum(1)) + k for k, count in enumerate(counts)]
    order = torch.cat(parts).argsort(stable=True)
    values = None
    if any(x.values is not None for x in both):
        values = torch.cat([values_or_ones(x, torch.float32) for x in both])[order]
    return Parts(
        offsets_of(torch.cat(counts, 1).flatten()),
        torch.cat([x.indices for x in both])[order],
        values,
        (before + steps, samples, inputs),
        None if batch.lengths is None else batch.lengths + before,
    )


def truncated(events: Parts, steps: int) -> Parts:
    """The parts of ``EventBatch.truncate``."""
    own, samples, inputs = events.shape
    steps = as_int("steps", steps, own)
    counts = events.offsets.diff().view(samples, own)
    kept = (torch.arange(own, device=events.device) < steps).repeat(samples).repeat_interleave(counts.flatten())
    return Parts(
        offsets_of(counts[:, :steps].flatten()),
        events.indices[kept],
        None if events.values is None else events.values[kept],
        (steps, samples, inputs),
        None if events.lengths is None else events.lengths.clamp(max=steps),
    )


def check_samples(events: Parts, samples: Sequence[int] | Array) -> Tensor:
    """Check sample numbers in [-B, B); return them in [0, B)."""
    numbers = as_integers("samples", samples, events.device)
    outside = first((numbers < -events.shape[1]) | (numbers >= events.shape[1]))
    if outside is not None:
        raise IndexError(
            f"samples: expected values in [{-events.shape[1]}, {events.shape[1]}), got {int(numbers[outside])}"
        )
    return torch.where(numbers < 0, numbers + events.shape[1], numbers)


def slice_of(events: Parts, start: int, stop: int) -> Parts:
    """The samples in [start, stop); indices, values and lengths are views of the batch's."""
    steps, _, inputs = events.shape
    offsets = events.offsets[start * steps : stop * steps + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    return Parts(
        offsets - first,
        events.indices[first:last],
        None if events.values is None else events.values[first:last],
        (steps, stop - start, inputs),
        None if events.lengths is None else events.lengths[start:stop],
    )


def gathered(events: Parts, samples: Tensor) -> Parts:
    """The samples with the given numbers, in that order."""
    steps, batch, inputs = events.shape
    counts = events.offsets.diff().view(batch, steps)[samples]
    offsets = offsets_of(counts.flatten())
    moved = events.offsets[samples * steps] - offsets[torch.arange(len(samples), device=events.device) * steps]
    chosen = torch.arange(int(offsets[-1]), device=events.device) + moved.repeat_interleave(counts.sum(1))
    return Parts(
        offsets,
        events.indices[chosen],
        None if events.values is None else events.values[chosen],
        (steps, len(samples), inputs),
        None if events.lengths is None else events.lengths[samples],
    )


def _counts(events: Parts, steps: int) -> Tensor:
    """The number of events of each row, (B * steps,), after extending each sample to ``steps`` >= T steps."""
    own, batch, _ = events.shape
    counts = events.offsets.diff()
    if own == steps:
        return counts
    return torch.nn.functional.pad(counts.view(batch, own), (0, steps - own)).flatten()


def lengths_or_steps(events: Parts) -> Tensor:
    """The length of each sample, T in a batch without lengths."""
    if events.lengths is not None:
        return events.lengths
    return torch.full((events.shape[1],), events.shape[0], dtype=torch.int64, device=events.device)
