"""EventBatch: its contents, its agreement with the dense tensor in every operation, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from srcell.events.selection import lengths_or_steps
from support.events import SHAPE, VALID, assert_same, assert_valid, random_dense
from support.refusals import assert_refused

BATCH = EventBatch.from_dense(torch.zeros(3, 2, 4))


def mask(x: Tensor, lengths: Tensor) -> Tensor:
    """The dense tensor with zeros past each sample's length."""
    return torch.where((torch.arange(x.shape[0])[:, None] < lengths)[:, :, None], x, 0)


@st.composite
def dense_tensors(draw: st.DrawFn) -> tuple[Tensor, Tensor | None]:
    """A dense tensor, whose sizes may be 0, and lengths or None."""
    steps, batch, inputs = (draw(st.integers(0, 5)) for _ in range(3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = random_dense((steps, batch, inputs), draw(st.integers(0, 999)), ones=draw(st.booleans()), dtype=dtype)
    if draw(st.booleans()):
        return x, None
    return x, torch.tensor([draw(st.integers(0, steps)) for _ in range(batch)], dtype=torch.int64)


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
    twice = EventBatch(torch.tensor([0, 0, 3]), torch.tensor([0, 1, 1], dtype=torch.int32), shape=(2, 1, 2))
    assert (csr := twice.to_sparse_csr()).col_indices().tolist() == [0, 1] and csr.values().tolist() == [1, 2]


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


def test_an_unsigned_number_is_not_taken_for_a_negative_one() -> None:
    """Regression: 2^64 - 1, which is -1 in int64, chose the last sample."""
    assert_refused(ValueError, "samples", BATCH.__getitem__, np.array([2**64 - 1], np.uint64))
    assert BATCH[np.array([1], np.uint64)] == BATCH[1]


def test_quantised_numbers_are_no_integers() -> None:
    samples = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    assert_refused(TypeError, "samples", BATCH.__getitem__, samples)


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


@pytest.mark.parametrize("batches", [5, None, np.array(0.5), torch.zeros(()), torch.zeros(1).expand(2**62)])
def test_what_is_no_sequence_of_batches_is_refused(batches: Any) -> None:
    with pytest.raises(TypeError, match=r"^batches: expected EventBatches, got "):
        EventBatch.cat(batches)


def test_more_samples_than_can_be_counted_are_not_joined() -> None:
    half = EventBatch(torch.zeros(1, dtype=torch.int64), BATCH.indices, shape=(0, 2**62, 4))
    with pytest.raises(ValueError, match=r"^batches: expected T and B below"):
        EventBatch.cat([half, half])


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
    lengths = [lengths_or_steps(batch) for batch in batches]
    needed = any(batch.lengths is not None or batch.shape[0] < steps for batch in batches)
    assert (whole.lengths is not None) == needed
    assert whole.lengths is None or torch.equal(whole.lengths, torch.cat(lengths))


class Recordings(Dataset[tuple[EventBatch, int]]):
    """Ten samples of different lengths, one without steps; defined at module level for spawned workers."""

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
    # Starts all threads, which a forked worker does not have.
    EventBatch(torch.tensor([0, 200_000]), torch.zeros(200_000, dtype=torch.int32), shape=(1, 1, 1))
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


@pytest.mark.parametrize(
    ("error", "device"), [(ValueError, "nonsense"), (ValueError, 2**63), (TypeError, np.zeros(3)), (TypeError, [])]
)
def test_a_device_that_is_none_is_named(error: type[Exception], device: Any) -> None:
    assert_refused(error, "device", BATCH.to, device)


def test_the_host_waits_for_copies_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def to(x: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        asked.append(non_blocking)
        return x

    monkeypatch.setattr(Tensor, "to", to)
    BATCH.to("cpu"), BATCH.to("cpu", non_blocking=True)
    assert asked == [False, False, True, True]


def test_every_tensor_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(x: Tensor) -> Tensor:
        pinned.append(x.data_ptr())
        return x.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 1]))
    assert_same(batch.pin_memory(), batch)
    assert len(set(pinned)) == 4


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, "float32"])
def test_the_dense_tensor_is_one_of_floating_point_numbers(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"^dtype: expected a floating-point dtype, got "):
        EventBatch.from_dense(random_dense(SHAPE)).to_dense(dtype)


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


def test_a_default_device_does_not_reach_the_parts_of_a_batch() -> None:
    batch = EventBatch.from_dense(random_dense((5, 3, 7)))
    calls: list[Callable[[], EventBatch | Tensor]] = [
        lambda: batch.truncate(2),
        lambda: batch[1],
        lambda: batch[[1, 0]],
        lambda: EventBatch.cat([batch, batch.truncate(2)], steps=5),
        batch.to_dense,
    ]
    for call in calls:
        with torch.device("meta"):
            made = call()
        expected = call()
        assert made.device.type == "cpu"
        assert made == expected if isinstance(made, EventBatch) else torch.equal(made, expected)
