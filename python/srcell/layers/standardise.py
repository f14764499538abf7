"""``Standardise``: a module that standardises the inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.arguments import check_bool, describe, require_dense, require_values
from ..events import EventBatch
from ..functional.layer import check_lengths
from ..ops._memory import zero_padding
from ..ops._table import shape_error


class Standardise(nn.Module):
    """Subtracts a mean from each input and divides by a deviation, as the first module of a network.

    The numbers are buffers, part of the ``state_dict`` and of an exported file, so that a program in C gives the
    network the values as they were measured. ``Standardise.of`` computes them from training values.

    Args:
        mean: the mean of each input, (K,), or (C, H, W) for maps: a tensor, an array or a list.
        deviation: the deviation of each input, of the same shape; above 0.
        batch_first: dense inputs are (B, T, ...).

    Attributes:
        mean: float32.
        deviation: float32.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong shape, a number that is not finite, or a deviation that is not above 0.

    Example:
        >>> import torch, srcell
        >>> training = torch.tensor([[[1.0, 20.0], [3.0, 20.0]]])  # one sequence of two elements
        >>> standardise = srcell.Standardise.of(training)
        >>> standardise.mean, standardise.deviation
        (tensor([ 2., 20.]), tensor([1., 1.]))
        >>> net = srcell.Sequential(standardise, srcell.SRC(2, 20), srcell.LinearReadout(20, 3))
        >>> net(torch.tensor([[[3.0, 20.0]]])).shape
        torch.Size([1, 3])

    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Any, deviation: Any, *, batch_first: bool = False) -> None:
        super().__init__()
        check_bool("batch_first", batch_first)
        self.batch_first = batch_first
        self.register_buffer("mean", _finite("mean", mean))
        self.register_buffer("deviation", _finite("deviation", deviation))
        if self.mean.dim() not in (1, 3) or not self.mean.numel():
            raise shape_error("mean", "(K,) or (C, H, W) with inputs", self.mean.shape)
        if self.deviation.shape != self.mean.shape:
            expected, got = tuple(self.mean.shape), tuple(self.deviation.shape)
            raise ValueError(f"deviation: expected shape {expected}, as mean has, got {got}")
        if not (self.deviation > 0).all():
            raise ValueError(f"deviation: expected values > 0, got {self.deviation.min().item()}")

    @classmethod
    def of(
        cls, values: Any, lengths: Tensor | Sequence[int] | None = None, *, batch_first: bool = False
    ) -> Standardise:
        """The module that gives each input of these values mean 0 and deviation 1 over all elements.

        An input that has the same value in all elements gets deviation 1.

        Args:
            values: training values, (B, S, K), or (B, S, C, H, W) for maps: a tensor or an array of floats. An element
                may be held for several steps; that does not change the mean and deviation.
            lengths: (B,) integers in [0, S], number of elements of each sequence; S for all if absent.
            batch_first: as in the constructor.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: a wrong shape, no element, or an element that is not finite.

        """
        values = _floats("values", values)
        if values.dim() not in (3, 5):
            raise shape_error("values", "(B, S, K) or (B, S, C, H, W)", values.shape)
        batch, most = values.shape[:2]
        elements = values.flatten(0, 1)
        if lengths is not None:
            lengths = check_lengths(lengths, batch, values.device, most)
            elements = elements[(torch.arange(most, device=values.device) < lengths[:, None]).flatten()]
        if not elements.numel():
            raise ValueError(f"values: expected at least one element and input, got shape {tuple(values.shape)}")
        if not elements.isfinite().all():
            raise ValueError(f"values: expected finite numbers, got {elements[~elements.isfinite()][0].item()}")
        elements = elements.double()
        deviation = elements.std(0, correction=0)
        constant = (elements.amin(0) == elements.amax(0)) | (deviation.float() == 0)
        return cls(elements.mean(0), deviation.masked_fill(constant, 1.0), batch_first=batch_first)

    @property
    def inputs(self) -> int:
        """K, the number of inputs."""
        return self.mean.numel()

    def forward(self, input: Tensor | EventBatch, lengths: Tensor | Sequence[int] | None = None) -> Tensor | EventBatch:
        """Standardise a batch.

        Args:
            input: (T, B, K) or (T, B, C, H, W), (B, T, ...) with ``batch_first``; or an ``EventBatch``, (T, B, K),
                where an input without an event is 0, an event without a value is 1, and several events of an input
                add up.
            lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent. Must be absent for an
                EventBatch that has lengths.

        Returns:
            ``(input - mean) / deviation`` in the dtype of the input, 0 past a sample's length; an EventBatch for an
            EventBatch, with the lengths, where inputs that are then 0 have no event.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value; the message names the argument.

        """
        if isinstance(input, EventBatch):
            return self._of_events(input, lengths)
        if not isinstance(input, Tensor) or not input.is_floating_point():
            raise TypeError(f"input: expected a floating-point tensor or an EventBatch, got {describe(input)}")
        require_dense("input", input)
        if input.dim() < 3 or input.shape[2:] != self.mean.shape:
            first, last = "B, T" if self.batch_first else "T, B", ", ".join(map(str, self.mean.shape))
            raise shape_error("input", f"({first}, {last})", input.shape)
        made = self._standardised(input, self.mean, self.deviation)
        if lengths is None:
            return made
        made = made.transpose(0, 1) if self.batch_first else made
        made = zero_padding(made, check_lengths(lengths, made.shape[1], made.device, made.shape[0]))
        return made.transpose(0, 1) if self.batch_first else made

    def _of_events(self, input: EventBatch, lengths: Tensor | Sequence[int] | None) -> EventBatch:
        steps, batch, inputs = input.shape
        if inputs != self.inputs:
            raise ValueError(f"input: expected shape (T, B, {self.inputs}), got {input.shape}")
        lengths = input._lengths_or(lengths)
        if lengths is not None:
            lengths = check_lengths(lengths, batch, input.device, steps)
        dense = input.to_dense(self.mean.dtype if input.values is None else input.values.dtype)
        made = self._standardised(dense, self.mean.flatten(), self.deviation.flatten())
        return EventBatch.from_dense(made, lengths)

    @staticmethod
    def _standardised(input: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        # A difference and a quotient, each rounded: a file's network computes the same two.
        return (input - mean.to(input.dtype)) / deviation.to(input.dtype)

    def extra_repr(self) -> str:
        """The number of inputs, or the shape of the maps."""
        shape = str(self.inputs) if self.mean.dim() == 1 else str(tuple(self.mean.shape))
        return shape + (", batch_first=True" if self.batch_first else "")


def _floats(name: str, given: Any) -> Tensor:
    """A tensor of floats, without its gradient."""
    try:
        made = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{name}: expected floats, got {type(given).__name__}: {reason}") from None
    require_dense(name, made)
    require_values(name, made)
    if not made.is_floating_point():
        raise TypeError(f"{name}: expected floats, got {describe(made)}")
    return made


def _finite(name: str, given: Any) -> Tensor:
    """A tensor of float32 in memory of its own; raise unless its numbers are finite."""
    made = _floats(name, given).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not made.isfinite().all():
        raise ValueError(f"{name}: expected finite numbers, got {made[~made.isfinite()][0].item()}")
    return made
