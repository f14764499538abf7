"""Converts batches of events to recordings of NIR and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._shared.arguments import as_float, as_int, as_positive, require_values
from .._shared.extras import extra
from ..events import EventBatch
from ..events.checks import MAX_INPUTS, MAX_STEPS, offsets_of
from .node import as_array

with extra("nir"):
    import nir

_NO_EVENT = -1
_SLACK = 0.01  # in steps: more than the rounding error of float32 times in the first 100,000 steps


def to_nir(batch: EventBatch, *, dt: float) -> nir.EventData:
    """Convert a batch of events to NIR's event data.

    An event of step t gets the time ``t * dt``. If ``t * dt / dt`` rounds to less than t, it gets the next larger
    float64 instead. So NIR's ``to_time_gridded(dt)`` puts every event in its own step. Events keep their order.
    Gradients are not recorded.

    Args:
        batch: B samples of T steps and K inputs. Its lengths must be absent or all be T, because all recordings of a
            NIR batch have the same duration.
        dt: duration of a step, above 0; NIR counts in seconds.

    Returns:
        ``nir.EventData``, or ``nir.ValuedEventData`` if the batch has values, with arrays (B, E) on the CPU. E is the
        largest number of events of a sample. A sample with fewer events is padded: ``idx`` with -1, ``time`` with
        infinity and ``value`` with 0. ``n_neurons`` is K, ``t_max`` is ``T * dt``.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: samples of different lengths, or a duration that is not above 0 or too large.

    Example:
        >>> import torch
        >>> from srcell import EventBatch
        >>> from srcell.nir import to_nir
        >>> recording = to_nir(EventBatch.from_dense(torch.eye(3)[:, None]), dt=0.001)
        >>> recording.idx.tolist(), recording.time.tolist(), recording.n_neurons, recording.t_max
        ([[0, 1, 2]], [[0.0, 0.001, 0.002]], 3, 0.003)

    """
    if not isinstance(batch, EventBatch):
        raise TypeError(f"batch: expected an EventBatch, got {type(batch).__name__}")
    require_values("batch", batch.offsets)
    steps, samples, inputs = batch.shape
    if batch.lengths is not None and bool((batch.lengths != steps).any()):
        shortest = int(batch.lengths.min())
        raise ValueError(f"batch: expected samples of T = {steps} steps, got one of length {shortest}")
    dt = as_positive("dt", dt)
    if not np.isfinite(steps * dt):
        raise ValueError(f"dt: expected a duration for which T * dt is finite with T = {steps}, got {dt}")

    offsets = batch.offsets.cpu().numpy()
    starts = offsets[np.arange(samples + 1) * steps]
    sample = np.repeat(np.arange(samples), np.diff(starts))
    step = np.repeat(np.arange(samples * steps), np.diff(offsets)) % max(steps, 1)
    place = sample, np.arange(len(sample)) - starts[sample]
    shape = samples, int(np.diff(starts).max(initial=0))

    def padded(x: NDArray[Any], padding: float) -> NDArray[Any]:
        array = np.full(shape, padding, x.dtype)
        array[place] = x
        return array

    recording = {
        "idx": padded(batch.indices.cpu().numpy().astype(np.int64), _NO_EVENT),
        "time": padded(_times_of(step, dt), np.inf),
        "n_neurons": inputs,
        "t_max": float(_times_of(np.array([steps]), dt)[0]),
    }
    if batch.values is None:
        return nir.EventData(**recording)
    return nir.ValuedEventData(**recording, value=padded(batch.values.detach().cpu().numpy(), 0))


def from_nir(data: nir.EventData, *, dt: float) -> EventBatch:
    """Convert NIR's event data to a batch of events.

    Every time must be a multiple of ``dt``, to within a hundredth of ``dt``. For other times use
    ``EventBatch.from_events``, which bins them.

    Args:
        data: ``nir.EventData`` or ``nir.ValuedEventData``, in arrays (B, E): ``idx`` integers in [0, ``n_neurons``), or
            -1 where there is no event; ``time`` numbers from 0 to below ``t_max``, in any order; ``value`` float32 or
            float64.
        dt: duration of a step, above 0, in the unit of ``time``.

    Returns:
        A batch (T, B, K) on the CPU without lengths, where T is ``t_max / dt`` and K is ``n_neurons``; it has values
        if the data have values. Events of one step keep their order. The result of ``to_nir`` converts back to a batch
        equal to the original, if the original had no lengths and was on the CPU.

    Raises:
        TypeError: an argument or an array of the wrong type or dtype.
        ValueError: a wrong shape or value, or a time that is not a multiple of ``dt``; the message names the argument.

    Example:
        >>> import nir, numpy as np
        >>> from srcell.nir import from_nir
        >>> data = nir.EventData(np.array([[2, 0]]), np.array([[0.001, 0.004]]), n_neurons=3, t_max=0.005)
        >>> batch = from_nir(data, dt=0.001)
        >>> batch.shape, batch.offsets.tolist(), batch.indices.tolist()
        ((5, 1, 3), [0, 0, 1, 1, 1, 2], [2, 0])

    """
    if not isinstance(data, nir.EventData):
        raise TypeError(f"data: expected nir.EventData or nir.ValuedEventData, got {type(data).__name__}")
    dt = as_positive("dt", dt)
    if isinstance(data.n_neurons, bool):
        raise TypeError("data.n_neurons: expected an int, got bool")
    inputs, steps = as_int("data.n_neurons", data.n_neurons, MAX_INPUTS), _steps_in(data.t_max, dt)
    idx = as_array("data.idx", data.idx, "iu", "an array of integers")
    if idx.ndim != 2:
        raise ValueError(f"data.idx: expected shape (samples, events), got {idx.shape}")
    time = as_array("data.time", data.time, "fiu", "an array of real numbers")
    _check_shape("data.time", time, idx)
    _refuse("data.idx", idx, (idx < _NO_EVENT) | (idx >= inputs), f"-1 or integers in [0, {inputs})")

    place = np.nonzero(idx != _NO_EVENT)  # ascending by sample
    times = np.full(idx.shape, 0.0)
    times[place] = time[place]
    _refuse("data.time", time, ~np.isfinite(times) | (times < 0), "finite numbers of at least 0")
    with np.errstate(over="ignore"):
        counts = times / dt
    step = np.rint(counts)
    late = step >= steps
    late[idx == _NO_EVENT] = False
    _refuse("data.time", time, late, f"times below t_max = {data.t_max}")
    _refuse("data.time", time, abs(counts - step) > _SLACK, f"multiples of dt = {dt}")

    rows = place[0] * steps + step[place].astype(np.int64)
    order = np.argsort(rows, kind="stable")
    offsets = offsets_of(torch.from_numpy(np.bincount(rows, minlength=len(idx) * steps)))
    values = None
    if isinstance(data, nir.ValuedEventData):
        value = as_array("data.value", data.value, "f", "an array of float32 or float64")
        _check_shape("data.value", value, idx)
        if value.dtype.itemsize not in (4, 8):
            raise TypeError(f"data.value: expected float32 or float64, got {value.dtype}")
        _refuse("data.value", value, np.isnan(value) & (idx != _NO_EVENT), "numbers")
        values = torch.from_numpy(value[place][order].astype(value.dtype.newbyteorder("=")))
    indices = idx[place][order].astype(np.int32)
    return EventBatch(offsets, indices, values, shape=(steps, len(idx), inputs))


def _times_of(step: NDArray[np.int64], dt: float) -> NDArray[np.float64]:
    """For each step the smallest time whose quotient by dt is not below the step."""
    times = step * dt
    return np.where(times / dt < step, np.nextafter(times, np.inf), times)


def _steps_in(t_max: float, dt: float) -> int:
    """The number of steps of a recording, T."""
    t_max = as_float("data.t_max", t_max)
    if not 0 <= t_max / dt < MAX_STEPS + 0.5:  # neither infinite nor NaN
        raise ValueError(f"data.t_max: expected a duration of 0 to 2^31 - 1 steps of {dt}, got {t_max}")
    steps = round(t_max / dt)
    if abs(t_max / dt - steps) > _SLACK:
        raise ValueError(f"data.t_max: expected a multiple of dt = {dt}, got {t_max}")
    return steps


def _check_shape(name: str, x: NDArray[Any], idx: NDArray[Any]) -> None:
    if x.shape != idx.shape:
        raise ValueError(f"{name}: expected shape {idx.shape}, as data.idx has, got {x.shape}")


def _refuse(name: str, x: NDArray[Any], wrong: NDArray[np.bool_], expected: str) -> None:
    """Raise if an element is wrong."""
    if wrong.any():
        sample, event = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"{name}: expected {expected}, got {x[sample, event]} in sample {sample} at position {event}")
