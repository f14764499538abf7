"""EventBatch: what it holds, that it agrees with the dense tensor in everything, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from srcell import EventBatch
from srcell.data import collate
from srcell.events import _find_fault, find_event_fault

SHAPE = (4, 3, 5)


def random_dense(
    shape: tuple[int, int, int], seed: int = 0, *, ones: bool = True, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(shape, generator=generator) < 0.4
    return fires.to(dtype) if ones else fires * torch.randn(shape, generator=generator, dtype=dtype)


def mask(x: Tensor, lengths: Tensor) -> Tensor:
    """The dense tensor without what stands past a sample's length."""
    return torch.where((torch.arange(x.shape[0])[:, None] < lengths)[:, :, None], x, 0)


@st.composite
def dense_tensors(draw: st.DrawFn) -> tuple[Tensor, Tensor | None]:
    """A dense tensor, any of its sizes perhaps 0, and perhaps lengths of its samples."""
    steps, batch, inputs = (draw(st.integers(0, 5)) for _ in range(3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = random_dense((steps, batch, inputs), draw(st.integers(0, 999)), ones=draw(st.booleans()), dtype=dtype)
    if draw(st.booleans()):
        return x, None
    return x, torch.tensor([draw(st.integers(0, steps)) for _ in range(batch)], dtype=torch.int64)


def assert_valid(batch: EventBatch) -> None:
    """The constructor accepts what methods return without a check, and keeps all of it."""
    again = EventBatch(batch.offsets, batch.indices, batch.values, shape=batch.shape, lengths=batch.lengths)
    assert_same(again, batch)


def assert_same(a: EventBatch, b: EventBatch) -> None:
    assert a == b
    assert a.shape == b.shape
    for x, y in ((a.offsets, b.offsets), (a.indices, b.indices), (a.values, b.values), (a.lengths, b.lengths)):
        assert (x is None) == (y is None)
        assert x is None or y is None or (x.dtype == y.dtype and torch.equal(x, y))


@settings(deadline=None)
@given(dense_tensors())
def test_dense_to_events_and_back_is_exact(drawn: tuple[Tensor, Tensor | None]) -> None:
    x, lengths = drawn
    batch = EventBatch.from_dense(x, lengths)
    assert_valid(batch)
    expected = x if lengths is None else mask(x, lengths)
    dense = batch.to_dense(x.dtype)
    assert dense.dtype == x.dtype and dense.is_contiguous()
    assert torch.equal(dense, expected)
    assert batch.shape == tuple(x.shape) and len(batch) == x.shape[1]
    assert batch.num_events == expected.count_nonzero()
    assert batch.density == batch.num_events / max(x.numel(), 1)
    assert (batch.values is None) == bool((expected[expected != 0] == 1).all())


def test_rows_are_sample_major_and_ascend() -> None:
    x = torch.zeros(2, 3, 4)
    x[0, 1, 3] = x[0, 1, 0] = x[1, 0, 2] = 1
    batch = EventBatch.from_dense(x)
    assert batch.offsets.tolist() == [0, 0, 1, 3, 3, 3, 3]
    assert batch.indices.tolist() == [2, 0, 3]
    assert batch.values is None and batch.lengths is None
    assert (batch.offsets.dtype, batch.indices.dtype) == (torch.int64, torch.int32)


def test_bools_and_arrays_are_dense_tensors_too() -> None:
    x = random_dense(SHAPE)
    expected = EventBatch.from_dense(x)
    for same in (x.bool(), x.numpy(), x.numpy().astype(">f4"), x.numpy()[::-1].copy()[::-1], x.double()):
        assert_same(EventBatch.from_dense(same), expected)
    assert_same(EventBatch.from_dense(x.transpose(0, 2).contiguous().transpose(0, 2)), expected)


def test_from_dense_ignores_what_stands_past_a_sample() -> None:
    x = torch.full((3, 2, 2), math.nan)
    x[:2, 0] = x[:1, 1] = 1
    batch = EventBatch.from_dense(x, lengths=np.array([2, 1]))
    assert batch.num_events == 6
    assert batch.lengths is not None and batch.lengths.tolist() == [2, 1]


def test_events_of_one_input_in_one_row_add_up() -> None:
    offsets = torch.tensor([0, 3, 4])
    indices = torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    assert EventBatch(offsets, indices, shape=(2, 1, 2)).to_dense()[:, 0].tolist() == [[1, 2], [0, 1]]
    batch = EventBatch(offsets, indices, torch.tensor([0.5, 2.0, 0.25, -1.0]), shape=(2, 1, 2))
    assert batch.to_dense()[:, 0].tolist() == [[2, 0.75], [0, -1]]


def test_gradients_flow_to_the_values() -> None:
    indices = torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    values = torch.tensor([0.5, 2.0, 0.25, -1.0], requires_grad=True)
    batch = EventBatch(torch.tensor([0, 3, 4]), indices, values, shape=(2, 1, 2))
    weight = torch.tensor([[[3.0, 5.0]], [[7.0, 11.0]]])
    (gradient,) = torch.autograd.grad((batch.to_dense() * weight).sum(), values)
    assert gradient.tolist() == [5, 3, 5, 11]


def test_gradients_flow_through_from_dense_also_where_all_values_are_one() -> None:
    x = random_dense(SHAPE).requires_grad_()
    batch = EventBatch.cat([EventBatch.from_dense(x)[1:], EventBatch.from_dense(x)[[0]]])
    (gradient,) = torch.autograd.grad(batch.to_dense().sum(), x)
    assert torch.equal(gradient, x.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dense_tensor_has_the_dtype_asked_for(dtype: torch.dtype) -> None:
    x = random_dense(SHAPE)
    assert torch.equal(EventBatch.from_dense(x).to_dense(dtype), x.to(dtype))
    assert torch.equal(EventBatch.from_dense(2 * x).to_dense(dtype), 2 * x.to(dtype))


@settings(deadline=None)
@given(dense_tensors(), st.data())
def test_slices_are_those_of_the_dense_tensor(drawn: tuple[Tensor, Tensor | None], data: st.DataObject) -> None:
    x, lengths = drawn
    batch, samples = EventBatch.from_dense(x, lengths), x.shape[1]
    expected = x if lengths is None else mask(x, lengths)
    chosen = data.draw(st.slices(samples))
    positions = list(range(samples))[chosen]
    part = batch[chosen]
    assert_valid(part)
    assert torch.equal(part.to_dense(x.dtype), expected[:, positions])
    assert (part.lengths is None) == (lengths is None)
    assert lengths is None or torch.equal(part.lengths, lengths[positions])


@settings(deadline=None)
@given(dense_tensors(), st.data())
def test_selected_samples_are_those_of_the_dense_tensor(
    drawn: tuple[Tensor, Tensor | None], data: st.DataObject
) -> None:
    x, lengths = drawn
    batch, samples = EventBatch.from_dense(x, lengths), x.shape[1]
    expected = x if lengths is None else mask(x, lengths)
    positions = data.draw(st.lists(st.integers(-samples, samples - 1))) if samples else []
    for number in (positions, tuple(positions), torch.tensor(positions, dtype=torch.int32), np.array(positions, int)):
        part = batch[number]
        assert_valid(part)
        assert torch.equal(part.to_dense(x.dtype), expected[:, positions])
        assert lengths is None or torch.equal(part.lengths, lengths[positions])


@pytest.mark.parametrize("convert", [int, np.int64, torch.tensor])
@pytest.mark.parametrize("sample", [0, 2, -1, -3])
def test_one_sample_is_a_batch_of_one(sample: int, convert: Callable[[int], Any]) -> None:
    x = random_dense(SHAPE, ones=False)
    one = EventBatch.from_dense(x)[convert(sample)]
    assert_valid(one)
    assert len(one) == 1
    assert torch.equal(one.to_dense()[:, 0], x[:, sample])


def test_iteration_gives_each_sample_once_and_ends() -> None:
    x = random_dense(SHAPE)
    samples = list(EventBatch.from_dense(x))
    assert len(samples) == 3
    assert all(torch.equal(one.to_dense()[:, 0], x[:, b]) for b, one in enumerate(samples))
    assert list(EventBatch.from_dense(x[:, :0])) == []


@pytest.mark.parametrize("outside", [3, -4, 2**70, [0, 3], [-4], torch.tensor([5])])
def test_samples_outside_are_an_index_error(outside: Any) -> None:
    with pytest.raises(IndexError, match=r"^samples: expected .* in \[-3, 3\), got "):
        EventBatch.from_dense(random_dense(SHAPE))[outside]


@pytest.mark.parametrize(
    "wrong", ["a", "12", 1.0, None, [0.0], [True, False, True], torch.tensor([0.5]), ["a"], [2**70], [[0], [0, 1]]]
)
def test_samples_of_the_wrong_type_are_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^samples: expected .*, got "):
        EventBatch.from_dense(random_dense(SHAPE))[wrong]


def test_samples_have_one_dimension() -> None:
    with pytest.raises(ValueError, match=r"^samples: expected one dimension, got shape \(1, 2\)"):
        EventBatch.from_dense(random_dense(SHAPE))[torch.tensor([[0, 1]])]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=4), st.integers(0, 3))
def test_cat_is_that_of_the_dense_tensors(parts: list[tuple[int, bool, bool]], steps: int) -> None:
    dense, batches, lengths = [], [], []
    for seed, (samples, ones, with_lengths) in enumerate(parts):
        x = random_dense((steps, samples, 4), seed, ones=ones)
        length = torch.full((samples,), steps - 1 if with_lengths and steps else steps)
        dense.append(mask(x, length))
        lengths.append(length)
        batches.append(EventBatch.from_dense(x, length if with_lengths else None))
    whole = EventBatch.cat(batches)
    assert_valid(whole)
    assert torch.equal(whole.to_dense(), torch.cat(dense, 1))
    assert (whole.values is None) == all(batch.values is None for batch in batches)
    if any(with_lengths for _, _, with_lengths in parts):
        assert whole.lengths is not None and torch.equal(whole.lengths, torch.cat(lengths))
    else:
        assert whole.lengths is None


def test_cat_of_the_samples_is_the_batch() -> None:
    for ones in (True, False):
        x = random_dense(SHAPE, ones=ones)
        x[0, :, 0] = 1 if ones else 2
        batch = EventBatch.from_dense(x, torch.tensor([4, 1, 2]))
        assert_same(EventBatch.cat(iter(batch)), batch)


def test_cat_keeps_double_precision() -> None:
    single, double = random_dense(SHAPE, ones=False), random_dense(SHAPE, 1, ones=False, dtype=torch.float64)
    whole = EventBatch.cat([EventBatch.from_dense(x) for x in (single, double, single != 0)])
    assert whole.values is not None and whole.values.dtype == torch.float64
    assert torch.equal(whole.to_dense(torch.float64), torch.cat([single.double(), double, (single != 0).double()], 1))


def test_cat_refuses_what_does_not_fit() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE))
    with pytest.raises(ValueError, match=r"^batches: expected at least one batch, got none"):
        EventBatch.cat([])
    with pytest.raises(TypeError, match=r"^batches: expected EventBatches, got Tensor"):
        EventBatch.cat([batch, torch.ones(SHAPE)])  # type: ignore[list-item]
    for shape in ((5, 3, 5), (4, 3, 6)):
        with pytest.raises(ValueError, match=r"^batches: expected T = 4 and K = 5, .* got shape \(\d, 3, \d\) at 1"):
            EventBatch.cat([batch, EventBatch.from_dense(random_dense(shape))])
    with pytest.raises(ValueError, match=r"^batches: expected device cpu, .* got meta at 1"):
        EventBatch.cat([batch, batch.to("meta")])
    for shape in ((5, 3, 5), (4, 3, 6)):
        with pytest.raises(ValueError, match=r"^batches: expected T of at most 4 and K = 5, .* \(\d, 3, \d\) at 1"):
            EventBatch.cat([batch, EventBatch.from_dense(random_dense(shape))], steps=4)
    for wrong, error in ((-1, ValueError), (2**63, ValueError), (4.0, TypeError)):
        with pytest.raises(error, match=r"^steps: expected an int"):
            EventBatch.cat([batch], steps=wrong)


@settings(deadline=None)
@given(st.lists(dense_tensors(), min_size=1, max_size=4), st.integers(0, 2))
def test_batches_of_different_lengths_are_joined_without_events_in_between(
    drawn: list[tuple[Tensor, Tensor | None]], more: int
) -> None:
    batches = [EventBatch.from_dense(x[:, :, :1].float(), lengths) for x, lengths in drawn if x.shape[2]]
    batches.append(EventBatch.from_dense(random_dense((2, 1, 1))))
    steps = max(batch.shape[0] for batch in batches) + more
    whole = EventBatch.cat(batches, steps=steps)
    assert_valid(whole)
    assert whole.num_events == sum(batch.num_events for batch in batches)
    padded = [torch.cat([x := batch.to_dense(), x.new_zeros(steps - x.shape[0], *x.shape[1:])]) for batch in batches]
    assert torch.equal(whole.to_dense(), torch.cat(padded, 1))
    lengths = [batch._lengths_or_steps() for batch in batches]
    needed = any(batch.lengths is not None or batch.shape[0] < steps for batch in batches)
    assert (whole.lengths is not None) == needed
    assert whole.lengths is None or torch.equal(whole.lengths, torch.cat(lengths))


class Recordings(Dataset[tuple[EventBatch, int]]):
    """Ten samples of different lengths, one of them without a step; at the head of the module for spawned workers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> tuple[EventBatch, int]:
        steps = number * 7 % 5
        return EventBatch.from_dense(random_dense((steps, 1, 6), number, ones=number != 3)), number % 4


def test_collate_joins_samples_and_labels() -> None:
    recordings = Recordings()
    samples = [recordings[number] for number in range(len(recordings))]
    batch, labels = collate(samples)
    assert batch == EventBatch.cat([sample for sample, _ in samples], steps=4)
    assert batch.lengths is not None and batch.lengths.tolist() == [number * 7 % 5 for number in range(10)]
    assert torch.equal(labels, torch.arange(10) % 4)
    again, _ = collate([(sample[0], 0) for sample in [(one,) for one in batch]])
    assert again == batch


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches(method: str) -> None:
    EventBatch(torch.tensor([0, 200_000]), torch.zeros(200_000, dtype=torch.int32), shape=(1, 1, 1))  # on all threads
    options: dict[str, Any] = {"batch_size": 4, "collate_fn": collate}
    expected = list(DataLoader(Recordings(), **options))
    loader = DataLoader(Recordings(), **options, num_workers=2, multiprocessing_context=method, timeout=60)
    got = list(loader)
    assert [len(batch) for batch, _ in got] == [4, 4, 2]
    for (batch, labels), (expected_batch, expected_labels) in zip(got, expected, strict=True):
        assert_same(batch, expected_batch)
        assert_valid(batch)
        assert torch.equal(labels, expected_labels)


def test_collate_refuses_what_does_not_fit() -> None:
    one = EventBatch.from_dense(random_dense((4, 1, 5)))
    with pytest.raises(ValueError, match=r"^samples: expected at least one pair, got none"):
        collate([])
    for wrong in (one, (one,), (torch.ones(3), 1)):
        with pytest.raises(TypeError, match=r"^samples: expected pairs of an EventBatch and a label, got \w+ at 1"):
            collate([(one, 1), wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^samples: expected batches of one sample, got one of 3 at 1"):
        collate([(one, 1), (EventBatch.from_dense(random_dense(SHAPE)), 1)])
    with pytest.raises(ValueError, match=r"^batches: expected T of at most 4 and K = 5"):
        collate([(one, 1), (EventBatch.from_dense(random_dense((4, 1, 6))), 1)])


@settings(deadline=None)
@given(dense_tensors())
def test_sparse_csr_and_back_is_exact(drawn: tuple[Tensor, Tensor | None]) -> None:
    x, lengths = drawn
    batch = EventBatch.from_dense(x, lengths)
    csr = batch.to_sparse_csr(x.dtype)
    assert csr.layout == torch.sparse_csr and csr.dtype == x.dtype
    expected = x if lengths is None else mask(x, lengths)
    assert torch.equal(csr.to_dense(), expected.transpose(0, 1).flatten(0, 1))
    assert_same(EventBatch.from_sparse_csr(csr, shape=batch.shape, lengths=lengths), batch)


def test_sparse_csr_has_each_cell_once_and_rows_ascend() -> None:
    indices = torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    values = torch.tensor([0.5, 2.0, 0.25, -1.0], requires_grad=True)
    csr = EventBatch(torch.tensor([0, 3, 4]), indices, values, shape=(2, 1, 2)).to_sparse_csr()
    assert csr.crow_indices().tolist() == [0, 2, 3]
    assert csr.col_indices().tolist() == [0, 1, 1]
    assert csr.values().tolist() == [2, 0.75, -1]
    (gradient,) = torch.autograd.grad((csr.to_dense() * torch.tensor([[3.0, 5.0], [7.0, 11.0]])).sum(), values)
    assert gradient.tolist() == [5, 3, 5, 11]


def test_gradients_flow_through_from_sparse_csr() -> None:
    csr = EventBatch.from_dense(random_dense(SHAPE)).to_sparse_csr().requires_grad_()
    batch = EventBatch.from_sparse_csr(csr, shape=SHAPE)
    assert batch.values is not None
    (gradient,) = torch.autograd.grad(batch.to_dense().sum(), batch.values)
    assert torch.equal(gradient, torch.ones(batch.num_events))


def test_from_sparse_csr_keeps_zeros_that_are_stored_and_takes_int32() -> None:
    parts = (torch.tensor([0, 1, 2]).int(), torch.tensor([1, 0]).int(), torch.tensor([0.0, 1.0]))
    batch = EventBatch.from_sparse_csr(torch.sparse_csr_tensor(*parts, (2, 3), check_invariants=False), shape=(1, 2, 3))
    assert_valid(batch)
    assert batch.values is not None and batch.values.tolist() == [0, 1]
    assert batch.offsets.dtype == torch.int64


def make_csr(columns: list[int], values: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(
        torch.tensor([0, 2, 2]), torch.tensor(columns), values, (2, 3), check_invariants=False
    )


@pytest.mark.parametrize(
    ("csr", "error", "message"),
    [
        ([0, 1], TypeError, "csr: expected a tensor, got list"),
        (torch.ones(2, 3), ValueError, "csr: expected layout torch.sparse_csr, got torch.strided"),
        (make_csr([0, 1], torch.tensor([1, 2])), TypeError, "csr: expected dtype torch.float32 or .* got torch.int64"),
        (make_csr([0, 2**32 + 1], torch.ones(2)), ValueError, "csr: expected a valid CSR tensor, got one for which .*"),
        (make_csr([1, 0], torch.ones(2)), ValueError, "csr: expected a valid CSR tensor, got one for which .*"),
        (make_csr([0, 1], torch.tensor([1, math.nan])), ValueError, "values: expected numbers, got nan at position 1"),
    ],
)
def test_a_corrupt_csr_tensor_is_refused(csr: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s)^{message}"):
        EventBatch.from_sparse_csr(csr, shape=(1, 2, 3))


def test_a_csr_tensor_has_the_shape_said() -> None:
    csr = make_csr([0, 1], torch.ones(2))
    with pytest.raises(ValueError, match=r"^csr: expected shape \(B\*T, K\) = \(4, 3\), got \(2, 3\)"):
        EventBatch.from_sparse_csr(csr, shape=(2, 2, 3))
    with pytest.raises(ValueError, match=r"^lengths: expected no events past a sample's length, .* the 0 of sample 0"):
        EventBatch.from_sparse_csr(csr, shape=(1, 2, 3), lengths=torch.tensor([0, 1]))


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
def test_a_recording_becomes_what_it_says(
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


def test_recordings_come_in_the_dtypes_of_their_files() -> None:
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


def test_times_in_a_list_keep_their_precision() -> None:
    batch = EventBatch.from_events([1.0, 1 + 2**-40], [0, 0], inputs=1, bin_width=1 + 2**-40)
    assert batch.offsets.tolist() == [0, 1, 2]


def test_integer_times_are_binned_exactly() -> None:
    time = 10**18 + 999
    late = EventBatch.from_events([time, time + 1], [0, 1], inputs=2, bin_width=10**15)
    assert late.shape == (1001, 1, 2)
    assert late.offsets[-2:].tolist() == [0, 2]
    edge = EventBatch.from_events([2**60 - 1, 2**60], [0, 1], inputs=2, bin_width=np.int64(2**55))
    assert edge.offsets[-3:].tolist() == [0, 1, 2]


def test_a_recording_without_events_is_silent() -> None:
    for times in ([], np.array([], np.int32), torch.tensor([])):
        batch = EventBatch.from_events(times, [], inputs=5, bin_width=1, prefix=2)
        assert_valid(batch)
        assert (batch.shape, batch.num_events) == ((2, 1, 5), 0)
    for inputs, steps in ((0, 3), (5, 0), (0, 0)):
        batch = EventBatch.from_events([], [], inputs=inputs, bin_width=1, steps=steps)
        assert_valid(batch)
        assert batch.shape == (steps, 1, inputs)


# A valid recording, of which each wrong call changes one argument.
RECORDING: dict[str, Any] = {
    "times": [5, 1005, 1005],
    "x": [0, 3, 1],
    "y": [1, 0, 1],
    "polarity": [0, 1, 1],
    "bin_width": 1000,
    "sensor_size": (2, 4),
}


@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("times", [5, 1005, 1004], ValueError, "no descent, got 1005 and then 1004 at position 2"),
        ("times", [-1, 0, 5], ValueError, "finite numbers of at least 0, got -1 at position 0"),
        ("times", [0.0, 1.0, math.nan], ValueError, "finite numbers of at least 0, got nan at position 2"),
        ("times", [0.0, 1.0, math.inf], ValueError, "finite numbers of at least 0, got inf at position 2"),
        ("times", [[0, 1, 2]], ValueError, r"one dimension, got shape \(1, 3\)"),
        ("times", [True, True, True], TypeError, "real numbers, got torch.bool"),
        ("times", [1j, 1j, 1j], TypeError, "real numbers, got torch.complex64"),
        ("times", ["a", "b", "c"], TypeError, "numbers, .*, got list: "),
        ("times", [0, 1, 2**70], TypeError, "numbers, .*, got list: "),
        ("times", None, TypeError, "numbers, .*, got NoneType: "),
        ("times", torch.tensor([0.0, 1.0, 2.0]).to_sparse(), ValueError, "a dense tensor, got torch.sparse_coo"),
        ("x", [0, 4, 1], ValueError, r"values in \[0, 4\), got 4 at position 1"),
        ("x", [0, -1, 1], ValueError, r"values in \[0, 4\), got -1 at position 1"),
        ("x", [0, 1], ValueError, r"shape \(events,\) = \(3,\), as times has, got \(2,\)"),
        ("x", [0.0, 1.0, 1.0], TypeError, "integers, got torch.float64"),
        ("x", [True, False, True], TypeError, "integers, got torch.bool"),
        ("y", [1, 2, 0], ValueError, r"values in \[0, 2\), got 2 at position 1"),
        ("y", [2**62, 2, 0], ValueError, r"values in \[0, 2\), got 4611686018427387904 at position 0"),
        ("polarity", [0, 1, -1], ValueError, r"values in \[0, 2\), got -1 at position 2"),
        ("polarity", [0.0, 1.0, 1.0], TypeError, "integers, got torch.float64"),
        ("bin_width", 0, ValueError, r"a number above 0 and below 2\^63, got 0"),
        ("bin_width", math.nan, ValueError, r"a number above 0 and below 2\^63, got nan"),
        ("bin_width", math.inf, ValueError, r"a number above 0 and below 2\^63, got inf"),
        ("bin_width", 2**63, ValueError, r"a number above 0 and below 2\^63, got 9223372036854775808"),
        ("bin_width", "1", TypeError, "a number, got str"),
        ("bin_width", 1e-300, ValueError, r"at most 2\^31 - 1 steps, got 1e-300 for times up to 1005"),
        ("sensor_size", (2, 4, 2), ValueError, r"two integers \(height, width\), got \(2, 4, 2\)"),
        ("sensor_size", (2.0, 4), TypeError, r"two integers \(height, width\), got \(2.0, 4\)"),
        ("sensor_size", 8, TypeError, r"two integers \(height, width\), got 8"),
        ("sensor_size", (-2, -4), ValueError, r"\(height, width\) of at least 0, 2\^30 pixels at most, got \(-2, -4\)"),
        ("sensor_size", (2**16, 2**15), ValueError, r"\(height, width\) of .* pixels at most, got \(65536, 32768\)"),
        ("steps", -1, ValueError, r"an int in \[0, 2147483647\], got -1"),
        ("steps", 1.0, TypeError, "an int, got float"),
        ("prefix", -1, ValueError, r"an int in \[0, 2147483647\], got -1"),
        ("count", "twice", ValueError, "one of once, all, got 'twice'"),
    ],
)
def test_a_wrong_recording_is_refused(name: str, wrong: Any, error: type[Exception], message: str) -> None:
    EventBatch.from_events(**RECORDING)
    with pytest.raises(error, match=f"^{name}: expected {message}"):
        EventBatch.from_events(**{**RECORDING, name: wrong})


def test_time_in_too_small_bins_is_refused_before_anything_is_allocated() -> None:
    for times in ([2**62], [2.0**1000]):
        with pytest.raises(ValueError, match=r"^bin_width: expected at most 2\^31 - 1 steps, got 1 for times up to "):
            EventBatch.from_events(times, [0], inputs=1, bin_width=1)
    assert EventBatch.from_events([0, 2**62], [0, 0], inputs=1, bin_width=1, steps=3).num_events == 1


@pytest.mark.parametrize(
    ("changed", "got"),
    [
        ({"indices": [0, 1, 2]}, "indices, x, y, polarity, sensor_size"),
        ({"x": None, "y": None, "polarity": None, "sensor_size": None}, "none of them"),
        ({"y": None}, "x, polarity, sensor_size"),
        ({"sensor_size": None}, "x, y, polarity"),
        ({"inputs": 16}, "inputs, x, y, polarity, sensor_size"),
    ],
)
def test_inputs_are_given_in_one_way(changed: dict[str, Any], got: str) -> None:
    with pytest.raises(TypeError, match=f"^indices: expected either indices and inputs, or x, y .*, got {got}$"):
        EventBatch.from_events(**{**RECORDING, **changed})


def test_arrays_make_the_same_batch_as_tensors() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    tensors = (batch.offsets, batch.indices, batch.values, batch.lengths)
    offsets, indices, values, lengths = (x.numpy() for x in tensors if x is not None)
    offsets.flags.writeable = False
    assert_same(EventBatch(offsets, indices, values, shape=list(SHAPE), lengths=lengths), batch)
    swapped = EventBatch(
        offsets.astype(">i8"), indices[::-1].copy()[::-1], values, shape=np.array(SHAPE), lengths=lengths
    )
    assert_same(swapped, batch)


def test_strided_tensors_become_contiguous() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE))
    spread = torch.stack([batch.indices, batch.indices], 1)[:, 0]
    again = EventBatch(batch.offsets, spread, torch.ones(1).expand(batch.num_events), shape=SHAPE)
    assert again.indices.is_contiguous() and again.values is not None and again.values.is_contiguous()
    assert torch.equal(again.to_dense(), batch.to_dense())


def test_arrays_off_their_alignment_are_copied() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    moved: list[Any] = []
    for x in batch._tensors():
        assert x is not None
        memory = bytearray(1) + x.numpy().tobytes()
        moved.append(torch.frombuffer(memory, dtype=x.dtype, offset=1))
        assert moved[-1].data_ptr() % 4
    again = EventBatch(moved[0], moved[1], moved[2], shape=SHAPE, lengths=moved[3])
    assert_same(again, batch)
    assert not any(x.data_ptr() % x.element_size() for x in again._tensors() if x is not None)
    assert_same(EventBatch(moved[0].numpy(), moved[1], moved[2].numpy(), shape=SHAPE, lengths=moved[3]), batch)


def test_infinite_values_are_values() -> None:
    x = torch.tensor([[[math.inf, 0.0, -math.inf]]])
    assert torch.equal(EventBatch.from_dense(x).to_dense(), x)


def test_sizes_are_those_of_the_tensors() -> None:
    x = torch.zeros(2, 3, 4)
    x[1, :, 2] = 0.5
    batch = EventBatch.from_dense(x, torch.tensor([2, 2, 2]))
    assert batch.nbytes == 7 * 8 + 3 * 4 + 3 * 4 + 3 * 8
    assert batch[:0].nbytes == 8
    assert batch.density == 3 / 24
    assert EventBatch.from_dense(x[:0]).density == 0
    assert repr(batch) == (
        "EventBatch(shape=(2, 3, 4), num_events=3, values=torch.float32, lengths=torch.int64, device=cpu)"
    )


def test_copies_and_worker_processes_get_the_same_batch() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    assert_same(pickle.loads(pickle.dumps(batch)), batch)
    assert_same(copy.deepcopy(batch), batch)
    assert copy.deepcopy(batch.to("meta")).shape == SHAPE


def test_an_attribute_of_the_users_is_pickled_along() -> None:
    batch = EventBatch(**VALID)
    batch.name = "recording 7"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(batch))
    assert_same(again, batch)
    assert again.name == "recording 7"


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 0])])
def test_torch_load_trusts_a_batch(lengths: Tensor | None, tmp_path: Path) -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=lengths is None), lengths)
    torch.save({"input": batch}, tmp_path / "batch.pt")
    assert_same(torch.load(tmp_path / "batch.pt", weights_only=True)["input"], batch)


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 0])])
def test_a_batch_is_a_tree_of_its_tensors(lengths: Tensor | None) -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=lengths is None), lengths)
    leaves, spec = pytree.tree_flatten({"x": batch})
    assert len(leaves) == (2 if lengths is None else 4)
    assert pytree.tree_unflatten(leaves, spec)["x"] == batch
    assert pytree.tree_map(lambda x: x.to("meta"), batch).device.type == "meta"
    spec_again = pytree.treespec_loads(pytree.treespec_dumps(spec))
    assert spec_again == spec
    assert pytree.tree_unflatten(leaves, spec_again)["x"] == batch
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(batch)[0]]
    assert paths[:2] == [".offsets", ".indices"]


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("offsets", torch.tensor([0, 1, 0, 3, 3]), ValueError),
        ("indices", torch.tensor([2, 0, 3], dtype=torch.int32), ValueError),
        ("values", [1.0, 2.0, 3.0], TypeError),
        ("shape", (2, 2), ValueError),
        ("lengths", torch.tensor([1, 3]), ValueError),
    ],
)
def test_a_corrupt_pickle_is_refused(name: str, wrong: Any, error: type[Exception]) -> None:
    batch = EventBatch(**VALID)
    setattr(batch, name, wrong)
    with pytest.raises(error, match=f"^{name}: expected"):
        pickle.loads(pickle.dumps(batch))


def test_batches_are_equal_if_all_that_they_hold_is() -> None:
    batch = EventBatch(**VALID)
    assert batch == EventBatch(**{name: x.clone() if isinstance(x, Tensor) else x for name, x in VALID.items()})
    others = {
        "offsets": torch.tensor([0, 1, 1, 2, 3]),
        "indices": torch.tensor([2, 1, 0], dtype=torch.int32),
        "values": torch.tensor([1.0, 2.0, 4.0]),
        "shape": (2, 2, 4),
        "lengths": torch.tensor([2, 2]),
    }
    for name, other in others.items():
        assert batch != EventBatch(**{**VALID, name: other}), name
    assert batch != EventBatch(**{**VALID, "values": VALID["values"].double()})
    assert batch != EventBatch(**{**VALID, "shape": (4, 1, 3), "lengths": torch.tensor([3])})
    assert batch != batch.to("meta")
    assert batch != "batch"


def test_what_means_the_same_is_not_equal() -> None:
    batch = EventBatch(**{**VALID, "values": None, "lengths": None})
    assert batch != EventBatch(**{**VALID, "values": torch.ones(3), "lengths": None})
    assert batch != EventBatch(**{**VALID, "values": None, "lengths": torch.tensor([2, 2])})
    assert batch != EventBatch(**{**VALID, "values": None, "lengths": None, "indices": VALID["indices"].flip(0)})
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)


def test_every_tensor_moves_to_the_device() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    assert_same(batch.to("cpu"), batch)
    assert batch.to("cpu").indices.data_ptr() == batch.indices.data_ptr()
    moved = batch.to("meta", non_blocking=True)
    assert moved.device == torch.device("meta") and moved.shape == SHAPE
    assert moved.values is not None and moved.lengths is not None
    assert {x.device.type for x in (moved.indices, moved.values, moved.lengths)} == {"meta"}


def test_every_tensor_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(x: Tensor) -> Tensor:
        pinned.append(x.data_ptr())
        return x.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 1]))
    assert_same(batch.pin_memory(), batch)
    assert len(set(pinned)) == 4


# A valid batch, of which each corrupt construction changes one argument: three events of two samples.
VALID: dict[str, Any] = {
    "offsets": torch.tensor([0, 1, 1, 3, 3]),
    "indices": torch.tensor([2, 0, 1], dtype=torch.int32),
    "values": torch.tensor([1.0, 2.0, 3.0]),
    "shape": (2, 2, 3),
    "lengths": torch.tensor([1, 2]),
}


def test_the_batch_to_be_corrupted_is_valid() -> None:
    assert EventBatch(**VALID).num_events == 3


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("offsets", torch.tensor([1, 1, 1, 3, 3]), "the first to be 0, got 1"),
        ("offsets", torch.tensor([0, 1, 0, 3, 3]), "ascending values, got 1 and then 0 at position 2"),
        ("offsets", torch.tensor([0, -1, 1, 3, 3]), "ascending values, got 0 and then -1 at position 1"),
        ("offsets", torch.tensor([0, 1, 1, 4, 3]), "ascending values, got 4 and then 3 at position 4"),
        ("offsets", torch.tensor([0, 1, 1, 2, 2]), "the last to be 3, the number of indices, got 2"),
        ("offsets", torch.tensor([0, 1, 1, 4, 4]), "the last to be 3, the number of indices, got 4"),
        ("offsets", torch.tensor([0, 1, 3, 3]), r"shape \(B\*T \+ 1,\) = \(5,\), got \(4,\)"),
        ("offsets", torch.tensor([], dtype=torch.int64), r"shape \(B\*T \+ 1,\) = \(5,\), got \(0,\)"),
        ("offsets", torch.tensor(0), r"shape \(B\*T \+ 1,\) = \(5,\), got \(\)"),
        ("offsets", torch.tensor([[0, 1, 1, 3, 3]]), r"shape \(B\*T \+ 1,\) = \(5,\), got \(1, 5\)"),
        ("offsets", torch.tensor([0, 1, 1, 3, 3]).to_sparse(), "a dense tensor, got torch.sparse_coo"),
        ("indices", torch.tensor([2, 0, 3], dtype=torch.int32), r"values in \[0, 3\), got 3 at position 2"),
        ("indices", torch.tensor([2, -1, 1], dtype=torch.int32), r"values in \[0, 3\), got -1 at position 1"),
        ("indices", torch.zeros(3, 1, dtype=torch.int32), r"shape \(events,\), got \(3, 1\)"),
        ("indices", torch.zeros(3, dtype=torch.int32, device="meta"), "device cpu, as offsets has, got meta"),
        ("values", torch.tensor([1.0, 2.0]), r"shape \(events,\) = \(3,\), got \(2,\)"),
        ("values", torch.ones(3, 1), r"shape \(events,\) = \(3,\), got \(3, 1\)"),
        ("values", torch.tensor([1.0, math.nan, 3.0]), "numbers, got nan at position 1"),
        ("values", torch.ones(3, device="meta"), "device cpu, as offsets has, got meta"),
        ("lengths", torch.tensor([1, 3]), r"values in \[0, 2\], got 3 for sample 1"),
        ("lengths", torch.tensor([-1, 2]), r"values in \[0, 2\], got -1 for sample 0"),
        ("lengths", torch.tensor([0, 2]), "no events past a sample's length, got some past the 0 of sample 0"),
        ("lengths", torch.tensor([1, 0]), "no events past a sample's length, got some past the 0 of sample 1"),
        ("lengths", torch.tensor([1, 2, 2]), r"shape \(B,\) = \(2,\), got \(3,\)"),
        ("lengths", torch.ones(2, dtype=torch.int64, device="meta"), "device cpu, as offsets has, got meta"),
        ("shape", (2, 2), r"three integers \(T, B, K\), got \(2, 2\)"),
        ("shape", (2, 2, 3, 1), r"three integers \(T, B, K\), got \(2, 2, 3, 1\)"),
        ("shape", (-2, -2, 3), r"\(T, B, K\) of at least 0, K at most 2\^31, got \(-2, -2, 3\)"),
        ("shape", (2, 2, 2**31 + 1), r"\(T, B, K\) of at least 0, K at most 2\^31, got \(2, 2, 2147483649\)"),
        ("shape", (0, 2**63, 3), r"T and B below 2\^63, got \(0, 9223372036854775808, 3\)"),
    ],
)
def test_a_corrupt_batch_is_refused(name: str, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected {message}$"):
        EventBatch(**{**VALID, name: wrong})


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("offsets", VALID["offsets"].int(), "dtype torch.int64, got torch.int32"),
        ("offsets", [0, 1, 1, 3, 3], "a tensor or a NumPy array, got list"),
        ("offsets", None, "a tensor or a NumPy array, got NoneType"),
        ("indices", VALID["indices"].long(), "dtype torch.int32, got torch.int64"),
        ("indices", np.array([2, 0, 1], object), "a dtype that torch has, got object"),
        ("values", VALID["values"].half(), "dtype torch.float32 or torch.float64, got torch.float16"),
        ("values", VALID["values"].int(), "dtype torch.float32 or torch.float64, got torch.int32"),
        ("values", 1.0, "a tensor or a NumPy array, got float"),
        ("lengths", VALID["lengths"].double(), "dtype torch.int64, got torch.float64"),
        ("lengths", [1, 2], "a tensor or a NumPy array, got list"),
        ("shape", (2, 2, 3.0), r"three integers \(T, B, K\), got \(2, 2, 3.0\)"),
        ("shape", 12, r"three integers \(T, B, K\), got 12"),
    ],
)
def test_a_wrong_type_is_refused(name: str, wrong: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected {message}$"):
        EventBatch(**{**VALID, name: wrong})


def test_without_inputs_there_are_no_events() -> None:
    with pytest.raises(ValueError, match=r"^indices: expected values in \[0, 0\), got 2"):
        EventBatch(**{**VALID, "shape": (2, 2, 0)})


def test_from_dense_refuses_what_has_no_events() -> None:
    x = random_dense(SHAPE)
    for dtype in (torch.int64, torch.float16, torch.complex64):
        with pytest.raises(TypeError, match=rf"^x: expected dtype bool, float32 or float64, got {dtype}$"):
            EventBatch.from_dense(x.to(dtype))
    with pytest.raises(TypeError, match=r"^x: expected a tensor or a NumPy array, got list"):
        EventBatch.from_dense(x.tolist())
    with pytest.raises(ValueError, match=r"^x: expected shape \(T, B, K\), got \(4, 3\)"):
        EventBatch.from_dense(x[:, :, 0])
    with pytest.raises(ValueError, match=r"^lengths: expected values in \[0, 4\], got 5 for sample 1"):
        EventBatch.from_dense(x, torch.tensor([4, 5, 4]))
    x[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match=r"^x: expected numbers, got nan at \(1, 2, 3\)"):
        EventBatch.from_dense(x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, "float32"])
def test_the_dense_tensor_is_one_of_floating_point_numbers(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"^dtype: expected a floating-point dtype, got "):
        EventBatch.from_dense(random_dense(SHAPE)).to_dense(dtype)


def expected_error(
    offsets: list[int], indices: list[int], values: list[float] | None, lengths: list[int] | None, shape: list[int]
) -> str | None:
    """What the constructor says of these parts: its definition, in plain Python."""
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
            return f"lengths: expected no events past a sample's length, got some past the {length} of sample {b}"
    return None


EXTREMES = [-(2**63), -(2**62), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1]


@st.composite
def corrupt_parts(draw: st.DrawFn) -> dict[str, Any]:
    """Lists that would make a valid batch, but for up to two changes to anything in them."""
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


@pytest.mark.parametrize("find_fault", [_find_fault, find_event_fault], ids=["compiled", "torch"])
@settings(deadline=None, max_examples=400)
@given(corrupt_parts(), st.sampled_from([torch.float32, torch.float64]))
def test_any_corrupt_batch_is_refused_by_name(
    find_fault: Callable[..., Any], parts: dict[str, Any], dtype: torch.dtype
) -> None:
    message = expected_error(**parts)
    arguments: dict[str, Tensor | None] = {}
    dtypes = {"offsets": torch.int64, "indices": torch.int32, "values": dtype, "lengths": torch.int64}
    for name, wanted in dtypes.items():
        arguments[name] = None if parts[name] is None else torch.tensor(parts[name], dtype=wanted)
    with mock.patch("srcell.events._find_fault", find_fault):
        if message is None:
            assert EventBatch(**arguments, shape=parts["shape"]).num_events == len(parts["indices"])
            return
        with pytest.raises(ValueError) as error:
            EventBatch(**arguments, shape=parts["shape"])
    assert str(error.value) == message


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["offsets", "indices", "values"])
def test_the_first_fault_of_many_events_is_found(name: str, dtype: torch.dtype, threads: int) -> None:
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
    for bits, is_number in [(bits, False) for bits in quiet + signalling] + [(bits, True) for bits in numbers]:
        values = torch.ones(9)
        values.view(torch.int32)[7] = bits
        assert bool(values.isnan().any()) != is_number
        for same in (values, values.double()):
            arguments = (torch.tensor([0, 9]), torch.zeros(9, dtype=torch.int32), same)
            if is_number:
                EventBatch(*arguments, shape=(1, 1, 1))
                continue
            with pytest.raises(ValueError, match=r"^values: expected numbers, got nan at position 7$"):
                EventBatch(*arguments, shape=(1, 1, 1))


def test_more_than_two_to_the_31_events_are_counted_right() -> None:
    events = 2**31 + 5
    try:
        indices = np.zeros(events, np.int32)  # pages that are only read share one page of zeros: this takes no memory
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


@pytest.mark.parametrize("steps", [0, 3, 7])
def test_truncate_keeps_the_first_steps(steps: int) -> None:
    x = (torch.rand(7, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    x *= torch.rand(7, 4, 5)
    lengths = torch.tensor([7, 2, 0, 5])
    x[torch.arange(7)[:, None] >= lengths] = 0
    batch = EventBatch.from_dense(x, lengths=lengths).truncate(steps)
    assert torch.equal(batch.to_dense(), x[:steps])
    assert batch.lengths is not None and batch.lengths.tolist() == lengths.clamp(max=steps).tolist()
    assert batch.num_steps == int(lengths.clamp(max=steps).sum())
    assert EventBatch.from_dense(x).truncate(steps).lengths is None
    assert EventBatch.from_dense(x).num_steps == 28


def test_truncate_refuses_steps_out_of_range() -> None:
    batch = EventBatch.from_dense(torch.ones(2, 1, 1))
    with pytest.raises(ValueError, match=r"steps: expected .*, got 3"):
        batch.truncate(3)
    with pytest.raises(TypeError, match="steps"):
        batch.truncate(1.5)  # type: ignore[arg-type]
