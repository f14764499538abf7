"""Sorts the timed events of a recording into bins: ``EventBatch.from_events``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._shared.arguments import as_int, as_positive, check_choice
from .checks import MAX_INPUTS, MAX_STEPS, Array, Integers, Parts, as_integers, as_ints, as_numbers, first


def binned(
    times: Tensor, index: Tensor, total: int, bin_width: float, steps: int | None, prefix: int, count: str
) -> Parts:
    """The parts of the batch, from the times of events, their inputs, and K."""
    prefix = as_int("prefix", prefix, MAX_STEPS)
    bins = _bins(times, bin_width)
    if steps is None:
        steps = int(bins[-1]) + 1 if len(bins) else 0
        if steps > MAX_STEPS:
            last = times[-1].item()
            raise ValueError(f"bin_width: expected at most 2^31 - 1 steps, got {bin_width} for times up to {last}")
        if prefix + steps > MAX_STEPS:
            raise ValueError(f"prefix: expected at most {MAX_STEPS - steps} before {steps} steps, got {prefix}")
    else:
        steps = as_int("steps", steps, MAX_STEPS - prefix)
        bins = bins[bins < steps]
    check_choice("count", count, ("once", "all"))
    elements = (prefix + bins) * total + index[: len(bins)]
    elements = elements.unique() if count == "once" else elements.sort().values
    row_starts = torch.arange(prefix + steps + 1, device=times.device) * total
    offsets = torch.searchsorted(elements, row_starts)
    return offsets, (elements % max(total, 1)).to(torch.int32), None, (prefix + steps, 1, total), None


def check_times(times: Array | Sequence[float]) -> Tensor:
    """Check the times of events; return them as int64 or float64."""
    device = times.device if isinstance(times, Tensor) else torch.device("cpu")
    numbers = as_numbers("times", times, device, floats=True)
    numbers = numbers.detach().to(torch.float64 if numbers.is_floating_point() else torch.int64)
    event = first(~numbers.isfinite() | (numbers < 0))
    if event is not None:
        got = numbers[event].item()
        raise ValueError(f"times: expected finite numbers of at least 0, got {got} at position {event}")
    event = first(numbers[1:] < numbers[:-1])
    if event is not None:
        before, after = numbers[event : event + 2].tolist()
        raise ValueError(f"times: expected ascending values, got {before} and then {after} at position {event + 1}")
    return numbers


def _bins(times: Tensor, bin_width: float) -> Tensor:
    """The bin of each time, as int64; times beyond MAX_STEPS bins may get any bin of at least MAX_STEPS."""
    width = as_positive("bin_width", bin_width)
    if isinstance(bin_width, int | np.integer) and bin_width < 2**63 and not times.is_floating_point():
        return times // int(bin_width)
    return (times.to(torch.float64) / width).clamp(max=MAX_STEPS).to(torch.int64)


def event_inputs(times: Tensor, named: dict[str, Any]) -> tuple[Tensor, int]:
    """The input of each event, by its index or by its pixel, and K, from those arguments that are not None."""
    if named.keys() == {"indices", "inputs"}:
        total = as_int("inputs", named["inputs"], MAX_INPUTS)
        return _below("indices", named["indices"], total, times), total
    if named.keys() - {"polarity"} == {"x", "y", "sensor_size"}:
        height, width = _check_sensor_size(named["sensor_size"])
        index = _below("y", named["y"], height, times) * width + _below("x", named["x"], width, times)
        if "polarity" not in named:
            return index, height * width
        side = _below("polarity", named["polarity"], 2, times, bools=True)
        return side * (height * width) + index, 2 * height * width
    got = ", ".join(named) or "none of them"
    raise TypeError(f"indices: expected either indices and inputs, or x, y and sensor_size, got {got}")


def _check_sensor_size(sensor_size: Sequence[int]) -> tuple[int, int]:
    height, width = as_ints("sensor_size", sensor_size, 2, "two integers (height, width)")
    if min(height, width) < 0 or 2 * height * width > MAX_INPUTS:
        got = (height, width)
        raise ValueError(f"sensor_size: expected (height, width) of at least 0, 2^30 pixels at most, got {got}")
    return height, width


def _below(name: str, x: Integers, bound: int, times: Tensor, *, bools: bool = False) -> Tensor:
    """Check that there is one integer in [0, bound) for each time; return the integers as int64."""
    numbers = as_integers(name, x, times.device, bools=bools)
    if len(numbers) != len(times):
        raise ValueError(f"{name}: expected shape (events,) = ({len(times)},), as times has, got ({len(numbers)},)")
    event = first((numbers < 0) | (numbers >= bound))
    if event is not None:
        raise ValueError(f"{name}: expected values in [0, {bound}), got {int(numbers[event])} at position {event}")
    return numbers
