"""No corrupt EventBatch can be made: construction, unpickling and from_dense raise and name the first fault."""

from __future__ import annotations

import contextlib
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from srcell import EventBatch
from srcell.events.faults import find_fault, find_fault_with_torch
from support.events import SHAPE, VALID, random_dense
from support.refusals import Refusal, refusals


def meta(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.zeros(size, dtype=dtype, device="meta")


# test_any_corrupt_batch_is_refused_by_name tests wrong values; these rows test wrong forms, and sizes at the limits.
@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("offsets", torch.tensor([[0, 1, 1, 3, 3]]), ValueError, r"shape \(B\*T \+ 1,\) = \(5,\), got \(1, 5\)"),
        ("offsets", VALID["offsets"].to_sparse(), ValueError, "a dense tensor, got torch.sparse_coo"),
        ("offsets", VALID["offsets"].int(), TypeError, "dtype torch.int64, got torch.int32"),
        ("offsets", [0, 1, 1, 3, 3], TypeError, "a tensor, a NumPy array or one with __dlpack__, got list"),
        ("indices", torch.zeros(3, 1, dtype=torch.int32), ValueError, r"shape \(events,\), got \(3, 1\)"),
        ("indices", meta(3, dtype=torch.int32), ValueError, "device cpu, as offsets has, got meta"),
        ("indices", VALID["indices"].long(), TypeError, "dtype torch.int32, got torch.int64"),
        ("indices", np.array([2, 0, 1], object), TypeError, "a dtype that torch has, got object"),
        ("values", torch.ones(3, 1), ValueError, r"shape \(events,\) = \(3,\), got \(3, 1\)"),
        ("values", meta(3, dtype=torch.float32), ValueError, "device cpu, as offsets has, got meta"),
        ("values", VALID["values"].half(), TypeError, "dtype torch.float32 or torch.float64, got torch.float16"),
        ("lengths", meta(2), ValueError, "device cpu, as offsets has, got meta"),
        ("lengths", VALID["lengths"].double(), TypeError, "dtype torch.int64, got torch.float64"),
        ("shape", (2, 2), ValueError, r"three integers \(T, B, K\), got \(2, 2\)"),
        ("shape", (2, 2, 2**31 + 1), ValueError, r"\(T, B, K\) of at least 0, K at most 2\^31, got .* 2147483649\)"),
        ("shape", (0, 2**63, 3), ValueError, r"T and B below 2\^63, got \(0, 9223372036854775808, 3\)"),
        ("shape", (2, 2, 3.0), TypeError, r"three integers \(T, B, K\), got \(2, 2, 3.0\)"),
        ("shape", 12, TypeError, r"three integers \(T, B, K\), got 12"),
        ("shape", meta(3), TypeError, r"three integers \(T, B, K\), got .*"),
    ],
)
def test_an_invalid_argument_of_the_constructor_is_named(
    name: str, wrong: Any, error: type[Exception], message: str
) -> None:
    assert EventBatch(**VALID).num_events == 3
    with pytest.raises(error, match=f"^{name}: expected {message}$"):
        EventBatch(**{**VALID, name: wrong})


DENSE, WITH_NAN = random_dense(SHAPE), random_dense(SHAPE)
WITH_NAN[1, 2, 3] = math.nan


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((DENSE.to(torch.float16),), TypeError, "x: expected dtype bool, float32 or float64, got torch.float16"),
        ((DENSE.to(torch.complex64),), TypeError, "x: expected dtype bool, float32 or float64, got torch.complex64"),
        ((DENSE.tolist(),), TypeError, "x: expected a tensor, a NumPy array or one with __dlpack__, got list"),
        ((DENSE[:, :, 0],), ValueError, r"x: expected shape \(T, B, K\), got \(4, 3\)"),
        ((DENSE, torch.tensor([4, 5, 4])), ValueError, r"lengths: expected values in \[0, 4\], got 5 for sample 1"),
        ((WITH_NAN,), ValueError, r"x: expected numbers, got nan at \(1, 2, 3\)"),
        ((meta(3, 2, 4, dtype=torch.float32),), ValueError, "x: expected .* got "),
    ],
)
def test_an_invalid_argument_of_from_dense_is_named(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        EventBatch.from_dense(*arguments)


@refusals(
    Refusal("times", lambda: EventBatch.from_events(meta(2), [0, 0], inputs=1, bin_width=1)),
    Refusal("indices", lambda: EventBatch.from_events([0, 0], meta(2), inputs=1, bin_width=1)),
    Refusal("samples", lambda: EventBatch(**VALID)[meta(2)]),
    Refusal("steps", lambda: EventBatch(**VALID).truncate(meta()), TypeError),  # type: ignore[arg-type]
)
def test_tensors_on_meta_have_no_values_to_read(refusal: Refusal) -> None:
    refusal.check()


def expected_error(
    offsets: list[int], indices: list[int], values: list[float] | None, lengths: list[int] | None, shape: list[int]
) -> str | None:
    """The error that the constructor must raise for these parts, defined in plain Python; None if they are valid."""
    steps, batch, inputs = shape
    rows, events = batch * steps, len(indices)
    if min(shape) < 0 or inputs > 2**31:
        return f"shape: expected (T, B, K) of at least 0, K at most 2^31, got {tuple(shape)}"
    if len(offsets) != rows + 1:
        return f"offsets: expected shape (B*T + 1,) = ({rows + 1},), got ({len(offsets)},)"
    if values is not None and len(values) != events:
        return f"values: expected shape (events,) = ({events},), got ({len(values)},)"
    if lengths is not None and len(lengths) != batch:
        return f"lengths: expected shape (B,) = ({batch},), got ({len(lengths)},)"
    for b, length in enumerate(lengths or []):
        if not 0 <= length <= steps:
            return f"lengths: expected values in [0, {steps}], got {length} for sample {b}"
    if offsets[0] != 0:
        return f"offsets: expected the first to be 0, got {offsets[0]}"
    for row, (before, after) in enumerate(itertools.pairwise(offsets)):
        if after < before:
            return f"offsets: expected ascending values, got {before} and then {after} at position {row + 1}"
    if offsets[-1] != events:
        return f"offsets: expected the last to be {events}, the number of indices, got {offsets[-1]}"
    for k, index in enumerate(indices):
        if not 0 <= index < inputs:
            return f"indices: expected values in [0, {inputs}), got {index} at position {k}"
    for k, value in enumerate(values or []):
        if math.isnan(value):
            return f"values: expected numbers, got nan at position {k}"
    for b, length in enumerate(lengths or []):
        if offsets[b * steps + length] < offsets[(b + 1) * steps]:
            return f"lengths: expected no events past a sample's length, got some past length {length} of sample {b}"
    return None


EXTREMES = [-(2**63), -(2**62), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1]


@st.composite
def corrupt_parts(draw: st.DrawFn) -> dict[str, Any]:
    """The parts of a valid batch as lists, with up to two random changes."""
    steps, batch = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    inputs = draw(st.sampled_from([1, 2, 5, 2**31]))
    lengths = [draw(st.integers(0, steps)) for _ in range(batch)]
    counts = [draw(st.integers(0, 3)) if t < length else 0 for length in lengths for t in range(steps)]
    events = sum(counts)
    parts: dict[str, Any] = {
        "offsets": [sum(counts[:row]) for row in range(len(counts) + 1)],
        "indices": [draw(st.integers(0, inputs - 1)) for _ in range(events)],
        "values": draw(st.none() | st.just([0.5] * events)),
        "lengths": draw(st.none() | st.just(lengths)),
        "shape": [steps, batch, inputs],
    }
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([name for name, part in parts.items() if part]))
        part = parts[name]
        if name != "shape" and draw(st.integers(0, 4)) == 0:
            parts[name] = draw(st.sampled_from([part[:-1], [*part, part[-1]]]))
            continue
        wrong = {
            "offsets": st.sampled_from(EXTREMES) | st.integers(-2, 12),
            "indices": st.sampled_from([x for x in EXTREMES if -(2**31) <= x < 2**31]) | st.integers(-2, 12),
            "values": st.floats(width=32),
            "lengths": st.sampled_from(EXTREMES) | st.integers(-2, 4),
            "shape": st.integers(-1, 4),
        }[name]
        part[draw(st.integers(0, len(part) - 1))] = draw(wrong)
    return parts


def unpickle(**parts: Any) -> EventBatch:
    """A batch unpickled from a state of these parts."""
    batch = EventBatch(**VALID)
    for name, part in parts.items():
        setattr(batch, name, part)
    loaded: EventBatch = pickle.loads(pickle.dumps(batch))
    return loaded


@pytest.mark.parametrize(
    ("make", "search"),
    [(EventBatch, find_fault), (EventBatch, find_fault_with_torch), (unpickle, find_fault)],
    ids=["compiled", "torch", "unpickled"],
)
@settings(deadline=None, max_examples=400)
@given(corrupt_parts(), st.sampled_from([torch.float32, torch.float64]))
@example({"offsets": [0, 1], "indices": [0], "values": None, "lengths": None, "shape": [1, 1, 0]}, torch.float32)
def test_any_corrupt_batch_is_refused_by_name(
    make: Callable[..., EventBatch], search: Callable[..., Any], parts: dict[str, Any], dtype: torch.dtype
) -> None:
    message = expected_error(**parts)
    arguments: dict[str, Any] = {"shape": parts["shape"]}
    dtypes = {"offsets": torch.int64, "indices": torch.int32, "values": dtype, "lengths": torch.int64}
    for name, wanted in dtypes.items():
        arguments[name] = None if parts[name] is None else torch.tensor(parts[name], dtype=wanted)
    with mock.patch("srcell.events.batch.find_fault", search):
        if message is None:
            assert make(**arguments).num_events == len(parts["indices"])
            return
        with pytest.raises(ValueError) as error:
            make(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["offsets", "indices", "values"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_fault_of_many_events_is_found(threads: int, name: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(threads)
    events, rows = 200_003, 70_001
    parts = {
        "offsets": torch.cat([torch.arange(rows) * 2, torch.tensor([events])]),
        "indices": (torch.arange(events) % 784).int(),
        "values": torch.linspace(-1, 1, events, dtype=dtype),
    }
    last = {"offsets": rows, "indices": events - 1, "values": events - 1}[name]
    wrong = {"offsets": -1, "indices": 784, "values": math.nan}[name]
    EventBatch(**parts, shape=(rows, 1, 784))
    for first in (1, 2, 17, 32_767, 32_768, last // 2, last - 1):
        broken = parts[name].clone()
        broken[[first, last]] = wrong
        with pytest.raises(ValueError, match=rf"^{name}: expected .* at position {first}$"):
            EventBatch(**{**parts, name: broken}, shape=(rows, 1, 784))


def test_every_nan_is_found_and_nothing_else() -> None:
    quiet, signalling = [0x7FC00000, -0x00400000, -1], [0x7F800001, -0x007FFFFF]
    numbers = [0x7F800000, -0x00800000, 0x7F7FFFFF, 1, -0x7FFFFFFF, 0, -0x80000000]
    for bits in quiet + signalling + numbers:
        values = torch.ones(9)
        values.view(torch.int32)[7] = bits
        assert bool(values.isnan().any()) == (bits not in numbers)
        refused = pytest.raises(ValueError, match=r"^values: expected numbers, got nan at position 7$")
        for same in (values, values.double()):
            with contextlib.nullcontext() if bits in numbers else refused:
                EventBatch(torch.tensor([0, 9]), torch.zeros(9, dtype=torch.int32), same, shape=(1, 1, 1))


def test_more_than_two_to_the_31_events_are_counted_right() -> None:
    events = 2**31 + 5
    try:
        indices = np.zeros(events, np.int32)  # pages that are only read share the zero page: no memory is used
    except MemoryError:
        pytest.skip("the system does not promise 8 GiB")
    offsets = torch.tensor([0, 2**31 + 1, events])
    batch = EventBatch(offsets, indices, shape=(2, 1, 1))
    assert (batch.num_events, batch.nbytes) == (events, 4 * events + 24)
    with pytest.raises(ValueError, match=f"^offsets: expected the last to be {events}, .* got {events + 2**32}$"):
        EventBatch(torch.tensor([0, 0, events + 2**32]), indices, shape=(2, 1, 1))
    indices[-1] = -1
    with pytest.raises(ValueError, match=rf"^indices: expected values in \[0, 1\), got -1 at position {events - 1}$"):
        EventBatch(offsets, indices, shape=(2, 1, 1))


def test_the_operator_keeps_its_contiguous_copies_alive() -> None:
    """Regression: the kernel got the addresses of contiguous copies that had been freed."""
    n = 40_000
    offsets, indices = torch.zeros(n + 1, 2, dtype=torch.int64), torch.zeros(n, 2, dtype=torch.int32)
    offsets[:, 0], indices[:, 0] = torch.arange(n + 1), 2
    for _ in range(5):
        found = torch.ops.srcell.find_event_fault(offsets[:, 0], indices[:, 0], None, None, steps=n, batch=1, inputs=3)
        assert found.tolist() == [-1, 0]


def test_a_dense_input_of_no_elements_may_have_any_dimensions() -> None:
    events = EventBatch.from_dense(torch.empty(2**62, 0, 5))  # whose shape NumPy refuses
    assert events.shape == (2**62, 0, 5) and events.num_events == 0
    assert events.to_dense().shape == (2**62, 0, 5)
