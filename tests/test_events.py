"""EventBatch: what it holds, that it agrees with the dense tensor in everything, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from srcell import EventBatch

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


def test_every_tensor_moves_to_the_device() -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    assert_same(batch.to("cpu"), batch)
    moved = batch.to("meta")
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
        ("offsets", torch.tensor([0, 1, 1, 3, 3]).to_sparse(), "a dense tensor, got layout torch.sparse_coo"),
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
