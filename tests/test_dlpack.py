"""Arrays of other libraries: taken and given by DLPack, without a copy where the types allow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import srcell
from srcell import EventBatch, runtime
from test_runtime import bytes_of


class Foreign:
    """An array that has nothing but DLPack's methods."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Elsewhere(Foreign):
    """An array on another device, as NumPy and torch see one that they cannot read."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the array is on a device of its own")


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
        torch.from_dlpack(Foreign(values))
    except BufferError:  # before NumPy 2.1, or a torch that asks for the old protocol
        with pytest.raises(TypeError, match=r"^values: expected an array that torch can hold, got Foreign: .*readonly"):
            batch_of(Foreign(OFFSETS), Foreign(INDICES), Foreign(values))
    else:
        assert batch_of(Foreign(OFFSETS), Foreign(INDICES), Foreign(values)) == batch_of(OFFSETS, INDICES, VALUES)


def test_dense_arrays_and_integers_are_taken() -> None:
    dense = np.arange(24, dtype=np.float32).reshape(3, 2, 4) % 3
    batch = EventBatch.from_dense(Foreign(dense), Foreign(np.array([3, 2])))
    assert batch == EventBatch.from_dense(dense, np.array([3, 2]))
    times, indices = np.array([0.0, 1.5, 5.0]), np.array([1, 2, 3])
    binned = EventBatch.from_events(Foreign(times), Foreign(indices), bin_width=1, inputs=4)
    assert binned == EventBatch.from_events(times, indices, bin_width=1, inputs=4)


class Half:
    """An object with one of DLPack's methods."""

    def __dlpack__(self, **options: Any) -> Any:
        return None


@pytest.mark.parametrize("array", [Foreign(np.array(["a"])), Elsewhere(OFFSETS), Half()])
def test_what_torch_cannot_hold_is_named(array: Foreign) -> None:
    with pytest.raises(TypeError, match=r"^offsets: expected an array that torch can hold, got \w+: "):
        batch_of(array, INDICES)


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
    with pytest.raises(TypeError, match=r"^events: expected an array of numbers, got Elsewhere: the array is on"):
        net.run(Elsewhere(dense))


@pytest.mark.release
def test_arrays_of_jax_are_taken_and_given() -> None:
    jnp = pytest.importorskip("jax.numpy", reason="make release-check SUBJECTS=tests installs jax")

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
