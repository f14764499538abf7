"""``delay``: inputs that arrive later, from delays in steps that may be fractions and may be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import SupportsIndex

import torch
from torch import Tensor

from .._shared.arguments import as_float, as_int, describe, require_dense
from .._shared.renamed import renamed
from ..events import EventBatch
from ..events.checks import MAX_INPUTS
from ..ops._table import HALF, WORK, shape_error, work_dtype
from ..ops.delay import delay_dense, delay_events
from .layer import INTEGERS, check_device, check_lengths, in_work_dtype
from .synapse import as_spikes
from .terms import MOST_DELAY, check_delays, terms_of


@renamed("width")
def delay(
    input: Tensor | EventBatch,
    delay: Tensor | float,
    *,
    max_delay: SupportsIndex,
    delay_width: SupportsIndex = 1,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor | EventBatch:
    r"""Let each input arrive later, by a delay d of its own.

    With m = floor(d) and f = d - m, the output is ``(1 - f) x[t-m] + f x[t-m-1]``, where x is 0 before the first step.
    For events a delay is an addition to a time stamp: the time of the call does not grow with the delays. What would
    arrive past the end of a sample is lost.

    Args:
        input: (T, B, \*F) tensor, or an :class:`~srcell.EventBatch` (T, B, K). A tensor holds floating-point numbers,
            or bools or integers, which count as numbers of spikes.
        delay: delays in steps, in [0, max_delay], which may require a gradient. A float for all inputs; (K,), where K
            is the number of elements of F; or (K, M) for M taps: every input then has M copies, tap j of input k at
            index k M + j. On a GPU and compiled their range is not checked.
        max_delay: the largest delay allowed, an int in [0, 65535].
        delay_width: half-width of the interpolation, in steps: W, an int of at least 1. Each output is a sum of 2 W
            inputs with the weights ``max(0, W - |u - d|) / W^2`` at u steps before, so that the gradient of a delay
            reaches further. Where the triangle begins before u = 0, the other weights are scaled to the sum 1.
        lengths: (B,) integers in [0, T], number of steps of each sample of a tensor; T for all if absent. Past its
            length a sample's output is 0.

    Returns:
        An EventBatch for an EventBatch, otherwise a tensor in the dtype of the input, or of the delay if the input
        holds numbers of spikes: (T, B, \*F), or (T, B, K M) for M taps. Events arrive in the order of their departures:
        by step, then as in the batch. An event becomes one event for each weight that is not 0, and for every weight if
        the delay requires a gradient and gradients are enabled. If all delays are whole and require no gradient, events
        without values stay without them, except on a GPU and compiled. On a GPU a call with events waits for their
        number.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell import EventBatch, delay
        >>> x = torch.zeros(5, 1, 2)
        >>> x[0] = 1.0
        >>> delay(x, torch.tensor([2.0, 0.25]), max_delay=3)[:, 0]
        tensor([[0.0000, 0.7500],
                [0.0000, 0.2500],
                [1.0000, 0.0000],
                [0.0000, 0.0000],
                [0.0000, 0.0000]])
        >>> delay(EventBatch.from_dense(x), 2.0, max_delay=3).offsets
        tensor([0, 0, 0, 2, 2, 2])

    """
    width, most = as_int("delay_width", delay_width, MOST_DELAY, minimum=1), as_int("max_delay", max_delay, MOST_DELAY)
    inputs = check_input(input, lengths)
    values = input.values if isinstance(input, EventBatch) else input
    dtype = torch.float32 if values is None else work_dtype(values)
    return delayed(input, as_delays(delay, inputs, input.device, dtype, most), width, most, lengths=lengths)


def check_input(input: Tensor | EventBatch, lengths: Tensor | Sequence[int] | None) -> int:
    """Check an input of ``delay`` and return K."""
    if isinstance(input, EventBatch):
        if lengths is not None:
            raise ValueError("lengths: expected None beside an EventBatch, which has its own, got lengths")
        if input.device.type == "meta":  # how many events arrive depends on their data
            raise ValueError("input: expected events that hold values, got some on meta")
        return input.shape[2]
    if not isinstance(input, Tensor):
        raise TypeError(f"input: expected a tensor or an EventBatch, got {type(input).__name__}")
    require_dense("input", input)
    if input.dtype not in (torch.bool, *INTEGERS, *HALF, *WORK):
        raise TypeError(f"input: expected bools, integers, or float16 to float64, got {input.dtype}")
    if input.dim() < 3:
        raise shape_error("input", "(T, B, ...)", input.shape)
    check_device("input", input)
    return input.shape[2:].numel()


def as_delays(delay: Tensor | float, inputs: int, device: torch.device, dtype: torch.dtype, most: int) -> Tensor:
    """The delays (K,) or (K, M) of that many inputs; a float in ``dtype``, checked."""
    if isinstance(delay, bool) or not isinstance(delay, (Tensor, Real)):
        raise TypeError(f"delay: expected a float or a tensor, got {describe(delay)}")
    if not isinstance(delay, Tensor):
        number = torch.full((), as_float("delay", delay), dtype=torch.float64, device=device)
        check_delays("delay", number, most, device)
        delay = number.to(dtype).expand(inputs)
    require_dense("delay", delay)
    if delay.dim() not in (1, 2) or delay.shape[0] != inputs or (delay.dim() == 2 and delay.shape[1] == 0):
        raise shape_error("delay", f"({inputs},) or ({inputs}, M)", delay.shape)
    if delay.numel() > MAX_INPUTS:  # before anything is made of an expanded tensor
        raise ValueError(f"delay: expected at most 2^31 delayed inputs, got K * M = {delay.numel()}")
    return delay


def delayed(
    input: Tensor | EventBatch,
    delay: Tensor,
    width: int,
    most: int,
    *,
    clamped: bool = False,
    skip: int = 0,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor | EventBatch:
    """``delay`` by delays (K,) or (K, M), which are checked or, if ``clamped``, act clamped to [0, most].

    The other arguments are checked. The first ``skip`` steps of the output are left out.
    """
    taps = delay.shape[1] if delay.dim() == 2 else 1
    keep = delay.requires_grad and torch.is_grad_enabled()
    first, factors = terms_of("delay", delay.reshape(-1), width, most, input.device, clamped=clamped, keep=keep)
    sizes = {"taps": taps, "skip": skip, "keep_zeros": keep}
    if isinstance(input, EventBatch):
        steps, batch, inputs = input.shape
        if factors is not None and input.values is not None:
            factors = factors.to(input.values.dtype)
        graded = factors is not None or input.values is not None
        tensors = input.offsets, input.indices, input.values, first, factors, input.lengths
        values, offsets, indices = delay_events(*tensors, steps=steps, batch=batch, graded=graded, **sizes)
        left = None if input.lengths is None else (input.lengths - skip).clamp(min=0)
        shape = (steps - skip, batch, inputs * taps)
        return EventBatch._trusted(offsets, indices, values if graded else None, shape, left)
    x = as_spikes(input, work_dtype(delay))
    work = in_work_dtype(x).flatten(2)
    ends = None if lengths is None else check_lengths(lengths, x.shape[1], x.device)
    made: Tensor = delay_dense(work, first, None if factors is None else factors.to(work.dtype), ends, **sizes)
    return made.to(x.dtype).reshape(*made.shape[:2], *(x.shape[2:] if delay.dim() == 1 else made.shape[2:]))
