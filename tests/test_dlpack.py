"""Arrays of other libraries: taken and given by DLPack, without a copy where the types allow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import srcell
from srcell import EventBatch, runtime
from support.dlpack import Foreign
from support.networks import bytes_of


def elsewhere(array: Any) -> Foreign:
    """An array on another device, as NumPy and torch see one that they cannot read."""
    return Foreign(array, error=BufferError("the array is on a device of its own"))


OFFSETS, INDICES, VALUES = np.array([0, 1, 1, 3]), np.array([2, 0, 1], np.int32), np.array([1, 2, 3], np.float32)


def batch_of(*arrays: Any, lengths: Any = None) -> EventBatch:
    return EventBatch(*arrays, shape=(3, 1, 4), lengths=lengths)


def test_a_batch_shares_the_memory_of_its_arrays() -> None:
    lengths = np.array([3])
    batch = batch_of(*map(Foreign, (OFFSETS, INDICES, VALUES)), lengths=Foreign(lengths))
    assert batch == batch_of(OFFSETS, INDICES, VALUES, lengths=lengths)
    kept: tuple[NDArray[Any], ...] = (OFFSETS, INDICES, VALUES, lengths)
    for tensor, array in zip((batch.offsets, batch.indices, batch.values, batch.lengths), kept, strict=True):
        assert isinstance(tensor, torch.Tensor) and tensor.data_ptr() == array.ctypes.data
        assert np.from_dlpack(tensor).ctypes.data == array.ctypes.data


def test_read_only_arrays_are_taken_where_their_library_gives_them() -> None:
    values = VALUES.copy()
    values.flags.writeable = False
    try:
        np.from_dlpack(Foreign(values))
    except (BufferError, TypeError):  # before NumPy 2.1
        with pytest.raises(TypeError, match=r"^values: expected an array that torch can hold, got Foreign: .*readonly"):
            batch_of(Foreign(OFFSETS), Foreign(INDICES), Foreign(values))
    else:
        assert batch_of(Foreign(OFFSETS), Foreign(INDICES), Foreign(values)) == batch_of(OFFSETS, INDICES, VALUES)


def backwards(array: NDArray[Any]) -> Foreign:
    """The same numbers, last first in memory along every dimension."""
    view = np.flip(np.flip(array).copy())
    assert max(view.strides) < 0
    return Foreign(view)


@pytest.mark.parametrize("of", [Foreign, backwards])
def test_dense_arrays_and_integers_are_taken(of: Any) -> None:
    dense, lengths = np.arange(24, dtype=np.float32).reshape(3, 2, 4) % 3, np.array([3, 2])
    assert EventBatch.from_dense(of(dense), of(lengths)) == EventBatch.from_dense(dense, lengths)
    times, indices = np.array([0.0, 1.5, 5.0]), np.array([1, 2, 3])
    binned = EventBatch.from_events(of(times), of(indices), bin_width=1, inputs=4)
    assert binned == EventBatch.from_events(times, indices, bin_width=1, inputs=4)


def test_reversed_views_are_taken() -> None:
    batch = EventBatch(
        *map(backwards, (np.array([0, 1, 1, 3, 3, 4, 4]), np.array([2, 0, 1, 3], np.int32), np.arange(4.0))),
        shape=(3, 2, 4),
        lengths=backwards(np.array([3, 2])),
    )
    assert batch.offsets.tolist() == [0, 1, 1, 3, 3, 4, 4] and batch.indices.tolist() == [2, 0, 1, 3]
    assert batch.values is not None and batch.values.tolist() == [0, 1, 2, 3]
    assert batch.lengths is not None and batch.lengths.tolist() == [3, 2]


def test_strides_of_dimensions_of_one_element_do_not_matter() -> None:
    record = np.zeros(1, [("flag", "i1"), ("value", "f8")])  # of 9 bytes
    offsets = np.array([0, 1])[::-1][::-1]
    for one in (np.array([5], np.int32)[::-1], Foreign(np.array([5], np.int32)[::-1])):
        batch = EventBatch(offsets, one, record["value"], shape=(1, 1, 6))
        assert batch.indices.tolist() == [5] and batch.values is not None and batch.values.tolist() == [0]
    none = EventBatch(np.zeros(1, np.int64)[::-1], np.zeros(0, np.int32)[::-1], shape=(0, 1, 6))
    assert none.num_events == 0
    assert EventBatch.from_dense(np.ones((1, 2, 3))[::-1]) == EventBatch.from_dense(np.ones((1, 2, 3)))


@pytest.mark.parametrize("device", [(1, 0), (2, 0), (4, 0), (10, 3), None, "cpu"])
def test_an_array_is_where_its_capsule_says(device: object) -> None:
    arrays = OFFSETS, INDICES, VALUES
    given = [Foreign(np.flip(np.flip(array).copy()), device) for array in arrays]
    assert batch_of(*given) == batch_of(*arrays)


def test_arrays_with_an_offset_are_taken() -> None:
    padded = np.array([0, 0, *VALUES], np.float32)
    offset = Foreign(padded[2:], data=padded.ctypes.data, byte_offset=8)
    assert batch_of(OFFSETS, INDICES, offset) == batch_of(OFFSETS, INDICES, VALUES)


class Half:
    """An object with one of DLPack's methods."""

    def __dlpack__(self, **options: Any) -> Any:
        return None


REVERSED = np.array([0, 1, 1, 3])[::-1]


@pytest.mark.parametrize(
    "array",
    [
        Foreign(np.array(["a"])),
        elsewhere(OFFSETS),
        Half(),
        *(
            Foreign(OFFSETS, error, error)
            for error in (KeyError("boom"), AssertionError(), OSError("no device"), ZeroDivisionError())
        ),
        *(Foreign(OFFSETS, (kind, 0), KeyError("boom")) for kind in (1, 2, 4)),
        *(Foreign(REVERSED, (kind, 0), device_type=kind) for kind in (2, 10)),
        Foreign(OFFSETS, (2, 99), device_type=2, device_id=99),
        Foreign(OFFSETS, (4, 0), device_type=4),
        Foreign(REVERSED, code=4, bits=16),  # bfloat16, which NumPy does not have
        Foreign(OFFSETS, ndim=-1),
        Foreign(OFFSETS, bits=4),
    ],
)
def test_what_torch_cannot_hold_is_named(array: Foreign) -> None:
    with pytest.raises(TypeError, match=r"^offsets: expected an array that torch can hold, got \w+: ."):
        batch_of(array, INDICES)


def test_strides_beyond_all_memory_are_named() -> None:
    far = np.lib.stride_tricks.as_strided(OFFSETS, (99, 2), (2**62, 8))
    with pytest.raises(TypeError, match=r"^offsets: expected an array that torch can hold, got Foreign: expected stri"):
        batch_of(Foreign(far, code=4, bits=16), INDICES)  # bfloat16


def test_a_network_takes_arrays_and_gives_them() -> None:
    torch.manual_seed(0)
    net = runtime.Network(bytes_of(srcell.models.SRCClassifier(4, [8], 3)))
    dense = (np.random.default_rng(0).random((20, 2, 4)) < 0.3).astype(np.float32)
    logits = net.run(Foreign(dense))
    assert np.array_equal(logits, net.run(dense)) and logits.any()
    assert np.array_equal(torch.from_dlpack(logits).numpy(), logits)
    streams = net.stream(), net.stream()
    for step in dense[:, 0]:
        streams[0].step(Foreign(step.nonzero()[0]))
        streams[1].step(step.nonzero()[0])
    assert np.array_equal(streams[0].logits(), streams[1].logits())
    with pytest.raises(TypeError, match=r"^events: expected an array of numbers, got Foreign: the array is on"):
        net.run(elsewhere(dense))


@pytest.mark.release
def test_arrays_of_jax_are_taken_and_given() -> None:
    jnp = pytest.importorskip("jax.numpy", reason="make release-check installs jax")

    jax_arrays = [jnp.asarray(array) for array in (INDICES, VALUES)]
    batch = batch_of(OFFSETS, *jax_arrays)
    assert batch == batch_of(OFFSETS, INDICES, VALUES)
    for tensor, array in zip((batch.indices, batch.values), jax_arrays, strict=True):
        assert isinstance(tensor, torch.Tensor) and tensor.data_ptr() == array.unsafe_buffer_pointer()
        assert np.array_equal(jnp.from_dlpack(tensor), array)
    net = runtime.Network(bytes_of(srcell.models.SRCClassifier(4, [8], 3)))
    dense = (np.random.default_rng(0).random((20, 2, 4)) < 0.3).astype(np.float32)
    assert np.array_equal(net.run(jnp.asarray(dense)), net.run(dense))
    assert np.array_equal(jnp.from_dlpack(net.run(dense)), net.run(dense))
