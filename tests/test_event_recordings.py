"""EventBatch.from_events: a recording becomes the events it describes, or an error names the argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcell import EventBatch
from support.events import assert_same, assert_valid


@st.composite
def recordings(draw: st.DrawFn) -> dict[str, Any]:
    events = draw(st.lists(st.tuples(*(st.integers(0, high) for high in (5000, 3, 2, 1))), max_size=30))
    times, x, y, polarity = zip(*sorted(events), strict=True) if events else ((), (), (), ())
    return {"times": times, "x": x, "y": y, "polarity": polarity}


@settings(deadline=None)
@given(
    recordings(),
    st.sampled_from([1, 7, 1000, 0.5, 250.0]),
    st.none() | st.integers(0, 12),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["once", "all"]),
)
def test_a_recording_becomes_its_binned_events(
    recording: dict[str, Any],
    bin_width: float,
    steps: int | None,
    prefix: int,
    with_polarity: bool,
    count: Any,
) -> None:
    times, x, y, polarity = recording.values()
    height, width = 3, 4
    bins = [math.floor(t / bin_width) for t in times]
    expected_steps = steps if steps is not None else max(bins, default=-1) + 1
    frames = torch.zeros(prefix + expected_steps, 1, 2 if with_polarity else 1, height, width)
    for k, step in enumerate(bins):
        if step < expected_steps:
            frames[prefix + step, 0, polarity[k] if with_polarity else 0, y[k], x[k]] += 1
    if count == "once":
        frames.clamp_(max=1)
    arguments: dict[str, Any] = {"bin_width": bin_width, "steps": steps, "prefix": prefix, "count": count}
    if not with_polarity:
        del recording["polarity"]
    batch = EventBatch.from_events(**recording, **arguments, sensor_size=(height, width))
    assert_valid(batch)
    assert batch.values is None and batch.lengths is None
    assert torch.equal(batch.to_dense(), frames.flatten(2))
    index = [(polarity[k] * with_polarity * height + y[k]) * width + x[k] for k in range(len(times))]
    inputs = height * width * (1 + with_polarity)
    assert_same(EventBatch.from_events(times, index, inputs=inputs, **arguments), batch)


def test_recordings_of_any_dtype_and_byte_order_give_the_same_batch() -> None:
    packed = np.array([(5, 2, 1, True), (999, 0, 0, False), (1000, 3, 1, True)], "<u4, u2, i2, ?")
    t, x, y, p = (packed[name] for name in packed.dtype.names or ())
    options: dict[str, Any] = {"bin_width": 1000, "sensor_size": (2, 4)}
    expected = EventBatch.from_events([5, 999, 1000], x=[2, 0, 3], y=[1, 0, 1], polarity=[1, 0, 1], **options)
    assert expected.indices.tolist() == [0, 14, 15]
    assert_same(EventBatch.from_events(t, x=x, y=y, polarity=p, **options), expected)
    swapped = [field.astype(field.dtype.newbyteorder(">")) for field in (t, x, y)]
    assert_same(EventBatch.from_events(swapped[0], x=swapped[1], y=swapped[2], polarity=p, **options), expected)
    tensors = [torch.from_numpy(field.astype(np.int64)) for field in (t, x, y)]
    same = EventBatch.from_events(tensors[0], x=tensors[1], y=tensors[2], polarity=[True, False, True], **options)
    assert_same(same, expected)
    seconds = [time / 2**10 for time in (5, 999, 1000)]
    options["bin_width"] /= 2**10
    for same_times in (seconds, torch.tensor(seconds), np.array(seconds)):
        assert_same(EventBatch.from_events(same_times, x=x, y=y, polarity=p, **options), expected)


@pytest.mark.parametrize(
    ("times", "bin_width", "steps"),
    [
        ([1.0, 1 + 2**-40], 1 + 2**-40, [0, 1]),  # a list keeps its precision
        ([10**18 + 999, 10**18 + 1000], 10**15, [1000, 1000]),
        ([2**60 - 1, 2**60], np.int64(2**55), [31, 32]),
        ([0, 2**62], 2**63, [0, 0]),
        # Regression: integers were divided in float32, so that times moved to a later bin and a tiny width became 0.
        ([2**25 - 1], 2.0**20, [31]),
        ([0, 0], 1e-320, [0, 0]),
    ],
)
def test_times_are_binned_exactly(times: list[float], bin_width: float, steps: list[int]) -> None:
    batch = EventBatch.from_events(times, range(len(times)), inputs=len(times), bin_width=bin_width)
    assert batch.shape[0] == steps[-1] + 1
    assert torch.arange(steps[-1] + 1).repeat_interleave(batch.offsets.diff()).tolist() == steps


def test_a_recording_may_have_no_events_inputs_steps_or_pixels() -> None:
    for times in ([], np.array([], np.int32), torch.tensor([])):
        batch = EventBatch.from_events(times, [], inputs=5, bin_width=1, prefix=2)
        assert_valid(batch)
        assert (batch.shape, batch.num_events) == ((2, 1, 5), 0)
    for inputs, steps in ((0, 3), (5, 0), (0, 0)):
        batch = EventBatch.from_events([], [], inputs=inputs, bin_width=1, steps=steps)
        assert_valid(batch)
        assert batch.shape == (steps, 1, inputs)
    for size in ((0, 4), (4, 0), (0, 0)):
        assert EventBatch.from_events([], x=[], y=[], bin_width=1, sensor_size=size).shape == (0, 1, 0)


# A valid recording; each invalid call changes some of its arguments.
RECORDING: dict[str, Any] = {
    "times": [5, 1005, 1005],
    "x": [0, 3, 1],
    "y": [1, 0, 1],
    "polarity": [0, 1, 1],
    "bin_width": 1000,
    "sensor_size": (2, 4),
}


ONE_WAY = "indices: expected either indices and inputs, or x, y and sensor_size, got"
FINITE = "times: expected finite numbers of at least 0, got"
WIDTH = r"bin_width: expected a finite number above 0, got"
STEPS = r"bin_width: expected at most 2\^31 - 1 steps, got"
PIXELS = r"sensor_size: expected \(height, width\) of at least 0, 2\^30 pixels at most,"
SIZE = r"sensor_size: expected two integers \(height, width\), got"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"times": [5, 1005, 1004]},
            ValueError,
            "times: expected ascending values, got 1005 and then 1004 at position 2",
        ),
        ({"times": [-1, 0, 5]}, ValueError, f"{FINITE} -1 at position 0"),
        ({"times": [0.0, 1.0, math.nan]}, ValueError, f"{FINITE} nan at position 2"),
        ({"times": [0.0, 1.0, math.inf]}, ValueError, f"{FINITE} inf at position 2"),
        ({"times": [[0, 1, 2]]}, ValueError, r"times: expected one dimension, got shape \(1, 3\)"),
        ({"times": [True, True, True]}, TypeError, "times: expected real numbers, got torch.bool"),
        ({"times": [1j, 1j, 1j]}, TypeError, "times: expected real numbers, got torch.complex64"),
        ({"times": ["a", "b", "c"]}, TypeError, "times: expected numbers, .*, got list: "),
        ({"times": [0, 1, 2**70]}, TypeError, "times: expected numbers, .*, got list: "),
        ({"times": torch.ones(3).to_sparse()}, ValueError, "times: expected a dense tensor, got torch.sparse_coo"),
        ({"x": [0, 4, 1]}, ValueError, r"x: expected values in \[0, 4\), got 4 at position 1"),
        ({"x": [0, 1]}, ValueError, r"x: expected shape \(events,\) = \(3,\), as times has, got \(2,\)"),
        ({"x": [0.0, 1.0, 1.0]}, TypeError, "x: expected integers, got torch.float64"),
        ({"x": [True, False, True]}, TypeError, "x: expected integers, got torch.bool"),
        ({"y": [2**62, 2, 0]}, ValueError, r"y: expected values in \[0, 2\), got 4611686018427387904 at position 0"),
        ({"polarity": [0, 1, -1]}, ValueError, r"polarity: expected values in \[0, 2\), got -1 at position 2"),
        ({"bin_width": 0}, ValueError, f"{WIDTH} 0"),
        ({"bin_width": math.nan}, ValueError, f"{WIDTH} nan"),
        ({"bin_width": "1"}, TypeError, "bin_width: expected a float, got str"),
        ({"bin_width": 1e-300}, ValueError, f"{STEPS} 1e-300 for times up to 1005"),
        # Too many steps are refused before anything is allocated.
        (
            {"times": [0, 1, 2**62], "bin_width": 1},
            ValueError,
            f"{STEPS} 1 for times up to ",
        ),
        ({"times": [0, 1, 2.0**1000]}, ValueError, f"{STEPS} 1000 for times up to "),
        ({"sensor_size": (2, 4, 2)}, ValueError, rf"{SIZE} \(2, 4, 2\)"),
        ({"sensor_size": (2.0, 4)}, TypeError, rf"{SIZE} \(2.0, 4\)"),
        ({"sensor_size": (-2, -4)}, ValueError, rf"{PIXELS} got \(-2, -4\)"),
        ({"sensor_size": (2**16, 2**15)}, ValueError, rf"{PIXELS} got \(65536, 32768\)"),
        ({"steps": -1}, ValueError, r"steps: expected an int in \[0, 2147483647\], got -1"),
        ({"prefix": -1}, ValueError, r"prefix: expected an int in \[0, 2147483647\], got -1"),
        ({"count": "twice"}, ValueError, "count: expected one of once, all, got 'twice'"),
        ({"indices": [0, 1, 2]}, TypeError, f"{ONE_WAY} indices, x, y, polarity, sensor_size"),
        (dict.fromkeys(("x", "y", "polarity", "sensor_size")), TypeError, f"{ONE_WAY} none of them"),
        ({"y": None}, TypeError, f"{ONE_WAY} x, polarity, sensor_size"),
        ({"sensor_size": None}, TypeError, f"{ONE_WAY} x, y, polarity"),
        ({"inputs": 16}, TypeError, f"{ONE_WAY} inputs, x, y, polarity, sensor_size"),
    ],
)
def test_an_invalid_argument_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    EventBatch.from_events(**RECORDING)
    with pytest.raises(error, match=f"^{message}"):
        EventBatch.from_events(**{**RECORDING, **changes})


def test_times_past_the_last_step_are_dropped() -> None:
    assert EventBatch.from_events([0, 2**62], [0, 0], inputs=1, bin_width=1, steps=3).num_events == 1


def test_uint64_is_accepted_up_to_the_largest_int64() -> None:
    times, indices = np.array([0, 1, 2], dtype=np.uint64), np.array([0, 1, 0], dtype=np.uint64)
    batch = EventBatch.from_events(times, indices, inputs=2, bin_width=1)
    assert batch.indices.tolist() == [0, 1, 0] and batch.shape == (3, 1, 2)
    with pytest.raises(ValueError, match=r"^times: expected"):
        EventBatch.from_events(np.array([0, 2**63], dtype=np.uint64), indices[:2], inputs=2, bin_width=1)
