"""EventBatch: its contents, its agreement with the dense tensor in every operation, and invalid arguments."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
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
from srcell.data import LabelledEvents, collate
from support.events import SHAPE, VALID, assert_same, assert_valid, misaligned, random_dense
from support.refusals import Message, Refusal, refusals

BATCH = EventBatch.from_dense(torch.zeros(3, 2, 4))
SPIKES = EventBatch.from_dense(random_dense(SHAPE))
PAIR = (EventBatch.from_dense(random_dense((4, 1, 5))), 1)
HALF_OF_2_63 = EventBatch(torch.zeros(1, dtype=torch.int64), BATCH.indices, shape=(0, 2**62, 4))


def zeros(*shape: int) -> EventBatch:
    return EventBatch.from_dense(torch.zeros(shape))


def make_csr(columns: list[int], values: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(
        torch.tensor([0, 2, 2]), torch.tensor(columns), values, (2, 3), check_invariants=False
    )


VALID_CSR, LENGTHS = make_csr([0, 1], torch.ones(2)), torch.tensor([0, 1])
from_csr = partial(EventBatch.from_sparse_csr, shape=(1, 2, 3))
# Wrong arguments that must raise the same error.
OUTSIDE: list[Any] = [3, -4, 2**70, [0, 3], [-4], torch.tensor([5])]
WRONG_SAMPLES: list[Any] = ["12", 1.0, None, [0.0], [True], torch.tensor([0.5]), ["a"], [2**70], [[0], [0, 1]]]
WRONG_BATCHES: list[Any] = [5, torch.zeros(()), torch.zeros(1).expand(2**62), [SPIKES, torch.ones(4)]]
WRONG_PAIRS: list[Any] = [PAIR[0], PAIR[:1], (torch.ones(3), 1)]
WRONG_DTYPES: list[Any] = [torch.int64, torch.bool, torch.complex64, "float32"]


@refusals(
    *(Message(r"samples: expected .* in \[-3, 3\), got ", lambda x=x: SPIKES[x], IndexError) for x in OUTSIDE),
    *(Message("samples: expected .*, got ", lambda x=x: SPIKES[x], TypeError) for x in WRONG_SAMPLES),
    Refusal("samples", lambda: SPIKES[torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)], TypeError),
    Message(r"samples: expected one dimension, got shape \(1, 2\)", lambda: SPIKES[torch.tensor([[0, 1]])]),
    Refusal("x", lambda: EventBatch.from_dense(torch.zeros(3, 2, 4, dtype=torch.float16)), TypeError),
    # Regression: 2^64 - 1, which is -1 in int64, chose the last sample.
    Refusal("samples", lambda: BATCH[np.array([2**64 - 1], np.uint64)]),
    Message("batches: expected at least one batch, got none", lambda: EventBatch.cat([])),
    *(Message("batches: expected EventBatches, got ", lambda x=x: EventBatch.cat(x), TypeError) for x in WRONG_BATCHES),
    Message(r"batches: expected T = 4 and K = 5, .*\(5, 3, 5\) at 1", lambda: EventBatch.cat([SPIKES, zeros(5, 3, 5)])),
    Message(r"batches: expected T = 4 and K = 5, .*\(4, 3, 6\) at 1", lambda: EventBatch.cat([SPIKES, zeros(4, 3, 6)])),
    Message("batches: expected T of at most 4 ", lambda: EventBatch.cat([SPIKES, zeros(5, 3, 5)], steps=4)),
    Message("batches: expected device cpu, .* got meta at 1", lambda: EventBatch.cat([SPIKES, SPIKES.to("meta")])),
    Message("batches: expected T and B below", lambda: EventBatch.cat([HALF_OF_2_63, HALF_OF_2_63])),
    Message("steps: expected an int", lambda: EventBatch.cat([SPIKES], steps=-1)),
    Message("steps: expected an int", lambda: EventBatch.cat([SPIKES], steps=2**63)),
    Message("steps: expected an int", lambda: EventBatch.cat([SPIKES], steps=4.0), TypeError),  # type: ignore[arg-type]
    Message("steps: expected .*, got 5", lambda: SPIKES.truncate(5)),
    Refusal("steps", lambda: SPIKES.truncate(1.5), TypeError),  # type: ignore[arg-type]
    Message("samples: expected at least one pair, got none", lambda: collate([])),
    *(
        Message(r"samples: expected pairs .*, got .* at 1", lambda x=x: collate([PAIR, x]), TypeError)
        for x in WRONG_PAIRS
    ),
    Message(
        r"samples: expected pairs .*, got a pair of a tensor of torch.float32 and a label at 0: EventBatch\.",
        lambda: collate([(torch.ones(4, 5), 1)]),  # type: ignore[list-item]
        TypeError,
    ),
    Message(
        r"x: expected shape \(T, B, K\), got \(4, 5\): of a single sample pass x\[:, None\]",
        lambda: EventBatch.from_dense(torch.ones(4, 5)),
    ),
    Message("samples: expected batches of one sample, got one of 3 at 1", lambda: collate([PAIR, (SPIKES, 1)])),
    Message("batches: expected T of at most 4 and K = 5", lambda: collate([PAIR, (zeros(4, 1, 6), 1)])),
    Message("csr: expected a tensor, got list", lambda: from_csr([0, 1]), TypeError),
    Message("csr: expected layout torch.sparse_csr, got torch.strided", lambda: from_csr(torch.ones(2, 3))),
    Message(
        "csr: expected dtype .* got torch.int64", lambda: from_csr(make_csr([0, 1], torch.tensor([1, 2]))), TypeError
    ),
    Message("csr: expected a valid CSR tensor, got one for", lambda: from_csr(make_csr([0, 2**32 + 1], torch.ones(2)))),
    Message("csr: expected a valid CSR tensor, got one for", lambda: from_csr(make_csr([1, 0], torch.ones(2)))),
    Message(r"csr: expected shape \(B\*T, K\) = \(4, 3\), got \(2, 3\)", lambda: from_csr(VALID_CSR, shape=(2, 2, 3))),
    Message("values: expected .* nan at position 1", lambda: from_csr(make_csr([0, 1], torch.tensor([1, math.nan])))),
    Message(
        "lengths: expected no events past .* past length 0 of sample 0", lambda: from_csr(VALID_CSR, lengths=LENGTHS)
    ),
    *(Refusal("device", lambda x=x: BATCH.to(x)) for x in ("nonsense", 2**63)),
    *(Refusal("device", lambda x=x: BATCH.to(x), TypeError) for x in (np.zeros(3), [])),
    *(
        Message("dtype: expected a floating-point dtype", lambda x=x: SPIKES.to_dense(x), TypeError)
        for x in WRONG_DTYPES
    ),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


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
def test_dense_and_csr_tensors_to_events_and_back_are_exact(drawn: tuple[Tensor, Tensor | None]) -> None:
    x, lengths = drawn
    batch = EventBatch.from_dense(x, lengths)
    assert_valid(batch)
    expected = x if lengths is None else mask(x, lengths)
    dense, csr = batch.to_dense(x.dtype), batch.to_sparse_csr(x.dtype)
    assert dense.dtype == x.dtype and dense.is_contiguous()
    assert torch.equal(dense, expected)
    assert csr.layout == torch.sparse_csr and csr.dtype == x.dtype
    assert torch.equal(csr.to_dense(), expected.transpose(0, 1).flatten(0, 1))
    assert_same(EventBatch.from_sparse_csr(csr, shape=batch.shape, lengths=lengths), batch)
    assert batch.shape == tuple(x.shape) and len(batch) == x.shape[1]
    assert batch.num_steps == (x.shape[0] * x.shape[1] if lengths is None else lengths.sum())
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


def test_from_dense_takes_bools_and_arrays_of_any_layout() -> None:
    x = random_dense(SHAPE)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    for same in (x.bool(), x.numpy(), x.numpy().astype(">f4"), x.numpy()[::-1].copy()[::-1], x.double(), strided):
        assert_same(EventBatch.from_dense(same), SPIKES)


def test_from_dense_ignores_elements_past_a_samples_length() -> None:
    x = torch.full((3, 2, 2), math.nan)
    x[:2, 0] = x[:1, 1] = 1
    batch = EventBatch.from_dense(x, lengths=np.array([2, 1]))
    assert batch.num_events == 6
    assert batch.lengths is not None and batch.lengths.tolist() == [2, 1]


def test_events_of_one_input_in_one_row_add_up() -> None:
    offsets, indices = torch.tensor([0, 3, 4]), torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    values = torch.tensor([0.5, 2.0, 0.25, -1.0], requires_grad=True)
    ones, batch = (EventBatch(offsets, indices, x, shape=(2, 1, 2)) for x in (None, values))
    for dense_of in (lambda batch: batch.to_dense()[:, 0], lambda batch: batch.to_sparse_csr().to_dense()):
        assert dense_of(ones).tolist() == [[1, 2], [0, 1]]
        assert dense_of(batch).tolist() == [[2, 0.75], [0, -1]]
        weight = torch.tensor([[3.0, 5.0], [7.0, 11.0]])
        (gradient,) = torch.autograd.grad((dense_of(batch) * weight).sum(), values)
        assert gradient.tolist() == [5, 3, 5, 11]
    csr = batch.to_sparse_csr()
    assert (csr.crow_indices().tolist(), csr.col_indices().tolist()) == ([0, 2, 3], [0, 1, 1])
    # Sorted already, with an input that occurs twice.
    csr = EventBatch(
        torch.tensor([0, 0, 3]), torch.tensor([0, 1, 1], dtype=torch.int32), shape=(2, 1, 2)
    ).to_sparse_csr()
    assert csr.col_indices().tolist() == [0, 1] and csr.values().tolist() == [1, 2]


def test_gradients_flow_through_from_dense_even_if_all_values_are_1() -> None:
    x = random_dense(SHAPE).requires_grad_()
    batch = EventBatch.cat([EventBatch.from_dense(x)[1:], EventBatch.from_dense(x)[[0]]])
    (gradient,) = torch.autograd.grad(batch.to_dense().sum(), x)
    assert torch.equal(gradient, x.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_dense_gives_the_requested_dtype(dtype: torch.dtype) -> None:
    x = random_dense(SHAPE)
    assert torch.equal(EventBatch.from_dense(x).to_dense(dtype), x.to(dtype))
    assert torch.equal(EventBatch.from_dense(2 * x).to_dense(dtype), 2 * x.to(dtype))


@settings(deadline=None)
@given(dense_tensors(), st.data())
def test_selected_samples_and_steps_equal_those_of_the_dense_tensor(
    drawn: tuple[Tensor, Tensor | None], data: st.DataObject
) -> None:
    x, lengths = drawn
    batch, samples = EventBatch.from_dense(x, lengths), x.shape[1]
    expected = x if lengths is None else mask(x, lengths)
    sliced = data.draw(st.slices(samples))
    listed = data.draw(st.lists(st.integers(-samples, samples - 1))) if samples else []
    selections: list[Any] = [listed, tuple(listed), torch.tensor(listed, dtype=torch.int32), np.array(listed, int)]
    for selection, positions in [(sliced, list(range(samples))[sliced]), *((s, listed) for s in selections)]:
        part = batch[selection]
        assert_valid(part)
        assert torch.equal(part.to_dense(x.dtype), expected[:, positions])
        assert (part.lengths is None) == (lengths is None)
        assert lengths is None or torch.equal(part.lengths, lengths[positions])
    steps = data.draw(st.integers(0, x.shape[0]))
    part = batch.truncate(steps)
    assert_valid(part)
    assert torch.equal(part.to_dense(x.dtype), expected[:steps])
    assert (part.lengths is None) == (lengths is None)
    assert lengths is None or torch.equal(part.lengths, lengths.clamp(max=steps))


@pytest.mark.parametrize("convert", [int, np.int64, torch.tensor, lambda sample: np.array([sample % 3], np.uint64)])
@pytest.mark.parametrize("sample", [0, 2, -1, -3])
def test_one_sample_is_a_batch_of_one(sample: int, convert: Callable[[int], Any]) -> None:
    x = random_dense(SHAPE, ones=False)
    one = EventBatch.from_dense(x)[convert(sample)]
    assert_valid(one)
    assert len(one) == 1
    assert torch.equal(one.to_dense()[:, 0], x[:, sample])


@pytest.mark.parametrize("ones", [True, False])
def test_cat_joins_the_samples_of_an_iteration(ones: bool) -> None:
    x = random_dense(SHAPE, ones=ones)
    x[0, :, 0] = 1 if ones else 2
    batch = EventBatch.from_dense(x, torch.tensor([4, 1, 2]))
    samples = list(batch)
    assert [len(one) for one in samples] == [1, 1, 1]
    assert_same(EventBatch.cat(iter(batch)), batch)
    assert list(batch[:0]) == []
    assert_same(EventBatch.cat(list(batch.truncate(0))), batch.truncate(0))


def test_cat_keeps_double_precision() -> None:
    single, double = random_dense(SHAPE, ones=False), random_dense(SHAPE, 1, ones=False, dtype=torch.float64)
    whole = EventBatch.cat([EventBatch.from_dense(x) for x in (single, double, single != 0)])
    assert whole.values is not None and whole.values.dtype == torch.float64
    assert torch.equal(whole.to_dense(torch.float64), torch.cat([single.double(), double, (single != 0).double()], 1))


@settings(deadline=None)
@given(st.lists(dense_tensors(), min_size=1, max_size=4), st.integers(0, 2))
def test_cat_pads_shorter_batches_with_silent_steps(drawn: list[tuple[Tensor, Tensor | None]], more: int) -> None:
    batches = [EventBatch.from_dense(x[:, :, :1].float(), lengths) for x, lengths in drawn if x.shape[2]]
    batches.append(EventBatch.from_dense(random_dense((2, 1, 1))))
    steps = max(batch.shape[0] for batch in batches) + more
    whole = EventBatch.cat(batches, steps=steps)
    assert_valid(whole)
    assert whole.num_events == sum(batch.num_events for batch in batches)
    assert (whole.values is None) == all(batch.values is None for batch in batches)
    padded = [torch.cat([x := batch.to_dense(), x.new_zeros(steps - x.shape[0], *x.shape[1:])]) for batch in batches]
    assert torch.equal(whole.to_dense(), torch.cat(padded, 1))
    lengths = [batch._lengths_or_steps() for batch in batches]
    needed = any(batch.lengths is not None or batch.shape[0] < steps for batch in batches)
    assert (whole.lengths is not None) == needed
    assert whole.lengths is None or torch.equal(whole.lengths, torch.cat(lengths))
    equally_long = [batch for batch in batches if batch.shape[0] == 2]
    assert_same(EventBatch.cat(equally_long), EventBatch.cat(equally_long, steps=2))


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
    # Starts all threads; a forked worker does not have them.
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


def read_only(x: Tensor) -> np.ndarray:
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[Tensor], Any]] = {
    "array": lambda x: x.numpy(),
    "read-only": read_only,
    "big-endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "negative strides": lambda x: x.numpy()[::-1].copy()[::-1],
    "strided": lambda x: torch.stack([x, x], 1)[:, 0],
    "misaligned": misaligned,
    "misaligned array": lambda x: misaligned(x).numpy(),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_memory_layout_gives_the_same_batch(layout: Callable[[Tensor], Any]) -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=False), torch.tensor([4, 2, 0]))
    offsets, indices, values, lengths = (layout(x) for x in batch._tensors() if x is not None)
    for shape in (list(SHAPE), np.array(SHAPE)):
        again = EventBatch(offsets, indices, values, shape=shape, lengths=lengths)
        assert_same(again, batch)
        for x in again._tensors():
            assert x is not None and x.is_contiguous() and x.data_ptr() % x.element_size() == 0


def test_expanded_values_become_contiguous() -> None:
    again = EventBatch(SPIKES.offsets, SPIKES.indices, torch.ones(1).expand(SPIKES.num_events), shape=SHAPE)
    assert again.values is not None and again.values.is_contiguous()
    assert torch.equal(again.to_dense(), SPIKES.to_dense())


def test_infinite_values_are_kept() -> None:
    x = torch.tensor([[[math.inf, 0.0, -math.inf]]])
    assert torch.equal(EventBatch.from_dense(x).to_dense(), x)


def test_sizes_and_repr() -> None:
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


def test_pickles_and_copies_are_equal_and_keep_a_users_attribute() -> None:
    batch = EventBatch(**VALID)
    batch.name = "recording 7"  # type: ignore[attr-defined]
    for again in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert_same(again, batch)
        assert again.name == "recording 7"
    assert copy.deepcopy(batch.to("meta")).shape == batch.shape


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 0])])
def test_torch_load_reads_a_batch_with_weights_only(lengths: Tensor | None, tmp_path: Path) -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=lengths is None), lengths)
    torch.save({"input": batch}, tmp_path / "batch.pt")
    assert_same(torch.load(tmp_path / "batch.pt", weights_only=True)["input"], batch)


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 2, 0])])
def test_a_batch_is_a_pytree_of_its_tensors(lengths: Tensor | None) -> None:
    batch = EventBatch.from_dense(random_dense(SHAPE, ones=lengths is None), lengths)
    leaves, spec = pytree.tree_flatten({"x": batch})
    assert len(leaves) == (2 if lengths is None else 4)
    assert pytree.tree_map(lambda x: x.to("meta"), batch).device.type == "meta"
    spec_again = pytree.treespec_loads(pytree.treespec_dumps(spec))
    assert spec_again == spec
    for tree in (spec, spec_again):
        assert pytree.tree_unflatten(leaves, tree)["x"] == batch
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(batch)[0]]
    assert paths[:2] == [".offsets", ".indices"]


WITHOUT_OPTIONAL = VALID | {"values": None, "lengths": None}


@pytest.mark.parametrize(
    ("parts", "changes"),
    [
        (VALID, {"offsets": torch.tensor([0, 1, 1, 2, 3])}),
        (VALID, {"indices": torch.tensor([2, 1, 0], dtype=torch.int32)}),
        (VALID, {"values": torch.tensor([1.0, 2.0, 4.0])}),
        (VALID, {"values": VALID["values"].double()}),
        (VALID, {"shape": (2, 2, 4)}),
        (VALID, {"shape": (4, 1, 3), "lengths": torch.tensor([3])}),
        (VALID, {"lengths": torch.tensor([2, 2])}),
        # Batches with the same meaning
        (WITHOUT_OPTIONAL, {"values": torch.ones(3)}),
        (WITHOUT_OPTIONAL, {"lengths": torch.tensor([2, 2])}),
        (WITHOUT_OPTIONAL, {"indices": VALID["indices"].flip(0)}),
    ],
)
def test_batches_are_equal_if_all_their_parts_are(parts: dict[str, Any], changes: dict[str, Any]) -> None:
    batch = EventBatch(**parts)
    assert batch == EventBatch(**{name: x.clone() if isinstance(x, Tensor) else x for name, x in parts.items()})
    assert batch != EventBatch(**{**parts, **changes})
    assert batch != batch.to("meta")
    assert batch != "batch"
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


def test_the_host_waits_for_copies_unless_non_blocking_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_default_device_does_not_affect_the_parts_of_a_batch() -> None:
    calls: list[Callable[[], EventBatch | Tensor]] = [
        lambda: SPIKES.truncate(2),
        lambda: SPIKES[1],
        lambda: SPIKES[[1, 0]],
        lambda: EventBatch.cat([SPIKES, SPIKES.truncate(2)], steps=5),
        SPIKES.to_dense,
    ]
    for call in calls:
        with torch.device("meta"):
            made = call()
        expected = call()
        assert made.device.type == "cpu"
        assert made == expected if isinstance(made, EventBatch) else torch.equal(made, expected)


def test_selecting_labelled_recordings_checks_the_numbers() -> None:
    samples = LabelledEvents(EventBatch.from_dense(torch.eye(3)[:, :, None].contiguous()), torch.arange(3))
    assert samples.select([2, 0]).labels.tolist() == [2, 0]  # type: ignore[arg-type]
    for index in (torch.zeros(1), torch.tensor([[0]])):
        with pytest.raises((TypeError, ValueError), match=r"^index: expected"):
            samples.select(index)


def test_a_dense_batch_passes_tangents_on_and_values_may_be_mapped() -> None:
    x, tangent = torch.eye(3)[:, None].contiguous(), torch.ones(3, 1, 3)
    with torch.autograd.forward_ad.dual_level():
        values = EventBatch.from_dense(torch.autograd.forward_ad.make_dual(x, tangent)).values
        assert values is not None and torch.autograd.forward_ad.unpack_dual(values).tangent.tolist() == [1, 1, 1]
    batch = EventBatch.from_dense(x)
    mapped = torch.func.vmap(lambda v: EventBatch(batch.offsets, batch.indices, v, shape=batch.shape).to_dense())
    assert torch.equal(
        mapped(torch.tensor([[1.0, 1, 1], [2, 3, 4]])).sum((2, 3)), torch.tensor([[1.0, 1, 1], [2, 3, 4]])
    )
    with torch.no_grad():
        assert EventBatch.from_dense(x.requires_grad_()).values is None
